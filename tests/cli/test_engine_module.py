"""The MLX engine is a file that is looked for when it is asked for: whatever is wrong with it is one clear line."""

import pathlib
import shutil
import subprocess
import sys

import pytest

SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"
MODULE = "mlxbench-mlx" + SUFFIX
MODEL = ["--model", "synthetic:llama-3.2-1b-4bit", "--prompt-ids", "5", "--ids", "--max-tokens", "1"]


def refused(run, path):
    done = run("generate", "--engine", "mlx", *MODEL, env={"MLXBENCH_ENGINE_PATH": str(path)})
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_missing(run, tmp_path):
    assert str(tmp_path / MODULE) in refused(run, tmp_path)
    assert str(tmp_path / "nothing") in refused(run, tmp_path / "nothing")


def test_no_library(run, tmp_path):
    (tmp_path / MODULE).write_text("no library")
    assert str(tmp_path / MODULE) in refused(run, tmp_path)


@pytest.mark.parametrize("source, complaint", [
    ("int nothing;", "is no engine of mlxbench"),
    ("struct { unsigned long long abi; const char *built; void *type; } module = {1, \"MLX 0.1\"};\n"
     "void *mlxbench_engine_module(void) { return &module; }", "(MLX 0.1) was built with another mlxbench"),
])
def test_another_library(run, tmp_path, source, complaint):
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler to build a module with")
    (tmp_path / "module.c").write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / MODULE, tmp_path / "module.c"], check=True)
    assert complaint in refused(run, tmp_path)
    assert complaint in refused(run, tmp_path / MODULE)


def test_library_of_another_version(mlxbench, run, tmp_path):
    """The loader finds a libmlx that lacks what the module was built with."""
    module = pathlib.Path(mlxbench).parent / MODULE
    compiler = shutil.which("cc")
    if not module.exists() or not compiler or sys.platform == "darwin":
        pytest.skip("needs a build with MLX, a C compiler and LD_LIBRARY_PATH")
    (tmp_path / "mlx.c").write_text("int nothing;")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "libmlx.so", tmp_path / "mlx.c"], check=True)
    done = run("generate", "--engine", "mlx", *MODEL, env={"LD_LIBRARY_PATH": str(tmp_path)})
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "built against a library of another version" in done.stderr


def test_program_starts_without_mlx(mlxbench):
    """Neither the program nor what it is linked with needs MLX."""
    tool = shutil.which("ldd")
    if not tool:
        pytest.skip("no ldd here")
    assert "mlx" not in subprocess.run([tool, mlxbench], capture_output=True, text=True).stdout.replace(str(mlxbench), "")
