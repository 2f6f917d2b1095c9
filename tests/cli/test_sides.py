"""Sides that take turns and are compared at the end: modules of the engine mlx, and programs."""

import csv
import json
import re
import signal
import stat
import subprocess
import sys

import pytest
from processes import is_alive, wait_for
from rows import runs_of

MS = 1_000_000

# In place of an MLX: the engine that computes nothing, of a version, whose steps take EXTRA ns
# more.
VERSION = """
#include "engine/graph.h"

static engine_class type;

static engine_info describe(const engine *e) {
    engine_info info = fake_engine.describe(e);
    info.name = "mlx";
    info.version = "0.0.VERSION";
    return info;
}

static int run(engine *e, graph *g, int n, const tensor outputs[], result *results[]) {
    clock_pass(EXTRA);
    return fake_engine.run(e, g, n, outputs, results);
}

const engine_module *mlxbench_engine_module(void) {
    static const engine_module module = {ENGINE_ABI, "MLX 0.0.VERSION", &type};
    type = fake_engine;
    type.describe = describe;
    type.run = run;
    return &module;
}
"""


@pytest.fixture(scope="module")
def modules(engine_module, tmp_path_factory):
    """Folders of two versions of the engine mlx: the second one's tokens take a tenth more."""
    folders = []
    for version, extra in [(1, 0), (2, MS // 10)]:
        folder = tmp_path_factory.mktemp(f"mlx{version}")
        engine_module(folder, VERSION.replace("VERSION", str(version)).replace("EXTRA", str(extra)))
        folders.append(folder)
    return folders


@pytest.fixture
def bench(run, good_folder, tmp_path):
    (tmp_path / "script").write_text("".join(f"{MS} {MS + 1000 * (i % 4)}\n" for i in range(400)))

    def bench(*arguments, env=None, **options):
        return run("bench", "-m", good_folder, "--prompt-tokens", "random", "-np", 9, "-n", 11, "-o", "jsonl", *arguments,
                   env={"MLXBENCH_FAKE_SCRIPT": str(tmp_path / "script"), **(env or {})}, **options)

    return bench


# ---- engine mlx@PATH ----

def test_modules_take_turns(bench, modules):
    """The program's own module, and another one: each in a process that lasts, a run each in every round."""
    one, two = modules
    done = bench("--engine", f"mlx,mlx@{two}", "-np", "9,12", "-r", 8, env={"MLXBENCH_ENGINE_PATH": str(one)}, check=True)
    rows = runs_of(done.stdout)
    rounds = [sorted((row["engine"], row["n_prompt"]) for row in rows[i:i + 4]) for i in range(0, 32, 4)]
    assert rounds == [sorted((engine, n) for engine in ("mlx", f"mlx@{two}") for n in (9, 12))] * 8
    assert {row["engine"]: row["engine_version"] for row in rows} == {"mlx": "0.0.1", f"mlx@{two}": "0.0.2"}
    assert len({tuple((row["engine"], row["n_prompt"]) for row in rows[i:i + 4]) for i in range(0, 32, 4)}) > 1
    assert {row["configuration"] for row in rows} == {1, 2, 3, 4} and [row["run"] for row in rows] == list(range(1, 33))
    summaries = [json.loads(line) for line in done.stdout.splitlines() if '"summary"' in line[:20]]
    assert [s["configuration"] for s in summaries] == [1, 2, 3, 4]


def test_verdict_over_modules(bench, modules, run, tmp_path):
    one, two = modules
    engines = f"mlx@{one},mlx@{two / 'mlxbench-mlx.so'}"
    done = bench("--engine", engines, "-r", 10, check=True)
    table = done.stderr.split("\n\n", 1)[1] if "\n\n" in done.stderr else done.stderr
    assert re.search(r"generation_tps .* -9\.\d %", table), done.stderr
    rows = runs_of(done.stdout)
    for i, engine in enumerate(engines.split(",")):
        lines = [json.dumps({"kind": "run", **{k: v for k, v in row.items() if k != "kind"}}) for row in rows if row["engine"] == engine]
        (tmp_path / f"side{i}").write_text("\n".join(lines) + "\n")
    same = run("compare", tmp_path / "side0", tmp_path / "side1", check=True).stdout
    assert [line.split()[1:] for line in same.splitlines() if "_tps" in line] == [
        line.split()[1:] for line in table.splitlines() if "_tps" in line]
    done = bench("--engine", engines, "-r", 10, "--fail-slower", "3%")
    assert done.returncode == (0 if "not comparable" in done.stderr else 3), done.stderr
    done = bench("--engine", f"mlx@{one},mlx@{one}/.", "-r", 10, "--fail-slower", "3%")
    assert done.returncode == 0


def test_a_module_that_cannot_be_used(bench, modules, tmp_path, engine_module):
    one, _ = modules
    other = tmp_path / "other"
    engine_module(other, VERSION.replace("VERSION", "3").replace("EXTRA", "0").replace("ENGINE_ABI", "1"))
    for path, error in [(other, "(MLX 0.0.3) was built with another mlxbench; build both together"),
                        (tmp_path / "nonesuch", f"there is no module {tmp_path / 'nonesuch'}")]:
        done = bench("--engine", f"mlx@{one},mlx@{path}", "-r", 2)
        rows = runs_of(done.stdout)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 2
        assert [bool(row["error"]) for row in rows].count(True) == 1 and len(rows) == 3
        assert error in next(row["error"] for row in rows if row["error"])
        done = bench("--engine", f"mlx@{path}")
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and error in done.stderr


def test_a_module_that_crashes(bench, modules, tmp_path):
    (tmp_path / "script").write_text(f"{MS} {MS} crash\n")
    done = bench("--engine", f"mlx@{modules[0]},mlx@{modules[1]},cpu", "-r", 2)
    assert [(row["engine"].split("@")[0], bool(row["error"])) for row in runs_of(done.stdout)].count(("mlx", True)) == 2
    assert sum(row["engine"] == "cpu" for row in runs_of(done.stdout)) == 2


def test_modules_need_processes(fails, good_folder, modules):
    fails(2, ["mlx@PATH", "--isolate models"], "-m", good_folder, "--engine", f"mlx@{modules[0]}", "--isolate", "none")
    fails(2, ["unknown engine"], "-m", good_folder, "--engine", "mlx@")
    fails(2, ["unknown engine"], "-m", good_folder, "--engine", f"cpu@{modules[0]}")


# ---- --ab-program ----

@pytest.fixture
def program(mlxbench, tmp_path):
    """program(name, line) -> a program that notes its options and does what the line of shell says."""

    def program(name, line):
        file = tmp_path / name
        file.write_text(f'#!/bin/sh\necho "$@" >> {file}.log\n{line.replace("PROGRAM", str(mlxbench))}\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        return file

    return program


@pytest.fixture
def slower(program, tmp_path):
    (tmp_path / "slow").write_text("".join(f"{MS} {MS + MS // 10 + 1000 * (i % 4)}\n" for i in range(400)))
    return program("slower", f'MLXBENCH_FAKE_SCRIPT={tmp_path}/slow exec PROGRAM "$@"')


def test_programs_take_turns(bench, slower):
    done = bench("--engine", "fake", "-np", "9,12", "-r", 6, "--ab-program", slower, "--warmup", 1, "--seed", 3, check=True)
    rows = runs_of(done.stdout)
    assert sorted((row["program"] or "", row["n_prompt"]) for row in rows) == sorted(
        (name, n) for name in ("", str(slower)) for n in (9, 12) for _ in range(6))
    assert [row["run"] for row in rows] == list(range(1, 25)) and {row["configuration"] for row in rows} == {1, 2, 3, 4}
    for c in (1, 2, 3, 4):
        assert [row["repeat"] for row in rows if row["configuration"] == c] == [1, 2, 3, 4, 5, 6]
    turns = [(row["program"], row["n_prompt"]) for row in rows][::2]
    assert turns == [(row["program"], row["n_prompt"]) for row in rows][1::2]  # two runs in a turn
    assert all(len(set(turns[i:i + 4])) == 4 for i in range(0, 12, 4))
    calls = (slower.parent / "slower.log").read_text().splitlines()
    assert len(calls) == 6
    assert all("--warmup 1 --seed 3 --repeats 2 --output jsonl" in call and "--threads" not in call for call in calls)
    assert re.search(r"generation_tps .* \+9\.\d %|generation_tps .* \+10\.\d %", done.stderr), done.stderr


def test_gate_over_programs(bench, slower, program, tmp_path):
    """This program against a faster one is a loss."""
    faster = program("faster", f'MLXBENCH_FAKE_SCRIPT={tmp_path}/fast exec PROGRAM "$@"')
    (tmp_path / "fast").write_text("".join(f"{MS} {MS - MS // 10 + 1000 * (i % 4)}\n" for i in range(400)))
    command = ["--engine", "fake", "-r", 12, "--fail-slower", "3%"]
    done = bench(*command, "--ab-program", faster)
    assert done.returncode == (0 if "not comparable" in done.stderr else 3), done.stderr
    assert bench(*command, "--ab-program", slower).returncode == 0


LESS = """
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    for column in ("program", "itl_fit_r2", "quality", "quality_reasons"):
        del row[column]
    print(json.dumps(row))
"""


def test_an_older_program(bench, program, tmp_path):
    """Whose rows lack columns."""
    (tmp_path / "less.py").write_text(LESS)
    old = program("old", f'PROGRAM "$@" | {sys.executable} {tmp_path}/less.py')
    rows = runs_of(bench("--engine", "fake", "-r", 2, "--ab-program", old, check=True).stdout)
    old_rows = [row for row in rows if row["program"]]
    assert len(rows) == 4 and len(old_rows) == 2 and {row["itl_fit_r2"] for row in old_rows} == {None}


@pytest.mark.parametrize("line, error", [
    ("echo 'mlxbench: unknown option --graph' >&2; exit 2", "unknown option --graph"),
    ("kill -SEGV $$", "the process was killed by signal 11 (SIGSEGV)"),
    ("exit 5", "the process ended with exit code 5"),
    ("echo nonsense", "not a result file"),
    ("exec sleep 100", "no end after 2 s (--timeout)"),
])
def test_a_program_that_fails(bench, program, line, error):
    done = bench("--engine", "fake", "-r", 2, "--ab-program", program("bad", line), "--timeout", "2s")
    rows = runs_of(done.stdout)
    assert done.returncode == 1 and "1 of 2 configurations failed" in done.stderr
    assert [bool(row["error"]) for row in rows].count(True) == 1 and len(rows) == 3
    assert error in next(row["error"] for row in rows if row["error"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_program_is_left(mlxbench, good_folder, program, tmp_path, number):
    """After Ctrl-C, and where this program is killed."""
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux ends the children of a killed process")
    endless = program("endless", f"echo $$ > {tmp_path}/pid.part; mv {tmp_path}/pid.part {tmp_path}/pid; exec sleep 1000")
    process = subprocess.Popen([mlxbench, "-m", good_folder, "--engine", "fake", "--prompt-tokens", "random", "-np", "9", "-n", "5",
                                "-r", "2", "--ab-program", endless, "-o", f"csv:{tmp_path}/rows"], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (tmp_path / "pid").exists())
    pid = int((tmp_path / "pid").read_text())
    process.send_signal(number)
    message = process.communicate(timeout=30)[1]
    assert (process.returncode, message) == ((130, "mlxbench: interrupted\n") if number == signal.SIGINT else (-9, ""))
    wait_for(lambda: not is_alive(pid))


def test_programs_table(bench, slower, run, tmp_path):
    """A line for each program, and a file that compare does not mix up."""
    bench("--engine", "fake", "-r", 6, "--ab-program", slower, "-o", f"md:{tmp_path}/md", "-o", f"csv:{tmp_path}/csv", check=True)
    assert [str(slower) in line for line in (tmp_path / "md").read_text().splitlines()[2:4]] == [False, True]
    table = run("compare", tmp_path / "csv", tmp_path / "csv", check=True).stdout
    assert table.count("generation_tps") >= 2 and str(slower) in table


def test_rows_of_another_program_are_not_resumed(bench, slower, tmp_path):
    file = tmp_path / "rows"
    bench("--engine", "fake", "-r", 2, "--ab-program", slower, "-o", f"csv:{file}", check=True)
    bench("--engine", "fake", "-r", 3, "--resume", file, "-o", f"csv:{file}", check=True)
    rows = list(csv.DictReader(open(file)))
    assert sorted(row["program"] for row in rows) == [""] * 3 + [str(slower)] * 2
    assert len({row["configuration"] for row in rows}) == 2


def sides_of(file):
    rows = list(csv.DictReader(open(file)))
    return sorted((row["program"], int(row["n_prompt"]), int(row["configuration"]), int(row["repeat"])) for row in rows)


def test_programs_are_resumed(bench, slower, tmp_path):
    """Each side of each configuration gets the runs that it lacks; a program is asked what it will run by one token."""
    file, log = tmp_path / "rows", tmp_path / "slower.log"
    command = ["--engine", "fake", "-d", 5, "--ab-program", slower, "--resume", file, "-o", f"csv:{file}"]
    bench(*command, "-np", 9, "-r", 2, check=True)
    assert not any("--n-prompt 1 " in call for call in log.read_text().splitlines())  # there was nothing to resume
    bench(*command, "-np", "9,12", "-r", 7, check=True)
    rows = sides_of(file)
    wanted = {("", 9): 1, (str(slower), 9): 2, ("", 12): 3, (str(slower), 12): 4}
    assert rows == sorted((*side, number, i) for side, number in wanted.items() for i in range(1, 8))
    calls = log.read_text().splitlines()
    assert [call.count("--n-prompt 1 --n-generate 1 --depth 0 ") for call in calls].count(1) == 1
    log.unlink()
    done = bench(*command, "-np", "9,12", "-r", 7, check=True)
    assert sides_of(file) == rows and "generation_tps" in done.stderr  # and the comparison is made
    assert all("--n-prompt 1 " in call for call in log.read_text().splitlines())


def test_programs_of_another_version_are_not_resumed(bench, slower, tmp_path):
    file = tmp_path / "rows"
    command = ["--engine", "fake", "-r", 2, "--ab-program", slower, "--resume", file, "-o", f"jsonl:{file}"]
    bench(*command, check=True)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for row in lines:
        row["mlxbench_version"] = "0.0.1" if row["program"] else row["mlxbench_version"]
    file.write_text("".join(json.dumps(row) + "\n" for row in lines))
    bench(*command, check=True)
    rows = runs_of(file.read_text())
    assert sorted((row["program"] or "", row["configuration"]) for row in rows) == [("", 1)] * 2 + [
        (str(slower), 2)] * 2 + [(str(slower), 3)] * 2


def test_an_older_program_is_resumed(bench, program, tmp_path):
    (tmp_path / "less.py").write_text(LESS)
    old = program("old", f'PROGRAM "$@" | {sys.executable} {tmp_path}/less.py')
    file = tmp_path / "rows"
    for repeats in (1, 3):
        bench("--engine", "fake", "-r", repeats, "--ab-program", old, "--resume", file, "-o", f"csv:{file}", check=True)
    assert [row[2:] for row in sides_of(file)] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]


def test_a_program_that_cannot_say_what_it_runs(bench, program, slower, tmp_path):
    """Is an error of its side; the other one is measured, and earlier runs stay."""
    file = tmp_path / "rows"
    command = ["--engine", "fake", "--ab-program", slower, "--resume", file, "-o", f"csv:{file}"]
    bench(*command, "-r", 1, check=True)
    program("slower", "exit 5")
    done = bench(*command, "-r", 2)
    rows = list(csv.DictReader(open(file)))
    assert done.returncode == 1 and sorted((row["program"] != "", row["error"]) for row in rows) == [
        (False, "")] * 2 + [(True, ""), (True, "the process ended with exit code 5")]


@pytest.mark.parametrize("arguments, words", [
    (["--ab-program", "/nonesuch"], ["--ab-program", "/nonesuch"]),
    (["--ab-program", "/bin/sh", "--prompt", "-"], ["--ab-program", "@FILE"]),
    (["--fail-slower", "3%"], ["--fail-slower", "--ab-program"]),
])
def test_wrong_options(fails, good_folder, arguments, words):
    fails(2, words, "-m", good_folder, "--engine", "fake", *arguments)
