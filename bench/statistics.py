"""How often the statistics err: simulated runs through the program itself, for docs/statistics.md.

usage: statistics.py [--mlxbench PROGRAM]     some minutes; prints the lines of the page's two tables
Comparisons are files of random speeds for `mlxbench compare`; `--repeats auto` runs on the engine `fake`,
whose times follow a script of random numbers.
"""

import argparse
import csv
import json
import os
import pathlib
import subprocess
import tempfile

import numpy as np

SIMULATED = 2000
MS = 1_000_000


def run(program, *arguments, **environment):
    return subprocess.run([program, *map(str, arguments)], env={**os.environ, **environment}, check=True, text=True,
                          capture_output=True).stdout


def write_runs(path, rng, configurations, n, change, noise):
    """A result file with lognormal speeds."""
    with open(path, "w") as out:
        lines = csv.writer(out, lineterminator="\n")
        lines.writerow(["run", "configuration", "n_prompt", "prompt_tps", "generation_tps"])
        for c in range(configurations):
            for speeds in rng.lognormal(np.log(200 * change), noise, (n, 2)):
                lines.writerow([1, c + 1, c + 1, *(f"{x:.3f}" for x in speeds)])
    return path


def comparisons(program, folder, seed, configurations, n, change, noise):
    """The shares of comparisons that say slower, and faster, of at least one line."""
    rng, found, at_once = np.random.default_rng(seed), [], 20
    for _ in range(SIMULATED // at_once):  # several files after are compared with one before
        before = write_runs(folder / "before", rng, configurations, n, 1, noise)
        after = [write_runs(folder / str(i), rng, configurations, n, change, noise) for i in range(at_once)]
        lines = json.loads(run(program, "compare", before, *after, "-f", "json"))
        found += [{line["verdict"] for line in lines if line["after"] == str(path)} for path in after]
    assert len(found) == SIMULATED
    return [sum(verdict in verdicts for verdicts in found) / SIMULATED for verdict in ("slower", "faster")]


def automatic(program, folder, seed, kind, noise, precision):
    """Of configurations that `--repeats auto` measured: the share whose interval has the true median, and how many
    runs they took (median, most)."""
    rng = np.random.default_rng(seed)
    factors = rng.lognormal(0, noise, 100 * SIMULATED) if kind == "lognormal" else 1 + rng.exponential(noise, 100 * SIMULATED)
    median = 1 if kind == "lognormal" else 1 + noise * np.log(2)
    (folder / "script").write_text("".join(f"{MS} {MS * x:.0f}\n" for x in factors))
    run(program, "-m", "synthetic:tiny-llama-13m-4bit", "--engine", "fake", "--prompt-tokens", "random", "-np", 9, "-n", 3,
        "--order", "given", "--warmup", 1, "-r", "auto", "--precision", precision, "-pss", f"100-{99 + SIMULATED}", "-o",
        f"json:{folder}/out", "--force", MLXBENCH_FAKE_SCRIPT=str(folder / "script"))
    spreads = [s["spreads"]["generation_tps"] for s in json.loads((folder / "out").read_text())["summaries"]]
    covered = np.mean([s["low"] <= 1000 / median <= s["high"] for s in spreads])
    n = [s["n"] for s in spreads]
    return covered, np.median(n), max(n)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mlxbench", default="build/mlxbench", help="the program (build/mlxbench)")
    program = str(pathlib.Path(options.parse_args().mlxbench).resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        print("| configurations | runs of each side | noise | change | slower | faster |\n|---|---|---|---|---|---|")
        for seed, case in enumerate([(1, 7, 1, 0.05), (4, 10, 1, 0.02), (4, 20, 1, 0.01), (1, 7, 0.97, 0.01),
                                     (1, 20, 0.97, 0.01), (4, 20, 0.97, 0.01), (1, 20, 0.97, 0.05)]):
            slower, faster = comparisons(program, folder, seed, *case)
            configurations, n, change, noise = case
            print(f"| {configurations} | {n} | {noise:.0%} | {change - 1:+.0%} | {slower:.1%} | {faster:.1%} |", flush=True)
        print("\n| times | noise | precision | interval has the median | runs (median, most) |\n|---|---|---|---|---|")
        for seed, (kind, noise, precision) in enumerate([("lognormal", 0.01, "2%"), ("lognormal", 0.02, "3%"),
                                                         ("exponential", 0.02, "3%")]):
            covered, n, most = automatic(program, folder, seed, kind, noise, precision)
            print(f"| {kind} | {noise:.0%} | {precision} | {covered:.1%} | {n:.0f}, {most} |", flush=True)


if __name__ == "__main__":
    main()
