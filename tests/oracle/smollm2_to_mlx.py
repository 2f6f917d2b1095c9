"""The demo model's GGUF file as an MLX checkpoint folder with tokenizer.json: the same weights, bit for bit.

A Q4_1 block is affine quantization (4 bits, group 32), Q8_0 too (8 bits, group 32), so only names and layout change.
usage: smollm2_to_mlx.py FILE.gguf FOLDER [float32|float16|bfloat16]
"""

import json
import pathlib
import sys

import gguf
import mlx.core as mx
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

BLOCK = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def config_of(field):
    """config.json from the metadata; field(name) gives a metadata value."""
    quantization = dict(bits=4, group_size=32, mode="affine")
    return dict(
        architectures=["LlamaForCausalLM"], model_type="llama", tie_word_embeddings=True,
        hidden_size=field("llama.embedding_length"), intermediate_size=field("llama.feed_forward_length"),
        num_hidden_layers=field("llama.block_count"), vocab_size=field("llama.vocab_size"),
        num_attention_heads=field("llama.attention.head_count"),
        num_key_value_heads=field("llama.attention.head_count_kv"),
        rms_norm_eps=field("llama.attention.layer_norm_rms_epsilon"), rope_theta=field("llama.rope.freq_base"),
        max_position_embeddings=field("llama.context_length"), bos_token_id=field("tokenizer.ggml.bos_token_id"),
        eos_token_id=field("tokenizer.ggml.eos_token_id"),
        quantization=quantization | {"model.embed_tokens": quantization | {"bits": 8}})


def hugging_face_name(name):
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight"""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{BLOCK[parts[2]]}.{parts[3]}"
    return f"{OUTER[parts[0]]}.{parts[1]}"


def half_split_rows(rows, heads):
    """llama.cpp stores the two halves that rope pairs interleaved; puts them one after the other again."""
    head_dim = rows.shape[0] // heads
    order = mx.arange(rows.shape[0]).reshape(heads, head_dim // 2, 2).transpose(0, 2, 1).reshape(-1)
    return rows[order]


def convert_weights(source, config, dtype):
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    result = {}
    for name, value in mx.load(str(source)).items():
        if value.dtype != mx.uint32:
            value = value.astype(dtype)
        part = name.split(".")[2] if name.startswith("blk.") else ""
        result[hugging_face_name(name)] = half_split_rows(value, heads[part]) if part in heads else value
    return result


def tokenizer_of(field):
    """GPT-2's byte-level BPE with single digits; control tokens are special."""
    tokens, types = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    control = gguf.TokenType.CONTROL
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)
                                  for token, kind in zip(tokens, types) if kind == control])
    return tokenizer


def convert(source, folder, dtype="float32"):
    """Writes the folder and returns it. dtype is that of scales, biases and norms."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    reader = gguf.GGUFReader(source)

    def field(name):
        return reader.fields[name].contents()

    config = config_of(field)
    mx.save_safetensors(str(folder / "model.safetensors"), convert_weights(source, config, getattr(mx, dtype)),
                        metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    tokenizer_of(field).save(str(folder / "tokenizer.json"))
    return folder


if __name__ == "__main__":
    convert(*sys.argv[1:])
