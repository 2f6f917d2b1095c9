/* arch_gated.c - architectures with windows in most layers whose layers differ in more than that -
 * heads, rope, gates, sinks: what each changes. mlx-lm: models/, the file of that name. */
#include "model/decoder.h"

#include <math.h>

static const char *type_of(bool sliding) {
    return sliding ? "sliding_attention" : "full_attention";
}

/* A rope for each kind of layer, with partial_rotary_factor beside its base. */
static const rope_spec *rope_of_type(loader *l, const desc *d, bool sliding, bool plain) {
    const json *own = json_get(json_get(l->config, "rope_parameters"), type_of(sliding));
    double factor = config_float_or(l, "partial_rotary_factor", 1);
    if (!l->failed) l->failed = json_get_float(own, l->name, "partial_rotary_factor", false, &factor) < 0;
    int64_t dims = (int64_t)((double)d->layer.attention.head_dim * factor);
    if (!l->failed && (dims < 2 || dims % 2 || dims > d->layer.attention.head_dim))
        config_refuse(l, "rope_parameters", "partial_rotary_factor is no part of head_dim");
    return l->failed ? NULL
                     : read_rope(l, &(rope_wish){.dims = dims,
                                                 .theta = 10000,
                                                 .theta_key = "",
                                                 .layer_type = type_of(sliding),
                                                 .plain = plain});
}

/* A gate for each head; query, key and value are one matrix. */
void describe_spark2_5(loader *l, desc *d) {
    read_decoder_or(l, d, &(decoder_defaults){.eps = 1e-6});
    attention_desc *a = &d->layer.attention;
    const char *act = "gelu";
    if (!l->failed) l->failed = json_get_string(l->config, l->name, "hidden_act", false, &act) < 0;
    if (!l->failed && strcmp(act, "gelu")) config_refuse(l, "hidden_act", "is not gelu");
    a->packing = PACKING_ROWS;
    a->qkv_bias = a->o_bias = a->gate_bias = config_bool_or(l, "attention_bias", false);
    a->gate = GATE_SIGMOID_HEAD;
    a->gate_f32 = true;
    d->layer.ffn.act = ACT_GELU;
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", false);
    d->names.embed = "model.embedding";
    d->names.qkv = "self_attn.q_k_v_proj";
    d->names.o = "self_attn.out_proj";
    d->names.out_gate = "self_attn.g_proj";
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
    d->own_caches = true;
}

void layer_spark2_5(loader *l, const desc *d, int64_t i, layer_desc *out) {
    bool sliding = is_sliding(l, d, i, i % 4 != 3);
    if (sliding) out->attention.window = config_int(l, "sliding_window", 2, INT32_MAX);
    out->attention.rope = rope_of_type(l, d, sliding, true);
}

/* Norms on both sides and on the embedding, a gate on attention; only layers with windows have
 * positions. */
void describe_muse_glimmer(loader *l, desc *d) {
    static const decoder_defaults defaults = {6656, 52, 202048, 32, 2, 128, 19968, 1e-5};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    a->qk_norm = QK_HEADS;
    a->qk_weightless = true;
    a->q_scale = config_float_or(l, "qk_scale_factor", 3.87);
    a->gate = GATE_SIGMOID;
    const json *parameters = json_get(l->config, "rope_parameters"); /* it wins here */
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 500000,
                                        .theta_key = json_get(parameters, "rope_theta") ? "" : NULL,
                                        .plain = true,
                                        .nested = true});
    d->norm_offset = 1;
    d->last_norm_plain = d->embed_norm = true;
    d->post_eps = (float)config_float_or(l, "post_norm_eps", 1e-8);
    d->layer.places = PLACES_SANDWICH;
    d->names.ffn_pre = "pre_feedforward_layernorm";
    d->logit_scale = config_float_or(l, "output_multiplier", 0.19611613513818404);
    d->logit_cap = config_float_or(l, "final_logit_softcapping", 20);
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    d->own_caches = true;
}

void layer_muse_glimmer(loader *l, const desc *d, int64_t i, layer_desc *out) {
    bool sliding = is_sliding(l, d, i, i % 4 != 3);
    const json *theta = config_per_layer(l, "layer_rope_theta", i, d->n_layers);
    if (sliding) out->attention.window = config_int_or(l, "sliding_window", 2, INT32_MAX, 2048);
    if (theta ? json_number(theta) == 0 : !sliding) out->attention.rope = NULL;
}

/* Layers have numbers of heads of their own, and a gate for each; experts after the first
 * layers. */
void describe_laguna(loader *l, desc *d) {
    static const decoder_defaults defaults = {2048, 40, 100352, 48, 8, 128, 8192, 1e-6};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    a->qk_norm = QK_HEADS;
    a->qkv_bias = config_bool_or(l, "qkv_bias", false);
    a->o_bias = config_bool_or(l, "attention_bias", false);
    a->gate = config_bool_or(l, "gating", true) ? GATE_SOFTPLUS_HEAD : GATE_NONE;
    e->n = config_int_or(l, "num_experts", 1, 65536, 256);
    e->width = config_int_or(l, "moe_intermediate_size", 1, MAX_DIM, 512);
    e->shared = config_int_or(l, "shared_expert_intermediate_size", 1, MAX_DIM, 512);
    e->route = (route_spec){.k = (int)config_int_or(l, "num_experts_per_tok", 1, 65536, 8),
                            .score = SCORE_SIGMOID,
                            .renormalize = true};
    e->bias = e->f32_scores = true;
    e->logit_cap = config_float_or(l, "moe_router_logit_softcapping", 0);
    e->result_scale = config_float_or(l, "moe_routed_scaling_factor", 1);
    const char *score = "sigmoid";
    if (!l->failed)
        l->failed = json_get_string(l->config, l->name, "moe_router_score_func", false, &score) < 0;
    if (!l->failed && strcmp(score, "sigmoid"))
        config_refuse(l, "moe_router_score_func", "is not supported (sigmoid is)");
    if (e->route.k > e->n) config_refuse(l, "num_experts_per_tok", "is more than num_experts");
    d->names.out_gate = "self_attn.g_proj";
    d->names.router = "mlp.gate.proj";
    d->names.shared = "mlp.shared_expert";
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    d->own_caches = true;
}

void layer_laguna(loader *l, const desc *d, int64_t i, layer_desc *out) {
    attention_desc *a = &out->attention;
    bool sliding = is_sliding(l, d, i, false);
    const json *n = config_per_layer(l, "num_attention_heads_per_layer", i, d->n_layers);
    const char *kind = json_string(config_per_layer(l, "mlp_layer_types", i, d->n_layers));
    if (n && (json_number(n) < 1 || json_number(n) > MAX_HEADS))
        config_refuse(l, "num_attention_heads_per_layer", "has a number of heads that cannot be");
    else if (n)
        a->n_heads = (int64_t)json_number(n);
    if (sliding) a->window = config_int_or(l, "sliding_window", 2, INT32_MAX, 512);
    a->rope = rope_of_type(l, d, sliding, false);
    if (kind ? !strcmp(kind, "sparse") : i > 0) out->ffn.kind = FFN_EXPERTS;
}

/* Heads of values are smaller than those of keys; layers with windows have other heads, and
 * sinks. */
void describe_mimo_v2_flash(loader *l, desc *d) {
    read_decoder_keys(l, d, &(decoder_keys){.eps = "layernorm_epsilon"}, &(decoder_defaults){0});
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    a->v_scale = config_float_or(l, "attention_value_scale", 0);
    d->names.sinks = "self_attn.attention_sink_bias";
    e->n = config_int_or(l, "n_routed_experts", 0, 65536, 0);
    e->width = config_int(l, "moe_intermediate_size", 1, MAX_DIM);
    e->shared = e->width * config_int_or(l, "n_shared_experts", 0, 64, 0);
    e->route.k = (int)config_int(l, "num_experts_per_tok", 1, 65536);
    e->route.eps = 1e-20f;
    e->f32_scores = true;
    read_sigmoid_routing(l, e);
    d->own_caches = true;
}

/* Learned factors everywhere, and every layer adds the embedding; norms have no weights, and rope
 * turns the other way. */
void describe_talkie(loader *l, desc *d) {
    static const decoder_defaults defaults = {5120, 40, 65540, 40, 0, 128, 13696, 0x1p-23};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    a->n_kv_heads = a->n_heads;
    a->qk_norm = QK_AFTER_ROPE;
    a->qk_weightless = a->q_gain = true;
    a->rope = read_rope(
        l,
        &(rope_wish){.dims = a->head_dim, .theta = 1000000, .plain = true, .negative = true, .powers = true});
    d->norm_weightless = d->embed_norm = d->gains = true;
    d->names = (names){.embed = "model.embed",
                       .head = "lm_head",
                       .layers = "model.blocks",
                       .q = "attn.attn_query",
                       .k = "attn.attn_key",
                       .v = "attn.attn_value",
                       .o = "attn.attn_resid",
                       .gate = "mlp.mlp_gate",
                       .up = "mlp.mlp_linear",
                       .down = "mlp.mlp_resid"};
}

static bool flag_of_layer(loader *l, const char *key, int64_t i, int64_t n_layers) {
    const json *flag = config_per_layer(l, key, i, n_layers);
    if (!flag) config_refuse(l, key, "is missing");
    return json_number(flag) == 1;
}

void layer_mimo_v2_flash(loader *l, const desc *d, int64_t i, layer_desc *out) {
    attention_desc *a = &out->attention;
    bool sliding = flag_of_layer(l, "hybrid_layer_pattern", i, d->n_layers);
    if (sliding) {
        a->n_heads = config_int(l, "swa_num_attention_heads", 1, MAX_HEADS);
        a->n_kv_heads = config_int(l, "swa_num_key_value_heads", 1, MAX_HEADS);
        a->head_dim = config_int(l, "swa_head_dim", 2, MAX_DIM);
        a->window = config_int(l, "sliding_window_size", 2, INT32_MAX);
    }
    a->v_head_dim = config_int(l, sliding ? "swa_v_head_dim" : "v_head_dim", 1, MAX_DIM);
    a->sinks = config_bool(l, sliding ? "add_swa_attention_sink_bias" : "add_full_attention_sink_bias");
    double part = config_float(l, "partial_rotary_factor");
    if (!l->failed && !(part > 0 && part <= 1))
        config_refuse(l, "partial_rotary_factor", "is not between 0 and 1");
    if (l->failed) return;
    a->rope = read_rope(l, &(rope_wish){.dims = (int64_t)(part * (double)a->head_dim) / 2 * 2,
                                        .theta_key = sliding ? "swa_rope_theta" : "rope_theta",
                                        .plain = true});
    if (flag_of_layer(l, "moe_layer_freq", i, d->n_layers)) out->ffn.kind = FFN_EXPERTS;
}
