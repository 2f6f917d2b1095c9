"""One measurement of llama.cpp: GGUF PROMPT_TOKENS NEW_TOKENS THREADS FLASH_ATTENTION (1 or 0) -> a JSON line.

Measured as mlxbench measures: an untimed run first, of at most 512 prompt tokens; prompt_tps is prompt tokens by the time to the first new token,
generation_tps the other new tokens by the time they took; greedy, one token at a time.
"""

import ctypes
import json
import sys
import time

import llama_cpp
import numpy as np


def decode(context, n_vocab, tokens):
    """The next token after these."""
    array = (llama_cpp.llama_token * len(tokens))(*tokens)  # the batch only points to it
    if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(tokens))) != 0:
        sys.exit("llama_decode failed")
    logits = llama_cpp.llama_get_logits_ith(context, -1)
    return int(np.ctypeslib.as_array(logits, shape=(n_vocab,)).argmax())


def measure(model, n_prompt, n_new, threads, flash_attention):
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = n_prompt + n_new
    options.n_batch = 2048
    options.n_threads = options.n_threads_batch = threads
    options.flash_attn_type = flash_attention
    context = llama_cpp.llama_init_from_model(model, options)
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    prompt = np.random.default_rng(0).integers(3, n_vocab, n_prompt).tolist()
    start = time.perf_counter()
    for i in range(0, n_prompt, 2048):
        token = decode(context, n_vocab, prompt[i:i + 2048])
    first = time.perf_counter()
    for _ in range(n_new - 1):
        token = decode(context, n_vocab, [token])
    end = time.perf_counter()
    llama_cpp.llama_free(context)
    return dict(prompt_tps=n_prompt / (first - start), generation_tps=(n_new - 1) / (end - first))


def main():
    path, (n_prompt, n_new, threads, flash_attention) = sys.argv[1], map(int, sys.argv[2:6])
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    if not model:
        sys.exit(f"llama.cpp cannot load {path}")
    measure(model, min(n_prompt, 512), min(n_new, 16), threads, flash_attention)
    print(json.dumps(measure(model, n_prompt, n_new, threads, flash_attention)))


main()
