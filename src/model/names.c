/* names.c - what mlx-lm calls the weights of most decoders; a description changes what is particular. */
#include "model/decoder.h"

const names default_names = {
    .embed = "model.embed_tokens",
    .norm = "model.norm",
    .head = "lm_head",
    .layers = "model.layers",
    .q = "self_attn.q_proj",
    .k = "self_attn.k_proj",
    .v = "self_attn.v_proj",
    .o = "self_attn.o_proj",
    .q_norm = "self_attn.q_norm",
    .k_norm = "self_attn.k_norm",
    .pre = "input_layernorm",
    .post = "post_attention_layernorm", /* of PLACES_POST and PLACES_SANDWICH */
    .ffn_pre = "post_attention_layernorm",
    .ffn_post = "post_feedforward_layernorm",
    .gate = "mlp.gate_proj",
    .up = "mlp.up_proj",
    .down = "mlp.down_proj",
    .router = "mlp.gate",
    .experts = "mlp.switch_mlp",
};
