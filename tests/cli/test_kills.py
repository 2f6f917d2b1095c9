"""kill -9 at random moments of a sweep into every kind of file: each finished row is there and readable, and the next
command goes on with the files. 40 kills; with FULL=1, 200."""

import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rows import runs_of

SMALL = ["--engine", "fake", "-np", "8-12", "-n", "4", "--prompt-tokens", "random", "-r", "200"]
FORMS = ["csv", "jsonl", "json", "sql", "sqlite"]
KILLS = 200 if os.environ.get("FULL") else 40


def whole_lines(text):
    """Without a last line that was cut off."""
    return text[:text.rfind("\n") + 1]


def rows_of_database(path=None, script=None):
    database = sqlite3.connect(path or ":memory:")
    if script is not None:
        database.executescript(script)
    else:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    there = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchall()
    database.row_factory = sqlite3.Row
    rows = [dict(row) for row in database.execute("SELECT * FROM runs ORDER BY rowid")] if there else []
    database.close()
    return rows


def rows_in(path, form):
    """By other people's readers."""
    if not path.exists():
        return []
    if form == "sqlite":
        return rows_of_database(path)
    text = path.read_text()
    if form == "json":
        return json.loads(text)["runs"]
    text = whole_lines(text)
    return {"csv": lambda: list(csv.DictReader(text.splitlines())), "jsonl": lambda: runs_of(text),
            "sql": lambda: rows_of_database(script=text)}[form]()


def finished_rows(process, moment):
    """How many rows are surely in all outputs: each but the last that standard output has."""
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    lines = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode in (0, -signal.SIGKILL)
    return max(0, len(lines) - 2)


@pytest.mark.parametrize("part", range(4))
def test_no_finished_row_is_lost(mlxbench, run, good_folder, tmp_path, part):
    rng = random.Random(part)
    seen = []
    for kill in range(KILLS // 4):
        folder = tmp_path / str(kill)
        folder.mkdir()
        env = {**os.environ, "XDG_DATA_HOME": str(folder)}
        outputs = [item for form in FORMS for item in ("-o", f"{form}:{folder}/{form}")]
        command = [str(mlxbench), "bench", "-m", str(good_folder), *SMALL, *outputs, "-o", "mlxbench", "--history"]
        moment = rng.uniform(0, 0.6)
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        n = finished_rows(process, moment)
        seen.append(n)
        files = [(form, folder / form) for form in FORMS] + [("sqlite", folder / "mlxbench/history.sqlite")]
        for form, path in files:
            found = rows_in(path, form)
            assert len(found) >= n and [int(row["run"]) for row in found] == list(range(1, len(found) + 1)), (form, n)
            if n:  # and by ours
                ours = run("report", path, "-o", "csv", check=True).stdout.splitlines()
                assert len(ours) == len(found) + 1
        again = ["1" if item == "200" else item for item in command[1:-3]] + ["--history"]
        run(*again, env={"XDG_DATA_HOME": str(folder)}, check=True)
        assert sorted(os.listdir(folder)) == sorted([*FORMS, "mlxbench"])  # what was left over is gone
        assert os.listdir(folder / "mlxbench") == ["history.sqlite"]
        for form, path in files:
            assert len(rows_in(path, form)) >= n + 5
    assert max(seen) > 0


def test_every_file_is_whole(mlxbench, good_folder, tmp_path):
    """Those that have something behind their rows: whenever the program is killed, other programs read them, with a
    configuration for each line that standard output has."""
    rng, seen = random.Random(9), []
    for _ in range(KILLS // 4):
        outputs = [item for form in ("json", "llama-bench-json", "prometheus", "md") for item in ("-o", f"{form}:{tmp_path}/{form}")]
        command = [str(mlxbench), "bench", "-m", str(good_folder), "--engine", "fake", "-np", "8-2000", "-n", "4", "--prompt-tokens",
                   "random", *outputs, "--force", "-o", "mlxbench"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        n = finished_rows(process, rng.uniform(0.1, 0.8)) - 1  # a configuration ends after its run
        seen.append(n)
        if n < 1:
            continue
        result = json.loads((tmp_path / "json").read_text())
        tests = json.loads((tmp_path / "llama-bench-json").read_text())
        families = list(text_string_to_metric_families((tmp_path / "prometheus").read_text()))
        assert len(families) == len({family.name for family in families}) > 10
        table = (tmp_path / "md").read_text()
        assert table.count("\n|") - 1 >= n and table.endswith("\n") and "\n\nmlxbench " in table
        for found in (result["runs"], result["summaries"], tests[::2], families[0].samples, families[3].samples):
            assert len(found) >= n
    assert max(seen) > 10
