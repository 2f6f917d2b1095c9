/* arch_kda.c - architectures whose layers follow Kimi's gated delta rule, or have multi-head latent
 * attention: what each changes. mlx-lm: models/, the file of that name. */
#include "model/decoder.h"

#include <math.h>

static void check_groups(loader *l, const moe_desc *e, const char *key) {
    if (l->failed || !e->n) return;
    if (e->n % e->route.n_group || e->route.topk_group > e->route.n_group)
        config_refuse(l, key, "does not divide the experts, or is less than topk_group");
    if (e->route.k > e->n) config_refuse(l, "num_experts", "is less than the experts of a token");
}

/* No positions at all. Layers that the list kda_layers does not name (it counts from 1) have latent
 * attention. */
void describe_kimi_linear(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    latent_desc *m = &d->layer.latent;
    moe_desc *e = &d->layer.ffn.moe;
    *m = (latent_desc){.n_heads = a->n_heads,
                       .kv_rank = config_int(l, "kv_lora_rank", 1, MAX_DIM),
                       .nope_dim = config_int_or(l, "qk_nope_head_dim", 1, MAX_DIM, a->head_dim),
                       .rope_dim = config_int(l, "qk_rope_head_dim", 1, MAX_DIM),
                       .v_dim = config_int_or(l, "v_head_dim", 1, MAX_DIM, a->head_dim),
                       .eps = d->eps};
    m->scale = pow((double)(m->nope_dim + m->rope_dim), -0.5);
    e->n = config_int(l, "num_experts", 0, 65536);
    e->width = config_int(l, "moe_intermediate_size", 1, MAX_DIM);
    e->shared = e->width * config_int_or(l, "num_shared_experts", 0, 64, 0);
    e->bias = true;
    const char *score = json_string(json_get(l->config, "moe_router_activation_func"));
    bool softmax = score && !strcmp(score, "softmax");
    if (score && !softmax && strcmp(score, "sigmoid"))
        config_refuse(l, "moe_router_activation_func", "is neither sigmoid nor softmax");
    e->route = (route_spec){.k = (int)config_int_or(l, "num_experts_per_token", 1, 65536, 1),
                            .score = softmax ? SCORE_SOFTMAX : SCORE_SIGMOID,
                            .imprecise = !softmax,
                            .narrow_bias = true,
                            .n_group = (int)config_int_or(l, "num_expert_group", 1, 65536, 1),
                            .topk_group = (int)config_int_or(l, "topk_group", 1, 65536, 1),
                            .eps = 1e-20f,
                            .scale = (float)config_float_or(l, "routed_scaling_factor", 1)};
    e->route.renormalize = config_bool_or(l, "moe_renormalize", true) && e->route.k > 1;
    check_groups(l, e, "num_expert_group");
    d->names.router_bias = "mlp.e_score_correction_bias";
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    d->own_caches = true;
}

/* Is the number n in the list `key` of the object `object`? */
static bool names_layer(loader *l, const char *object, const char *key, int64_t n) {
    const json *list = json_get(json_get(l->config, object), key);
    for (const json *item = json_first(list); item; item = json_next(item))
        if (json_is_number(item) && (int64_t)json_number(item) == n) return true;
    return false;
}

void layer_kimi_linear(loader *l, const desc *d, int64_t i, layer_desc *out) {
    static const char key[] = "linear_attn_config";
    static const delta_names parts = {.q = "self_attn.q_proj",
                                      .k = "self_attn.k_proj",
                                      .v = "self_attn.v_proj",
                                      .gate = "self_attn.g_b_proj",
                                      .gate_low = "self_attn.g_a_proj",
                                      .decay = "self_attn.f_b_proj",
                                      .decay_low = "self_attn.f_a_proj",
                                      .beta = "self_attn.b_proj",
                                      .q_conv = "self_attn.q_conv.conv",
                                      .k_conv = "self_attn.k_conv.conv",
                                      .v_conv = "self_attn.v_conv.conv",
                                      .A_log = "self_attn.A_log",
                                      .dt_bias = "self_attn.dt_bias",
                                      .norm = "self_attn.o_norm",
                                      .out = "self_attn.o_proj"};
    layer_deepseek(l, d, i, out);
    if (!names_layer(l, key, "kda_layers", i + 1)) return;
    int64_t n = config_int_in(l, key, "num_heads", 1, MAX_HEADS);
    int64_t dim = config_int_in(l, key, "head_dim", 2, MAX_DIM);
    bool listed = json_get(json_get(l->config, key), "short_conv_kernel_size") != NULL;
    int64_t kernel = listed ? config_int_in(l, key, "short_conv_kernel_size", 2, 16) : 4;
    out->latent = (latent_desc){0};
    out->delta = (delta_desc){.n_k_heads = n,
                              .n_v_heads = n,
                              .k_dim = dim,
                              .v_dim = dim,
                              .kernel = kernel,
                              .separate = true,
                              .by_feature = true,
                              .low_rank = dim,
                              .names = &parts};
}

/* ---- Bailing's (Ling, Ring): a decay that has a lower bound; a gate for each head of latent
 * attention ---- */

static void read_bailing_latents(loader *l, desc *d) {
    latent_desc *m = &d->layer.latent;
    bool none = json_is_null(l->config, "q_lora_rank");
    *m = (latent_desc){.module = "attention",
                       .out = "dense",
                       .n_heads = d->layer.attention.n_heads,
                       .q_rank = none ? 0 : config_int_or(l, "q_lora_rank", 1, MAX_DIM, 256),
                       .kv_rank = config_int_or(l, "kv_lora_rank", 1, MAX_DIM, 512),
                       .nope_dim = config_int_or(l, "qk_nope_head_dim", 1, MAX_DIM, 128),
                       .rope_dim = config_int_or(l, "qk_rope_head_dim", 2, MAX_DIM, 64),
                       .v_dim = config_int_or(l, "v_head_dim", 1, MAX_DIM, 128),
                       .eps = d->eps};
    if (!l->failed && m->rope_dim % 2) config_refuse(l, "qk_rope_head_dim", "is not an even number");
    if (l->failed) return;
    m->scale = pow((double)(m->nope_dim + m->rope_dim), -0.5) * yarn_score_factor(l);
    m->rope = read_rope(l, &(rope_wish){.dims = m->rope_dim, .theta = 6000000, .traditional = true});
}

void describe_bailing_moe_v3(loader *l, desc *d) {
    static const decoder_defaults defaults = {1536, 24, 157184, 16, 16, 128, 4608, 1e-6};
    read_decoder_or(l, d, &defaults);
    moe_desc *e = &d->layer.ffn.moe;
    read_bailing_latents(l, d);
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
    check_groups(l, e, "n_group");
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
