"""Checkpoints as AutoAWQ and, in the same form, some GPTQ tools pack them: the same ids and logits as mlx-lm, which repacks them when it loads them."""

import json

import make_checkpoint
import mlx.core as mx
import numpy as np
import pytest
import reference
from mlx_lm.utils import load_model
from test_families import assert_near, prompt

ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # column 8 j + ORDER[k] is in bits 4 k of word j


def pack(q):
    """[n, columns] numbers of 4 bits -> [n, columns / 8] words."""
    eight = q.reshape(len(q), -1, 8).astype(np.uint32)[..., ORDER]
    return (eight << (4 * np.arange(8, dtype=np.uint32))).sum(-1).astype(np.uint32).view(np.int32)


def make(folder, name, group, zeros=True, norm_dtype="float16", method="awq", **changes):
    """A 16-bit checkpoint of make_checkpoint whose linears were packed with groups of that size."""
    make_checkpoint.make(folder, name, "float16", hidden_size=256, intermediate_size=384, **changes)
    weights = {}
    for path, w in mx.load(str(folder / "model.safetensors")).items():
        if "_proj.weight" not in path:
            weights[path] = w.astype(getattr(mx, norm_dtype)) if "norm" in path else w
            continue
        w, path = np.array(w).astype(np.float32), path.removesuffix(".weight")
        grouped = w.reshape(len(w), -1, group)
        low = grouped.min(-1) if zeros else -np.abs(grouped).max(-1)
        high = grouped.max(-1) if zeros else np.abs(grouped).max(-1)
        scales = ((high - low) / 15).astype(np.float16)
        zero = np.clip(np.rint(-low / scales), 0, 15) if zeros else np.full_like(scales, 8)
        q = np.clip(np.rint(grouped / scales[..., None]) + zero[..., None], 0, 15).reshape(w.shape)
        weights |= {path + ".qweight": mx.array(pack(q.T)), path + ".scales": mx.array(scales.T.copy())}
        if zeros:
            weights[path + ".qzeros"] = mx.array(pack(zero.T))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = dict(quant_method=method, bits=4, group_size=group, version="gemm", zero_point=zeros)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module", params=[("llama", 64, True, "float16"), ("qwen2", 128, True, "float32"),
                                        ("llama_biases", 32, False, "float16"),
                                        ("llama", 64, True, "float16", "gptq")], ids=lambda p: "-".join(map(str, p)))
def model(request, tmp_path_factory):
    return make(tmp_path_factory.mktemp("awq") / "model", *request.param)


def test_cpu(model, ours):
    assert_near(ours, model, prompt(17))


def test_mlx(model, ours, device):
    wanted_ids, wanted = reference.generate(model, prompt(17), 16, prefill_step_size=256)
    found_ids, found = ours(model, prompt(17), 16, engine="mlx", prefill_step_size=256)
    assert found_ids == wanted_ids
    if device == "cpu":
        assert np.array_equal(found, wanted)


def test_rows_in_words(tmp_path, run):
    """What GPTQ's own tools write: mlx-lm finds no shape that fits, either."""
    folder = make(tmp_path / "model", "llama", 64, method="gptq")
    weights = mx.load(str(folder / "model.safetensors"))
    name = "model.layers.0.self_attn.q_proj.qweight"
    mx.save_safetensors(str(folder / "model.safetensors"), weights | {name: mx.zeros((256 // 8, 256), mx.int32)})
    done = run("generate", "--model", folder, "--prompt-ids", "1", "--engine", "cpu")
    assert done.returncode == 1 and "as GPTQ packs them" in done.stderr and len(done.stderr.splitlines()) == 1
    with pytest.raises(Exception):
        load_model(folder)


def test_what_mlx_lm_refuses(tmp_path, run):
    folder = make(tmp_path / "model", "llama", 64)
    weights = mx.load(str(folder / "model.safetensors"))
    name = "model.layers.0.self_attn.q_proj.g_idx"
    mx.save_safetensors(str(folder / "model.safetensors"), weights | {name: mx.arange(256)})
    done = run("generate", "--model", folder, "--prompt-ids", "1", "--engine", "cpu")
    assert done.returncode == 1 and "g_idx" in done.stderr
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["bits"] = 8
    (folder / "config.json").write_text(json.dumps(config))
    done = run("generate", "--model", folder, "--prompt-ids", "1", "--engine", "cpu")
    assert done.returncode == 1 and "8 bits" in done.stderr
