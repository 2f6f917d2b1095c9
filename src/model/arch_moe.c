/* arch_moe.c - architectures with experts: what each changes.
 * The feed-forward of most layers is a router and its k best experts. mlx-lm: models/, the file of
 * that name.
 */
#include "model/decoder.h"

/* Sizes, by the names that most have. `count` is the field with the number of experts. */
static void read_experts(loader *l, moe_desc *e, const char *count) {
    e->n = config_int(l, count, 0, 65536);
    e->route.k = (int)config_int(l, "num_experts_per_tok", 1, 65536);
    e->width = config_int(l, "moe_intermediate_size", 1, MAX_DIM);
    if (e->route.k > e->n && e->n) config_refuse(l, "num_experts_per_tok", "is more than there are");
}

/* Qwen3's attention. */
void describe_qwen3_moe(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qk_norm = QK_HEADS;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .plain = true});
    read_experts(l, &d->layer.ffn.moe, "num_experts");
    d->layer.ffn.moe.route.last = true;
    d->layer.ffn.moe.route.renormalize = config_bool_or(l, "norm_topk_prob", false);
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
}

void layer_qwen3_moe(loader *l, const desc *d, int64_t i, layer_desc *out) {
    int64_t step = config_int(l, "decoder_sparse_step", 1, MAX_LAYERS);
    if (l->failed || !d->layer.ffn.moe.n || config_list_has(l, "mlp_only_layers", i)) return;
    if ((i + 1) % step == 0) out->ffn.kind = FFN_EXPERTS;
}

/* Qwen3-MoE with experts in all layers, windows, and a rope for each kind of layer. */
void describe_mellum(loader *l, desc *d) {
    read_decoder(l, d);
    d->layer.attention.qk_norm = QK_HEADS;
    read_experts(l, &d->layer.ffn.moe, "num_experts");
    d->layer.ffn.moe.route.last = true;
    d->layer.ffn.kind = FFN_EXPERTS;
    d->layer.ffn.moe.route.renormalize = config_bool(l, "norm_topk_prob");
    d->tied = config_bool(l, "tie_word_embeddings");
    d->own_caches = true;
}

void layer_mellum(loader *l, const desc *d, int64_t i, layer_desc *out) {
    attention_desc *a = &out->attention;
    bool sliding = is_sliding(l, d, i, false);
    if (sliding) a->window = config_int(l, "sliding_window", 2, INT32_MAX);
    a->rope = read_rope(
        l, &(rope_wish){.dims = a->head_dim, .layer_type = sliding ? "sliding_attention" : "full_attention"});
}

/* Qwen3-MoE's layers; experts chosen by sigmoids, and weighed against an MLP for all tokens. */
void describe_klear(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->qkv_bias = a->o_bias = config_bool(l, "attention_bias");
    a->qk_norm = QK_HEADS;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .plain = true});
    read_experts(l, e, "num_experts");
    e->shared = e->width * config_int(l, "n_shared_experts", 1, 64);
    e->bias = e->coefficients = true;
    e->route.score = SCORE_SIGMOID;
    e->route.renormalize = config_bool(l, "norm_topk_prob");
    e->route.narrow = true;
    d->names.router_bias = "mlp.expert_bias";
    d->names.experts = "mlp.experts";
}

/* Experts in all layers, which are as wide as a dense model's MLP; the k best logits, then
 * softmax. */
void describe_mixtral(loader *l, desc *d) {
    static const decoder_defaults defaults = {4096, 32, 32000, 32, 8, 0, 14336, 1e-5};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 1000000,
                                        .traditional = config_bool_or(l, "rope_traditional", false),
                                        .plain = true});
    d->layer.ffn.kind = FFN_EXPERTS;
    e->n = config_int_or(l, "num_local_experts", 1, 65536, 8);
    e->width = d->layer.ffn.width;
    e->route = (route_spec){.k = (int)config_int_or(l, "num_experts_per_tok", 1, 65536, 2),
                            .score = SCORE_TOP_SOFTMAX};
    if (e->route.k > e->n) config_refuse(l, "num_experts_per_tok", "is more than num_local_experts");
    d->names.router = "block_sparse_moe.gate";
    d->names.experts = "block_sparse_moe.switch_mlp";
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
}

/* Qwen2's attention; beside the experts an MLP for all tokens, with a gate. */
void describe_qwen2_moe(loader *l, desc *d) {
    describe_qwen2(l, d);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 1000000,
                                        .traditional = config_bool_or(l, "rope_traditional", false),
                                        .plain = true});
    d->layer.ffn.kind = FFN_EXPERTS;
    read_experts(l, e, "num_experts");
    e->shared = config_int(l, "shared_expert_intermediate_size", 1, MAX_DIM);
    e->shared_gate = true;
    d->names.shared = "mlp.shared_expert";
    d->tied = false;
}

/* OLMo's norms over the whole width, and experts in all layers. */
void describe_olmoe(loader *l, desc *d) {
    describe_olmo2(l, d);
    moe_desc *e = &d->layer.ffn.moe;
    d->layer.places = PLACES_PRE;
    d->layer.ffn.kind = FFN_EXPERTS;
    e->n = config_int(l, "num_experts", 1, 65536);
    e->width = d->layer.ffn.width;
    e->route = (route_spec){.k = (int)config_int(l, "num_experts_per_tok", 1, 65536),
                            .renormalize = config_bool_or(l, "norm_topk_prob", false)};
    if (e->route.k > e->n) config_refuse(l, "num_experts_per_tok", "is more than num_experts");
}

/* Granite with experts in all layers. */
void describe_granitemoe(loader *l, desc *d) {
    describe_granite(l, d);
    moe_desc *e = &d->layer.ffn.moe;
    d->layer.ffn.kind = FFN_EXPERTS;
    e->n = config_int(l, "num_local_experts", 1, 65536);
    e->width = d->layer.ffn.width;
    e->route = (route_spec){
        .k = (int)config_int(l, "num_experts_per_tok", 1, 65536), .score = SCORE_TOP_SOFTMAX, .last = true};
    e->f32_scores = true;
    if (e->route.k > e->n) config_refuse(l, "num_experts_per_tok", "is more than num_local_experts");
    d->names.router = "block_sparse_moe.router.layer";
    d->names.experts = "block_sparse_moe.switch_mlp";
}

/* Only from some layer on; beside the experts an MLP for all tokens. */
void describe_deepseek(loader *l, desc *d) {
    static const decoder_defaults defaults = {4096, 30, 102400, 32, 32, 0, 11008, 1e-6};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 10000, .only_linear = true});
    e->n = config_int_or(l, "n_routed_experts", 1, 65536, 0);
    e->width = config_int_or(l, "moe_intermediate_size", 1, MAX_DIM, 1407);
    e->shared = e->width * config_int_or(l, "n_shared_experts", 1, 64, 0);
    e->route.k = (int)config_int_or(l, "num_experts_per_tok", 1, 65536, 0);
    if (e->n && (e->route.k < 1 || e->route.k > e->n))
        config_refuse(l, "num_experts_per_tok", "is not between 1 and n_routed_experts");
}

void layer_deepseek(loader *l, const desc *d, int64_t i, layer_desc *out) {
    int64_t dense = config_int_or(l, "first_k_dense_replace", 0, MAX_LAYERS, 0);
    int64_t step = config_int_or(l, "moe_layer_freq", 1, MAX_LAYERS, 1);
    if (l->failed || !d->layer.ffn.moe.n) return;
    if (i >= dense && i % step == 0) out->ffn.kind = FFN_EXPERTS;
}

void read_sigmoid_routing(loader *l, moe_desc *e) {
    bool many = e->route.k > 1;
    e->bias = true;
    e->route.score = SCORE_SIGMOID;
    e->route.n_group = (int)config_int_or(l, "n_group", 1, 65536, 1);
    e->route.topk_group = (int)config_int_or(l, "topk_group", 1, 65536, 1);
    e->route.renormalize = config_bool_or(l, "norm_topk_prob", true) && many;
    e->route.scale = (float)config_float_or(l, "routed_scaling_factor", 1);
    if (!l->failed && (e->n % e->route.n_group || e->route.topk_group > e->route.n_group))
        config_refuse(l, "n_group", "does not divide the experts, or is less than topk_group");
}

/* Llama's attention with norms on query and key if asked for; part of a head is rotated. */
void describe_glm4_moe(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    a->qkv_bias = config_bool(l, "attention_bias");
    a->qk_norm = config_bool(l, "use_qk_norm") ? QK_HEADS : QK_NONE;
    a->rope = read_rope(l, &(rope_wish){.dims = partial_dims(l, d, 0), .plain = true});
    read_experts(l, e, "n_routed_experts");
    e->shared = e->width * config_int_or(l, "n_shared_experts", 1, 64, 0);
    read_sigmoid_routing(l, e);
    d->predicts_more = true;
}

/* Norms on query and key; experts by other names. */
void describe_dots1(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    a->qk_norm = QK_HEADS;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim});
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", false);
    read_experts(l, e, "n_routed_experts");
    e->shared = e->width * config_int(l, "n_shared_experts", 1, 64);
    read_sigmoid_routing(l, e);
    d->names.experts = "mlp.experts";
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
}

/* Windows in most layers; the others have no positions. */
void describe_exaone_moe(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    a->qk_norm = QK_HEADS;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 1000000, .nested = true});
    read_experts(l, e, "num_experts");
    e->shared = e->width * config_int_or(l, "num_shared_experts", 0, 64, 0);
    read_sigmoid_routing(l, e);
    e->route.scale = (float)config_float_or(l, "routed_scaling_factor", 2.5);
    e->route.eps = 1e-20f;
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    d->own_caches = true;
}

void layer_exaone_moe(loader *l, const desc *d, int64_t i, layer_desc *out) {
    if (is_sliding(l, d, i, false))
        out->attention.window = config_int(l, "sliding_window", 2, INT32_MAX);
    else
        out->attention.rope = NULL;
    if (json_true(config_per_layer(l, "is_moe_layer", i, d->n_layers))) out->ffn.kind = FFN_EXPERTS;
}

/* Norms over the whole width of query and key; the router's input is in F32. */
void describe_minimax(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    a->qk_norm = config_bool_or(l, "use_qk_norm", true) ? QK_WIDTH : QK_NONE;
    a->rope = read_rope(l, &(rope_wish){.dims = config_int(l, "rotary_dim", 2, MAX_DIM), .plain = true});
    d->layer.ffn.kind = FFN_EXPERTS;
    e->n = config_int(l, "num_local_experts", 1, 65536);
    e->width = d->layer.ffn.width;
    e->bias = e->f32 = true;
    e->route = (route_spec){.k = (int)config_int(l, "num_experts_per_tok", 1, 65536),
                            .score = SCORE_SIGMOID,
                            .renormalize = true,
                            .eps = 1e-20f,
                            .narrow = true};
    if (e->route.k > e->n) config_refuse(l, "num_experts_per_tok", "is more than num_local_experts");
    d->names.router = "block_sparse_moe.gate";
    d->names.router_bias = "block_sparse_moe.e_score_correction_bias";
    d->names.experts = "block_sparse_moe.switch_mlp";
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
}

/* Biases everywhere, sinks, windows in every second layer; experts in all, with an activation of
 * their own.
 */
void describe_gpt_oss(loader *l, desc *d) {
    static const decoder_defaults defaults = {2880, 36, 201088, 64, 8, 64, 2880, 1e-5};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    a->qkv_bias = a->o_bias = a->sinks = true;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 150000});
    d->layer.ffn.kind = FFN_EXPERTS;
    d->layer.ffn.act = ACT_OAI;
    e->n = config_int_or(l, "num_local_experts", 1, 65536, 128);
    e->width = d->layer.ffn.width;
    e->expert_bias = e->router_bias = true;
    e->route = (route_spec){.k = (int)config_int_or(l, "num_experts_per_tok", 1, 65536, 4),
                            .score = SCORE_TOP_SOFTMAX,
                            .last = true};
    if (e->route.k > e->n) config_refuse(l, "num_experts_per_tok", "is more than num_local_experts");
    d->names.router = "mlp.router";
    d->names.experts = "mlp.experts";
    d->own_caches = true;
}

void layer_gpt_oss(loader *l, const desc *d, int64_t i, layer_desc *out) {
    if (is_sliding(l, d, i, i % 2 == 0))
        out->attention.window = config_int_or(l, "sliding_window", 2, INT32_MAX, 128);
}
