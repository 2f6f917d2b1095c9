"""Checkpoints as they are published, which mlx-lm's `sanitize` turns into its own form when it loads them: the same ids
and logits. The rules below run each `sanitize` backwards on a tiny checkpoint; mlx-lm loads the result, too."""

import copy
import json

import architectures
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import _get_classes, load_model
from test_architectures import REGISTERED, check_same

PROMPT = architectures.LONG


def text(config):
    return config.get("text_config", config)


def rename(weights, **pairs):
    """Every `old` in a name becomes `new`; pairs: old=new with "__" for a dot."""
    for old, new in pairs.items():
        old, new = old.replace("__", "."), new.replace("__", ".")
        for name in [name for name in weights if old in name]:
            weights[name.replace(old, new)] = weights.pop(name)


# ---- steps: each changes weights and config in place ----


def rotary(weights, config):
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = mx.ones(4)


def internlm_rotary(weights, config):
    weights["model.layers.0.attention.rope.inv_freq"] = mx.ones(4)


def tied_head(weights, config):
    """A head that is not used, as the embedding is one."""
    config["tie_word_embeddings"] = True
    embed = next(name for name in weights if name.endswith("embed_tokens.weight") or "word_embeddings" in name)
    weights["lm_head.weight"] = mx.random.normal(weights[embed].shape)


def own_experts(module="switch_mlp", **names):
    """Experts one by one, perhaps with other names of the three matrices."""

    def step(weights, config):
        stacked = [name for name in weights if f".{module}." in name]
        assert stacked
        for name in stacked:
            start, end = name.split(f".{module}.")
            matrix, leaf = end.split(".")
            for i, expert in enumerate(weights.pop(name)):
                weights[f"{start}.experts.{i}.{names.get(matrix, matrix)}.{leaf}"] = expert

    return step


META = dict(gate_proj="w1", down_proj="w2", up_proj="w3")


def mtp(*names):
    def step(weights, config):
        for name in names:
            weights[name] = mx.ones((2, 3))

    return step


def next_layer(weights, config):
    """One layer more, which predicts further tokens."""
    n = config["num_hidden_layers"]
    weights[f"model.layers.{n}.embed_tokens.weight"] = mx.ones((2, 3))
    weights[f"model.layers.{n}.eh_proj.weight"] = mx.ones((2, 3))


def halves(module, fused, down, transposed=False):
    """One tensor for the gate and the up of all experts."""

    def step(weights, config):
        gates = [name for name in weights if f".{module}.gate_proj." in name]
        assert gates
        for name in gates:
            start = name.split(f".{module}.")[0]
            gate, up, back = (weights.pop(f"{start}.{module}.{part}_proj.weight") for part in ("gate", "up", "down"))
            both = mx.concatenate([gate, up], axis=1)
            weights[f"{start}.{fused}"] = mx.contiguous(both.swapaxes(1, 2)) if transposed else both
            weights[f"{start}.{down}"] = mx.contiguous(back.swapaxes(1, 2)) if transposed else back

    return step


def mxfp4_experts(weights, config):
    """gpt-oss: experts in groups of 32, 16 bytes each; rows of gate and up take turns."""

    def turns(a, b):
        return mx.stack([a, b], axis=2).reshape(a.shape[0], 2 * a.shape[1], *a.shape[2:])

    def pack(name, matrix):
        words, scales = mx.quantize(matrix, group_size=32, bits=4, mode="mxfp4")
        weights[name + "_blocks"] = words.view(mx.uint8).reshape(*scales.shape, 16)
        weights[name + "_scales"] = scales

    for name in [name for name in weights if name.endswith(".experts.gate_proj.weight")]:
        module = name.removesuffix(".gate_proj.weight")
        gate, up, down = (weights.pop(f"{module}.{part}_proj.weight") for part in ("gate", "up", "down"))
        biases = [weights.pop(f"{module}.{part}_proj.bias") for part in ("gate", "up", "down")]
        pack(f"{module}.gate_up_proj", turns(gate, up))
        pack(f"{module}.down_proj", down)
        weights[f"{module}.gate_up_proj_bias"] = turns(*biases[:2])
        weights[f"{module}.down_proj_bias"] = biases[2]
    config["quantization_config"] = dict(quant_method="mxfp4", modules_to_not_convert=["lm_head"])


def published_conv(weights, config):
    for name in weights:
        if "conv" in name and weights[name].ndim == 3:
            weights[name] = mx.contiguous(weights[name].swapaxes(1, 2))


NORMS = (".input_layernorm.weight", ".post_attention_layernorm.weight", "model.norm.weight", ".q_norm.weight",
         ".k_norm.weight")


def norms_of_one(weights, config):
    for name in weights:
        if name.endswith(NORMS) and weights[name].ndim == 1:
            weights[name] = weights[name] - 1


def router_as_linear(weights, config):
    rename(weights, mlp__gate__gate_proj="mlp__gate")


def normalized_head(weights, config):
    config["norm_head"], config["tie_word_embeddings"] = True, False
    weights["lm_head.weight"] = mx.random.normal(weights["model.word_embeddings.weight"].shape)


def bias_beside_gate(weights, config):
    rename(weights, mlp__gate__e_score_correction_bias="mlp__e_score_correction_bias")


def vision(*names):
    def step(weights, config):
        for name in names:
            weights[name] = mx.ones((2, 3, 1, 2, 2))

    return step


def nested(weights, config):
    """The names of transformers' newer vision models."""
    for name in list(weights):
        new = name.replace("language_model.model.", "model.language_model.", 1).replace("language_model.lm_head",
                                                                                        "lm_head")
        weights[new] = weights.pop(name)


def bare(weights, config):
    for name in list(weights):
        weights[name.removeprefix("language_model.")] = weights.pop(name)


def step_names(weights, config):
    rename(weights, mlp__switch_mlp="moe", mlp__gate__gate="moe__gate", mlp__gate__router_bias="moe__router_bias",
           mlp__share_expert="share_expert")


def norms_of_more(weights, config):
    for name in weights:
        if name.endswith(".weight") and "norm" in name:
            weights[name] = weights[name] - 1


def in_language_model(weights, config):
    for name in list(weights):
        weights["language_model." + name] = weights.pop(name)


def shared_keys(weights, config):
    """Gemma 4: layers that read another's keys have projections that nobody uses, and ranges of activations."""
    first = text(config)["num_hidden_layers"] - text(config)["num_kv_shared_layers"]
    prefix = next(name for name in weights if ".layers.0." in name).split("layers.0.")[0]
    weights[f"{prefix}layers.{first}.self_attn.k_proj.weight"] = mx.ones((2, 3))
    weights[f"{prefix}layers.{first}.self_attn.k_norm.weight"] = mx.ones(3)
    weights[f"{prefix}layers.0.self_attn.q_proj.input_max"] = mx.ones(1)


def whole_kv_b(weights, config):
    """What makes keys and values of latents in one matrix, head by head."""
    for name in [name for name in weights if name.endswith(".embed_q.weight")]:
        module = name.removesuffix(".embed_q.weight")
        keys, values = weights.pop(name).swapaxes(1, 2), weights.pop(f"{module}.unembed_out.weight")
        both = mx.concatenate([keys, values], axis=1)
        weights[f"{module}.kv_b_proj.weight"] = both.reshape(-1, both.shape[-1])


def rows_of_an_mlp(weights, config):
    """Granite 4 without experts: its MLP has the names of the one beside experts."""
    config["num_local_experts"] = 0
    n, width = config["hidden_size"], config["intermediate_size"]
    for name in [name for name in weights if "block_sparse_moe" in name]:
        weights.pop(name)
    for name in [name for name in weights if "shared_mlp" in name]:
        shape = (2 * width, n) if "input" in name else (n, width)
        weights[name] = mx.random.normal(shape) * shape[1]**-0.5


def numbers_in_lists(weights, config):
    """Apertus: an activation's numbers as vectors of one."""
    for name in weights:
        if name.endswith(("alpha_p", "alpha_n")):
            weights[name] = weights[name].reshape(1)


def gpt_neox_names(weights, config):
    for name in list(weights):
        old = name.removeprefix("model.").replace("h.", "layers.", 1) if name.startswith("model.h.") else \
            name.removeprefix("model.")
        weights[old if old.startswith("embed_out.") else f"gpt_neox.{old}"] = weights.pop(name)
    weights["gpt_neox.layers.0.attention.bias"] = mx.ones((1, 1, 4, 4))
    weights["gpt_neox.layers.0.attention.masked_bias"] = mx.ones(())
    weights["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = mx.ones(4)


def gptj_names(weights, config):
    rename(weights, model__="transformer__")
    weights["transformer.h.0.attn.bias"] = mx.ones((1, 1, 4, 4))
    weights["transformer.h.0.attn.masked_bias"] = mx.ones(())


STEPS = {
    "Klear": [own_experts("experts")],
    "afmoe": [own_experts("experts"), rotary, tied_head],
    "apertus": [numbers_in_lists, tied_head],
    "bailing_moe": [own_experts(), router_as_linear, normalized_head],
    "deepseek": [own_experts()],
    "deepseek_v2": [own_experts()],
    "deepseek_v3": [own_experts(), whole_kv_b, rotary],
    "deepseek_v32": [own_experts(), whole_kv_b, next_layer],
    "dots1": [own_experts("experts"), rotary, tied_head],
    "ernie4_5_moe": [own_experts(), mtp("model.mtp_block.0.norm.weight", "model.mtp_linear_proj.0.weight",
                                        "model.layers.1.mlp.moe_statics.e_score_correction_bias")],
    "exaone_moe": [own_experts(), bias_beside_gate, mtp("mtp.norm.weight")],
    "falcon_h1": [published_conv],
    "falcon_mamba": [published_conv],
    "gemma3": [vision("vision_tower.patch.weight", "multi_modal_projector.weight")],
    "gemma3n": [vision("model.vision_tower.a.weight", "model.audio_tower.a.weight", "model.embed_vision.a.weight",
                       "model.embed_audio.a.weight")],
    "gemma3_text": [lambda weights, config: weights.pop("lm_head.weight", None)],
    "gemma4": [halves("experts.switch_glu", "experts.gate_up_proj", "experts.down_proj"), nested, shared_keys,
               vision("model.vision_tower.a.weight", "model.audio_tower.a.weight", "model.embed_vision.a.weight",
                      "model.embed_audio.a.weight", "model.multi_modal_projector.a.weight")],
    "gemma4_text": [shared_keys],
    "glm": [rotary, tied_head],
    "glm4_moe": [own_experts(), next_layer],
    "glm4_moe_lite": [own_experts(), whole_kv_b, next_layer],
    "glm_moe_dsa": [own_experts(), whole_kv_b, next_layer],
    "gpt_oss": [mxfp4_experts],
    "gpt_neox": [gpt_neox_names],
    "gptj": [gptj_names],
    "granite": [tied_head],
    "granitemoe": [halves("switch_mlp", "input_linear.weight", "output_linear.weight"), tied_head],
    "granitemoehybrid": [halves("block_sparse_moe.switch_mlp", "block_sparse_moe.input_linear.weight",
                                "block_sparse_moe.output_linear.weight"), published_conv, tied_head],
    "granitemoehybrid without experts": [rows_of_an_mlp, published_conv],
    "hunyuan": [own_experts()],
    "hunyuan_v1_dense": [tied_head],
    "internlm2": [internlm_rotary],
    "internlm3": [internlm_rotary],
    "jamba": [own_experts(), published_conv, tied_head],
    "kimi_k25": [own_experts(), whole_kv_b,
                 vision("vision_tower.a.weight", "vision_model.a.weight", "mm_projector.a.weight",
                        "multi_modal_projector.a.weight")],
    "kimi_vl": [own_experts(), vision("vision_tower.a.weight", "multi_modal_projector.a.weight")],
    "laguna": [own_experts(), lambda weights, config: rename(
        weights, mlp__gate__proj__weight="mlp__gate__weight",
        mlp__gate__e_score_correction_bias="mlp__experts__e_score_correction_bias"), in_language_model],
    "lfm2": [published_conv],
    "lfm2-vl": [vision("vision_tower.patch.weight", "multi_modal_projector.weight")],
    "lfm2_moe": [published_conv, own_experts(**META)],
    "lille-130m": [lambda weights, config: weights.update({"transformer.rotary_emb.inv_freq": mx.ones(4)})],
    "llama": [rotary, tied_head],
    "longcat_flash": [own_experts(), whole_kv_b, mtp("model.mtp.layers.0.norm.weight")],
    "llama4": [halves("experts", "experts.gate_up_proj", "experts.down_proj", transposed=True),
               vision("vision_model.patch.weight", "multi_modal_projector.weight")],
    "mamba": [published_conv],
    "mamba2": [published_conv],
    "mellum": [own_experts(), tied_head],
    "mimo": [rotary, tied_head, mtp("model.mtp_layers.0.norm.weight")],
    "mimo_v2_flash": [own_experts(), mtp("model.mtp.layers.0.norm.weight")],
    "minicpm": [lambda weights, config: weights.pop("lm_head.weight", None)],
    "minimax": [own_experts(**META)],
    "ministral3": [rotary, tied_head],
    "mistral3": [nested, vision("model.vision_tower.patch.weight", "model.multi_modal_projector.weight")],
    "mistral4": [halves("switch_mlp", "experts.gate_up_proj", "experts.down_proj"), whole_kv_b, rotary],
    "mixtral": [own_experts(**META), tied_head],
    "muse_glimmer": [lambda weights, config: rename(weights, model__layers="model__language_model__layers"),
                     vision("vision_tower.a.weight", "vision_adapter.a.weight", "vision_projection.weight")],
    "nanbeige": [rotary],
    "nemotron-nas": [tied_head],
    "nemotron_h": [own_experts(fc1="up_proj", fc2="down_proj"), published_conv, mtp("mtp.layers.0.norm.weight")],
    "olmo2": [rotary],
    "olmo_hybrid": [published_conv, tied_head],
    "olmoe": [own_experts()],
    "pixtral": [vision("vision_tower.patch.weight", "multi_modal_projector.weight")],
    "plamo2": [published_conv],
    "plamo3": [tied_head],
    "qwen2": [rotary, tied_head],
    "qwen2_moe": [own_experts()],
    "qwen2_vl": [bare, vision("visual.patch.weight")],
    "qwen3": [tied_head],
    "qwen3_5": [published_conv, norms_of_one, nested, mtp("mtp.norm.weight"), vision("model.visual.patch.weight")],
    "qwen3_5_moe": [halves("switch_mlp", "experts.gate_up_proj", "experts.down_proj"), published_conv, norms_of_one,
                    nested, mtp("mtp.norm.weight"), vision("model.visual.patch.weight")],
    "qwen3_moe": [own_experts(), tied_head],
    "qwen3_next": [own_experts(), published_conv, norms_of_one, mtp("mtp.norm.weight")],
    "qwen3_vl": [nested, vision("model.visual.patch.weight")],
    "qwen3_vl_moe": [halves("switch_mlp", "experts.gate_up_proj", "experts.down_proj", transposed=True), nested,
                     vision("model.visual.patch.weight")],
    "seed_oss": [tied_head],
    "smollm3": [rotary, tied_head],
    "solar_open": [own_experts(), next_layer],
    "talkie": [lambda weights, config: weights.update(
        {name: mx.ones(4) for name in ("model.rotary.a", "model.blocks.0.attn.cos", "model.sin")})],
    "youtu_llm": [tied_head],
    "step3p5": [step_names, norms_of_more, mtp("model.layers.1.mtp.weight", "model.layers.4.norm.weight",
                                               "model.layers.5.norm.weight")],
    "spark2_5": [lambda weights, config: rename(weights, model__embedding="model__embed_tokens"), rotary],
}


def sanitizes(model_type):
    model_class, _ = _get_classes(copy.deepcopy(architectures.CONFIGS[model_type]))
    return hasattr(model_class, "sanitize")


def publish(model_type, folder):
    """The tiny checkpoint of an architecture in the published form."""
    made = architectures.get(model_type.split()[0]) / "plain"
    config = json.loads((made / "config.json").read_text())
    weights = mx.load(str(made / "model.safetensors"))
    mx.random.seed(0)
    for step in STEPS[model_type]:
        step(weights, config)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("model_type", [name for name in sorted(STEPS) if name.split()[0] in REGISTERED])
def test_published(ours, tmp_path, model_type):
    publish(model_type, tmp_path)
    wanted = architectures.generate(load_model(tmp_path)[0], PROMPT)
    check_same(ours(tmp_path, PROMPT, architectures.N, prefill_step_size=architectures.STEP), wanted)


def test_all_are_here():
    missing = [name for name in REGISTERED if name in architectures.CONFIGS and name not in STEPS and sanitizes(name)]
    if missing:
        pytest.skip(f"no published form is written down yet of: {', '.join(missing)}")


def test_mistral4_in_its_wrapper(ours, tmp_path):
    config = dict(model_type="mistral3", text_config=architectures.widened(architectures.CONFIGS["mistral4"]))
    for seed in range(20):
        folder = tmp_path / str(seed)
        architectures.make(folder, config, seed)
        wanted = architectures.generate(load_model(folder)[0], PROMPT)
        if architectures.is_clear(wanted[1]):
            break
    for engine in "cpu", "mlx":
        check_same(ours(folder, PROMPT, architectures.N, prefill_step_size=architectures.STEP, engine=engine), wanted)


def quantized_kv_b(folder, dtype):
    """The 4-bit checkpoint of deepseek_v3 with kv_b_proj in 4 bits, and its numbers in dtype."""
    made = architectures.get("deepseek_v3") / "4-bit"
    config = json.loads((made / "config.json").read_text())
    weights = dict(mx.load(str(made / "model.safetensors")))

    def whole(module):
        return mx.dequantize(*(weights.pop(f"{module}.{part}") for part in ("weight", "scales", "biases")),
                             group_size=architectures.GROUP, bits=4)

    for module in [name.removesuffix(".embed_q.weight") for name in weights if name.endswith(".embed_q.weight")]:
        both = mx.concatenate([whole(f"{module}.embed_q").swapaxes(1, 2), whole(f"{module}.unembed_out")], axis=1)
        parts = mx.quantize(both.reshape(-1, both.shape[-1]).astype(dtype), group_size=architectures.GROUP, bits=4)
        weights |= dict(zip((f"{module}.kv_b_proj.{part}" for part in ("weight", "scales", "biases")), parts))
    for name, w in weights.items():
        if w.dtype == mx.float32 and "correction_bias" not in name:
            weights[name] = w.astype(dtype)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))


def test_quantized_kv_b(ours, tmp_path):
    quantized_kv_b(tmp_path, mx.float32)
    wanted = architectures.generate(load_model(tmp_path)[0], PROMPT)
    for engine in "cpu", "mlx":
        check_same(ours(tmp_path, PROMPT, architectures.N, prefill_step_size=architectures.STEP, engine=engine), wanted)


def test_quantized_kv_b_is_rounded_as_there(ours, device, tmp_path):
    """In BF16 every rounding on the way counts."""
    if device != "cpu":
        pytest.skip("fused kernels may round otherwise")
    quantized_kv_b(tmp_path, mx.bfloat16)
    wanted = architectures.generate(load_model(tmp_path)[0], PROMPT)
    found = ours(tmp_path, PROMPT, architectures.N, prefill_step_size=architectures.STEP, engine="mlx")
    assert found[0] == wanted[0] and (found[1] == wanted[1]).all()


def packed_int4(folder, bits=4):
    """kimi_k25 with experts as compressed-tensors packs them: integers of 4 bits, 8 more than what they are."""
    publish("kimi_k25", folder)
    weights, config = mx.load(str(folder / "model.safetensors")), json.loads((folder / "config.json").read_text())
    for name in [name for name in weights if ".mlp.experts." in name]:
        w = np.array(weights.pop(name))
        groups = w.reshape(len(w), -1, architectures.GROUP)
        scales = (np.abs(groups).max(-1, keepdims=True) / 7).astype(np.float32)
        q = (np.clip(np.rint(groups / scales), -8, 7) + 8).astype(np.uint32).reshape(len(w), -1, 32 // bits)
        words = (q << (bits * np.arange(32 // bits, dtype=np.uint32))).sum(-1).astype(np.uint32).view(np.int32)
        weights[f"{name}_packed"], weights[f"{name}_scale"] = mx.array(words), mx.array(scales[..., 0])
        weights[f"{name}_shape"] = mx.array(w.shape)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    config["text_config"]["quantization_config"] = dict(quant_method="compressed-tensors", format="pack-quantized")
    (folder / "config.json").write_text(json.dumps(config))


def test_packed_int4(ours, tmp_path):
    packed_int4(tmp_path)
    wanted = architectures.generate(load_model(tmp_path)[0], PROMPT)
    for engine in "cpu", "mlx":
        check_same(ours(tmp_path, PROMPT, architectures.N, prefill_step_size=architectures.STEP, engine=engine), wanted)


def test_packed_with_other_bits_is_refused(run, tmp_path):
    packed_int4(tmp_path, bits=8)
    done = run("generate", "--model", tmp_path, "--prompt-ids", "1", "--ids")
    assert done.returncode == 1 and "8 bits" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("shape", [(8, 63, 64), (8, 64), (0, 64, 64)])
def test_experts_that_cannot_be_divided(run, tmp_path, shape):
    publish("qwen3_5_moe", tmp_path)
    weights = dict(mx.load(str(tmp_path / "model.safetensors")))
    weights["model.language_model.layers.0.mlp.experts.gate_up_proj"] = mx.zeros(shape)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    done = run("generate", "--model", tmp_path, "--prompt-ids", "1", "--ids")
    assert done.returncode == 1 and "model.layers.0.mlp" in done.stderr and len(done.stderr.splitlines()) == 1


def test_quantized_head_is_not_normalized(run, tmp_path):
    """mlx-lm would divide the packed words."""
    made = architectures.get("bailing_moe") / "4-bit"
    config = json.loads((made / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | dict(norm_head=True)))
    (tmp_path / "model.safetensors").symlink_to(made / "model.safetensors")
    done = run("generate", "--model", tmp_path, "--prompt-ids", "1", "--ids")
    assert done.returncode == 1 and '"norm_head"' in done.stderr
