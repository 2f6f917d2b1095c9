"""A configuration that fails is a row without metrics and one line on stderr; the sweep goes on, and ends with 1."""

import csv
import io
import json
import pathlib
import shutil

import pytest
from rows import runs_of

SMALL = ["-n", 4, "--prompt-tokens", "random", "-o", "jsonl"]
METRICS = ["prompt_tokens", "prompt_tps", "generation_tps", "peak_memory_gb", "load_s", "peak_rss_gb"]

# In place of MLX: the engine that computes nothing, except that a step of more than 20 tokens
# fails. Every load is one line in $LOADS.
FAILING = """
#include "engine/graph.h"
#include <stdio.h>
#include <stdlib.h>

static engine_class type;

static int run(engine *e, graph *g, int n, const tensor outputs[], result *results[]) {
    for (int i = 0; i < g->n_nodes; i++)
        if (graph_node(g, i)->op == OP_KV_WRITE && graph_node(g, i)->shape[0] > 20)
            return fail("mlx: %lld tokens are too many", (long long)graph_node(g, i)->shape[0]);
    return fake_engine.run(e, g, n, outputs, results);
}

static engine *open_failing(const engine_options *options) {
    FILE *loads = fopen(getenv("LOADS"), "a");
    if (loads) fputs("load\\n", loads);
    if (loads) fclose(loads);
    return fake_engine.open(options);
}

const engine_module *mlxbench_engine_module(void) {
    static const engine_module module = {ENGINE_ABI, "a test", &type};
    type = fake_engine;
    type.run = run;
    type.open = open_failing;
    return &module;
}
"""


# In place of MLX: the engine that computes nothing, on a GPU that keeps LIMIT bytes resident.
WIRED = """
#include "engine/graph.h"

static engine_class type;

static engine_info describe(const engine *e) {
    engine_info info = fake_engine.describe(e);
    info.wired_limit = LIMIT;
    return info;
}

const engine_module *mlxbench_engine_module(void) {
    static const engine_module module = {ENGINE_ABI, "a test", &type};
    type = fake_engine;
    type.describe = describe;
    return &module;
}
"""


@pytest.fixture(scope="module")
def failing(engine_module, tmp_path_factory):
    """The environment in which the engine mlx fails at more than 20 tokens."""
    folder = tmp_path_factory.mktemp("failing")
    return {**engine_module(folder, FAILING), "LOADS": str(folder / "loads")}


def rows_of(done):
    return runs_of(done.stdout)


def test_sweep_goes_on(run, good_folder, failing):
    loads = pathlib.Path(failing["LOADS"])
    loads.unlink(missing_ok=True)
    done = run("--engine", "mlx", "--model", good_folder, "-np", "8,64,100,9", "-r", 2, "-t", 1, "--order", "given", *SMALL,
               env=failing)
    rows = rows_of(done)
    assert done.returncode == 1
    assert [row["run"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["n_prompt"] for row in rows] == [8, 8, 64, 100, 9, 9]  # the rest of a failed one's repeats is left out
    for row in rows:
        error = f"mlx: {row['n_prompt'] - 1} tokens are too many" if row["n_prompt"] > 20 else None
        assert row["error"] == error
        assert all((row[metric] is None) == bool(error) for metric in METRICS)
        assert (row["model_type"], row["synthetic"], row["threads"]) == ("llama", False, 1)
        assert ("token_ns" in row) == (not error)
    assert done.stderr.splitlines() == [
        "mlxbench: note: run 3 failed: mlx: 63 tokens are too many",
        "mlxbench: note: run 4 failed: mlx: 99 tokens are too many",
        "mlxbench: 2 of 4 configurations failed; column error of their rows says why"]
    assert len(loads.read_text().splitlines()) == 4  # to see that it is there; for 8 and 64; after each failure


def test_one_configuration(fails, good_folder, failing):
    done = fails(1, ["mlx: 63 tokens are too many"], "--engine", "mlx", "--model", good_folder, "-np", 64, *SMALL,
                 env=failing)
    assert [row["error"] for row in rows_of(done)] == ["mlx: 63 tokens are too many"]


def test_engine_that_cannot_be_opened(run, good_folder, tmp_path):
    command = ["--model", good_folder, "-np", "8,9", *SMALL]
    environment = {"MLXBENCH_ENGINE_PATH": str(tmp_path)}
    done = run("--engine", "mlx,cpu", *command, env=environment)
    assert done.returncode == 1
    assert [(row["engine"], bool(row["error"])) for row in rows_of(done)] == [("mlx", True)] * 2 + [("cpu", False)] * 2
    assert all(str(tmp_path) in row["error"] and row["synthetic"] is None and row["parameters"] is None
               and row["device"] is None for row in rows_of(done)[:2])
    first, last = done.stderr.splitlines()
    assert str(tmp_path) in first and "2 of 4 configurations failed" in last
    done = run("--engine", "mlx", *command, env=environment)
    assert done.returncode == 1 and len(rows_of(done)) == 2
    assert done.stderr.splitlines()[-1] == "mlxbench: nothing was measured: all 2 configurations failed"


def test_model_that_does_not_load(run, good_folder, tmp_path):
    bad = tmp_path / "bad"
    shutil.copytree(good_folder, bad)
    (bad / "config.json").write_text("{}")
    done = run("--engine", "fake", "--model", f"{bad},{good_folder}", "-np", "8,9", *SMALL)
    assert done.returncode == 1
    assert [bool(row["error"]) for row in rows_of(done)] == [True, True, False, False]
    assert len(done.stderr.splitlines()) == 2


def test_model_close_to_what_a_gpu_keeps_resident(run, good_folder, engine_module, tmp_path):
    """As mlx-lm warns: above 0.9 of Metal's recommended working set. The weights are counted by the fake engine."""
    command = ["--model", good_folder, "-np", "8,9", *SMALL]
    row, _ = rows_of(run("--engine", "fake", *command, check=True))
    weights = round(row["weights_gb"] * 1e9)
    for limit, noted in [(weights * 10 // 9 + 1000, False), (weights * 10 // 9 - 1000, True), (weights // 2, True)]:
        environment = engine_module(tmp_path / str(limit), WIRED.replace("LIMIT", str(limit)))
        done = run("--engine", "mlx", *command, env=environment, check=True)
        lines = done.stderr.splitlines()
        assert len(lines) == noted  # once per model
        assert all(f"{weights >> 20} MB, close to the {limit >> 20} MB" in line for line in lines)


def test_formats(run, good_folder, failing, tmp_path):
    outputs = [part for form in ("csv", "json", "mlxbench") for part in ("-o", f"{form}:{tmp_path}/{form}")]
    done = run("--engine", "mlx", "--model", good_folder, "-np", "64,8", *SMALL[:-2], *outputs, "-o", "md", env=failing)
    error = "mlx: 63 tokens are too many"
    bad, good = csv.DictReader(io.StringIO((tmp_path / "csv").read_text()))
    assert (bad["error"], good["error"], bad["prompt_tps"]) == (error, "", "") and good["prompt_tps"]
    bad, good = json.loads((tmp_path / "json").read_text())["runs"]
    assert (bad["error"], good["error"], bad["prompt_tps"]) == (error, None, None) and good["prompt_tps"]
    bad, good = csv.DictReader(io.StringIO((tmp_path / "mlxbench").read_text()))
    assert bad["prompt_tps"] == "None" != good["prompt_tps"]
    table = done.stdout.splitlines()
    assert len([line for line in table if line.startswith("|")]) == 4
    assert any(line.startswith("mlxbench ") for line in table) and "null" not in done.stdout
