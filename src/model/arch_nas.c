/* arch_nas.c - Llama that a search has thinned out: every layer says what it has of attention and
 * MLP. mlx-lm: models/nemotron-nas.py. */
#include "model/decoder.h"

#include <math.h>

/* The part of layer i's configuration; NULL: it has none. */
static const json *part_of(loader *l, const desc *d, int64_t i, const char *key) {
    return json_get(config_per_layer(l, "block_configs", i, d->n_layers), key);
}

static bool is_set(const json *part, const char *key) {
    return json_true(json_get(part, key));
}

static activation read_activation(loader *l) {
    static const struct {
        const char *name;
        activation act;
    } known[] = {{"silu", ACT_SILU},
                 {"relu", ACT_RELU},
                 {"gelu", ACT_GELU},
                 {"gelu_new", ACT_GELU_TANH},
                 {"gelu_fast", ACT_GELU_TANH}};
    const char *name = "silu";
    if (!l->failed) l->failed = json_get_string(l->config, l->name, "hidden_act", false, &name) < 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(name, known[i].name)) return known[i].act;
    config_refuse(l, "hidden_act", "is not known");
    return ACT_SILU;
}

/* Positions are those of a cache. */
static void check_attention(loader *l, const desc *d) {
    for (int64_t i = 0; i < d->n_layers && !l->failed; i++) {
        const json *part = part_of(l, d, i, "attention");
        if (!is_set(part, "no_op") && !is_set(part, "replace_with_linear")) return;
    }
    config_refuse(l, "block_configs", "no layer has attention");
}

void describe_nemotron_nas(loader *l, desc *d) {
    static const decoder_defaults defaults = {8192, 80, 128256, 64, 0, 0, 1, 1e-5}; /* widths: the layers' */
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->qkv_bias = a->o_bias = d->layer.linear_bias = config_bool_or(l, "attention_bias", false);
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", false);
    d->layer.ffn.act = read_activation(l);
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 500000});
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    d->own_caches = true;
    if (!json_get(l->config, "block_configs")) config_refuse(l, "block_configs", "is missing");
    check_attention(l, d);
}

/* Of a multiplier, as mlx-lm's _ffn_mult_to_intermediate_size has it. */
static int64_t width_of(loader *l, const json *part, int64_t hidden) {
    double factor = 0;
    if (!l->failed) l->failed = json_get_float(part, l->name, "ffn_mult", true, &factor) < 0;
    factor = rint(factor * 1e6) / 1e6;
    double width = 2 * factor * (double)hidden / 3;
    if (!l->failed && !(width >= 1 && width <= MAX_DIM))
        config_refuse(l, "block_configs", "an ffn_mult gives no width");
    return l->failed ? 1 : ((int64_t)width + 255) / 256 * 256;
}

void layer_nemotron_nas(loader *l, const desc *d, int64_t i, layer_desc *out) {
    const json *attends = part_of(l, d, i, "attention"), *feeds = part_of(l, d, i, "ffn");
    int64_t group = 1;
    out->only_ffn = is_set(attends, "no_op");
    out->linear = is_set(attends, "replace_with_linear");
    if (!out->only_ffn && !out->linear) {
        if (!l->failed)
            l->failed = json_get_int(attends, l->name, "n_heads_in_group", true, 1, MAX_HEADS, &group) < 0;
        if (!l->failed && out->attention.n_heads % group)
            config_refuse(l, "block_configs", "an n_heads_in_group does not divide num_attention_heads");
        if (!l->failed) out->attention.n_kv_heads = out->attention.n_heads / group;
    }
    if (is_set(feeds, "no_op"))
        out->ffn.kind = FFN_NONE;
    else if (is_set(feeds, "replace_with_linear"))
        out->ffn.kind = FFN_LINEAR;
    else
        out->ffn.width = width_of(l, feeds, d->hidden);
}
