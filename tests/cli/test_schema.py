"""The JSON Schema of all JSON that the program writes. tests/conftest.py validates the other tests' outputs with it."""

import copy
import json

import jsonschema
import pytest
import schema

SMALL = ["--engine", "fake", "-np", 8, "-n", 4, "--prompt-tokens", "random"]


@pytest.fixture(scope="module")
def document(run, good_folder):
    """With a configuration that fails, as head_dim is 32."""
    done = run("-m", good_folder, *SMALL, "--kv-bits", "none,4", "--kv-group-size", 64, "-r", 2, "-o", "json")
    assert done.returncode == 1
    return json.loads(done.stdout)


def test_it_is_a_schema(mlxbench, document):
    found = schema.schema_of(str(mlxbench))
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["properties"]["schema"]["const"] == document["schema"]
    assert set(found["$defs"]["run"]["properties"]) >= set(document["runs"][0])


def test_what_is_written(mlxbench, document, run, good_folder):
    schema.check_json(mlxbench, document)
    lines = run("-m", good_folder, *SMALL, "-o", "jsonl", check=True).stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["run", "summary"]


@pytest.mark.parametrize("break_it", [
    lambda d: d.update(more=1), lambda d: d.update(schema=99), lambda d: d.pop("machine"),
    lambda d: d["runs"][0].update(more=1), lambda d: d["runs"][0].pop("ids_hash"),
    lambda d: d["runs"][0].update(prompt_tps="fast"), lambda d: d["runs"][0].update(run=1.5),
    lambda d: d["runs"][0].update(synthetic=1), lambda d: d["summaries"][0].pop("spreads"),
    lambda d: d["summaries"][0]["spreads"]["ttft_ms"].pop("n"), lambda d: d["summaries"][0]["spreads"].pop("ttft_ms"),
])
def test_what_is_not_ours(mlxbench, document, break_it):
    broken = copy.deepcopy(document)
    break_it(broken)
    with pytest.raises(AssertionError):
        schema.check_json(mlxbench, broken)


def test_lines_that_are_not_ours(mlxbench, document):
    for line in (document["runs"][0], {"kind": "run"}, {**document["runs"][0], "kind": "summary"}):
        with pytest.raises(AssertionError):
            schema.check_json(mlxbench, line, "line")
    schema.check_json(mlxbench, {**document["runs"][0], "kind": "run"}, "line")


# ---- what hwinfo, compare and history print ----

@pytest.fixture(scope="module")
def printed(run, good_folder, tmp_path_factory):
    """Each with something in all its lists that can have something here."""
    folder = tmp_path_factory.mktemp("printed")
    for name in "ab":
        run("-m", good_folder, *SMALL, "-r", 6, "-o", f"csv:{folder}/{name}", check=True)
    lines = ["run,configuration,n_prompt,measured_at,quality,prompt_tps"]
    lines += [f"{i},{i},8,2026-01-{i:02}T00:00:00Z,A,{100 + i % 3 + 50 * (i > 10)}" for i in range(1, 21)]
    (folder / "long").write_text("\n".join(lines) + "\n")
    commands = {"hwinfo": ["hwinfo", "--json"], "comparison": ["compare", folder / "a", folder / "b", "-f", "json"],
                "history": ["history", "--db", folder / "long", "-f", "json"]}
    return {part: json.loads(run(*command, check=True).stdout) for part, command in commands.items()}


def test_what_is_printed(mlxbench, printed):
    assert len(printed["comparison"]) == 2 and len(printed["history"][0]["changes"]) == 1
    for part, value in printed.items():
        schema.check_json(mlxbench, value, part)


@pytest.mark.parametrize("part, break_it", [
    ("hwinfo", lambda d: d.update(more=1)), ("hwinfo", lambda d: d.pop("chip")), ("hwinfo", lambda d: d.update(simd="avx2")),
    ("hwinfo", lambda d: d["engines"][0].pop("device")), ("hwinfo", lambda d: d.update(memory_bytes=-1)),
    ("comparison", lambda d: d[0].update(verdict="better")), ("comparison", lambda d: d[0].pop("p")),
    ("comparison", lambda d: d[0].update(metric="ttft_ms")), ("comparison", lambda d: d[1].update(quality_after="E")),
    ("history", lambda d: d[0].pop("changes")), ("history", lambda d: d[0].update(model=1)),
    ("history", lambda d: d[0]["measurements"][0].pop("prompt_tps")),
    ("history", lambda d: d[0]["measurements"][0].update(runs=0.5)),
    ("history", lambda d: d[0]["changes"][0].update(measurement=0)),
])
def test_what_is_printed_is_not_ours(mlxbench, printed, part, break_it):
    broken = copy.deepcopy(printed[part])
    break_it(broken)
    with pytest.raises(AssertionError):
        schema.check_json(mlxbench, broken, part)
