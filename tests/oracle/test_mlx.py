"""The MLX engine follows mlx-lm's operations one by one: on the CPU its logits are the same to the last bit.

So are the ids, for every family, dtype, quantization and KV cache; and it takes no more memory."""

import make_checkpoint
import mlx.core as mx
import numpy as np
import pytest
import reference
from mlx_lm.generate import generate_step
from rows import runs_of
from test_families import F32_TOLERANCE, prompt

N = 16
FOUR_BITS = dict(bits=4, group_size=32)


@pytest.fixture
def assert_same(ours, device):
    def assert_same(model, ids, n=N, **options):
        found_ids, found = ours(model, ids, n, engine="mlx", **options)
        wanted_ids, wanted = reference.generate(model, ids, n, **options)
        assert found_ids == wanted_ids
        if device == "cpu":
            assert np.array_equal(found, wanted)
        else:
            assert np.abs(found - wanted).max() <= F32_TOLERANCE * np.ptp(wanted)

    return assert_same


@pytest.mark.parametrize("quantization", [None, FOUR_BITS], ids=["plain", "4-bit"])
@pytest.mark.parametrize("name", make_checkpoint.CONFIGS)
def test_config_fields(checkpoint, assert_same, name, quantization):
    assert_same(checkpoint(name, quantization=quantization), prompt(90), prefill_step_size=32)


@pytest.mark.parametrize("quantization", [None, FOUR_BITS, dict(bits=8, group_size=64)], ids=["plain", "4-bit", "8-bit"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", make_checkpoint.FAMILIES)
def test_16_bit(checkpoint, assert_same, name, dtype, quantization):
    if name == "qwen3_moe" and not quantization:
        pytest.skip("no oracle: MLX multiplies unquantized experts on the CPU in F32 only")
    assert_same(checkpoint(name, dtype, quantization), prompt(17))


@pytest.mark.parametrize("n, step", [(1, 2048), (2, 2048), (17, 128), (300, 128), (300, 2048)])
@pytest.mark.parametrize("name", make_checkpoint.FAMILIES)
def test_prompts_and_chunks(checkpoint, assert_same, name, n, step):
    assert_same(checkpoint(name, "bfloat16", FOUR_BITS), prompt(n), prefill_step_size=step)


@pytest.mark.parametrize("step", [128, 2048])
@pytest.mark.parametrize("name", make_checkpoint.FAMILIES)
def test_long_prompt(checkpoint, assert_same, name, step):
    assert_same(checkpoint(name), prompt(2100), n=3, prefill_step_size=step)


@pytest.mark.parametrize("step", [128, 2048])
@pytest.mark.parametrize("cache", [dict(max_kv_size=64), dict(kv_bits=4), dict(kv_bits=8, quantized_kv_start=1000)],
                         ids=["rotating", "4-bit", "8-bit-later"])
def test_long_prompt_in_other_caches(checkpoint, assert_same, cache, step):
    assert_same(checkpoint("qwen3", "bfloat16"), prompt(2100), n=3, prefill_step_size=step, **cache)


@pytest.mark.parametrize("scaling", [
    dict(type="yarn", factor=4.0, original_max_position_embeddings=64),
    dict(type="yarn", factor=4.0, original_max_position_embeddings=64, mscale=1.0, mscale_all_dim=0.5),
    dict(type="longrope", original_max_position_embeddings=64, long_factor=[1 + 0.3 * i for i in range(16)],
         short_factor=[1.0] * 16)], ids=["yarn", "yarn-mscale", "longrope"])
def test_rope_variants(checkpoint, assert_same, scaling):
    for dtype in ("float32", "bfloat16"):
        assert_same(checkpoint("llama", dtype, rope_scaling=scaling, rope_theta=10000.0), prompt(90))


@pytest.mark.parametrize("n, step", [(1, 256), (17, 7), (300, 1), (300, 7), (300, 256)])
@pytest.mark.parametrize("size", [5, 64])
@pytest.mark.parametrize("name", ["qwen3", "qwen3_moe"])
def test_rotating(checkpoint, assert_same, name, size, n, step):
    assert_same(checkpoint(name), prompt(n), n=70 if n == 1 else N, prefill_step_size=step, max_kv_size=size)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("start", [0, 20])
@pytest.mark.parametrize("n, step", [(2, 256), (17, 7), (300, 128)])
def test_quantized(checkpoint, assert_same, bits, start, n, step):
    assert_same(checkpoint("qwen3", "bfloat16"), prompt(n), prefill_step_size=step, kv_bits=bits, kv_group_size=64,
                quantized_kv_start=start)


def measured(run, model, n_prompt, n, *options):
    done = run("bench", "--engine", "mlx", "--model", model, "-np", n_prompt, "-n", n, "-r", 1, "--prompt-tokens",
               "random", "-o", "jsonl", *options, check=True)
    return runs_of(done.stdout)[-1]


@pytest.mark.parametrize("name", make_checkpoint.FAMILIES)
def test_peak_memory_is_that_of_mlx_lm(checkpoint, run, device, name):
    folder = checkpoint(name)
    ours = measured(run, folder, 300, 20, "--prefill-step-size", 64)["peak_memory_gb"]
    mx.synchronize()
    reference.load.cache_clear()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    for _ in generate_step(mx.array(prompt(300)), reference.load(folder, False), max_tokens=20, prefill_step_size=64):
        pass
    # When a buffer is free again depends on how far the device is when the host asks: a step or two
    # either way.
    assert ours <= 1.05 * (mx.get_peak_memory() - before) / 1e9


def test_memory_is_flat(checkpoint, run, device):
    folder = checkpoint("qwen3")
    few, many = (measured(run, folder, 8, n, "--max-kv-size", 32, "--warmup", 0)["peak_memory_gb"]
                 for n in (200, 10_000))
    assert many <= 1.02 * few


def test_step_beyond_memory_is_refused(checkpoint, run, device):
    """MLX's CPU backend would end the program."""
    if device != "cpu":
        pytest.skip("attention stores no scores on a GPU")
    done = run("bench", "--engine", "mlx", "--model", checkpoint("llama"), "-np", "8,1000000,9", "-n", 2,
               "--prefill-step-size", 1_000_000, "--prompt-tokens", "random", "-o", "jsonl")
    first, refused, last = runs_of(done.stdout)
    assert done.returncode == 1
    assert "out of memory" in refused["error"] and refused["prompt_tps"] is None
    assert first["prompt_tps"] and last["prompt_tps"]  # the sweep went on, on an engine that still works
