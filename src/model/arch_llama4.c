/* arch_llama4.c - Llama 4: most layers see their own chunk of the text, the others all of it,
 * without positions. mlx-lm: models/llama4.py, llama4_text.py. */
#include "model/decoder.h"

/* Whether Python takes the field for true; a field that is not there is. */
static bool is_on(const loader *l, const char *key) {
    const json *value = json_get(l->config, key);
    if (json_is_null(l->config, key)) return false;
    return !value || json_true(value) || json_number(value) != 0;
}

/* Every fourth layer. */
static bool is_global(int64_t i) {
    return (i + 1) % 4 == 0;
}

/* Norms without weights after rope. One expert for a token, whose input is weighed, beside an MLP
 * for all. */
void describe_llama4(loader *l, desc *d) {
    read_decoder_keys(l, d, &(decoder_keys){.width = "intermediate_size_mlp"}, &(decoder_defaults){0});
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    a->qkv_bias = a->o_bias = config_bool(l, "attention_bias");
    a->qk_norm = config_bool(l, "use_qk_norm") ? QK_AFTER_ROPE : QK_NONE;
    a->qk_weightless = true;
    a->qk_eps = 1e-6f;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .traditional = true});
    a->chunk = config_int(l, "attention_chunk_size", 1, INT32_MAX);
    e->n = config_int(l, "num_local_experts", 1, 65536);
    e->width = e->shared = config_int(l, "intermediate_size", 1, MAX_DIM);
    e->route = (route_spec){.k = 1, .score = SCORE_TOP_SIGMOID, .on_input = true};
    if (config_int(l, "num_experts_per_tok", 1, 65536) > 1)
        config_refuse(l, "num_experts_per_tok", "is more than 1, in mlx-lm neither");
    d->names.gate = "feed_forward.gate_proj";
    d->names.up = "feed_forward.up_proj";
    d->names.down = "feed_forward.down_proj";
    d->names.router = "feed_forward.router";
    d->names.experts = "feed_forward.experts";
    d->names.shared = "feed_forward.shared_expert";
    d->own_caches = true;
}

void layer_llama4(loader *l, const desc *d, int64_t i, layer_desc *out) {
    (void)d;
    attention_desc *a = &out->attention;
    int64_t step = config_int(l, "interleave_moe_layer_step", 1, MAX_LAYERS);
    if (!l->failed && i % step == step - 1) out->ffn.kind = FFN_EXPERTS;
    if (!is_global(i)) return;
    a->rope = NULL;
    a->qk_norm = QK_NONE;
    a->chunk = 0;
    double floor_scale = config_float_or(l, "floor_scale", 8192);
    if (!l->failed && !(floor_scale > 0)) config_refuse(l, "floor_scale", "is not positive");
    if (is_on(l, "attn_temperature_tuning"))
        a->temperature = (position_scale){.beta = (float)config_float_or(l, "attn_scale", 0.1),
                                          .shift = 1,
                                          .n = (float)floor_scale,
                                          .f32 = true};
}

/* The dense text model of Llama 4: norms without weights on query and key, some layers without
 * positions. */
void describe_llama4_text(loader *l, desc *d) {
    read_decoder_keys(l, d, &(decoder_keys){.width = "intermediate_size_mlp"}, &(decoder_defaults){0});
    attention_desc *a = &d->layer.attention;
    a->qk_norm = config_bool(l, "use_qk_norm") ? QK_HEADS : QK_NONE;
    a->qk_weightless = true;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .traditional = true, .plain = true});
    d->names.gate = "feed_forward.gate_proj";
    d->names.up = "feed_forward.up_proj";
    d->names.down = "feed_forward.down_proj";
    d->names.head = "output";
    d->tied = config_bool(l, "tie_word_embeddings");
}

void layer_llama4_text(loader *l, const desc *d, int64_t i, layer_desc *out) {
    const json *use_rope = config_per_layer(l, "no_rope_layers", i, d->n_layers);
    if (json_number(use_rope) == 0) out->attention.rope = NULL;
}
