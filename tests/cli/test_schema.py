"""The JSON Schema of results. tests/conftest.py validates every json and jsonl output of the other tests with it."""

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
