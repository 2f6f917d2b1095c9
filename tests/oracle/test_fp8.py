"""E4M3 weights with a scale per block: what mlx-lm computes on the BF16 numbers that its own formula gives."""

import json
import struct

import architectures
import make_checkpoint
import mlx.core as mx
import numpy as np
import pytest
import reference
from mlx_lm.utils import load_model
from test_architectures import check_near, check_same
from test_families import assert_near, prompt
from published import publish

BLOCK = 128


def dequantize(codes, scales):
    """As in mlx-lm's deepseek_v3.py: from_fp8 in BF16, padded to whole blocks, times the scales, in BF16."""
    weight = mx.from_fp8(codes, dtype=mx.bfloat16)
    if scales.size == 1:
        return (weight * scales).astype(mx.bfloat16)
    rows, cols = weight.shape
    padded = mx.pad(weight, ((0, -rows % BLOCK), (0, -cols % BLOCK)))
    padded = padded.reshape(scales.shape[0], BLOCK, scales.shape[1], BLOCK)
    return (padded * scales[:, None, :, None]).reshape(rows + -rows % BLOCK, -1)[:rows, :cols].astype(mx.bfloat16)


def write(path, tensors):
    """A safetensors file; tensors: name -> (type, array). mx.save_safetensors knows no E4M3."""
    header, data = {}, b""
    for name, (kind, values) in tensors.items():
        header[name] = dict(dtype=kind, shape=list(values.shape), data_offsets=[len(data), len(data) + values.nbytes])
        data += values.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def split(weight, rng, whole):
    rows, cols = weight.shape
    shape = (1,) if whole else (-(-rows // BLOCK), -(-cols // BLOCK))
    scales = (np.abs(weight).max() / 448 * rng.uniform(0.8, 1.2, shape)).astype(np.float32)
    spread = np.repeat(np.repeat(np.resize(scales, (1, 1)) if whole else scales, BLOCK, 0), BLOCK, 1)
    spread = spread[:1, :1] if whole else spread[:rows, :cols]
    return np.array(mx.to_fp8(mx.array(weight / spread))), scales


@pytest.fixture(scope="module", params=[("llama", False), ("qwen3_moe", False), ("llama", True)],
                ids=["llama", "qwen3_moe", "one-scale"])
def pair(request, tmp_path_factory):
    name, whole = request.param
    folder = tmp_path_factory.mktemp("fp8")
    make_checkpoint.make(folder / "bf16", name, "bfloat16", hidden_size=192, seed=4)
    weights, plain, rng = {}, {}, np.random.default_rng(0)
    for path, w in mx.load(str(folder / "bf16" / "model.safetensors")).items():
        numbers = np.array(w.astype(mx.float32))
        if "_proj.weight" not in path:
            weights[path], plain[path] = ("BF16", np.array(w.view(mx.uint16))), w
            continue
        experts = [(path.replace("switch_mlp", f"experts.{e}"), part) for e, part in enumerate(numbers)]
        parts = []
        for own, part in experts if numbers.ndim == 3 else [(path, numbers)]:
            codes, scales = split(part, rng, whole)
            weights |= {own: ("F8_E4M3", codes), own + "_scale_inv": ("F32", scales)}
            parts.append(dequantize(mx.array(codes), mx.array(scales)))
        plain[path] = mx.stack(parts) if numbers.ndim == 3 else parts[0]
    mx.save_safetensors(str(folder / "bf16" / "model.safetensors"), plain)
    (folder / "fp8").mkdir()
    write(folder / "fp8" / "model.safetensors", weights)
    config = json.loads((folder / "bf16" / "config.json").read_text())
    config["quantization_config"] = dict(quant_method="fp8", fmt="e4m3")
    if not whole:
        config["quantization_config"]["weight_block_size"] = [BLOCK, BLOCK]
    (folder / "fp8" / "config.json").write_text(json.dumps(config))
    return folder / "fp8", folder / "bf16"


def test_the_same_numbers(pair, ours):
    """The same on both folders to the last bit, and near mlx-lm's where it has an oracle (it has none for experts in
    BF16 on the CPU)."""
    fp8, bf16 = pair
    found, wanted = (ours(folder, prompt(17), 16, engine="cpu") for folder in (fp8, bf16))
    assert found[0] == wanted[0]
    assert np.array_equal(found[1], wanted[1])
    if not (json.loads((fp8 / "config.json").read_text())["model_type"] == "qwen3_moe"):
        assert_near(ours, bf16, prompt(17))


def test_mlx(pair, ours, device):
    fp8, bf16 = pair
    if json.loads((fp8 / "config.json").read_text())["model_type"] == "qwen3_moe":
        pytest.skip("MLX multiplies unquantized experts on the CPU in F32 only")
    found_ids, found = ours(fp8, prompt(17), 16, engine="mlx")
    wanted_ids, wanted = reference.generate(bf16, prompt(17), 16)
    assert found_ids == wanted_ids
    if device == "cpu":
        assert np.array_equal(found, wanted)


def mistral(folder, name):
    """The tiny checkpoint as Mistral AI publishes: BF16, matrices in E4M3 with one scale each, or one for each expert,
    and scales of activations, which nobody uses. Beside it the same numbers in BF16."""
    for kind in "fp8", "bf16":
        (folder / kind).mkdir()
    publish(name, folder / "bf16")
    weights, plain = {}, {}
    for path, w in mx.load(str(folder / "bf16" / "model.safetensors")).items():
        numbers = np.array(w.astype(mx.float32))
        if "_proj" not in path or w.ndim not in (2, 3):
            plain[path] = w.astype(mx.bfloat16)
            weights[path] = ("BF16", np.array(plain[path].view(mx.uint16)))
            continue
        scales = mx.array(np.abs(numbers).max((-2, -1), keepdims=w.ndim == 3) / 448).astype(mx.bfloat16)
        codes = mx.to_fp8(mx.array(numbers) / scales.astype(mx.float32))
        stem = path.removesuffix("weight") if path.endswith("weight") else path + "_"
        weights |= {path: ("F8_E4M3", np.array(codes)),
                    path + "_scale_inv": ("BF16", np.array(scales.view(mx.uint16))),
                    stem + "activation_scale": ("BF16", np.array(scales.view(mx.uint16)))}
        plain[path] = (mx.from_fp8(codes, dtype=mx.bfloat16) * scales).astype(mx.bfloat16)
    write(folder / "fp8" / "model.safetensors", weights)
    mx.save_safetensors(str(folder / "bf16" / "model.safetensors"), plain)
    config = json.loads((folder / "bf16" / "config.json").read_text())
    quantization = dict(quant_method="fp8", activation_scheme="static", weight_block_size=None)
    (folder / "fp8" / "config.json").write_text(json.dumps(config | dict(quantization_config=quantization)))
    return folder / "fp8", folder / "bf16"


def test_mistral4(ours, tmp_path):
    """mlx-lm loads it, and computes in F32, since MLX multiplies experts on a CPU in F32 only."""
    fp8, bf16 = mistral(tmp_path, "mistral4")
    model = load_model(fp8)[0]
    model.set_dtype(mx.float32)
    wanted = architectures.generate(model, architectures.LONG)
    found, same = (ours(folder, architectures.LONG, architectures.N) for folder in (fp8, bf16))
    assert found[0] == same[0] and np.array_equal(found[1], same[1])
    check_near(found, wanted)


@pytest.mark.parametrize("name", ["ministral3", "mistral3"])
@pytest.mark.parametrize("engine", ["cpu", "mlx"])
def test_ministral3(ours, run, tmp_path, engine, name):
    """mlx-lm 0.32.2 multiplies codes, not numbers, with the scales; we do not, and say so."""
    fp8, bf16 = mistral(tmp_path, name)
    wanted = architectures.generate(load_model(bf16)[0], architectures.LONG)
    found, same = (ours(folder, architectures.LONG, architectures.N, engine=engine) for folder in (fp8, bf16))
    assert found[0] == same[0] and np.array_equal(found[1], same[1])
    check_near(found, wanted)
    done = run("generate", "--model", fp8, "--prompt-ids", "5", "--ids", "--max-tokens", 1, "--engine", engine,
               check=True)
    assert "takes their codes for numbers" in done.stderr
    assert architectures.generate(load_model(fp8)[0], architectures.LONG)[0] != wanted[0]


@pytest.mark.parametrize("shape", [(2,), (3, 1), (5, 5), (1, 1, 1, 1), (0,)])
def test_scales_that_do_not_fit(pair, run, tmp_path, shape):
    fp8, _ = pair
    weights = dict(mx.load(str(fp8 / "model.safetensors")))
    name = next(name for name in weights if name.endswith("q_proj.weight_scale_inv"))
    kept = {path: ("F8_E4M3" if path + "_scale_inv" in weights else str(w.dtype), w) for path, w in weights.items()}
    kinds = {"mlx.core.bfloat16": "BF16", "mlx.core.float32": "F32", "F8_E4M3": "F8_E4M3"}
    tensors = {path: (kinds[kind], np.array(w.view(mx.uint16) if kinds[kind] == "BF16" else w))
               for path, (kind, w) in kept.items()}
    tensors[name] = ("F32", np.ones(shape, np.float32))
    write(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text((fp8 / "config.json").read_text())
    done = run("generate", "--model", tmp_path, "--prompt-ids", "1", "--engine", "cpu")
    assert done.returncode == 1 and "does not scale" in done.stderr and len(done.stderr.splitlines()) == 1
