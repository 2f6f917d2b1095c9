"""Downloading: what comes is what the Hub has, in huggingface_hub's layout, and each reads what the other wrote."""

import os
import pathlib
import signal
import subprocess
import sys

import huggingface_hub
import pytest
from snapshots import check_snapshot, incomplete, needed, wait_until


def test_layout(hub, cache, tiny, pull):
    repo = hub.add("org/tiny", tiny)
    snapshot = pull()
    assert snapshot == cache / "models--org--tiny" / "snapshots" / repo.commit
    check_snapshot(snapshot, needed(tiny))
    assert (cache / "models--org--tiny" / "refs" / "main").read_text() == repo.commit
    assert {path.name for path in (cache / "models--org--tiny" / "blobs").iterdir()} == {
        repo.etag(name) for name in needed(tiny)}
    assert (cache / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


def test_ranges_side_by_side(hub, sharded, pull):
    repo = hub.add("org/tiny", sharded)
    check_snapshot(pull(), needed(sharded))
    ranges = {r[3].get("Range") for r in hub.asked("/cdn/" + repo.etag("model-00001-of-00002.safetensors"))}
    assert ranges == {"bytes=0-16777215", "bytes=16777216-33554431", "bytes=33554432-36000000"}
    assert hub.sent == sum(map(len, needed(sharded).values()))


def test_second_time_costs_nothing(hub, tiny, pull):
    hub.add("org/tiny", tiny)
    first = pull()
    del hub.requests[:]
    assert pull() == first
    assert [r[2].split("/")[1] for r in hub.requests] == ["api", "api"]


def test_pages(hub, tiny, pull):
    hub.add("org/tiny", tiny)
    hub.page_size = 2
    check_snapshot(pull(), needed(tiny))


def test_new_commit_shares_what_is_the_same(hub, tiny, pull):
    hub.add("org/tiny", tiny)
    first = pull()
    changed = {**tiny, "config.json": tiny["config.json"] + b"\n"}
    repo = hub.add("org/tiny", changed)
    hub.sent = 0
    second = pull()
    check_snapshot(second, needed(changed))
    assert second != first and first.exists() and hub.sent == len(changed["config.json"])
    assert (second.parents[1] / "refs" / "main").read_text() == repo.commit


def test_revisions(hub, cache, tiny, pull, pull_fails):
    repo = hub.add("org/tiny", tiny)
    repo.refs["refs/pr/1"] = repo.refs["v1.0"] = repo.commit
    pull("org/tiny@refs/pr/1")
    pull(f"{hub.endpoint}/org/tiny/tree/v1.0")
    refs = cache / "models--org--tiny" / "refs"
    assert (refs / "refs" / "pr" / "1").read_text() == (refs / "v1.0").read_text() == repo.commit
    assert not (refs / "main").exists()
    pull(f"hf:org/tiny@{repo.commit}")
    assert not (refs / repo.commit).exists()
    pull_fails('org/tiny has no revision "v2"', name="org/tiny@v2")


def test_name_without_owner(hub, cache, tiny, pull, mlxbench_run):
    """As the Hub does: it redirects to where such a model has moved. The cache has the name that was asked for."""
    repo = hub.add("openai-community/gpt2", tiny)

    def moved(handler):
        if "openai-community" in handler.path:
            return False
        place = handler.path.replace("/gpt2/", "/openai-community/gpt2/")
        handler.send(307, b"", Location=place + (f"?{handler.query_text}" if handler.query_text else ""))
        return True

    for kind in ("revision", "tree", "resolve"):
        hub.faults[kind] = moved
    snapshot = pull("gpt2")
    assert snapshot == cache / "models--gpt2" / "snapshots" / repo.commit
    check_snapshot(snapshot, needed(tiny))
    assert huggingface_hub.snapshot_download("gpt2", cache_dir=cache, local_files_only=True) == str(snapshot)
    assert "  gpt2  " in mlxbench_run("models").stdout
    done = mlxbench_run("bench", "--model", "gpt2", "--offline", "-np", "4", "-n", "2", "--engine", "cpu")
    assert done.returncode == 0, done.stderr
    assert mlxbench_run("models", "--remove", "gpt2", "--yes").returncode == 0
    assert not (cache / "models--gpt2").exists()


def test_gguf(hub, cache, pull, pull_fails):
    hub.add("org/quants", {"a-Q4_0.gguf": b"GGUF4", "sub folder/ä-Q8_0.gguf": b"GGUF8", "README.md": b""})
    assert pull("org/quants/a-Q4_0.gguf").read_bytes() == b"GGUF4"
    assert pull("org/quants/sub folder/ä-Q8_0.gguf").read_bytes() == b"GGUF8"
    assert os.readlink(cache / "models--org--quants/snapshots" / hub.repos["org/quants"].commit /
                       "sub folder/ä-Q8_0.gguf").startswith("../../../blobs/")
    pull_fails("collection of GGUF files", "org/quants/FILE.gguf", "a-Q4_0.gguf", name="org/quants")
    pull_fails("no file b.gguf", "a-Q4_0.gguf", name="org/quants/b.gguf")


def test_gguf_in_several_files(hub, pull, pull_fails, mlxbench_run):
    hub.add("org/split", {**{f"q/a-0000{i}-of-00003.gguf": b"%d" % i for i in (1, 2, 3)}, "q/a.gguf": b"", "b-00001-of-00002.gguf":
                          b""})
    first = pull("org/split/q/a-00002-of-00003.gguf")
    assert first.name == "a-00001-of-00003.gguf" and sorted(p.read_bytes() for p in first.parent.iterdir()) == [
        b"1", b"2", b"3"]
    assert mlxbench_run("pull", "--offline", "org/split/q/a-00003-of-00003.gguf").stdout == f"{first}\n"
    (first.parent / "a-00003-of-00003.gguf").unlink()
    assert mlxbench_run("pull", "--offline", "org/split/q/a-00001-of-00003.gguf").returncode == 1
    pull_fails("no file b-00001-of-00002.gguf", name="org/split/b-00001-of-00002.gguf")


def test_not_a_model(hub, pull_fails):
    hub.add("org/data", {"README.md": b"", "config.json": b"{}", "pytorch_model.bin": b""})
    pull_fails("no config.json with model*.safetensors", name="org/data")


def test_empty_and_tiny_files(hub, tiny, pull):
    files = {**tiny, "merges.txt": b"", "model.safetensors": b"x"}
    hub.add("org/tiny", files)
    assert (pull() / "merges.txt").read_bytes() == b""


def test_other_commands_download(hub, cache, tiny, mlxbench_run):
    hub.add("org/tiny", tiny)
    done = mlxbench_run("tokenize", "--model", "org/tiny")
    assert done.returncode == 0, done.stderr
    snapshot = cache / "models--org--tiny" / "snapshots" / hub.repos["org/tiny"].commit
    assert (snapshot / "tokenizer.json").exists() and not (snapshot / "model.safetensors").exists()
    offline = mlxbench_run("generate", "--model", "org/tiny", "--prompt-ids", "1,2", "--ids", "--offline")
    assert offline.returncode == 1 and "model*.safetensors" in offline.stderr and "--offline" in offline.stderr
    for command in (["generate", "--prompt-ids", "1,2", "--ids", "-n", "2"], ["bench", "-np", "4", "-n", "2"]):
        done = mlxbench_run(*command, "--model", "org/tiny", "--engine", "cpu")
        assert done.returncode == 0 and done.stdout, done.stderr
    assert mlxbench_run("pull", "org/tiny", "--offline").returncode == 0


def test_offline(hub, tiny, mlxbench_run, pull):
    hub.add("org/tiny", tiny)
    for arguments, more in ((["--offline"], {}), ([], {"HF_HUB_OFFLINE": "1"})):
        done = mlxbench_run("bench", "--model", "org/tiny", *arguments, **more)
        assert done.returncode == 1 and "mlxbench pull org/tiny" in done.stderr
    assert not hub.requests
    snapshot = pull()
    done = mlxbench_run("pull", "--offline", "org/tiny", HF_HUB_OFFLINE="1")
    assert done.returncode == 0 and done.stdout == f"{snapshot}\n"
    assert mlxbench_run("pull", "org/tiny", HF_HUB_OFFLINE="1").returncode == 1


# ---- huggingface_hub as the oracle ----


def test_huggingface_hub_reads_ours(hub, cache, tiny, pull):
    hub.add("org/tiny", tiny)
    snapshot = pull()
    read = huggingface_hub.snapshot_download("org/tiny", cache_dir=cache, local_files_only=True)
    assert pathlib.Path(read) == snapshot
    info = huggingface_hub.scan_cache_dir(cache)
    assert not info.warnings
    (repo,) = info.repos
    assert repo.repo_id == "org/tiny" and repo.refs.keys() == {"main"} and repo.nb_files == len(needed(tiny))
    hub.sent = 0
    huggingface_hub.snapshot_download("org/tiny", cache_dir=cache, endpoint=hub.endpoint,
                                      allow_patterns=["*.json", "model*.safetensors"])
    assert hub.sent == 0, "it fetched again what we have fetched"


def test_we_read_huggingface_hubs(hub, cache, tiny, mlxbench_run, pull):
    hub.add("org/tiny", tiny)
    theirs = huggingface_hub.snapshot_download("org/tiny", cache_dir=cache, endpoint=hub.endpoint,
                                               allow_patterns=["*.json", "model*.safetensors"])
    del hub.requests[:]
    done = mlxbench_run("generate", "--model", "org/tiny", "--prompt-ids", "1,2", "--ids", "-n", "2", "--engine", "cpu")
    assert done.returncode == 0 and not hub.requests, done.stderr
    hub.sent = 0
    assert str(pull()) == theirs and hub.sent == 0


@pytest.mark.parametrize("before_2", [False, True])
def test_their_partial_file_is_continued(hub, cache, sharded, env, pull, before_2):
    """huggingface_hub is killed; before its version 2 such a file had no random part in its name."""
    repo = hub.add("org/tiny", sharded)
    large = "model-00001-of-00002.safetensors"
    hub.rate = 8e6
    code = f"import huggingface_hub; huggingface_hub.hf_hub_download('org/tiny', '{large}')"
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: hub.sent > 24_000_000)
    process.kill()
    process.wait()
    hub.rate = None
    (theirs,) = incomplete(cache)
    assert theirs.name.startswith(repo.etag(large)) and "mlxbench" not in theirs.name
    if before_2:
        theirs = theirs.rename(theirs.with_name(f"{repo.etag(large)}.incomplete"))
    kept = theirs.stat().st_size
    assert kept > 8_000_000
    hub.sent = 0
    check_snapshot(pull(), needed(sharded))
    in_flight = 1 << 18  # what the server counts when the killed process's connection ends
    assert 0 <= hub.sent - (sum(map(len, needed(sharded).values())) - kept) <= in_flight


def test_their_wrong_partial_file(hub, cache, sharded, pull):
    """Bytes that are not the file's are found by the hash. What is longer than the file can't belong to it."""
    repo = hub.add("org/tiny", sharded)
    blobs = cache / "models--org--tiny" / "blobs"
    blobs.mkdir(parents=True)
    first, second = (repo.etag(f"model-0000{i}-of-00002.safetensors") for i in (1, 2))
    (blobs / f"{first}.incomplete").write_bytes(b"x" * 20_000_000)
    (blobs / f"{second}.0123abcd.incomplete").write_bytes(b"x" * 4_000_001)
    (blobs / f"{second}.incomplete").symlink_to(cache / "elsewhere")
    snapshot = pull()
    assert all((snapshot / name).read_bytes() == data for name, data in needed(sharded).items())
    assert sorted(path.name for path in blobs.glob("*.incomplete")) == [f"{second}.0123abcd.incomplete",
                                                                        f"{second}.incomplete"]


def test_they_finish_what_we_have_begun(hub, cache, sharded, mlxbench, env, pull):
    """They start from the start, as with files of their own, and don't take ours for whole."""
    hub.add("org/tiny", sharded)
    hub.rate = 8e6
    process = subprocess.Popen([mlxbench, "pull", "org/tiny"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: hub.sent > 12_000_000)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert incomplete(cache)
    hub.rate = None
    theirs = huggingface_hub.snapshot_download("org/tiny", cache_dir=cache, endpoint=hub.endpoint,
                                               allow_patterns=["*.json", "model*.safetensors"])
    hub.sent = 0
    snapshot = pull()
    assert str(snapshot) == theirs and hub.sent == 0
    check_snapshot(snapshot, needed(sharded))  # and nothing incomplete is left


def test_no_exist(hub, cache, tiny, pull, pull_fails, mlxbench_run):
    """What the Hub does not have is kept in mind, for and from huggingface_hub."""
    hub.add("org/tiny", tiny)
    pull()
    for name, known in (("tokenizer.model", True), ("chat_template.jinja", True), ("README.md", False)):
        found = huggingface_hub.try_to_load_from_cache("org/tiny", name, cache_dir=cache)
        assert (found is huggingface_hub._CACHED_NO_EXIST) == known and not isinstance(found, str), name
    repo = hub.add("org/quants", {"a.gguf": b"GGUF"})
    with pytest.raises(huggingface_hub.errors.EntryNotFoundError):
        huggingface_hub.hf_hub_download("org/quants", "b.gguf", cache_dir=cache, endpoint=hub.endpoint)
    del hub.requests[:]
    done = mlxbench_run("bench", "--model", "org/quants/b.gguf", "--offline")
    assert done.returncode == 1 and f"org/quants has no b.gguf: so the Hub said of commit {repo.commit}" in done.stderr
    done = mlxbench_run("bench", "--model", f"org/quants@{repo.commit}/b.gguf")
    assert done.returncode == 1 and "has no b.gguf" in done.stderr and not hub.requests
    pull_fails("no file c.gguf", name="org/quants/c.gguf")
    assert huggingface_hub.try_to_load_from_cache(
        "org/quants", "c.gguf", cache_dir=cache, revision=repo.commit) is huggingface_hub._CACHED_NO_EXIST
    hub.add("org/quants", {"a.gguf": b"GGUF", "b.gguf": b"GGUF"})  # a branch moves on, and is asked again
    assert pull("org/quants/b.gguf").read_bytes() == b"GGUF"


def test_their_incomplete_one_is_completed(hub, cache, tiny, mlxbench_run):
    hub.add("org/tiny", tiny)
    huggingface_hub.snapshot_download("org/tiny", cache_dir=cache, endpoint=hub.endpoint, allow_patterns=["*.json"])
    done = mlxbench_run("bench", "--model", "org/tiny", "--offline")
    assert done.returncode == 1 and "missing: model.safetensors" in done.stderr
    done = mlxbench_run("bench", "--model", "org/tiny", "-np", "4", "-n", "2", "--engine", "cpu")
    assert done.returncode == 0, done.stderr


def test_blobs_that_models_share(hub, cache, tiny, pull, mlxbench_run):
    """huggingface_hub moves a blob into a store of the whole cache: a model with such a link works, and removing it
    leaves the store to huggingface_hub, which knows who else uses it."""
    from huggingface_hub.utils import _shared_blobs

    hub.add("org/tiny", tiny)
    blob = (pull() / "model.safetensors").resolve()
    assert _shared_blobs.publish_blob_to_shared_store(blob_path=str(blob), xet_hash=blob.name, cache_dir=cache,
                                                      expected_size=len(tiny["model.safetensors"]))
    assert blob.is_symlink()
    hub.sent = 0
    assert (pull() / "model.safetensors").read_bytes() == tiny["model.safetensors"] and hub.sent == 0
    done = mlxbench_run("models")
    assert "runs here" in next(line for line in done.stdout.splitlines() if "org/tiny" in line)
    done = mlxbench_run("models", "--remove", "org/tiny", "--yes")
    assert done.returncode == 0 and "GB stay, which other models may use" in done.stderr, done.stderr
    assert not (cache / "models--org--tiny").exists()
    assert len(_shared_blobs.unreferenced_shared_blobs(cache)) == 1


def test_mlx_lm_loads_ours(hub, cache, tiny, env, pull):
    hub.add("org/tiny", tiny)
    pull()
    code = ("import mlx.core as mx; mx.set_default_device(mx.cpu); from mlx_lm import load;"
            "model, tokenizer = load('org/tiny'); print(len(model.layers))")
    done = subprocess.run([sys.executable, "-c", code], env={**env, "HF_HUB_OFFLINE": "1"}, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0 and done.stdout == "2\n", done.stderr
