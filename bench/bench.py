"""mlxbench against its peers on the same models: a process per measurement, the programs in turn, medians in a table.

Taking turns lets every program see the same state of the machine; the spread says how far to trust a ratio. What the
machine gives at best (limits.c) is measured in the same turns.
"""

import argparse
import dataclasses
import datetime
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import make_pair
import report

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
FILES = ROOT / "models" / "bench"
SMOLLM2 = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclasses.dataclass
class Row:
    title: str
    model: str  # of make_pair.SHAPES, or smollm2
    n_prompt: int
    n_generate: int
    skipped: tuple = ()  # programs left out, for time

    def files(self):
        """(for mlxbench and mlx-lm, for llama.cpp)"""
        if self.model != "smollm2":
            return make_pair.make_pair(FILES, self.model)
        if not SMOLLM2.exists():
            sys.exit(f"bench: {SMOLLM2} is missing: `make run` fetches it; or leave the row out with --only")
        return SMOLLM2, SMOLLM2


ROWS = {
    "1b": Row("Llama-3.2-1B, 4-bit group 64 (Q4_0 there)", "llama-3.2-1b", 512, 64),
    "smollm2": Row("SmolLM2-135M (the same Q4_1 file)", "smollm2", 512, 128),
    "13m": Row("13M, 4-bit group 64 (Q4_0 there)", "tiny", 512, 256),
    "experts": Row("Qwen3-30B-A3B cut to 6 layers, 4-bit", "qwen3-30b-a3b-6-layers", 512, 64),
    "4096": Row("a quarter of the 1B, context 4096", "llama-3.2-1b-quarter", 4096, 64, ("int8",)),
    "8192": Row("a quarter of the 1B, context 8192", "llama-3.2-1b-quarter", 8192, 32, ("int8",)),
    "16384": Row("a quarter of the 1B, context 16384", "llama-3.2-1b-quarter", 16384, 32, ("int8",)),
}
OURS, INT8, FLASH, PLAIN, MLX_LM = "mlxbench", "mlxbench int8", "llama.cpp", "llama.cpp, no flash attention", "mlx-lm"
PROGRAMS = {"exact": OURS, "int8": INT8, "flash": FLASH, "plain": PLAIN, "mlx-lm": MLX_LM}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", default=",".join(ROWS), help="rows of the table")
    parser.add_argument("--programs", default="exact,int8,flash,plain",
                        help=f"any of {','.join(PROGRAMS)}: ours twice, llama.cpp with and without its flash attention; "
                             "mlx-lm on a CPU takes hours")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="for all programs; default: what mlxbench chooses")
    parser.add_argument("--mlxbench", default=str(ROOT / "build" / "mlxbench"), help="the program")
    parser.add_argument("--write", action="store_true", help="put table and picture into docs/")
    options = parser.parse_args()
    for name, known in [("only", ROWS), ("programs", PROGRAMS)]:
        chosen = getattr(options, name).split(",")
        if not set(chosen) <= set(known):
            parser.error(f"--{name}: not all of {getattr(options, name)} are in {','.join(known)}")
        setattr(options, name, chosen)
    if "exact" not in options.programs:
        parser.error("--programs: all others are compared with exact")
    return options


def call(command):
    """The JSON object of the last run that the command prints."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: failed: {' '.join(map(str, command))}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [row for row in rows if row.get("kind") != "summary"][-1]


def measure(program, row, options):
    """One process of that program: its numbers."""
    ours, theirs = row.files()
    if program in (OURS, INT8):
        # An untimed run first, of at most 512 prompt tokens, as the peers have it.
        first = ["-np", row.n_prompt, "--warmup", 1] if row.n_prompt <= 512 else ["-np", f"512,{row.n_prompt}", "--warmup", 0]
        return call([options.mlxbench, "--model", ours, "--engine", "cpu", *first, "-n", row.n_generate, "--prompt-tokens",
                     "random", "--output", "jsonl", "--activations", "int8" if program == INT8 else "exact", "--threads",
                     options.threads])
    if program == MLX_LM:
        return call([sys.executable, HERE / "peer_mlx_lm.py", ours, row.n_prompt, row.n_generate])
    return call([sys.executable, HERE / "peer_llama_cpp.py", theirs, row.n_prompt, row.n_generate, options.threads,
                 int(program == FLASH)])


def build_limits():
    program = FILES / "limits"
    FILES.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-O3", "-march=native", "-pthread", "-o", program, HERE / "limits.c"], check=True)
    return program


def start_to_first_token(options):
    """Seconds from the start of the process to its end after one token; the best of the rounds."""
    best = None
    for _ in range(options.rounds):
        start = time.perf_counter()
        subprocess.run([options.mlxbench, "generate", "--model", ROWS["1b"].files()[0], "--engine", "cpu", "--prompt-ids", "1",
                        "--ids", "-n", "1"], stdout=subprocess.DEVNULL, check=True)
        taken = time.perf_counter() - start
        best = taken if best is None else min(best, taken)
    return best


def work(row, measured):
    """What a token takes: weight bytes, bytes of keys and values halfway through the new ones, multiply-adds in decode
    and, where only the last token needs the vocabulary, in prefill."""
    if row.model == "smollm2":  # every weight is read, the embedding as the last matrix
        shape = make_pair.Shape(576, 30, 9, 3, 64, 1536, 49152)
        weights = measured[OURS][0]["weights_gb"] * 1e9
    else:
        shape = make_pair.SHAPES[row.model]
        weights = shape.weight_bytes()
    context = row.n_prompt + row.n_generate / 2
    decode = shape.macs() + shape.attention_macs(context)
    prefill = shape.macs() - shape.vocab * shape.hidden + shape.attention_macs(row.n_prompt / 2)
    return report.Work(weights, shape.kv_bytes(context), decode, prefill)


def measure_row(name, options, limits_program):
    """program -> its measurements, and the medians of the machine's limits."""
    row, programs = ROWS[name], [PROGRAMS[p] for p in options.programs if p not in ROWS[name].skipped]
    measured, limits = {program: [] for program in programs}, []
    for i in range(options.rounds):
        limits.append(call([limits_program, options.threads]))
        for program in programs:
            measured[program].append(measure(program, row, options))
            last = measured[program][-1]
            print(f"{name} round {i + 1}/{options.rounds} {program}: prompt {last['prompt_tps']:.2f}, "
                  f"generation {last['generation_tps']:.2f} tok/s", file=sys.stderr, flush=True)
    return measured, {kind: statistics.median(one[kind] for one in limits) for kind in limits[0]}


def main():
    options = arguments()
    start = time.time()
    chip = call([options.mlxbench, "hwinfo", "--json"])
    if not options.threads:
        options.threads = chip["usable_cores"]
    limits_program = build_limits()
    results = []
    for name in options.only:
        measured, limits = measure_row(name, options, limits_program)
        results.append(report.Result(ROWS[name], measured, limits, work(ROWS[name], measured)))
    heading = (f"{datetime.date.today():%d %B %Y}, {chip['chip']}, {options.threads} threads, {platform.system()}; medians of "
               f"{options.rounds} rounds, the programs in turn; {(time.time() - start) / 60:.0f} minutes.")
    if "1b" in options.only:
        heading += f" Start of the program to the first token of the 1B model: {start_to_first_token(options):.2f} s."
    text = "\n".join([heading, "", *report.table(results), "", *report.limits_table(results)])
    print(text)
    if options.write:
        report.write(ROOT / "docs", "bench", text)
        (ROOT / "docs" / "roofline.svg").write_text(report.roofline(results, heading.split(";")[0]))


main()
