#!/usr/bin/env python3
"""Runs nibble-plan for each header in a folder on each set of devices and prints a table; called by
scripts/plan-table.sh. Ends with 1 if a plan exceeds a budget or leaves room on a GPU in which a
block would fit that runs on the CPU.

    scripts/plan_table.py NIBBLE_PLAN FOLDER CONTEXT
"""
import json
import subprocess
import sys
from pathlib import Path

CPU = "cpu:256GiB:80GB/s"
SETS = {
    "none": [],
    "4 GB": ["gpu:4GB:192GB/s:pcie3x16"],
    "8 GB": ["gpu:8GB:448GB/s:pcie4x16"],
    "12 GB": ["gpu:12GB:504GB/s:pcie4x16"],
    "24 GB": ["gpu:24GB:1008GB/s:pcie4x16"],
    "48 GB": ["gpu:48GB:864GB/s:pcie4x16"],
    "80 GB": ["gpu:80GB:3350GB/s:pcie5x16"],
    "2x24 GB": ["gpu:24GB:1008GB/s:pcie4x16:x2"],
    "24+8 GB": ["gpu:24GB:1008GB/s:pcie4x16", "gpu:8GB:448GB/s:pcie4x16"],
    "8x80 GB": ["gpu:80GB:3350GB/s:pcie5x16:x8"],
}
ORDER = ["qwen2.5-0.5b", "llama-3.2-1b", "qwen3-4b", "llama-3.1-8b", "gemma3-12b", "dense-14b", "gpt-oss-20b",
         "qwen3-30b-a3b", "qwen3-32b", "llama-3.1-70b", "qwen3-235b-a22b", "llama-3.1-405b"]


def plan(program, model, devices, context):
    out = model.with_suffix(".json")
    out.unlink(missing_ok=True)
    words = [program, str(model), "--context", context, "--json", str(out)]
    for device in devices + [CPU]:
        words += ["--device", device]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        return None, done.stderr.strip()
    return json.loads(out.read_text()), ""


def faults(found):
    """What is wrong with a plan."""
    wrong = []
    gpus = [d for d in found["devices"] if d["id"] != "cpu"]
    for device in found["devices"]:
        if device["bytes"]["total"] > device["budget_bytes"]:
            wrong.append(f"{device['id']} is over its budget")
    left = [b for b in found["blocks"] if b["device"] == "cpu" and "feed-forward" in b["name"]]
    if left:
        smallest = min(b["weight_bytes"] for b in left)
        # a block that is let in brings its workspace along, if the device has none like it yet
        wrong += [f"{d['free_bytes'] / 2**20:.0f} MiB of {d['id']} are left where {smallest / 2**20:.0f} would fit"
                  for d in gpus if d["free_bytes"] > smallest + d["bytes"]["workspace"] + (64 << 20)]
    return wrong


def cell(found):
    gpu = sum(d["bytes"]["weights"] for d in found["devices"] if d["id"] != "cpu")
    whole = sum(d["bytes"]["weights"] for d in found["devices"])
    speed = found["predicted"]["generated_tokens_per_second"]
    used = sum(1 for d in found["devices"] if d["id"] != "cpu" and d["blocks"] > 0)
    share = "all" if gpu == whole else f"{100 * gpu / whole:.0f} %"
    return f"{share if gpu else 'CPU'}{f' on {used}' if used > 1 else ''}, {speed:.3g}"


def main():
    program, folder, context = sys.argv[1:]
    models = [Path(folder) / f"{name}.gguf" for name in ORDER]
    rows, wrong = [], []
    for model in models:
        row = [model.stem]
        for name, devices in SETS.items():
            found, error = plan(program, model, devices, context)
            row.append(cell(found) if found else "too large")
            for fault in (faults(found) if found else []):
                wrong.append(f"{model.stem} on {name}: {fault}")
            print(".", end="", file=sys.stderr, flush=True)
        rows.append(row)
    print(file=sys.stderr)
    head = ["model"] + list(SETS)
    widths = [max(len(r[i]) for r in [head] + rows) for i in range(len(head))]
    print(f"Share of the weights on GPUs, and tokens a second; context {context}, beside {CPU}\n")
    for row in [head] + rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
    for fault in wrong:
        print(f"- {fault}")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main())
