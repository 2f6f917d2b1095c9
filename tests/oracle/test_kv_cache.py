"""Each kind of KV cache equals mlx-lm's, and what mlx-lm refuses is refused with its reason."""

import numpy as np
import pytest
import reference
from test_families import F32_TOLERANCE, N, prompt

# Families whose caches mlx-lm lets the user choose: the others have make_cache, and --max-kv-size
# does nothing.
CHOOSABLE = ["qwen2", "qwen3", "qwen3_moe"]
# A last-bit difference may round an element to the next step, or, where MLX fits a group's scale to
# its largest element, change the whole group. Fewer bits have larger steps but fewer borders; 2e-2
# is seen, a wrong cache gives 0.3.
QUANTIZED_TOLERANCE = 4e-2


def assert_same(ours, model, ids, tolerance=F32_TOLERANCE, **options):
    found_ids, found = ours(model, ids, N, **options)
    wanted_ids, wanted = reference.generate(model, ids, N, **options)
    assert found_ids == wanted_ids
    assert np.abs(found - wanted).max() <= tolerance * np.ptp(wanted)


def assert_near(ours, model, ids, **options):
    """As assert_same, for caches of few bits: a choice may differ where mlx-lm's two best are within the tolerance.
    What follows such a tie answers another question and is not compared."""
    found_ids, found = ours(model, ids, N, **options)
    wanted_ids, wanted = reference.generate(model, ids, N, **options)
    tolerance = QUANTIZED_TOLERANCE * np.ptp(wanted)
    rows = next((i for i in range(N) if found_ids[i] != wanted_ids[i]), N)
    if rows < N:
        assert wanted[rows][wanted_ids[rows]] - wanted[rows][found_ids[rows]] <= tolerance
    assert rows >= 8
    assert np.abs(found - wanted)[:rows + 1].max() <= tolerance


@pytest.mark.parametrize("n, step", [(1, 256), (17, 7), (300, 1), (300, 7), (300, 256)])
@pytest.mark.parametrize("size", [5, 24, 64])
@pytest.mark.parametrize("name", CHOOSABLE)
def test_rotating(checkpoint, ours, name, size, n, step):
    assert_same(ours, checkpoint(name), prompt(n), prefill_step_size=step, max_kv_size=size)


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_own_caches_ignore_max_kv_size(checkpoint, ours, name):
    model, ids = checkpoint(name), prompt(40)
    assert_same(ours, model, ids, prefill_step_size=16, max_kv_size=8)
    found = ours(model, ids, N, prefill_step_size=16)[1]
    assert np.array_equal(found, ours(model, ids, N, prefill_step_size=16, max_kv_size=8)[1])


@pytest.mark.parametrize("start", [0, 20])
@pytest.mark.parametrize("n, step", [(2, 256), (17, 7), (300, 256)])
@pytest.mark.parametrize("name, group_size", [("llama_tied", 64), ("llama_tied", 32), ("qwen3", 64),
                                              ("qwen3_moe", 32)])
def test_8_bits(checkpoint, ours, name, group_size, n, step, start):
    assert_same(ours, checkpoint(name), prompt(n), tolerance=QUANTIZED_TOLERANCE, prefill_step_size=step,
                kv_bits=8, kv_group_size=group_size, quantized_kv_start=start)


@pytest.mark.parametrize("start", [0, 20])
@pytest.mark.parametrize("n, step", [(2, 256), (17, 7), (300, 256)])
# Not qwen3_moe: a step of 4 bits can choose another expert, whose answer is far away.
@pytest.mark.parametrize("name", ["llama_tied", "qwen3"])
def test_4_bits(checkpoint, ours, name, n, step, start):
    assert_near(ours, checkpoint(name), prompt(n), prefill_step_size=step, kv_bits=4, kv_group_size=32,
                quantized_kv_start=start)


@pytest.mark.parametrize("bits", [2, 3, 5, 6])
def test_other_widths(checkpoint, ours, bits):
    assert_near(ours, checkpoint("qwen3"), prompt(40), prefill_step_size=16, kv_bits=bits, kv_group_size=64,
                quantized_kv_start=0)


def refused(run, model, *options):
    done = run("generate", "--model", model, "--prompt-ids", "1,2,3", "--ids", *options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_rotating_cannot_be_quantized(checkpoint, run):
    assert "rotating" in refused(run, checkpoint("qwen3"), "--max-kv-size", 64, "--kv-bits", 8).lower()
    assert "window" in refused(run, checkpoint("gemma3_text"), "--kv-bits", 8, "--kv-group-size", 32).lower()


def test_group_must_divide_head_dim(checkpoint, run):
    message = refused(run, checkpoint("qwen3_moe"), "--kv-bits", 8, "--kv-group-size", 64)
    assert "64" in message and "32" in message


def test_width_that_mlx_does_not_have(checkpoint, run):
    assert "7" in refused(run, checkpoint("qwen3"), "--kv-bits", 7)
