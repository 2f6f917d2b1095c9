/* arch_gemma.c - the Gemmas: norms weigh with 1 + w the embedding is scaled.
 * mlx-lm: models/gemma.py, gemma3_text.py. */
#include "model/decoder.h"

#include <math.h>

/* The first Gemma: norms only before, and the exact GELU. */
void describe_gemma(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 10000,
                                        .traditional = config_bool_or(l, "rope_traditional", false),
                                        .plain = true});
    d->norm_offset = 1;
    d->layer.ffn.act = ACT_GELU;
    d->embed_scale = sqrt((double)d->hidden);
    d->tied = true;
}

/* Soft caps on scores and logits; norms on both sides. mlx-lm has no windows here. */
void describe_gemma2(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 10000,
                                        .traditional = config_bool_or(l, "rope_traditional", false),
                                        .plain = true});
    a->scale = pow(config_float_or(l, "query_pre_attn_scalar", 144), -0.5);
    a->softcap = (float)config_float_or(l, "attn_logit_softcapping", 50);
    d->logit_cap = config_float_or(l, "final_logit_softcapping", 30);
    d->norm_offset = 1;
    d->layer.places = PLACES_SANDWICH;
    d->names.ffn_pre = "pre_feedforward_layernorm";
    d->layer.ffn.act = ACT_GELU_TANH;
    d->embed_scale = sqrt((double)d->hidden);
    d->tied = true;
    if (!l->failed && !(a->softcap > 0)) config_refuse(l, "attn_logit_softcapping", "is not positive");
}

/* All but every sixth layer see a window and have a rope of their own; h = x +
 * norm(attention(norm(x))). */
void describe_gemma3(loader *l, desc *d) {
    static const decoder_defaults defaults = {1152, 26, 262144, 4, 1, 256, 6912, 1e-6};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    double scalar = config_float_or(l, "query_pre_attn_scalar", 256);
    if (!l->failed && !(scalar > 0)) config_refuse(l, "query_pre_attn_scalar", "is not positive");
    a->scale = pow(scalar, -0.5);
    a->qk_norm = QK_HEADS;
    d->norm_offset = 1;
    d->layer.places = PLACES_SANDWICH;
    d->names.ffn_pre = "pre_feedforward_layernorm";
    d->layer.clip = true;
    d->layer.ffn.act = ACT_GELU_TANH;
    d->embed_scale = bf16_to_f32(f32_to_bf16(sqrtf((float)d->hidden))); /* mlx-lm makes it a bfloat16 */
    d->tied = !checkpoint_has(l->checkpoint, "lm_head.weight");
    d->own_caches = true;
}

void layer_gemma3(loader *l, const desc *d, int64_t i, layer_desc *out) {
    attention_desc *a = &out->attention;
    bool global = (i + 1) % config_int_or(l, "sliding_window_pattern", 1, MAX_LAYERS, 6) == 0;
    if (l->failed) return;
    if (is_sliding(l, d, i, !global)) {
        a->window = config_int_or(l, "sliding_window", 2, INT32_MAX, 512);
        a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                            .theta = 10000,
                                            .theta_key = "rope_local_base_freq",
                                            .layer_type = "sliding_attention",
                                            .plain = true});
    } else {
        a->rope =
            read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 1000000, .layer_type = "full_attention"});
    }
}
