"""Tiny random checkpoints of every family, saved by mlx-lm itself, in every dtype and quantization.

The weights are made so that the tests mean something: norms and biases are not trivial, attention is not uniform,
and logits are peaked, so that a greedy choice does not hang on the last bit.
"""

import copy
import json
import pathlib

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.utils import _get_classes, save_config

COMMON = dict(hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, vocab_size=320, rms_norm_eps=1e-5, max_position_embeddings=4096,
              rope_theta=10000.0, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
# Its original context is short, so that all three ranges of frequencies occur.
LLAMA3_ROPE = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=128)
QWEN3_MOE = dict(COMMON, model_type="qwen3_moe", head_dim=32, num_experts=8, num_experts_per_tok=2,
                 decoder_sparse_step=1, mlp_only_layers=[], moe_intermediate_size=64, norm_topk_prob=True)

# One entry per thing that a config.json can change about a family.
CONFIGS = {
    "llama": dict(COMMON, model_type="llama", rope_scaling=LLAMA3_ROPE, rope_theta=500000.0),
    "llama_tied": dict(COMMON, model_type="llama", tie_word_embeddings=True, head_dim=64),
    "llama_biases": dict(COMMON, model_type="llama", attention_bias=True, mlp_bias=True, num_key_value_heads=4),
    "llama_linear_rope": dict(COMMON, model_type="llama", rope_scaling=dict(type="linear", factor=4.0)),
    "llama_traditional_rope": dict(COMMON, model_type="llama", rope_traditional=True),
    "llama_window": dict(COMMON, model_type="llama", sliding_window=32,
                         layer_types=["sliding_attention", "full_attention"]),
    "mistral": dict(COMMON, model_type="mistral", head_dim=64, sliding_window=None),
    "qwen2": dict(COMMON, model_type="qwen2", rope_theta=1000000.0),
    "qwen2_tied": dict(COMMON, model_type="qwen2", tie_word_embeddings=True),
    "qwen3": dict(COMMON, model_type="qwen3", head_dim=64),
    "qwen3_rope_parameters": dict({k: v for k, v in COMMON.items() if k != "rope_theta"}, model_type="qwen3",
                                  head_dim=64, tie_word_embeddings=True,
                                  rope_parameters=dict(rope_theta=20000.0, rope_type="default")),
    "gemma3_text": dict(COMMON, model_type="gemma3_text", num_hidden_layers=6, num_key_value_heads=1, head_dim=64,
                        query_pre_attn_scalar=24, sliding_window=32, sliding_window_pattern=3,
                        rope_theta=1000000.0, rope_local_base_freq=10000.0, tie_word_embeddings=True),
    "gemma3_text_untied": dict(COMMON, model_type="gemma3_text", num_hidden_layers=3, head_dim=32,
                               query_pre_attn_scalar=32, sliding_window=32, sliding_window_pattern=3,
                               rope_scaling=dict(rope_type="linear", factor=8.0)),
    "qwen3_moe": QWEN3_MOE,
    "qwen3_moe_mixed": dict(QWEN3_MOE, num_hidden_layers=3, mlp_only_layers=[1], norm_topk_prob=False,
                            num_experts_per_tok=3, tie_word_embeddings=True),
}
FAMILIES = ["llama", "qwen2", "qwen3", "gemma3_text", "qwen3_moe"]


def random_parameter(config, path, old):
    """A new value for the parameter at path: its spread decides how peaked the model's choices are."""
    value = mx.random.normal(old.shape)
    gemma_tied = config["model_type"] == "gemma3_text" and config["tie_word_embeddings"]
    if path.endswith("norm.weight"):
        # Gemma's norms multiply by one plus the weight. Its last one makes up for the small
        # embedding below.
        mean = 7.0 if gemma_tied and path == "model.norm.weight" else 0.0
        return mean + (0.0 if config["model_type"] == "gemma3_text" else 1.0) + 0.2 * value
    if path.endswith(".bias"):
        return 0.3 * value
    spread = old.shape[-1] ** -0.5
    if path.startswith("model.embed_tokens"):
        # A tied output would repeat the last token if the embedding outweighed what the layers add,
        # and Gemma multiplies it by the root of hidden_size.
        return (0.05 if gemma_tied else 0.6 if config["tie_word_embeddings"] else 1.0) * value
    if "q_proj" in path or "k_proj" in path:
        return 2.0 * spread * value
    return 3.0 * spread * value


def make(folder, name, dtype="float32", quantization=None, seed=0, **changes):
    """Writes the checkpoint CONFIGS[name] into folder and returns it. quantization: dict(bits, group_size, mode) and,
    by module path, a dict of the same or False, as in config.json."""
    folder = pathlib.Path(folder)
    config = copy.deepcopy(CONFIGS[name]) | changes
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    mx.random.seed(seed)
    if config["tie_word_embeddings"] and "lm_head" in model:
        model.pop("lm_head")
    model.update(tree_map_with_path(lambda path, old: random_parameter(config, path, old), model.parameters()))
    model.set_dtype(getattr(mx, dtype))
    if quantization:
        quantize(model, quantization)
        config["quantization"] = dict(quantization)
    folder.mkdir(parents=True, exist_ok=True)
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    save_config(config, folder / "config.json")
    return folder


def quantize(model, quantization):
    def predicate(path, module):
        if not hasattr(module, "to_quantized"):
            return False
        return quantization.get(path, True)

    nn.quantize(model, quantization["group_size"], quantization["bits"], mode=quantization.get("mode", "affine"),
                class_predicate=predicate)


def shard(folder, n):
    """Splits the checkpoint's weights into n files with an index, as large checkpoints are."""
    folder = pathlib.Path(folder)
    weights = mx.load(str(folder / "model.safetensors"))
    names = sorted(weights)
    index = {}
    for i in range(n):
        file = f"model-{i + 1:05}-of-{n:05}.safetensors"
        part = {name: weights[name] for name in names[i::n]}
        mx.save_safetensors(str(folder / file), part, metadata={"format": "mlx"})
        index |= {name: file for name in part}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
