"""Fixtures of the command-line tests: small good models, and what a well-behaved failure looks like."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import files  # noqa: E402


ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MODULE = "mlxbench-mlx" + (".dylib" if sys.platform == "darwin" else ".so")


@pytest.fixture(scope="session")
def engine_module(mlxbench):
    """engine_module(folder, source) -> the environment in which the engine mlx is that source."""
    abi = re.search(r"-DENGINE_ABI=\w+", (mlxbench.parent / "compile_commands.json").read_text()).group()
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler to build a module with")

    def engine_module(folder, source):
        folder.mkdir(exist_ok=True)
        (folder / "module.c").write_text(source)
        flags = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
        subprocess.run([compiler, "-std=gnu17", "-D_GNU_SOURCE", abi, "-I", ROOT / "src", "-shared", "-fPIC", *flags, "-o",
                        folder / MODULE, folder / "module.c"], check=True)
        return {"MLXBENCH_ENGINE_PATH": str(folder)}

    return engine_module


@pytest.fixture(scope="session")
def good_folder(tmp_path_factory):
    return files.write_folder(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="session")
def good_gguf(tmp_path_factory):
    return files.write_gguf(tmp_path_factory.mktemp("good") / "model.gguf")


@pytest.fixture
def fails(run):
    """fails(code, words, *arguments): the program ends with code and one line on stderr that has all the words."""

    def fails(code, words, *arguments, **options):
        done = run(*arguments, **options)
        assert done.returncode == code, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert len(done.stderr) < 3000
        for word in words:
            assert str(word).lower() in done.stderr.lower()
        return done

    return fails


@pytest.fixture
def open_fails(fails):
    """open_fails(model, *words): a model that can't be used, exit code 1."""

    def open_fails(model, *words):
        return fails(1, words, "generate", "--model", model, "--prompt-ids", "1,2,3", "--ids", "--max-tokens", 2)

    return open_fails
