"""Outputs that fail and runs that are stopped: the exit code says so, and rows already measured are kept."""

import csv
import os
import pathlib
import signal
import subprocess
import time

import pytest

ENDLESS = ["-np", "16", "-n", "64", "-r", "1000000", "--prompt-tokens", "random"]


@pytest.fixture
def start(mlxbench):
    """start(arguments) -> running process; ended with the test."""
    started = []

    def start(*arguments, **options):
        process = subprocess.Popen([str(mlxbench), *map(str, arguments)], stdin=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def rows(file):
    return list(csv.reader(open(file))) if pathlib.Path(file).exists() else []


def test_output_in_a_missing_folder(fails, good_folder, tmp_path):
    fails(1, ["nothing/rows.csv"], "bench", "--model", good_folder, "-np", 4, "-n", 2, "--prompt-tokens", "random",
          "-o", f"csv:{tmp_path}/nothing/rows.csv")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_full_disk(fails, good_folder, tmp_path):
    kept = tmp_path / "rows.csv"
    fails(1, ["/dev/full"], "bench", "--model", good_folder, "-np", 4, "-n", 2, "--prompt-tokens", "random",
          "-o", f"csv:{kept}", "-o", "jsonl:/dev/full")
    assert len(rows(kept)) >= 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [
    ["bench", "-np", "4", "-n", "2", "--prompt-tokens", "random"], ["generate", "--prompt-ids", "1", "--ids"],
    ["generate", "--prompt", "hello", "--max-tokens", "3"], ["hwinfo"], ["hwinfo", "--json"], ["models"], ["--help"],
    ["--version"],
])
def test_full_standard_output(start, good_folder, arguments):
    model = ["--model", good_folder] if arguments[0] in ("bench", "generate") else []
    process = start(*arguments, *model, stdout=open("/dev/full", "w"))
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert len(message.splitlines()) == 1


def test_closed_pipe(start, good_folder, tmp_path):
    kept = tmp_path / "rows.csv"
    process = start("bench", "--model", good_folder, *ENDLESS, "-o", f"csv:{kept}", "-o", "jsonl",
                    stdout=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    message = process.stderr.read()
    assert process.wait(timeout=60) == 1
    assert len(message.splitlines()) == 1
    assert len(rows(kept)) >= 2


def test_interrupted_while_measuring(start, good_folder, tmp_path):
    kept = tmp_path / "rows.csv"
    process = start("bench", "--model", good_folder, *ENDLESS, "-o", f"csv:{kept}", stdout=subprocess.DEVNULL)
    wait_for(lambda: len(rows(kept)) >= 3)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert len(message.splitlines()) == 1
    found = rows(kept)
    assert all(len(row) == len(found[0]) for row in found)


@pytest.mark.parametrize("phase, prompt, new", [("prefill", "400000", "2"), ("decode", "2", "400000")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_the_middle(start, good_folder, phase, prompt, new, number):
    process = start("bench", "--model", good_folder, "-np", prompt, "-n", new, "-r", 100, "--prompt-tokens", "random",
                    stdout=subprocess.DEVNULL)
    time.sleep(1)
    process.send_signal(number)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert len(message.splitlines()) == 1


def test_interrupted_generation(start, good_folder):
    process = start("generate", "--model", good_folder, "--prompt-ids", "1,2,3", "--max-tokens", 400000,
                    "--ignore-eos", stdout=subprocess.PIPE)
    process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert len(message.splitlines()) == 1
