"""Files that results go to: an earlier one survives every mistake, a new one is complete after each row."""

import csv
import io
import json
import os
import signal
import subprocess
import threading
import time

import files
import numpy as np
import pytest
from rows import runs_of

SMALL = ["--engine", "fake", "-np", 8, "-n", 4, "--prompt-tokens", "random"]


@pytest.fixture
def earlier(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("earlier results\n")
    return file


@pytest.mark.parametrize("wrong, words", [
    (["--max-kv-size", 2], ["max_kv_size", "2"]),
    (["--max-kv-size", "none,2"], ["max_kv_size", "2"]),
    (["--kv-bits", 4, "--kv-group-size", 128], ["kv_group_size"]),  # only the model knows that
    (["--engine", "nonesuch"], ["nonesuch"]),
    (["-o", "nonesuch"], ["nonesuch"]),
])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_wrong_command_leaves_an_earlier_file(fails, good_folder, earlier, wrong, words, force):
    if not force:
        words = []  # that the file is there may be said first
    done = fails(2, words, "--model", good_folder, *SMALL, "-o", f"csv:{earlier}", *wrong, *force)
    assert done.stdout == "" and earlier.read_text() == "earlier results\n"
    assert os.listdir(earlier.parent) == [earlier.name]


def test_second_output_that_cannot_be_written(fails, good_folder, earlier):
    fails(1, ["nothing/rows.md"], "--model", good_folder, *SMALL, "-o", f"csv:{earlier}", "-o",
          f"md:{earlier.parent}/nothing/rows.md", "--force")
    assert earlier.read_text() == "earlier results\n" and os.listdir(earlier.parent) == [earlier.name]


def test_earlier_file_needs_force(run, fails, good_folder, earlier):
    fails(2, ["rows.csv", "--force"], "--model", good_folder, *SMALL, "-o", f"csv:{earlier}")
    assert earlier.read_text() == "earlier results\n"
    run("--model", good_folder, *SMALL, "-o", f"csv:{earlier}", "--force", check=True)
    assert len(list(csv.DictReader(earlier.open()))) == 1


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_files_of_the_model_are_safe(fails, good_gguf, good_folder, tmp_path, monkeypatch, force):
    before = good_gguf.read_bytes()
    fails(2, [good_gguf.name], "--model", good_gguf, *SMALL, "-o", f"csv:{good_gguf}", *force)
    assert good_gguf.read_bytes() == before
    for name in ["config.json", "model.safetensors", "tokenizer.json"]:
        before = (good_folder / name).read_bytes()
        (tmp_path / name).symlink_to(good_folder / name)
        for path in [good_folder / name, tmp_path / name]:
            fails(2, [name], "--model", good_folder, *SMALL, "-o", f"json:{path}", *force)
        assert (good_folder / name).read_bytes() == before


def test_one_file_by_two_spellings(fails, good_folder, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    fails(2, ["same file"], "--model", good_folder, *SMALL, "-o", f"csv:{tmp_path}/x", "-o", f"json:{tmp_path}/link/x")
    assert os.listdir(tmp_path) == ["link"]


def test_link_to_a_file_stays_a_link(run, good_folder, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_text("")  # an empty file holds no results
    run("--model", good_folder, *SMALL, "-o", f"csv:{tmp_path}/link", check=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text().startswith("run,")


def test_descriptors_are_written_directly(mlxbench, good_folder, tmp_path):
    command = [mlxbench, "--model", good_folder, *map(str, SMALL), "-o", "csv:/dev/stdout", "-o", "json:/dev/stderr"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(list(csv.DictReader(io.StringIO(done.stdout)))) == len(json.loads(done.stderr)["runs"]) == 1
    with open(tmp_path / "out", "w") as out:  # what is in the file already stays
        out.write("above\n")
        out.flush()
        subprocess.run(command[:-2], stdout=out, check=True)
    first, *lines = (tmp_path / "out").read_text().splitlines()
    assert first == "above" and len(lines) == 2
    subprocess.run([*command[:-4], "-o", "csv:/dev/null", "-o", "md:/dev/null"], check=True)


def test_standard_output_is_one_of_the_files(mlxbench, good_folder, tmp_path):
    command = [mlxbench, "--model", good_folder, *map(str, SMALL), "-o", "csv", "-o", f"md:{tmp_path}/out"]
    with open(tmp_path / "out", "w") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "same file" in done.stderr


def test_pipe_with_a_name(run, good_folder, tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    run("--model", good_folder, *SMALL, "-r", 2, "-o", f"json:{pipe}", check=True)
    reader.join(timeout=60)
    assert len(json.loads(got[0])["runs"]) == 2


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_ended_at_any_moment(mlxbench, good_folder, tmp_path, number):
    """Every finished row is in every file; standard output says which are."""
    for attempt in range(8):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        outputs = [part for name in ("csv", "json", "jsonl") for part in ("-o", f"{name}:{folder}/{name}")]
        process = subprocess.Popen([mlxbench, "--model", good_folder, *map(str, SMALL), "-r", "1000000", *outputs, "-o",
                                    "mlxbench"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        finished = [process.stdout.readline() for _ in range(2 + 7 * attempt)][-1].split(",")[0]
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == (-9 if number == signal.SIGKILL else 130)
        beside = [f"json.{process.pid}.part{n}" for n in ("", "2")] if number == signal.SIGKILL else []
        assert {"csv", "json", "jsonl"} <= set(os.listdir(folder)) <= {"csv", "json", "jsonl", *beside}
        rows = list(csv.DictReader((folder / "csv").open()))
        objects = json.loads((folder / "json").read_text())["runs"]
        lines = runs_of((folder / "jsonl").read_text())
        for found in (rows, objects, lines):
            assert [int(row["run"]) for row in found] == list(range(1, len(found) + 1))
            assert len(found) >= int(finished)
        assert all(row["measured_at"] for row in rows)


def test_ended_before_the_first_row(mlxbench, good_folder, earlier):
    process = subprocess.Popen([mlxbench, "--model", good_folder, *map(str, SMALL), "-np", "100000", "-n", "100000", "-o",
                                f"csv:{earlier}", "--force", "-o", f"json:{earlier.parent}/rows.json"])
    wait_for(lambda: len(os.listdir(earlier.parent)) == 3)  # both new files, beside their names
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert earlier.read_text() == "earlier results\n" and os.listdir(earlier.parent) == [earlier.name]


# ---- what runs and what does not ----

def test_wrong_for_some_configurations(run, good_folder):
    """head_dim is 32, so groups of 64 do not fit: that configuration is a row with its error."""
    done = run("--model", good_folder, *SMALL, "--kv-bits", "none,4", "--kv-group-size", "64,32", "-o", "jsonl")
    rows = runs_of(done.stdout)
    assert done.returncode == 1
    assert [(row["kv_bits"], row["kv_group_size"], bool(row["error"])) for row in rows] == [
        (None, 64, False), (None, 32, False), (4, 64, True), (4, 32, False)]
    assert "kv_group_size 64 does not divide" in rows[2]["error"]
    assert done.stderr.splitlines()[-1] == ("mlxbench: 1 of 4 configurations failed; column error of their rows says "
                                            "why")


def test_wrong_for_every_configuration(run, fails, good_folder, good_gguf):
    wrong = [*SMALL, "--kv-bits", "4,8", "--kv-group-size", "64", "-o", "jsonl"]
    assert fails(2, ["kv_group_size 64 does not divide"], "--model", good_folder, *wrong).stdout == ""
    done = run("--model", f"{good_folder},{good_gguf}", *wrong)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "mlxbench: nothing was measured: all 4 configurations failed"


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory):
    """A model whose KV caches the user chooses; good_folder's chooses them itself."""
    tensors = files.weights() | {f"model.layers.{i}.self_attn.{norm}.weight": np.ones(32, np.float32)
                                 for i in range(2) for norm in ("q_norm", "k_norm")}
    return files.write_folder(tmp_path_factory.mktemp("qwen"), files.CONFIG | dict(model_type="qwen3"),
                              files.safetensors_bytes(*files.safetensors_parts(tensors)))


def test_models_own_caches_are_one_configuration(run, good_folder, qwen_folder):
    done = run("--model", good_folder, *SMALL, "--max-kv-size", "none,50", "-np", "8,9", "-o", "jsonl", check=True)
    rows = runs_of(done.stdout)
    assert [(row["n_prompt"], row["max_kv_size"]) for row in rows] == [(8, None), (9, None)]
    assert len(done.stderr.splitlines()) == 1 and "--max-kv-size" in done.stderr
    done = run("--model", f"{good_folder},{qwen_folder}", *SMALL, "--max-kv-size", "50,60", "-o", "jsonl", check=True)
    rows = runs_of(done.stdout)
    assert [(row["model_type"], row["max_kv_size"]) for row in rows] == [("llama", None), ("qwen3", 50), ("qwen3", 60)]


def test_what_a_killed_program_left_is_removed(mlxbench, run, good_folder, tmp_path):
    """With the next run to the same file; what belongs to others, or to a program that runs, stays."""
    command = [mlxbench, "--model", good_folder, *map(str, SMALL), "-o", f"csv:{tmp_path}/rows.csv"]
    for number in (signal.SIGKILL, signal.SIGSTOP):
        process = subprocess.Popen([*command, "-np", "100000", "-n", "100000"])
        wait_for(lambda: len(os.listdir(tmp_path)) == 1)
        process.send_signal(number)
        if number == signal.SIGKILL:
            process.wait()
            others = ["other.csv.9999999.part", "rows.csv.9999999.part.gz", "rows.csv.x.part", "rows.csv.9999999.rows"]
            for name in others:
                (tmp_path / name).write_text("theirs")
            run(*command[1:], check=True)
            assert sorted(os.listdir(tmp_path)) == sorted([*others, "rows.csv"])
            for name in [*others, "rows.csv"]:
                (tmp_path / name).unlink()
    run(*command[1:], check=True)
    part = f"rows.csv.{process.pid}.part"
    assert sorted(os.listdir(tmp_path)) == ["rows.csv", part]
    process.kill()
    process.wait()
    run(*command[1:], check=True)
    assert os.listdir(tmp_path) == ["rows.csv"]
