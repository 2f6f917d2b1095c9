"""A decode step with fused CUDA kernels gives the logits of mlx-lm's operations, up to rounding.

The kernels' arithmetic is tested without a GPU, too (tests/cuda); here MLX's CUDA backend compiles and runs them."""

import make_checkpoint
import numpy as np
import pytest
from test_families import prompt

N = 24
# Heads of a size that the attention kernel takes: every family's layers are fused as far as they
# can be.
SIZES = dict(hidden_size=256, head_dim=64)
# Of the logits' range. Both ways round each value to 16 bits, after sums in another order, and
# layers amplify that: on an H100 by up to 0.0143 and 0.0039. A wrong index or constant shows as 0.1
# and more.
TOLERANCE = {"bfloat16": 0.02, "float16": 0.006}


@pytest.fixture(autouse=True)
def fused_kernels(device):
    if not device.startswith("cuda"):
        pytest.skip(f"there are fused kernels for CUDA alone, and the engine mlx computes on: {device}")


def assert_near(found, wanted, tolerance):
    """found, wanted: ids and logits. Rows are compared up to the first that chose another id, which must have been
    all but a tie: later rows answer different questions."""
    (found_ids, found), (wanted_ids, wanted) = found, wanted
    allowed = tolerance * np.ptp(wanted)
    for row, (a, b) in enumerate(zip(found_ids, wanted_ids, strict=True)):
        assert np.isfinite(found[row]).all()
        assert np.abs(found[row] - wanted[row]).max() <= allowed, f"token {row}"
        if a != b:
            assert wanted[row, b] - wanted[row, a] <= 2 * allowed, f"token {row}"
            return


@pytest.fixture
def sized(checkpoint):
    """All experts take part: rounding cannot choose others."""

    def sized(name, dtype, quantization=None):
        experts = make_checkpoint.CONFIGS[name].get("num_experts")
        return checkpoint(name, dtype, quantization, **SIZES, **(dict(num_experts_per_tok=experts) if experts else {}))

    return sized


def both(ours, model, n_prompt, **options):
    """timeout: MLX compiles kernels in every process, and tests run side by side."""
    return [ours(model, prompt(n_prompt), N, engine="mlx", graph=graph, timeout=300, **options)
            for graph in ("fused", "mlx-lm")]


@pytest.mark.parametrize("quantization", [None, dict(bits=4, group_size=32), dict(bits=8, group_size=64)],
                         ids=["plain", "4-bit", "8-bit"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", make_checkpoint.FAMILIES)
def test_families(sized, ours, name, dtype, quantization):
    found, wanted = both(ours, sized(name, dtype, quantization), 17)
    assert_near(found, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("name", make_checkpoint.CONFIGS)
def test_config_fields(sized, ours, name):
    found, wanted = both(ours, sized(name, "float16", dict(bits=4, group_size=32)), 90)
    assert_near(found, wanted, TOLERANCE["float16"])


# No quantized caches: MLX 0.32.4 cannot attend to them on CUDA, with either graph.
@pytest.mark.parametrize("n_prompt, cache", [(1, {}), (250, {}), (1000, {}), (40, dict(max_kv_size=32))],
                         ids=["empty", "growing", "long", "rotating"])
@pytest.mark.parametrize("name", ["qwen2", "qwen3"])
def test_caches(sized, ours, name, n_prompt, cache):
    found, wanted = both(ours, sized(name, "float16"), n_prompt, **cache)
    assert_near(found, wanted, TOLERANCE["float16"])
