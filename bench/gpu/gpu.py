"""mlxbench's MLX engine against mlx-lm on a GPU, on random weights of real models' shapes, in turn, a process per
measurement; medians and ratios in one table.

usage: python bench/gpu/gpu.py --models llama-3.2-1b,qwen3-0.6b --quantizations 4bit,bf16 > table.md
mlxbench must have been built with MLX for this GPU, and this Python must have mlx and mlx-lm.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OURS, PEER = "mlxbench", "mlx-lm"
METRICS = ["prompt_tps", "generation_tps", "peak_memory_gb"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="llama-3.2-1b,llama-3.2-3b,llama-3.1-8b,qwen3-0.6b,qwen3-30b-a3b")
    parser.add_argument("--quantizations", default="4bit,bf16")
    parser.add_argument("--n-prompt", default="512,4096")
    parser.add_argument("--n-generate", default=256, type=int)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--seconds", default=3600, type=int, help="no new model is begun after this long")
    parser.add_argument("--mlxbench", default=str(ROOT / "build" / "mlxbench"))
    return parser.parse_args()


def measure(program, model, quantization, options):
    """{prompt length: row} of one process."""
    if program == PEER:
        bits = "0" if quantization == "bf16" else quantization.removesuffix("bit")
        command = [sys.executable, HERE / "peer_mlx_lm.py", ROOT / "share" / "presets" / f"{model}.json", bits,
                   options.n_generate, *options.n_prompt.split(",")]
    else:
        command = [options.mlxbench, "--model", f"synthetic:{model}-{quantization}", "--engine", "mlx",
                   "--prompt-tokens", "random", "-np", options.n_prompt, "-n", options.n_generate, "-o", "jsonl"]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        print(f"gpu: failed: {' '.join(map(str, command))}", file=sys.stderr)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["n_prompt"]: row for row in rows}


def print_table(model, quantization, rows, programs):
    for n_prompt in sorted({n for row in rows[PEER] for n in row}):
        medians = {}
        for program in programs:
            measured = [row[n_prompt] for row in rows[program] if n_prompt in row]
            if measured:
                medians[program] = [statistics.median(row[metric] for row in measured) for metric in METRICS]
        for program, values in medians.items():
            ratios = [value / peer for value, peer in zip(values, medians[PEER])]
            cells = [f"{values[i]:.2f} ({ratios[i]:.2f})" for i in range(len(METRICS))]
            print(f"| {model}-{quantization} | {n_prompt} | {program} | {' | '.join(cells)} |", flush=True)


def main():
    options, start = arguments(), time.monotonic()
    programs = [OURS, PEER]
    print("| model | prompt | program | prompt tok/s | generation tok/s | peak GB |\n|---|--:|---|--:|--:|--:|", flush=True)
    for quantization in options.quantizations.split(","):
        for model in options.models.split(","):
            if time.monotonic() - start > options.seconds:
                print(f"gpu: no time left for {model}-{quantization}", file=sys.stderr)
                continue
            rows = {program: [] for program in programs}
            for _ in range(options.rounds):
                for program in programs:
                    rows[program].append(measure(program, model, quantization, options))
            print_table(model, quantization, rows, programs)


main()
