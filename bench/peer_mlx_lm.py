"""One measurement of mlx-lm: FOLDER PROMPT_TOKENS NEW_TOKENS -> a JSON line, measured as mlxbench measures."""

import json
import pathlib
import sys
import time

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model


def measure(model, n_vocab, n_prompt, n_new):
    prompt = mx.array(np.random.default_rng(0).integers(3, n_vocab, n_prompt))
    times = [time.perf_counter()]
    for _ in generate_step(prompt, model, max_tokens=n_new):
        times.append(time.perf_counter())
    return dict(prompt_tps=n_prompt / (times[1] - times[0]), generation_tps=(n_new - 1) / (times[-1] - times[1]))


def main():
    n_prompt, n_new = map(int, sys.argv[2:4])
    model, config = load_model(pathlib.Path(sys.argv[1]))
    measure(model, config["vocab_size"], n_prompt, n_new)
    print(json.dumps(measure(model, config["vocab_size"], n_prompt, n_new)))


main()
