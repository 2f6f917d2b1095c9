"""Fixtures of the tests that compare with mlx-lm: checkpoints made once, and the program's ids and logits."""

import json

import make_checkpoint
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import afm7


def quantized(self, group_size=64, bits=4, mode="affine", original=afm7.FusedLinear.to_quantized):
    assert mode == "affine"
    return original(self, group_size, bits)


# mlx-lm 0.32.2 can neither quantize this class nor load it quantized: MLX hands on a mode, which it
# does not take.
afm7.FusedLinear.to_quantized = quantized


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """checkpoint(name, dtype, quantization, **changes) -> folder; the same request gives the same folder."""
    root = tmp_path_factory.mktemp("checkpoints")
    made = {}

    def checkpoint(name, dtype="float32", quantization=None, **changes):
        key = repr((name, dtype, quantization, changes))
        if key not in made:
            made[key] = make_checkpoint.make(root / f"{len(made)}-{name}", name, dtype, quantization, **changes)
        return made[key]

    return checkpoint


@pytest.fixture(scope="session")
def device(run):
    """What the engine mlx computes on: "cpu", or a GPU, where kernels are fused and the last bits may differ."""
    engines = json.loads(run("hwinfo", "--json", check=True).stdout)["engines"]
    mlx = next(engine for engine in engines if engine["name"] == "mlx")
    if "missing" in mlx:
        pytest.skip(mlx["missing"])
    assert mlx["version"] == mx.__version__
    return mlx["device"]


@pytest.fixture
def ours(run, tmp_path):
    """ours(model, prompt, n, option=value...) -> (ids, logits [n, vocab]) of `mlxbench generate`."""

    def ours(model, prompt, n, env=None, timeout=120, **options):
        file = tmp_path / "logits.npy"
        arguments = [part for name, value in options.items() if value is not None
                     for part in ("--" + name.replace("_", "-"), value)]
        done = run("generate", "--model", model, "--prompt-ids", ",".join(map(str, prompt)), "--ids",
                   "--max-tokens", n, "--ignore-eos", "--logits", file, *arguments, env=env, check=True,
                   timeout=timeout)
        return [int(word) for word in done.stdout.split()], np.load(file)

    return ours
