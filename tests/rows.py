"""Runs as Python dicts, from what `mlxbench bench` writes."""

import json


def runs_of(text):
    """The runs of JSON lines, without the configurations' lines."""
    rows = [json.loads(line) for line in text.splitlines()]
    assert {row["kind"] for row in rows} <= {"run", "summary"}
    return [row for row in rows if row["kind"] == "run"]
