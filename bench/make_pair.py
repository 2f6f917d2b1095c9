"""One random model in the formats of both sides: an MLX folder (affine, 4 bits, group 64) and a GGUF file (Q4_0).

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
    """A Llama, or with experts a Qwen3-MoE. intermediate is one expert's."""
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    experts: int = 0
    experts_used: int = 0

    def linears(self):
        """(GGUF name, MLX name, rows, columns) of a block's matrices without its experts."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [("attn_q", "self_attn.q_proj", q, self.hidden), ("attn_k", "self_attn.k_proj", kv, self.hidden),
                ("attn_v", "self_attn.v_proj", kv, self.hidden), ("attn_output", "self_attn.o_proj", self.hidden, q),
                *([] if self.experts else self.feed_forward("ffn_{}", "mlp.{}_proj"))]

    def feed_forward(self, gguf_name, mlx_name):
        return [(gguf_name.format(part), mlx_name.format(part), *size) for part, size in
                [("gate", (self.intermediate, self.hidden)), ("up", (self.intermediate, self.hidden)),
                 ("down", (self.hidden, self.intermediate))]]

    def expert_linears(self):
        return self.feed_forward("ffn_{}_exps", "mlp.switch_mlp.{}_proj") if self.experts else []

    def macs(self):
        """Multiplications of a new token with weights: all of them but experts that are not chosen, and the
        embedding where it has its own matrix."""
        block = sum(rows * columns for _, _, rows, columns in self.linears())
        block += self.experts_used * sum(rows * columns for _, _, rows, columns in self.expert_linears())
        return self.layers * (block + self.experts * self.hidden) + self.vocab * self.hidden

    def weight_bytes(self):
        """What those weights take, at 4.5 bits each; a router is 16 bits wide."""
        routers = self.layers * self.experts * self.hidden
        return (self.macs() - routers) * 4.5 / 8 + routers * 2

    def attention_macs(self, context):
        return 2 * self.layers * self.heads * self.head_dim * context

    def kv_bytes(self, context):
        """Keys and values of a context in 16 bits."""
        return 4 * self.layers * self.kv_heads * self.head_dim * context


SHAPES = {
    "tiny": Shape(hidden=256, layers=6, heads=4, kv_heads=4, head_dim=64, intermediate=768, vocab=32000),
    "llama-3.2-1b": Shape(2048, 16, 32, 8, 64, 8192, 128256),
    # A quarter of its layers and of its vocabulary: the proportions of a token's work, in a quarter
    # of the time.
    "llama-3.2-1b-quarter": Shape(2048, 4, 32, 8, 64, 8192, 32064),
    "llama-3.2-3b": Shape(3072, 28, 24, 8, 128, 8192, 128256),
    "qwen3-30b-a3b-6-layers": Shape(2048, 6, 32, 4, 128, 768, 151936, experts=128, experts_used=8),
}
ROPE_THETA, EPS, CONTEXT = 500000.0, 1e-5, 131072
STEP = 0.003  # between two neighbouring values of a weight
GROUP = 64


def bfloat16(values):
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def mlx_tensors(shape):
    """(name, dtype, array) in file order; made one at a time, since all together are large."""
    rng = np.random.default_rng(0)

    def linear(name, *rows_and_columns):
        *rows, columns = rows_and_columns
        yield name + ".weight", "U32", rng.integers(0, 2**32, (*rows, columns // 8), dtype=np.uint32)
        yield name + ".scales", "BF16", np.full((*rows, columns // GROUP), bfloat16(STEP))
        yield name + ".biases", "BF16", np.full((*rows, columns // GROUP), bfloat16(-7.5 * STEP))

    def norm(name, width=shape.hidden):
        yield name + ".weight", "BF16", np.full(width, bfloat16(1.0))

    yield from linear("model.embed_tokens", shape.vocab, shape.hidden)
    for i in range(shape.layers):
        for _, name, rows, columns in shape.linears():
            yield from linear(f"model.layers.{i}.{name}", rows, columns)
        for _, name, rows, columns in shape.expert_linears():
            yield from linear(f"model.layers.{i}.{name}", shape.experts, rows, columns)
        if shape.experts:
            router = rng.normal(0, STEP, (shape.experts, shape.hidden))
            yield f"model.layers.{i}.mlp.gate.weight", "BF16", bfloat16(router)
            yield from norm(f"model.layers.{i}.self_attn.q_norm", shape.head_dim)
            yield from norm(f"model.layers.{i}.self_attn.k_norm", shape.head_dim)
        yield from norm(f"model.layers.{i}.input_layernorm")
        yield from norm(f"model.layers.{i}.post_attention_layernorm")
    yield from norm("model.norm")
    if shape.experts:
        yield from linear("lm_head", shape.vocab, shape.hidden)


def write_mlx(folder, shape):
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=shape.hidden,
                  num_hidden_layers=shape.layers, num_attention_heads=shape.heads, head_dim=shape.head_dim,
                  num_key_value_heads=shape.kv_heads, intermediate_size=shape.intermediate, vocab_size=shape.vocab,
                  rms_norm_eps=EPS, rope_theta=ROPE_THETA, max_position_embeddings=CONTEXT, hidden_act="silu",
                  tie_word_embeddings=not shape.experts, quantization=dict(group_size=GROUP, bits=4, mode="affine"))
    if shape.experts:
        config.update(model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], num_experts=shape.experts,
                      num_experts_per_tok=shape.experts_used, moe_intermediate_size=shape.intermediate,
                      decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True)
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
    writer = gguf.GGUFWriter(str(path), "qwen3moe" if shape.experts else "llama")
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
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.experts_used)
        writer.add_expert_feed_forward_length(shape.intermediate)
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

    def linear(name, *rows_and_columns):  # blocks of 32: a float16 scale, then 16 bytes of two values each
        *rows, columns = rows_and_columns
        blocks = rng.integers(0, 256, (*rows, columns // 32, 18), dtype=np.uint8)
        blocks[..., :2] = np.frombuffer(scale, np.uint8)
        data = blocks.reshape(*rows, columns // 32 * 18)
        writer.add_tensor(name + ".weight", data, raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    def norm(name, width=shape.hidden):
        writer.add_tensor(name + ".weight", np.ones(width, np.float32))

    linear("token_embd", shape.vocab, shape.hidden)
    for i in range(shape.layers):
        for name, _, rows, columns in shape.linears():
            linear(f"blk.{i}.{name}", rows, columns)
        for name, _, rows, columns in shape.expert_linears():
            linear(f"blk.{i}.{name}", shape.experts, rows, columns)
        if shape.experts:
            router = rng.normal(0, STEP, (shape.experts, shape.hidden)).astype(np.float32)
            writer.add_tensor(f"blk.{i}.ffn_gate_inp.weight", router)
            norm(f"blk.{i}.attn_q_norm", shape.head_dim)
            norm(f"blk.{i}.attn_k_norm", shape.head_dim)
        norm(f"blk.{i}.attn_norm")
        norm(f"blk.{i}.ffn_norm")
    norm("output_norm")
    if shape.experts:
        linear("output", shape.vocab, shape.hidden)
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
