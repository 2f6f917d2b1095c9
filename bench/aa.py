"""Does a comparison of a thing with itself ever say that it changed? On this machine, quiet or while a load comes and goes.

usage: aa.py [--quiet] [--comparisons N] [--runs N] [--keep FILE]     some three minutes; prints the line of docs/statistics.md
Both sides are one configuration (two prefill steps, both longer than the prompt), measured in turn by one command. The
load is programs that keep CPUs busy, as many as there are CPUs, for random times with random pauses.
"""

import argparse
import contextlib
import csv
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading

SIDES = "1024,2048"


class Load:
    """Busy programs that come and go until the block ends."""

    def __init__(self, rng):
        self.rng, self.over, self.thread = rng, threading.Event(), threading.Thread(target=self.run)

    def run(self):
        while not self.over.wait(self.rng.uniform(0, 20)):
            busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"])
                    for _ in range(self.rng.randint(1, os.cpu_count()))]
            self.over.wait(self.rng.uniform(0.2, 20))
            for program in busy:
                program.kill()
                program.wait()

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *error):
        self.over.set()
        self.thread.join()


def compare(program, model, folder, runs):
    """The lines of one comparison, with its sides' reasons, and the exit code of the gate."""
    subprocess.run([program, "-m", model, "--engine", "cpu", "--prompt-tokens", "random", "-np", "512",
                    "-n", "64", "-pss", SIDES, "-r", str(runs), "-o", f"csv:{folder}/both", "--force"],
                   check=True, stderr=subprocess.DEVNULL)
    rows = list(csv.DictReader((folder / "both").open()))
    for side in ("1", "2"):
        with (folder / side).open("w", newline="") as out:
            to = csv.DictWriter(out, rows[0])
            to.writeheader()
            to.writerows(row for row in rows if row["configuration"] == side)
    done = subprocess.run([program, "compare", folder / "1", folder / "2", "--fail-slower", "3%", "-f", "json"],
                          text=True, capture_output=True)
    if done.returncode not in (0, 3):
        sys.exit(done.stderr)
    return json.loads(done.stdout), done.returncode, rows


def summary(found):
    """The line of docs/statistics.md."""
    lines, rows = [line for one in found for line in one["lines"]], [row for one in found for row in one["rows"]]
    bad = [reasons for quality, reasons in rows if quality > "B"]
    named = [reasons for reasons in bad if "other programs" in reasons or "waited for a CPU" in reasons]
    count = {verdict: sum(line["verdict"] == verdict for line in lines) for verdict in ("slower", "faster", "~", "not comparable")}
    ungated = sum(line["p_holm"] < 0.05 and line["ratio"] < 0.97 for line in lines)
    return [len(found), len(lines), *count.values(), sum(one["code"] == 3 for one in found), ungated,
            f"{max(abs(line['ratio'] - 1) for line in lines):.1%}", f"{len(bad)} of {len(rows)}", len(named)]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mlxbench", default="build/mlxbench", help="the program (build/mlxbench)")
    options.add_argument("--comparisons", type=int, default=20, help="how many (20)")
    options.add_argument("--runs", type=int, default=20, help="of each side (20)")
    options.add_argument("--model", default="synthetic:tiny-llama-13m-4bit", help="(synthetic:tiny-llama-13m-4bit)")
    options.add_argument("--quiet", action="store_true", help="without the load")
    options.add_argument("--keep", type=pathlib.Path, help="adds the comparisons to this file, and counts all that it has")
    options.add_argument("--seed", type=int, default=1, help="of the load's times (1)")
    given = options.parse_args()
    program, found = str(pathlib.Path(given.mlxbench).resolve()), []
    load = contextlib.nullcontext() if given.quiet else Load(random.Random(given.seed))
    if given.keep and given.keep.exists():
        found = [json.loads(line) for line in given.keep.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as name, load:
        for _ in range(given.comparisons):
            lines, code, rows = compare(program, given.model, pathlib.Path(name), given.runs)
            found.append(dict(lines=lines, code=code, rows=[(row["quality"], row["quality_reasons"]) for row in rows]))
            if given.keep:
                with given.keep.open("a") as out:
                    out.write(json.dumps(found[-1]) + "\n")
            print(len(found), *(f"{x['metric']} {100 * (x['ratio'] - 1):+.1f} % {x['verdict']}" for x in lines), f"exit {code}",
                  sep="; ", file=sys.stderr, flush=True)
    print("| comparisons | lines | slower | faster | ~ | not comparable | exit 3 | slower without grades | largest change | "
          "runs below B | of which name the load |")
    print("|" + 11 * "---|")
    print("|", " | ".join(map(str, summary(found))), "|")


if __name__ == "__main__":
    main()
