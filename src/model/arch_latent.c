/* arch_latent.c - architectures with multi-head latent attention (MLA): what each changes.
 * mlx-lm: models/, the file of that name. */
#include "model/decoder.h"

#include <math.h>

/* Fields that config.json may leave out; 0: it must have them. */
typedef struct latent_defaults {
    int64_t kv_rank, q_rank, nope_dim, rope_dim, v_dim;
} latent_defaults;

static const decoder_defaults deepseek_sizes = {4096, 30, 102400, 32, 32, 0, 11008, 1e-6};
static const latent_defaults deepseek_latents = {512, 1536, 128, 64, 128};

static int64_t dim_or(loader *l, const char *key, int64_t otherwise) {
    return otherwise ? config_int_or(l, key, 1, MAX_DIM, otherwise) : config_int(l, key, 1, MAX_DIM);
}

/* What all have; without a latent of their own, queries have q_lora_rank null. */
static void read_latent(loader *l, desc *d, const latent_defaults * or, float eps) {
    latent_desc *m = &d->layer.latent;
    attention_desc *a = &d->layer.attention;
    bool null = json_is_null(l->config, "q_lora_rank");
    *m = (latent_desc){.n_heads = a->n_heads,
                       .kv_rank = dim_or(l, "kv_lora_rank", or->kv_rank),
                       .q_rank = null ? 0 : dim_or(l, "q_lora_rank", or->q_rank),
                       .nope_dim = dim_or(l, "qk_nope_head_dim", or->nope_dim),
                       .rope_dim = dim_or(l, "qk_rope_head_dim", or->rope_dim),
                       .v_dim = dim_or(l, "v_head_dim", or->v_dim),
                       .bias = config_bool_or(l, "attention_bias", false),
                       .eps = eps};
    if (l->failed) return;
    if (m->rope_dim % 2) config_refuse(l, "qk_rope_head_dim", "is not an even number");
    a->n_kv_heads = a->n_heads;
    a->head_dim = m->nope_dim + m->rope_dim;
    m->scale = pow((double)a->head_dim, -0.5);
}

/* YaRN's factor of the scores: what mscale_all_dim makes of the length that a text has more. */
static double score_factor(loader *l, const json *scaling) {
    double all = 0, factor = 1;
    if (!scaling || l->failed) return 1;
    l->failed = json_get_float(scaling, l->name, "mscale_all_dim", false, &all) < 0;
    if (l->failed || all == 0) return 1;
    l->failed = json_get_float(scaling, l->name, "factor", true, &factor) < 0;
    if (l->failed || factor <= 1) return 1;
    double s = 0.1 * all * log(factor) + 1;
    return s * s;
}

static const json *scaling_of(loader *l) {
    const json *scaling = json_get(l->config, "rope_scaling");
    return json_is_object(scaling) ? scaling : json_get(l->config, "rope_parameters");
}

double yarn_score_factor(loader *l) {
    return score_factor(l, scaling_of(l));
}

/* Experts from some layer on, and beside them an MLP for all tokens. */
static void read_experts(loader *l, desc *d, const char *count, int64_t width, int64_t k) {
    moe_desc *e = &d->layer.ffn.moe;
    e->n = config_int_or(l, count, 0, 65536, 0);
    e->width = dim_or(l, "moe_intermediate_size", width);
    e->shared = e->width * config_int_or(l, "n_shared_experts", 0, 64, 0);
    e->route.k = (int)config_int_or(l, "num_experts_per_tok", 1, 65536, k);
    if (e->n && e->route.k > e->n) config_refuse(l, "num_experts_per_tok", "is more than n_routed_experts");
}

/* Experts chosen by sigmoids with a bias, within the best groups. */
static void describe_with_latents(loader *l, desc *d, bool nested) {
    read_decoder_or(l, d, &deepseek_sizes);
    read_latent(l, d, &deepseek_latents, 1e-6f);
    latent_desc *m = &d->layer.latent;
    m->rope = read_rope(
        l, &(rope_wish){.dims = m->rope_dim, .theta = 10000, .traditional = true, .nested = nested});
    m->scale *= score_factor(l, scaling_of(l));
    read_experts(l, d, "n_routed_experts", 1407, 1);
    if (d->layer.ffn.moe.n) read_sigmoid_routing(l, &d->layer.ffn.moe);
    d->predicts_more = true;
}

void describe_deepseek_v3(loader *l, desc *d) {
    describe_with_latents(l, d, false);
}

/* DeepSeek-V3 with other sizes. */
void describe_glm4_moe_lite(loader *l, desc *d) {
    static const decoder_defaults sizes = {2048, 47, 154880, 20, 20, 0, 10240, 1e-5};
    static const latent_defaults latents = {512, 768, 192, 64, 256};
    read_decoder_or(l, d, &sizes);
    read_latent(l, d, &latents, d->eps);
    latent_desc *m = &d->layer.latent;
    moe_desc *e = &d->layer.ffn.moe;
    m->rope = read_rope(l, &(rope_wish){.dims = m->rope_dim, .theta = 1000000, .traditional = true});
    m->scale *= score_factor(l, scaling_of(l));
    read_experts(l, d, "n_routed_experts", 1536, 4);
    bool dense = json_is_null(l->config, "n_routed_experts");
    if (!dense && !json_get(l->config, "n_routed_experts")) e->n = 64;
    if (!json_is_null(l->config, "n_shared_experts") && !json_get(l->config, "n_shared_experts"))
        e->shared = e->width;
    if (e->n) read_sigmoid_routing(l, e);
    e->route.scale = (float)config_float_or(l, "routed_scaling_factor", 1.8);
    e->route.eps = 1e-20f;
    d->predicts_more = true;
}

void layer_glm4_moe_lite(loader *l, const desc *d, int64_t i, layer_desc *out) {
    if (json_get(l->config, "first_k_dense_replace") || i >= 1) layer_deepseek(l, d, i, out);
}

/* Every head's keys and values are kept; experts are chosen by softmax, perhaps within the groups
 * of the best ones. */
void describe_deepseek_v2(loader *l, desc *d) {
    read_decoder_or(l, d, &deepseek_sizes);
    read_latent(l, d, &deepseek_latents, 1e-6f);
    latent_desc *m = &d->layer.latent;
    moe_desc *e = &d->layer.ffn.moe;
    const char *method = json_string(json_get(l->config, "topk_method"));
    m->expanded = true;
    m->rope =
        read_rope(l, &(rope_wish){.dims = m->rope_dim, .theta = 10000, .traditional = true, .type = "yarn"});
    m->scale *= score_factor(l, scaling_of(l));
    read_experts(l, d, "n_routed_experts", 1407, 1);
    e->route.scale = (float)config_float_or(l, "routed_scaling_factor", 1);
    if (!method || strcmp(method, "group_limited_greedy") || !e->n) return;
    e->route.n_group = (int)config_int(l, "n_group", 1, 65536);
    e->route.topk_group = (int)config_int(l, "topk_group", 1, 65536);
    e->route.group_max = true;
    if (!l->failed && (e->n % e->route.n_group || e->route.topk_group > e->route.n_group))
        config_refuse(l, "n_group", "does not divide the experts, or is less than topk_group");
}

/* Longer texts get sharper attention; experts are chosen by softmax, within the best groups. */
void describe_mistral4(loader *l, desc *d) {
    read_decoder(l, d);
    read_latent(l, d, &(latent_defaults){0}, 1e-6f);
    latent_desc *m = &d->layer.latent;
    moe_desc *e = &d->layer.ffn.moe;
    const json *parameters = json_get(l->config, "rope_parameters");
    const char *type = json_string(json_get(parameters, "type"));
    if (!type) type = json_string(json_get(parameters, "rope_type"));
    m->whole_keys = true;
    m->rope = read_rope(l, &(rope_wish){.dims = m->rope_dim,
                                        .theta = 100000,
                                        .traditional = config_bool_or(l, "rope_interleave", true),
                                        .nested = true});
    if (type && strcmp(type, "default")) m->scale *= score_factor(l, parameters);
    m->temperature = (position_scale){
        .beta = (float)config_float_in(l, "rope_parameters", "llama_4_scaling_beta"),
        .n = (float)config_float_in(l, "rope_parameters", "original_max_position_embeddings")};
    read_experts(l, d, "n_routed_experts", 0, 0);
    e->f32_scores = true;
    e->route.n_group = (int)config_int(l, "n_group", 1, 65536);
    e->route.topk_group = (int)config_int(l, "topk_group", 1, 65536);
    e->route.renormalize = config_bool(l, "norm_topk_prob");
    e->route.eps = 1e-20f;
    e->route.scale = (float)config_float(l, "routed_scaling_factor");
    if (!l->failed && (e->n % e->route.n_group || e->route.topk_group > e->route.n_group))
        config_refuse(l, "n_group", "does not divide the experts, or is less than topk_group");
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
}

/* MiniCPM's scaled sums; every head's keys and values are kept. */
void describe_minicpm3(loader *l, desc *d) {
    read_decoder(l, d);
    read_latent(l, d, &(latent_defaults){.v_dim = 1}, 1e-5f);
    latent_desc *m = &d->layer.latent;
    if (l->failed) return;
    m->expanded = true;
    m->v_dim = d->hidden / m->n_heads;
    m->rope = read_rope(l, &(rope_wish){.dims = m->rope_dim, .theta = 1000000, .type = "longrope"});
    d->embed_scale = config_float(l, "scale_emb");
    d->layer.residual = config_float(l, "scale_depth") / sqrt((double)d->n_layers);
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    double base = (double)config_int(l, "dim_model_base", 1, MAX_DIM);
    if (!d->tied && !l->failed) d->head_divide = (double)d->hidden / base;
}

/* Two of its layers are one of mlx-lm's. The first has experts for what enters its MLP, too; their
 * result is added after the second. Some experts give back what they are given. */
void describe_longcat_flash(loader *l, desc *d) {
    static const decoder_keys keys = {.n_layers = "num_layers", .width = "ffn_hidden_size"};
    read_decoder_keys(l, d, &keys, &(decoder_defaults){0});
    read_latent(l, d, &(latent_defaults){0}, 1e-5f);
    latent_desc *m = &d->layer.latent;
    moe_desc *e = &d->layer.ffn.moe;
    const char *identity = "identity";
    if (l->failed) return;
    m->rope = read_rope(l, &(rope_wish){.dims = m->rope_dim, .traditional = true});
    m->scale *= score_factor(l, scaling_of(l));
    if (config_bool(l, "mla_scale_q_lora") && m->q_rank) m->q_factor = sqrt((double)d->hidden / m->q_rank);
    if (config_bool(l, "mla_scale_kv_lora")) m->kv_factor = sqrt((double)d->hidden / m->kv_rank);
    e->n = config_int(l, "n_routed_experts", 1, 65536);
    e->width = config_int(l, "expert_ffn_hidden_size", 1, MAX_DIM);
    e->bias = true;
    e->router_bias = config_bool_or(l, "router_bias", false);
    e->route = (route_spec){.k = (int)config_int(l, "moe_topk", 1, 65536),
                            .identities = (int)config_int(l, "zero_expert_num", 0, 65536),
                            .imprecise = true,
                            .renormalize = config_bool_or(l, "norm_topk_prob", false),
                            .eps = 1e-20f,
                            .scale = (float)config_float(l, "routed_scaling_factor"),
                            .narrow = true,
                            .last = true};
    if (!l->failed) l->failed = json_get_string(l->config, l->name, "zero_expert_type", true, &identity) < 0;
    if (strcmp(identity, "identity")) config_refuse(l, "zero_expert_type", "is not identity");
    if (e->route.k > e->n + e->route.identities)
        config_refuse(l, "moe_topk", "is more than there are experts");
    d->halves = 2;
    d->n_layers *= d->halves;
    d->own_caches = d->ignores_kv_bits = true;
}

#define HALF(k)                                                                                              \
    {                                                                                                        \
        .pre = "input_layernorm." k, .ffn_pre = "post_attention_layernorm." k,                               \
        .gate = "mlps." k ".gate_proj", .up = "mlps." k ".up_proj", .down = "mlps." k ".down_proj",          \
        .router = "mlp.router.classifier", .router_bias = "mlp.router.e_score_correction_bias",              \
        .experts = "mlp.switch_mlp"                                                                          \
    }

void layer_longcat_flash(loader *l, const desc *d, int64_t i, layer_desc *out) {
    static const names halves[] = {HALF("0"), HALF("1")};
    (void)l, (void)d;
    out->names = &halves[i % 2];
    out->latent.module = i % 2 ? "self_attn.1" : "self_attn.0";
    if (i % 2 == 0) out->ffn.kind = FFN_SHORTCUT;
}

/* Dense; every head's keys and values are kept. */
void describe_youtu_llm(loader *l, desc *d) {
    static const decoder_defaults sizes = {2048, 32, 128256, 16, 16, 0, 6144, 1e-6};
    read_decoder_or(l, d, &sizes);
    read_latent(l, d, &deepseek_latents, d->eps);
    latent_desc *m = &d->layer.latent;
    m->expanded = true;
    m->rope = read_rope(l, &(rope_wish){.dims = m->rope_dim,
                                        .theta = 1600000,
                                        .traditional = config_bool_or(l, "rope_traditional", true)});
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", false);
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
}

/* DeepSeek-V3 whose tokens see the entries that keys of their own select. */
static void describe_selecting(loader *l, desc *d, bool interleaved, bool nested) {
    latent_desc *m = &d->layer.latent;
    if (!m->q_rank) config_refuse(l, "q_lora_rank", "is missing");
    m->index_heads = config_int_or(l, "index_n_heads", 1, MAX_HEADS, 64);
    m->index_dim = config_int_or(l, "index_head_dim", 2, MAX_DIM, 128);
    m->topk = config_int_or(l, "index_topk", 1, INT32_MAX, 2048);
    m->index_rope =
        read_rope(l, &(rope_wish){.dims = m->rope_dim,
                                  .theta = 10000,
                                  .nested = nested,
                                  .traditional = config_bool_or(l, "indexer_rope_interleave", interleaved)});
    if (!l->failed && m->index_dim < m->rope_dim)
        config_refuse(l, "index_head_dim", "is less than qk_rope_head_dim");
    d->own_caches = d->ignores_kv_bits = true;
}

void describe_deepseek_v32(loader *l, desc *d) {
    describe_deepseek_v3(l, d);
    describe_selecting(l, d, false, false);
}

void describe_glm_moe_dsa(loader *l, desc *d) {
    describe_with_latents(l, d, true);
    describe_selecting(l, d, true, true);
}
