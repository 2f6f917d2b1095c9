"""-o share, verify and replay. Oracles: rfc8785 and hashlib for the seal, this file's own FNV-1a for the ids."""

import copy
import hashlib
import json
import os
import shlex

import pytest
import rfc8785
import schema
from rows import runs_of

SMALL = ["--engine", "fake", "-np", 8, "-n", 4, "--prompt-tokens", "random"]


def seal_of(document):
    return hashlib.sha256(rfc8785.dumps({k: v for k, v in document.items() if k != "seal"})).hexdigest()


def fnv(ids):
    value = 14695981039346656037
    for byte in b"".join(i.to_bytes(4, "little") for i in ids):
        value = (value ^ byte) * 1099511628211 % 2**64
    return f"{value:016x}"


@pytest.fixture
def bench(run, good_folder):
    return lambda *arguments, **options: run("bench", "-m", good_folder, *SMALL, *arguments, **options)


@pytest.fixture
def shared(bench, tmp_path):
    """shared(...) -> (path, document)"""

    def shared(*arguments, code=0):
        path = tmp_path / "shared.json"
        done = bench("-o", f"share:{path}", "--force", *arguments)
        assert done.returncode == code, done.stderr
        return path, json.loads(path.read_text())

    return shared


def test_what_is_in_it(mlxbench, shared, bench, tmp_path):
    path, found = shared("-r", 7, "-b", 2, "-o", f"jsonl:{tmp_path}/jsonl")
    schema.check_json(mlxbench, found)
    lines = runs_of((tmp_path / "jsonl").read_text())
    assert found["runs"] == [{k: v for k, v in line.items() if k != "kind"} for line in lines] and len(lines) == 7
    assert found["seal"]["sha256"] == seal_of(found)
    assert all(run["ids_hash"] == fnv(run["token_ids"]) and len(run["token_ids"]) == 8 for run in found["runs"])
    words = shlex.split(found["runs"][0]["command"])
    assert words[:3] == ["mlxbench", "bench", "-m"] and words[-2:] == ["-o", f"jsonl:{tmp_path}/jsonl"]
    assert len(found["summaries"]) == 1 and found["machine"]["os"] == found["runs"][0]["os"]


def test_reasons(shared, bench, tmp_path):
    reasons = lambda *arguments, **options: " | ".join(shared(*arguments, **options)[1]["reasons"])
    assert "the engine fake computes nothing" in reasons("-r", 7)
    assert "3 runs, and a median's interval needs 6" in reasons("-r", 3)
    found = reasons("--kv-bits", "none,4", "--kv-group-size", 64, "-r", 7, code=1)
    assert "configuration 2: it failed: kv_group_size 64" in found and "the command ended with an error: 1 of 2" in found
    assert "first run" in reasons("--warmup", 0, "-r", 1)


@pytest.mark.parametrize("quality, publishable", [("A", True), ("B", True), ("C", False), ("", False)])
def test_publishable(run, tmp_path, quality, publishable):
    """Rows that were written by hand, as the machine of a test is never quiet."""
    names = ["run", "configuration", "repeat", "model", "engine", "prompt_tps", "generation_tps", "ids_hash", "quality", "quality_reasons"]
    lines = [f"{i},1,{i},a,cpu,{100 + i / 10},{50 + i / 10},00,{quality},too warm" for i in range(1, 8)]
    (tmp_path / "rows.csv").write_text("\n".join([",".join(names), *lines]) + "\n")
    found = json.loads(run("report", tmp_path / "rows.csv", "-o", "share", check=True).stdout)
    assert found["publishable"] is publishable and bool(found["reasons"]) is not publishable
    (tmp_path / "rows.csv").write_text("\n".join([",".join(names), *lines, "8,1,8,a,cpu,100,50,01,A,"]) + "\n")
    assert "same tokens" in str(json.loads(run("report", tmp_path / "rows.csv", "-o", "share", check=True).stdout)["reasons"])
    wide = [line.replace(",50.", f",{40 + 5 * i}.") for i, line in enumerate(lines)]
    (tmp_path / "rows.csv").write_text("\n".join([",".join(names), *wide]) + "\n")
    assert "interval of generation_tps" in str(json.loads(run("report", tmp_path / "rows.csv", "-o", "share", check=True).stdout)["reasons"])


def test_no_run_no_file(fails, good_folder, tmp_path):
    fails(2, ["kv_group_size"], "bench", "-m", good_folder, *SMALL, "--kv-bits", 4, "-o", f"share:{tmp_path}/x")
    assert os.listdir(tmp_path) == []


def test_it_is_read_as_a_result_file(run, shared, tmp_path):
    path, found = shared("-r", 4, "-np", "8,16")
    assert "n_prompt 16" in run("compare", path, path, check=True).stdout
    lines = runs_of(run("report", path, "-o", "jsonl", check=True).stdout)
    assert [line["token_ids"] for line in lines] == [r["token_ids"] for r in found["runs"]]


# ---- verify ----

def test_verify(run, shared, bench, tmp_path):
    path, found = shared("-r", 3, "-o", f"jsonl:{tmp_path}/jsonl", "-o", f"csv:{tmp_path}/csv")
    assert "the seal is intact; 3 of 3" in run("verify", path, check=True).stdout
    path.write_text(json.dumps(dict(reversed(found.items())), indent=4))  # laid out anew
    assert "the seal is intact; 3 of 3" in run("verify", path, check=True).stdout
    assert "it has no seal; 3 of 3" in run("verify", tmp_path / "jsonl", check=True).stdout
    done = run("verify", tmp_path / "csv")
    assert done.returncode == 1 and "nothing can be verified" in done.stderr


@pytest.mark.parametrize("break_it", [
    lambda d: d["runs"][0].update(prompt_tps=d["runs"][0]["prompt_tps"] + 0.001), lambda d: d.update(publishable=True),
    lambda d: d["runs"].pop(), lambda d: d["runs"][1]["token_ids"].reverse(), lambda d: d.update(more=None),
    lambda d: d["seal"].update(sha256="0" * 64), lambda d: d["seal"].pop("sha256"), lambda d: d["reasons"].append("\u2028"),
])
def test_a_broken_seal(run, shared, break_it):
    path, found = shared("-r", 3)
    break_it(found)
    path.write_text(json.dumps(found))
    done = run("verify", path)
    assert done.returncode == 3 and "the seal is broken" in done.stderr and done.stdout == ""


@pytest.mark.parametrize("break_it, words", [
    (lambda d: d["runs"][1]["token_ids"].reverse(), ["row 2", "ids_hash"]),
    (lambda d: d["runs"][0].update(prompt_tps=d["runs"][0]["prompt_tps"] * 2), ["row 1", "prompt_tps"]),
    (lambda d: d["runs"][2]["token_ns"].__setitem__(3, d["runs"][2]["token_ns"][3] + 5_000_000), ["row 3", "itl_max_ms", "total_s"]),
])
def test_a_seal_that_was_made_anew(run, shared, break_it, words):
    """What can be computed from the raw samples must still be what they give."""
    path, found = shared("-r", 3)
    break_it(found)
    found["seal"]["sha256"] = seal_of(found)
    path.write_text(json.dumps(found))
    done = run("verify", path)
    assert done.returncode == 3 and all(word in done.stderr for word in words), done.stderr


def test_the_canonical_form(run, shared):
    """Of every kind of value, against rfc8785."""
    path, found = shared("-r", 1)
    found["more"] = {"numbers": [0, -0.0, 1, -1, 0.1, 1e21, 1e20, 123456789012345680000.0, 1e-6, 1e-7, 5e-324, 1.7976931348623157e308,
                                 333333333.33333329, 4.50, 2e-3, 1e-27, 9007199254740991, -1.5e300, 0.000001234],
                     "texts": ["", "\"\\/\b\f\n\r\t\u0001\u001f\u007f", "\u20ac\u00e9\u2028\U0001F600"], "b": [True, False, None], "a": {}, "A": [],
                     "": {"": ""}}
    found["seal"]["sha256"] = seal_of(found)
    for text in (json.dumps(found), json.dumps(found, ensure_ascii=False)):
        path.write_text(text)
        assert run("verify", path).returncode == 0, text


@pytest.mark.parametrize("text", ["", "{}", "{\"seal\": {}}", "[", "{\"schema\": 1, \"runs\": [], \"seal\": 3}"])
def test_other_files(run, tmp_path, text):
    (tmp_path / "x").write_text(text)
    done = run("verify", tmp_path / "x")
    assert done.returncode in (1, 3) and len(done.stderr.splitlines()) == 1 and done.stdout == ""


# ---- replay ----

def test_replay(run, bench, tmp_path, good_folder):
    outputs = [part for form in ("share", "csv", "json", "jsonl", "sql", "sqlite") for part in ("-o", f"{form}:{tmp_path}/{form}")]
    done = run("bench", "-m", good_folder, "--engine", "cpu", "-t", 1, "-np", "8,12", "-n", 6, "-r", 2, "--seed", 5, "-p", "it's a, \"prompt\"\\n",
               "-d", 3, *outputs)
    assert done.returncode == 0, done.stderr
    before = runs_of((tmp_path / "jsonl").read_text())
    assert {row["prompt_text"] for row in before} == {"it's a, \"prompt\"\n"}
    for form in ("share", "csv", "json", "jsonl", "sql", "sqlite"):
        done = run("replay", tmp_path / form, "-o", f"jsonl:{tmp_path}/again", "--force", check=True)
        assert done.stdout.count("the same prompt gave the same tokens") == 2 and "generation_tps" in done.stdout
        after = runs_of((tmp_path / "again").read_text())
        facts = ["n_prompt", "depth", "threads", "seed", "prompt_hash", "ids_hash", "configuration", "prompt_text"]
        assert sorted([row[f] for f in facts] for row in after) == sorted([row[f] for f in facts] for row in before)


def test_replay_of_one_with_another_model(run, good_folder, good_gguf, tmp_path):
    run("bench", "-m", "/nonesuch," + str(good_folder), "--engine", "cpu", "-np", "8,9", "-n", 4, "--prompt-tokens", "random", "-o", f"json:{tmp_path}/x")
    found = json.loads((tmp_path / "x").read_text())["runs"]
    number = [row["configuration"] for row in found if row["n_prompt"] == 9 and not row["error"]][0]
    done = run("replay", tmp_path / "x", "--configuration", number, "-r", 3, "-o", "jsonl", check=True)
    assert [row["n_prompt"] for row in runs_of(done.stdout)] == [9, 9, 9] and "same tokens" in done.stderr
    done = run("replay", tmp_path / "x", "--configuration", number, "-m", good_gguf)  # the same weights, rounded otherwise
    assert done.returncode in (0, 3) and "configuration" in done.stdout


def test_other_tokens(run, good_folder, tmp_path):
    run("bench", "-m", good_folder, "--engine", "cpu", "-np", 8, "-n", 4, "--prompt-tokens", "random", "-o", f"json:{tmp_path}/x", check=True)
    found = json.loads((tmp_path / "x").read_text())
    found["runs"][0]["ids_hash"] = "0" * 16
    found["runs"][0]["engine_version"] = "0.0.1"
    (tmp_path / "x").write_text(json.dumps(found))
    done = run("replay", tmp_path / "x")
    assert done.returncode == 3 and "OTHER tokens" in done.stdout and "engine_version: 0.0.1 before" in done.stdout
    found["runs"][0]["prompt_hash"] = "0" * 16
    (tmp_path / "x").write_text(json.dumps(found))
    done = run("replay", tmp_path / "x", check=True)
    assert "the prompt is not the same" in done.stdout


def test_replay_without_anything(run, fails, good_folder, tmp_path):
    run("bench", "-m", "/nonesuch", "-m", good_folder, *SMALL, "-o", f"csv:{tmp_path}/x")
    fails(1, ["no configuration to replay"], "replay", tmp_path / "x", "--configuration", 9)
    fails(2, ["one result file"], "replay")


def test_a_hostile_file_cannot_write(run, good_folder, tmp_path):
    """The stored command is text: only parameters are taken from a file."""
    run("bench", "-m", good_folder, *SMALL, "-o", f"json:{tmp_path}/x", check=True)
    found = json.loads((tmp_path / "x").read_text())
    found["runs"][0]["command"] = f"mlxbench bench -o csv:{tmp_path}/stolen"
    found["runs"][0]["mlx_env"] = "LD_PRELOAD=/x"
    (tmp_path / "x").write_text(json.dumps(found))
    done = run("replay", tmp_path / "x")
    assert done.returncode == 2 and "MLX_NAME=VALUE" in done.stderr and not (tmp_path / "stolen").exists()
