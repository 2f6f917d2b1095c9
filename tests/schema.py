"""Validates the program's JSON against the schema that `mlxbench report --schema` prints."""

import functools
import json
import pathlib
import subprocess

import jsonschema


@functools.lru_cache
def schema_of(program):
    return json.loads(subprocess.run([program, "report", "--schema"], capture_output=True, check=True).stdout)


@functools.lru_cache
def validator(program, part):
    schema = schema_of(program)
    whole = jsonschema.Draft202012Validator(schema)
    return whole if part is None else whole.evolve(schema={"$ref": f"#/$defs/{part}", "$defs": schema["$defs"]})


def check_json(program, value, part=None):
    error = jsonschema.exceptions.best_match(validator(str(program), part).iter_errors(value))
    assert error is None, f"{error.json_path}: {error.message}"


def check_text(program, form, text):
    if form == "json" and text:
        check_json(program, json.loads(text))
    for line in text.splitlines() if form == "jsonl" else []:
        check_json(program, json.loads(line), "line")


def check_printed(program, arguments, stdout):
    """What other commands than bench print as JSON."""
    command = arguments[0] if arguments else None
    forms = {form for option, form in zip(arguments, arguments[1:]) if option in ("-f", "--format")}
    part = {"hwinfo": "hwinfo" if "--json" in arguments else None, "compare": "comparison" if forms == {"json"} else None,
            "history": "history" if forms == {"json"} else None}.get(command)
    if part and stdout:
        check_json(program, json.loads(stdout), part)


def check_outputs(program, arguments, stdout):
    """All JSON of a command that ended well, or with failed configurations."""
    check_printed(program, arguments, stdout)
    for option, spec in zip(arguments, arguments[1:]):
        form, _, path = spec.partition(":")
        if option not in ("-o", "--output") or form not in ("json", "jsonl"):
            continue
        if not path:
            check_text(program, form, stdout)
        elif pathlib.Path(path).is_file():
            check_text(program, form, pathlib.Path(path).read_text())
