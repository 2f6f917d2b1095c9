/* arch_dense.c - dense architectures whose norms or names are others than Llama's: what each changes.
 * mlx-lm: models/, the file of that name. */
#include "model/decoder.h"

#include <math.h>

/* Norms only after attention and feed-forward, and over the whole width of query and key. */
void describe_olmo2(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", false);
    a->qk_norm = QK_WIDTH;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 10000,
                                        .traditional = config_bool_or(l, "rope_traditional", false)});
    d->layer.places = PLACES_POST;
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
}

/* Olmo 2's block; three of four layers see a window, and only the others have a scaled rope. */
void describe_olmo3(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = config_bool_or(l, "attention_bias", false);
    a->o_bias = a->qkv_bias;
    a->qk_norm = QK_WIDTH;
    d->layer.places = PLACES_POST;
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    d->own_caches = true;
}

void layer_olmo3(loader *l, const desc *d, int64_t i, layer_desc *out) {
    attention_desc *a = &out->attention;
    bool sliding = is_sliding(l, d, i, (i + 1) % 4 != 0);
    if (sliding) a->window = config_int(l, "sliding_window", 2, INT32_MAX);
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .plain = sliding});
}

/* Llama with the names of GPT-2. */
void describe_exaone(loader *l, desc *d) {
    static const decoder_keys keys = {.n_layers = "num_layers", .eps = "layer_norm_epsilon"};
    read_decoder_keys(l, d, &keys, &(decoder_defaults){0});
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", false);
    a->rope = read_rope(
        l, &(rope_wish){.dims = a->head_dim, .traditional = config_bool_or(l, "rope_traditional", false)});
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
    d->names = (names){.embed = "transformer.wte",
                       .norm = "transformer.ln_f",
                       .head = "lm_head",
                       .layers = "transformer.h",
                       .q = "attn.attention.q_proj",
                       .k = "attn.attention.k_proj",
                       .v = "attn.attention.v_proj",
                       .o = "attn.attention.out_proj",
                       .pre = "ln_1",
                       .ffn_pre = "ln_2",
                       .gate = "mlp.c_fc_0",
                       .up = "mlp.c_fc_1",
                       .down = "mlp.c_proj"};
}

/* Norms after attention and feed-forward; a pattern of local layers, which see a window, and global ones,
 * which have no positions. */
void describe_exaone4(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qk_norm = QK_HEADS;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim});
    d->layer.places = PLACES_POST;
    d->tied = config_bool(l, "tie_word_embeddings");
    d->own_caches = true;
}

void layer_exaone4(loader *l, const desc *d, int64_t i, layer_desc *out) {
    const char *pattern = json_string(json_get(l->config, "sliding_window_pattern"));
    if (!pattern || !*pattern) return; /* all layers see everything, with positions */
    if (is_sliding(l, d, i, pattern[(size_t)i % strlen(pattern)] == 'L'))
        out->attention.window = config_int(l, "sliding_window", 2, INT32_MAX);
    else
        out->attention.rope = NULL;
}

/* Norms on query and key after rope, whose base grows with "alpha". */
void describe_hunyuan_v1_dense(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    a->qk_norm = config_bool_or(l, "use_qk_norm", true) ? QK_AFTER_ROPE : QK_NONE;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 10000, .alpha = true});
    d->names.q_norm = "self_attn.query_layernorm";
    d->names.k_norm = "self_attn.key_layernorm";
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
}
