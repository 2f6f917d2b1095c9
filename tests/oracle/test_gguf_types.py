"""Every GGUF type is what gguf-py dequantizes it to: logits equal mlx-lm's on those numbers, both engines."""

import gguf
import make_checkpoint
import mlx.core as mx
import numpy as np
import pytest
import reference
from gguf.quants import dequantize, quantize
from test_families import prompt

N = 12
SIZES = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=2)
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
TYPES = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "MXFP4"]


def gguf_name(name):
    """model.layers.3.self_attn.q_proj.weight -> blk.3.attn_q.weight"""
    parts = name.removeprefix("model.").removesuffix(".weight").split(".")
    if parts[0] == "layers":
        return f"blk.{parts[1]}.{NAMES['.'.join(parts[2:])]}.weight"
    return {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}[parts[0]] + ".weight"


def random_blocks(kind, shape, spread, rng):
    """Blocks of random bytes, with factors that give their numbers about that spread around 0: gguf-py has no
    quantization to these types."""
    per_block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (shape[0], shape[1] // per_block, size), dtype=np.uint8)

    def put(at, factor):
        factors = (factor * rng.uniform(0.7, 1.3, blocks.shape[:2])).astype(np.float16)
        blocks[..., at:at + 2] = factors[..., None].view(np.uint8)

    if kind.name == "Q6_K":
        put(208, spread / 1360)  # 6 bits around 0, times a scale of 8 bits around 0
    else:
        levels = 7.5 if kind.name == "Q4_K" else 15.5
        put(0, spread / (35 * levels))
        put(2, spread / 35)
    return blocks.reshape(shape[0], -1)


def packed(kind, weight, rng):
    if kind.name.endswith("_K"):
        return random_blocks(kind, weight.shape, 3 * weight.shape[1] ** -0.5, rng)
    return quantize(weight, kind)


@pytest.fixture(scope="module")
def pair(checkpoint, tmp_path_factory):
    """pair(type) -> a GGUF file, and an MLX folder with the numbers gguf-py makes of it."""
    made = {}

    def pair(name):
        if name in made:
            return made[name]
        kind, rng = gguf.GGMLQuantizationType[name], np.random.default_rng(1)
        folder = make_checkpoint.make(tmp_path_factory.mktemp(name) / "mlx", "qwen3", **SIZES)
        weights = mx.load(str(folder / "model.safetensors"))
        c = make_checkpoint.CONFIGS["qwen3"] | SIZES
        file = gguf.GGUFWriter(folder.parent / "model.gguf", "qwen3")
        file.add_embedding_length(c["hidden_size"])
        file.add_block_count(c["num_hidden_layers"])
        file.add_feed_forward_length(c["intermediate_size"])
        file.add_head_count(c["num_attention_heads"])
        file.add_head_count_kv(c["num_key_value_heads"])
        file.add_key_length(c["head_dim"])
        file.add_layer_norm_rms_eps(c["rms_norm_eps"])
        file.add_rope_freq_base(c["rope_theta"])
        for path, weight in weights.items():
            weight = np.array(weight)
            if weight.ndim == 1:
                file.add_tensor(gguf_name(path), weight)
                continue
            blocks = packed(kind, weight, rng)
            file.add_tensor(gguf_name(path), blocks, raw_dtype=kind)
            weights[path] = mx.array(dequantize(blocks, kind).reshape(weight.shape))
        file.write_header_to_file()
        file.write_kv_data_to_file()
        file.write_tensors_to_file()
        file.close()
        mx.save_safetensors(str(folder / "model.safetensors"), weights)
        made[name] = folder.parent / "model.gguf", folder
        return made[name]

    return pair


@pytest.mark.parametrize("engine", ["cpu", "mlx"])
@pytest.mark.parametrize("name", TYPES)
def test_type(pair, ours, name, engine):
    """Activations and caches have 16 bits, and what is made of Q4_K, Q5_K and Q6_K is rounded to 11: 2.5e-3 is seen."""
    file, folder = pair(name)
    wanted_ids, wanted = reference.generate(folder, prompt(20), N)
    found_ids, found = ours(file, prompt(20), N, engine=engine)
    assert found_ids == wanted_ids
    assert np.abs(found - wanted).max() < 1e-2 * np.ptp(wanted)
