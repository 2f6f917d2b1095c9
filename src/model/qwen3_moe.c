/* qwen3_moe.c - Qwen3 with experts: 30B-A3B, 235B-A22B, Coder (mlx-lm models/qwen3_moe.py).
 * Qwen3's attention; the feed-forward is a router and its k best experts, except in the dense layers. */
#include "model/family.h"

typedef struct qwen3_moe_layer {
    attention attention;
    const weight *input_layernorm, *post_attention_layernorm;
    mlp mlp;                                 /* of a dense layer */
    const weight *router, *gate, *up, *down; /* router NULL: a dense layer */
} qwen3_moe_layer;

typedef struct qwen3_moe {
    ends ends;
    qwen3_moe_layer *layers;
    float rms_norm_eps;
    int num_experts_per_tok;
    bool norm_topk_prob;
} qwen3_moe;

/* The config fields that decide which layers have experts, and how many. */
typedef struct expert_config {
    int64_t num_experts, moe_intermediate_size, intermediate_size, decoder_sparse_step;
    const json *mlp_only_layers;
} expert_config;

static bool has_experts(const expert_config *c, int64_t layer) {
    for
        json_each(item, c->mlp_only_layers) if ((int64_t)json_number(item) == layer) return false;
    return c->num_experts > 0 && (layer + 1) % c->decoder_sparse_step == 0;
}

static void load_layer(loader *l, const expert_config *c, int64_t layer, const rope_spec *rope, float eps,
                       qwen3_moe_layer *out) {
    int64_t d = l->model->info.hidden_size, n = c->num_experts, width = c->moe_intermediate_size;
    long long i = layer;
    out->attention = load_attention(l, layer, rope, eps, (attention_options){.qk_norm = true});
    out->input_layernorm = load_norm(l, d, false, "model.layers.%lld.input_layernorm", i);
    out->post_attention_layernorm = load_norm(l, d, false, "model.layers.%lld.post_attention_layernorm", i);
    if (!has_experts(c, layer)) {
        out->mlp = load_mlp(l, layer, c->intermediate_size, false, ACT_SILU);
        return;
    }
    out->router = load_linear(l, n, d, false, "model.layers.%lld.mlp.gate", i);
    out->gate = load_experts(l, n, width, d, "model.layers.%lld.mlp.switch_mlp.gate_proj", i);
    out->up = load_experts(l, n, width, d, "model.layers.%lld.mlp.switch_mlp.up_proj", i);
    out->down = load_experts(l, n, d, width, "model.layers.%lld.mlp.switch_mlp.down_proj", i);
}

static void load(loader *l) {
    config_decoder(l);
    const model_info *info = &l->model->info;
    float eps = (float)config_float(l, "rms_norm_eps");
    expert_config c = {.num_experts = config_int(l, "num_experts", 0, 65536),
                       .moe_intermediate_size = config_int(l, "moe_intermediate_size", 1, MAX_DIM),
                       .intermediate_size = config_int(l, "intermediate_size", 1, MAX_DIM),
                       .decoder_sparse_step = config_int(l, "decoder_sparse_step", 1, MAX_LAYERS),
                       .mlp_only_layers = json_get(l->config, "mlp_only_layers")};
    int64_t k = config_int(l, "num_experts_per_tok", 1, 65536);
    if (k > c.num_experts && c.num_experts)
        config_refuse(l, "num_experts_per_tok", "is more than num_experts");
    qwen3_moe *m = l->model->parts = model_alloc(l, 1, sizeof *m);
    if (!m) return;
    m->rms_norm_eps = eps;
    m->num_experts_per_tok = (int)k;
    m->norm_topk_prob = config_bool_or(l, "norm_topk_prob", false);
    m->layers = model_alloc(l, (size_t)info->n_layers, sizeof *m->layers);
    m->ends = load_ends(l, config_bool_or(l, "tie_word_embeddings", false), eps, false);
    const rope_spec *rope =
        load_rope(l, config_float(l, "rope_theta"), false, NULL); /* mlx-lm ignores rope_scaling here */
    for (int64_t i = 0; i < info->n_layers && !l->failed; i++) load_layer(l, &c, i, rope, eps, &m->layers[i]);
}

static tensor mix_experts(graph *g, const qwen3_moe *m, const qwen3_moe_layer *l, tensor x) {
    tensor routing = route(g, linear(g, x, l->router), m->num_experts_per_tok, m->norm_topk_prob);
    return experts(g, x, routing, ACT_SILU, l->gate, l->up, l->down);
}

static tensor forward(const model *base, graph *g, tensor ids, cache *const caches[]) {
    const qwen3_moe *m = base->parts;
    tensor x = embed(g, ids, m->ends.embed_tokens);
    for (int64_t i = 0; i < base->info.n_layers; i++) {
        const qwen3_moe_layer *l = &m->layers[i];
        tensor r =
            attend_self(g, &l->attention, rms_norm(g, x, l->input_layernorm, m->rms_norm_eps), caches[i]);
        tensor h = add(g, x, r);
        tensor n = rms_norm(g, h, l->post_attention_layernorm, m->rms_norm_eps);
        x = add(g, h, l->router ? mix_experts(g, m, l, n) : feed_forward(g, &l->mlp, n));
    }
    return logits_of(g, &m->ends, x);
}

const model_family qwen3_moe_family = {.model_type = "qwen3_moe", .load = load, .forward = forward};
