/* qwen3.c - Qwen3, dense (mlx-lm models/qwen3.py).
 * Llama's block with a norm on each query and key head before rope. */
#include "model/family.h"

typedef struct qwen3 {
    ends ends;
    block *blocks;
} qwen3;

/* transformers 5 nests rope_theta and rope_scaling under rope_parameters. */
static const rope_spec *load_qwen3_rope(loader *l) {
    const json *nested = json_get(l->config, "rope_parameters"),
               *scaling = json_get(l->config, "rope_scaling");
    double theta = 0;
    if (nested && !json_get(l->config, "rope_theta")) {
        if (!l->failed) l->failed = json_get_float(nested, l->name, "rope_theta", true, &theta) < 0;
    } else {
        theta = config_float(l, "rope_theta");
    }
    return load_rope(l, theta, false, scaling ? scaling : nested);
}

static void load(loader *l) {
    config_decoder(l);
    const model_info *info = &l->model->info;
    float eps = (float)config_float(l, "rms_norm_eps");
    int64_t intermediate_size = config_int(l, "intermediate_size", 1, MAX_DIM);
    qwen3 *m = l->model->parts = model_alloc(l, 1, sizeof *m);
    if (!m) return;
    m->blocks = model_alloc(l, (size_t)info->n_layers, sizeof *m->blocks);
    m->ends = load_ends(l, config_bool_or(l, "tie_word_embeddings", false), eps, false);
    const rope_spec *rope = load_qwen3_rope(l);
    for (int64_t i = 0; i < info->n_layers && !l->failed; i++)
        m->blocks[i] =
            load_block(l, i, rope, eps, (attention_options){.qk_norm = true}, intermediate_size, false);
}

static tensor forward(const model *base, graph *g, tensor ids, cache *const caches[]) {
    const qwen3 *m = base->parts;
    tensor x = embed(g, ids, m->ends.embed_tokens);
    for (int64_t i = 0; i < base->info.n_layers; i++) x = run_block(g, &m->blocks[i], x, caches[i]);
    return logits_of(g, &m->ends, x);
}

const model_family qwen3_family = {.model_type = "qwen3", .load = load, .forward = forward};
