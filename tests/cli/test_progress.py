"""--progress json: every line on stderr is an object, also when something goes wrong."""

import json
import time

import pytest

SMALL = ["--engine", "fake", "-np", 8, "-n", 4, "--prompt-tokens", "random", "-o", "csv"]


def events_of(done):
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_events_of_a_sweep(run, good_folder):
    done = run("--model", good_folder, *SMALL, "-np", "8,9", "-r", 3, "--warmup", 1, "--progress", "json", check=True)
    start, *events, end = events_of(done)
    assert start | {"mlxbench_version": ""} == {"event": "start", "mlxbench_version": "", "configurations": 2, "runs": 8}
    assert end == {"event": "done", "measured": 6, "failed": 0}
    runs = [event for event in events if event["event"] == "run"]
    assert [event["run"] for event in runs] == list(range(1, 9)) and {event["runs"] for event in runs} == {8}
    assert [event["measured"] for event in runs].count(False) == 2
    for event in runs:
        assert event["model"] == str(good_folder) and event["n_generate"] == 4 and event["batch"] == 1
        assert (event["configuration"], event["n_prompt"]) in [(1, 8), (2, 9)]
    assert runs[0]["seconds_left"] is None and runs[-1]["seconds_left"] >= 0


@pytest.mark.parametrize("batch", [1, 3])
def test_tokens_at_most_five_times_a_second(run, good_folder, batch):
    """The tokens of all sequences."""
    start = time.monotonic()
    done = run("--model", good_folder, "--engine", "cpu", "-t", 1, "-np", 3000, "-pss", 16, "-n", 500, "-b", batch,
               "--prompt-tokens", "random", "--warmup", 0, "-o", "csv", "--progress", "json", check=True)
    events = [event for event in events_of(done) if event["event"] in ("prefill", "generate")]
    assert events and len(events) <= 2 + 5 * (time.monotonic() - start)
    for event in events:
        assert event["of"] == batch * (3000 if event["event"] == "prefill" else 500)
        assert 0 <= event["tokens"] <= event["of"] and event["tokens"] % batch == 0
    kinds = [event["event"] for event in events]
    assert kinds == sorted(kinds, reverse=True)
    for kind in set(kinds):
        tokens = [event["tokens"] for event in events if event["event"] == kind]
        assert tokens == sorted(set(tokens))


def test_notes_and_errors(run, good_folder):
    done = run("--model", f"{good_folder},{good_folder}/nothing", *SMALL, "--progress", "json")
    events = events_of(done)
    assert done.returncode == 1
    assert [event["event"] for event in events if event["event"] not in ("run", "prefill", "generate")] == [
        "start", "note", "done", "error"]
    note, end, error = events[-3:]
    assert "nothing" in note["text"] and end == {"event": "done", "measured": 1, "failed": 1}
    assert error["exit_code"] == 1 and "1 of 2" in error["text"]


@pytest.mark.parametrize("wrong, code", [
    (["--kv-bits", 7], 2), (["-o", "nonesuch"], 2), (["--against", "/nothing"], 1), (["--order", "nonesuch"], 2),
    (["--verbose"], 2)])
def test_wrong_commands(run, good_folder, wrong, code):
    done = run("--model", good_folder, *SMALL, "--progress", "json", *wrong)
    event, = events_of(done)
    assert done.returncode == event["exit_code"] == code and event["event"] == "error"


def test_comparison_is_an_event(run, good_folder, tmp_path):
    done = run("--model", good_folder, *SMALL, "-o", f"json:{tmp_path}/rows.json", check=True)
    done = run("--model", good_folder, *SMALL, "--against", f"{tmp_path}/rows.json", "--progress", "json", check=True)
    assert events_of(done)[-1]["event"] == "comparison" and "geometric" not in events_of(done)[-1]["text"]


def test_other_kinds(run, fails, good_folder):
    assert not run("--model", good_folder, *SMALL, "--progress", "none", check=True).stderr
    fails(2, ["--progress", "auto,none,json"], "--model", good_folder, *SMALL, "--progress", "xml")
