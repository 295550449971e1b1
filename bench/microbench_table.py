#!/usr/bin/env python3
"""Turns what nibble-microbench writes as JSON into tables in Markdown, for docs/performance.md.

    nibble-microbench --benchmark_filter='matmul_q8/.*/avx2' --benchmark_repetitions=5 \\
        --benchmark_out=result.json --benchmark_out_format=json
    bench/microbench_table.py result.json

A table for each kernel, instruction set and number of threads: a row for each format, a column for
each size (tokens, depth or values). A cell says, as far as the benchmark states them, GB/s, GMAC/s and
the share of the nearer limit of the same process: c is that of multiply-adds in registers, m that of
reading memory, l that of loads from the nearest cache. Without limits it is millions of values a second,
or microseconds. Repeated runs give their median. Several files are read as one, the last one's
numbers count.

With --into PAGE the tables replace what stands in that file between the lines
    <!-- microbench: begin -->
    <!-- microbench: end -->
"""
import argparse
import json
import statistics
import sys
from pathlib import Path

BEGIN, END = "<!-- microbench: begin -->", "<!-- microbench: end -->"
RATES = {"GB/s": "GB/s", "GMAC/s": "GMAC/s", "Mvalues/s": "millions of values a second"}
LIMITS = {"of_peak": "c", "of_memory": "m", "of_cache": "l"}
MICROSECONDS = {"ns": 1e-3, "us": 1, "ms": 1e3, "s": 1e6}
ACTIVATIONS = {"q8": "int8 activations", "f32": "float activations"}
SIZES = {"matmul_q8": "tokens", "matmul_f32": "tokens", "attend": "depth", "rows": "values", "decode": "values"}


def digits(x):
    return f"{x:.0f}" if x >= 99.5 else f"{x:.1f}" if x >= 9.95 else f"{x:.2f}"


def place(run):
    """(kernel, instruction set or "", threads), format, size of one run."""
    parts = [p for p in run["run_name"].split("/") if not p.startswith(("threads:", "repeats:"))]
    if len(parts) == 3:  # no instruction set
        parts.insert(2, "")
    if len(parts) != 4:
        sys.exit(f"{run['run_name']}: not a name of nibble-microbench, which are kernel/format/isa/size")
    kernel, name, isa, size = parts
    return (kernel, isa, run.get("threads", 1)), name, size


def cell(runs):
    """What the repetitions of one benchmark say."""
    def median(counter):
        return statistics.median(run[counter] for run in runs)

    said = [digits(median(rate)) for rate in RATES if rate in runs[0]]
    shares = [(median(limit), letter) for limit, letter in LIMITS.items() if limit in runs[0]]
    if shares:
        share, letter = max(shares)
        said.append(f"{100 * share:.0f} % {letter}")
    if not said:
        said.append(f"{digits(median('cpu_time') * MICROSECONDS[runs[0]['time_unit']])} µs")
    return " · ".join(said)


def title(key):
    kernel, isa, threads = key
    name, _, kind = kernel.partition("matmul_")
    words = [f"products, {ACTIVATIONS.get(kind, kind)}" if kind else name]
    if isa:
        words.append(isa)
    words.append("one thread" if threads == 1 else f"{threads} threads")
    return ", ".join(words)


def unit_line(found):
    """Which numbers the cells of a table have."""
    names = [said for rate, said in RATES.items() if any(rate in run for runs in found.values() for run in runs)]
    if any(limit in run for runs in found.values() for run in runs for limit in LIMITS):
        names.append("share of the nearer limit")
    return " · ".join(names)


def table(key, found):
    """found: {(format, size): runs}"""
    rows = list(dict.fromkeys(name for name, _ in found))
    columns = list(dict.fromkeys(size for _, size in found))
    if all(c.isdigit() for c in columns):
        columns.sort(key=int)
    units = unit_line(found)
    lines = [f"**{title(key)}**" + (f" ({units}):" if units else ":"), "",
             f"| {SIZES.get(key[0], '')} | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name in rows:
        cells = [cell(found[name, size]) if (name, size) in found else "" for size in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def read(paths, keep):
    """{key: {(format, size): runs}}, in the order of the files."""
    tables = {}
    for path in paths:
        try:
            runs = json.loads(Path(path).read_text())["benchmarks"]
        except OSError as e:
            sys.exit(f"{path}: {e.strerror}")
        except (ValueError, KeyError, TypeError):
            sys.exit(f"{path}: no JSON of nibble-microbench (an interrupted run leaves it incomplete)")
        fresh = set()  # cells of this file
        for run in runs:
            if run.get("run_type") != "iteration" or run.get("error_occurred"):
                continue
            key, name, size = place(run)
            if not keep(key, name, size):
                continue
            cells = tables.setdefault(key, {})
            if (key, name, size) not in fresh:
                fresh.add((key, name, size))
                cells[name, size] = []
            cells[name, size].append(run)
    return tables


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="JSON", help="what --benchmark_out wrote")
    parser.add_argument("--kernel", nargs="+", help="only these, such as matmul_q8")
    parser.add_argument("--format", nargs="+", help="only these rows")
    parser.add_argument("--isa", nargs="+", help="only these instruction sets")
    parser.add_argument("--size", nargs="+", help="only these columns")
    parser.add_argument("--threads", nargs="+", type=int, help="only these numbers of threads")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="write between the markers of this file, not to the output")
    options = parser.parse_args()

    def keep(key, name, size):
        wanted = zip((*key, name, size), (options.kernel, options.isa, options.threads, options.format, options.size))
        return all(allowed is None or found in allowed for found, allowed in wanted)

    text = "\n".join(table(key, found) for key, found in read(options.files, keep).items())
    if not text:
        sys.exit("no benchmark is left to show")
    if options.into is None:
        print(text, end="")
        return
    page = options.into.read_text()
    if BEGIN not in page or END not in page:
        sys.exit(f"{options.into} lacks the lines\n{BEGIN}\n{END}")
    options.into.write_text(f"{page.split(BEGIN)[0]}{BEGIN}\n{text}{END}{page.split(END, 1)[1]}")


if __name__ == "__main__":
    main()
