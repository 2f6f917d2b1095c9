"""Logits of a given text, as bench/perplexity.py asks for them: mlx-lm's, token by token."""

import mlx.core as mx
import numpy as np
import pytest
import reference

TEXT = (5, 17, 3, 99, 42, 42, 7, 64, 8)


@pytest.mark.parametrize("n_prompt", [1, 4])
def test_logits_of_a_text(checkpoint, ours, n_prompt):
    folder = checkpoint("llama")
    ids, found = ours(folder, TEXT[:n_prompt], 100, follow_ids=",".join(map(str, TEXT[n_prompt:])))
    wanted = np.array(reference.load(folder, False)(mx.array(TEXT)[None])[0])[n_prompt - 1:]
    assert np.abs(found - wanted).max() <= 1e-4 * np.ptp(wanted)
    assert ids == wanted.argmax(-1).tolist()
