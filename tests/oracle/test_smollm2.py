"""A real model end to end: SmolLM2-135M-Instruct gives mlx-lm's ids and text, from a folder and from a GGUF file."""

import numpy as np
import pytest
import reference
import smollm2_to_mlx
from tokenizers import Tokenizer

N = 64
PROMPT = "<|im_start|>user\nWhat is the capital of France? Answer briefly.<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def folder(demo_model, tmp_path_factory):
    return smollm2_to_mlx.convert(demo_model, tmp_path_factory.mktemp("smollm2"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def prompt(tokenizer):
    return tuple(tokenizer.encode(PROMPT).ids)


@pytest.mark.parametrize("source", ["folder", "gguf"])
def test_same_ids_and_logits(source, folder, demo_model, prompt, ours):
    found_ids, found = ours(folder if source == "folder" else demo_model, prompt, N)
    wanted_ids, wanted = reference.generate(folder, prompt, N)
    assert found_ids == wanted_ids
    # 30 layers of F32 sums in another order; and keys and values that the GGUF file's caches keep
    # in F16.
    assert np.abs(found - wanted).max() <= (1e-4 if source == "folder" else 1e-3) * np.ptp(wanted)


@pytest.mark.parametrize("source", ["folder", "gguf"])
def test_same_on_mlx(source, folder, demo_model, prompt, ours, device):
    """A few tokens, since MLX's CPU backend is slow. The folder has F32 scales and gives mlx-lm's bits there; the
    GGUF file's are F16, and so are its caches."""
    n = 8
    found_ids, found = ours(folder if source == "folder" else demo_model, prompt, n, engine="mlx")
    wanted_ids, wanted = (x[:n] for x in reference.generate(folder, prompt, N))
    assert found_ids == wanted_ids
    if source == "folder" and device == "cpu":
        assert np.array_equal(found, wanted)
    else:
        assert np.abs(found - wanted).max() <= (1e-4 if source == "folder" else 2e-3) * np.ptp(wanted)


@pytest.mark.parametrize("source", ["folder", "gguf"])
def test_text_in_text_out(source, folder, demo_model, tokenizer, prompt, run):
    done = run("generate", "--model", folder if source == "folder" else demo_model, "--prompt", PROMPT,
               "--max-tokens", 7, check=True)
    wanted = tokenizer.decode(reference.generate(folder, prompt, N)[0][:7])
    assert wanted == "The capital of France is Paris."
    assert done.stdout.strip() == wanted


def test_stops_at_the_end_of_the_answer(folder, prompt, run):
    done = run("generate", "--model", folder, "--prompt-ids", ",".join(map(str, prompt)), "--ids", "--max-tokens", N,
               check=True)
    found = [int(word) for word in done.stdout.split()]
    wanted = reference.generate(folder, prompt, N)[0]
    end = wanted.index(2)
    assert found in (wanted[:end], wanted[:end + 1])
