"""Every family equals mlx-lm: the same greedy ids and the same logits, whatever the dtype and the quantization."""

import make_checkpoint
import mlx.core as mx
import numpy as np
import pytest
import reference

N = 64
VOCAB = make_checkpoint.COMMON["vocab_size"]
# F32 against F32 differs by the order of sums alone: roundings of 6e-8, which later layers amplify;
# 1e-5 is seen. A wrong constant or mask shows as 1e-2.
F32_TOLERANCE = 1e-4
# Prompt tokens, prefill chunk: one token (no prefill at all), two, a prompt that ends within a
# chunk, and a long one.
PROMPTS = [(1, 256), (2, 1), (2, 256), (17, 1), (17, 7), (17, 256), (300, 1), (300, 7), (300, 256)]


def prompt(n, seed=0):
    """n ids that do not repeat in a simple way."""
    return tuple(np.random.default_rng(seed + n).integers(3, VOCAB, n).tolist())


def assert_same(ours, model, ids, step=256, env=None, **options):
    """The same N ids, and logits within F32_TOLERANCE of their range."""
    found_ids, found = ours(model, ids, N, env=env, prefill_step_size=step, **options)
    wanted_ids, wanted = reference.generate(model, ids, N, prefill_step_size=step)
    assert found.shape == wanted.shape and found.dtype == np.float32
    assert found_ids == wanted_ids
    assert np.abs(found - wanted).max() <= F32_TOLERANCE * np.ptp(wanted)


def assert_near(ours, model, ids):
    """For 16-bit activations. MLX rounds every intermediate to 16 bits, this program may keep more; so the measure
    is how far MLX's own result is from MLX computing in F32 on the same weights: twice that is allowed. Rows are
    compared as long as all three chose the same ids, since later ones answer different questions."""
    found_ids, found = ours(model, ids, N, prefill_step_size=256)
    wanted_ids, wanted = reference.generate(model, ids, N, prefill_step_size=256)
    exact_ids, exact = reference.generate(model, ids, N, prefill_step_size=256, in_float32=True)
    rows = 1
    while rows < N and found_ids[:rows] == wanted_ids[:rows] == exact_ids[:rows]:
        rows += 1
    noise = np.abs(exact[:rows] - wanted[:rows])
    error = np.abs(found[:rows] - wanted[:rows])
    assert 0 < noise.mean() < 0.02 * np.ptp(wanted)
    assert error.max() <= 2 * noise.max()
    assert error.mean() <= 1.5 * noise.mean()


@pytest.mark.parametrize("n, step", PROMPTS)
@pytest.mark.parametrize("name", make_checkpoint.FAMILIES)
def test_prompts_and_chunks(checkpoint, ours, name, n, step):
    assert_same(ours, checkpoint(name), prompt(n), step)


@pytest.mark.parametrize("name", make_checkpoint.CONFIGS)
def test_config_fields(checkpoint, ours, name):
    assert_same(ours, checkpoint(name), prompt(90), 32)


@pytest.mark.parametrize("name", make_checkpoint.CONFIGS)
def test_4_bit(checkpoint, ours, name):
    assert_same(ours, checkpoint(name, quantization=dict(bits=4, group_size=32)), prompt(90))


@pytest.mark.parametrize("name", ["llama", "qwen3_moe"])
@pytest.mark.parametrize("bits, group_size", [(1, 64), (1, 128), (2, 64), (3, 64), (4, 128), (5, 32), (6, 64), (8, 32),
                                              (8, 128)])
def test_bits_and_groups(checkpoint, ours, name, bits, group_size):
    sizes = dict(intermediate_size=256) | (dict(moe_intermediate_size=128) if name == "qwen3_moe" else {})
    assert_same(ours, checkpoint(name, quantization=dict(bits=bits, group_size=group_size), **sizes), prompt(90))


def test_modules_quantized_differently(checkpoint, ours):
    mixed = {"bits": 4, "group_size": 64, "model.embed_tokens": dict(bits=8, group_size=32), "lm_head": False,
             "model.layers.1.self_attn.v_proj": dict(bits=6, group_size=32)}
    assert_same(ours, checkpoint("llama", quantization=mixed), prompt(90))


def test_several_files(tmp_path, ours):
    folder = make_checkpoint.make(tmp_path / "sharded", "llama")
    make_checkpoint.shard(folder, 3)
    assert len(list(folder.glob("model-*.safetensors"))) == 3
    assert_same(ours, folder, prompt(17))


@pytest.mark.parametrize("kernels", ["scalar", "avx2", "avx512"])
@pytest.mark.parametrize("quantization", [None, dict(bits=4, group_size=64)])
def test_each_instruction_set(checkpoint, ours, cpu_flags, kernels, quantization):
    if {"avx512": "avx512dq"}.get(kernels, kernels) not in cpu_flags:
        pytest.skip(f"this processor has no {kernels}")
    assert_same(ours, checkpoint("llama", quantization=quantization), prompt(90), env={"MLXBENCH_CPU": kernels})


@pytest.fixture(scope="module")
def cpu_flags():
    try:
        text = open("/proc/cpuinfo").read()
    except OSError:
        text = ""
    return {"scalar", *text.split()}


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads(checkpoint, ours, threads):
    assert_same(ours, checkpoint("gemma3_text"), prompt(90), threads=threads)


@pytest.mark.parametrize("quantization", [None, dict(bits=4, group_size=64)], ids=["plain", "4-bit"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", make_checkpoint.FAMILIES)
def test_16_bit(checkpoint, ours, name, dtype, quantization):
    if name == "qwen3_moe" and not quantization:
        pytest.skip("no oracle: MLX multiplies unquantized experts on the CPU in F32 only")
    assert_near(ours, checkpoint(name, dtype, quantization), prompt(17))


def test_reference_is_peaked(checkpoint):
    """The oracle's choices must not hang on rounding, or equal ids would say little; nor may it repeat itself."""
    for name in make_checkpoint.FAMILIES:
        ids, logits = reference.generate(checkpoint(name), prompt(17), N, prefill_step_size=256)
        best = np.sort(logits, axis=1)
        assert np.median(best[:, -1] - best[:, -2]) > 0.01 * np.ptp(logits), name
        assert len(set(ids)) >= 8, name
    mx.clear_cache()
