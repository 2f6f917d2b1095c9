"""Tiny checkpoints as they are published: the rules below run mlx-lm's `sanitize` of each architecture backwards. A key of
STEPS is a model_type, perhaps with a word on a variant."""

import json

import architectures
import mlx.core as mx


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


def gpt2_columns(weights, config):
    """Matrices as columns, and the names that say so."""
    for name in list(weights):
        w = weights.pop(name)
        columns = w.ndim == 2 and ".h." in name
        weights[name.removeprefix("model.")] = mx.contiguous(w.T) if columns else w
    weights["h.0.attn.bias"] = mx.ones((1, 1, 4, 4))


def dbrx_experts(weights, config):
    """All experts' rows in one matrix, those of w2 as columns."""
    n = config["ffn_config"]["moe_num_experts"]
    for name in [name for name in weights if ".ffn.experts.0." in name]:
        start, leaf = name.split(".experts.0.")
        parts = [weights.pop(f"{start}.experts.{i}.{leaf}") for i in range(n)]
        weights[f"{start}.experts.mlp.{leaf.removesuffix('.weight')}"] = mx.concatenate(
            [w.T if "w2" in leaf else w for w in parts])


def phixtral_experts(weights, config):
    own_experts()(weights, config)
    rename(weights, moe__experts="moe__mlp")


def kimi_linear_names(weights, config):
    rename(weights, mlp__e_score="block_sparse_moe__gate__e_score", mlp__shared="block_sparse_moe__shared",
           mlp__gate__weight="block_sparse_moe__gate__weight", mlp__experts="block_sparse_moe__experts",
           q_conv__conv="q_conv1d", k_conv__conv="k_conv1d", v_conv__conv="v_conv1d")
    heads = config["linear_attn_config"]["num_heads"]
    for name in weights:
        if name.endswith("dt_bias"):
            weights[name] = weights[name].reshape(heads, -1)


STEPS = {
    "Klear": [own_experts("experts")],
    "afmoe": [own_experts("experts"), rotary, tied_head],
    "apertus": [numbers_in_lists, tied_head],
    "bailing_moe_v3": [own_experts(), whole_kv_b, published_conv, next_layer, lambda weights, config: config.update(
        model_type="bailing_hybrid", architectures=["BailingMoeV3ForCausalLM"])],
    "bailing_hybrid": [own_experts(), whole_kv_b, router_as_linear, next_layer],
    "bailing_moe_linear": [own_experts(), router_as_linear, normalized_head],
    "bailing_moe": [own_experts(), router_as_linear, normalized_head],
    "dbrx": [dbrx_experts],
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
    "gpt2": [gpt2_columns],
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
    "kimi_linear": [own_experts(**META), whole_kv_b, published_conv, kimi_linear_names, mtp("model.mtp.norm.weight")],
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
    "phimoe": [own_experts(**META)],
    "phixtral": [phixtral_experts],
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
