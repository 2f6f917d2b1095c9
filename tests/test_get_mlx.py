"""scripts/get_mlx.py: which of MLX's wheels a machine gets, by recorded values, and what is said without any."""

import os
import pathlib
import subprocess
import sys
import zipfile

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


def test_older_python(tmp_path):
    """The wheel asks for a newer Python than a Mac's own; its library and headers are had all the same."""
    version = get_mlx.wanted_version()
    info = f"mlx_cpu-{version}.dist-info"
    with zipfile.ZipFile(tmp_path / f"mlx_cpu-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("mlx/include/mlx/version.h", "")
        wheel.writestr(f"{info}/METADATA",
                       f"Metadata-Version: 2.1\nName: mlx-cpu\nVersion: {version}\nRequires-Python: >=99\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"mlx/include/mlx/version.h,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    code = f"import sys, get_mlx; sys.exit(get_mlx.install('cpu', '{version}', {str(tmp_path / 'mlx')!r}) or 0)"
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path),
                   "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mlx" / "mlx" / "include" / "mlx" / "version.h").exists()
