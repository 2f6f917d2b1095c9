/* gemma3_text.c - Gemma 3, text (mlx-lm models/gemma3_text.py).
 * h = x + norm(attention(norm(x))); out = h + norm(mlp(norm(h))); norms weigh with 1 + w; the embedding is
 * scaled by sqrt(hidden_size); all but every sliding_window_pattern-th layer see a window, with a rope of
 * their own. */
#include "model/family.h"

#include <math.h>

typedef struct gemma3_layer {
    attention attention;
    mlp mlp;
    const weight *input_layernorm, *post_attention_layernorm;
    const weight *pre_feedforward_layernorm, *post_feedforward_layernorm;
} gemma3_layer;

typedef struct gemma3 {
    ends ends;
    gemma3_layer *layers;
    float rms_norm_eps, embed_scale;
    int64_t sliding_window, sliding_window_pattern;
} gemma3;

static bool is_global(const gemma3 *m, int64_t layer) {
    return layer % m->sliding_window_pattern == m->sliding_window_pattern - 1;
}

/* Fields that config.json may leave out, and what they are then (gemma3_text.py: ModelArgs). */
static void config_gemma3(loader *l) {
    model_info *i = &l->model->info;
    i->hidden_size = config_int_or(l, "hidden_size", 1, MAX_DIM, 1152);
    i->n_layers = config_int_or(l, "num_hidden_layers", 1, MAX_LAYERS, 26);
    i->vocab_size = config_int_or(l, "vocab_size", 1, MAX_VOCAB, 262144);
    i->n_heads = config_int_or(l, "num_attention_heads", 1, 4096, 4);
    i->n_kv_heads = config_int_or(l, "num_key_value_heads", 1, 4096, 1);
    i->head_dim = config_int_or(l, "head_dim", 2, 65536, 256);
    if (l->failed) return;
    if (i->n_heads % i->n_kv_heads)
        config_refuse(l, "num_key_value_heads", "does not divide num_attention_heads");
    if (i->head_dim % 2) config_refuse(l, "head_dim", "is not an even number");
}

static void load_layer(loader *l, int64_t layer, const rope_spec *rope, double scale,
                       int64_t intermediate_size, float eps, gemma3_layer *out) {
    int64_t d = l->model->info.hidden_size;
    long long i = layer;
    attention_options options = {.qk_norm = true, .norm_plus_one = true, .scale = scale};
    out->attention = load_attention(l, layer, rope, eps, options);
    out->mlp = load_mlp(l, layer, intermediate_size, false, ACT_GELU_TANH);
    out->input_layernorm = load_norm(l, d, true, "model.layers.%lld.input_layernorm", i);
    out->post_attention_layernorm = load_norm(l, d, true, "model.layers.%lld.post_attention_layernorm", i);
    out->pre_feedforward_layernorm = load_norm(l, d, true, "model.layers.%lld.pre_feedforward_layernorm", i);
    out->post_feedforward_layernorm =
        load_norm(l, d, true, "model.layers.%lld.post_feedforward_layernorm", i);
}

static void load(loader *l) {
    config_gemma3(l);
    const model_info *info = &l->model->info;
    float eps = (float)config_float_or(l, "rms_norm_eps", 1e-6);
    double scalar = config_float_or(l, "query_pre_attn_scalar", 256);
    int64_t intermediate_size = config_int_or(l, "intermediate_size", 1, MAX_DIM, 6912);
    if (!l->failed && !(scalar > 0)) config_refuse(l, "query_pre_attn_scalar", "is not positive");
    gemma3 *m = l->model->parts = model_alloc(l, 1, sizeof *m);
    if (!m) return;
    m->rms_norm_eps = eps;
    m->sliding_window = config_int_or(l, "sliding_window", 2, INT32_MAX, 512);
    m->sliding_window_pattern = config_int_or(l, "sliding_window_pattern", 1, MAX_LAYERS, 6);
    m->layers = model_alloc(l, (size_t)info->n_layers, sizeof *m->layers);
    m->embed_scale =
        bf16_to_f32(f32_to_bf16(sqrtf((float)info->hidden_size))); /* mlx-lm makes it a bfloat16 */
    m->ends = load_ends(l, !checkpoint_has(l->checkpoint, "lm_head.weight"), eps, true);
    const rope_spec *local = load_rope(l, config_float_or(l, "rope_local_base_freq", 10000), false, NULL);
    const rope_spec *global =
        load_rope(l, config_float_or(l, "rope_theta", 1000000), false, json_get(l->config, "rope_scaling"));
    for (int64_t i = 0; i < info->n_layers && !l->failed; i++)
        load_layer(l, i, is_global(m, i) ? global : local, pow(scalar, -0.5), intermediate_size, eps,
                   &m->layers[i]);
}

static tensor forward(const model *base, graph *g, tensor ids, cache *const caches[]) {
    const gemma3 *m = base->parts;
    float eps = m->rms_norm_eps;
    tensor x = scale(g, embed(g, ids, m->ends.embed_tokens), m->embed_scale);
    for (int64_t i = 0; i < base->info.n_layers; i++) {
        const gemma3_layer *l = &m->layers[i];
        tensor r = attend_self(g, &l->attention, rms_norm(g, x, l->input_layernorm, eps), caches[i]);
        tensor h = add_clipped(g, x, rms_norm(g, r, l->post_attention_layernorm, eps));
        r = feed_forward(g, &l->mlp, rms_norm(g, h, l->pre_feedforward_layernorm, eps));
        x = add_clipped(g, h, rms_norm(g, r, l->post_feedforward_layernorm, eps));
    }
    return logits_of(g, &m->ends, x);
}

static int64_t window(const model *base, int64_t layer) {
    const gemma3 *m = base->parts;
    return is_global(m, layer) ? 0 : m->sliding_window;
}

const model_family gemma3_text_family = {
    .model_type = "gemma3_text", .load = load, .forward = forward, .window = window};
