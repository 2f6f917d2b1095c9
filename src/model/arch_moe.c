/* arch_moe.c - architectures with experts: what each changes.
 * The feed-forward of most layers is a router and its k best experts. mlx-lm: models/qwen3_moe.py. */
#include "model/decoder.h"

/* Qwen3's attention. */
void describe_qwen3_moe(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qk_norm = QK_HEADS;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .plain = true});
    moe_desc *e = &d->layer.ffn.moe;
    e->n = config_int(l, "num_experts", 0, 65536);
    e->k = config_int(l, "num_experts_per_tok", 1, 65536);
    e->width = config_int(l, "moe_intermediate_size", 1, MAX_DIM);
    e->renormalize = config_bool_or(l, "norm_topk_prob", false);
    if (e->k > e->n && e->n) config_refuse(l, "num_experts_per_tok", "is more than num_experts");
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
}

void layer_qwen3_moe(loader *l, const desc *d, int64_t i, layer_desc *out) {
    int64_t step = config_int(l, "decoder_sparse_step", 1, MAX_LAYERS);
    if (l->failed || !d->layer.ffn.moe.n || config_list_has(l, "mlp_only_layers", i)) return;
    if ((i + 1) % step == 0) out->ffn.kind = FFN_EXPERTS;
}
