#!/usr/bin/env python3
"""What every type costs in quality: quantises models to each type that nibble-quantize has, compares
each result with the original by nibble-perplexity, and writes the tables into docs/quantisation.md.

    cmake --preset release && cmake --build --preset release
    scripts/measure_formats.py

Needs nothing but Python's standard library and the programs. The shipped model is measured, and
stories260K-x256-f32.gguf if it is in the folder that NIBBLE_TEST_DATA names, or in the folder "shared"
beside the project.

The shipped model is compared on its held-out text. The other's corpus is not here, so it is compared on
what it writes itself, token by token, at temperature 1: the divergence is then an average over the
model's own distribution. Importance is measured on what a model writes itself, with other seeds.
"""
import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- what follows is written by scripts/measure_formats.py -->"
END = "<!-- end of what scripts/measure_formats.py writes -->"
SEPARATOR = "<|next document|>"


class Programs:
    """The programs of a build folder. Each runs on one thread; several run at once."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def run(self, name, *arguments):
        words = [str(self.folder / f"nibble-{name}"), *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(words)}\n{done.stderr}")
        return done.stdout

    def types(self):
        """Names of all types, as --help lists them."""
        listed = self.run("quantize", "--help").split("Types:", 1)[1]
        return re.findall(r"^  (\S+)\s+\S", listed, re.MULTILINE)

    def sample(self, model, seeds, path):
        """Writes what the model says by itself, a document for each seed."""
        texts = together(lambda seed: self.run("generate", model, "", "-n", "400", "--temperature", "1", "--top-k", "0",
                                               "--top-p", "1", "--min-p", "0", "--seed", seed, "-t", "1"), seeds)
        path.write_text(SEPARATOR.join(t.rstrip("\n") for t in texts if t.strip()))


def together(work, values):
    """[work(v) for v in values], several at once."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, values))


def measure(programs, model, type_name, importance, text, folder):
    """One quantised file beside its original: numbers of both reports."""
    print(f"{model.name}: {type_name}{' with importance' if importance else ''}", file=sys.stderr)
    name = type_name + ("-weighted" if importance else "")
    out, report = folder / f"{name}.gguf", folder / f"{name}.json"
    weighted = ["--imatrix", importance] if importance else []
    programs.run("quantize", model, out, type_name, "--json", report, "-t", "1", *weighted)
    made = json.loads(report.read_text())
    programs.run("perplexity", out, "--against", model, *text, "--json", report, "-t", "1")
    found = json.loads(report.read_text())
    out.unlink()
    return {"bits": 8 * made["bytes_to"] / made["weights"], "weighted": any(t["weighted"] for t in made["tensors"]),
            "bytes": [t["bytes_to"] for t in made["tensors"]], **found}


def significant(x):
    return "0" if x == 0 else f"{x:.2g}" if x < 1e-3 else f"{x:.4f}" if x < 1 else f"{x:.2f}"


def row(name, plain, weighted):
    of = plain["comparison"]
    line = [name, f"{plain['bits']:.2f}", f"{plain['model']['perplexity']:.4f}",
            f"{significant(of['kl_mean'])} ± {significant(of['kl_error'])}", significant(of["kl_99"]), f"{100 * of['same_top']:.2f} %"]
    # a mix may spend fewer bits where errors are weighted; then the two are not the same file
    differs = weighted and weighted["bytes"] != plain["bytes"]
    line.append("" if not weighted else
                significant(weighted["comparison"]["kl_mean"]) + (f" ({weighted['bits']:.2f} bits)" if differs else ""))
    return f"| {' | '.join(line)} |"


def table(programs, title, model, types, text, documents, folder):
    """A section for one model."""
    own, other = folder / "own.txt", folder / "importance.txt"
    importance = folder / "importance.gguf"
    apart = ["--documents", SEPARATOR]
    programs.sample(model, range(1001, 1001 + documents), other)
    programs.run("imatrix", model, "--text", other, *apart, "-o", importance, "-t", "1")
    if text is None:
        programs.sample(model, range(1, 1 + documents), own)
        text = ["--text", own, *apart]
    kinds = [(t, weight) for t in types for weight in (None, importance)]
    found = dict(zip(kinds, together(lambda kind: measure(programs, model, *kind, text, folder), kinds)))
    lines = []
    for type_name in types:
        plain, weighted = found[type_name, None], found[type_name, importance]
        lines.append((plain["bits"], row(type_name, plain, weighted if weighted["weighted"] else None)))
    original, tokens = plain["reference"]["perplexity"], plain["tokens"]  # the same for every type
    head = (f"### {title}\n\n{tokens} tokens predicted; the original's perplexity is {original:.4f}.\n\n"
            "| Type | bits a weight | perplexity | KL divergence, mean | 99 % | same top token | mean with importance |\n"
            "|---|--:|--:|--:|--:|--:|--:|\n")
    return head + "\n".join(line for _, line in sorted(lines, key=lambda pair: -pair[0])) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", default=ROOT / "build/release/examples", help="folder of the nibble-* programs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/quantisation.md", help="file with the two markers")
    parser.add_argument("--types", nargs="*", help="only these types")
    parser.add_argument("--heldout", type=int, default=50, metavar="N", help="documents of the held-out text (default: 50)")
    parser.add_argument("--documents", type=int, default=20, metavar="N", help="documents that a model writes (default: 20)")
    options = parser.parse_args()
    page = options.out.read_text()
    if BEGIN not in page or END not in page:
        sys.exit(f"{options.out} lacks the lines\n{BEGIN}\n{END}")
    programs = Programs(options.programs)
    types = options.types or programs.types()
    shared = Path(os.environ.get("NIBBLE_TEST_DATA", ROOT.parent / "shared"))
    models = [(f"The shipped model, from Q8_0, on the first {options.heldout} documents of its held-out text", ROOT / "examples/models/nibble-tales-q8_0.gguf",
               ["--chunks", options.heldout]),
              ("stories260K-x256, from F32, on text of its own", shared / "models/stories260K-x256-f32.gguf", None)]
    sections = []
    with tempfile.TemporaryDirectory() as folder:
        for title, model, text in models:
            if model.exists():
                sections.append(table(programs, title, model, types, text, options.documents, Path(folder)))
            else:
                print(f"{model} is not there: left out", file=sys.stderr)
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    options.out.write_text(f"{before}{BEGIN}\n\n" + "\n".join(sections) + f"\n{END}{after}")


if __name__ == "__main__":
    main()
