/* ops_latent.c - multi-head latent attention (MLA): products with a matrix for each head, and
 * attention to entries that are a latent and a rotated key, one behind the other. One token: its
 * queries are in the latents' space, and entries are keys and, but for their last numbers, values,
 * too. Several: every head makes keys and values of some entries at a time, and attends to
 * those. */
#include "engine/cpu/cpu.h"

#include <math.h>

enum {
    PIECE_ROWS = 128,      /* of a head's matrix, one piece of work */
    UNIT_HEADS = 8,        /* of one token: heads and keys of a unit of work */
    UNIT_KEYS = 256,       /* the same for any number of threads, as is then the order of sums */
    SEGMENT_KEYS = 1024,   /* of several tokens: entries that become keys and values at a time, */
    EXPANDED_ENTRIES = 64, /* so many of them together, */
    SELECTED_KEYS = 64,    /* keys at a time, of which a token sees the selected */
    BLOCK_TOKENS = 128     /* and tokens that attend to them together */
};

static size_t align_up(size_t n) {
    return (n + 63) / 64 * 64;
}

/* Takes n floats of a thread's scratch; NULL: only the size is wanted. */
static float *carve(uintptr_t *at, int64_t n) {
    float *x = (float *)(void *)*at;
    *at += align_up((size_t)n * sizeof *x);
    return x;
}

static rows rows_of_head(const cpu_weight *w, int64_t h) {
    return cpu_rows_from(&w->rows, h * w->base.shape[1]);
}

/* ---- a matrix for each head ---- */

static const products *products_of(const cpu *e, const node *x) {
    return cpu_products(e, &cpu_weight_of(x, 0)->rows, x->in[0]->dtype, false);
}

size_t cpu_linear_heads_scratch(const cpu *e, const node *x) {
    return cpu_prepared_bytes(products_of(e, x), &cpu_weight_of(x, 0)->rows);
}

/* Some rows of one head's matrix, with all tokens. */
void cpu_linear_heads(cpu *e, const node *x, int thread) {
    const cpu_weight *w = cpu_weight_of(x, 0);
    const products *p = products_of(e, x);
    const float *in = floats_of(e, x->in[0], thread);
    float *out = state_of(e, x)->data;
    int64_t n_heads = x->shape[1], n = x->shape[2], width = x->in[0]->shape[2], i, end;
    int64_t pieces = (n + PIECE_ROWS - 1) / PIECE_ROWS;
    while (pool_take(&state_of(e, x)->taken[0], n_heads * pieces, 1, &i, &end)) {
        int64_t h = i / pieces, first = i % pieces * PIECE_ROWS;
        int64_t count = n - first < PIECE_ROWS ? n - first : PIECE_ROWS;
        rows r = cpu_rows_from(&w->rows, h * n + first);
        for (int64_t t = 0; t < x->shape[0]; t++) {
            const float *from = in + (t * n_heads + h) * width;
            cpu_prepare(e, p, e->thread_scratch[thread], &r, from);
            cpu_matvec(e, p, out + (t * n_heads + h) * n + first, &r, (runs){0, count, 0}, from,
                       e->thread_scratch[thread]);
            for (int64_t k = first; w->bias && k < first + count; k++)
                out[(t * n_heads + h) * n + k] += w->bias[h * n + k];
        }
    }
}

/* ---- one token ---- */

/* How the heads of all sequences and the entries are cut into units. */
typedef struct cut {
    const cpu_cache *cache;
    int64_t n_heads, n_blocks; /* of a sequence */
    int64_t n;                 /* entries that are seen: all, or those selected, */
    const char *gathered;      /* which are here, of each sequence; NULL: all */
    int64_t split, n_splits;   /* entries of a unit */
    int64_t rank, dim;         /* of a latent, of an entry */
} cut;

static cut make_cut(const node *x) {
    const cpu_cache *c = (const cpu_cache *)x->cache;
    cut u = {.cache = c, .n_heads = x->shape[1], .rank = c->base.spec.head_dim, .dim = c->entries[0].dim};
    u.n_blocks = (u.n_heads + UNIT_HEADS - 1) / UNIT_HEADS;
    u.n = x->in[3] ? x->in[3]->shape[1] : c->n_visible;
    u.n_splits = (u.n + UNIT_KEYS - 1) / UNIT_KEYS;
    u.split = (u.n + u.n_splits - 1) / u.n_splits; /* alike */
    return u;
}

/* What a thread needs for a unit. */
typedef struct unit_memory {
    float *q, *out, *inner;
    softmax_state states[UNIT_HEADS];
    seen_keys seen[UNIT_HEADS];
} unit_memory;

static size_t place_unit(const cpu *e, const cut *u, char *scratch, unit_memory *m) {
    uintptr_t at = (uintptr_t)scratch; /* a number: offsets from NULL are not defined */
    m->q = carve(&at, UNIT_HEADS * u->dim);
    m->out = carve(&at, UNIT_HEADS * u->dim);
    m->inner = carve(&at, 0);
    return at - (uintptr_t)scratch + align_up(cpu_attention_scratch(e, UNIT_HEADS, u->dim, u->dim));
}

/* Of each (sequence, head, split): its state, and its sum of latents. */
typedef struct parts {
    softmax_state *states;
    float *outs;
} parts;

static parts parts_of(const cpu *e, const node *x, const cut *u) {
    softmax_state *states = state_of(e, x)->workspace;
    return (parts){states, (float *)(void *)(states + x->shape[0] * u->n_heads * u->n_splits)};
}

static void attend_unit(const cpu *e, const node *x, const cut *u, int64_t i, unit_memory *m, int thread) {
    int64_t split = i % u->n_splits, block = i / u->n_splits % u->n_blocks;
    int64_t sequence = i / u->n_splits / u->n_blocks, first = block * UNIT_HEADS, pe = u->dim - u->rank;
    int64_t n = u->n_heads - first < UNIT_HEADS ? u->n_heads - first : UNIT_HEADS;
    int64_t row = sequence * u->n_heads + first, first_key = split * u->split;
    const float *q = floats_of(e, x->in[0], thread) + row * u->rank;
    const float *q_pe = floats_of(e, x->in[2], thread) + row * pe;
    for (int64_t r = 0; r < n; r++) {
        float *to = m->q + r * u->dim;
        for (int64_t d = 0; d < u->rank; d++) to[d] = q[r * u->rank + d] * x->latent.scale;
        for (int64_t d = 0; d < pe; d++) to[u->rank + d] = q_pe[r * pe + d] * x->latent.scale;
        m->seen[r] = u->gathered ? (seen_keys){0, u->n} : cpu_visible(u->cache, 1, 0);
    }
    attention a = {.n_rows = n, .dim = u->dim, .v_dim = u->dim, .q = m->q, .seen = m->seen};
    a.keys = cpu_cache_rows(u->cache, 0, sequence);
    if (u->gathered) a.keys.values = u->gathered + sequence * u->n * row_bytes_of(&a.keys);
    a.values = a.keys;
    a.first = first_key > m->seen[0].low ? first_key : m->seen[0].low;
    a.end = first_key + u->split < u->n ? first_key + u->split : u->n;
    a.out = m->out;
    a.state = m->states;
    cpu_attention(e, &a, m->inner);
    parts p = parts_of(e, x, u);
    for (int64_t r = 0; r < n; r++) {
        int64_t at = (row + r) * u->n_splits + split;
        p.states[at] = m->states[r];
        memcpy(p.outs + at * u->rank, m->out + r * u->dim, (size_t)u->rank * sizeof *m->out);
    }
}

/* The splits of head h of all sequences'. */
static void join_parts(const cpu *e, const node *x, const cut *u, int64_t h) {
    parts p = parts_of(e, x, u);
    float max = -INFINITY, sum = 0, *out = (float *)state_of(e, x)->data + h * u->rank;
    const softmax_state *s = p.states + h * u->n_splits;
    for (int64_t i = 0; i < u->n_splits; i++) max = fmaxf(s[i].max, max);
    memset(out, 0, (size_t)u->rank * sizeof *out);
    for (int64_t i = 0; i < u->n_splits; i++) {
        const float *part = p.outs + (h * u->n_splits + i) * u->rank;
        float share = expf(s[i].max - max);
        sum += s[i].sum * share;
        for (int64_t d = 0; d < u->rank; d++) out[d] += share * part[d];
    }
    for (int64_t d = 0; d < u->rank; d++) out[d] /= sum;
}

/* Copies the selected entries of each sequence to one place; threads share them out. */
static void gather(const cpu *e, const node *x, cut *u, int thread) {
    parts p = parts_of(e, x, u);
    const int32_t *selected = state_of(e, x->in[3])->data;
    char *to = (char *)(p.outs + x->shape[0] * u->n_heads * u->n_splits * u->rank);
    for (int64_t i = thread; i < x->shape[0] * u->n; i += e->threads) {
        rows from = cpu_cache_rows(u->cache, 0, i / u->n);
        size_t bytes = (size_t)row_bytes_of(&from);
        memcpy(to + (size_t)i * bytes, (const char *)from.values + (size_t)selected[i] * bytes, bytes);
    }
    u->gathered = to;
    pool_barrier(e->pool, thread);
}

static void attend_one(cpu *e, const node *x, int thread) {
    cut u = make_cut(x);
    unit_memory m;
    int64_t i, end;
    place_unit(e, &u, e->thread_scratch[thread], &m);
    if (x->in[3]) gather(e, x, &u, thread);
    while (pool_take(&state_of(e, x)->taken[0], x->shape[0] * u.n_blocks * u.n_splits, 1, &i, &end))
        attend_unit(e, x, &u, i, &m, thread);
    pool_barrier(e->pool, thread);
    while (pool_take(&state_of(e, x)->taken[1], x->shape[0] * u.n_heads, 1, &i, &end))
        join_parts(e, x, &u, i);
}

/* ---- several tokens ---- */

/* One head of one sequence, under way. */
typedef struct head {
    const cpu_cache *cache;
    int64_t n_tokens, rank, nope, pe, v_dim;
    float *embed_q, *unembed_out;        /* this head's matrices in F32: [rank][nope], [v_dim][rank] */
    float *entries, *keys, *values;      /* some entries in F32; a segment's keys and values */
    float *q, *part, *inner;             /* of a block of tokens */
    seen_keys *seen;                     /* the same, within the segment */
    float *scores;                       /* [SELECTED_KEYS], of one token that sees selected entries */
    softmax_state *part_states, *states; /* of the block in this segment, of all tokens so far */
} head;

static head make_head(const cpu *e, const node *x) {
    const cpu_cache *c = (const cpu_cache *)x->cache;
    return (head){.cache = c,
                  .n_tokens = rows_per_sequence(e->running, x),
                  .rank = c->base.spec.head_dim,
                  .nope = x->in[0]->shape[2],
                  .pe = c->base.spec.v_head_dim,
                  .v_dim = x->shape[2]};
}

static size_t place_head(const cpu *e, head *h, char *scratch) {
    uintptr_t at = (uintptr_t)scratch;
    int64_t key = h->nope + h->pe;
    h->embed_q = carve(&at, h->rank * h->nope);
    h->unembed_out = carve(&at, h->v_dim * h->rank);
    h->entries = carve(&at, EXPANDED_ENTRIES * (h->rank + h->pe));
    h->keys = carve(&at, SEGMENT_KEYS * key);
    h->values = carve(&at, SEGMENT_KEYS * h->v_dim);
    h->q = carve(&at, BLOCK_TOKENS * key);
    h->part = carve(&at, BLOCK_TOKENS * h->v_dim);
    h->scores = carve(&at, SELECTED_KEYS);
    h->seen = (seen_keys *)(void *)carve(&at, BLOCK_TOKENS * (int64_t)(sizeof *h->seen / sizeof(float)));
    h->part_states = (softmax_state *)(void *)carve(&at, 2 * BLOCK_TOKENS);
    h->states = (softmax_state *)(void *)carve(&at, 2 * h->n_tokens);
    h->inner = carve(&at, 0);
    return at - (uintptr_t)scratch + align_up(cpu_attention_scratch(e, BLOCK_TOKENS, key, h->v_dim));
}

static void unpack(const cpu *e, float *out, const rows *from, int64_t first, int64_t n) {
    for (int64_t i = 0; i < n; i++) e->kernels->of[from->kind].unpack(out + i * from->n, from, first + i);
}

/* Keys and values of n entries from `first` on. */
static void expand(const cpu *e, const head *h, int64_t sequence, int64_t first, int64_t n) {
    rows from = cpu_cache_rows(h->cache, 0, sequence);
    int64_t key = h->nope + h->pe, each;
    memset(h->keys, 0, (size_t)(n * key) * sizeof *h->keys);
    for (int64_t at = 0; at < n; at += each) {
        each = n - at < EXPANDED_ENTRIES ? n - at : EXPANDED_ENTRIES;
        unpack(e, h->entries, &from, first + at, each);
        e->kernels->mix(h->keys + at * key, key, h->entries, from.n, each, h->embed_q, h->rank, h->nope);
        for (int64_t i = 0; i < each; i++)
            memcpy(h->keys + (at + i) * key + h->nope, h->entries + i * from.n + h->rank,
                   (size_t)h->pe * sizeof *h->keys);
        e->kernels->matmul(h->values + at * h->v_dim, h->v_dim, h->entries, from.n, each, h->unembed_out,
                           h->v_dim, h->rank);
    }
}

/* Adds a part of the sum, over some keys, to what a token has so far. */
static void add_part(float *out, softmax_state *state, const float *part, softmax_state of, int64_t n) {
    if (of.max == -INFINITY) return;
    float max = fmaxf(of.max, state->max), old = expf(state->max - max), new = expf(of.max - max);
    for (int64_t d = 0; d < n; d++) out[d] = out[d] * old + part[d] * new;
    *state = (softmax_state){max, state->sum * old + of.sum * new};
}

/* Scores of keys that the row did not select become -inf. selected: in their order, -1 at the end;
 * those before `first` may be dropped. */
static void mask_scores(float *scores, int64_t first, int64_t n, const int32_t **selected,
                        const int32_t *end) {
    const int32_t *s = *selected;
    for (int64_t i = 0; i < n; i++) {
        while (s < end && *s >= 0 && *s < first + i) s++;
        if (s == end || *s != first + i) scores[i] = -INFINITY;
    }
    *selected = s;
}

/* One token attends to those of the segment's keys that it selected. at: its place and the head's
 * among all.
 */
static void attend_selected(const cpu *e, const node *x, const head *h, int64_t at, int64_t token,
                            const float *q, piece keys) {
    int64_t r = at / x->shape[1], k = x->in[3]->shape[1], key = h->nope + h->pe;
    const int32_t *selected = (const int32_t *)state_of(e, x->in[3])->data + r * k, *end = selected + k;
    float *out = (float *)state_of(e, x)->data + at * h->v_dim;
    softmax_state *state = &h->states[token];
    for (int64_t first = keys.first, n; first < keys.end; first += n) {
        n = keys.end - first < SELECTED_KEYS ? keys.end - first : SELECTED_KEYS;
        const float *of = h->keys + (first - keys.first) * key;
        e->kernels->matmul(h->scores, n, q, key, 1, of, n, key);
        mask_scores(h->scores, first, n, &selected, end);
        float max = fmaxf(e->kernels->max(h->scores, n), state->max);
        if (max == -INFINITY) continue;
        float old = expf(state->max - max);
        state->sum = state->sum * old + e->kernels->exp_sum(h->scores, n, max);
        state->max = max;
        for (int64_t d = 0; d < h->v_dim && old != 1; d++) out[d] *= old;
        e->kernels->mix(out, h->v_dim, h->scores, n, 1, h->values + (first - keys.first) * h->v_dim, n,
                        h->v_dim);
    }
}

/* Tokens [first, first + n) attend to the segment of n_keys entries from first_key on. row: the
 * place of the sequence's first token and this head among all. */
static void attend_block(const cpu *e, const node *x, const head *h, int64_t row, piece tokens, piece keys,
                         int thread) {
    int64_t n_heads = x->shape[1], key = h->nope + h->pe, n = tokens.end - tokens.first;
    const float *q = floats_of(e, x->in[0], thread), *q_pe = floats_of(e, x->in[2], thread);
    attention a = {.n_rows = n, .dim = key, .v_dim = h->v_dim, .q = h->q, .seen = h->seen};
    for (int64_t t = 0; t < n; t++) {
        int64_t at = row + (tokens.first + t) * n_heads;
        float *to = h->q + t * key;
        for (int64_t d = 0; d < h->nope; d++) to[d] = q[at * h->nope + d] * x->latent.scale;
        for (int64_t d = 0; d < h->pe; d++) to[h->nope + d] = q_pe[at * h->pe + d] * x->latent.scale;
        seen_keys s = cpu_visible(h->cache, h->n_tokens, tokens.first + t);
        s.low = s.low < keys.first ? keys.first : s.low;
        s.end = s.end > keys.end ? keys.end : s.end;
        h->seen[t] = (seen_keys){s.low - keys.first, s.end > s.low ? s.end - keys.first : s.low - keys.first};
    }
    a.keys = (rows){.n = key, .values = h->keys, .dtype = DTYPE_F32};
    a.values = (rows){.n = h->v_dim, .values = h->values, .dtype = DTYPE_F32};
    if (x->in[3]) {
        for (int64_t t = 0; t < n; t++)
            attend_selected(e, x, h, row + (tokens.first + t) * n_heads, tokens.first + t, h->q + t * key,
                            keys);
        return;
    }
    a.first = h->seen[0].low;
    a.end = h->seen[n - 1].end;
    a.out = h->part;
    a.state = h->part_states;
    if (a.first >= a.end) return;
    cpu_attention(e, &a, h->inner);
    for (int64_t t = 0; t < n; t++)
        add_part((float *)state_of(e, x)->data + (row + (tokens.first + t) * n_heads) * h->v_dim,
                 &h->states[tokens.first + t], h->part + t * h->v_dim, h->part_states[t], h->v_dim);
}

static void attend_head(const cpu *e, const node *x, const head *h, int64_t sequence, int64_t i, int thread) {
    int64_t n_heads = x->shape[1], row = sequence * h->n_tokens * n_heads + i;
    float *out = state_of(e, x)->data;
    rows embed_q = rows_of_head(cpu_weight_of(x, 0), i), unembed_out = rows_of_head(cpu_weight_of(x, 1), i);
    unpack(e, h->embed_q, &embed_q, 0, h->rank);
    unpack(e, h->unembed_out, &unembed_out, 0, h->v_dim);
    for (int64_t t = 0; t < h->n_tokens; t++) {
        h->states[t] = (softmax_state){-INFINITY, 0};
        memset(out + (row + t * n_heads) * h->v_dim, 0, (size_t)h->v_dim * sizeof *out);
    }
    piece keys = {cpu_visible(h->cache, h->n_tokens, 0).low, 0};
    for (; keys.first < h->cache->n_visible; keys.first = keys.end) {
        keys.end = keys.first + SEGMENT_KEYS;
        if (keys.end > h->cache->n_visible) keys.end = h->cache->n_visible;
        expand(e, h, sequence, keys.first, keys.end - keys.first);
        for (piece t = {0}; t.first < h->n_tokens; t.first = t.end) {
            t.end = t.first + BLOCK_TOKENS < h->n_tokens ? t.first + BLOCK_TOKENS : h->n_tokens;
            attend_block(e, x, h, row, t, keys, thread);
        }
    }
    for (int64_t t = 0; t < h->n_tokens; t++)
        for (int64_t d = 0; d < h->v_dim; d++) out[(row + t * n_heads) * h->v_dim + d] /= h->states[t].sum;
}

static void attend_many(cpu *e, const node *x, int thread) {
    head h = make_head(e, x);
    int64_t i, end;
    place_head(e, &h, e->thread_scratch[thread]);
    while (pool_take(&state_of(e, x)->taken[0], e->running->n_sequences * x->shape[1], 1, &i, &end))
        attend_head(e, x, &h, i / x->shape[1], i % x->shape[1], thread);
}

/* ---- the operation ---- */

static bool is_one(const node *x) {
    return !x->w[0];
}

size_t cpu_attend_latent_workspace(const cpu *e, const node *x) {
    (void)e;
    if (!is_one(x)) return 0;
    cut u = make_cut(x);
    size_t gathered =
        x->in[3] ? (size_t)(x->shape[0] * u.n * u.dim) * dtype_size(u.cache->base.spec.dtype) : 0;
    return gathered + (size_t)(x->shape[0] * u.n_heads * u.n_splits) *
                          (sizeof(softmax_state) + (size_t)u.rank * sizeof(float));
}

size_t cpu_attend_latent_scratch(const cpu *e, const node *x) {
    if (is_one(x)) {
        cut u = make_cut(x);
        return place_unit(e, &u, NULL, &(unit_memory){0});
    }
    head h = make_head(e, x);
    return place_head(e, &h, NULL);
}

void cpu_attend_latent(cpu *e, const node *x, int thread) {
    if (is_one(x))
        attend_one(e, x, thread);
    else
        attend_many(e, x, thread);
}
