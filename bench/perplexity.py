"""What rounding costs: SmolLM2's logits on a fixed text, ours and llama.cpp's, against F32.

The reference is mlx-lm computing in F32 with the same weights, dequantized. Each program is given the text's tokens one
by one, so that every logit comes from its kernels for single tokens; "prefill" takes the last logits of some prefixes
instead. text.txt follows the beginning of Lewis Carroll's "Alice's Adventures in Wonderland" (1865), in the public
domain; it was typed from memory.
"""

import argparse
import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile

import mlx.core as mx
import numpy as np
from mlx_lm.utils import dequantize_model, load_model

import report

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests" / "oracle"))
import smollm2_to_mlx  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"), help="SmolLM2's GGUF file")
    parser.add_argument("--mlxbench", default=str(ROOT / "build" / "mlxbench"), help="the program")
    parser.add_argument("--prefixes", type=int, default=12, help="prefixes of the text that are prefilled")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    return parser.parse_args()


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def reference(folder, tokens):
    mx.disable_compile()
    model = load_model(folder)[0]
    model.set_dtype(mx.float32)
    model = dequantize_model(model)
    rows = model(mx.array(tokens)[None])[0]
    assert rows.dtype == mx.float32
    return np.array(rows)


def ours(options, model, tokens, activations):
    """Logits after each token, from single steps."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        run(options, model, tokens[:1], activations, file.name, "--follow-ids", ",".join(map(str, tokens[1:])),
            "-n", str(len(tokens)))
        return np.load(file.name)


def ours_prefilled(options, model, tokens, activations, lengths):
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        rows = []
        for n in lengths:
            run(options, model, tokens[:n], activations, file.name, "-n", "1")
            rows.append(np.load(file.name)[0])
        return np.array(rows)


def run(options, model, tokens, activations, logits, *more):
    subprocess.run([options.mlxbench, "generate", "--model", model, "--engine", "cpu", "--activations", activations,
                    "--prompt-ids", ",".join(map(str, tokens)), "--ids", "--ignore-eos", "--logits", logits, *more],
                   check=True, stdout=subprocess.DEVNULL)


def llama_cpp_logits(path, tokens):
    import llama_cpp
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_threads = len(tokens), os.cpu_count()
    params.flash_attn_type = 0  # slow for single tokens
    context, rows = llama_cpp.llama_init_from_model(model, params), []
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    for token in tokens:
        one = (llama_cpp.llama_token * 1)(token)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(one, 1)) != 0:
            sys.exit("llama_decode failed")
        rows.append(np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), shape=(n_vocab,)).copy())
    return np.array(rows)


def divergence(wanted, found):
    """Mean KL divergence of rows of logits. Row by row: all at once is gigabytes in float64."""
    def one(w, f):
        return (np.exp(w) * (w - f)).sum()
    return np.mean([one(log_softmax(w), log_softmax(f)) for w, f in zip(wanted, found)])


def perplexity(logits, tokens):
    return np.exp(-np.mean([log_softmax(row)[token] for row, token in zip(logits, tokens[1:])]))


def compare(wanted, found, tokens):
    """Cells of the table: perplexity, its change, and the mean KL divergence."""
    ours, theirs = perplexity(found, tokens), perplexity(wanted, tokens)
    return [f"{ours:.4f}", f"{100 * (ours / theirs - 1):+.4f} %", f"{divergence(wanted, found):.2e}"]


def rows_of(options, name, model, folder, tokens):
    """Rows of the table for one checkpoint: name, model as ours reads it, folder as mlx-lm reads it."""
    wanted = reference(folder, tokens)
    yield [name, "mlx-lm in F32", f"{perplexity(wanted, tokens):.4f}", "", "", ""]
    lengths = np.linspace(64, len(tokens), options.prefixes).astype(int).tolist()
    for activations in ["exact", "int8"]:
        found = ours(options, model, tokens, activations)
        prefilled = ours_prefilled(options, model, tokens, activations, lengths)
        kl = divergence(wanted[np.array(lengths) - 1], prefilled)
        yield [name, f"mlxbench {activations}", *compare(wanted, found, tokens), f"{kl:.2e}"]
    if pathlib.Path(model).is_file():
        yield [name, "llama.cpp", *compare(wanted, llama_cpp_logits(model, tokens), tokens), ""]


def main():
    options = arguments()
    with tempfile.TemporaryDirectory() as place:
        folders = {dtype: smollm2_to_mlx.convert(options.model, pathlib.Path(place) / dtype, dtype)
                   for dtype in ["float16", "bfloat16"]}
        from tokenizers import Tokenizer
        tokens = Tokenizer.from_file(str(folders["float16"] / "tokenizer.json")).encode((HERE / "text.txt").read_text()).ids
        lines = [f"SmolLM2-135M-Instruct on {len(tokens)} tokens; KL divergence in nats, mean over the tokens.", "",
                 "| weights | program | perplexity | change | KL divergence | KL of the prefill |", "|---|---|--:|--:|--:|--:|"]
        for name, model, folder in [("Q4_1 file (F16)", options.model, folders["float16"]),
                                    ("the same with BF16 scales", folders["bfloat16"], folders["bfloat16"])]:
            for row in rows_of(options, name, model, folder, tokens):
                lines.append(f"| {' | '.join(row)} |")
                print(lines[-1], file=sys.stderr, flush=True)
    text = "\n".join(lines)
    print(text)
    if options.write:
        report.write(ROOT / "docs", "perplexity", text)


main()
