/* arch_moe.c - architectures with experts: what each changes.
 * The feed-forward of most layers is a router and its k best experts. mlx-lm: models/qwen3_moe.py. */
#include "model/decoder.h"

static void read_experts(loader *l, moe_desc *e) {
    e->n = config_int(l, "num_experts", 0, 65536);
    e->k = config_int(l, "num_experts_per_tok", 1, 65536);
    e->width = config_int(l, "moe_intermediate_size", 1, MAX_DIM);
    if (e->k > e->n && e->n) config_refuse(l, "num_experts_per_tok", "is more than num_experts");
}

/* Qwen3's attention. */
void describe_qwen3_moe(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qk_norm = QK_HEADS;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .plain = true});
    read_experts(l, &d->layer.ffn.moe);
    d->layer.ffn.moe.renormalize = config_bool_or(l, "norm_topk_prob", false);
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
    read_experts(l, &d->layer.ffn.moe);
    d->layer.ffn.kind = FFN_EXPERTS;
    d->layer.ffn.moe.renormalize = config_bool(l, "norm_topk_prob");
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
