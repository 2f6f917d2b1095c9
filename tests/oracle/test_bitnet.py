"""Ternary weights as BitNet's are published. mlx-lm multiplies them with a kernel for Metal alone, so here its classes
run with a plain product of NumPy's in that kernel's place."""

import importlib
import json

import make_checkpoint
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model
from test_families import prompt

CONFIG = dict(make_checkpoint.COMMON, model_type="bitnet", hidden_size=128, intermediate_size=256,
              tie_word_embeddings=True, rope_theta=500000.0)
N = 24


def product(layer, x, packed):
    """What mlx-lm's BitLinear computes: codes 0, 1, 2 are -1, 0, 1; row r + j out / 4 is in bits 2 j of row r."""
    codes = np.concatenate([np.array(packed) >> 2 * j & 3 for j in range(4)]).astype(np.float32) - 1
    scale = np.array(layer.weight_scale.astype(mx.float32))[0]
    scale = 1 / scale if layer.invert_weight_scales else scale
    out = np.array(x.astype(mx.float32)) @ codes.T * scale
    return mx.array(out).astype(layer.weight_scale.dtype)


@pytest.fixture(scope="module", autouse=True)
def without_metal():
    patch = pytest.MonkeyPatch()
    patch.setattr(mx.fast, "metal_kernel", lambda **_: None)
    layers = importlib.import_module("mlx_lm.models.bitlinear_layers")
    patch.setattr(layers.BitLinear, "execute_matmul_kernel", product)
    yield
    patch.undo()


def parameters(shapes, dtype, rng):
    """Random ones that make peaked logits."""
    for path, old in shapes:
        if old.dtype == mx.uint8:
            codes = rng.choice(3, (4, *old.shape), p=[0.3, 0.4, 0.3]).astype(np.uint8)
            yield path, mx.array(sum(codes[j] << 2 * j for j in range(4)).astype(np.uint8))
        elif path.endswith("weight_scale"):
            yield path, mx.array([rng.uniform(0.15, 0.3)]).astype(dtype)
        elif "norm" in path:
            yield path, mx.array(1 + 0.2 * rng.normal(size=old.shape)).astype(dtype)
        else:
            yield path, mx.array(rng.normal(size=old.shape)).astype(dtype)


def make(folder, dtype, seed, **config):
    model = importlib.import_module("mlx_lm.utils")._get_classes(config)
    model = model[0](model[1].from_dict(config))
    if config["model_type"] != "bitnet":
        importlib.import_module("mlx_lm.models.bitlinear_layers").bitnet_quantize(model, config["quantization_config"])
    weights = dict(parameters(tree_flatten(model.parameters()), dtype, np.random.default_rng(seed)))
    if "divided" in str(folder):
        weights = {name: 1 / w if name.endswith("weight_scale") else w for name, w in weights.items()}
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def generate(folder, in_float32=False):
    rows = []
    model = load_model(folder)[0]
    if in_float32:
        model.set_dtype(mx.float32)

    def keep(_, logits):
        rows.append(logits)
        return logits

    steps = generate_step(mx.array(prompt(17)), model, max_tokens=N, logits_processors=[keep])
    ids = [token for token, _ in steps]
    return ids, np.array(mx.concatenate(rows[:N]).astype(mx.float32))


METHOD = dict(quant_method="bitnet", modules_to_not_convert=["lm_head"])
CASES = {
    "bitnet": CONFIG | dict(quantization_config=dict(METHOD, linear_class="autobitlinear")),
    "bitnet without a word": CONFIG,
    "bitnet untied": CONFIG | dict(tie_word_embeddings=False, quantization_config=METHOD),
    "llama divided": dict(make_checkpoint.CONFIGS["llama"], intermediate_size=256, quantization_config=METHOD),
    "llama": dict(make_checkpoint.CONFIGS["llama"], intermediate_size=256,
                  quantization_config=dict(METHOD, linear_class="autobitlinear")),
}


@pytest.mark.parametrize("case", CASES)
def test_as_mlx_lm(tmp_path, ours, case):
    folder = make(tmp_path / case.replace(" ", "-"), mx.float32, 0, **CASES[case])
    wanted_ids, wanted = generate(folder)
    assert len(set(wanted_ids)) >= 6
    for engine in "cpu", "mlx":
        found_ids, found = ours(folder, prompt(17), N, engine=engine)
        assert found_ids == wanted_ids
        assert np.abs(found - wanted).max() <= 1e-4 * np.ptp(wanted)


def test_16_bits(tmp_path, ours):
    folder = make(tmp_path / "model", mx.bfloat16, 1, **CASES["bitnet"])
    exact, rounded = generate(folder, in_float32=True)[1][0], generate(folder)[1][0]
    noise = np.abs(rounded - exact).mean()
    for engine, most in ("cpu", 1), ("mlx", 4):  # MLX itself sums products of BF16 in BF16 on a CPU
        found = ours(folder, prompt(17), 1, engine=engine)[1][0]
        assert np.abs(found - exact).mean() <= most * noise


def change(folder, name, value):
    weights = dict(mx.load(str(folder / "model.safetensors")))
    mx.eval(weights)
    weights[name] = value
    mx.save_safetensors(str(folder / "model.safetensors"), {k: v for k, v in weights.items() if v is not None})


@pytest.mark.parametrize("part, value", [
    ("weight", mx.zeros((31, 128), mx.uint8)), ("weight", mx.zeros((32, 64), mx.uint8)),
    ("weight", mx.zeros((128,), mx.uint8)), ("weight_scale", None), ("weight_scale", mx.zeros(2)),
    ("weight_scale", mx.zeros(0)), ("weight_scale", mx.zeros(1, mx.int32))], ids=str)
def test_wrong_parts(tmp_path, run, part, value):
    folder = make(tmp_path / "model", mx.float32, 0, **CASES["bitnet"])
    change(folder, f"model.layers.0.self_attn.q_proj.{part}", value)
    done = run("generate", "--model", folder, "--prompt-ids", "1", "--engine", "cpu")
    assert done.returncode == 1 and f"q_proj.{part}" in done.stderr and len(done.stderr.splitlines()) == 1
