"""`bench --history` keeps runs, `mlxbench history` shows them: places, filters, several writers, other tables."""

import json
import os
import sqlite3

import pytest

SMALL = ["--engine", "fake", "-n", 4, "--prompt-tokens", "random"]


@pytest.fixture
def kept(run, good_folder, tmp_path):
    """kept(...) runs a command with a history of its own."""
    env = {"XDG_DATA_HOME": str(tmp_path / "data")}

    def kept(*arguments, **options):
        model = ["-m", good_folder, *SMALL] if arguments[0] == "bench" else []
        return run(arguments[0], *model, *arguments[1:], env=env, **options)

    kept.file = tmp_path / "data" / "mlxbench" / "history.sqlite"
    return kept


def test_runs_are_kept(kept):
    done = kept("bench", "-np", "8,16", "-r", 2, "--history", check=True)
    assert done.stdout.startswith("run,") and len(done.stdout.splitlines()) == 5  # beside the usual output
    kept("bench", "-np", "8", "-r", 3, "--history", "-o", "csv:/dev/null", "--force", check=True)
    rows = sqlite3.connect(kept.file).execute("SELECT run, configuration FROM runs").fetchall()
    assert [run for run, _ in rows] == list(range(1, 8)) and {c for _, c in rows} == {1, 2, 3}
    trends = json.loads(kept("history", "-f", "json", check=True).stdout)
    assert sorted((t["n_prompt"], [m["runs"] for m in t["measurements"]]) for t in trends) == [(8, [2, 3]), (16, [2])]
    assert all(m["ids_hash"] and m["measured_at"] for t in trends for m in t["measurements"])
    lines = kept("history", check=True).stdout.splitlines()
    assert len(lines) == 3 and sum("n_prompt 16" in line for line in lines) == 1
    each = kept("history", "--each", check=True).stdout
    assert each.count("measured") == 2 and each.count("Z  ") == 3


def test_filters(kept, good_folder):
    kept("bench", "-np", "8,16", "--history", check=True)
    shown = lambda *words: len(json.loads(kept("history", *words, "-f", "json", check=True).stdout))
    assert (shown(), shown("n_prompt=16"), shown("n_prompt=1"), shown(f"model={good_folder.name}"), shown("kv_bits=none"),
            shown("n_prompt=8", "synthetic=false")) == (2, 1, 0, 2, 2, 1)


@pytest.mark.parametrize("arguments, code, word", [
    (["nonsense"], 2, "COLUMN=VALUE"), (["colour=red"], 2, "colour"), (["-f", "xml"], 2, "xml"), (["n_prompt=9"], 1, "no successful run"),
])
def test_refused(kept, arguments, code, word):
    kept("bench", "-np", 8, "--history", check=True)
    done = kept("history", *arguments)
    assert done.returncode == code and word in done.stderr and done.stdout == "" and len(done.stderr.splitlines()) == 1


def test_nothing_kept(kept):
    done = kept("history")
    assert done.returncode == 1 and "--history" in done.stderr and not kept.file.parent.exists()


def test_no_place(run, good_folder, tmp_path):
    done = run("bench", "-m", good_folder, *SMALL, "-np", 8, "--history", env={"XDG_DATA_HOME": "", "HOME": ""})
    assert done.returncode == 1 and "XDG_DATA_HOME" in done.stderr
    done = run("bench", "-m", good_folder, *SMALL, "-np", 8, "--history", env={"XDG_DATA_HOME": "", "HOME": str(tmp_path)}, check=True)
    assert (tmp_path / ".local/share/mlxbench/history.sqlite").exists()


def test_a_folder_that_cannot_be_made(run, good_folder, tmp_path):
    (tmp_path / "file").write_text("")
    done = run("bench", "-m", good_folder, *SMALL, "-np", 8, "--history", env={"XDG_DATA_HOME": f"{tmp_path}/file"})
    assert done.returncode == 1 and "cannot make the folder" in done.stderr and os.listdir(tmp_path) == ["file"]


def test_any_result_file(run, good_folder, tmp_path):
    run("bench", "-m", good_folder, *SMALL, "-np", "8,16", "-o", f"csv:{tmp_path}/rows", check=True)
    assert len(json.loads(run("history", "--db", tmp_path / "rows", "-f", "json", check=True).stdout)) == 2


def test_what_may_have_changed_it(run, tmp_path):
    """A change is said with the versions that differ, and where it is."""
    database = sqlite3.connect(tmp_path / "db")
    database.execute("CREATE TABLE runs (run, configuration, model, measured_at, engine_version, generation_tps)")
    for k in range(20):
        speed = 100.0 + k % 3 if k < 10 else 90.0 + k % 3
        database.execute("INSERT INTO runs VALUES (?, ?, 'a', ?, ?, ?)", (k, k, f"2026-01-{k + 1:02}T00:00:00Z", "0.32.3" if k < 10 else "0.32.4", speed))
    database.commit()
    for arguments in ([], ["--each"]):
        last = run("history", "--db", tmp_path / "db", *arguments, check=True).stdout.splitlines()[-1]
        assert "generation_tps changed by -9.9 % at 2026-01-11T00:00:00Z" in last and "engine_version 0.32.3 to 0.32.4" in last
