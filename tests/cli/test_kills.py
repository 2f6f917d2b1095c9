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
