#!/usr/bin/env python3
"""The errors of every format's encoder beside llama.cpp's, on three kinds of rows: runs
nibble-encoder-errors and writes its tables of errors into docs/quantisation.md.

    cmake --preset release && cmake --build --preset release --target nibble-encoder-errors
    pip install --target /tmp/peer libggml-python
    scripts/measure_encoders.py --peer /tmp/peer/libggml/lib64/libggml-base.so

The peer is any library that exports `ggml_quantize_chunk`; the package above holds one. Real matrices
are those of stories260K-x256-f32.gguf in the folder that NIBBLE_TEST_DATA names, or in the folder
"shared" beside the project. Errors do not depend on the machine; speeds do, and are not written here.
"""
import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- encoder-errors: begin -->", "<!-- encoder-errors: end -->"


def main():
    shared = Path(os.environ.get("NIBBLE_TEST_DATA", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="library with ggml_quantize_chunk")
    parser.add_argument("--program", default=ROOT / "build/release/bench/nibble-encoder-errors", help="nibble-encoder-errors")
    parser.add_argument("--model", default=shared / "models/stories260K-x256-f32.gguf", help="model of the real matrices")
    parser.add_argument("--rows", type=int, default=16, help="made-up rows of each kind (default: 16)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/quantisation.md", help="file with the two markers")
    options = parser.parse_args()
    page = options.out.read_text()
    if BEGIN not in page or END not in page:
        sys.exit(f"{options.out} lacks the lines\n{BEGIN}\n{END}")
    words = [options.program, "--peer", options.peer, "--model", options.model, "--rows", options.rows, "--passes", 0]
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stderr}")
    options.out.write_text(f"{page.split(BEGIN)[0]}{BEGIN}\n{done.stdout}{END}{page.split(END, 1)[1]}")


if __name__ == "__main__":
    main()
