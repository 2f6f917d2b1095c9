"""Configurations that cannot give a result: logits that are no numbers, and what one model of several cannot run. Each is
a row with its error and without metrics, and the others run, whichever comes first."""

import files
import numpy as np
import pytest
from rows import runs_of

METRICS = ["prompt_tokens", "prompt_tps", "generation_tps", "peak_memory_gb"]
SMALL = ["-n", 6, "-np", 5, "--prompt-tokens", "random", "-o", "jsonl"]


def write(folder, change, **config):
    weights = files.weights()
    change(weights)
    files.write_folder(folder, files.CONFIG | config, files.safetensors_bytes(*files.safetensors_parts(weights)))
    return folder


@pytest.fixture
def broken(tmp_path):
    """A model whose every logit is a NaN."""

    def change(weights):
        weights["model.norm.weight"][3] = np.nan

    return write(tmp_path / "broken", change)


def check(row, token):
    assert row["error"] == f"logits are not finite from token {token}"
    assert all(row[metric] is None for metric in METRICS) and row["model_type"] == "llama"


@pytest.mark.parametrize("arguments", ["", "--warmup 0", "--warmup 0 -r 3", "-n 1", "--warmup 0 -n 1", "--depth 7",
                                       "--depth 7 --warmup 0", "-b 2"])
@pytest.mark.parametrize("engine", ["cpu", "mlx"])
def test_not_finite(run, good_folder, broken, engine, arguments):
    command = ["--engine", engine, *SMALL, *arguments.split()]
    done = run("--model", broken, *command)
    assert done.returncode == 1 and done.stderr == "mlxbench: logits are not finite from token 1\n"
    [row] = runs_of(done.stdout)
    check(row, 1)
    done = run("--model", f"{broken},{good_folder}", *command)
    first, *good = runs_of(done.stdout)
    assert done.returncode == 1 and all(row["error"] is None and row["generation_tokens"] for row in good) and good
    check(first, 1)


def head(weights):
    weights["lm_head.weight"] = np.random.default_rng(2).normal(size=(96, 64)).astype(np.float32)


def broken_at(tmp_path, generated):
    """A model whose logits are no numbers after a token whose embedding is a NaN, and the first such token.
    generated(model): the ids that a good one generates."""
    ids = generated(write(tmp_path / "good", head, tie_word_embeddings=False))
    at = next(i for i in range(1, 5) if ids[i] not in ids[:i])

    def change(weights):
        head(weights)
        weights["model.embed_tokens.weight"][ids[at]] = np.nan

    return write(tmp_path / "bad", change, tie_word_embeddings=False), at + 2


@pytest.mark.parametrize("warmup", [1, 0])
@pytest.mark.parametrize("engine", ["cpu", "mlx"])
def test_the_first_token_that_is_not(run, tmp_path, engine, warmup):
    def measure(model):
        return runs_of(run("--engine", engine, "--model", model, "--warmup", warmup, *SMALL).stdout)[0]

    bad, token = broken_at(tmp_path, lambda model: measure(model)["token_ids"])
    check(measure(bad), token)


@pytest.mark.parametrize("engine", ["cpu", "mlx"])
def test_generate(run, broken, tmp_path, engine):
    def generate(model):
        return run("generate", "--engine", engine, "--model", model, "--prompt-ids", "1,2,3", "--ids", "-n", 6,
                   "--ignore-eos")

    def ids_of(model):
        return list(map(int, generate(model).stdout.split()))

    done = generate(broken)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "mlxbench: logits are not finite from token 1\n"
    bad, token = broken_at(tmp_path, ids_of)
    done = generate(bad)
    assert (done.returncode, done.stderr) == (1, f"mlxbench: logits are not finite from token {token}\n")
    assert list(map(int, done.stdout.split())) == ids_of(tmp_path / "good")[:token - 1] and done.stdout.endswith("\n")


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("at", [0, 64, 95])
def test_one_logit(run, tmp_path, number, at):
    """Of all that a token was chosen from, by the engine cpu, which chooses among finite ones."""

    def change(weights):
        head(weights)
        weights["lm_head.weight"][at] = number

    bad = write(tmp_path / "bad", change, tie_word_embeddings=False)
    done = run("generate", "--engine", "cpu", "--model", bad, "--prompt-ids", "1,2,3", "--ids", "-n", 6)
    assert (done.returncode, done.stderr) == (1, "mlxbench: logits are not finite from token 1\n")


def test_group_size_that_does_not_fit(run, good_folder, tmp_path):
    """Of one model's configurations, or of one model's of several."""
    command = ["--engine", "cpu", *SMALL, "--kv-group-size", 64]
    hint = "kv_group_size 64 does not divide this model's head_dim 32; group size 32 fits"
    for bits in ["none,8", "8,none"]:
        done = run("--model", good_folder, *command, "--kv-bits", bits)
        assert done.returncode == 1
        assert [row["error"] for row in runs_of(done.stdout)] == [None if b == "none" else hint for b in bits.split(",")]
    done = run("--model", good_folder, *command, "--kv-bits", 8)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"mlxbench: {hint}\n")
    done = run("--model", f"{good_folder},{tmp_path}/none", *command)
    assert done.returncode == 1
    assert [bool(row["error"]) for row in runs_of(done.stdout)] == [False, True]
    done = run("--model", f"{tmp_path}/none,{good_folder}", *command)
    assert [bool(row["error"]) for row in runs_of(done.stdout)] == [True, False]


def test_prompt_beyond_the_context(run, tmp_path):
    model = write(tmp_path / "short", lambda weights: None, max_position_embeddings=8)
    done = run("--engine", "cpu", "--model", model, *SMALL, check=True)
    assert "was made for 8 tokens (max_position_embeddings), not for 11" in done.stderr
