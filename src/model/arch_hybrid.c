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
    out->conv.kernel = config_int(l, "conv_L_cache", 2, 64);
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
