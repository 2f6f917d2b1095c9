"""How often the statistics err: simulated runs through the program itself, for docs/statistics.md.

usage: statistics.py [--mlxbench PROGRAM] [--table NAME]     some minutes; prints the lines of the page's tables
Comparisons are files of random speeds for `mlxbench compare`, histories such files for `mlxbench history`;
`--repeats auto` runs on the engine `fake`, whose times follow a script of random numbers. Seeds are fixed, so
that the numbers come out the same again.
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


def weather(rng, kind, noise, shape):
    """Factors of the medians of one time after another, [..., times]."""
    x = rng.normal(0, noise, shape)
    for k in range(1, shape[-1] if kind == "like the time before" else 0):
        x[..., k] = 0.5 * x[..., k - 1] + np.sqrt(0.75) * x[..., k]
    slow = 0.8 if kind == "a tenth far off" else 1
    return np.exp(x) * np.where(rng.random(shape) < 0.1, slow, 1)


def write_history(path, speeds):
    """A result file: [configurations, 2, times], a run each time."""
    with open(path, "w") as out:
        lines = csv.writer(out, lineterminator="\n")
        lines.writerow(["run", "configuration", "n_prompt", "measured_at", "prompt_tps", "generation_tps"])
        for c, both in enumerate(speeds):
            for k, (prompt, generation) in enumerate(both.T):
                day = f"2026-{1 + k // 28:02}-{1 + k % 28:02}T00:00:00Z"
                number = c * speeds.shape[2] + k + 1
                lines.writerow([number, number, c + 1, day, f"{prompt:.3f}", f"{generation:.3f}"])


HISTORIES = [(1, 14, "independent", 0.02, 0, 0), (10, 14, "independent", 0.02, 0, 0), (1, 40, "independent", 0.02, 0, 0),
             (1, 20, "a tenth far off", 0.02, 0, 0), (1, 20, "like the time before", 0.02, 0, 0),
             (1, 10, "independent", 0.01, -0.03, 5), (1, 20, "independent", 0.01, -0.03, 12),
             (1, 20, "independent", 0.01, -0.03, 17), (10, 20, "independent", 0.01, -0.03, 12),
             (1, 20, "independent", 0.02, -0.03, 12), (1, 40, "independent", 0.02, -0.03, 20),
             (1, 20, "independent", 0.05, -0.03, 12), (1, 20, "a tenth far off", 0.01, -0.03, 12)]


def histories(program, folder, seed, configurations, times, kind, noise, change, after, simulated=SIMULATED):
    """Of histories whose first configuration changes both speeds after so many times (0: none does): the share with a
    change that is none, and of the planted steps the shares found, and found at their place or beside it."""
    rng, wrong, found, near = np.random.default_rng(seed), 0, 0, 0
    for _ in range(simulated):
        speeds = 200 * weather(rng, kind, noise, (configurations, 2, times))
        if after:
            speeds[0, :, after:] *= 1 + change
        write_history(folder / "history", speeds)
        trends = json.loads(run(program, "history", "--db", folder / "history", "-f", "json"))
        places = {(t["n_prompt"], metric): [c["measurement"] - 1 for c in t["changes"] if c["metric"] == metric]
                  for t in trends for metric in ("prompt_tps", "generation_tps")}
        planted = [at for (c, _), at in places.items() if c == 1 and after]
        found += sum(bool(at) for at in planted)
        near += sum(any(abs(k - after) <= 1 for k in at) for at in planted)
        wrong += any(len(at) > (1 if c == 1 and after else 0) for (c, _), at in places.items())
    return wrong / simulated, found / (2 * simulated), near / (2 * simulated)


def print_comparisons(program, folder):
    print("| configurations | runs of each side | noise | change | slower | faster |\n|---|---|---|---|---|---|")
    for seed, case in enumerate([(1, 7, 1, 0.05), (4, 10, 1, 0.02), (4, 20, 1, 0.01), (1, 7, 0.97, 0.01),
                                 (1, 20, 0.97, 0.01), (4, 20, 0.97, 0.01), (1, 20, 0.97, 0.05)]):
        slower, faster = comparisons(program, folder, seed, *case)
        configurations, n, change, noise = case
        print(f"| {configurations} | {n} | {noise:.0%} | {change - 1:+.0%} | {slower:.1%} | {faster:.1%} |", flush=True)


def print_automatic(program, folder):
    print("| times | noise | precision | interval has the median | runs (median, most) |\n|---|---|---|---|---|")
    for seed, (kind, noise, precision) in enumerate([("lognormal", 0.01, "2%"), ("lognormal", 0.02, "3%"),
                                                     ("exponential", 0.02, "3%")]):
        covered, n, most = automatic(program, folder, seed, kind, noise, precision)
        print(f"| {kind} | {noise:.0%} | {precision} | {covered:.1%} | {n:.0f}, {most} |", flush=True)


def print_histories(program, folder):
    print("| configurations | times | weather | noise | change | histories with a wrong change | steps found | at their "
          "place or beside |\n|---|---|---|---|---|---|---|---|")
    for seed, case in enumerate(HISTORIES):
        wrong, found, near = histories(program, folder, seed, *case)
        configurations, times, kind, noise, change, after = case
        planted = f"{change:+.0%} after {after} | {wrong:.1%} | {found:.1%} | {near:.1%}" if after else f"none | {wrong:.1%} | |"
        print(f"| {configurations} | {times} | {kind} | {noise:.0%} | {planted} |", flush=True)


TABLES = {"comparisons": print_comparisons, "automatic": print_automatic, "histories": print_histories}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mlxbench", default="build/mlxbench", help="the program (build/mlxbench)")
    options.add_argument("--table", choices=TABLES, help="only this one")
    given = options.parse_args()
    program = str(pathlib.Path(given.mlxbench).resolve())
    with tempfile.TemporaryDirectory() as folder:
        for i, name in enumerate([given.table] if given.table else TABLES):
            print("\n" if i else "", end="")
            TABLES[name](program, pathlib.Path(folder))


if __name__ == "__main__":
    main()
