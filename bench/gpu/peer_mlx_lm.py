"""mlx-lm on random weights of a model's shapes, made on the device: CONFIG.json BITS N_NEW REPEATS N_PROMPT... -> a JSON line
per run, measured as mlxbench measures. BITS 0 keeps bfloat16; the router of experts has 8, as mlx-lm has it."""

import json
import sys
import time

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.generate import generate_step
from mlx_lm.utils import _get_classes


def make_model(config, bits):
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    model.set_dtype(mx.bfloat16)
    predicate = getattr(model, "quant_predicate", None)
    if bits:
        nn.quantize(model, 64, bits, class_predicate=lambda path, module: hasattr(module, "to_quantized")
                    and (predicate(path, module) if predicate else True))
    mx.eval(model.parameters())
    return model


def measure(model, n_vocab, n_prompt, n_new):
    mx.reset_peak_memory()
    prompt = mx.array(np.random.default_rng(0).integers(0, n_vocab, n_prompt))
    times = [time.perf_counter()]
    for _ in generate_step(prompt, model, max_tokens=n_new):
        times.append(time.perf_counter())
    return dict(n_prompt=n_prompt, prompt_tps=n_prompt / (times[1] - times[0]),
                generation_tps=(n_new - 1) / (times[-1] - times[1]), peak_memory_gb=mx.get_peak_memory() / 1e9)


def main():
    config = json.load(open(sys.argv[1]))
    bits, n_new, repeats, *prompts = map(int, sys.argv[2:])
    model = make_model(config, bits)
    for n_prompt in prompts:
        measure(model, config["vocab_size"], n_prompt, n_new)
        for _ in range(repeats):
            print(json.dumps(measure(model, config["vocab_size"], n_prompt, n_new)), flush=True)


main()
