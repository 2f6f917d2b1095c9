"""A decode step, kernel by kernel, from what trace.c recorded: how long each kernel runs, how often, and the gaps.

usage: python bench/gpu/trace.py TRACE N_STEPS   (the last N_STEPS steps; a step ends with its arg-max)
"""

import collections
import re
import sys


def read(path):
    for line in open(path):
        kind, start, end, name = line.rstrip("\n").split(" ", 3)
        yield kind, int(start), int(end), name


def short(name):
    """A mangled kernel name, cut to what tells kernels apart."""
    words = re.findall(r"[a-z][a-z_0-9]{4,}", name)
    return "_".join(dict.fromkeys(words))[:60] or name[:60]


def main():
    path, n_steps = sys.argv[1], int(sys.argv[2])
    records = sorted(read(path), key=lambda r: r[1])
    kernels = [r for r in records if r[0] == "kernel"]
    ends = [i for i, r in enumerate(kernels) if "arg" in r[3].lower()][-n_steps - 1:]
    steps = kernels[ends[0] + 1:ends[-1] + 1]
    n = len(ends) - 1
    begin, end = kernels[ends[0]][2], kernels[ends[-1]][2]
    busy, last = 0, begin
    for _, first, finish, _ in steps:
        busy += max(0, finish - max(first, last))
        last = max(last, finish)
    print(f"a step: {(end - begin) / n / 1e3:.0f} us, {len(steps) / n:.0f} kernels, the GPU busy {busy / n / 1e3:.0f} us")
    print("| kernel | per step | us each | us per step |\n|---|--:|--:|--:|")
    times = collections.defaultdict(list)
    for _, first, finish, name in steps:
        times[short(name)].append(finish - first)
    for name, of in sorted(times.items(), key=lambda item: -sum(item[1])):
        print(f"| {name} | {len(of) / n:.1f} | {sum(of) / len(of) / 1e3:.2f} | {sum(of) / n / 1e3:.1f} |")
    calls = collections.defaultdict(list)
    for kind, first, finish, name in records:
        if kind == "call" and begin <= first < end:
            calls[name].append(finish - first)
    for name, of in sorted(calls.items(), key=lambda item: -sum(item[1]))[:12]:
        print(f"| call {name} | {len(of) / n:.1f} | {sum(of) / len(of) / 1e3:.2f} | {sum(of) / n / 1e3:.1f} |")


main()
