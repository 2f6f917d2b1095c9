/* ops_attention.c - rotary embedding, cache writes and attention.
 * Attention goes over the cache in blocks with a running softmax (Milakov and Gimelshein 2018; Dao
 * et al. 2022): query heads that share a KV head, and the tokens of a block, share one pass over
 * its keys and values. */
#include "engine/cpu/cpu.h"

#include <math.h>
#include <stdlib.h>

enum {
    BLOCK_KEYS = 64,
    BLOCK_ROWS = 128, /* query rows of one unit of work, at least one token's */
    SPLIT_KEYS = 512, /* a single token's long context is shared out in parts of at most this many keys */
};

/* The table of the running step for x's angles; NULL: not made yet. */
static rope_table *find_table(const cpu *e, const node *x) {
    for (rope_table *t = e->rope_tables; t; t = t->next)
        if (t->spec == x->rope && t->position == x->position &&
            t->n_tokens == rows_per_sequence(e->running, x))
            return t;
    return NULL;
}

static int make_table(cpu *e, const node *x) {
    const rope_spec *spec = x->rope;
    int64_t n = rows_per_sequence(e->running, x), half = spec->dims / 2;
    size_t size = (size_t)(2 * n * half) * sizeof(float);
    rope_table *t = e->rope_tables;
    while (t && t->spec) t = t->next;
    if (!t) {
        t = mem_new(1, sizeof *t, "rope");
        if (!t) return -1;
        t->next = e->rope_tables;
        e->rope_tables = t;
    }
    if (size > t->size) {
        cpu_release(e, t->cos, t->size, &e->memory.scratch);
        t->size = 0;
        t->cos = cpu_allocate(e, size, &e->memory.scratch, "rope");
        if (!t->cos) return -1;
        t->size = size;
    }
    t->sin = t->cos + n * half;
    for (int64_t i = 0; i < n * half; i++) {
        float angle = (float)(x->position + i / half) * spec->scale / spec->freqs[i % half];
        t->cos[i] = cosf(angle) * spec->mscale;
        t->sin[i] = sinf(angle) * spec->mscale;
    }
    t->spec = spec;
    t->position = x->position;
    t->n_tokens = n;
    return 0;
}

int cpu_rope_prepare(cpu *e, graph *g) {
    for (rope_table *t = e->rope_tables; t; t = t->next) t->spec = NULL; /* another model's may be there */
    for (int i = 0; i < g->n_nodes; i++) {
        const node *x = graph_node(g, i);
        if (x->live && x->op == OP_ROPE && !find_table(e, x) && make_table(e, x)) return -1;
    }
    return 0;
}

void cpu_rope_free(cpu *e) {
    for (rope_table *t = e->rope_tables, *next; t; t = next) {
        next = t->next;
        cpu_release(e, t->cos, t->size, &e->memory.scratch);
        free(t);
    }
    e->rope_tables = NULL;
}

/* Pairs [first, end) of one head: numbers i * step and i * step + pair. */
static inline void rotate(float *restrict out, const float *restrict in, const float *cos, const float *sin,
                          int64_t first, int64_t end, int64_t step, int64_t pair) {
    for (int64_t i = first; i < end; i++) {
        float a = in[i * step], b = in[i * step + pair];
        out[i * step] = a * cos[i] - b * sin[i];
        out[i * step + pair] = a * sin[i] + b * cos[i];
    }
}

void cpu_rope(cpu *e, const node *x, int thread) {
    const rope_spec *spec = x->rope;
    const rope_table *table = find_table(e, x);
    int64_t n_heads = x->shape[1], width = x->shape[2], half = spec->dims / 2;
    piece p = {0};
    while (half && cpu_take(e, x, x->shape[0] * half, x->shape[0] > 1 || half < 8 ? half : 8, &p)) {
        for (int64_t at = p.first, t = at / half, next; at < p.end; t++, at = next) {
            next = p.end < (t + 1) * half ? p.end : (t + 1) * half;
            int64_t at_position = t % table->n_tokens * half;
            const float *cos = table->cos + at_position, *sin = table->sin + at_position;
            for (int64_t row = t * n_heads; row < (t + 1) * n_heads; row++) {
                const float *in = floats_of(e, x->in[0], thread) + row * width;
                float *out = floats_of(e, x, thread) + row * width;
                if (spec->traditional)
                    rotate(out, in, cos, sin, at - t * half, next - t * half, 2, 1);
                else
                    rotate(out, in, cos, sin, at - t * half, next - t * half, 1, half);
            }
        }
    }
    for (int64_t row = state_of(e, x)->own ? 0 : thread; row < x->shape[0] * n_heads && spec->dims < width;
         row += state_of(e, x)->own ? 1 : e->threads)
        memcpy(floats_of(e, x, thread) + row * width + spec->dims,
               floats_of(e, x->in[0], thread) + row * width + spec->dims,
               (size_t)(width - spec->dims) * sizeof(float));
}

/* Of row t, which is one of a sequence's. */
static void store_entry(const cpu *e, const node *x, int part, int64_t t, int64_t head, int thread) {
    cpu_cache *c = (cpu_cache *)x->cache;
    int64_t n_heads = x->shape[1], dim = part ? c->base.spec.v_head_dim : c->base.spec.head_dim;
    int64_t n = rows_per_sequence(e->running, x);
    cpu_cache_store(e, c, part, t / n * n_heads + head, c->write_at + t % n,
                    floats_of(e, x->in[part], thread) + (t * n_heads + head) * dim);
}

void cpu_kv_write(cpu *e, const node *x, int thread) {
    int64_t n_heads = x->shape[1], parts = x->in[1] ? 2 : 1, i, end;
    while (pool_take(&state_of(e, x)->taken[0], x->shape[0] * n_heads * parts,
                     x->shape[0] > 1 ? parts * n_heads : 1, &i, &end))
        for (; i < end; i++)
            store_entry(e, x, (int)(i % parts), i / parts / n_heads, i / parts % n_heads, thread);
}

/* How attention is cut into units: KV heads of all sequences x blocks of tokens x splits of the
 * keys. */
typedef struct cut {
    int64_t n_tokens, n_heads; /* of a sequence */
    int64_t n_kv;              /* of all sequences, one after another */
    int64_t group;             /* query heads per KV head */
    int64_t block, n_blocks;   /* tokens per unit */
    int64_t split, n_splits;   /* keys per unit */
    int dim, v_dim;
    const cpu_cache *cache;
    bool own_kernels; /* of the table, for all of attention */
} cut;

/* Whether the table has kernels for all of attention. */
static bool have_kernels(const cpu *e, int64_t dim, int64_t v_dim) {
    return e->kernels->attention && e->kernels->attention->fits(dim, v_dim);
}

static cut make_cut(const cpu *e, const node *x) {
    const cpu_cache *c = (const cpu_cache *)x->cache;
    const cache_spec *s = &c->base.spec;
    cut u = {.n_heads = x->in[0]->shape[1], .dim = s->head_dim, .v_dim = s->v_head_dim};
    u.n_tokens = rows_per_sequence(e->running, x);
    u.cache = c;
    u.n_kv = s->n_sequences * s->n_kv_heads;
    u.group = u.n_heads / s->n_kv_heads;
    u.block = u.n_blocks = 1;
    if (u.n_tokens > 1) {
        u.block = u.group < BLOCK_ROWS ? BLOCK_ROWS / u.group : 1;
        if (u.block > u.n_tokens) u.block = u.n_tokens;
        u.n_blocks = (u.n_tokens + u.block - 1) / u.block;
    }
    bool split = u.n_tokens == 1 && c->n_visible > SPLIT_KEYS; /* one thread, too: the sums are the same */
    u.n_splits = split ? (c->n_visible + SPLIT_KEYS - 1) / SPLIT_KEYS : 1;
    u.split = c->n_visible;
    if (split) { /* alike, in whole blocks */
        u.split = (c->n_visible + u.n_splits - 1) / u.n_splits;
        u.split = (u.split + BLOCK_KEYS - 1) / BLOCK_KEYS * BLOCK_KEYS;
    }
    u.own_kernels = have_kernels(e, u.dim, u.v_dim) && x->attention.softcap == 0;
    return u;
}

static int64_t rows_of(const cut *u) {
    return u->block * u->group;
}

/* Workspace: for each (head, split) of a single token, its state and its unnormalized output. */
size_t cpu_attend_workspace(const cpu *e, const node *x) {
    cut u = make_cut(e, x);
    if (u.n_splits == 1) return 0;
    return (size_t)(u.n_kv * u.group * u.n_splits) *
           (sizeof(softmax_state) + (size_t)u.v_dim * sizeof(float));
}

/* A thread's memory for one unit. */
typedef struct unit_memory {
    const float *queries; /* of all heads */
    float *q, *out;
    softmax_state *states;
    seen_keys *seen;
    float *inner; /* what the products need: scores and converted entries, or the kernel's scratch */
} unit_memory;

static size_t align_up(size_t n) {
    return (n + 63) / 64 * 64;
}

/* Scores and converted entries, or what the kernels need. */
static size_t inner_bytes(const cpu *e, int64_t n_rows, int64_t dim, int64_t v_dim, bool own_kernels) {
    if (own_kernels) return e->kernels->attention->scratch_bytes(n_rows, dim, v_dim);
    return (size_t)(n_rows * BLOCK_KEYS + BLOCK_KEYS * (dim + v_dim)) * sizeof(float);
}

/* Sets m's pointers into scratch (NULL: only the size is wanted); returns the bytes it takes. */
static size_t place(const cpu *e, const cut *u, char *scratch, unit_memory *m) {
    uintptr_t start = (uintptr_t)scratch; /* a number: offsets from NULL are not defined */
    size_t n = (size_t)rows_of(u), dim = (size_t)u->dim, v_dim = (size_t)u->v_dim, at = 0;
    m->q = (float *)(void *)(start + at);
    at += align_up(n * dim * sizeof *m->q);
    m->out = (float *)(void *)(start + at);
    at += align_up(n * v_dim * sizeof *m->out);
    m->states = (softmax_state *)(void *)(start + at);
    at += align_up(n * sizeof *m->states);
    m->seen = (seen_keys *)(void *)(start + at);
    at += align_up(n * sizeof *m->seen);
    m->inner = (float *)(void *)(start + at);
    return at + align_up(inner_bytes(e, rows_of(u), u->dim, u->v_dim, u->own_kernels));
}

size_t cpu_attend_scratch(const cpu *e, const node *x) {
    cut u = make_cut(e, x);
    unit_memory m;
    return place(e, &u, NULL, &m);
}

seen_keys cpu_visible(const cpu_cache *c, int64_t n_tokens, int64_t t) {
    int64_t end = c->whole ? c->n_visible : c->n_visible - n_tokens + t + 1, chunk = c->base.spec.chunk;
    int64_t low = c->window && end > c->window ? end - c->window : 0;
    if (chunk) { /* entries of the last one's chunk: so many before it */
        int64_t before = (c->first + end - 1) % chunk;
        low = end - 1 > before ? end - 1 - before : 0;
    }
    return (seen_keys){low, end};
}

static seen_keys visible(const cut *u, int64_t t) {
    return cpu_visible(u->cache, u->n_tokens, t);
}

/* One block of scores into probabilities: row r's keys outside its view count as nothing. */
static void soften(const cpu *e, float *scores, const attention *a, int64_t r, int64_t first, int64_t n,
                   float cap) {
    softmax_state *state = &a->state[r];
    float *out = a->out + r * a->v_dim;
    for (int64_t i = 0; i < n && cap != 0; i++) scores[i] = cap * tanhf(scores[i] / cap);
    for (int64_t i = 0; i < n; i++)
        if (first + i < a->seen[r].low || first + i >= a->seen[r].end) scores[i] = -INFINITY;
    float max = e->kernels->max(scores, n);
    max = max > state->max ? max : state->max;
    if (max == -INFINITY) { /* nothing seen yet */
        memset(scores, 0, (size_t)n * sizeof *scores);
        return;
    }
    float old = expf(state->max - max);
    state->sum = state->sum * old + e->kernels->exp_sum(scores, n, max);
    state->max = max;
    for (int64_t d = 0; d < a->v_dim && old != 1; d++) out[d] *= old;
}

/* n entries from `first` on as F32: in place when they are stored so, else in buffer. */
static const float *convert(const cpu *e, float *buffer, const rows *entries, int64_t first, int64_t n) {
    if (!entries->bits && entries->dtype == DTYPE_F32)
        return (const float *)entries->values + first * entries->n;
    for (int64_t i = 0; i < n; i++)
        e->kernels->of[entries->kind].unpack(buffer + i * entries->n, entries, first + i);
    return buffer;
}

/* As attention_kernels' attend, on entries that are converted to F32 block by block. */
static void attend_converted(const cpu *e, const attention *a, float *scores, float cap) {
    float *keys = scores + a->n_rows * BLOCK_KEYS, *values = keys + BLOCK_KEYS * a->dim;
    for (int64_t r = 0; r < a->n_rows; r++) a->state[r] = (softmax_state){-INFINITY, 0};
    memset(a->out, 0, (size_t)(a->n_rows * a->v_dim) * sizeof *a->out);
    for (int64_t at = a->first; at < a->end; at += BLOCK_KEYS) {
        int64_t n = a->end - at < BLOCK_KEYS ? a->end - at : BLOCK_KEYS;
        const float *k = convert(e, keys, &a->keys, at, n);
        e->kernels->matmul(scores, BLOCK_KEYS, a->q, a->dim, a->n_rows, k, n, a->dim);
        for (int64_t r = 0; r < a->n_rows; r++) soften(e, scores + r * BLOCK_KEYS, a, r, at, n, cap);
        const float *v = convert(e, values, &a->values, at, n);
        e->kernels->mix(a->out, a->v_dim, scores, BLOCK_KEYS, a->n_rows, v, n, a->v_dim);
    }
}

size_t cpu_attention_scratch(const cpu *e, int64_t n_rows, int64_t dim, int64_t v_dim) {
    return inner_bytes(e, n_rows, dim, v_dim, have_kernels(e, dim, v_dim));
}

void cpu_attention(const cpu *e, const attention *a, void *scratch) {
    if (have_kernels(e, a->dim, a->v_dim))
        e->kernels->attention->attend(a, scratch);
    else
        attend_converted(e, a, scratch, 0);
}

/* Some rows of a KV head over some keys. */
typedef struct unit {
    int64_t kv_head, split, first_token, n_tokens;
} unit;

/* Of a causal chunk the last blocks see the most keys: they go first. Splits of a head are
 * neighbours in memory. */
static unit get_unit(const cut *u, int64_t i) {
    int64_t head = u->n_splits > 1 ? i / u->n_splits : i, split = i - head * u->n_splits, block = 0;
    if (u->n_blocks > 1) {
        block = u->n_blocks - 1 - head / u->n_kv;
        head %= u->n_kv;
    }
    unit one = {head, split, block * u->block, u->n_tokens - block * u->block};
    if (one.n_tokens > u->block) one.n_tokens = u->block;
    return one;
}

/* The first of the unit's entries. */
static const void *first_entry(const cut *u, int part, const unit *one) {
    rows r = cpu_cache_rows(u->cache, part, one->kv_head);
    int64_t low = visible(u, one->first_token).low, first = one->split * u->split;
    return (const char *)r.values + (low > first ? low : first) * row_bytes_of(&r);
}

/* Row r of the unit: its place among all [rows, heads] of queries and of the result. */
static int64_t row_of(const cut *u, const unit *one, int64_t r) {
    int64_t per_sequence = u->n_heads / u->group, sequence = one->kv_head / per_sequence;
    int64_t t = sequence * u->n_tokens + one->first_token + r / u->group;
    return t * u->n_heads + one->kv_head % per_sequence * u->group + r % u->group;
}

/* The unit's rows over its keys: m->out [rows, v_dim] unnormalized, and the rows' states. next: the
 * unit that the thread takes next; NULL: not known. */
static void attend_unit(const cpu *e, const node *x, const cut *u, const unit *one, const unit *next,
                        const unit_memory *m) {
    int64_t n_rows = one->n_tokens * u->group;
    for (int64_t r = 0; r < n_rows; r++) {
        const float *from = m->queries + row_of(u, one, r) * u->dim;
        for (int d = 0; d < u->dim; d++) m->q[r * u->dim + d] = from[d] * x->attention.scale;
        m->seen[r] = visible(u, one->first_token + r / u->group);
    }
    int64_t low = m->seen[0].low, end = m->seen[n_rows - 1].end;
    int64_t first_key = one->split * u->split, end_key = first_key + u->split;
    attention a = {.n_rows = n_rows, .dim = u->dim, .v_dim = u->v_dim, .q = m->q, .seen = m->seen};
    a.first = low > first_key ? low : first_key;
    a.end = end < end_key ? end : end_key;
    a.out = m->out;
    a.state = m->states;
    a.keys = cpu_cache_rows(u->cache, 0, one->kv_head);
    a.values = cpu_cache_rows(u->cache, 1, one->kv_head);
    if (next) a.next_keys = first_entry(u, 0, next), a.next_values = first_entry(u, 1, next);
    if (u->own_kernels)
        e->kernels->attention->attend(&a, m->inner);
    else
        attend_converted(e, &a, m->inner, x->attention.softcap);
}

/* What head h's sink adds to a sum of exponentials of scores less max. */
static float sink_share(const node *x, int64_t h, float max) {
    return x->w[0] ? expf(cpu_weight_of(x, 0)->floats[h] - max) : 0;
}

static void write_rows(const cpu *e, const node *x, const cut *u, const unit *one, const unit_memory *m) {
    for (int64_t r = 0; r < one->n_tokens * u->group; r++) {
        int64_t at = row_of(u, one, r);
        float *out = (float *)state_of(e, x)->data + at * u->v_dim;
        float sum = m->states[r].sum + sink_share(x, at % u->n_heads, m->states[r].max);
        for (int d = 0; d < u->v_dim; d++) out[d] = m->out[r * u->v_dim + d] / sum;
    }
}

/* A single token's entry is stored by whoever attends to it: nobody else reads it in this step. */
static void store_own_entry(const cpu *e, const node *x, const cut *u, const unit *one, int thread) {
    const node *write = x->in[1];
    int64_t at = u->cache->write_at - one->split * u->split;
    if (state_of(e, write)->by != x || at < 0 || at >= u->split) return;
    int64_t n_heads = u->n_heads / u->group;
    for (int part = 0; part < 2; part++)
        store_entry(e, write, part, one->kv_head / n_heads, one->kv_head % n_heads, thread);
}

/* Joins the splits of head h, of all sequences', of a single token. */
static void join_splits(const cpu *e, const node *x, const cut *u, int64_t h, const softmax_state *states,
                        const float *parts) {
    float max = -INFINITY, sum = 0, *out = (float *)state_of(e, x)->data + h * u->v_dim;
    const softmax_state *s = states + h * u->n_splits;
    for (int64_t i = 0; i < u->n_splits; i++) max = s[i].max > max ? s[i].max : max;
    memset(out, 0, (size_t)u->v_dim * sizeof *out);
    for (int64_t i = 0; i < u->n_splits; i++) {
        float share = expf(s[i].max - max);
        sum += s[i].sum * share;
        for (int d = 0; d < u->v_dim; d++) out[d] += share * parts[(h * u->n_splits + i) * u->v_dim + d];
    }
    sum += sink_share(x, h, max);
    for (int d = 0; d < u->v_dim; d++) out[d] /= sum;
}

/* Where splits leave what is joined afterwards, of each (head, split). */
typedef struct splits {
    softmax_state *states;
    float *outs;
} splits;

static void run_unit(const cpu *e, const node *x, const cut *u, int64_t i, int64_t next, const unit_memory *m,
                     const splits *s, int thread) {
    unit one = get_unit(u, i), after = get_unit(u, next);
    store_own_entry(e, x, u, &one, thread);
    attend_unit(e, x, u, &one, next == i ? NULL : &after, m);
    if (u->n_splits == 1) {
        write_rows(e, x, u, &one, m);
        return;
    }
    for (int64_t g = 0; g < u->group; g++) {
        int64_t at = (one.kv_head * u->group + g) * u->n_splits + one.split;
        s->states[at] = m->states[g];
        memcpy(s->outs + at * u->v_dim, m->out + g * u->v_dim, (size_t)u->v_dim * sizeof *m->out);
    }
}

/* A single token's units are alike, and each thread has some of its own: it knows what comes
 * next. */
void cpu_attend(cpu *e, const node *x, int thread) {
    cut u = make_cut(e, x);
    unit_memory m;
    place(e, &u, e->thread_scratch[thread], &m);
    m.queries = floats_of(e, x->in[0], thread);
    splits s = {.states = state_of(e, x)->workspace};
    if (s.states) s.outs = (float *)(void *)(s.states + u.n_kv * u.group * u.n_splits);
    int64_t n = u.n_kv * u.n_blocks * u.n_splits, i, end;
    pool_part p;
    while (u.n_tokens > 1 && pool_take(&state_of(e, x)->taken[0], n, 1, &i, &end))
        run_unit(e, x, &u, i, i, &m, &s, thread);
    if (u.n_tokens > 1) return;
    unsigned round = pool_round(e->pool, thread);
    for (int others = 0; others < 2; others++)
        while (pool_take_part(e->pool, thread, round, n, 1, others, &p))
            for (i = p.first, end = others ? p.end : p.own_end; i < p.end; i++)
                run_unit(e, x, &u, i, i + 1 < end ? i + 1 : i, &m, &s, thread);
    if (u.n_splits == 1) return;
    pool_barrier(e->pool, thread);
    while (pool_take(&state_of(e, x)->taken[1], u.n_kv * u.group, 1, &i, &end))
        join_splits(e, x, &u, i, s.states, s.outs);
}
