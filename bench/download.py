"""Races `mlxbench pull` against huggingface_hub: the same model from the same server on this machine, in turn.

usage: bench/download.py [--gb 2] [--repeats 3] [--folder FOLDER]    with .venv's Python, which has huggingface_hub

Prints seconds of the whole process and its largest memory. huggingface_hub's own time, without Python's start, is
told apart. Each download goes into a new cache, which is removed.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
THEIRS = """
import sys, time
from huggingface_hub import snapshot_download
start = time.perf_counter()
snapshot_download("org/model")
print(time.perf_counter() - start)
"""


def write_model(folder, gb):
    block = os.urandom(1 << 24)
    with open(folder / "model.safetensors", "wb") as file:
        for i in range(int(gb * 1e9) // len(block)):
            file.write(i.to_bytes(8, "little") + block[8:])
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


def measure(command, endpoint, folder):
    """(seconds of the process, its largest memory in MB, what it printed)."""
    cache = pathlib.Path(tempfile.mkdtemp(dir=folder))
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1",
           "HF_HUB_OFFLINE": "0"}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    shutil.rmtree(cache)
    if status:
        sys.exit(f"{command[0]} failed")
    return seconds, usage.ru_maxrss / 1e3, out.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where there is room for three times that (the system's for temporary files)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        model = pathlib.Path(folder) / "model"
        model.mkdir()
        write_model(model, options.gb)
        server = subprocess.Popen([sys.executable, ROOT / "tests/hub/hub_server.py", f"org/model={model}"],
                                  stdout=subprocess.PIPE, text=True)
        try:
            endpoint = server.stdout.readline().strip()
            for _ in range(options.repeats):
                seconds, memory, _ = measure([ROOT / "build/mlxbench", "pull", "org/model"], endpoint, folder)
                print(f"mlxbench         {seconds:6.2f} s  {memory:6.0f} MB", flush=True)
                seconds, memory, inner = measure([sys.executable, "-c", THEIRS], endpoint, folder)
                print(f"huggingface_hub  {seconds:6.2f} s  {memory:6.0f} MB  ({float(inner):.2f} s of it downloading)",
                      flush=True)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
