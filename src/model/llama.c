/* llama.c - Llama 2, 3 and 3.x, Mistral, SmolLM2, Yi and their like (mlx-lm models/llama.py).
 * h = x + attention(norm(x)); out = h + mlp(norm(h)); some layers may have a sliding window. */
#include "model/family.h"

typedef struct llama {
    ends ends;
    block *blocks;
    bool *sliding; /* by layer */
    int64_t sliding_window;
} llama;

/* layer_types: a list of "full_attention" and "sliding_attention", one per layer. */
static void load_layer_types(loader *l, llama *m) {
    const json *types = json_get(l->config, "layer_types");
    int64_t n = 0;
    bool any = false;
    if (!types || l->failed) return;
    for
        json_each(item, types) {
            const char *type = json_string(item);
            bool sliding = type && !strcmp(type, "sliding_attention");
            if (n < l->model->info.n_layers) m->sliding[n++] = sliding;
            any = any || sliding;
        }
    if (json_length(types) != l->model->info.n_layers)
        config_refuse(l, "layer_types", "has not one entry per layer");
    if (any) m->sliding_window = config_int(l, "sliding_window", 2, INT32_MAX);
}

static void load(loader *l) {
    config_decoder(l);
    const model_info *info = &l->model->info;
    float eps = (float)config_float(l, "rms_norm_eps");
    int64_t intermediate_size = config_int(l, "intermediate_size", 1, MAX_DIM);
    bool bias = config_bool_or(l, "attention_bias", false), mlp_bias = config_bool_or(l, "mlp_bias", false);
    llama *m = l->model->parts = model_alloc(l, 1, sizeof *m);
    if (!m) return;
    m->blocks = model_alloc(l, (size_t)info->n_layers, sizeof *m->blocks);
    m->sliding = model_alloc(l, (size_t)info->n_layers, sizeof *m->sliding);
    m->ends = load_ends(l, config_bool_or(l, "tie_word_embeddings", true), eps, false);
    load_layer_types(l, m);
    const rope_spec *rope =
        load_rope(l, config_float_or(l, "rope_theta", 10000), config_bool_or(l, "rope_traditional", false),
                  json_get(l->config, "rope_scaling"));
    attention_options options = {.qkv_bias = bias, .o_bias = bias};
    for (int64_t i = 0; i < info->n_layers && !l->failed; i++)
        m->blocks[i] = load_block(l, i, rope, eps, options, intermediate_size, mlp_bias);
}

static tensor forward(const model *base, graph *g, tensor ids, cache *const caches[]) {
    const llama *m = base->parts;
    tensor x = embed(g, ids, m->ends.embed_tokens);
    for (int64_t i = 0; i < base->info.n_layers; i++) x = run_block(g, &m->blocks[i], x, caches[i]);
    return logits_of(g, &m->ends, x);
}

static int64_t window(const model *base, int64_t layer) {
    const llama *m = base->parts;
    return m->sliding[layer] ? m->sliding_window : 0;
}

const model_family llama_family = {.model_type = "llama", .load = load, .forward = forward, .window = window};
