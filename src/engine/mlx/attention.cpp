/* attention.cpp - KV caches and attention as mlx-lm has them: cache.py and base.py, case by case.
 * Caches grow in steps of 256 entries; a handle to an old array would make every write copy it, so
 * none is kept. */
#include "engine/mlx/mlx.hpp"

#include <algorithm>
#include <limits>

enum { STEP = 256, ENTRIES = 2 }; /* growth, and the axis of [B, H, entries, hd] that grows */

static mx::array between(const mx::array &x, int64_t first, int64_t end) {
    mx::Shape start(x.ndim(), 0), stop = x.shape();
    start[ENTRIES] = static_cast<int>(first);
    stop[ENTRIES] = static_cast<int>(end);
    return mx::slice(x, start, stop);
}

static mx::array with_entries(const mx::array &x, int64_t first, const mx::array &entries) {
    mx::Shape start(x.ndim(), 0), stop = x.shape();
    start[ENTRIES] = static_cast<int>(first);
    stop[ENTRIES] = static_cast<int>(first) + entries.shape(ENTRIES);
    return mx::slice_update(x, entries, start, stop);
}

/* n empty entries of the same kind */
static mx::array room(mx::Shape shape, mx::Dtype type, int64_t n) {
    shape[ENTRIES] = static_cast<int>(n);
    return mx::zeros(shape, type);
}

static int64_t size_of(const cached &x) {
    return x.empty() ? 0 : x[0].shape(ENTRIES);
}

/* ---- plain and quantized: KVCache, QuantizedKVCache ---- */

void mlx_cache_reserve(cached &x, size_t i, const mx::Shape &entries, mx::Dtype type, int64_t position) {
    int64_t n = entries[ENTRIES], more = (STEP + n - 1) / STEP * STEP;
    if (i == x.size()) {
        x.push_back(room(entries, type, more));
    } else if (position + n > x[i].shape(ENTRIES)) {
        if (position % STEP) x[i] = between(x[i], 0, position);
        x[i] = mx::concatenate({x[i], room(entries, type, more)}, ENTRIES);
    }
}

/* added: [B, H, n, hd], or its packed parts. position: entries before it. */
static void append(cached &x, const cached &added, int64_t position) {
    for (size_t i = 0; i < added.size(); i++) {
        mlx_cache_reserve(x, i, added[i].shape(), added[i].dtype(), position);
        x[i] = with_entries(x[i], position, added[i]);
    }
}

static cached quantized(const mx::array &x, int bits, int group_size) {
    return mx::quantize(x, group_size, bits);
}

void mlx_cache_quantize(mlx_cache &c, int bits, int group_size) {
    if (c.keys.empty()) return;
    c.keys = quantized(c.keys[0], bits, group_size);
    c.values = quantized(c.values[0], bits, group_size);
}

/* A new array: MLX's own copy may share the buffer, and then the next write would move it. */
static mx::array copied(const mx::array &x) {
    return mx::where(mx::array(true), x, x);
}

static cached copied(const cached &x) {
    cached copies;
    for (const mx::array &part : x) copies.push_back(copied(part));
    return copies;
}

void mlx_cache_copy(mlx_cache &to, const mlx_cache &from) {
    std::vector<mx::array> all;
    to.keys = copied(from.keys);
    to.values = copied(from.values);
    to.index = from.index;
    to.start = from.start;
    for (const cached *x : {&to.keys, &to.values}) all.insert(all.end(), x->begin(), x->end());
    for (size_t i = 0; i < from.states.size(); i++) {
        to.states[i].reset();
        if (!from.states[i]) continue;
        to.states[i] = copied(*from.states[i]);
        all.push_back(*to.states[i]);
    }
    mx::eval(all);
}

/* ---- rotating: RotatingKVCache ---- */

/* _trim: drops the entries after the kept ones, and appends */
static mx::array trimmed(const mx::array &x, int64_t n, int64_t keep, const optional_array &added) {
    std::vector<mx::array> parts;
    if (n > 0) {
        parts.push_back(between(x, 0, keep));
        parts.push_back(between(x, n + keep, x.shape(ENTRIES)));
    } else {
        parts.push_back(x);
    }
    if (added) parts.push_back(*added);
    return mx::concatenate(parts, ENTRIES);
}

static mx::array temporal_order(const mx::array &x, int64_t index, int64_t offset, int64_t keep) {
    if (index == x.shape(ENTRIES)) return x;
    if (index >= offset) return between(x, 0, index);
    return mx::concatenate(
        {between(x, 0, keep), between(x, index, x.shape(ENTRIES)), between(x, keep, index)}, ENTRIES);
}

/* _update_concat: a chunk goes behind all others, in the order of time */
static void rotate_chunk(const mlx_cache &c, cached &x, const mx::array &added, int64_t position) {
    if (x.empty()) {
        x.push_back(added);
        return;
    }
    const cache_spec &s = c.base.spec;
    x[0] = temporal_order(x[0], c.index, position, s.keep);
    x[0] = trimmed(x[0], x[0].shape(ENTRIES) - s.max_size + 1, s.keep, added);
}

/* _update_in_place: one token takes the place of the oldest that is not kept; returns where the
 * next one goes
 */
static int64_t rotate_one(const mlx_cache &c, cached &x, const mx::array &added, int64_t position) {
    const cache_spec &s = c.base.spec;
    int64_t index = c.index;
    if (x.empty() || (position >= size_of(x) && size_of(x) < s.max_size)) {
        mx::array fresh = room(added.shape(), added.dtype(), std::min<int64_t>(STEP, s.max_size - position));
        if (x.empty())
            x.push_back(fresh);
        else
            x[0] = mx::concatenate({x[0], fresh}, ENTRIES);
        index = position;
    }
    if (size_of(x) > s.max_size) {
        x[0] = trimmed(x[0], size_of(x) - s.max_size, s.keep, std::nullopt);
        index = s.max_size;
    }
    if (index == s.max_size) index = s.keep;
    x[0] = with_entries(x[0], index, added);
    return index + 1;
}

static void rotate(mlx_cache &c, const mx::array &keys, const mx::array &values, int64_t position) {
    if (keys.shape(ENTRIES) > 1) {
        rotate_chunk(c, c.keys, keys, position);
        rotate_chunk(c, c.values, values, position);
        c.index = size_of(c.keys);
    } else {
        rotate_one(c, c.keys, keys, position);
        c.index = rotate_one(c, c.values, values, position);
    }
}

/* ---- chunks: ChunkedKVCache ---- */

/* maybe_trim_front: at most a chunk before this step's entries */
static void trim_front(mlx_cache &c, int64_t position) {
    int64_t kept = position - c.start, surplus = kept - c.base.spec.chunk;
    if (c.keys.empty() || surplus <= 0) return;
    c.start += surplus;
    c.keys[0] = between(c.keys[0], surplus, kept);
    c.values[0] = between(c.values[0], surplus, kept);
}

/* ---- the operations ---- */

void mlx_kv_write(mlx_engine &e, const graph *, const node *x) {
    mlx_cache &c = *reinterpret_cast<mlx_cache *>(x->cache);
    const cache &base = c.base;
    mx::Dtype type = mlx_dtype(base.spec.dtype);
    mx::array keys = mx::astype(heads_first(e.values[x->in[0]->index]), type);
    if (!x->in[1]) { /* keys alone, of a plain cache */
        append(c.keys, {keys}, x->position);
        return;
    }
    mx::array values = mx::astype(heads_first(e.values[x->in[1]->index]), type);
    if (base.spec.chunk) trim_front(c, x->position);
    if (base.spec.max_size) {
        rotate(c, keys, values, x->position);
    } else if (base.bits) {
        append(c.keys, quantized(keys, base.bits, base.group_size), x->position);
        append(c.values, quantized(values, base.bits, base.group_size), x->position);
    } else {
        append(c.keys, {keys}, x->position - c.start);
        append(c.values, {values}, x->position - c.start);
    }
}

int64_t mlx_cache_bytes(const mlx_cache &c) {
    int64_t n = 0;
    for (const mx::array &x : c.keys) n += static_cast<int64_t>(x.nbytes());
    for (const mx::array &x : c.values) n += static_cast<int64_t>(x.nbytes());
    for (const optional_array &x : c.states) n += x ? static_cast<int64_t>(x->nbytes()) : 0;
    return n;
}

/* What is filled: n entries in time, which a rotating cache may hold fewer of. */
static cached filled(const cached &x, int64_t n) {
    cached seen;
    for (const mx::array &part : x) seen.push_back(n < size_of(x) ? between(part, 0, n) : part);
    return seen;
}

void mlx_cache_state(const mlx_cache &c, std::vector<mx::array> &out) {
    for (const cached *x : {&c.keys, &c.values})
        for (const mx::array &part : filled(*x, c.base.offset - c.start)) out.push_back(part);
    for (const optional_array &x : c.states)
        if (x) out.push_back(*x);
}

/* base.py: create_causal_mask */
static const mx::array &causal_mask(mlx_engine &e, int64_t n, int64_t offset, int64_t window) {
    mask &m = e.last_mask;
    if (m.visible && !m.chunk && m.n == n && m.offset == offset && m.window == window) return *m.visible;
    int end = static_cast<int>(offset + n), begin = static_cast<int>(offset);
    mx::array right = mx::arange(0, end), left = offset ? mx::arange(begin, end) : right;
    left = mx::expand_dims(left, 1);
    right = mx::expand_dims(right, 0);
    mx::array visible = mx::greater_equal(left, right);
    mx::array reach = mx::add(right, mx::array(static_cast<int>(window), right.dtype()));
    visible = mx::logical_and(visible, mx::less(left, reach));
    m = {n, offset, window, 0, 0, visible};
    return *m.visible;
}

/* llama4.py: chunk_mask */
static const mx::array &chunk_mask(mlx_engine &e, int64_t n, int64_t offset, int64_t start, int64_t chunk) {
    mask &m = e.last_mask;
    if (m.visible && m.n == n && m.offset == offset && m.start == start && m.chunk == chunk)
        return *m.visible;
    int first = static_cast<int>(start), begin = static_cast<int>(offset), end = static_cast<int>(offset + n);
    mx::array right = mx::arange(first, end), left = mx::expand_dims(mx::arange(begin, end), 1);
    mx::array size(static_cast<int>(chunk), right.dtype());
    mx::array apart = mx::abs(mx::subtract(mx::floor_divide(right, size), mx::floor_divide(left, size)));
    mx::array visible =
        mx::logical_and(mx::equal(apart, mx::array(0, apart.dtype())), mx::less_equal(right, left));
    m = {n, offset, 0, start, chunk, visible};
    return *m.visible;
}

/* base.py: quantized_scaled_dot_product_attention. causal: more than one query. windowed: what they
 * see, where it is less. */
static mx::array attend_quantized(mx::array q, cached keys, cached values, const cache &base, float scale,
                                  bool causal, const optional_array &windowed) {
    int n_sequences = q.shape(0), n_heads = q.shape(1), n = q.shape(2), head_dim = q.shape(3),
        n_kv_heads = keys[0].shape(1);
    int repeats = n_heads / n_kv_heads;
    q = mx::multiply(q, constant(scale, q));
    if (repeats > 1) {
        q = mx::reshape(q, {n_sequences, n_kv_heads, repeats, n, head_dim});
        for (mx::array &part : keys) part = mx::expand_dims(part, -3);
        for (mx::array &part : values) part = mx::expand_dims(part, -3);
    }
    mx::array scores = mx::quantized_matmul(q, keys[0], keys[1], keys[2], true, base.group_size, base.bits);
    if (windowed) {
        scores = mx::where(*windowed, scores, constant(mx::finfo(scores.dtype()).min, scores));
    } else if (causal) {
        int queries = scores.shape(-2), entries = scores.shape(-1);
        mx::array visible = mx::greater_equal(mx::expand_dims(mx::arange(entries - queries, entries), 1),
                                              mx::expand_dims(mx::arange(entries), 0));
        scores = mx::where(visible, scores, constant(mx::finfo(scores.dtype()).min, scores));
    }
    scores = mx::softmax(scores, -1, true);
    mx::array out =
        mx::quantized_matmul(scores, values[0], values[1], values[2], false, base.group_size, base.bits);
    return repeats > 1 ? mx::reshape(out, {n_sequences, n_heads, n, out.shape(-1)}) : out;
}

/* cache.py: make_mask; nothing where it is "causal" or None */
static optional_array mask_of(mlx_engine &e, const node *x, int64_t n) {
    const cache_spec &s = x->cache->spec;
    int64_t earlier = std::min(s.max_size - 1, x->position), window = s.window ? s.window : s.max_size;
    if (s.chunk) {
        int64_t start = reinterpret_cast<const mlx_cache *>(x->cache)->start;
        return chunk_mask(e, n, x->position, start, s.chunk);
    }
    if (!s.max_size && s.window) return causal_mask(e, n, x->position, s.window);
    if (s.max_size && n > 1 && earlier + n > window) return causal_mask(e, n, earlier, window);
    return std::nullopt;
}

optional_array mlx_attention_mask(mlx_engine &e, const graph *g, const node *x) {
    return mask_of(e, x, rows_per_sequence(g, x));
}

mx::array mlx_causal_mask(mlx_engine &e, const graph *g, const node *x) {
    int64_t n = rows_per_sequence(g, x), most = x->cache->spec.max_size;
    if (most) return causal_mask(e, n, std::min(most - 1, x->position), most);
    return causal_mask(e, n, x->position, x->position + n); /* a window that leaves nothing out */
}

static mx::array attend_plain(const mx::array &q, const mx::array &keys, const mx::array &values,
                              const node *x, const optional_array &mask) {
    optional_array sinks;
    if (x->w[0]) sinks = mx::astype(weight_of(x->w[0]).values, q.dtype());
    return mx::fast::scaled_dot_product_attention(q, keys, values, x->attention.scale,
                                                  mask || q.shape(2) == 1 ? "" : "causal", mask, sinks);
}

static mx::array causal(const mx::array &scores) {
    int queries = scores.shape(-2), entries = scores.shape(-1);
    return mx::greater_equal(mx::expand_dims(mx::arange(entries - queries, entries), 1),
                             mx::expand_dims(mx::arange(entries), 0));
}

/* gemma2.py: Attention. Plain caches alone. */
static mx::array attend_capped(mx::array q, mx::array keys, mx::array values, const attend_spec &spec,
                               const optional_array &mask) {
    int n_heads = q.shape(1), n = q.shape(2), n_kv_heads = keys.shape(1), repeats = n_heads / n_kv_heads;
    q = mx::multiply(q, constant(spec.scale, q));
    if (repeats > 1) {
        q = mx::reshape(q, {q.shape(0), n_kv_heads, repeats, n, q.shape(3)});
        keys = mx::expand_dims(keys, 2);
        values = mx::expand_dims(values, 2);
    }
    mx::array scores = mx::matmul(q, mx::swapaxes(keys, -1, -2)), cap = constant(spec.softcap, scores);
    scores = mx::multiply(mx::tanh(mx::divide(scores, cap)), cap);
    if (mask || n > 1)
        scores =
            mx::where(mask ? *mask : causal(scores), scores, constant(mx::finfo(scores.dtype()).min, scores));
    mx::array out = mx::matmul(mx::softmax(scores, -1, true), values);
    return repeats > 1 ? mx::reshape(out, {out.shape(0), n_heads, n, out.shape(-1)}) : out;
}

void mlx_attend(mlx_engine &e, const graph *g, const node *x) {
    mlx_cache &c = *reinterpret_cast<mlx_cache *>(x->cache);
    mx::array in = heads_first(value_of(e, x->in[0]));
    /* Of another type than its cache, MLX would convert the cache. */
    mx::array q = mx::astype(in, x->attention.f32 ? mx::float32 : mlx_dtype(c.base.spec.dtype));
    int64_t n = rows_per_sequence(g, x), end = x->position + n - c.start;
    cached keys = filled(c.keys, end), values = filled(c.values, end);
    optional_array mask = mask_of(e, x, n);
    mx::array out = x->attention.softcap != 0 ? attend_capped(q, keys[0], values[0], x->attention, mask)
                    : c.base.bits ? attend_quantized(q, keys, values, c.base, x->attention.scale, n > 1, mask)
                                  : attend_plain(q, keys[0], values[0], x, mask);
    out = mx::transpose(mx::astype(out, in.dtype()), {0, 2, 1, 3});
    value_of(e, x).first = mx::reshape(out, {g->n_sequences, static_cast<int>(n), -1});
}
