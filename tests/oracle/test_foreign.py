"""Checkpoints that other tools than MLX packed, by the names and types of their own: the ids and logits of mlx-lm, on
the same folder where it loads it, else on the same numbers under MLX's names; and what neither loads."""

import json
import shutil

import make_checkpoint
import mlx.core as mx
import numpy as np
import pytest
import reference
from mlx_lm.utils import load_model
from test_families import assert_same, prompt

NVFP4 = dict(bits=4, group_size=16, mode="nvfp4")


def rewrite(folder, change, **config):
    """Changes the tensors, and sets fields of config.json (None: removes them)."""
    weights = dict(mx.load(str(folder / "model.safetensors")))
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), change(weights), metadata={"format": "pt"})
    fields = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))


def integers(weights):
    """Every linear as compressed-tensors packs it, groups of 32, and the same under MLX's names."""
    packed, mlx = {}, {}
    for name, w in weights.items():
        if "_proj.weight" not in name:
            packed[name] = mlx[name] = w
            continue
        path, groups = name.removesuffix(".weight"), np.array(w.astype(mx.float32)).reshape(len(w), -1, 32)
        scales = mx.array(np.abs(groups).max(-1) / 7).astype(w.dtype)
        steps = np.array(scales.astype(mx.float32))[..., None]
        q = (np.clip(np.rint(groups / steps), -8, 7) + 8).astype(np.uint32).reshape(len(w), -1, 8)
        words = (q << (4 * np.arange(8, dtype=np.uint32))).sum(-1).astype(np.uint32)
        packed |= {f"{path}.weight_packed": mx.array(words.view(np.int32)), f"{path}.weight_scale": scales,
                   f"{path}.weight_shape": mx.array(w.shape)}
        mlx |= {f"{path}.weight": mx.array(words), f"{path}.scales": scales, f"{path}.biases": -8 * scales}
    return packed, mlx


def compressed(name):
    return dict(quantization=None, quantization_config=dict(quant_method="compressed-tensors", format=name))


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def int4(request, tmp_path_factory):
    """(as compressed-tensors packs it, with MLX's names, dtype)"""
    folder = tmp_path_factory.mktemp("int4")
    ours, theirs = (make_checkpoint.make(folder / name, "llama", request.param, seed=3) for name in ("ours", "theirs"))
    rewrite(ours, lambda weights: integers(weights)[0], **compressed("pack-quantized"))
    rewrite(theirs, lambda weights: integers(weights)[1], quantization=dict(bits=4, group_size=32))
    return ours, theirs, request.param


def test_pack_quantized(int4, ours):
    packed, mlx, dtype = int4
    wanted = reference.generate(mlx, prompt(17), 16, in_float32=True)
    found = ours(packed, prompt(17), 16)
    if dtype == "float32":
        assert found[0] == wanted[0] and np.abs(found[1] - wanted[1]).max() <= 1e-4 * np.ptp(wanted[1])
    same = ours(mlx, prompt(17), 16)
    assert found[0] == same[0] and np.array_equal(found[1], same[1])


def test_pack_quantized_on_mlx(int4, ours, device):
    packed, mlx, _ = int4
    found_ids, found = ours(packed, prompt(17), 16, engine="mlx")
    wanted_ids, wanted = reference.generate(mlx, prompt(17), 16)
    assert found_ids == wanted_ids
    if device == "cpu":
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("engine", ["cpu", "mlx"])
def test_mxfp4_pack_quantized(checkpoint, ours, tmp_path, engine):
    made = checkpoint("llama", quantization=dict(bits=4, group_size=32, mode="mxfp4"))
    folder = shutil.copytree(made, tmp_path / "model")

    def change(weights):
        for name in [name for name in weights if name.endswith(".scales")]:
            path = name.removesuffix(".scales")
            weights[f"{path}.weight_packed"] = weights.pop(f"{path}.weight").view(mx.uint8)
            weights[f"{path}.weight_scale"] = weights.pop(name)
        return weights

    rewrite(folder, change, **compressed("mxfp4-pack-quantized"))
    wanted = reference.generate(made, prompt(17), 16)
    found = ours(folder, prompt(17), 16, engine=engine)
    assert found[0] == wanted[0] and np.abs(found[1] - wanted[1]).max() <= 1e-4 * np.ptp(wanted[1])


@pytest.mark.parametrize("where", ["config.json", "hf_quant_config.json", "hf_quant_config.json as published"])
def test_modelopt(checkpoint, ours, tmp_path, where):
    """mlx-lm loads the first two."""
    made = checkpoint("llama", quantization=NVFP4)
    folder = shutil.copytree(made, tmp_path / "model")
    settings = dict(quant_method="modelopt", quantization=dict(quant_algo="NVFP4", group_size=16))
    if where == "config.json":
        settings = dict(quant_method="modelopt", quant_algo="NVFP4")
    rewrite(folder, lambda weights: weights, quantization=None, quantization_config=settings
            if where == "config.json" else None)
    if where != "config.json":
        if "published" in where:
            settings["producer"] = dict(name=settings.pop("quant_method"))
        (folder / "hf_quant_config.json").write_text(json.dumps(settings))
    if "published" in where:
        wanted = reference.generate(made, prompt(17), 16)
        found = ours(folder, prompt(17), 16)
        assert found[0] == wanted[0] and np.abs(found[1] - wanted[1]).max() <= 1e-4 * np.ptp(wanted[1])
    else:
        assert_same(ours, folder, prompt(17))


REFUSED = {
    "fp8": (compressed("float-quantized"), None, '"float-quantized"'),
    "no format": (dict(quantization_config=dict(quant_method="compressed-tensors")), None, 'format ""'),
    "modelopt fp8": (dict(quantization_config=dict(quant_method="modelopt", quant_algo="FP8")), None, "quant_algo FP8"),
    "modelopt": (dict(quantization_config=dict(quant_method="modelopt")), None, "quant_algo is missing"),
    "bits": (dict(quantization_config=dict(quant_method="bitsandbytes")), None, '"bitsandbytes"'),
    "modelopt's names": (dict(quantization_config=dict(quant_method="modelopt", quant_algo="NVFP4")),
                         "mlp.up_proj.weight_scale_2", "names that are not MLX's"),
    "nvfp4": (compressed("nvfp4-pack-quantized"), "mlp.up_proj.weight_packed", "names that are not MLX's"),
    "zero points": (compressed("pack-quantized"), "mlp.up_proj.weight_zero_point", "zero points"),
    "order": (compressed("pack-quantized"), "mlp.up_proj.weight_g_idx", "an order of columns"),
    "blocks": (dict(quantization_config=dict(quant_method="fp8", weight_block_size=[64, 128])), None,
               '"weight_block_size"'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(checkpoint, run, tmp_path, case):
    fields, tensor, word = REFUSED[case]
    folder = shutil.copytree(checkpoint("llama"), tmp_path / "model")
    added = {f"model.layers.0.{tensor}": mx.zeros(4)} if tensor else {}
    rewrite(folder, lambda weights: weights | added, **fields)
    done = run("generate", "--model", folder, "--prompt-ids", "1", "--engine", "cpu")
    assert done.returncode == 1 and word in done.stderr and len(done.stderr.splitlines()) == 1
    if case != "bits" and case != "blocks":  # there mlx-lm looks at the tensors alone
        with pytest.raises(Exception):
            load_model(folder)


@pytest.mark.parametrize("name, module, n", [("llama", "mlp.down_proj", 1), ("qwen3_moe", "mlp.switch_mlp.up_proj", 8)])
def test_scale_of_the_whole_is_refused(checkpoint, run, tmp_path, name, module, n):
    """nvfp4 with `global_scale`: mlx-lm loads it for experts alone, which MLX then multiplies on a GPU alone."""
    folder = shutil.copytree(checkpoint(name, quantization=NVFP4), tmp_path / "model")
    rewrite(folder, lambda weights: weights | {f"model.layers.0.{module}.global_scale": mx.ones(n)})
    done = run("generate", "--model", folder, "--prompt-ids", "1", "--ids", "--engine", "cpu")
    assert done.returncode == 1 and "global_scale" in done.stderr and "on a GPU alone" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    with pytest.raises(Exception):
        reference.generate(folder, prompt(4), 2)
