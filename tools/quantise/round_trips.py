#!/usr/bin/env python3
"""Converts models from every format to every format with nibble-quantize, and reads each result with
the gguf package, which knows nothing of nibble.

  round_trips.py --programs build/release/examples --data ../shared [--models 'stories*'] [--jobs 2]

For each model F and formats A and B: F -> A -> B. Of every file it checks, through gguf.GGUFReader,
that names, order and shapes of the tensors are F's, that types are those of the program's report,
that the metadata are F's but for the two keys that the program sets, and that no byte is missing or
left over. Of every F -> A all tensors are decoded by the package and must be finite and as near to F
as the format allows. Every result is loaded by nibble-logits; its logits are compared with the
reference logits of F: their distance (relative rms) must be within the bound of LOGITS for A, or
for the coarser of A and B twice that. Formats of 2 bits or less destroy a model that was not
trained for them: its logits must be finite, no more.

Needs: pip install gguf numpy
"""
import argparse
import glob
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np

# Formats, each with the greatest relative rms error of the weights and of the logits.
WEIGHTS = {"f32": 1e-6, "f16": 1e-3, "bf16": 4e-3, "q8_0": 0.01, "q6_k": 0.03, "q5_k": 0.06, "q5_1": 0.06, "q5_0": 0.07,
           "q4_k": 0.11, "q4_1": 0.11, "q4_0": 0.14, "iq4_nl": 0.11, "iq4_xs": 0.11, "mxfp4": 0.2, "q3_k": 0.22, "q2_k": 0.45,
           "tq2_0": 0.8, "tq1_0": 0.8}
LOGITS = {"f32": 1e-4, "f16": 1e-3, "bf16": 0.01, "q8_0": 0.02, "q6_k": 0.05, "q5_k": 0.1, "q5_1": 0.1, "q5_0": 0.1,
          "q4_k": 0.2, "q4_1": 0.2, "q4_0": 0.25, "iq4_nl": 0.2, "iq4_xs": 0.2, "mxfp4": 0.4, "q3_k": 0.6, "q2_k": math.inf,
          "tq2_0": math.inf, "tq1_0": math.inf}
SET_BY_PROGRAM = {"general.file_type", "general.quantization_version"}
ABOUT_THE_FILE = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"}


def run(program, *words):
    done = subprocess.run([os.path.join(options.programs, program), *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{program} {' '.join(words)}: exit {done.returncode}: {done.stderr.strip()}")


def quantise(source, target, format):
    """Returns the program's report."""
    run("nibble-quantize", source, target, format, "--pure", "-t", "1", "--json", target + ".json")
    with open(target + ".json") as file:
        return json.load(file)


def metadata(reader):
    return {name: field.contents() for name, field in reader.fields.items() if name not in ABOUT_THE_FILE | SET_BY_PROGRAM}


def decoded(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)


def expect(truth, sentence):
    if not truth:
        raise RuntimeError(sentence)


def check_file(path, report, source):
    """Everything but the values."""
    reader = gguf.GGUFReader(path)
    expect(metadata(reader) == metadata(source), f"{path}: metadata differ")
    expect(reader.fields["general.quantization_version"].contents() == 2, f"{path}: quantization_version")
    expect([t.name for t in reader.tensors] == [t.name for t in source.tensors], f"{path}: tensors differ")
    end = 0
    for ours, theirs, said in zip(reader.tensors, source.tensors, report["tensors"]):
        expect(list(ours.shape) == list(theirs.shape), f"{path}: {ours.name}: shape")
        expect(ours.tensor_type.name.lower() == said["to"], f"{path}: {ours.name}: type {ours.tensor_type.name}")
        expect(int(ours.n_bytes) == said["bytes_to"], f"{path}: {ours.name}: bytes")
        end = max(end, int(ours.data_offset) + int(ours.n_bytes))
    expect(0 <= os.path.getsize(path) - end < reader.alignment, f"{path}: {os.path.getsize(path)} bytes, tensors end at {end}")
    return reader


def check_values(path, reader, source, format):
    for ours, theirs in zip(reader.tensors, source.tensors):
        x, y = decoded(ours), decoded(theirs)
        expect(np.isfinite(x).all(), f"{path}: {ours.name}: not finite")
        size = np.sqrt((y.astype(np.float64)**2).mean())
        error = np.sqrt(((x - y).astype(np.float64)**2).mean()) / size if size > 0 else np.abs(x).max()
        same = ours.tensor_type == theirs.tensor_type
        # where rows do not divide, the type is another one, which is finer
        expect(error <= (0 if same else WEIGHTS[format]), f"{path}: {ours.name}: rms error {error:.4f} as {format}")


def distance(path, model, folder):
    """Relative rms of the logits from those of the model's own reference."""
    tokens = os.path.join(options.data, "golden/trained", model + ".tokens")
    wanted = np.fromfile(tokens[:-len("tokens")] + "logits", np.float32).astype(np.float64)
    out = os.path.join(folder, "logits")
    run("nibble-logits", path, tokens, out, "--activations", "float", "-t", "1")
    found = np.fromfile(out, np.float32)
    expect(found.shape == wanted.shape and np.isfinite(found).all(), f"{path}: logits are not finite")
    return float(np.sqrt(((found - wanted)**2).sum() / (wanted**2).sum()))


def check_hop(job):
    """One model through one first format, then all second ones. Returns lines of what is wrong, and the distances."""
    source_path, first = job
    model = os.path.basename(source_path)[:-len(".gguf")]
    source = gguf.GGUFReader(source_path)
    wrong, found = [], {}
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        a = os.path.join(folder, "a.gguf")
        try:
            reader = check_file(a, quantise(source_path, a, first), source)
            check_values(a, reader, source, first)
            found[first, None] = distance(a, model, folder)
            expect(found[first, None] <= LOGITS[first], f"logits are {found[first, None]:.4f} from the reference")
        except Exception as e:
            return job, [f"{model} -> {first}: {e}"], found
        for second in options.formats if not options.one_hop else []:
            b = os.path.join(folder, "b.gguf")
            try:
                check_file(b, quantise(a, b, second), source)
                found[first, second] = distance(b, model, folder)
                bound = 2 * max(LOGITS[first], LOGITS[second])
                expect(found[first, second] <= bound, f"logits are {found[first, second]:.4f} from the reference")
            except Exception as e:
                wrong.append(f"{model} -> {first} -> {second}: {e}")
    return job, wrong, found


def main():
    global options
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True, help="folder of nibble-quantize and nibble-logits")
    parser.add_argument("--data", required=True, help="folder with models/ and golden/trained/")
    parser.add_argument("--models", default="*", help="glob of the models' names without .gguf")
    parser.add_argument("--formats", nargs="+", default=list(WEIGHTS))
    parser.add_argument("--one-hop", action="store_true", help="only F -> A")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--scratch", help="folder for temporary files")
    options = parser.parse_args()
    files = sorted(glob.glob(os.path.join(options.data, "models", options.models + ".gguf")))
    jobs = [(file, first) for file in files for first in options.formats]
    wrong, hops, by_model = [], 0, {}
    with multiprocessing.Pool(options.jobs) as pool:
        for (file, first), lines, found in pool.imap(check_hop, jobs):
            wrong += lines
            hops += len(found)
            row = by_model.setdefault(os.path.basename(file), {})
            row.update(found)
            for line in lines:
                print("WRONG:", line, flush=True)
            if first == options.formats[-1]:
                direct = " ".join(f"{f} {row[f, None]:.4f}" for f in options.formats if (f, None) in row)
                print(f"{os.path.basename(file)}: {len(row)} files; distance of the logits: {direct}", flush=True)
    print(f"{len(files)} models, {len(options.formats)} formats: {hops} files written, read by gguf, loaded; {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
