"""The layering check itself: the sources pass, and each kind of violation is found."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHECK = ROOT / "scripts" / "check_layers.py"


def check(*args):
    return subprocess.run([sys.executable, str(CHECK), *map(str, args)], capture_output=True, text=True)


def test_sources_follow_the_order():
    done = check()
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file, include, complaint", [
    ("base/arena.c", "engine/engine.h", "base may not use engine"),
    ("engine/cpu/cpu.c", "model/model.h", "engine may not use model"),
    ("text/bpe.c", "checkpoint/checkpoint.h", "text may not use checkpoint"),
    ("report/csv.c", "cmd/cmd.h", "report may not use cmd"),
    ("report/csv.c", "bench/bench.h", "report may not use bench"),
    ("results/row.c", "engine/engine.h", "results may not use engine"),
    ("model/llama.c", "engine/graph.h", "private to engine"),
    ("bench/run.c", "base/json.h", "private to base"),
    ("model/llama.c", "../engine/engine.h", "write the path from src/"),
    ("model/llama.c", "registry.h", "write the path from src/"),
    ("main.c", "engine/engine.h", "main.c may not use engine"),
    ("extra/new.c", "base/base.h", "no folder extra"),
])
def test_violation_is_found(tmp_path, file, include, complaint):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#include <stdio.h>\n#include "{include}"\n')
    done = check(tmp_path)
    assert done.returncode == 1
    assert complaint in done.stdout


@pytest.mark.parametrize("file, include", [
    ("cmd/bench.c", "engine/engine.h"),
    ("bench/run.c", "checkpoint/checkpoint.h"),
    ("engine/cpu/cpu.c", "engine/cpu/kernels/kernels.h"),
    ("report/csv.c", "base/base.h"),
    ("bench/run.c", "results/results.h"),
    ("report/csv.c", "results/results.h"),
    ("main.c", "cmd/cmd.h"),
])
def test_right_include_passes(tmp_path, file, include):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#include "{include}"\n')
    done = check(tmp_path)
    assert done.returncode == 0, done.stdout
