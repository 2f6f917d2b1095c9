/* arch_routed.c - more architectures with experts, which are chosen in ways of their own: what each
 * changes. mlx-lm: models/, the file of that name. */
#include "model/decoder.h"

#include <math.h>

/* A number, or the least or the largest of a list. */
static int64_t bound(loader *l, const char *key, int64_t otherwise, bool largest) {
    const json *value = json_get(l->config, key);
    if (!json_is_array(value)) return config_int_or(l, key, 0, MAX_LAYERS, otherwise);
    double best = json_number(json_first(value));
    for (const json *item = json_first(value); item; item = json_next(item)) {
        double n = json_number(item);
        if (largest ? n > best : n < best) best = n;
    }
    return (int64_t)best;
}

static score_kind read_score(loader *l, const char *key, const char *otherwise) {
    const char *text = json_string(json_get(l->config, key));
    if (!text) text = otherwise;
    if (!strcmp(text, "sigmoid")) return SCORE_SIGMOID;
    if (strcmp(text, "softmax")) config_refuse(l, key, "is neither softmax nor sigmoid");
    return SCORE_SOFTMAX;
}

/* ERNIE's attention; experts in a range of layers. */
void describe_ernie4_5_moe(loader *l, desc *d) {
    describe_ernie4_5(l, d);
    moe_desc *e = &d->layer.ffn.moe;
    int64_t width = config_int_or(l, "moe_intermediate_size", 0, MAX_DIM, 0);
    e->n = config_int(l, "moe_num_experts", 1, 65536);
    e->width = width ? width : d->layer.ffn.width;
    e->shared = e->width * config_int_or(l, "moe_num_shared_experts", 0, 64, 0);
    e->expert_bias = d->layer.ffn.bias;
    e->route = (route_spec){.k = (int)config_int_or(l, "moe_k", 1, 65536, 1),
                            .score = read_score(l, "moe_gate_act", "softmax"),
                            .renormalize = true,
                            .eps = 1e-12f,
                            .eps_is_floor = true};
    e->f32_scores = true;
    if (e->route.k > e->n) config_refuse(l, "moe_k", "is more than moe_num_experts");
}

void layer_ernie4_5_moe(loader *l, const desc *d, int64_t i, layer_desc *out) {
    int64_t step = config_int_or(l, "moe_layer_interval", 1, MAX_LAYERS, 1);
    int64_t first = bound(l, "moe_layer_start_index", 0, false);
    int64_t last = bound(l, "moe_layer_end_index", d->n_layers - 1, true);
    if (!l->failed && (i + 1) % step == 0 && i >= first && i <= last) out->ffn.kind = FFN_EXPERTS;
}

/* One matrix for query, key and value; experts after the first layers, perhaps within the best
 * groups. */
void describe_bailing_moe(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->packing = PACKING_ROWS;
    a->qkv_bias = config_bool_or(l, "use_qkv_bias", false);
    a->o_bias = d->layer.ffn.bias = e->expert_bias = config_bool_or(l, "use_bias", false);
    a->qk_norm = config_bool_or(l, "use_qk_norm", false) ? QK_HEADS : QK_NONE;
    a->rope =
        read_rope(l, &(rope_wish){.dims = config_int_or(l, "rotary_dim", 2, MAX_DIM, partial_dims(l, d, 1))});
    e->n = config_int(l, "num_experts", 1, 65536);
    e->width = config_int(l, "moe_intermediate_size", 1, MAX_DIM);
    if (config_bool_or(l, "moe_router_enable_shared_expert", true))
        e->shared = config_int_or(l, "moe_shared_expert_intermediate_size", 1, MAX_DIM, e->width) *
                    config_int(l, "num_shared_experts", 0, 64);
    e->bias = config_bool_or(l, "moe_router_enable_expert_bias", false);
    e->f32_scores = true;
    e->route = (route_spec){.k = (int)config_int(l, "num_experts_per_tok", 1, 65536),
                            .score = read_score(l, "score_function", "softmax"),
                            .n_group = (int)config_int_or(l, "n_group", 1, 65536, 1),
                            .topk_group = (int)config_int_or(l, "topk_group", 1, 65536, 4),
                            .eps = 1e-20f,
                            .scale = (float)config_float_or(l, "routed_scaling_factor", 1),
                            .narrow = true,
                            .last = true};
    e->route.renormalize = config_bool(l, "norm_topk_prob") && e->route.k > 1;
    if (e->route.k > e->n) config_refuse(l, "num_experts_per_tok", "is more than num_experts");
    d->norm_head = config_bool_or(l, "norm_head", false);
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    if (d->norm_head && d->tied) config_refuse(l, "norm_head", "needs a head that is not the embedding");
    d->names.embed = "model.word_embeddings";
    d->names.qkv = "attention.query_key_value";
    d->names.o = "attention.dense";
    d->names.q_norm = "attention.query_layernorm";
    d->names.k_norm = "attention.key_layernorm";
    d->names.router = "mlp.gate.gate_proj";
    d->names.router_bias = "mlp.gate.expert_bias";
}

/* Norms on both sides, attention with a gate; windows in most layers, the others have no
 * positions. */
void describe_afmoe(loader *l, desc *d) {
    static const decoder_defaults defaults = {2048, 32, 200192, 32, 4, 64, 6144, 1e-5};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    a->qk_norm = QK_HEADS;
    a->gate = GATE_SIGMOID;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 10000});
    e->n = config_int_or(l, "num_experts", 1, 65536, 128);
    e->width = config_int_or(l, "moe_intermediate_size", 1, MAX_DIM, 1024);
    e->shared = e->width * config_int_or(l, "num_shared_experts", 0, 64, 1);
    e->bias = e->f32_scores = true;
    e->route = (route_spec){.k = (int)config_int_or(l, "num_experts_per_tok", 1, 65536, 8),
                            .score = read_score(l, "score_func", "sigmoid"),
                            .n_group = (int)config_int_or(l, "n_group", 1, 65536, 1),
                            .topk_group = (int)config_int_or(l, "topk_group", 1, 65536, 1),
                            .scale = (float)config_float_or(l, "route_scale", 2.826)};
    e->route.renormalize = config_bool_or(l, "route_norm", true) && e->route.k > 1;
    if (e->route.k > e->n) config_refuse(l, "num_experts_per_tok", "is more than num_experts");
    d->layer.places = PLACES_SANDWICH;
    d->names.ffn_pre = "pre_mlp_layernorm";
    d->names.ffn_post = "post_mlp_layernorm";
    d->names.router = "mlp.router.gate";
    d->names.router_bias = "mlp.expert_bias";
    d->names.experts = "mlp.experts";
    if (config_bool_or(l, "mup_enabled", true)) d->embed_scale = sqrt((double)d->hidden);
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    d->own_caches = true;
}

void layer_afmoe(loader *l, const desc *d, int64_t i, layer_desc *out) {
    if (is_sliding(l, d, i, false))
        out->attention.window = config_int_or(l, "sliding_window", 2, INT32_MAX, 2048);
    else
        out->attention.rope = NULL;
    if (i >= config_int_or(l, "num_dense_layers", 0, MAX_LAYERS, 2)) out->ffn.kind = FFN_EXPERTS;
}

/* A number, or that of layer i in a list. */
static int64_t number_of_layer(loader *l, const char *key, int64_t i, int64_t n_layers, int64_t max) {
    const json *value = json_get(l->config, key);
    if (!json_is_array(value)) return config_int(l, key, 1, max);
    double n = json_number(config_per_layer(l, key, i, n_layers));
    if (!(n >= 1 && n <= (double)max)) config_refuse(l, key, "has a number that cannot be");
    return l->failed ? 0 : (int64_t)n;
}

/* Norms after rope; layers in between use the keys and values that an earlier one projected. */
void describe_hunyuan(loader *l, desc *d) {
    describe_hunyuan_v1_dense(l, d);
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .alpha = true});
    d->layer.ffn.moe.n = config_int(l, "num_experts", 1, 65536);
    d->tied = true;
    d->names.router = "mlp.gate.wg";
    d->names.shared = "mlp.shared_mlp";
}

void layer_hunyuan(loader *l, const desc *d, int64_t i, layer_desc *out) {
    moe_desc *e = &out->ffn.moe;
    out->attention.borrows =
        config_bool(l, "use_cla") && i % config_int(l, "cla_share_factor", 1, MAX_LAYERS) != 0;
    if (l->failed || e->n == 1) return;
    out->ffn.kind = FFN_EXPERTS;
    bool own_width =
        json_get(l->config, "moe_intermediate_size") && !json_is_null(l->config, "moe_intermediate_size");
    e->width =
        own_width ? number_of_layer(l, "moe_intermediate_size", i, d->n_layers, MAX_DIM) : d->layer.ffn.width;
    e->route = (route_spec){.k = (int)number_of_layer(l, "moe_topk", i, d->n_layers, 65536), .wide = true};
    if (config_bool(l, "use_mixed_mlp_moe"))
        e->shared = d->layer.ffn.width * number_of_layer(l, "num_shared_expert", i, d->n_layers, 64);
    if (e->route.k > e->n) config_refuse(l, "moe_topk", "is more than num_experts");
}

/* ---- LayerNorm and experts ---- */

/* Queries, keys and values are clipped; experts' weights are rounded as their input is. */
void describe_dbrx(loader *l, desc *d) {
    static const decoder_keys keys = {"d_model", "n_layers", "n_heads", .eps = "layer_norm_eps"};
    static const slice_rule published[] = {
        {.from = ".experts.mlp.w1", .to = ".experts.gate_proj.weight"},
        {.from = ".experts.mlp.v1", .to = ".experts.up_proj.weight"},
        {.from = ".experts.mlp.w2", .to = ".experts.down_proj.weight", .transposed = true},
        {.from = NULL}};
    read_decoder_keys(l, d, &keys, &(decoder_defaults){.width = 1, .eps = 1e-5});
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->n_kv_heads = config_int_in(l, "attn_config", "kv_n_heads", 1, MAX_HEADS);
    a->clip = config_float_in(l, "attn_config", "clip_qkv");
    a->packing = PACKING_ROWS;
    double theta = config_float_in(l, "attn_config", "rope_theta");
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = theta, .theta_key = "", .plain = true});
    d->layer_norm = true;
    d->layer.ffn.kind = FFN_EXPERTS;
    e->n = config_int_in(l, "ffn_config", "moe_num_experts", 1, MAX_DIM);
    e->width = config_int_in(l, "ffn_config", "ffn_hidden_size", 1, MAX_DIM);
    e->route = (route_spec){
        .k = (int)config_int_in(l, "ffn_config", "moe_top_k", 1, e->n), .renormalize = true, .narrow = true};
    e->f32_scores = true;
    d->names = (names){.embed = "transformer.wte",
                       .norm = "transformer.norm_f",
                       .head = "lm_head",
                       .layers = "transformer.blocks",
                       .qkv = "norm_attn_norm.attn.Wqkv",
                       .o = "norm_attn_norm.attn.out_proj",
                       .pre = "norm_attn_norm.norm_1",
                       .ffn_pre = "norm_attn_norm.norm_2",
                       .router = "ffn.router.layer",
                       .experts = "ffn.experts"};
    if (l->failed) return;
    l->failed = checkpoint_divide(l->checkpoint, ".ffn.experts.mlp.", e->n) ||
                checkpoint_slice(l->checkpoint, published);
}

/* Each expert is chosen, and counts, among those that are left and near enough. */
void describe_phimoe(loader *l, desc *d) {
    static const decoder_defaults defaults = {4096, 32, 32064, 32, 8, 0, 6400, 1e-6};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    bool scaled = json_get(l->config, "rope_scaling") && !json_is_null(l->config, "rope_scaling");
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->qkv_bias = a->o_bias = true;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 10000,
                                        .phi3 = true,
                                        .own_mscale = scaled,
                                        .type = scaled ? "longrope" : NULL});
    d->layer_norm = d->norm_bias = d->head_bias = true;
    d->layer.ffn.kind = FFN_EXPERTS;
    e->n = config_int_or(l, "num_local_experts", 1, MAX_DIM, 16);
    e->width = d->layer.ffn.width;
    e->route = (route_spec){.k = (int)config_int_or(l, "num_experts_per_tok", 1, e->n, 2),
                            .score = SCORE_BAND,
                            .jitter = (float)config_float_or(l, "router_jitter_noise", 0.01)};
    d->names.router = "block_sparse_moe.gate";
    d->names.experts = "block_sparse_moe.switch_mlp";
}

/* Attention in F32 and experts side by side. */
void describe_phixtral(loader *l, desc *d) {
    static const decoder_keys keys = {"model_dim", "num_layers", "num_heads", .vocab = "num_vocab",
                                      .eps = "layer_norm_eps"};
    static const decoder_defaults defaults = {2560, 32, 51200, 32, 0, 0, 1, 1e-5};
    read_decoder_keys(l, d, &keys, &defaults);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    int64_t dims = config_int_or(l, "rotary_dim", 2, MAX_DIM, 32);
    if (!l->failed && (dims % 2 || dims > a->head_dim))
        config_refuse(l, "rotary_dim", "is no even number of a head's features");
    a->n_kv_heads = a->n_heads;
    a->packing = PACKING_ROWS;
    a->qkv_bias = a->o_bias = a->f32 = true;
    a->scale = sqrt(1 / (double)a->head_dim);
    a->rope = read_rope(l, &(rope_wish){.dims = dims, .theta = 10000, .theta_key = "", .plain = true});
    d->layer_norm = d->norm_bias = d->head_bias = true;
    d->layer.places = PLACES_PARALLEL;
    d->layer.ffn.kind = FFN_EXPERTS;
    d->layer.ffn.act = ACT_GELU_TANH;
    e->n = config_int_or(l, "num_local_experts", 1, MAX_DIM, 4);
    e->width = 4 * d->hidden;
    e->ungated = e->expert_bias = true;
    e->route = (route_spec){.k = (int)config_int_or(l, "num_experts_per_tok", 1, e->n, 2),
                            .score = SCORE_TOP_SOFTMAX};
    d->never_quantized = "attention reads plain caches alone";
    d->names = (names){.embed = "transformer.embd.wte",
                       .norm = "lm_head.ln",
                       .head = "lm_head.linear",
                       .layers = "transformer.h",
                       .qkv = "mixer.Wqkv",
                       .o = "mixer.out_proj",
                       .pre = "ln",
                       .router = "moe.gate",
                       .experts = "moe.switch_mlp"};
}
