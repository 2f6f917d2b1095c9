"""--isolate: each model in a process of its own. What ends such a process is a row with its reason, and nothing else ends."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from processes import children_of, is_alive, wait_for
from rows import runs_of

MS = 1_000_000
METRICS = ["prompt_tokens", "prompt_tps", "generation_tps", "peak_memory_gb", "load_s", "peak_rss_gb"]
VARYING = ["run", "command", "load_s", "peak_rss_gb", "measured_at", "quality", "quality_reasons", "load_ns", "start_ns", "token_ns"]


@pytest.fixture(scope="module")
def models(good_folder, tmp_path_factory):
    """Two models: the same files under two names."""
    other = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(good_folder, other)
    return [str(good_folder), str(other)]


@pytest.fixture
def scripted(run, models, tmp_path):
    """scripted(lines, arguments) -> the program, with the engine fake, whose runs take what the script says. A process
    begins with the first line."""

    def scripted(lines, *arguments, engine="fake", model=None, **options):
        (tmp_path / "script").write_text("".join(" ".join(map(str, line)) + "\n" for line in lines))
        return run("bench", "-m", model or models[0], "--engine", engine, "--prompt-tokens", "random", "-np", 9, "-n", 11,
                   "-o", "jsonl", *arguments, env={"MLXBENCH_FAKE_SCRIPT": str(tmp_path / "script")}, **options)

    return scripted


def without(row, names):
    return {name: value for name, value in row.items() if name not in names}


@pytest.mark.parametrize("arguments", [
    ["-r", 3], ["-np", "9,12,15", "-r", 7], ["-r", "auto", "--precision", "0.1%", "--time-limit", "300ms"], ["-d", "0,20", "-r", 5],
    ["--warmup", 0, "-r", 2, "--delay", "2s"], ["-np", "9,10", "-r", 8, "--seed", 5, "-b", "1,3"],
])
def test_rows_are_the_same(scripted, arguments):
    """On the scripted clock everything is, but what is measured of the process and the machine."""
    lines = [(MS, MS + 7000 * (i % 5), 100) for i in range(40)]
    here = scripted(lines, *arguments, "--isolate", "none", check=True)
    there = scripted(lines, *arguments, "--isolate", "models", check=True)
    here_rows, there_rows = ([json.loads(line) for line in done.stdout.splitlines()] for done in (here, there))
    assert len(here_rows) == len(there_rows) and here.stderr == there.stderr
    for a, b in zip(here_rows, there_rows):
        spreads = [{k: v for k, v in row.pop("spreads", {}).items() if k != "load_s"} for row in (a, b)]
        assert spreads[0] == spreads[1]
        assert without(a, VARYING) == without(b, VARYING)
        if a["kind"] == "run":
            assert [t - a["start_ns"] for t in a["token_ns"]] == [t - b["start_ns"] for t in b["token_ns"]]


def test_ids_are_the_same(run, good_folder):
    """With an engine that computes, and a prompt from standard input, which is read once."""
    command = ["-m", good_folder, "--engine", "cpu", "-np", "8,20", "-n", 5, "-r", 2, "-o", "jsonl"]
    for prompt in (["--prompt-tokens", "random"], ["--prompt", "-"], ["--prompt", "a b"]):
        rows = [runs_of(run(*command, *prompt, "--isolate", how, input="some text\\nof two lines\n", check=True).stdout)
                for how in ("none", "models")]
        assert [(row["prompt_hash"], row["ids_hash"], row["token_ids"]) for row in rows[0]] == [
            (row["prompt_hash"], row["ids_hash"], row["token_ids"]) for row in rows[1]]


@pytest.mark.parametrize("word, reason", [
    ("crash", "the process was killed by signal 6 (SIGABRT)"),
    ("kill", "the process was killed by signal 9 (SIGKILL)"),
])
def test_a_crash_is_a_row(scripted, word, reason):
    """In a process of its own each other configuration is measured, before and after it."""
    done = scripted([(MS, MS, f"{word}:9")], "-np", "9,10,11", "-r", 3, "--isolate", "models")
    rows = runs_of(done.stdout)
    failed = [row for row in rows if row["error"]]
    assert done.returncode == 1
    assert [row["n_prompt"] for row in failed] == [10] and failed[0]["error"].startswith(reason)
    assert sorted(row["n_prompt"] for row in rows if not row["error"]) == [9] * 3 + [11] * 3
    assert [row["run"] for row in rows] == list(range(1, 8))
    assert all(failed[0][metric] is None for metric in METRICS)
    assert (failed[0]["model_type"], failed[0]["synthetic"], failed[0]["engine"]) == ("llama", False, "fake")
    note, last = done.stderr.splitlines()
    assert reason in note and "1 of 3 configurations failed" in last


def test_a_crash_after_runs_keeps_them(scripted):
    """The process dies in its fourth run; the new one begins the script again, and dies in its fourth."""
    lines = [(MS, MS)] * 3 + [(MS, MS, "crash")]
    rows = runs_of(scripted(lines, "-np", "9,10", "--warmup", 1, "-r", 9, "--order", "given", "--isolate", "models").stdout)
    assert [(row["n_prompt"], bool(row["error"])) for row in rows] == [(9, False)] * 2 + [(9, True)] + [(10, False)] * 2 + [
        (10, True)]


# In place of MLX: the engine that computes nothing. Opening it is a line in $LOADS, and BODY.
CRASHING = """
#include "engine/graph.h"
#include <stdio.h>
#include <stdlib.h>

static engine_class type;

static int run(engine *e, graph *g, int n, const tensor outputs[], result *results[]) {
    for (int i = 0; i < g->n_nodes; i++)
        if (graph_node(g, i)->op == OP_KV_WRITE && graph_node(g, i)->shape[0] > 35) abort();
    return fake_engine.run(e, g, n, outputs, results);
}

static engine *open_crashing(const engine_options *options) {
    FILE *loads = fopen(getenv("LOADS"), "a");
    if (loads) fputs("load\\n", loads);
    if (loads) fclose(loads);
    BODY;
    return fake_engine.open(options);
}

const engine_module *mlxbench_engine_module(void) {
    static const engine_module module = {ENGINE_ABI, "a test", &type};
    type = fake_engine;
    type.open = open_crashing;
    type.run = run;
    return &module;
}
"""


@pytest.fixture
def crashing(scripted, engine_module, tmp_path, monkeypatch):
    """crashing(body, arguments) -> the program with that engine and the engine fake; how often it was opened."""

    def crashing(body, *arguments):
        engine_module(tmp_path / "module", CRASHING.replace("BODY", body))
        monkeypatch.setenv("LOADS", str(tmp_path / "log"))
        done = scripted([(MS, MS)], *arguments, engine=f"mlx@{tmp_path}/module,fake")
        return done, len((tmp_path / "log").read_text().splitlines())

    return crashing


def test_crashes_in_a_row(crashing):
    """Where the depth is filled, in a process that has just loaded the model: the next configuration is tried."""
    done, loads = crashing("", "-d", "40,30", "--quantized-kv-start", "0,1")
    rows = [(row["depth"], row["quantized_kv_start"], row["error"]) for row in runs_of(done.stdout)]
    crash = "the process was killed by signal 6 (SIGABRT)"
    assert rows == [(40, 0, crash), (40, 1, crash), (30, 0, None), (30, 1, None)] + [
        (depth, start, None) for depth in (40, 30) for start in (0, 1)]
    assert loads == 3  # at first, and after each crash


def test_a_crash_while_loading(crashing):
    """Is not tried again for each configuration."""
    done, loads = crashing("abort()", "-np", "9,10,11")
    rows = runs_of(done.stdout)
    assert [row["error"] for row in rows] == ["the process was killed by signal 6 (SIGABRT)"] * 3 + [None] * 3
    assert loads == 1


def test_the_other_model_runs(scripted, models):
    done = scripted([(MS, MS, "crash")], "-r", 2, engine="fake,cpu", model=",".join(models))
    rows = runs_of(done.stdout)
    assert done.returncode == 1 and "2 of 4 configurations failed" in done.stderr
    assert [(row["model"], row["engine"], bool(row["error"])) for row in rows] == [
        (model, engine, engine == "fake") for model in models for engine in ("fake", "cpu") for _ in range(1 + (engine == "cpu"))]


def test_one_configuration_that_crashes(scripted):
    done = scripted([(MS, MS, "crash")], "--isolate", "models")
    assert done.returncode == 1
    assert done.stderr == "mlxbench: the process was killed by signal 6 (SIGABRT)\n"


def test_timeout(scripted):
    done = scripted([(MS, MS, "hang:9")], "-np", "9,10,11", "-r", 2, "--timeout", "1s")
    rows = runs_of(done.stdout)
    assert done.returncode == 1
    assert [row["error"] for row in rows if row["error"]] == ["no end after 1 s (--timeout); the process was stopped"]
    assert sorted(row["n_prompt"] for row in rows if not row["error"]) == [9, 9, 11, 11]


@pytest.mark.parametrize("isolate", ["none", "models"])
def test_larger_sizes_are_left_out(scripted, isolate):
    """After one ran out of memory; those that are not larger are measured."""
    done = scripted([(MS, MS, "memory:19")], "-np", "30,9,20", "-d", "0,40", "-b", "1,2", "--kv-bits", "none,8", "--kv-group-size",
                    32, "--isolate", isolate)
    rows = {(row["n_prompt"], row["depth"], row["batch"], row["kv_bits"]): row["error"] for row in runs_of(done.stdout)}
    numbers = {row["configuration"]: row for row in runs_of(done.stdout)}
    assert done.returncode == 1 and len(rows) == 24
    for (n, depth, batch, bits), error in rows.items():
        if n != 20:  # 30 comes first, and runs
            assert error is None
        elif (depth, batch) == (0, 1):
            assert error == "fake: out of memory, as its script says"
        else:
            number = int(error.removeprefix("left out: configuration ").split(",")[0])
            assert error == f"left out: configuration {number}, which is not larger, ran out of memory"
            assert (numbers[number]["n_prompt"], numbers[number]["kv_bits"]) == (20, bits)


def test_larger_rings_and_prompts_are_left_out(scripted):
    done = scripted([(MS, MS, "memory:19")], "-np", "20,30", "--max-kv-size", "64,none,16,128", model="synthetic:qwen3-0.6b-4bit")
    errors = {(row["n_prompt"], row["max_kv_size"]): row["error"] for row in runs_of(done.stdout)}
    left_out = {key for key, error in errors.items() if error and error.startswith("left out")}
    assert left_out == {(20, None), (20, 128), (30, 64), (30, None), (30, 128), (30, 16)}


def test_summaries_have_what_was_measured(scripted, tmp_path):
    lines = [(MS, MS)] * 4 + [(MS, MS, "crash")]
    scripted(lines, "-np", "9,10", "--warmup", 1, "-r", 9, "--order", "given", "--isolate", "models", "-o", f"json:{tmp_path}/json")
    found = json.loads((tmp_path / "json").read_text())["summaries"]
    assert [(s["n_prompt"], s["spreads"]["ttft_ms"]["n"], s["error"]) for s in found] == [
        (n, 3, "the process was killed by signal 6 (SIGABRT)") for n in (9, 10)]


def test_resume_after_a_crash(scripted, tmp_path):
    """What was measured is not measured again; what failed is."""
    file = tmp_path / "rows"
    command = ["-np", "9,10", "-r", 3, "--isolate", "models", "-o", f"csv:{file}", "--resume", file]
    assert scripted([(MS, MS, "crash:9")], *command).returncode == 1
    before = file.read_text()
    done = scripted([(MS, 2 * MS)], *command, check=True)
    assert file.read_text().startswith(before)
    rows = list(csv.DictReader(open(file)))
    assert [(int(row["n_prompt"]), bool(row["error"])) for row in rows[:4]].count((10, True)) == 1
    assert sorted(int(row["n_prompt"]) for row in rows[4:]) == [10] * 3
    assert {int(row["n_prompt"]): row["configuration"] for row in rows}.keys() == {9, 10}
    assert sum(row["kind"] == "summary" for row in map(json.loads, done.stdout.splitlines())) >= 2


def test_a_model_that_does_not_load(run, models, tmp_path):
    bad = tmp_path / "bad"
    shutil.copytree(models[0], bad)
    (bad / "config.json").write_text("{}")
    done = {how: run("bench", "-m", f"{bad},{models[0]}", "--engine", "fake", "-np", "8,9", "-n", 4, "--prompt-tokens", "random",
                     "-o", "jsonl", "--isolate", how) for how in ("none", "models")}
    assert done["none"].stderr == done["models"].stderr and done["models"].returncode == 1
    errors = [[row["error"] for row in runs_of(d.stdout)] for d in done.values()]
    assert errors[0] == errors[1] and [bool(e) for e in errors[0]] == [True, True, False, False]


def test_verbose(run, demo_model):
    texts = [run("bench", "-m", demo_model, "-np", 8, "-n", 6, "-v", "--isolate", how, check=True).stderr
             for how in ("none", "models")]
    assert texts[0] == texts[1] and len(texts[0]) > 5


# ---- what ends the parent ----

@pytest.fixture
def start(mlxbench, models, tmp_path):
    started = []

    def start(line, *arguments):
        (tmp_path / "script").write_text(line)
        process = subprocess.Popen(
            [mlxbench, "bench", "-m", models[0], "--engine", "fake", "--prompt-tokens", "random", "-np", "9", "-n", "11",
             "--isolate", "models", "-o", f"csv:{tmp_path}/rows", *map(str, arguments)], stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "MLXBENCH_FAKE_SCRIPT": f"{tmp_path}/script"})
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")


@linux
@pytest.mark.parametrize("whom", ["one", "group"])
@pytest.mark.parametrize("line", ["100 100\n", "1000000 1000000 hang\n"])
def test_interrupt(start, tmp_path, whom, line):
    process = start(line, "-r", 1000000)
    wait_for(lambda: (tmp_path / "rows").exists() if "hang" not in line else children_of(process.pid))
    child, = children_of(process.pid)
    time.sleep(0.2)
    (os.killpg if whom == "group" else os.kill)(process.pid, signal.SIGINT)
    message = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and message == "mlxbench: interrupted\n"
    assert not is_alive(child)
    if "hang" not in line:
        rows = list(csv.DictReader(open(tmp_path / "rows")))
        assert [int(row["run"]) for row in rows] == list(range(1, len(rows) + 1)) and not any(row["error"] for row in rows)


@linux
@pytest.mark.parametrize("line", ["100 100\n", "1000000 1000000 hang\n"])
def test_a_killed_parent_leaves_no_child(start, line):
    process = start(line, "-r", 1000000)
    wait_for(lambda: children_of(process.pid))
    child, = children_of(process.pid)
    time.sleep(0.2)
    process.kill()
    process.wait()
    wait_for(lambda: not is_alive(child), 10)


@linux
def test_a_killed_child(start, tmp_path):
    """From outside: the next configuration has a new process."""
    process = start("100 100\n", "-r", 1000000, "-np", "9,10", "--order", "given")
    wait_for(lambda: (tmp_path / "rows").exists())
    os.kill(children_of(process.pid)[0], signal.SIGKILL)
    wait_for(lambda: any(row["n_prompt"] == "10" for row in csv.DictReader(open(tmp_path / "rows"))))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 130
    errors = [row["error"] for row in csv.DictReader(open(tmp_path / "rows")) if row["error"]]
    assert len(errors) == 1 and "SIGKILL" in errors[0]


@pytest.mark.parametrize("arguments, words", [
    (["--isolate", "all"], ["--isolate", "models,none"]), (["--timeout", "x"], ["--timeout", "duration"]),
    (["--timeout", "0"], ["--timeout"]), (["--timeout", "5s", "--isolate", "none"], ["--timeout", "--isolate models"]),
    (["--isolate", "models", "--engine", "abacus"], ["unknown engine", "cpu"]),
])
def test_wrong_options(fails, models, arguments, words):
    fails(2, words, "-m", models[0], "--engine", "fake", *arguments)


def test_the_command_of_children(fails, models):
    fails(1, ["mlxbench starts itself"], "bench-child", "-m", models[0], "--engine", "fake")
