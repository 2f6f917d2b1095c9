"""One random Llama in the formats of both sides: an MLX folder (affine, 4 bits, group 64) and a GGUF file (Q4_0).

Both store 4.5 bits a weight and have the same shapes, so they take the same memory traffic. The weights mean nothing:
only speed is measured on them.
"""

import dataclasses
import json
import pathlib
import struct

import gguf
import numpy as np


@dataclasses.dataclass
class Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int

    def linears(self):
        """(GGUF name, MLX name, rows, columns) of a block's matrices."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [("attn_q", "self_attn.q_proj", q, self.hidden), ("attn_k", "self_attn.k_proj", kv, self.hidden),
                ("attn_v", "self_attn.v_proj", kv, self.hidden), ("attn_output", "self_attn.o_proj", self.hidden, q),
                ("ffn_gate", "mlp.gate_proj", self.intermediate, self.hidden),
                ("ffn_up", "mlp.up_proj", self.intermediate, self.hidden),
                ("ffn_down", "mlp.down_proj", self.hidden, self.intermediate)]


SHAPES = {
    "tiny": Shape(hidden=256, layers=6, heads=4, kv_heads=4, head_dim=64, intermediate=768, vocab=32000),
    "llama-3.2-1b": Shape(2048, 16, 32, 8, 64, 8192, 128256),
    "llama-3.2-3b": Shape(3072, 28, 24, 8, 128, 8192, 128256),
}
ROPE_THETA, EPS, CONTEXT = 500000.0, 1e-5, 131072
STEP = 0.003  # between two neighbouring values of a weight
GROUP = 64


def bfloat16(values):
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def mlx_tensors(shape):
    """(name, dtype, array) in file order; made one at a time, since all together are large."""
    rng = np.random.default_rng(0)

    def linear(name, rows, columns):
        yield name + ".weight", "U32", rng.integers(0, 2**32, (rows, columns // 8), dtype=np.uint32)
        yield name + ".scales", "BF16", np.full((rows, columns // GROUP), bfloat16(STEP))
        yield name + ".biases", "BF16", np.full((rows, columns // GROUP), bfloat16(-7.5 * STEP))

    def norm(name):
        yield name + ".weight", "BF16", np.full(shape.hidden, bfloat16(1.0))

    yield from linear("model.embed_tokens", shape.vocab, shape.hidden)
    for i in range(shape.layers):
        for _, name, rows, columns in shape.linears():
            yield from linear(f"model.layers.{i}.{name}", rows, columns)
        yield from norm(f"model.layers.{i}.input_layernorm")
        yield from norm(f"model.layers.{i}.post_attention_layernorm")
    yield from norm("model.norm")


def write_mlx(folder, shape):
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=shape.hidden,
                  num_hidden_layers=shape.layers, num_attention_heads=shape.heads, head_dim=shape.head_dim,
                  num_key_value_heads=shape.kv_heads, intermediate_size=shape.intermediate, vocab_size=shape.vocab,
                  rms_norm_eps=EPS, rope_theta=ROPE_THETA, max_position_embeddings=CONTEXT, hidden_act="silu",
                  tie_word_embeddings=True, quantization=dict(group_size=GROUP, bits=4, mode="affine"))
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    header, offset = {"__metadata__": {"format": "mlx"}}, 0
    for name, dtype, value in mlx_tensors(shape):
        header[name] = dict(dtype=dtype, shape=value.shape, data_offsets=[offset, offset + value.nbytes])
        offset += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, _, value in mlx_tensors(shape):
            out.write(value.tobytes())


def write_gguf(path, shape):
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(shape.layers)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(ROPE_THETA)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_vocab_size(shape.vocab)
    # llama.cpp wants some vocabulary of the right size.
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>"] + [f"t{i}" for i in range(3, shape.vocab)])
    writer.add_token_scores([0.0] * shape.vocab)
    writer.add_token_types([gguf.TokenType.UNKNOWN] + 2 * [gguf.TokenType.CONTROL]
                           + (shape.vocab - 3) * [gguf.TokenType.NORMAL])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    rng = np.random.default_rng(0)
    scale = np.float16(STEP).tobytes()

    def linear(name, rows, columns):  # blocks of 32: a float16 scale, then 16 bytes of two values each
        blocks = rng.integers(0, 256, (rows * columns // 32, 18), dtype=np.uint8)
        blocks[:, :2] = np.frombuffer(scale, np.uint8)
        data = blocks.reshape(rows, columns // 32 * 18)
        writer.add_tensor(name + ".weight", data, raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    def norm(name):
        writer.add_tensor(name + ".weight", np.ones(shape.hidden, np.float32))

    linear("token_embd", shape.vocab, shape.hidden)
    for i in range(shape.layers):
        for name, _, rows, columns in shape.linears():
            linear(f"blk.{i}.{name}", rows, columns)
        norm(f"blk.{i}.attn_norm")
        norm(f"blk.{i}.ffn_norm")
    norm("output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_pair(root, name):
    """(MLX folder, GGUF file) of SHAPES[name] below root; written once."""
    folder, file = pathlib.Path(root) / name / "mlx", pathlib.Path(root) / name / "q4_0.gguf"
    done = pathlib.Path(root) / name / "complete"
    if not done.exists():
        write_mlx(folder, SHAPES[name])
        write_gguf(file, SHAPES[name])
        done.touch()
    return folder, file
