/* qwen2.c - Qwen2 and Qwen2.5 (mlx-lm models/qwen2.py).
 * Llama's block with biases on the query, key and value projections. */
#include "model/family.h"

typedef struct qwen2 {
    ends ends;
    block *blocks;
} qwen2;

static void load(loader *l) {
    config_decoder(l);
    model_info *info = &l->model->info;
    if (!l->failed) info->head_dim = info->hidden_size / info->n_heads; /* mlx-lm knows no other here */
    float eps = (float)config_float(l, "rms_norm_eps");
    int64_t intermediate_size = config_int(l, "intermediate_size", 1, MAX_DIM);
    qwen2 *m = l->model->parts = model_alloc(l, 1, sizeof *m);
    if (!m) return;
    m->blocks = model_alloc(l, (size_t)info->n_layers, sizeof *m->blocks);
    m->ends = load_ends(l, config_bool_or(l, "tie_word_embeddings", true), eps, false);
    const rope_spec *rope =
        load_rope(l, config_float_or(l, "rope_theta", 1000000), config_bool_or(l, "rope_traditional", false),
                  json_get(l->config, "rope_scaling"));
    for (int64_t i = 0; i < info->n_layers && !l->failed; i++)
        m->blocks[i] =
            load_block(l, i, rope, eps, (attention_options){.qkv_bias = true}, intermediate_size, false);
}

static tensor forward(const model *base, graph *g, tensor ids, cache *const caches[]) {
    const qwen2 *m = base->parts;
    tensor x = embed(g, ids, m->ends.embed_tokens);
    for (int64_t i = 0; i < base->info.n_layers; i++) x = run_block(g, &m->blocks[i], x, caches[i]);
    return logits_of(g, &m->ends, x);
}

const model_family qwen2_family = {.model_type = "qwen2", .load = load, .forward = forward};
