"""Downloads that are interrupted, stalled, killed or damaged: the next one goes on where it was."""

import contextlib
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import filelock
import pytest
from snapshots import check_snapshot, incomplete, needed, wait_until


def test_interrupt_and_resume(hub, cache, sharded, mlxbench, env, pull, mlxbench_run):
    hub.add("org/tiny", sharded)
    hub.rate = 8e6
    process = subprocess.Popen([mlxbench, "pull", "org/tiny"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    wait_until(lambda: hub.sent > 12_000_000)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and err.splitlines()[-1] == "mlxbench: interrupted"
    assert incomplete(cache)
    listed = mlxbench_run("models").stdout
    assert "org/tiny" in listed and " of 40.0 MB, missing: model-00001-of-00002.safetensors" in listed
    hub.rate = None
    sent, hub.sent = hub.sent, 0
    check_snapshot(pull(), needed(sharded))
    total = sum(map(len, needed(sharded).values()))
    assert hub.sent < total - 8_000_000, (sent, hub.sent, total)


def test_connections_that_break(hub, sharded, pull):
    """Each range breaks off after a part of it; nothing that came is asked for again."""
    hub.add("org/tiny", sharded)
    broken = []

    def fault(handler):
        if len(broken) >= 6:
            return False
        broken.append(1)
        data = next(d for d in sharded.values() if hashlib.sha256(d).hexdigest() == handler.groups[0])
        asked = handler.asked_range(len(data))
        first, last = asked or (0, len(data) - 1)
        handler.send_response(206 if asked else 200)
        if asked:
            handler.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        handler.send_header("Content-Length", str(last - first + 1))
        handler.end_headers()
        part = data[first:first + (last - first) // 2]
        handler.wfile.write(part)
        hub.sent += len(part)
        handler.close_connection = True
        return True

    hub.faults["cdn"] = fault
    check_snapshot(pull(), needed(sharded))
    assert hub.sent <= sum(map(len, needed(sharded).values())) + 1


def test_stall(hub, tiny, pull):
    hub.add("org/tiny", tiny)
    stalled = []

    def fault(handler):
        if stalled:
            return False
        stalled.append(1)
        time.sleep(4)
        handler.close_connection = True
        return True

    hub.faults["cdn"] = fault
    check_snapshot(pull(HF_HUB_DOWNLOAD_TIMEOUT="2"), needed(tiny))
    assert stalled


def test_stall_before_the_files(hub, tiny, mlxbench_run):
    """Questions about a model have a patience of their own."""
    hub.add("org/tiny", tiny)
    stalled = []

    def fault(handler):
        if not stalled:
            stalled.append(1)
            time.sleep(5)
        return False

    hub.faults["revision"] = fault
    done = mlxbench_run("pull", "org/tiny", HF_HUB_ETAG_TIMEOUT="2", HF_HUB_DOWNLOAD_TIMEOUT="60")
    assert done.returncode == 0 and "no data for too long" in done.stderr


def test_server_without_ranges(hub, cache, sharded, pull):
    hub.add("org/tiny", sharded)
    hub.ranges = False
    check_snapshot(pull(), needed(sharded))


def test_two_at_once_download_once(hub, sharded, mlxbench, env):
    hub.add("org/tiny", sharded)
    hub.rate = 20e6
    both = [subprocess.Popen([mlxbench, "pull", "org/tiny"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True) for _ in range(2)]
    out = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], out
    assert out[0][0] == out[1][0]
    check_snapshot(pathlib.Path(out[0][0].strip()), needed(sharded))
    assert hub.sent == sum(map(len, needed(sharded).values()))


def test_waits_for_huggingface_hub(hub, cache, tiny, mlxbench, env):
    """Its lock on a blob holds us up, and nothing else does."""
    repo = hub.add("org/tiny", tiny)
    locks = cache / ".locks" / "models--org--tiny"
    locks.mkdir(parents=True)
    with filelock.FileLock(locks / f"{repo.etag('model.safetensors')}.lock"):
        process = subprocess.Popen([mlxbench, "pull", "org/tiny"], env=env, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        wait_until(lambda: list(cache.rglob("tokenizer_config.json")))
        time.sleep(0.5)
        assert process.poll() is None and not hub.asked("/cdn/")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and "model.safetensors: another process downloads it; waiting" in err
    check_snapshot(pathlib.Path(out.strip()), needed(tiny))


def test_damaged_partial_file(hub, cache, sharded, mlxbench, env, pull):
    """What a power failure may leave: a table that claims bytes which are not there."""
    repo = hub.add("org/tiny", sharded)
    hub.rate = 8e6
    process = subprocess.Popen([mlxbench, "pull", "org/tiny"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: hub.sent > 12_000_000)
    process.kill()
    process.communicate(timeout=10)
    hub.rate = None
    etag = repo.etag("model-00001-of-00002.safetensors")
    partial = cache / "models--org--tiny" / "blobs" / f"{etag}.mlxbench.incomplete"
    with open(partial, "r+b") as file:
        file.write(bytes(100_000))
    check_snapshot(pull(), needed(sharded))


@pytest.mark.parametrize("size", [0, 100, 36_000_001, 36_000_002, 36_000_040, 37_000_000])
def test_foreign_partial_file(hub, cache, sharded, pull, size):
    repo = hub.add("org/tiny", sharded)
    blobs = cache / "models--org--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{repo.etag('model-00001-of-00002.safetensors')}.mlxbench.incomplete").write_bytes(b"\xff" * size)
    check_snapshot(pull(), needed(sharded))


def test_a_truncated_blob_is_replaced(hub, tiny, pull, mlxbench_run):
    hub.add("org/tiny", tiny)
    blob = (pull() / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-1])
    done = mlxbench_run("bench", "--model", "org/tiny", "--offline")
    assert done.returncode == 1 and "missing: model.safetensors" in done.stderr
    check_snapshot(pull(), needed(tiny))


def test_killed_at_any_moment(hub, cache, sharded, mlxbench, env, pull):
    """kill -9: five times; a hundred times with FULL=1."""
    hub.add("org/tiny", sharded)
    moments = random.Random(3)
    for i in range(100 if os.environ.get("FULL") else 5):
        hub.rate = 40e6
        process = subprocess.Popen([mlxbench, "pull", "org/tiny"], env=env, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=moments.uniform(0, 0.8))
        process.kill()
        process.wait()
        if i % 3 == 2:  # some are killed twice and three times before they may finish
            continue
        hub.rate = None
        check_snapshot(pull(), needed(sharded))
        shutil.rmtree(cache)
