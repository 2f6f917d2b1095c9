"""Result files that are there already: rows are added to them, and --resume measures only what one lacks."""

import csv
import io
import json
import os
import pathlib
import random
import re
import signal
import sqlite3
import subprocess
import time

import pytest
from rows import runs_of

SMALL = ["--engine", "fake", "-n", 4, "--prompt-tokens", "random"]


@pytest.fixture
def bench(run, good_folder):
    return lambda *arguments, **options: run("bench", "-m", good_folder, *SMALL, *arguments, **options)


def rows_in(path, form):
    if form in ("sql", "sqlite"):
        database = sqlite3.connect(path if form == "sqlite" else ":memory:")
        if form == "sql":
            database.executescript(pathlib.Path(path).read_text())
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM runs ORDER BY rowid")]
    text = pathlib.Path(path).read_text()
    if form == "csv":
        return [{k: v for k, v in row.items()} for row in csv.DictReader(text.splitlines())]
    return json.loads(text)["runs"] if form == "json" else runs_of(text)


FORMS = ["csv", "json", "jsonl", "sql", "sqlite"]


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_added(bench, tmp_path, form):
    file = tmp_path / "rows"
    bench("-np", 8, "-r", 2, "-o", f"{form}:{file}", check=True)
    before = rows_in(file, form)
    bench("-np", "8,16", "-o", f"{form}:{file}", check=True)
    after = rows_in(file, form)
    assert after[:2] == before and len(after) == 4
    assert [int(row["run"]) for row in after] == [1, 2, 3, 4]
    assert [int(row["configuration"]) for row in after] == [1, 1, 2, 3]
    if form == "json":
        assert [s["configuration"] for s in json.loads(file.read_text())["summaries"]] == [1, 2, 3]
    assert os.listdir(tmp_path) == ["rows"]
    bench("-np", 8, "-o", f"{form}:{file}", "--force", check=True)
    assert len(rows_in(file, form)) == 1


def test_formats_that_cannot_be_read_are_not_added_to(bench, tmp_path):
    for form in ("md", "mlxbench"):
        bench("-np", 8, "-o", f"{form}:{tmp_path}/{form}", check=True)
        before = (tmp_path / form).read_text()
        done = bench("-np", 8, "-o", f"{form}:{tmp_path}/{form}")
        assert done.returncode == 2 and "--force" in done.stderr and (tmp_path / form).read_text() == before


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
@pytest.mark.parametrize("old, new", [("warmup", "warm_up"), ("warmup", None)])
def test_other_columns(bench, tmp_path, form, old, new):
    """A column that is not ours would be lost, and one that is missing would be empty: neither is done in silence."""
    file = tmp_path / "rows"
    bench("-np", 8, "-o", f"{form}:{file}", check=True)
    text = file.read_text()
    if new:
        text = text.replace(old, new)
    elif form == "csv":
        at = text.splitlines()[0].split(",").index(old)
        out = io.StringIO()
        lines = csv.reader(text.splitlines())
        csv.writer(out, lineterminator="\n").writerows(cells[:at] + cells[at + 1:] for cells in lines)
        text = out.getvalue()
    else:
        text = re.sub(', "warmup": [0-9]+', "", text)
    file.write_text(text)
    for more in ([], ["--resume", file]):
        done = bench("-np", 8, "-o", f"{form}:{file}", *more)
        assert done.returncode == 2 and "other columns" in done.stderr and file.read_text() == text


def test_a_failed_command_leaves_the_file(bench, tmp_path):
    file = tmp_path / "rows"
    bench("-np", 8, "-o", f"csv:{file}", check=True)
    text = file.read_text()
    assert bench("-np", 0, "-o", f"csv:{file}").returncode == 2
    assert bench("-np", 8, "-o", f"csv:{file}", "-o", "csv:/nonesuch/x").returncode == 1
    assert file.read_text() == text and os.listdir(tmp_path) == ["rows"]


# ---- --resume ----

@pytest.mark.parametrize("form", FORMS)
def test_what_is_there_is_not_measured_again(bench, tmp_path, form):
    file = tmp_path / "rows"
    command = ["-r", 3, "-o", f"{form}:{file}", "--resume", file]
    bench("-np", 8, *command, check=True)  # nothing is there yet
    first = rows_in(file, form)
    assert len(first) == 3
    bench("-np", "8,16", *command, check=True)
    both = rows_in(file, form)
    assert both[:3] == first and [int(row["n_prompt"]) for row in both] == [8] * 3 + [16] * 3
    assert [int(row["configuration"]) for row in both] == [1] * 3 + [2] * 3
    before = file.read_bytes()
    bench("-np", "8,16", *command, check=True)
    assert rows_in(file, form) == both and file.read_bytes().strip() == before.strip()
    bench("-np", 16, "-r", 5, *command[2:], check=True)  # two more runs
    more = rows_in(file, form)
    assert more[:6] == both and [int(row["configuration"]) for row in more[6:]] == [2, 2]
    assert [int(row["repeat"]) for row in more[6:]] == [4, 5]
    if form == "json":
        summaries = json.loads(file.read_text())["summaries"]
        assert sorted((s["configuration"], s["spreads"]["ttft_ms"]["n"]) for s in summaries) == [(1, 3), (2, 5)]


def test_resumed_rows_go_to_every_output(bench, run, tmp_path):
    bench("-np", "8,16", "-r", 2, "-o", f"jsonl:{tmp_path}/a", check=True)
    done = bench("-np", "8,16,24", "-r", 2, "--resume", tmp_path / "a", "-o", f"csv:{tmp_path}/b", "-o", "md", check=True)
    assert len(rows_in(tmp_path / "b", "csv")) == 6 and len(rows_in(tmp_path / "a", "jsonl")) == 4
    assert sum("|" in line for line in done.stdout.splitlines()) == 5
    assert done.stdout == run("report", tmp_path / "b", "-o", "md", check=True).stdout


def test_other_runs_are_measured(bench, tmp_path):
    """Of another seed, another engine, or with an error."""
    file = tmp_path / "rows"
    command = ["-o", f"jsonl:{file}", "--resume", file]
    bench("-np", 8, *command, check=True)
    for i, change in enumerate((["--seed", 1], ["--engine", "cpu"], ["--kv-bits", 8, "--kv-group-size", 32]), 2):
        bench("-np", 8, *change, *command, check=True)
        assert len(rows_in(file, "jsonl")) == i
    bench("-np", 8, *command, check=True)
    assert len(rows_in(file, "jsonl")) == 4
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines).replace('"error": null', '"error": "no memory"', 1) + "\n")
    bench("-np", 8, *command, check=True)
    assert len(rows_in(file, "jsonl")) == 5


def test_resumed_file_that_is_none(fails, good_folder, tmp_path):
    (tmp_path / "x").write_text("nothing\n")
    fails(1, ["x", "not a result file"], "-m", good_folder, *SMALL, "-np", 8, "--resume", tmp_path / "x")


@pytest.mark.parametrize("form", FORMS)
def test_kill_and_resume(bench, mlxbench, good_folder, tmp_path, form):
    """Killed at random moments, again and again: no finished row is lost, and none is measured twice."""
    file, n = tmp_path / "rows", 0
    command = ["bench", "-m", good_folder, *SMALL, "-np", "8-17", "-r", 30, "-o", f"{form}:{file}", "--resume", file]
    rng = random.Random(form)
    for _ in range(12):
        process = subprocess.Popen([mlxbench, *map(str, command)], stderr=subprocess.PIPE)
        time.sleep(rng.uniform(0.005, 0.06))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        whole = file.exists() and (form in ("json", "sqlite") or file.read_text().endswith("\n"))
        rows = rows_in(file, form) if whole and file.stat().st_size else None
        if rows is not None:
            assert len(rows) >= n
            n = len(rows)
    bench(*command[3 + len(SMALL):], check=True)
    rows = rows_in(file, form)
    assert len(rows) == 300
    found = sorted((int(row["n_prompt"]), int(row["repeat"])) for row in rows)
    assert found == [(p, r) for p in range(8, 18) for r in range(1, 31)]
