"""What a download shows: progress on terminals of all kinds and in plain lines, and errors on a disk that is full."""

import fcntl
import json
import os
import pathlib
import pty
import re
import struct
import subprocess
import termios

import pytest


def on_a_terminal(mlxbench, env, rows=24, columns=80):
    """What `pull org/tiny` writes to a terminal of that size."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen([mlxbench, "pull", "org/tiny"], env={"TERM": "xterm", **env}, stdout=subprocess.DEVNULL,
                               stderr=follower)
    os.close(follower)
    seen = b""
    while process.poll() is None or seen == b"":
        try:
            seen += os.read(leader, 65536)
        except OSError:
            break
    os.close(leader)
    assert process.wait(timeout=30) == 0
    return seen.decode()


class Screen:
    """A terminal as far as a download needs it: a cursor, CR, LF, up, clear to the end of the line or the screen."""

    def __init__(self, columns):
        self.lines, self.row, self.columns, self.pictures = [""], 0, columns, []

    def write(self, text):
        for part in re.findall(r"\033\[\d*[A-Z]|[\r\n]|[^\033\r\n]+", text):
            if part == "\n":
                self.row += 1
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif part.endswith("A") and part[0] == "\033":
                self.row -= int(part[2:-1] or 1)
                assert self.row >= 0
            elif part == "\033[J":
                del self.lines[self.row + 1:]
                self.pictures.append(list(self.lines))
            elif part not in ("\r", "\033[K"):  # text comes after CR or LF, and \033[K after it
                assert len(part) < self.columns or not part.lstrip()[:1].isdigit()
                self.lines[self.row] = part


def test_progress_on_a_terminal(hub, sharded, mlxbench, env):
    """A line for each file on its way and one for all, in their places; what is done stays above them."""
    hub.add("org/tiny", sharded)
    hub.rate = 8e6
    screen = Screen(80)
    text = on_a_terminal(mlxbench, env)
    screen.write(text)
    both = [p for p in screen.pictures if any(" % of 36.0 MB  model-00001-of-00002.safetensors" in line for line in p)
            and any(" % of 4.0 MB  model-00002-of-00002.safetensors" in line for line in p)]
    assert both, text
    for picture in screen.pictures:
        rewritten = [line for line in picture if line and not line.startswith("mlxbench: ")]
        assert len(rewritten) < 10 and sum(" files" in line for line in rewritten) <= 1, picture
    total = [line for p in screen.pictures for line in p if re.fullmatch(
        r"\d+ %, \d+\.\d MB of 40\.0 MB, \d+\.\d MB/s, \d:\d\d left, \d of 7 files", line)]
    assert total, text
    assert screen.lines[-2].startswith("mlxbench: org/tiny is complete") and screen.lines[-1] == ""
    assert "mlxbench: model-00001-of-00002.safetensors: downloaded and verified" in screen.lines
    assert all(line == "" or line.startswith("mlxbench: ") for line in screen.lines), screen.lines


def test_progress_on_a_small_terminal(hub, sharded, mlxbench, env):
    hub.add("org/tiny", sharded)
    hub.rate = 20e6
    screen = Screen(30)
    screen.write(on_a_terminal(mlxbench, env, rows=4, columns=30))
    assert max(sum(1 for line in p if line and line.lstrip()[0].isdigit()) for p in screen.pictures) in (2, 3)


def test_progress_on_a_dumb_terminal(hub, tiny, mlxbench, env):
    hub.add("org/tiny", tiny)
    assert "\033" not in on_a_terminal(mlxbench, {**env, "TERM": "dumb"})


def test_plain_progress(hub, tiny, mlxbench_run):
    hub.add("org/tiny", tiny)
    done = mlxbench_run("pull", "org/tiny")
    assert "\r" not in done.stderr and "\x1b" not in done.stderr
    assert "mlxbench: model.safetensors: downloaded and verified" in done.stderr.splitlines()
    (pathlib.Path(done.stdout.strip()) / "config.json").resolve().unlink()
    done = mlxbench_run("pull", "org/tiny", HF_HUB_DISABLE_PROGRESS_BARS="1")
    assert len(done.stderr.splitlines()) == 2


def test_disk_full(hub, tiny, pull_fails):
    repo = hub.add("org/tiny", tiny)

    def fault(handler):
        entries = [repo.entry(path) for path in repo.files if "/" not in path]
        for entry in entries:
            if "lfs" in entry:
                entry["lfs"]["size"] = 4_000_000_000_000
        handler.send(200, json.dumps(entries).encode())
        return True

    hub.faults["tree"] = fault
    pull_fails("needs 4000", "GB left", "make room")
    assert not hub.asked("/cdn/")


def test_disk_that_fills_up(hub, cache, sharded, mlxbench, env):
    """A file system of 48 MB that somebody else fills while 40 MB come; with room again, the download goes on."""
    script = (f"mount -t tmpfs -o size=48m none {cache} || exit 77\n"
              f"{mlxbench} pull org/tiny & for i in $(seq 300); do sleep 0.1\n"
              f"ls {cache}/models--org--tiny/blobs/*.incomplete 2>/dev/null && break; done\n"
              f"head -c 40000000 /dev/zero >{cache}/fill 2>/dev/null\n"
              f"wait $!; echo code $?; rm {cache}/fill; {mlxbench} pull org/tiny")
    cache.mkdir()
    hub.add("org/tiny", sharded)
    hub.rate = 2e6
    done = subprocess.run(["unshare", "--map-root-user", "--mount", "sh", "-c", script], env=env, capture_output=True,
                          text=True, timeout=120)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"no file system of its own can be mounted here: {done.stderr.splitlines()[0]}")
    assert "code 1" in done.stdout and "the disk is full (what has come so far is kept)" in done.stderr, done.stderr
    assert done.returncode == 0 and "org/tiny is complete" in done.stderr, done.stderr


def test_names(hub, tiny, cache, pull, pull_fails):
    hub.add("org/tiny", tiny)
    pull_fails("no name on the Hub", name="../tiny", code=2)
    pull_fails("no name on the Hub", name="org/tiny/model.safetensors", code=2)
    pull_fails("no folder or file org/other here", "has no such model", "logged in", name="org/other")
    pull()
    pull_fails("org/tinny", "did you mean org/tiny", name="org/tinny")
