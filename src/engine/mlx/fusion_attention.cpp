/* fusion_attention.cpp - attention in fused decode steps: finds what one kernel can do with it,
 * which is the norms of queries and keys, rope and the cache writes before. */
#include "engine/mlx/mlx.hpp"

#include <cmath>

static bool is_rotated(const mlx_engine &e, const node *x, op_kind reader, rotated_heads *out) {
    if (x->op != OP_ROPE || !sole_reader(e, x, reader) || x->rope->mscale != 1) return false;
    const node *norm = x->in[0]->op == OP_RMS_NORM ? x->in[0] : nullptr,
               *heads = norm ? norm->in[0] : x->in[0];
    if (heads->op != OP_HEADS || e.fused.readers[heads->index] != 1 || e.fused.readers[x->in[0]->index] != 1)
        return false;
    if (norm && (!norm->w[0] || norm->w[0]->dtype != norm->dtype)) return false;
    *out = {heads->in[0], heads, norm, x};
    return true;
}

/* What the attention x can do with what comes before it; false where the kernel cannot. */
static bool attention_at(const mlx_engine &e, const node *x, attention_group *out) {
    const node *write = x->in[1], *v = write->in[1];
    const cache &c = *x->cache;
    if (c.bits || c.spec.max_size || c.spec.window || c.spec.chunk || x->attention.f32 ||
        !cuda_attend_takes(c.spec, static_cast<int>(x->in[0]->shape[1])))
        return false;
    if (x->w[0] || x->attention.softcap != 0 || e.fused.readers[write->index] != 1) return false;
    if ((x->dtype != DTYPE_BF16 && x->dtype != DTYPE_F16) || v->op != OP_HEADS ||
        e.fused.readers[v->index] != 1)
        return false;
    if (!is_rotated(e, x->in[0], OP_ATTEND, &out->q) || !is_rotated(e, write->in[0], OP_KV_WRITE, &out->k))
        return false;
    const rotated_heads &q = out->q, &k = out->k;
    if (q.rope->rope != k.rope->rope || !q.norm != !k.norm || (q.norm && q.norm->eps != k.norm->eps))
        return false;
    out->write = write;
    out->v = v;
    return true;
}

void find_attention(mlx_engine &e, const node *x) {
    fusion &f = e.fused;
    attention_group a;
    if (!attention_at(e, x, &a)) return;
    f.attentions[x->index] = a;
    for (const node *part : {a.q.heads, a.q.norm, a.q.rope, a.k.heads, a.k.norm, a.k.rope, a.v, a.write})
        if (part) f.done[part->index] = true;
}

static const mx::array &inverse_freqs(fusion &f, const rope_spec *spec) {
    auto found = f.inverse_freqs.find(spec);
    if (found != f.inverse_freqs.end()) return found->second;
    int n = spec->dims / 2;
    std::vector<float> inverse(static_cast<size_t>(n));
    for (int i = 0; i < n; i++) /* as MLX's two kernels compute them */
        inverse[static_cast<size_t>(i)] =
            spec->base != 0
                ? std::exp2(-(static_cast<float>(i) / static_cast<float>(n)) * std::log2(spec->base))
                : 1 / spec->freqs[i];
    mx::array made(inverse.data(), {n}, mx::float32);
    return f.inverse_freqs.emplace(spec, made).first->second;
}

bool record_attention(mlx_engine &e, const node *x) {
    fusion &f = e.fused;
    auto found = f.attentions.find(x->index);
    if (found == f.attentions.end()) return false;
    const attention_group &a = found->second;
    mlx_cache &c = *reinterpret_cast<mlx_cache *>(x->cache);
    const cache_spec &s = c.base.spec;
    const mx::array &q = *e.values[a.q.from->index].first, &k = *e.values[a.k.from->index].first;
    mx::Shape entry = {1, s.n_kv_heads, 1, s.head_dim};
    mlx_cache_reserve(c.keys, 0, entry, k.dtype(), x->position);
    mlx_cache_reserve(c.values, 0, entry, k.dtype(), x->position);
    if (!f.entries) f.entries = mx::broadcast_to(mx::array(0.0f), {static_cast<int>(x->position) + 1});
    int n_heads = static_cast<int>(a.q.rope->shape[1]), scratch = cuda_attend_scratch(s, n_heads);
    if (!f.scratch || f.scratch->shape(0) < scratch) f.scratch = mx::zeros({scratch}, mx::float32);
    cuda_attend run = {.q = q,
                       .k = k,
                       .v = *e.values[a.v->in[0]->index].first,
                       .keys = c.keys[0],
                       .values = c.values[0],
                       .inverse_freqs = inverse_freqs(f, a.q.rope->rope),
                       .entries = *f.entries,
                       .scratch = *f.scratch,
                       .rope = a.q.rope->rope,
                       .n_heads = n_heads,
                       .scale = x->attention.scale,
                       .q_norm = weight_of_norm(a.q.norm),
                       .k_norm = weight_of_norm(a.k.norm),
                       .eps = a.q.norm ? a.q.norm->eps : 0};
    e.values[x->index].first = cuda_attend_run(run);
    return true;
}
