"""Memory does not grow with the number of generated tokens, except by the KV cache."""

import pytest

import files
from rows import runs_of

LAYERS, HEADS = files.CONFIG["num_hidden_layers"], files.CONFIG["num_key_value_heads"]
KV_BYTES_PER_TOKEN = LAYERS * 2 * HEADS * files.CONFIG["head_dim"] * 4


def measure(run, model, n):
    """The last row after two runs of n tokens each: what is not given back would show twice."""
    done = run("bench", "--model", model, "-np", 16, "-n", n, "-r", 2, "--prompt-tokens", "random", "-o", "jsonl",
               check=True)
    return runs_of(done.stdout)[-1]


def test_active_memory_is_flat(run, good_folder):
    short, long = measure(run, good_folder, 200), measure(run, good_folder, 1200)
    # A cache may grow in steps, keep room for the next one, and hold two copies while it moves.
    growth = (1000 + 512) * KV_BYTES_PER_TOKEN
    assert long["scratch_gb"] == short["scratch_gb"]
    assert (long["peak_memory_gb"] - short["peak_memory_gb"]) * 1e9 <= 2.5 * growth
    assert (long["kv_gb"] - short["kv_gb"]) * 1e9 <= growth


def test_resident_memory_is_flat(run, good_folder, mlxbench):
    if b"__asan_init" in mlxbench.read_bytes():
        pytest.skip("the address sanitizer keeps what is freed, so that resident memory grows")
    short, long = measure(run, good_folder, 200), measure(run, good_folder, 1200)
    # The rest are a timestamp and an id per token, and pages of the allocator.
    assert (long["peak_rss_gb"] - short["peak_rss_gb"]) * 1e9 <= 2.5 * 1512 * KV_BYTES_PER_TOKEN + 2e6
