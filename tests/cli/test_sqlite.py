"""-o sqlite and -o sql, with Python's sqlite3 as the oracle: the same rows as csv, several writers, other files."""

import csv
import json
import os
import random
import shutil
import sqlite3
import subprocess

import pytest

SMALL = ["--engine", "fake", "-n", 4, "--prompt-tokens", "random"]


@pytest.fixture
def bench(run, good_folder):
    return lambda *arguments, **options: run("bench", "-m", good_folder, *SMALL, *arguments, **options)


def rows_of(database):
    database.row_factory = sqlite3.Row
    return [dict(row) for row in database.execute("SELECT * FROM runs ORDER BY rowid")]


def rows_in(path):
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = rows_of(database)
    database.close()
    return rows


def test_the_rows_are_those_of_json(run, good_folder, tmp_path):
    """Of every type, with texts that need quotes, and with an error."""
    model = tmp_path / "it's, a \"model\"\nof two lines"
    shutil.copytree(good_folder, model)
    done = run("bench", "-m", str(model).replace(",", "\\,"), *SMALL, "-np", 8, "--kv-bits", "none,4", "--kv-group-size", 64, "-r", 2, "-o",
               f"sqlite:{tmp_path}/db", "-o", f"sql:{tmp_path}/sql", "-o", f"json:{tmp_path}/json")
    assert done.returncode == 1
    wanted = json.loads((tmp_path / "json").read_text())["runs"]
    assert len(wanted) == 3 and wanted[0]["model"] == str(model) and any(row["error"] for row in wanted)
    found = rows_in(tmp_path / "db")
    assert found == wanted and list(found[0]) == list(wanted[0])
    memory = sqlite3.connect(":memory:")
    memory.executescript((tmp_path / "sql").read_text())
    assert rows_of(memory) == wanted


def test_both_are_read_back(run, bench, tmp_path):
    outputs = [part for form in ("csv", "sql", "sqlite") for part in ("-o", f"{form}:{tmp_path}/{form}")]
    bench("-np", "8,16", "-r", 3, *outputs, check=True)
    for form in ("sql", "sqlite"):
        assert run("report", tmp_path / form, "-o", "csv", check=True).stdout == (tmp_path / "csv").read_text()
        assert "n_prompt 16" in run("compare", tmp_path / form, tmp_path / "csv", check=True).stdout
        done = bench("-np", "8,16", "-r", 3, "--against", tmp_path / form, "-o", "csv:/dev/null", check=True)
        assert "n_prompt 16" in done.stdout
    run("report", tmp_path / "csv", "-o", f"sqlite:{tmp_path}/again", check=True)
    assert rows_in(tmp_path / "again") == rows_in(tmp_path / "sqlite")


def test_rows_are_added_beside_those_of_others(bench, mlxbench, good_folder, tmp_path):
    """Four programs write to one database at the same time: no run is lost, and no number is there twice."""
    file = tmp_path / "db"
    command = [str(mlxbench), "bench", "-m", str(good_folder), *map(str, SMALL), "-np", "8,16", "-r", "40", "-o", f"sqlite:{file}"]
    programs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for program in programs:
        message = program.communicate(timeout=120)[1]
        assert program.returncode == 0, message
    rows = rows_in(file)
    assert sorted(row["run"] for row in rows) == list(range(1, 321))
    numbers = {row["configuration"] for row in rows}
    assert len(numbers) == 8
    for c in numbers:
        mine = [row for row in rows if row["configuration"] == c]
        assert [row["repeat"] for row in mine] == list(range(1, 41)) and len({row["n_prompt"] for row in mine}) == 1


def test_a_new_row_reads_no_earlier_ones(bench, tmp_path):
    """Its numbers come from an index, which an earlier version's database gets, too."""
    file = tmp_path / "rows"
    for _ in range(2):
        bench("-np", 8, "-o", f"sqlite:{file}", check=True)
        database = sqlite3.connect(file)
        for ask in ("SELECT max(run) FROM runs", "SELECT max(configuration) FROM runs", "SELECT 1 FROM runs WHERE configuration = 1"):
            plan = " ".join(row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {ask}"))
            assert "SEARCH" in plan and "INDEX" in plan and "SCAN" not in plan
        database.executescript("DROP INDEX runs_by_run; DROP INDEX runs_by_configuration")
        database.close()


def test_a_database_that_is_locked_is_waited_for(mlxbench, good_folder, tmp_path):
    file = tmp_path / "db"
    command = [str(mlxbench), "bench", "-m", str(good_folder), *map(str, SMALL), "-np", "8", "-o", f"sqlite:{file}"]
    subprocess.run(command, check=True, capture_output=True)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    program = subprocess.Popen(command, stderr=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(timeout=1)
    other.execute("COMMIT")
    assert program.wait(timeout=60) == 0
    assert len(rows_in(file)) == 2


def test_needs_a_file(fails, good_folder):
    for output in ("sqlite", "sqlite:/dev/stdout"):
        fails(2, ["needs a file"], "bench", "-m", good_folder, *SMALL, "-np", 8, "-o", output)


def test_without_the_library(fails, good_folder, tmp_path):
    fails(1, ["libsqlite3"], "bench", "-m", good_folder, *SMALL, "-np", 8, "-o", f"sqlite:{tmp_path}/db",
          env={"MLXBENCH_LIBSQLITE3": "/nonesuch.so"})
    assert os.listdir(tmp_path) == []


def test_other_files(bench, fails, good_folder, tmp_path):
    """A file that is no database stays until --force, as do tables of others for ever."""
    file = tmp_path / "file"
    file.write_text("notes\n")
    command = ["bench", "-m", good_folder, *SMALL, "-np", 8, "-o", f"sqlite:{file}"]
    fails(2, ["no SQLite database"], *command)
    fails(1, ["nonesuch"], *command, "-o", "csv:/nonesuch/x", "--force")
    assert file.read_text() == "notes\n"
    bench(*command[3 + len(SMALL):], "--force", check=True)
    assert len(rows_in(file)) == 1
    database = sqlite3.connect(file)
    database.executescript("CREATE TABLE mine (x); INSERT INTO mine VALUES (7)")
    database.close()
    bench(*command[3 + len(SMALL):], "-r", 3, "--force", check=True)
    assert len(rows_in(file)) == 3
    assert sqlite3.connect(file).execute("SELECT x FROM mine").fetchall() == [(7,)]
    other = tmp_path / "other"
    sqlite3.connect(other).executescript("CREATE TABLE runs (a, b)")
    fails(2, ["none of ours"], "bench", "-m", good_folder, *SMALL, "-np", 8, "-o", f"sqlite:{other}")


def test_nothing_is_made_before_the_first_row(fails, good_folder, tmp_path):
    fails(1, ["nonesuch"], "bench", "-m", good_folder, *SMALL, "-np", 8, "-o", f"sqlite:{tmp_path}/db", "-o", "csv:/nonesuch/x")
    fails(1, ["nothing"], "bench", "-m", good_folder, *SMALL, "-np", 8, "-o", f"sqlite:{tmp_path}/nothing/db")
    assert os.listdir(tmp_path) == []


def test_columns_of_another_version(run, bench, tmp_path):
    """Rows keep what they have; a column that the table lacks is added."""
    file = tmp_path / "db"
    bench("-np", 8, "--seed", 3, "-o", f"sqlite:{file}", check=True)
    database = sqlite3.connect(file)
    database.executescript("ALTER TABLE runs DROP COLUMN seed; ALTER TABLE runs ADD COLUMN later TEXT; UPDATE runs SET later = 'x'")
    database.close()
    bench("-np", 8, "--seed", 4, "-o", f"sqlite:{file}", check=True)
    rows = rows_in(file)
    assert [row["later"] for row in rows] == ["x", None] and [row["seed"] for row in rows] == [None, 4]
    assert len(list(csv.DictReader(run("report", file, "-o", "csv", check=True).stdout.splitlines()))) == 2


HOSTILE = {
    "view": "DROP TABLE runs; CREATE VIEW runs AS WITH RECURSIVE n(run, configuration) AS (SELECT 1, 1 UNION ALL SELECT run + 1, "
            "1 FROM n) SELECT * FROM n",
    "virtual": "DROP TABLE runs; CREATE VIRTUAL TABLE runs USING fts5(run, configuration)",
    "text": "UPDATE runs SET prompt_tps = 'fast'", "number": "UPDATE runs SET run = 'x'",
    "blob": "UPDATE runs SET model = x'00ff'", "bool": "UPDATE runs SET synthetic = 2",
    "nothing": "DELETE FROM runs", "configuration": "UPDATE runs SET configuration = NULL",
    "infinite": "UPDATE runs SET prompt_tps = 9e999",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_contents(bench, run, tmp_path, name):
    file = tmp_path / "db"
    bench("-np", 8, "-o", f"sqlite:{file}", check=True)
    database = sqlite3.connect(file)
    try:
        database.executescript(HOSTILE[name])
    except sqlite3.OperationalError as error:
        pytest.skip(f"this sqlite3 can't make it: {error}")
    database.close()
    done = run("report", file, "-o", "csv", timeout=20)
    if name == "infinite":  # no number: it is left out
        assert done.returncode == 0 and next(csv.DictReader(done.stdout.splitlines()))["prompt_tps"] == ""
    else:
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1


def test_broken_databases(bench, run, tmp_path):
    """Cut off anywhere or with other bytes: rows or one line, never a crash."""
    file = tmp_path / "db"
    bench("-np", "8,16", "-r", 4, "-o", f"sqlite:{file}", check=True)
    whole, rng = file.read_bytes(), random.Random(3)
    for i in range(40):
        data = bytearray(whole[:rng.randrange(16, len(whole))] if i % 2 else whole)
        for _ in range(0 if i % 2 else 20):
            data[rng.randrange(16, len(data))] = rng.randrange(256)
        file.write_bytes(data)
        done = run("report", file, "-o", "csv:/dev/null", timeout=20)
        assert done.returncode in (0, 1) and len(done.stderr.splitlines()) == done.returncode


@pytest.mark.parametrize("text, code", [
    ('INSERT INTO "runs" ("run", "configuration") VALUES (1, 1);', 0),
    ('BEGIN;\ninsert into runs (run, configuration, prompt_tps, synthetic) values (1,1,2.5,true);\nCOMMIT;', 0),
    ('INSERT INTO other ("x") VALUES (1);INSERT INTO runs ("run", "configuration") VALUES (1, 1);', 0),
    ('INSERT INTO "runs" ("run", "configuration") VALUES (1, 1); INSERT INTO "runs" ("run", "conf', 0),
    ('INSERT INTO "runs" ("run", "configuration") VALUES (1);', 1),
    ('INSERT INTO "runs" ("run", "run") VALUES (1, 1);', 1),
    ('INSERT INTO "runs" VALUES (1, 1);', 1),
    ('INSERT INTO "runs" ("run", "configuration") VALUES (1, 1 + 1);', 1),
    ('INSERT INTO "runs" ("run", "configuration") SELECT 1, 1;', 1),
    ("INSERT INTO \"runs\" (\"run\", \"configuration\", \"model\") VALUES (1, 1, 'it''s; a model');", 0),
    ('CREATE TABLE "runs" ("run" BIGINT);', 1), ("CREATE TABLE 'runs", 1),
])
def test_statements(run, tmp_path, text, code):
    (tmp_path / "x.sql").write_text(text)
    done = run("report", tmp_path / "x.sql", "-o", "csv")
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == code
    if not code:
        rows = list(csv.DictReader(done.stdout.splitlines()))
        assert len(rows) == 1 and rows[0]["configuration"] == "1"
        assert "it" not in text or rows[0]["model"] == "it's; a model"
