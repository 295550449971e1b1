#!/usr/bin/env python3
"""What every type of keys and values costs in quality: compares a model with itself, with a cache of that
type against one of f16, by nibble-perplexity, and writes the tables into docs/kv-cache.md.

    cmake --preset release && cmake --build --preset release
    scripts/measure_kv.py

Needs nothing but Python's standard library and the programs. The shipped model is measured, and
stories260K-x256-f32.gguf if it is in the folder that NIBBLE_TEST_DATA names, or in the folder "shared"
beside the project.

The shipped model reads its held-out text. The other's corpus is not here, so it reads what it writes
itself: with the sampling that programs use unless told otherwise, and at temperature 1 with no token
left out, where each second word is a close choice. Models are measured at 512 tokens and at their full
context; where these are the same, once.
"""
import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- what follows is written by scripts/measure_kv.py -->"
END = "<!-- end of what scripts/measure_kv.py writes -->"
SEPARATOR = "<|next document|>"
SHORT = 512  # tokens

# keys, values
TYPES = [("f16", "f16"), ("bf16", "bf16"), ("q8", "q8"), ("q8_0", "q8_0"), ("q8", "q4"), ("q8_0", "q4_0"), ("q4", "q4"), ("q4_0", "q4_0")]
ROTATIONS = [("off", "none"), ("on,off", "keys"), ("on", "both")]


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

    def context(self, model, folder):
        """Tokens that a model was trained for."""
        path = folder / "inspect.json"
        self.run("inspect", model, "--json", path)
        keys = json.loads(path.read_text())["metadata"]
        return int(keys[f"{keys['general.architecture']}.context_length"])

    def sample(self, model, tokens, seeds, options, path):
        """Writes what the model says by itself, a document for each seed."""
        texts = together(lambda seed: self.run("generate", model, "", "-n", tokens, *options, "--seed", seed, "-t", "1"), seeds)
        path.write_text(SEPARATOR.join(t.rstrip("\n") for t in texts if t.strip()))


def together(work, values):
    """[work(v) for v in values], several at once."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, values))


def measure(programs, model, kind, text, activations, folder):
    """One type of cache beside f16: the report of nibble-perplexity."""
    types, rotation = kind
    name = f"{','.join(types)} {rotation}"
    print(f"{model.name}, {activations} activations: {name}", file=sys.stderr)
    report = folder / f"{name}.json"
    programs.run("perplexity", model, *text, "--activations", activations, "--kv", ",".join(types), "--kv-rotation", rotation,
                 "--kl-against", "f16,f16", "--against-kv-rotation", "off", "--json", report, "-t", "1")
    return json.loads(report.read_text())


def significant(x):
    return "0" if x == 0 else f"{x:.1e}" if x < 1e-4 else f"{x:.2g}" if x < 1e-3 else f"{x:.4f}" if x < 1 else f"{x:.2f}"


def row(types, rotated, found):
    of, keys, values = found["comparison"], *types
    size, reference = found["model"]["kv_bytes_per_token"], found["reference"]["kv_bytes_per_token"]
    return "| " + " | ".join([
        keys if keys == values else f"{keys} / {values}", rotated, str(size), f"{100 * (1 - size / reference):.2f} %",
        f"{significant(of['kl_mean'])} ± {significant(of['kl_error'])}", significant(of["kl_99"]), significant(of["kl_max"]),
        f"{100 * of['same_top']:.2f} ± {100 * of['same_top_error']:.2f} %",
        f"{of['perplexity_ratio']:.5f} ± {of['perplexity_ratio_error']:.5f}"]) + " |"


def table(programs, title, model, text, activations, folder):
    """A section: one model, one length."""
    kinds = [(types, rotation) for types in TYPES for rotation, _ in ROTATIONS]
    found = dict(zip(kinds, together(lambda kind: measure(programs, model, kind, text, activations, folder), kinds)))
    one = found[kinds[0]]
    lines = [row(types, rotated, found[types, rotation]) for types in TYPES for rotation, rotated in ROTATIONS]
    return (f"### {title}\n\n{one['tokens']} tokens predicted; with f16 the perplexity is {one['reference']['perplexity']:.4f}.\n\n"
            "| keys / values | rotated | bytes a token | less than f16 | KL divergence, mean | 99 % | greatest | same top token | perplexity ratio |\n"
            "|---|---|--:|--:|--:|--:|--:|--:|--:|\n" + "\n".join(lines) + "\n")


def sections_of(programs, name, model, text_of, kinds_of_activations, only, folder):
    """All tables of a model whose titles contain `only`, by title. text_of(length): options that make nibble-perplexity read so many
    tokens together."""
    context = programs.context(model, folder)
    lengths = sorted({min(SHORT, context), context})
    note = "" if len(lengths) > 1 else f" (its full context is {context} tokens, so there is no other length)"
    sections = {}
    for length in lengths:
        for activations in kinds_of_activations:
            title = f"{name}, {activations} activations, {length} tokens"
            if only not in title:
                continue
            made = table(programs, title, model, text_of(length), activations, folder)
            sections[title] = made.replace(" tokens predicted;", f" tokens predicted{note};", 1)
    return sections


def sections_on(page):
    """What the page has already, by title."""
    parts = page.split(BEGIN)[1].split(END)[0].split("### ")[1:]
    return {part.split("\n", 1)[0]: f"### {part.rstrip()}\n" for part in parts}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", default=ROOT / "build/release/examples", help="folder of the nibble-* programs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/kv-cache.md", help="file with the two markers")
    parser.add_argument("--chunks", type=int, default=1000, metavar="N", help="at most so many chunks of the held-out text (default: all)")
    parser.add_argument("--documents", type=int, default=120, metavar="N", help="documents that a model writes (default: 120)")
    parser.add_argument("--only", default="", metavar="TEXT", help="measure tables with this in their title; leave the others as they are")
    options = parser.parse_args()
    page = options.out.read_text()
    if BEGIN not in page or END not in page:
        sys.exit(f"{options.out} lacks the lines\n{BEGIN}\n{END}")
    programs = Programs(options.programs)
    shared = Path(os.environ.get("NIBBLE_TEST_DATA", ROOT.parent / "shared"))
    shipped, other = ROOT / "examples/models/nibble-tales-q8_0.gguf", shared / "models/stories260K-x256-f32.gguf"
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)

        def heldout(length):
            # every token is predicted once, after half a context at least
            return ["--text", ROOT / "examples/models/heldout.txt", "--parse-special", "--chunk", length, "--stride", length // 2,
                    "--chunks", options.chunks]

        def written(*sampling):
            def text_of(length):
                path = folder / "own.txt"
                programs.sample(other, length - 1, range(1, 1 + options.documents), sampling, path)
                return ["--text", path, "--documents", SEPARATOR, "--chunk", length]
            return text_of

        name, only = "stories260K-x256 (F32)", options.only
        sections = sections_on(page)
        sections |= sections_of(programs, "The shipped model (Q8_0)", shipped, heldout, ["float", "int8"], only, folder)
        if other.exists():
            sections |= sections_of(programs, f"{name}, usual sampling", other, written(), ["float"], only, folder)
            plain = ["--temperature", "1", "--top-k", "0", "--top-p", "1", "--min-p", "0"]
            sections |= sections_of(programs, f"{name}, temperature 1", other, written(*plain), ["float"], only, folder)
        else:
            print(f"{other} is not there: its tables are left as they are", file=sys.stderr)
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    options.out.write_text(f"{before}{BEGIN}\n\n" + "\n".join(sections.values()) + f"\n{END}{after}")


if __name__ == "__main__":
    main()
