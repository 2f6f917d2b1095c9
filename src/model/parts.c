/* parts.c - attention, gated MLP and the two ends of a decoder, as most families have them.
 * What is special stays in the family's own file. */
#include "model/family.h"

#include <math.h>

attention load_attention(loader *l, int64_t layer, const rope_spec *rope, float eps,
                         attention_options options) {
    const model_info *i = &l->model->info;
    long long n = layer;
    int64_t q = i->n_heads * i->head_dim, k = i->n_kv_heads * i->head_dim;
    attention a = {.rope = rope, .n_heads = (int)i->n_heads, .n_kv_heads = (int)i->n_kv_heads, .eps = eps};
    a.scale = (float)(options.scale != 0 ? options.scale : pow((double)i->head_dim, -0.5));
    a.q = load_linear(l, q, i->hidden_size, options.qkv_bias, "model.layers.%lld.self_attn.q_proj", n);
    a.k = load_linear(l, k, i->hidden_size, options.qkv_bias, "model.layers.%lld.self_attn.k_proj", n);
    a.v = load_linear(l, k, i->hidden_size, options.qkv_bias, "model.layers.%lld.self_attn.v_proj", n);
    a.o = load_linear(l, i->hidden_size, q, options.o_bias, "model.layers.%lld.self_attn.o_proj", n);
    if (options.qk_norm) {
        a.q_norm = load_norm(l, i->head_dim, options.norm_plus_one, "model.layers.%lld.self_attn.q_norm", n);
        a.k_norm = load_norm(l, i->head_dim, options.norm_plus_one, "model.layers.%lld.self_attn.k_norm", n);
    }
    return a;
}

tensor attend_self(graph *g, const attention *a, tensor x, cache *c) {
    tensor q, k, v;
    linears(g, x, 3, (const weight *const[]){a->q, a->k, a->v}, (tensor *const[]){&q, &k, &v});
    q = heads(g, q, a->n_heads);
    k = heads(g, k, a->n_kv_heads);
    v = heads(g, v, a->n_kv_heads);
    if (a->q_norm) q = rms_norm(g, q, a->q_norm, a->eps);
    if (a->k_norm) k = rms_norm(g, k, a->k_norm, a->eps);
    q = rope(g, q, a->rope, c);
    k = rope(g, k, a->rope, c);
    return linear(g, attend(g, c, q, k, v, a->scale), a->o);
}

mlp load_mlp(loader *l, int64_t layer, int64_t intermediate_size, bool bias, activation act) {
    int64_t d = l->model->info.hidden_size, i = intermediate_size;
    long long n = layer;
    return (mlp){.gate = load_linear(l, i, d, bias, "model.layers.%lld.mlp.gate_proj", n),
                 .up = load_linear(l, i, d, bias, "model.layers.%lld.mlp.up_proj", n),
                 .down = load_linear(l, d, i, bias, "model.layers.%lld.mlp.down_proj", n),
                 .act = act};
}

tensor feed_forward(graph *g, const mlp *m, tensor x) {
    tensor gate, up;
    linears(g, x, 2, (const weight *const[]){m->gate, m->up}, (tensor *const[]){&gate, &up});
    return linear(g, gated(g, m->act, gate, up), m->down);
}

block load_block(loader *l, int64_t layer, const rope_spec *rope, float eps, attention_options options,
                 int64_t intermediate_size, bool mlp_bias) {
    int64_t d = l->model->info.hidden_size;
    long long n = layer;
    return (block){
        .attention = load_attention(l, layer, rope, eps, options),
        .mlp = load_mlp(l, layer, intermediate_size, mlp_bias, ACT_SILU),
        .input_layernorm = load_norm(l, d, false, "model.layers.%lld.input_layernorm", n),
        .post_attention_layernorm = load_norm(l, d, false, "model.layers.%lld.post_attention_layernorm", n),
        .eps = eps,
    };
}

tensor run_block(graph *g, const block *b, tensor x, cache *c) {
    tensor h = add(g, x, attend_self(g, &b->attention, rms_norm(g, x, b->input_layernorm, b->eps), c));
    return add(g, h, feed_forward(g, &b->mlp, rms_norm(g, h, b->post_attention_layernorm, b->eps)));
}

ends load_ends(loader *l, bool tied, float eps, bool norm_plus_one) {
    const model_info *i = &l->model->info;
    ends e = {.eps = eps};
    e.embed_tokens = load_linear(l, i->vocab_size, i->hidden_size, false, "model.embed_tokens");
    e.norm = load_norm(l, i->hidden_size, norm_plus_one, "model.norm");
    e.lm_head = tied ? e.embed_tokens : load_linear(l, i->vocab_size, i->hidden_size, false, "lm_head");
    if (tied && checkpoint_ignore(l->checkpoint, "lm_head.")) l->failed = true;
    if (checkpoint_ignore(l->checkpoint, "self_attn.rotary_emb.inv_freq")) l->failed = true;
    if (l->failed) return e;
    /* Activations, and so mlx-lm's caches, have the wider type of the two, as MLX promotes. But a GGUF file's
     * norms are always F32, which says nothing of what its caches need: llama.cpp's are F16. */
    bool f32 = e.norm->dtype == DTYPE_F32 && !checkpoint_is_gguf(l->checkpoint);
    l->model->kv_dtype = f32 ? DTYPE_F32 : e.embed_tokens->dtype;
    return e;
}

tensor logits_of(graph *g, const ends *e, tensor x) {
    return linear(g, rms_norm(g, x, e->norm, e->eps), e->lm_head);
}
