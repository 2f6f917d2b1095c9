/* arch_bailing.c - Ling and Ring from 2.5 on: of each group of layers the last one attends to
 * everything, the others keep a state. mlx-lm: models/, the file of that name. */
#include "model/decoder.h"

#include <math.h>

void check_expert_groups(loader *l, const moe_desc *e, const char *key) {
    if (l->failed || !e->n) return;
    if (e->n % e->route.n_group || e->route.topk_group > e->route.n_group)
        config_refuse(l, key, "does not divide the experts, or is less than topk_group");
    if (e->route.k > e->n) config_refuse(l, "num_experts", "is less than the experts of a token");
}

static void read_bailing_latents(loader *l, desc *d, int64_t q_rank) {
    latent_desc *m = &d->layer.latent;
    bool none = json_is_null(l->config, "q_lora_rank") || (!q_rank && !json_get(l->config, "q_lora_rank"));
    *m = (latent_desc){.module = "attention",
                       .out = "dense",
                       .n_heads = d->layer.attention.n_heads,
                       .q_rank = none ? 0 : config_int_or(l, "q_lora_rank", 1, MAX_DIM, q_rank ? q_rank : 1),
                       .kv_rank = config_int_or(l, "kv_lora_rank", 1, MAX_DIM, 512),
                       .nope_dim = config_int_or(l, "qk_nope_head_dim", 1, MAX_DIM, 128),
                       .rope_dim = config_int_or(l, "qk_rope_head_dim", 2, MAX_DIM, 64),
                       .v_dim = config_int_or(l, "v_head_dim", 1, MAX_DIM, 128),
                       .eps = d->eps};
    if (!l->failed && m->rope_dim % 2) config_refuse(l, "qk_rope_head_dim", "is not an even number");
    if (l->failed) return;
    m->scale = pow((double)(m->nope_dim + m->rope_dim), -0.5) * yarn_score_factor(l);
    m->rope = read_rope(l, &(rope_wish){.dims = m->rope_dim,
                                        .theta = 6000000,
                                        .traditional = config_bool_or(l, "rope_interleave", true)});
}

void describe_bailing_moe_v3(loader *l, desc *d) {
    static const decoder_defaults defaults = {1536, 24, 157184, 16, 16, 128, 4608, 1e-6};
    read_decoder_or(l, d, &defaults);
    moe_desc *e = &d->layer.ffn.moe;
    read_bailing_latents(l, d, 256);
    d->layer.latent.head_gate = true;
    const char *const needed[] = {"rope_interleave", "no_kda_lora", "kda_safe_gate"};
    for (size_t i = 0; i < 3; i++)
        if (!config_bool_or(l, needed[i], true))
            config_refuse(l, needed[i], "is false, as in no mlx-lm model");
    e->n = config_int_or(l, "num_experts", 1, 65536, 128);
    e->width = config_int_or(l, "moe_intermediate_size", 1, MAX_DIM, 512);
    e->shared = config_int_or(l, "moe_shared_expert_intermediate_size", 1, MAX_DIM, 512) *
                config_int_or(l, "num_shared_experts", 1, 64, 1);
    e->bias = e->f32 = true;
    e->route = (route_spec){.k = (int)config_int_or(l, "num_experts_per_tok", 1, 65536, 8),
                            .score = SCORE_SIGMOID,
                            .n_group = (int)config_int_or(l, "n_group", 1, 65536, 8),
                            .topk_group = (int)config_int_or(l, "topk_group", 1, 65536, 4),
                            .mask_inf = true,
                            .renormalize = true,
                            .eps = 1e-20f,
                            .scale = (float)config_float_or(l, "routed_scaling_factor", 2.5)};
    check_expert_groups(l, e, "n_group");
    d->names.embed = "model.word_embeddings";
    d->names.router_bias = "mlp.gate.expert_bias";
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    d->own_caches = d->predicts_more = true;
}

/* The last layer of each group, and those after the last whole group, have latent attention. */
static bool follows_text(loader *l, const desc *d, int64_t i) {
    int64_t group = config_int_or(l, "layer_group_size", 1, MAX_LAYERS, 4);
    return (i + 1) % group && i < d->n_layers / group * group;
}

void layer_bailing_moe_v3(loader *l, const desc *d, int64_t i, layer_desc *out) {
    static const delta_names parts = {.q = "attention.q_proj",
                                      .k = "attention.k_proj",
                                      .v = "attention.v_proj",
                                      .gate = "attention.g_proj",
                                      .decay = "attention.f_proj",
                                      .beta = "attention.b_proj",
                                      .q_conv = "attention.q_conv1d",
                                      .k_conv = "attention.k_conv1d",
                                      .v_conv = "attention.v_conv1d",
                                      .A_log = "attention.A_log",
                                      .dt_bias = "attention.dt_bias",
                                      .norm = "attention.o_norm",
                                      .out = "attention.o_proj"};
    if (i >= config_int_or(l, "first_k_dense_replace", 0, MAX_LAYERS, 1)) out->ffn.kind = FFN_EXPERTS;
    if (!follows_text(l, d, i)) return;
    int64_t n = d->layer.attention.n_heads, dim = d->layer.attention.head_dim;
    out->latent = (latent_desc){0};
    out->delta = (delta_desc){.n_k_heads = n,
                              .n_v_heads = n,
                              .k_dim = dim,
                              .v_dim = dim,
                              .kernel = config_int_or(l, "short_conv_kernel_size", 2, 16, 4),
                              .separate = true,
                              .by_feature = true,
                              .sigmoid_f32 = true,
                              .lower_bound = (float)config_float_or(l, "kda_lower_bound", -5),
                              .names = &parts};
}

/* ---- linear attention ---- */

/* The steps of ALiBi's slopes of n heads, n a power of two. */
static double slope(int64_t n, int64_t i) {
    return pow(2, -pow(2, -(log2((double)n) - 3)) * (double)(i + 1));
}

/* What each head forgets with a token, less in later layers; position: of the layer. */
static const float *log_decays(loader *l, const desc *d, int64_t n, int64_t position) {
    float *all = load_alloc(l, (size_t)n, sizeof *all);
    int64_t power = 1, last = d->n_layers > 1 ? d->n_layers - 1 : 1;
    while (2 * power <= n) power *= 2;
    float factor = (float)(1 - (double)position / (double)last + 1e-5);
    for (int64_t i = 0; all && i < n; i++)
        all[i] = -(float)(i < power ? slope(power, i) : slope(2 * power, 2 * (i - power))) * factor;
    return all;
}

static void read_lightning(loader *l, const desc *d, int64_t position, layer_desc *out) {
    const attention_desc *a = &d->layer.attention;
    lightning_desc *m = &out->lightning;
    int64_t n = a->n_heads;
    m->n_heads = n;
    m->norm_groups = config_int(l, "group_norm_size", 1, MAX_DIM);
    m->qkv_bias = config_bool_or(l, "use_qkv_bias", false);
    m->o_bias = config_bool_or(l, "use_bias", false);
    m->log_decays = log_decays(l, d, n, position);
    if (!l->failed && n * m->head_dim % m->norm_groups)
        config_refuse(l, "group_norm_size", "does not divide the width of attention");
}

static int64_t rotated_part(loader *l, int64_t head_dim, double otherwise) {
    double part = config_float_or(l, "partial_rotary_factor", otherwise);
    int64_t dims = part > 0 && part <= 1 ? (int64_t)((double)head_dim * part) : 0;
    if (!l->failed && (dims < 2 || dims % 2))
        config_refuse(l, "partial_rotary_factor", "rotates no even number of a head's features");
    return l->failed ? 2 : dims;
}

/* Latent attention. */
void describe_bailing_hybrid(loader *l, desc *d) {
    describe_bailing_moe(l, d);
    moe_desc *e = &d->layer.ffn.moe;
    read_bailing_latents(l, d, 0);
    d->layer.latent.bias = config_bool_or(l, "use_qkv_bias", false);
    const char *score = json_string(json_get(l->config, "score_function"));
    e->route.score = score && strcmp(score, "sigmoid") ? SCORE_SOFTMAX : SCORE_SIGMOID;
    e->route.renormalize = config_bool_or(l, "norm_topk_prob", true) && e->route.k > 1;
    e->route.mask_inf = true;
    e->route.last = false;
    e->bias = config_bool_or(l, "moe_router_enable_expert_bias", true);
    e->shared = e->width * config_int(l, "num_shared_experts", 0, 64);
    if (e->shared) e->shared = config_int_or(l, "moe_shared_expert_intermediate_size", 1, MAX_DIM, e->shared);
    check_expert_groups(l, e, "n_group");
    d->norm_head = false;
    d->own_caches = d->predicts_more = true;
}

void layer_bailing_hybrid(loader *l, const desc *d, int64_t i, layer_desc *out) {
    if (i >= config_int(l, "first_k_dense_replace", 0, MAX_LAYERS)) out->ffn.kind = FFN_EXPERTS;
    if (!follows_text(l, d, i)) return;
    int64_t dim = config_int_or(l, "head_dim", 1, MAX_DIM, d->layer.attention.head_dim);
    out->latent = (latent_desc){0};
    out->lightning = (lightning_desc){
        .head_dim = dim,
        .f32 = true,
        .qk_norm = config_bool_or(l, "use_qk_norm", true),
        .rope = read_rope(l, &(rope_wish){.dims = rotated_part(l, dim, 0.5), .theta = 600000})};
    read_lightning(l, d, i, out);
}

/* Attention of the usual kind. */
void describe_bailing_moe_linear(loader *l, desc *d) {
    describe_bailing_moe(l, d);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    if (!l->failed) a->head_dim = config_int_or(l, "head_dim", 1, MAX_DIM, a->head_dim);
    a->rope = read_rope(l, &(rope_wish){.dims = rotated_part(l, a->head_dim, 1),
                                        .traditional = config_bool_or(l, "rope_traditional", false)});
    e->route.eps = 0;
    e->route.last = false;
    check_expert_groups(l, e, "n_group");
    d->own_caches = true;
}

void layer_bailing_moe_linear(loader *l, const desc *d, int64_t i, layer_desc *out) {
    if (i >= config_int(l, "first_k_dense_replace", 0, MAX_LAYERS)) out->ffn.kind = FFN_EXPERTS;
    if (!follows_text(l, d, i) || l->failed) return;
    int64_t dim = d->hidden / d->layer.attention.n_heads;
    out->lightning = (lightning_desc){
        .head_dim = dim,
        .qk_norm = config_bool_or(l, "use_qk_norm", false),
        .rope = read_rope(l, &(rope_wish){.dims = rotated_part(l, dim, 1),
                                          .traditional = config_bool_or(l, "rope_traditional", false)})};
    read_lightning(l, d, i > 0 ? i - 1 : 0, out);
}
