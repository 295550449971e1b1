#!/usr/bin/env python3
"""Writes tests/formats/golden_blocks.txt: blocks of every weight format and their decoded values.

The values come from the Python package `gguf` (gguf.quants.dequantize), which shares no code with
nibble. Needs gguf and numpy:  tools/make_format_goldens.py > tests/formats/golden_blocks.txt

Each line: format name, number of values, the block's bytes in hex, the values' binary32 bits in hex,
eight digits a value, most significant first; "nan_____" for a NaN.
"""
import sys

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

FORMATS = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K",
           "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4", "TQ1_0", "TQ2_0"]

# Byte offsets of the 16-bit float scales in a block.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
          "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0],
          "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64]}

# Half bits: zeros, subnormals, the least normal, one, the greatest, infinity, NaN.
EXTREME_HALVES = [0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x3c00, 0xfbff, 0x7c00, 0x7e00]


def sane_halves(rng, count):
    return (rng.normal(size=count) * 0.02).astype("<f2").view("<u2")


def blocks_of(name, rng):
    """The blocks to decode, as rows of bytes."""
    block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]][1]
    if name == "F32":
        bits = np.concatenate([rng.normal(size=16).astype("<f4").view("<u4"),
                               np.array([0, 1, 0x80000000, 0x7f7fffff, 0xff800000], "<u4")])
        return bits.astype("<u4").view(np.uint8).reshape(-1, 4)
    if name in ("F16", "BF16"):
        bits = np.concatenate([rng.integers(0, 65536, 24), np.array(EXTREME_HALVES)])
        return bits.astype("<u2").view(np.uint8).reshape(-1, 2)

    rows = []
    if name == "MXFP4":
        for exponent in [0, 1, 2, 3, 100, 120, 127, 128, 253, 254, 255]:
            row = rng.integers(0, 256, block_bytes, dtype=np.uint8)
            row[0] = exponent
            rows.append(row)
        return np.stack(rows)

    offsets = SCALES[name]
    for kind in range(5):  # 0..2: random bytes; 3: all bits set; 4: none set
        row = rng.integers(0, 256, block_bytes, dtype=np.uint8)
        if kind >= 3:
            row[:] = 0xff if kind == 3 else 0
        for at, bits in zip(offsets, sane_halves(rng, len(offsets))):
            row[at:at + 2] = np.array([bits], "<u2").view(np.uint8)
        rows.append(row)
    for i in range(len(EXTREME_HALVES) if block_bytes < 50 else 3):
        row = rng.integers(0, 256, block_bytes, dtype=np.uint8)
        for j, at in enumerate(offsets):
            # large blocks: a subnormal, the greatest, and an infinity are enough
            choice = i if block_bytes < 50 else [3, 6, 7][i]
            bits = EXTREME_HALVES[(choice + 5 * j) % len(EXTREME_HALVES)]
            row[at:at + 2] = np.array([bits], "<u2").view(np.uint8)
        rows.append(row)
    return np.stack(rows)


def main():
    rng = np.random.default_rng(20240607)
    print("# Made by tools/make_format_goldens.py; see there for the columns.")
    for name in FORMATS:
        qtype = GGMLQuantizationType[name]
        for row in blocks_of(name, rng):
            with np.errstate(all="ignore"):
                if name == "F32":  # `gguf` takes these as arrays of floats
                    values = row.view("<f4")
                elif name == "F16":
                    values = row.view("<f2").astype(np.float32)
                else:
                    values = dequantize(row.reshape(1, -1), qtype).reshape(-1)
            assert values.dtype == np.float32
            assert values.size == GGML_QUANT_SIZES[qtype][0], name
            text = "".join("nan_____" if np.isnan(v) else f"{v.view(np.uint32):08x}" for v in values)
            print(name.lower(), values.size, row.tobytes().hex(), text)


if __name__ == "__main__":
    sys.exit(main())
