"""Small good files for the tests to break, written byte by byte: a checkpoint folder, a GGUF file, a tokenizer."""

import json
import pathlib
import struct

import gguf
import numpy as np

CONFIG = dict(model_type="llama", hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
              num_key_value_heads=1, head_dim=32, vocab_size=96, rms_norm_eps=1e-5, rope_theta=10000.0,
              max_position_embeddings=1000000, tie_word_embeddings=True)


def weights():
    """name -> float32 array of a llama with CONFIG."""
    rng = np.random.default_rng(1)
    shapes = {"model.embed_tokens.weight": (96, 64), "model.norm.weight": (64,)}
    for i in range(2):
        block = f"model.layers.{i}."
        shapes |= {block + "input_layernorm.weight": (64,), block + "post_attention_layernorm.weight": (64,),
                   block + "self_attn.q_proj.weight": (64, 64), block + "self_attn.k_proj.weight": (32, 64),
                   block + "self_attn.v_proj.weight": (32, 64), block + "self_attn.o_proj.weight": (64, 64),
                   block + "mlp.gate_proj.weight": (64, 64), block + "mlp.up_proj.weight": (64, 64),
                   block + "mlp.down_proj.weight": (64, 64)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def safetensors_parts(tensors):
    """(header, data): the header as a dict that a test may change."""
    header, data = {"__metadata__": {"format": "mlx"}}, b""
    for name, value in tensors.items():
        header[name] = dict(dtype="F32", shape=list(value.shape), data_offsets=[len(data), len(data) + value.nbytes])
        data += value.tobytes()
    return header, data


def safetensors_bytes(header, data, length=None):
    """The file; header a dict or raw text, length what the file says the header's is."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def write_folder(folder, config=None, file=None, tokenizer=True):
    """A checkpoint folder; config and file (bytes of model.safetensors) replace the good ones."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    (folder / "model.safetensors").write_bytes(safetensors_bytes(*safetensors_parts(weights()))
                                               if file is None else file)
    if tokenizer:
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    return folder


def byte_alphabet():
    """GPT-2's characters for the 256 bytes, of which the printable ASCII ones are enough here."""
    return [chr(c) for c in range(33, 127)][:94] + ["Ġ"]


def tokenizer_json():
    tokens = byte_alphabet() + ["Ġt"]
    return dict(version="1.0", truncation=None, padding=None, added_tokens=[], normalizer=None,
                pre_tokenizer=dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True),
                post_processor=None, decoder=dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True,
                                                  use_regex=True),
                model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None,
                           end_of_word_suffix=None, fuse_unk=False, byte_fallback=False, ignore_merges=False,
                           vocab={token: i for i, token in enumerate(tokens)}, merges=["Ġ t"]))


GGUF_NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
              "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
              "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[rest.removesuffix('.weight')]}.weight"


def write_gguf(path, skip=(), raw_dtype=None, split_max_tensors=0):
    """A GGUF file of the same model. skip: metadata keys to leave out; raw_dtype: store blk.0.attn_q so;
    split_max_tensors: in several files, named as llama.cpp does."""
    writer = gguf.GGUFWriter(str(path), "llama", split_max_tensors=split_max_tensors)
    add = {"block_count": lambda: writer.add_block_count(2), "context_length": lambda: writer.add_context_length(2048),
           "embedding_length": lambda: writer.add_embedding_length(64),
           "feed_forward_length": lambda: writer.add_feed_forward_length(64),
           "head_count": lambda: writer.add_head_count(2), "head_count_kv": lambda: writer.add_head_count_kv(1),
           "rms_eps": lambda: writer.add_layer_norm_rms_eps(1e-5),
           "rope_freq_base": lambda: writer.add_rope_freq_base(10000.0),
           "rope_dimension_count": lambda: writer.add_rope_dimension_count(32),
           "key_length": lambda: writer.add_key_length(32), "value_length": lambda: writer.add_value_length(32),
           "tokens": lambda: writer.add_token_list(byte_alphabet() + ["Ġt"]),
           "merges": lambda: writer.add_token_merges(["Ġ t"]),
           "model": lambda: writer.add_tokenizer_model("gpt2"), "pre": lambda: writer.add_tokenizer_pre("smollm"),
           "types": lambda: writer.add_token_types([1] * 96)}
    for key, call in add.items():
        if key not in skip:
            call()
    for name, value in weights().items():
        if raw_dtype is not None and name == "model.layers.0.self_attn.q_proj.weight":
            block, size = gguf.GGML_QUANT_SIZES[raw_dtype]
            writer.add_tensor(gguf_name(name), np.zeros((64, max(64 // block, 1) * size), np.uint8),
                              raw_dtype=raw_dtype)
        else:
            writer.add_tensor(gguf_name(name), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return pathlib.Path(path)
