"""Every architecture on the GPU: the ids of mlxbench's MLX engine there against mlx-lm's on the CPU, in F32 and with 4 bits.

usage: python bench/gpu/architectures.py [--mlxbench PATH] [--only TYPE,...] [--jobs N]
mlxbench must have been built with MLX for this GPU, and this Python must have mlx and mlx-lm. Where ids differ, or mlxbench
refuses, mlx-lm's on the GPU are asked for, too: MLX lacks some of its CPU's kernels there. Ends with 1 when a difference is
mlxbench's own. Products of F32 are exact here: MLX_ENABLE_TF32=0.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "oracle"))
CASES = ["prompt", "4 bits", "rotating"]
REFUSED = 2  # exit code
ENVIRONMENT = dict(os.environ, MLX_ENABLE_TF32="0")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlxbench", default=str(ROOT / "build" / "mlxbench"))
    parser.add_argument("--only", help="model types")
    parser.add_argument("--jobs", default=os.cpu_count(), type=int)
    parser.add_argument("--make", help=argparse.SUPPRESS)  # in a process of its own: mlx-lm's answers on the CPU
    parser.add_argument("--peer", nargs=2, help=argparse.SUPPRESS)  # likewise: mlx-lm's ids on the GPU
    return parser.parse_args()


def make(model_type):
    import mlx.core as mx
    mx.set_default_device(mx.cpu)
    import architectures
    print(architectures.get(model_type))


def peer(folder, case):
    import architectures
    prompt, _, options = architectures.CASES[case]
    print(json.dumps(architectures.generate(architectures.load_model(pathlib.Path(folder))[0], prompt, **options)[0]))


def own(*words):
    return subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, env=ENVIRONMENT)


def compare(program, folder, case):
    """"same", or what was seen instead; whose fault it is comes first."""
    import architectures
    prompt, four_bits, options = architectures.CASES[case]
    model = pathlib.Path(folder) / ("4-bit" if four_bits else "plain")
    wanted = architectures.load(pathlib.Path(folder), case)
    if wanted[0] == "error":
        return "refused by mlx-lm"
    extra = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), str(value))]
    done = subprocess.run([program, "generate", "--engine", "mlx", "--model", model, "--prompt-ids",
                           ",".join(map(str, prompt)), "--ids", "--max-tokens", str(architectures.N), "--ignore-eos",
                           "--prefill-step-size", str(architectures.STEP), *extra],
                          capture_output=True, text=True, env=ENVIRONMENT)
    ids = [int(word) for word in done.stdout.split()] if done.returncode == 0 else done.stderr.strip()
    if ids == wanted[0]:
        return "same"
    if done.returncode == REFUSED:
        return f"refused by mlxbench: {ids}"
    other = own("--peer", str(model), case)
    theirs = json.loads(other.stdout.splitlines()[-1]) if other.returncode == 0 else None
    if ids == theirs or (theirs is None and done.returncode):
        return "as mlx-lm on the GPU"
    return f"DIFFERENT: {ids}, on the CPU {wanted[0]}, mlx-lm on the GPU {theirs or other.stderr[-200:]}"


def one(program, model_type):
    made = own("--make", model_type)
    if made.returncode:
        return model_type, {"oracle": "DIFFERENT: " + made.stderr[-200:]}
    folder = made.stdout.split()[-1]
    return model_type, {case: compare(program, folder, case) for case in CASES}


def main():
    options = arguments()
    if options.make:
        return make(options.make)
    if options.peer:
        return peer(*options.peer)
    listed = subprocess.run([options.mlxbench, "models", "--markdown"], capture_output=True, text=True, check=True).stdout
    known = json.loads((ROOT / "tests" / "oracle" / "architectures.json").read_text())
    types = [name for name in re.findall(r"^\| `(\S+)` \|", listed, re.M) if name in known]
    if options.only:
        types = [name for name in types if name in options.only.split(",")]
    counts = {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for model_type, seen in pool.map(lambda name: one(options.mlxbench, name), types):
            for case, what in seen.items():
                kind = what.split(":")[0]
                counts[kind] = counts.get(kind, 0) + 1
                if kind != "same":
                    print(model_type, case, what, flush=True)
    print(f"{len(types)} architectures:", ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())))
    return 1 if "DIFFERENT" in counts else 0


if __name__ == "__main__":
    sys.exit(main())
