"""scripts/get_mlx.py: which of MLX's wheels a machine gets, by recorded values, and what is said without any."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import get_mlx  # noqa: E402


@pytest.mark.parametrize("system, machine, gpu, kind", [
    ("Linux", "x86_64", None, "cpu"),
    ("Linux", "aarch64", None, "cpu"),
    ("Linux", "x86_64", (13000, 90), "cuda13"),  # an H100 with driver 580
    ("Linux", "x86_64", (13010, 120), "cuda13"),
    ("Linux", "aarch64", (13000, 121), "cuda13"),
    ("Linux", "x86_64", (12080, 90), "cuda12"),  # driver 570
    ("Linux", "x86_64", (12040, 75), "cuda12"),  # driver 550, a T4
    ("Linux", "x86_64", (12020, 80), "cpu"),  # driver 535
    ("Linux", "x86_64", (13000, 70), "cpu"),  # a V100
    ("Darwin", "arm64", None, "metal"),
    ("Darwin", "x86_64", None, None),
])
def test_choice(system, machine, gpu, kind):
    chosen, remark = get_mlx.choose(system, machine, gpu)
    assert chosen == kind
    assert bool(remark) == (kind is None or (kind == "cpu" and gpu is not None))


def test_one_version():
    """The one in cmake/mlx.cmake is that of the Python package the tests compare with."""
    assert get_mlx.wanted_version() == pytest.importorskip("mlx.core").__version__
    shown = subprocess.run([sys.executable, ROOT / "scripts" / "get_mlx.py", "--requirement"], capture_output=True,
                           text=True, check=True).stdout
    assert shown.startswith("mlx") and shown.endswith(f"=={get_mlx.wanted_version()}\n")


def test_version_of_a_folder(tmp_path):
    assert get_mlx.version_in(tmp_path) == ""
    (tmp_path / "include" / "mlx").mkdir(parents=True)
    (tmp_path / "include" / "mlx" / "version.h").write_text(
        "#pragma once\n#define MLX_VERSION_MAJOR 1\n#define MLX_VERSION_MINOR 20\n#define MLX_VERSION_PATCH 3\n"
        "#define MLX_VERSION_NUMERIC (100000 * MLX_VERSION_MAJOR)\n")
    assert get_mlx.version_in(tmp_path) == "1.20.3"


def test_no_wheel(tmp_path):
    """Without an index pip finds nothing: one line of ours says so, and the build goes on without the engine."""
    code = "import sys, get_mlx; get_mlx.places = lambda: []; sys.exit(get_mlx.main())"
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "mlx"], capture_output=True, text=True,
                          env=environment)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "the engine mlx is left out" in line] == \
        done.stderr.splitlines()[-1:]
    assert not (tmp_path / "mlx").exists()
