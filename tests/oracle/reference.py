"""mlx-lm's answer: the new ids of greedy generation and the logits they were chosen from."""

import functools

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model

# Its results are the same bit for bit, and without it MLX starts a C++ compiler for every fused
# expression.
mx.disable_compile()


@functools.lru_cache(maxsize=4)
def load(folder, in_float32):
    model = load_model(folder)[0]
    if in_float32:
        model.set_dtype(mx.float32)
    return model


@functools.lru_cache(maxsize=None)
def generate(folder, prompt, n, prefill_step_size=2048, max_kv_size=None, kv_bits=None, kv_group_size=64,
             quantized_kv_start=0, in_float32=False):
    """n new ids, and float32 logits [n, vocab]. prompt: a tuple of ids. in_float32: compute in F32, whatever the
    checkpoint's dtype."""
    rows = []

    def keep(_, logits):
        rows.append(logits)
        return logits

    steps = generate_step(mx.array(prompt), load(folder, in_float32), max_tokens=n, logits_processors=[keep],
                          prefill_step_size=prefill_step_size, max_kv_size=max_kv_size, kv_bits=kv_bits,
                          kv_group_size=kv_group_size, quantized_kv_start=quantized_kv_start)
    ids = [token for token, _ in steps]
    logits = mx.concatenate(rows[:n]).astype(mx.float32)
    return ids, np.array(logits)
