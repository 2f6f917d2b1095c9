/* arch_llama.c - architectures that are Llama with little else: what each changes.
 * h = x + attention(norm(x)); out = h + mlp(norm(h)). mlx-lm: the file of each model_type in models/. */
#include "model/decoder.h"

/* Biases if asked for; some layers may see a window. */
void describe_llama(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", false);
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 10000,
                                        .traditional = config_bool_or(l, "rope_traditional", false)});
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
    d->own_caches = true;
}

void layer_llama(loader *l, const desc *d, int64_t i, layer_desc *out) {
    if (is_sliding(l, d, i, false)) out->attention.window = config_int(l, "sliding_window", 2, INT32_MAX);
}

/* Biases on query, key and value; head_dim is always hidden_size / heads. */
void describe_qwen2(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->qkv_bias = true;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 1000000,
                                        .traditional = config_bool_or(l, "rope_traditional", false)});
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
}

/* A norm on each query and key head. */
void describe_qwen3(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qk_norm = QK_HEADS;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim});
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
}
