"""Formats of other programs, each read by its own: mlx_lm.benchmark's lines, Prometheus text, Go's benchmark format,
GitHub's annotations."""

import csv
import importlib.util
import json
import os
import pathlib
import re
import sqlite3
import statistics
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rows import runs_of

SMALL = ["--engine", "cpu", "-t", 1, "--prompt-tokens", "random"]


@pytest.fixture(scope="module")
def written(run, good_folder, tmp_path_factory):
    """(folder, runs): one benchmark in each format, and its runs."""
    folder = tmp_path_factory.mktemp("formats")
    outputs = [part for name in ("mlx-lm", "prometheus", "benchfmt", "csv") for part in ("-o", f"{name}:{folder}/{name}")]
    done = run("--model", good_folder, *SMALL, "-np", "8,16", "-n", 4, "-r", 7, *outputs, "-o", "jsonl", check=True)
    return folder, runs_of(done.stdout)


@pytest.mark.parametrize("name", ["mlx-lm", "prometheus", "benchfmt"])
def test_report_writes_the_same(run, written, name):
    folder, _ = written
    assert run("report", folder / "csv", "-o", name, check=True).stdout == (folder / name).read_text()


def count(name, text):
    """Configurations in a file, as its usual reader sees them; it must be whole."""
    if name == "prometheus":
        return len(samples_of(text)["mlxbench_runs"])
    if name == "mlx-lm":
        return len([block for block in blocks_of(text) if block[2]])
    if name == "benchfmt":
        return len(results_of(text)) // 2
    if name == "llama-bench":
        return sum("| pp" in line or " pp" in line for line in text.splitlines())
    if name == "llama-bench-json":
        return len(json.loads(text)) // 2
    if name == "llama-bench-sql":
        connection = sqlite3.connect(":memory:")
        connection.executescript(text)
        return connection.execute("SELECT count(*) FROM llama_bench").fetchone()[0] // 2
    return len(text.splitlines()) // 2  # csv with its names; jsonl


def test_killed_at_any_moment(mlxbench, good_folder, tmp_path):
    """Every configuration that standard output has, but for the last one, is in each file, and the file is whole."""
    names = ["prometheus", "mlx-lm", "benchfmt", "llama-bench", "llama-bench-csv", "llama-bench-json", "llama-bench-jsonl",
             "llama-bench-sql"]
    for attempt in range(4):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        outputs = [part for name in names for part in ("-o", f"{name}:{folder}/{name}")]
        process = subprocess.Popen([mlxbench, "--model", good_folder, "--engine", "fake", "--prompt-tokens", "random", "-np",
                                    "8-2000", "-n", "2", *outputs, "-o", "mlxbench"], stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, text=True)
        finished = int([process.stdout.readline() for _ in range(3 + 9 * attempt)][-1].split(",")[0])
        process.kill()
        process.communicate(timeout=60)
        for name in names:
            assert count(name, (folder / name).read_text()) >= finished - 1, name


# ---- mlx-lm ----

NUMBER = r"(\d+\.\d{3})"
LINES = {"Measuring": r"Measuring .*\.", "Running": r"Running warmup\.\.",
         "Timing": r"Timing with prompt_tokens=(\d+), generation_tokens=(\d+), batch_size=(\d+)\.",
         "Trial": rf"Trial (\d+):  prompt_tps={NUMBER}, generation_tps={NUMBER}, peak_memory={NUMBER}, total_time={NUMBER}",
         "Averages:": rf"Averages: prompt_tps={NUMBER}, generation_tps={NUMBER}, peak_memory={NUMBER}"}


def blocks_of(text):
    """[(prompt_tokens, generation_tokens, batch_size), trials, averages] of each configuration."""
    blocks = []
    for line in text.splitlines():
        found = re.fullmatch(LINES[line.split(" ")[0]], line)
        assert found, line
        numbers = tuple(map(float, found.groups()))
        if line.startswith("Timing"):
            blocks.append([numbers, [], None])
        elif line.startswith("Trial"):
            blocks[-1][1].append(numbers)
        elif line.startswith("Averages"):
            blocks[-1][2] = numbers
    return blocks


def test_mlx_lm(written):
    folder, runs = written
    blocks = blocks_of((folder / "mlx-lm").read_text())
    assert [block[0] for block in blocks] == [(8, 4, 1), (16, 4, 1)]
    for (n_prompt, *_), trials, averages in blocks:
        ours = [run for run in runs if run["n_prompt"] == n_prompt]
        assert [trial[0] for trial in trials] == list(range(1, 8))
        for trial, one in zip(trials, ours, strict=True):
            assert trial[1:] == pytest.approx((one["prompt_tps"], one["generation_tps"] * 4 / 3, one["peak_memory_gb"],
                                               one["total_s"]), abs=6e-4)
        for i in range(3):
            assert averages[i] == pytest.approx(statistics.mean(trial[i + 1] for trial in trials), abs=2e-3)


def test_mlx_lm_has_the_lines_of_mlx_lm():
    """The words of our lines are those of mlx_lm/benchmark.py."""
    source = pathlib.Path(importlib.util.find_spec("mlx_lm").origin).with_name("benchmark.py").read_text()
    for words in ['"Running warmup.."', 'f"Timing with {prompt_tokens=}, {generation_tokens=}, {batch_size=}."',
                  '["prompt_tps", "generation_tps", "peak_memory"]', 'f"total_time={toc - tic:.3f}"', 'f"Trial {i+1}:  "',
                  'f"{k}={v:.3f}"', '"Averages: "']:
        assert words in source


def test_mlx_lm_tells_models_and_batches_apart(run, good_folder, good_gguf):
    text = run("--model", f"{good_folder},{good_gguf}", *SMALL, "-np", 8, "-n", "1,2", "-b", 3, "-o", "mlx-lm",
               check=True).stdout
    assert [line for line in text.splitlines() if line.startswith("Measuring")] == [
        f"Measuring model={path}." for path in (good_folder, good_folder, good_gguf, good_gguf)]
    assert text.count("batch_size=3.") == 4 and text.count("generation_tps=nan") == 4


# ---- Prometheus ----

def samples_of(text):
    """{name: [(labels, value)]}; every name has HELP and TYPE, once, and its samples stand together."""
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation and family.type == "gauge" for family in families)
    return {family.name: [(sample.labels, sample.value) for sample in family.samples] for family in families}


def test_prometheus(written):
    folder, runs = written
    found = samples_of((folder / "prometheus").read_text())
    for name, column, scale in [("prompt_tokens_per_second", "prompt_tps", 1), ("time_to_first_token_seconds", "ttft_ms", 1e-3),
                                ("generation_tokens_per_second", "generation_tps", 1), ("run_duration_seconds", "total_s", 1)]:
        samples = found["mlxbench_" + name]
        assert len(samples) == 6
        for labels, value in samples:
            values = sorted(run[column] for run in runs if run["n_prompt"] == int(labels["n_prompt"]))
            wanted = {"median": statistics.median(values), "low": values[0], "high": values[-1]}[labels["statistic"]]
            assert value == pytest.approx(wanted * scale)
    latency = found["mlxbench_inter_token_latency_seconds"]
    assert {labels["quantile"] for labels, _ in latency} == {"0.5", "0.9", "0.99", "1"}
    assert [value for _, value in found["mlxbench_runs"]] == [7, 7]
    peaks = [max(run["peak_memory_gb"] for run in runs if run["n_prompt"] == n) * 1e9 for n in (8, 16)]
    assert [value for _, value in found["mlxbench_peak_memory_bytes"]] == pytest.approx(peaks)
    for labels, value in found["mlxbench_configuration_info"]:
        assert value == 1 and labels["model_type"] == "llama" and labels["threads"] == "1"


def test_prometheus_labels_and_failures(run, good_folder, tmp_path):
    odd = 'a "quoted" back\\slash, ä'
    (tmp_path / odd).symlink_to(good_folder)
    model = odd.replace(",", "\\,")
    done = run("--model", model, "--model", f"{good_folder}/nothing", *SMALL, "-np", 8, "-n", 2, "-o", "prometheus",
               cwd=tmp_path)
    found = samples_of(done.stdout)
    assert done.returncode == 1
    (labels, value), = found["mlxbench_prompt_tokens_per_second"]
    assert labels["model"] == odd and value > 0
    (labels, value), = found["mlxbench_configuration_failed"]
    assert labels["model"].endswith("nothing") and "nothing" in labels["error"] and value == 1


# ---- Go's benchmark format ----

def results_of(text):
    """[(keys, name, iterations, {unit: value})], by the rules of golang.org/x/perf/benchfmt."""
    keys, found = {}, []
    for line in text.splitlines():
        fields = line.split()
        if re.match(r"[a-z][^A-Z\s]*:(\s|$)", line):
            key, value = line.split(":", 1)
            keys[key] = value.strip()
        elif line.startswith("Benchmark"):
            assert re.fullmatch(r"Benchmark[A-Z]\S*", fields[0]) and fields[1].isdigit() and len(fields) % 2 == 0
            assert len(fields) > 2
            found.append((dict(keys), fields[0], int(fields[1]), dict(zip(fields[3::2], map(float, fields[2::2])))))
        else:
            assert fields == ["Unit", "tokens/s", "better=higher"]
    return found


def test_benchfmt(written):
    folder, runs = written
    found = results_of((folder / "benchfmt").read_text())
    wanted = [(f"Benchmark{kind}/n_prompt={run['n_prompt']}", n or run["n_prompt"], run[column]) for run in runs
              for kind, column, n in [("Prompt", "prompt_tps", None), ("Generation", "generation_tps", 3)]]
    assert [(name, n, units["tokens/s"]) for _, name, n, units in found] == wanted
    for keys, _, _, units in found:
        assert set(keys) == {"os", "cpu"} and units["ns/op"] == pytest.approx(1e9 / units["tokens/s"], abs=0.06)


def test_benchfmt_of_a_comparison(run, written):
    folder, runs = written
    text = run("compare", folder / "csv", folder / "csv", "--format", "benchfmt", check=True).stdout
    found = results_of(text)
    assert len(found) == 4 * len(runs)
    assert {keys["results"] for keys, *_ in found} == {str(folder / "csv")}


def test_benchfmt_names_have_no_blanks(run, good_folder, tmp_path):
    (tmp_path / "a model").symlink_to(good_folder)
    text = run("--model", f"{tmp_path}/a model,{good_folder}", *SMALL, "-np", 8, "-n", 2, "-o", "benchfmt", check=True).stdout
    assert f"/model={str(tmp_path).replace('/', '_')}_a_model " in text and len(results_of(text)) == 4


def test_benchfmt_names_are_utf8_and_one_field(run, good_folder, tmp_path):
    """As Go has it: a blank of any script ends a field, and a file that is not UTF-8 is refused."""
    paths = [f"{tmp_path}/{name}" for name in ("a\u00a0b\u2003c\u3000d", os.fsdecode(b"a\xffb"))]
    for path in paths:
        os.symlink(good_folder, path)
    run("--model", ",".join(paths), *SMALL, "-np", 8, "-n", 2, "-o", f"benchfmt:{tmp_path}/out", check=True)
    found = {name.rsplit("_", 4)[-1] for _, name, *_ in results_of((tmp_path / "out").read_bytes().decode())}
    assert found == {"d", "a\ufffdb"}


# ---- annotations ----

def write_rows(path, factor, quality="A"):
    """Ten runs of two configurations, whose speeds are `factor` times those of 1."""
    with path.open("w") as file:
        to = csv.writer(file)
        to.writerow(["run", "configuration", "repeat", "model", "n_prompt", "prompt_tps", "generation_tps", "quality"])
        for i in range(20):
            to.writerow([i + 1, i // 10 + 1, i % 10 + 1, "a", "8,16".split(",")[i // 10], (1000 + i) * factor, 50 + i / 10,
                         quality])
    return path


def annotations_of(text):
    """[(command, title, message)], undone as GitHub's runner does."""
    found = []
    for line in text.splitlines():
        command, title, message = re.fullmatch(r"::(error|warning|notice) title=([^:,]*)::(.*)", line).groups()
        for code, character in [("%3A", ":"), ("%2C", ","), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")]:
            title, message = title.replace(code, character), message.replace(code, character) if code not in (
                "%3A", "%2C") else message
        found.append((command, title, message))
    return found


def test_annotations(run, tmp_path):
    before, after = write_rows(tmp_path / "before.csv", 1), write_rows(tmp_path / "after.csv", 0.9)
    done = run("compare", before, after, "--format", "annotations", "--fail-slower", "3%")
    found = annotations_of(done.stdout)
    assert done.returncode == 3
    assert [(command, title) for command, title, _ in found] == [("error", "mlxbench: slower")] * 2 + [
        ("notice", "mlxbench compare")]
    assert found[0][2].startswith("n_prompt 8: prompt_tps -10.0 %, from ") and "the limit is -3.0 %" in found[0][2]
    assert "2 beyond the limit, 0 not comparable, 2 may be chance" in found[-1][2]
    done = run("compare", before, after, "--format", "annotations", check=True)
    assert [command for command, *_ in annotations_of(done.stdout)] == ["notice"] * 3
    done = run("compare", after, before, "--format", "annotations", "--fail-slower", "3%", check=True)
    assert annotations_of(done.stdout)[0][:2] == ("notice", "mlxbench: faster")


def test_annotations_of_a_disturbed_machine(run, tmp_path):
    before, after = write_rows(tmp_path / "before.csv", 1), write_rows(tmp_path / "a%, b:\n.csv", 0.9, "D")
    done = run("compare", before, after, "--format", "annotations", "--fail-slower", "3%", check=True)
    found = annotations_of(done.stdout)
    assert [command for command, *_ in found] == ["warning"] * 4 + ["notice"]
    assert "quality A before, D after" in found[0][2] and str(after) in found[-1][2]
