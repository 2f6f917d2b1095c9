"""make install: the program runs from any folder, with the engines cpu and mlx, and needs nothing of the checkout."""

import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GENERATE = ["generate", "--model", "synthetic:tiny-llama-13m-4bit", "--prompt-ids", "1,2,3", "--ids", "--max-tokens", "2"]
# A program that sees an empty folder in the place of the checkout. The installation is elsewhere:
# in /tmp, say.
HIDDEN = 'mount -t tmpfs none "$1" && shift && cd / && exec "$@"'


def command(*words):
    done = subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(mlxbench, tmp_path_factory):
    """PREFIX, whose name has what breaks careless scripts; outside of the checkout, which the tests hide."""
    if not shutil.which("cmake"):
        pytest.skip("no cmake here")
    folder = pathlib.Path(command("mktemp", "-d", "/tmp/mlxbench-install-XXXXXX").strip())
    prefix = folder / "a place, with a comma"
    command("cmake", "--install", pathlib.Path(mlxbench).parent, "--prefix", prefix)
    yield prefix
    shutil.rmtree(folder)


@pytest.fixture
def hidden():
    """The words that run a command where the checkout is not to be seen."""
    words = ["unshare", "--mount", "--map-root-user", "sh", "-euc", HIDDEN, "sh", ROOT]
    if sys.platform == "darwin" or subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody hide a folder (unshare --mount)")
    return words


@pytest.mark.parametrize("engine", ["cpu", "mlx"])
def test_runs_without_the_checkout(installed, hidden, engine):
    if engine == "mlx" and not list((installed / "lib").glob("mlxbench/mlxbench-mlx.*")):
        pytest.skip("this build has no MLX")
    ids = command(*hidden, installed / "bin" / "mlxbench", *GENERATE, "--engine", engine)
    assert len(ids.split()) == 2


def test_uninstall(installed):
    (installed / "bin" / "other").touch()
    command("make", "uninstall", f"PREFIX={installed}")
    left = sorted(str(path.relative_to(installed)) for path in installed.rglob("*") if not path.is_dir())
    assert left == ["bin/other"]
