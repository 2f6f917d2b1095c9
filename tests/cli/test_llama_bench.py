"""llama-bench's forms: what we write is read by csv, json, sqlite3 and llama.cpp's compare script; we read it back.

llama.cpp's compare-llama-bench.py is not here: its path is in $COMPARE_LLAMA_BENCH, or that test is skipped.
"""

import csv
import io
import json
import os
import sqlite3
import statistics
import subprocess
import sys

import pytest
from rows import runs_of

FORMS = ["csv", "json", "jsonl", "sql"]

# test::get_fields of tools/llama-bench/llama-bench.cpp; and what the compare script joins by.
COLUMNS = """build_commit build_number cpu_info gpu_info backends model_filename model_type model_size model_n_params n_batch
n_ubatch n_threads cpu_mask cpu_strict poll type_k type_v n_gpu_layers n_cpu_moe split_mode main_gpu no_kv_offload flash_attn
devices tensor_split tensor_buft_overrides load_mode embeddings no_op_offload no_host fit_target fit_min_ctx n_prompt n_gen
n_depth test_time avg_ns stddev_ns avg_ts stddev_ts""".split()
KEYS = """cpu_info gpu_info backends n_gpu_layers n_cpu_moe tensor_buft_overrides model_filename model_type n_batch n_ubatch
embeddings cpu_mask cpu_strict poll n_threads type_k type_v use_mmap no_kv_offload split_mode main_gpu tensor_split flash_attn
n_prompt n_gen n_depth""".split()

# As the README of llama-bench shows them, with the columns of an older version.
THEIRS_CSV = """build_commit,build_number,cpu_info,gpu_info,backends,model_filename,model_type,model_size,model_n_params,\
n_batch,n_ubatch,n_threads,use_mmap,n_prompt,n_gen,n_depth,test_time,avg_ns,stddev_ns,avg_ts,stddev_ts
"8cf427ff","5163","A ""good"" CPU","RTX 4080","CUDA","models/a, b.gguf","qwen2 7B Q4_K - Medium","4677120000","7615616512",\
"2048","512","8","1","512","0","0","2025-04-24T11:57:09Z","70285660","982040","7285.676949","100.064434"
"8cf427ff","5163","A ""good"" CPU","RTX 4080","CUDA","models/a, b.gguf","qwen2 7B Q4_K - Medium","4677120000","7615616512",\
"2048","512","8","1","0","128","512","2025-04-24T11:57:10Z","1067431600","3834831","119.915244","0.430617"
"""
THEIRS_MD = """| model                          |       size |     params | backend    | ngl |            test |                  t/s |
| ------------------------------ | ---------: | ---------: | ---------- | --: | --------------: | -------------------: |
| qwen2 7B Q4_K - Medium         |   4.36 GiB |     7.62 B | CUDA       |  -1 |           pp512 |      7340.20 ± 23.45 |
| qwen2 7B Q4_K - Medium         |   4.36 GiB |     7.62 B | CUDA       |  99 |    pp512 @ d512 |      6425.91 ± 18.88 |
| qwen2 7B Q4_K - Medium         |   4.36 GiB |     7.62 B | CUDA       |  99 |    tg128 @ d512 |        116.71 ± 0.60 |
| qwen2 7B Q4_K - Medium         |   4.36 GiB |     7.62 B | CUDA       |  99 |     pp512+tg128 |       1116.71 ± 0.60 |

build: 8cf427ff (5163)
"""


@pytest.fixture(scope="module")
def written(run, good_folder, tmp_path_factory):
    """(folder, runs): one benchmark in every form, and its runs. A model's name has a quote and a comma."""
    folder = tmp_path_factory.mktemp("llama")
    (folder / "it's, a model").symlink_to(good_folder)
    outputs = [part for form in FORMS for part in ("-o", f"llama-bench-{form}:{folder}/{form}")]
    done = run("--model", "it's\\, a model", "--engine", "cpu", "-np", "8,16", "-n", 4, "-d", "0,8", "-r", 7, "-t", 1,
               "--prompt-tokens", "random", *outputs, "-o", f"llama-bench:{folder}/md", "-o", "jsonl", check=True,
               cwd=folder)
    return folder, runs_of(done.stdout)


def load(folder, form):
    """The tests of a file, as dicts, each by the usual reader of its form."""
    text = (folder / form).read_text()
    if form == "csv":
        return list(csv.DictReader(io.StringIO(text)))
    if form == "json":
        return json.loads(text)
    if form == "jsonl":
        return [json.loads(line) for line in text.splitlines()]
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    connection.executescript(text)
    return [dict(row) for row in connection.execute("SELECT * FROM llama_bench")]


def speeds_of(runs, test):
    """Our runs that a test of llama-bench is made of."""
    column = "prompt_tps" if int(test["n_prompt"]) else "generation_tps"
    return [run[column] for run in runs
            if (int(test["n_prompt"]), int(test["n_gen"]), int(test["n_depth"])) ==
            ((run["n_prompt"], 0, run["depth"]) if column == "prompt_tps" else
             (0, run["n_generate"], run["depth"] + run["n_prompt"]))]


@pytest.mark.parametrize("form", FORMS)
def test_forms(written, form):
    folder, runs = written
    tests = load(folder, form)
    assert len(tests) == 8
    for test in tests:
        assert list(test)[:len(COLUMNS)] == COLUMNS and set(KEYS) <= set(test)
        speeds = speeds_of(runs, test)
        n = int(test["n_prompt"]) + int(test["n_gen"])
        assert len(speeds) in (7, 14)  # 8 tokens behind 8, and 16 behind none, are the same depth for generation
        if len(speeds) == 7:
            assert float(test["avg_ts"]) == pytest.approx(statistics.mean(speeds), rel=1e-6)
            assert float(test["stddev_ts"]) == pytest.approx(statistics.stdev(speeds), rel=1e-4)
            assert float(test["avg_ns"]) == pytest.approx(statistics.mean(1e9 * n / x for x in speeds), abs=0.51)
            assert float(test["stddev_ns"]) == pytest.approx(statistics.stdev(1e9 * n / x for x in speeds), abs=0.51)
            if "samples_ts" in test:
                assert test["samples_ts"] == speeds
                assert test["samples_ns"] == [round(1e9 * n / x) for x in speeds]
        assert test["model_filename"] == "it's, a model"
        assert (int(test["n_threads"]), int(test["n_batch"])) == (1, 2048)
        assert int(test["model_n_params"]) == runs[0]["parameters"]
        assert test["backends"] == "CPU" and test["test_time"] in {run["measured_at"] for run in runs}


def test_types(written):
    folder, _ = written
    for test in load(folder, "json"):
        for name in COLUMNS:
            kind = (bool if name in ("no_kv_offload", "cpu_strict", "embeddings", "no_host") else str if name in (
                "build_commit cpu_info gpu_info backends model_filename model_type cpu_mask type_k type_v split_mode devices "
                "tensor_split tensor_buft_overrides load_mode test_time").split() else
                    float if name in ("avg_ts", "stddev_ts") else int)
            assert type(test[name]) is kind, name


def test_md(written):
    folder, _ = written
    names, rule, *lines, blank, build = (folder / "md").read_text().splitlines()
    cells = [cell.strip() for cell in names.split("|")][1:-1]
    assert cells == ["model", "size", "params", "backend", "threads", "test", "t/s"]
    assert len({line.replace("±", "+").index("|", 40) for line in [names, rule, *lines]}) == 1
    assert build.startswith("build: ") and not blank
    wanted = [(test, f"{float(test['avg_ts']):.2f} ± {float(test['stddev_ts']):.2f}") for test in load(folder, "json")]
    for line, (test, speed) in zip(lines, wanted, strict=True):
        cells = [cell.strip() for cell in line.split("|")][1:-1]
        name = f"pp{test['n_prompt']}" if test["n_prompt"] else f"tg{test['n_gen']}"
        name += f" @ d{test['n_depth']}" if test["n_depth"] else ""
        assert (cells[-2], cells[-1]) == (name, speed)


# What the compare script asks the database for: tests of two builds that are equal in all keys.
QUERY = f"""SELECT tb.n_prompt, tb.n_gen, tb.n_depth, AVG(tb.avg_ts), AVG(tc.avg_ts) FROM llama_bench tb JOIN llama_bench tc ON
{' AND '.join(f'tb.{key} = tc.{key}' for key in KEYS)} AND tb.build_commit = 'a' AND tc.build_commit = 'b'
GROUP BY tb.n_gen, tb.n_prompt, tb.n_depth"""


def two_builds(folder):
    connection = sqlite3.connect(":memory:")
    for build in "ab":
        connection.executescript((folder / "sql").read_text())
        connection.execute("UPDATE llama_bench SET build_commit = ? WHERE build_commit NOT IN ('a', 'b')", build)
    connection.commit()
    return connection


def test_join_of_two_builds(written):
    folder, _ = written
    found = two_builds(folder).execute(QUERY).fetchall()
    assert {row[:3] for row in found} == {(t["n_prompt"], t["n_gen"], t["n_depth"]) for t in load(folder, "json")}


@pytest.mark.parametrize("form", FORMS)
def test_compare_script(written, tmp_path, form):
    script = os.environ.get("COMPARE_LLAMA_BENCH")
    if not script:
        pytest.skip("$COMPARE_LLAMA_BENCH does not say where llama.cpp's scripts/compare-llama-bench.py is")
    folder, _ = written
    file = tmp_path / f"both.{form}"
    if form == "sql":
        file = tmp_path / "llama-bench.sqlite"
        with sqlite3.connect(file) as to:
            two_builds(folder).backup(to)
    elif form == "json":
        file.write_text(json.dumps([test | {"build_commit": build} for build in "ab" for test in load(folder, form)]))
    else:
        text = (folder / form).read_text()
        build = load(folder, form)[0]["build_commit"]
        body = text.split("\n", 1)[1] if form == "csv" else text
        file.write_text(text.replace(f'"{build}"', '"a"') + body.replace(f'"{build}"', '"b"'))
    done = subprocess.run([sys.executable, script, "-t", "llama-bench", "-b", "a", "-c", "b", "-i", file], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pp8") == 2 and done.stdout.count("tg4@d16") + done.stdout.count("tg4 @ d16") >= 1, done.stdout


# ---- reading ----

@pytest.mark.parametrize("form", [*FORMS, "md"])
def test_read_back(run, written, form):
    folder, _ = written
    rows = json.loads(run("report", folder / form, "-o", "json", check=True).stdout)
    tests = load(folder, "json")
    assert len(rows["summaries"]) == 8 and len(rows["runs"]) == (56 if "json" in form else 8)
    for row, test in zip(rows["summaries"], tests, strict=True):
        assert ((row["n_prompt"] or 0, row["n_generate"] or 0, row["depth"]) ==
                (test["n_prompt"], test["n_gen"], test["n_depth"]))
        speed = row["prompt_tps"] or row["generation_tps"]
        value = statistics.median(test["samples_ts"]) if "json" in form else test["avg_ts"]
        assert speed == pytest.approx(value, rel=1e-3 if form == "md" else 1e-6, abs=0.0051)
        assert row["model"] == (test["model_type"] if form == "md" else "it's, a model")
        assert row["threads"] == 1 and row["engine"] == "CPU"
        assert row["engine_version"] == test["build_commit"]
    again = run("report", folder / form, "-o", "llama-bench-json", check=True).stdout
    for new, test in zip(json.loads(again), tests, strict=True):
        for name in ("n_prompt", "n_gen", "n_depth", "n_threads", "backends"):
            assert new[name] == test[name]


def test_sqlite_dump_is_read(run, written, tmp_path):
    folder, _ = written
    connection = sqlite3.connect(":memory:")
    connection.executescript((folder / "sql").read_text())
    (tmp_path / "dump.sql").write_text("\n".join(connection.iterdump()))
    wanted = run("report", folder / "sql", "-o", "csv", check=True).stdout
    assert run("report", tmp_path / "dump.sql", "-o", "csv", check=True).stdout == wanted


def test_theirs(run, tmp_path):
    (tmp_path / "a.csv").write_text(THEIRS_CSV)
    prompt, generation = csv.DictReader(io.StringIO(run("report", tmp_path / "a.csv", "-o", "csv", check=True).stdout))
    assert prompt["prompt_tps"] == "7285.677" and prompt["model"] == "models/a, b.gguf"
    assert prompt["chip"] == 'A "good" CPU' and prompt["device"] == "RTX 4080"
    assert generation["generation_tps"] == "119.915" and generation["depth"] == "512"
    (tmp_path / "a.md").write_text(THEIRS_MD)
    first, second, third, both = csv.DictReader(io.StringIO(run("report", tmp_path / "a.md", "-o", "csv",
                                                                check=True).stdout))
    assert [row["engine"] for row in (first, second)] == ["CUDA, n_gpu_layers -1", "CUDA, n_gpu_layers 99"]
    assert third["generation_tps"] == "116.710" and third["engine_version"] == "8cf427ff"
    assert both["total_s"] == f"{640 / 1116.71:.6f}" and not both["prompt_tps"]


def test_compare_reads_all(run, written):
    folder, _ = written
    for form in [*FORMS, "md"]:
        found = json.loads(run("compare", folder / "json", folder / form, "--format", "json", check=True).stdout)
        assert len(found) == 7 and all(row["verdict"] == "~" for row in found)  # two tests have one depth
    found = json.loads(run("compare", folder / "jsonl", folder / "json", "--format", "json", check=True).stdout)
    assert all(row["ratio"] == 1 and row["n_before"] == row["n_after"] in (7, 14) for row in found)


def test_compare_with_ours(run, written, good_folder, tmp_path):
    """Generation at depth 16 is ours behind a prompt of 16, or of 8 with a depth of 8."""
    folder, _ = written
    run("--model", good_folder, "--engine", "fake", "-np", 16, "-n", 4, "--prompt-tokens", "random", "-r", 5, "-o",
        f"csv:{tmp_path}/ours.csv", check=True)
    found = json.loads(run("compare", tmp_path / "ours.csv", folder / "json", "--format", "json", check=True).stdout)
    assert {row["metric"]: (row["n_before"], row["n_after"]) for row in found} == {
        "prompt_tps": (5, 7), "generation_tps": (5, 14)}


@pytest.mark.parametrize("form", FORMS)
def test_cut_off(run, written, tmp_path, form):
    """Any beginning of a file is its first tests, or one clear line."""
    folder, _ = written
    text = (folder / form).read_text()
    for share in (0.05, 0.3, 0.5, 0.77, 0.999):
        (tmp_path / "cut").write_text(text[:int(len(text) * share)])
        done = run("report", tmp_path / "cut", "-o", "csv")
        assert done.returncode in (0, 1) and len(done.stderr.splitlines()) == done.returncode
        if form in ("jsonl", "sql") and share > 0.3:
            assert done.returncode == 0 and len(done.stdout.splitlines()) > 1


@pytest.mark.parametrize("text, words", [
    ("[1, 2]", ["avg_ts"]),
    ('[{"avg_ts": 1}]', ["n_prompt"]),
    ('[{"avg_ts": 1, "n_prompt": -1}]', ["n_prompt", "-1"]),
    ('[{"avg_ts": 0, "n_prompt": 1}]', ["tokens per second"]),
    ('[{"avg_ts": 1, "n_prompt": 1, "samples_ts": ["a"]}]', ["samples_ts"]),
    ("avg_ts,n_prompt\nx,1\n", ["avg_ts"]),
    ("avg_ts,n_prompt\n1\n1,1\n", ["line 2", "fields"]),
    ("| model | test | t/s |\n| a | pq5 | 1 |\n", ["line 2", "pq5"]),
    ("| model | test | t/s |\n| a | pp5 |\n", ["line 2", "cells"]),
    ("CREATE TABLE llama_bench (\n a TEXT\n);\nINSERT INTO llama_bench (avg_ts, n_prompt) VALUES ('1');",
     ["line 4", "1 values for 2 columns"]),
    ("INSERT INTO llama_bench (model_filename, n_prompt) VALUES ('it's', '1');\n" * 2, ["line 1", "INSERT"]),
    ("INSERT INTO other VALUES (1);", ["no results"]),
])
def test_broken(fails, tmp_path, text, words):
    (tmp_path / "broken").write_text(text)
    fails(1, words, "report", tmp_path / "broken")


def test_batches_are_refused(run, fails, good_folder, tmp_path):
    batch = ["--model", good_folder, "--engine", "fake", "-np", 8, "-n", 4, "--prompt-tokens", "random", "-b", "1,2"]
    fails(2, ["llama-bench", "--batch"], *batch, "-o", "llama-bench")
    run(*batch, "-o", f"csv:{tmp_path}/rows.csv", check=True)
    fails(2, ["llama-bench-sql", "--batch"], "report", tmp_path / "rows.csv", "-o", "llama-bench-sql")


def test_failed_configuration_has_no_test(run, good_folder):
    done = run("--model", f"{good_folder},{good_folder}/nothing", "--engine", "fake", "-np", 8, "-n", 1, "--prompt-tokens",
               "random", "-o", "llama-bench-json")
    assert done.returncode == 1
    test, = json.loads(done.stdout)
    assert (test["n_prompt"], test["n_gen"], test["stddev_ts"]) == (8, 0, 0)
