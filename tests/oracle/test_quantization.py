"""Weights of every kind but affine equal mlx-lm's on both engines: the same ids, the same logits."""

import numpy as np
import pytest
import reference
from test_families import assert_near, assert_same, prompt

MODES = {"mxfp4": dict(bits=4, group_size=32, mode="mxfp4"), "mxfp8": dict(bits=8, group_size=32, mode="mxfp8"),
         "nvfp4": dict(bits=4, group_size=16, mode="nvfp4")}
NAMES = ["llama", "llama_tied", "llama_biases", "qwen3_moe"]


def assert_same_on_mlx(ours, device, model, n=16):
    found_ids, found = ours(model, prompt(90), n, engine="mlx", prefill_step_size=32)
    wanted_ids, wanted = reference.generate(model, prompt(90), n, prefill_step_size=32)
    assert found_ids == wanted_ids
    if device == "cpu":
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_f32(checkpoint, ours, name, mode):
    assert_same(ours, checkpoint(name, quantization=MODES[mode]), prompt(90), 32)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["llama", "qwen3_moe"])
def test_bf16(checkpoint, ours, name, mode):
    # a seed with which rounding does not change the experts of the first tokens
    assert_near(ours, checkpoint(name, "bfloat16", quantization=MODES[mode], seed=4), prompt(17))


@pytest.mark.parametrize("mode", MODES)
def test_f16_norms_make_f32_activations(checkpoint, ours, mode):
    """Since these kinds' embedding is BF16 in MLX, and norms of F16 promote it."""
    assert_same(ours, checkpoint("llama", "float16", quantization=MODES[mode]), prompt(17))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", [*NAMES, "gemma3_text"])  # Gemma multiplies MLX's BF16 embedding in BF16, never in F32
def test_mlx(checkpoint, ours, device, name, dtype, mode):
    assert_same_on_mlx(ours, device, checkpoint(name, dtype, quantization=MODES[mode]))


def test_each_module_has_its_own(checkpoint, ours, device):
    mixed = dict(MODES["mxfp4"]) | {"model.embed_tokens": MODES["mxfp8"], "lm_head": False,
                                    "model.layers.1.self_attn.v_proj": dict(bits=6, group_size=64),
                                    "model.layers.0.mlp.down_proj": MODES["nvfp4"]}
    model = checkpoint("llama", quantization=mixed)
    assert_same(ours, model, prompt(90))
    assert_same_on_mlx(ours, device, model)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernels", ["scalar", "avx2", "avx512", "avx512vnni"])
def test_each_instruction_set(checkpoint, ours, run, kernels, mode):
    model = checkpoint("llama", quantization=MODES[mode])
    if "cannot run" in run("generate", "--model", model, "--prompt-ids", "1", "--max-tokens", 1, "--engine", "cpu",
                           env={"MLXBENCH_CPU": kernels}).stderr:
        pytest.skip(f"this processor has no {kernels}")
    assert_same(ours, model, prompt(17), env={"MLXBENCH_CPU": kernels})


@pytest.mark.parametrize("kernels", ["scalar", "avx2", "avx512", "avx512vnni"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_bit(checkpoint, ours, run, kernels, dtype):
    model = checkpoint("llama", dtype, quantization=dict(bits=1, group_size=32))
    env = {"MLXBENCH_CPU": kernels}
    if "cannot run" in run("generate", "--model", model, "--prompt-ids", "1", "--max-tokens", 1, "--engine", "cpu",
                           env=env).stderr:
        pytest.skip(f"this processor has no {kernels}")
    if dtype == "float32":
        assert_same(ours, model, prompt(17), env=env)
        return
    found_ids, found = ours(model, prompt(17), 4, env=env)
    wanted_ids, wanted = reference.generate(model, prompt(17), 4, in_float32=True)
    assert found_ids == wanted_ids and np.abs(found - wanted).max() <= 1e-2 * np.ptp(wanted)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_bit_on_mlx(checkpoint, ours, device, dtype):
    assert_same_on_mlx(ours, device, checkpoint("llama", dtype, quantization=dict(bits=1, group_size=32)))


def test_rows_name_the_kind(checkpoint, run):
    model = checkpoint("llama", quantization=MODES["mxfp4"])
    done = run("bench", "--model", model, "--engine", "cpu", "--prompt-tokens", "random", "-np", 4, "-n", 2, "-o",
               "csv", check=True)
    assert ",mxfp4," in done.stdout
