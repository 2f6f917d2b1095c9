"""Fixtures of the Hub's tests: a server, a cache of its own for each test, and the program set up for both."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "cli")]
import files  # noqa: E402
import hub_server  # noqa: E402


@pytest.fixture
def hub():
    with hub_server.serve() as hub:
        yield hub


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "hub"


@pytest.fixture
def env(hub, cache, tmp_path):
    """The environment of a user who has nothing but this Hub."""
    kept = {name: value for name, value in os.environ.items() if name != "TERM" and
            not name.startswith(("HF_", "XDG_")) and not name.lower().endswith("_proxy")}
    return {**kept, "HOME": str(tmp_path), "HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(cache)}


@pytest.fixture
def mlxbench_run(mlxbench, env):
    """mlxbench_run("pull", ...) -> CompletedProcess, in that environment."""

    def run(*arguments, timeout=60, **more):
        return subprocess.run([str(mlxbench), *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, env={**env, **more})

    return run


@pytest.fixture
def pull(mlxbench_run):
    """pull(name) -> the snapshot's path: it must succeed."""

    def pull(name="org/tiny", **more):
        done = mlxbench_run("pull", name, **more)
        assert done.returncode == 0, done.stderr
        return pathlib.Path(done.stdout.rstrip("\n"))

    return pull


@pytest.fixture
def pull_fails(mlxbench_run):
    """pull_fails(words...) -> the process: exit code 1, and the last line of stderr has all the words."""

    def pull_fails(*words, name="org/tiny", code=1, **more):
        done = mlxbench_run("pull", name, **more)
        assert done.returncode == code, done.stderr
        last = done.stderr.splitlines()[-1]
        for word in words:
            assert word.lower() in last.lower(), done.stderr
        assert done.stdout == "" and "\x1b" not in done.stderr
        return done

    return pull_fails


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """name -> bytes of a whole small model, with files that a run has no use for."""
    folder = files.write_folder(tmp_path_factory.mktemp("tiny"))
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**found, "tokenizer_config.json": b'{"tokenizer_class": "PreTrainedTokenizerFast"}', "README.md": b"# x\n",
            ".gitattributes": b"*.safetensors filter=lfs\n", "generation_config.json": b"{}", "logo.png": b"png",
            "original/model.safetensors": b"large"}


@pytest.fixture
def sharded(tiny):
    """The same, with weights in two files and an index: 40 MB, so that they are fetched in ranges."""
    big = {name: data for name, data in tiny.items() if name != "model.safetensors"}
    rng = np.random.default_rng(7)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    big[names[0]] = rng.bytes(36_000_001)
    big[names[1]] = rng.bytes(4_000_000)
    big["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": names[0], "b": names[1]}}).encode()
    return big
