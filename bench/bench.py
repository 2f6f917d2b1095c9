"""mlxbench against its peers on the same shapes: a process per measurement, the programs in turn, medians in one table.

Taking turns lets every program see the same state of the machine; the spread says how far to trust a ratio.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

import make_pair

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
OURS = "mlxbench"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--models", default="tiny,llama-3.2-1b", help=f"any of {','.join(make_pair.SHAPES)}")
    parser.add_argument("--peers", default="llama.cpp", help="any of llama.cpp,mlx-lm (on a CPU mlx-lm takes hours)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--n-prompt", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--n-generate", type=int, default=64, help="tokens to generate")
    parser.add_argument("--threads", type=int, help="for all programs; default: what mlxbench chooses")
    parser.add_argument("--mlxbench", default=str(ROOT / "build" / "mlxbench"), help="the program")
    return parser.parse_args()


def call(command):
    """The JSON object that the command prints."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: failed: {' '.join(map(str, command))}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(program, pair, options):
    """One process of that program: its row."""
    folder, file = pair
    sizes = [options.n_prompt, options.n_generate]
    if program == OURS:
        threads = ["--threads", options.threads] if options.threads else []
        row = call([options.mlxbench, "--model", folder, "-np", sizes[0], "-n", sizes[1], "--prompt-tokens", "random",
                    "--output", "jsonl", *threads])
        options.threads = row["threads"]
        return row
    if program == "llama.cpp":
        return call([sys.executable, HERE / "peer_llama_cpp.py", file, *sizes, options.threads])
    if program == "mlx-lm":
        return call([sys.executable, HERE / "peer_mlx_lm.py", folder, *sizes])
    sys.exit(f"bench: no peer {program}")


def table(rows, programs):
    """Lines of a Markdown table; rows: model -> program -> list of measurements."""
    yield "| model | program | prompt tok/s | (min - max) | mlxbench / it | generation tok/s | (min - max) | mlxbench / it |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|"
    for model, measured in rows.items():
        for program in programs:
            cells = [model, program]
            for metric in ["prompt_tps", "generation_tps"]:
                values = [row[metric] for row in measured[program]]
                ours = statistics.median(row[metric] for row in measured[OURS])
                median = statistics.median(values)
                cells += [f"{median:.2f}", f"{min(values):.2f} - {max(values):.2f}", f"{ours / median:.2f}"]
            yield f"| {' | '.join(cells)} |"


def main():
    options = arguments()
    programs = [OURS, *options.peers.split(",")]
    rows = {}
    for model in options.models.split(","):
        pair = make_pair.make_pair(ROOT / "models" / "bench", model)
        rows[model] = {program: [] for program in programs}
        for i in range(options.rounds):
            for program in programs:
                rows[model][program].append(measure(program, pair, options))
                row = rows[model][program][-1]
                print(f"{model} round {i + 1}/{options.rounds} {program}: prompt {row['prompt_tps']:.2f}, "
                      f"generation {row['generation_tps']:.2f} tok/s", file=sys.stderr)
    print(f"{options.n_prompt} prompt tokens, {options.n_generate} new ones, {options.threads} threads, "
          f"medians of {options.rounds} rounds\n")
    print("\n".join(table(rows, programs)))


main()
