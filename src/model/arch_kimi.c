/* arch_kimi.c - Kimi Linear: layers follow a gated delta rule, or have multi-head latent attention.
 * mlx-lm: models/kimi_linear.py. */
#include "model/decoder.h"

#include <math.h>

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
    check_expert_groups(l, e, "num_expert_group");
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
