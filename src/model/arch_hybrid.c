/* arch_hybrid.c - architectures whose layers are not all attention: what each changes.
 * mlx-lm: models/, the file of that name. */
#include "model/decoder.h"

/* Short convolutions in most layers; norms on query and key in the others. The names are Meta's. */
static void describe_lfm2_layers(loader *l, desc *d) {
    read_decoder_keys(l, d, &(decoder_keys){.eps = "norm_eps"}, &(decoder_defaults){.width = 1});
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->qk_norm = QK_HEADS;
    const json *parameters = json_get(l->config, "rope_parameters"); /* it wins here */
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 1000000,
                                        .theta_key = json_get(parameters, "rope_theta") ? "" : NULL,
                                        .plain = true,
                                        .nested = true});
    d->tied = d->own_caches = true;
    d->names.norm = "model.embedding_norm";
    d->names.o = "self_attn.out_proj";
    d->names.q_norm = "self_attn.q_layernorm";
    d->names.k_norm = "self_attn.k_layernorm";
    d->names.pre = "operator_norm";
    d->names.ffn_pre = "ffn_norm";
}

void describe_lfm2(loader *l, desc *d) {
    describe_lfm2_layers(l, d);
    int64_t width = config_int_or(l, "block_ff_dim", 1, MAX_DIM, d->layer.ffn.width);
    int64_t multiple = config_int(l, "block_multiple_of", 1, MAX_DIM);
    if (config_bool(l, "block_auto_adjust_ff_dim") && !l->failed) {
        width = 2 * width / 3;
        width = (int64_t)(config_float_or(l, "block_ffn_dim_multiplier", 1) * (double)width);
        width = (width + multiple - 1) / multiple * multiple;
    }
    d->layer.ffn.width = width;
    d->names.gate = "feed_forward.w1";
    d->names.up = "feed_forward.w3";
    d->names.down = "feed_forward.w2";
}

void layer_lfm2(loader *l, const desc *d, int64_t i, layer_desc *out) {
    const json *type = config_per_layer(l, "layer_types", i, d->n_layers);
    const char *text = json_string(type);
    bool listed = json_get(l->config, "full_attn_idxs") != NULL;
    bool attends = listed ? config_list_has(l, "full_attn_idxs", i) : text && !strcmp(text, "full_attention");
    if (attends) return;
    out->conv.kernel = config_int(l, "conv_L_cache", 2, 16);
    out->conv.bias = config_bool(l, "conv_bias");
}

/* Experts after the first layers, chosen by sigmoids. */
void describe_lfm2_moe(loader *l, desc *d) {
    describe_lfm2_layers(l, d);
    moe_desc *e = &d->layer.ffn.moe;
    e->n = config_int(l, "num_experts", 1, 65536);
    e->width = config_int(l, "moe_intermediate_size", 1, MAX_DIM);
    e->bias = config_bool(l, "use_expert_bias");
    e->route = (route_spec){.k = (int)config_int(l, "num_experts_per_tok", 1, 65536),
                            .score = SCORE_SIGMOID,
                            .renormalize = config_bool(l, "norm_topk_prob"),
                            .eps = 1e-6f,
                            .scale = (float)config_float_or(l, "routed_scaling_factor", 1),
                            .imprecise = true,
                            .narrow = true,
                            .last = true};
    if (e->route.k > e->n) config_refuse(l, "num_experts_per_tok", "is more than num_experts");
    d->names.gate = "feed_forward.gate_proj";
    d->names.up = "feed_forward.up_proj";
    d->names.down = "feed_forward.down_proj";
    d->names.router = "feed_forward.gate";
    d->names.router_bias = "feed_forward.expert_bias";
    d->names.experts = "feed_forward.switch_mlp";
}

void layer_lfm2_moe(loader *l, const desc *d, int64_t i, layer_desc *out) {
    layer_lfm2(l, d, i, out);
    if (i >= config_int(l, "num_dense_layers", 0, MAX_LAYERS)) out->ffn.kind = FFN_EXPERTS;
}

/* ---- Qwen's hybrids: three of four layers follow the gated delta rule, attention has a gate
 * beside its queries ---- */

/* Never sanitized checkpoints have norms of w for 1 + w; their convolutions lie the other way. */
static void find_norm_offset(loader *l, desc *d) {
    const delta_desc *in = &d->layer.delta;
    int64_t n = 2 * in->n_k_heads * in->k_dim + in->n_v_heads * in->v_dim;
    const int64_t published[] = {n, 1, in->kernel};
    if (checkpoint_has_shape(l->checkpoint, "model.layers.0.linear_attn.conv1d.weight", 3, published))
        d->norm_offset = 1;
}

static void check_heads(loader *l, const delta_desc *in) {
    if (!l->failed && in->n_v_heads % in->n_k_heads)
        config_refuse(l, "linear_num_key_heads", "does not divide linear_num_value_heads");
}

void describe_qwen3_next(loader *l, desc *d) {
    describe_qwen3_moe(l, d);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    a->gate = GATE_IN_Q;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    a->rope = read_rope(l, &(rope_wish){.dims = partial_dims(l, d, 0)});
    e->shared = config_int(l, "shared_expert_intermediate_size", 1, MAX_DIM);
    e->shared_gate = true;
    d->names.shared = "mlp.shared_expert";
    d->layer.delta = (delta_desc){.n_k_heads = config_int(l, "linear_num_key_heads", 1, MAX_HEADS),
                                  .n_v_heads = config_int(l, "linear_num_value_heads", 1, MAX_HEADS),
                                  .k_dim = config_int(l, "linear_key_head_dim", 2, MAX_DIM),
                                  .v_dim = config_int(l, "linear_value_head_dim", 2, MAX_DIM),
                                  .kernel = config_int(l, "linear_conv_kernel_dim", 2, 16),
                                  .by_key_head = true};
    check_heads(l, &d->layer.delta);
    if (!l->failed) find_norm_offset(l, d);
    d->own_caches = true;
}

void layer_qwen3_next(loader *l, const desc *d, int64_t i, layer_desc *out) {
    layer_qwen3_moe(l, d, i, out);
    int64_t interval = config_int_or(l, "full_attention_interval", 1, MAX_LAYERS, 4);
    if (!l->failed && (i + 1) % interval == 0) out->delta.n_v_heads = 0;
}

/* Dense, or with experts in all layers; the delta rule's projections are separate. */
void describe_qwen3_5(loader *l, desc *d) {
    static const decoder_defaults defaults = {4096, 32, 151936, 32, 8, 0, 14336, 1e-6};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    a->qk_norm = QK_HEADS;
    a->gate = GATE_IN_Q;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    const json *parameters = json_get(l->config, "rope_parameters"); /* it wins here */
    a->rope = read_rope(l, &(rope_wish){.dims = partial_dims(l, d, 0.25),
                                        .theta_key = parameters ? "" : NULL,
                                        .theta = 100000,
                                        .nested = true});
    d->layer.delta = (delta_desc){.n_k_heads = config_int_or(l, "linear_num_key_heads", 1, MAX_HEADS, 16),
                                  .n_v_heads = config_int_or(l, "linear_num_value_heads", 1, MAX_HEADS, 64),
                                  .k_dim = config_int_or(l, "linear_key_head_dim", 2, MAX_DIM, 192),
                                  .v_dim = config_int_or(l, "linear_value_head_dim", 2, MAX_DIM, 128),
                                  .kernel = config_int_or(l, "linear_conv_kernel_dim", 2, 16, 4)};
    check_heads(l, &d->layer.delta);
    if (!l->failed) find_norm_offset(l, d);
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    d->own_caches = true;
    e->n = config_int_or(l, "num_experts", 0, 65536, 0);
    if (!e->n) return;
    d->layer.ffn.kind = FFN_EXPERTS;
    e->width = config_int(l, "moe_intermediate_size", 1, MAX_DIM);
    e->shared = config_int(l, "shared_expert_intermediate_size", 1, MAX_DIM);
    e->shared_gate = true;
    e->route = (route_spec){.k = (int)config_int(l, "num_experts_per_tok", 1, 65536),
                            .renormalize = config_bool_or(l, "norm_topk_prob", true),
                            .last = true};
    if (e->route.k > e->n) config_refuse(l, "num_experts_per_tok", "is more than num_experts");
    d->names.shared = "mlp.shared_expert";
}

void layer_qwen3_5(loader *l, const desc *d, int64_t i, layer_desc *out) {
    (void)d;
    int64_t interval = config_int_or(l, "full_attention_interval", 1, MAX_LAYERS, 4);
    if (!l->failed && (i + 1) % interval == 0) out->delta.n_v_heads = 0;
}

/* Norms before layers that follow the delta rule, after those of attention, which has them over the
 * whole width of query and key, too. */
void describe_olmo_hybrid(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    const json *parameters = json_get(l->config, "rope_parameters"), /* it wins here */
        *theta = json_get(l->config, "rope_theta");
    a->qk_norm = QK_WIDTH;
    a->qkv_bias = a->o_bias = config_bool(l, "attention_bias");
    if (json_is_object(parameters) || !theta || json_is_number(theta))
        a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                            .theta = 10000,
                                            .theta_key = json_is_object(parameters) ? "" : NULL,
                                            .plain = true,
                                            .nested = true});
    d->layer.delta = (delta_desc){.n_k_heads = config_int(l, "linear_num_key_heads", 1, MAX_HEADS),
                                  .n_v_heads = config_int(l, "linear_num_value_heads", 1, MAX_HEADS),
                                  .k_dim = config_int(l, "linear_key_head_dim", 2, MAX_DIM),
                                  .v_dim = config_int(l, "linear_value_head_dim", 2, MAX_DIM),
                                  .kernel = config_int(l, "linear_conv_kernel_dim", 2, 16),
                                  .separate = true,
                                  .negative_eigenvalues = config_bool(l, "linear_allow_neg_eigval"),
                                  .eps = (float)config_float_or(l, "layer_norm_epsilon", 1e-5)};
    check_heads(l, &d->layer.delta);
    d->tied = config_bool(l, "tie_word_embeddings");
    d->own_caches = true;
}

void layer_olmo_hybrid(loader *l, const desc *d, int64_t i, layer_desc *out) {
    const char *type = json_string(config_per_layer(l, "layer_types", i, d->n_layers));
    if (type ? !strcmp(type, "linear_attention") : i % 4 != 3) return;
    out->delta.n_v_heads = 0;
    out->places = PLACES_POST;
}
