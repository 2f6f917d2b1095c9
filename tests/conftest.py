"""Fixtures every test may use: the program, a way to run it, and the demo model."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "oracle"), str(ROOT / "tests")]
from schema import check_outputs  # noqa: E402


@pytest.fixture(scope="session")
def mlxbench():
    """Path of the program under test: $MLXBENCH, or the release build."""
    path = pathlib.Path(os.environ.get("MLXBENCH", ROOT / "build" / "mlxbench")).resolve()
    if not path.exists():
        pytest.fail(f"{path} is not there: build it with make")
    return path


@pytest.fixture(scope="session")
def run(mlxbench):
    """run("generate", "--model", ...) -> CompletedProcess with text output. env adds to the environment, which keeps
    the program off the network. All JSON that it writes is validated."""

    def run(*args, input=None, env=None, check=False, timeout=120, cwd=None):
        done = subprocess.run([str(mlxbench), *map(str, args)], input=input, text=True, capture_output=True,
                              env={**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})}, timeout=timeout, cwd=cwd,
                              stdin=subprocess.DEVNULL if input is None else None)
        if done.returncode in (0, 1, 3):
            check_outputs(mlxbench, [str(a) for a in args], done.stdout)
        if check:
            assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def demo_model():
    """Path of the real model's GGUF file, as `make run` leaves it."""
    path = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    path = pathlib.Path(os.environ.get("MLXBENCH_DEMO_MODEL", path)).resolve()
    if not path.exists():
        pytest.skip(f"no demo model at {path} (make run fetches it)")
    return path
