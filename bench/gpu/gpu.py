"""mlxbench's MLX engine against mlx-lm on a GPU, on random weights of real models' shapes, in turn, a process per
model and round; medians and ratios in one table. mlxbench runs twice: with its fused kernels, and with mlx-lm's graph.

usage: python bench/gpu/gpu.py --models llama-3.2-1b,qwen3-0.6b --quantizations 4bit,bf16 > table.md
With --rows a table can be put together from several calls: each adds its rows to the file and prints all of them.
mlxbench must have been built with MLX for this GPU, and this Python must have mlx and mlx-lm.
"""

import argparse
import collections
import json
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEER = "mlx-lm"
PROGRAMS = {"fused": "mlxbench", "mlx-lm": "`--graph mlx-lm`", None: PEER}  # by the row's graph
METRICS = {"prompt_tps": "prompt tok/s", "generation_tps": "generation tok/s", "peak_memory_gb": "peak GB"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="llama-3.2-1b,llama-3.2-3b,llama-3.1-8b,qwen3-0.6b,qwen3-30b-a3b")
    parser.add_argument("--quantizations", default="4bit,bf16")
    parser.add_argument("--n-prompt", default="512,4096")
    parser.add_argument("--n-generate", default=256, type=int)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--repeats", default=2, type=int, help="measured runs in each process")
    parser.add_argument("--seconds", default=3600, type=int, help="no process is begun after this long")
    parser.add_argument("--rows", type=pathlib.Path, help="file of rows measured before, to which new ones are added")
    parser.add_argument("--mlxbench", default=str(ROOT / "build" / "mlxbench"))
    return parser.parse_args()


def commands(model, quantization, options):
    """What measures a model: mlxbench, then mlx-lm. Both print a JSON object per run."""
    bits = "0" if quantization == "bf16" else quantization.removesuffix("bit")
    yield [options.mlxbench, "--model", f"synthetic:{model}-{quantization}", "--engine", "mlx", "--graph",
           "fused,mlx-lm", "--prompt-tokens", "random", "-np", options.n_prompt, "-n", options.n_generate, "-r",
           options.repeats, "-o", "jsonl"]
    yield [sys.executable, HERE / "peer_mlx_lm.py", ROOT / "share" / "presets" / f"{model}.json", bits,
           options.n_generate, options.repeats, *options.n_prompt.split(",")]


def measure(command):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        print(f"gpu: failed: {' '.join(map(str, command))}", file=sys.stderr)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [row for row in rows if row.get("kind") != "summary"]


def print_table(measured):
    """A row per model and prompt; in brackets the ratio to mlx-lm."""
    rows = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in measured:
        rows[row["of"], row["n_prompt"]][PROGRAMS[row.get("graph")]].append(row)
    columns = [f"{title}: {program}" for title in METRICS.values() for program in PROGRAMS.values()]
    print(f"| model | prompt | runs | {' | '.join(columns)} |")
    print(f"|---|--:|--:|{'--:|' * len(columns)}")
    for (model, n_prompt), programs in rows.items():
        cells = [model, n_prompt, ", ".join(str(len(programs[program])) for program in PROGRAMS.values())]
        for metric in METRICS:
            values = {program: statistics.median(row[metric] for row in of) for program, of in programs.items() if of}
            peer = values.get(PEER)
            for program in PROGRAMS.values():
                value = values.get(program)
                ratio = f" ({value / peer:.2f})" if value and peer and program != PEER else ""
                cells.append(f"{value:,.{0 if value > 100 else 2}f}{ratio}" if value else "")
        print(f"| {' | '.join(map(str, cells))} |")


def main():
    options, start, measured = arguments(), time.monotonic(), []
    if options.rows and options.rows.exists():
        measured = [json.loads(line) for line in options.rows.read_text().splitlines()]
    for _ in range(options.rounds):
        for quantization in options.quantizations.split(","):
            for model in options.models.split(","):
                for command in commands(model, quantization, options):
                    if time.monotonic() - start > options.seconds:
                        continue
                    new = [row | dict(of=f"{model}-{quantization}") for row in measure(command)
                           if row.get("generation_tps")]
                    measured += new
                    if options.rows:
                        with options.rows.open("a") as file:
                            file.writelines(json.dumps(row) + "\n" for row in new)
    if time.monotonic() - start > options.seconds:
        print("gpu: the time was up before all rounds were done", file=sys.stderr)
    print_table(measured)


main()
