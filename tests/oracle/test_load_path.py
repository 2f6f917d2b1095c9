"""Folders as they are published: what is read, what is left out with a note, and what is no model at all."""

import json
import pathlib
import shutil

import make_checkpoint
import mlx.core as mx
import numpy as np
import pytest
import reference

PROMPT = (5, 9, 40, 3)
N = 8


@pytest.fixture
def folder(checkpoint, tmp_path):
    """folder(name) -> a copy of the checkpoint that a test may change."""

    def folder(name="llama", **changes):
        return pathlib.Path(shutil.copytree(checkpoint(name, **changes), tmp_path / "model"))

    return folder


def generate(run, model, check=True):
    return run("generate", "--model", model, "--prompt-ids", ",".join(map(str, PROMPT)), "--ids", "--max-tokens", N,
               "--ignore-eos", check=check)


def ids(done):
    return [int(word) for word in done.stdout.split()]


def change_config(model, **fields):
    config = json.loads((model / "config.json").read_text()) | fields
    (model / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value != "gone"}))


def rewrite(model, change):
    weights = mx.load(str(model / "model.safetensors"))
    mx.eval(weights)
    mx.save_safetensors(str(model / "model.safetensors"), change(weights), metadata={"format": "mlx"})


def test_stale_index(run, folder):
    model = folder()
    wanted = ids(generate(run, model))
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    done = generate(run, model)
    assert ids(done) == wanted and "model.safetensors is read instead" in done.stderr


def test_only_the_files_of_the_index(run, folder):
    model = folder()
    wanted = ids(generate(run, model))
    shutil.copy(model / "model.safetensors", model / "stray")
    make_checkpoint.shard(model, 2)
    (model / "stray").rename(model / "model.safetensors")
    done = generate(run, model)
    assert ids(done) == wanted and "model.safetensors was left out" in done.stderr


def test_names_that_do_not_begin_with_model(run, folder):
    model = folder()
    wanted = ids(generate(run, model))
    (model / "model.safetensors").rename(model / "weights.safetensors")
    index = {"weight_map": {"model.norm.weight": "weights.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert ids(generate(run, model)) == wanted


def test_a_missing_shard(run, folder):
    model = folder()
    make_checkpoint.shard(model, 2)
    (model / "model-00002-of-00002.safetensors").unlink()
    done = generate(run, model, check=False)
    assert done.returncode == 1 and "model-00002-of-00002.safetensors is missing" in done.stderr


def test_layers_that_predict_further_tokens(run, folder):
    model = folder()
    wanted = ids(generate(run, model))
    mx.save_safetensors(str(model / "model_mtp.safetensors"), {"mtp.a": mx.zeros(3)})
    done = generate(run, model)
    assert ids(done) == wanted and "model_mtp.safetensors was left out" in done.stderr


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), {"__float__": "Infinity"}])
def test_numbers_that_are_not_finite(run, folder, value):
    model = folder()
    wanted = ids(generate(run, model))
    change_config(model, time_step_limit=[0.0, value])
    assert ids(generate(run, model)) == wanted


@pytest.mark.parametrize("name", ["llama_tied", "llama", "qwen2", "qwen3_moe"])
def test_rope_parameters(run, folder, name):
    """What transformers 5 writes gives the ids of the old form, although mlx-lm's classes ignore it."""
    model = folder(name)
    wanted = ids(generate(run, model))
    config = json.loads((model / "config.json").read_text())
    parameters = dict(config.get("rope_scaling") or {"rope_type": "default"}, rope_theta=config["rope_theta"])
    change_config(model, rope_theta="gone", rope_scaling="gone", rope_parameters=parameters)
    done = generate(run, model)
    assert ids(done) == wanted and "rope_parameters was read, which mlx-lm ignores" in done.stderr


def test_layer_types_before_the_pattern(run, folder):
    model = folder("gemma3_text")
    wanted = ids(generate(run, model))
    config = json.loads((model / "config.json").read_text())
    pattern, n = config["sliding_window_pattern"], config["num_hidden_layers"]
    types = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(n)]
    change_config(model, sliding_window_pattern=pattern + 1, layer_types=types)
    assert ids(generate(run, model)) == wanted


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model.", "language_model."])
def test_wrapper(run, folder, prefix):
    """A vision model's text model runs, whatever it is called and however large the rest is."""
    model = folder("gemma3_text")
    wanted = ids(generate(run, model))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(
        {"model_type": "gemma3", "vocab_size": config["vocab_size"], "text_config": config}))

    def wrap(weights):
        wrapped = {prefix + name.removeprefix("model."): value for name, value in weights.items()}
        wrapped["vision_tower.patch.weight"] = mx.zeros((2, 3, 1, 2, 2))
        return wrapped | {"model.multi_modal_projector.weight": mx.zeros(4)}

    if prefix == "language_model.":
        wrap = (lambda inner: lambda weights: {
            name.replace("language_model.", "language_model.model.", 1): value
            for name, value in inner(weights).items()})(wrap)
    rewrite(model, wrap)
    done = generate(run, model)
    assert ids(done) == wanted and "2 tensors" in done.stderr


@pytest.mark.parametrize("engine", ["cpu", "mlx"])
def test_two_types_of_floats(run, folder, engine):
    """F16 weights with BF16 norms make F32 activations and caches, as MLX promotes."""
    model = folder(dtype="float16")
    rewrite(model, lambda weights: {name: value.astype(mx.bfloat16) if "norm" in name else value
                                    for name, value in weights.items()})
    wanted, logits = reference.generate(model, PROMPT, N)
    done = run("generate", "--model", model, "--prompt-ids", ",".join(map(str, PROMPT)), "--ids", "--max-tokens", N,
               "--ignore-eos", "--engine", engine, check=True)
    assert np.isfinite(logits).all() and ids(done) == wanted


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content, word", [
    ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "Git LFS pointer"),
    ("\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "HTML page"),
])
def test_no_model_at_all(run, folder, file, content, word):
    model = folder()
    (model / file).write_text(content)
    done = generate(run, model, check=False)
    assert done.returncode == 1 and word in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["{", '{"eos_token_id": 0}', '{"eos_token_id": []}', '{"eos_token_id": null}'])
def test_generation_config_that_says_nothing(run, folder, text):
    model = folder()
    first = ids(generate(run, model))[1]
    change_config(model, eos_token_id=[first, 300])
    (model / "generation_config.json").write_text(text)
    done = run("generate", "--model", model, "--prompt-ids", ",".join(map(str, PROMPT)), "--ids", "--max-tokens", N,
               check=True)
    assert len(ids(done)) <= 2
