/* step3p5.c - Step 3.5: layers with windows have other heads, and lists say much of what a layer
 * is. mlx-lm models/step3p5.py. */
#include "model/decoder.h"

#include <stdio.h>
#include <stdlib.h>

/* Published checkpoints have other names, and norms of w for 1 + w. */
static bool is_published(const loader *l, const desc *d) {
    char name[96];
    for (int64_t i = 0; i < d->n_layers; i++) {
        snprintf(name, sizeof name, "model.layers.%lld.moe.gate.weight", (long long)i);
        if (checkpoint_has(l->checkpoint, name)) return true;
    }
    return false;
}

void describe_step3p5(loader *l, desc *d) {
    read_decoder_keys(l, d, &(decoder_keys){.n_kv_heads = "num_attention_groups"},
                      &(decoder_defaults){.eps = 1e-5});
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    a->qk_norm = QK_HEADS;
    a->gate = config_bool_or(l, "use_head_wise_attn_gate", true) ? GATE_SIGMOID_HEAD : GATE_NONE;
    e->n = config_int_or(l, "moe_num_experts", 1, 65536, 288);
    e->width = config_int_or(l, "moe_intermediate_size", 1, MAX_DIM, 1280);
    e->shared = config_int_or(l, "share_expert_dim", 1, MAX_DIM, 1280);
    e->bias = e->f32_scores = e->own_shared_act = true;
    e->route = (route_spec){.k = (int)config_int_or(l, "moe_top_k", 1, 65536, 8),
                            .score = SCORE_SIGMOID,
                            .renormalize = config_bool_or(l, "norm_expert_weight", true),
                            .eps = 1e-20f,
                            .scale = (float)config_float_or(l, "moe_router_scaling_factor", 3)};
    if (e->route.k > e->n) config_refuse(l, "moe_top_k", "is more than moe_num_experts");
    d->names.out_gate = "self_attn.g_proj";
    bool published = !l->failed && is_published(l, d);
    d->norm_offset = published;
    d->names.router = published ? "moe.gate" : "mlp.gate.gate";
    d->names.router_bias = published ? "moe.router_bias" : "mlp.gate.router_bias";
    d->names.experts = published ? "moe" : "mlp.switch_mlp";
    d->names.shared = published ? "share_expert" : "mlp.share_expert";
    d->predicts_more = true;
    d->own_caches = true;
}

/* Entry i of the list `key`; NULL when there is no list, or it is shorter. */
static const json *entry(const loader *l, const char *key, int64_t i) {
    const json *item = json_first(json_get(l->config, key));
    while (i-- > 0 && item) item = json_next(item);
    return item;
}

/* "3,4,5": is i one of these numbers? Without the text: all but the first layer are. */
static bool has_experts(const loader *l, int64_t i) {
    const char *text = json_string(json_get(l->config, "moe_layers_enum"));
    if (!text || !*text) return i > 0;
    for (char *end; *text; text = end + (*end == ','))
        if (strtoll(text, &end, 10) == i && end > text)
            return true;
        else if (end == text)
            break;
    return false;
}

static activation read_limit(loader *l, const char *key, int64_t i) {
    double limit = json_number(entry(l, key, i));
    if (!(limit > 0)) return ACT_SILU;
    if (limit != 7 && limit != 16) config_refuse(l, key, "has a limit that is neither 7 nor 16");
    return limit == 7 ? ACT_CLAMPED_7 : ACT_CLAMPED_16;
}

static void read_heads(loader *l, attention_desc *a) {
    const json *other = json_get(l->config, "attention_other_setting");
    if (!other || !json_is_object(other)) return;
    if (json_get_int(other, l->name, "num_attention_heads", true, 1, MAX_HEADS, &a->n_heads) ||
        json_get_int(other, l->name, "num_attention_groups", true, 1, MAX_HEADS, &a->n_kv_heads))
        l->failed = true;
}

static const rope_spec *rope_of_layer(loader *l, const desc *d, int64_t i, const char *type) {
    const json *theta = json_get(l->config, "rope_theta"), *part = entry(l, "partial_rotary_factors", i),
               *yarn = json_get(l->config, "yarn_only_types");
    int64_t dims = (int64_t)((double)d->layer.attention.head_dim * (part ? json_number(part) : 1));
    bool plain = json_length(yarn) > 0;
    for (const json *item = json_first(yarn); item; item = json_next(item))
        if (json_string(item) && !strcmp(json_string(item), type)) plain = false;
    if (dims < 2 || dims > d->layer.attention.head_dim || dims % 2)
        config_refuse(l, "partial_rotary_factors", "has no part of head_dim");
    rope_wish wish = {.dims = dims, .theta = 10000, .plain = plain};
    if (json_is_array(theta)) {
        wish.theta = json_number(entry(l, "rope_theta", i));
        wish.theta_key = "";
        if (!(wish.theta > 0)) config_refuse(l, "rope_theta", "has no number for every layer");
    }
    return l->failed ? NULL : read_rope(l, &wish);
}

void layer_step3p5(loader *l, const desc *d, int64_t i, layer_desc *out) {
    const json *types = json_get(l->config, "layer_types");
    bool listed = json_length(types) > 0;
    const char *type = listed ? json_string(entry(l, "layer_types", i)) : "full_attention";
    bool sliding = listed ? type && !strcmp(type, "sliding_attention") : i % 2 == 0;
    if (!type) config_refuse(l, "layer_types", "has not one entry per layer");
    if (l->failed) return;
    if (sliding) {
        out->attention.window = config_int_or(l, "sliding_window", 2, INT32_MAX, 512);
        read_heads(l, &out->attention);
    }
    out->attention.rope = rope_of_layer(l, d, i, type);
    out->ffn.moe.shared_act = read_limit(l, "swiglu_limits_shared", i);
    out->ffn.act = out->ffn.moe.shared_act;
    if (!has_experts(l, i)) return;
    out->ffn.kind = FFN_EXPERTS;
    out->ffn.act = read_limit(l, "swiglu_limits", i);
}
