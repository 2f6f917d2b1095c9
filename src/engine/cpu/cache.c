/* cache.c - caches: keys and values, plain, rotating or quantized, entry for entry what mlx-lm's
 * hold; states. Entries of one head of one sequence are contiguous, so attention reads each head's
 * keys and values as one stream. */
#include "engine/cpu/cpu.h"

#include <stdlib.h>

enum { STEP = 256 }; /* mlx-lm cache.py: entries a cache grows by */

typedef struct segment {
    int64_t first, n;
} segment;

/* Bytes of one entry's values, and of its scales (as many again for its biases). */
static size_t value_bytes(const cache *base, int dim) {
    return base->bits ? (size_t)dim * (size_t)base->bits / 8 : (size_t)dim * dtype_size(base->spec.dtype);
}

static size_t scale_bytes(const cache *base, int dim) {
    return base->bits ? (size_t)(dim / base->group_size) * dtype_size(base->spec.dtype) : 0;
}

/* KV heads of all sequences. */
static int n_heads(const cache *base) {
    return base->spec.n_sequences * base->spec.n_kv_heads;
}

static int64_t *account(cpu *e, const cache *base) {
    return base->spec.aside ? &e->aside : &e->memory.kv;
}

static void release(cpu *e, const cache *base, cpu_entries *entries, int64_t capacity) {
    size_t n = (size_t)(n_heads(base) * capacity);
    cpu_release(e, entries->values, n * value_bytes(base, entries->dim), account(e, base));
    cpu_release(e, entries->scales, n * scale_bytes(base, entries->dim), account(e, base));
    cpu_release(e, entries->biases, n * scale_bytes(base, entries->dim), account(e, base));
    *entries = (cpu_entries){.dim = entries->dim};
}

static int allocate(cpu *e, const cache *base, cpu_entries *entries, int64_t capacity) {
    size_t n = (size_t)(n_heads(base) * capacity);
    if (!entries->dim) return 0;
    const char *what = "the KV cache; use a shorter context or --kv-bits";
    entries->values = cpu_allocate(e, n * value_bytes(base, entries->dim), account(e, base), what);
    if (!entries->values) return -1;
    if (!base->bits) return 0;
    entries->scales = cpu_allocate(e, n * scale_bytes(base, entries->dim), account(e, base), what);
    entries->biases = cpu_allocate(e, n * scale_bytes(base, entries->dim), account(e, base), what);
    if (entries->scales && entries->biases) return 0;
    release(e, base, entries, capacity);
    return -1;
}

/* Copies an array of entries of `size` bytes: the segments of each head, one after another. */
static void copy_segments(char *to, int64_t to_capacity, const char *from, int64_t from_capacity, int heads,
                          size_t size, const segment *segments, int n) {
    for (int h = 0; h < heads && size; h++) {
        char *at = to + (size_t)(h * to_capacity) * size;
        for (int i = 0; i < n; i++) {
            memcpy(at, from + (size_t)(h * from_capacity + segments[i].first) * size,
                   (size_t)segments[i].n * size);
            at += (size_t)segments[i].n * size;
        }
    }
}

/* Moves both keys and values to arrays of `capacity` entries per head, keeping only the segments,
 * in their order. */
static int rearrange(cpu *e, cpu_cache *c, int64_t capacity, const segment *segments, int n) {
    for (int part = 0; part < 2; part++) {
        cpu_entries old = c->entries[part], *new = &c->entries[part];
        size_t values = value_bytes(&c->base, old.dim), scales = scale_bytes(&c->base, old.dim);
        *new = (cpu_entries){.dim = old.dim};
        if (allocate(e, &c->base, new, capacity)) {
            *new = old;
            return -1;
        }
        if (old.values) {
            int heads = n_heads(&c->base);
            copy_segments(new->values, capacity, old.values, c->capacity, heads, values, segments, n);
            copy_segments(new->scales, capacity, old.scales, c->capacity, heads, scales, segments, n);
            copy_segments(new->biases, capacity, old.biases, c->capacity, heads, scales, segments, n);
        }
        release(e, &c->base, &old, c->capacity);
    }
    c->capacity = capacity;
    return 0;
}

static size_t state_bytes(const cache_spec *spec, int i) {
    return (size_t)(spec->n_sequences * spec->states[i].rows * spec->states[i].cols) * sizeof(float);
}

cache *cpu_cache_new(engine *base, const cache_spec *spec) {
    cpu *e = (cpu *)base;
    cpu_cache *c = mem_new(1, sizeof *c, "a cache");
    if (!c) return NULL;
    c->base.spec = *spec;
    c->entries[0].dim = spec->latent ? spec->head_dim + spec->v_head_dim : spec->head_dim;
    c->entries[1].dim = spec->latent ? 0 : spec->v_head_dim;
    for (int i = 0; i < spec->n_states; i++) {
        c->states[i] = cpu_allocate(e, state_bytes(spec, i), account(e, &c->base), "a cache's states");
        if (!c->states[i]) {
            cpu_cache_free(base, &c->base);
            return NULL;
        }
        memset(c->states[i], 0, state_bytes(spec, i));
    }
    return &c->base;
}

void cpu_cache_free(engine *base, cache *freed) {
    cpu *e = (cpu *)base;
    cpu_cache *c = (cpu_cache *)freed;
    for (int part = 0; part < 2; part++) release(e, freed, &c->entries[part], c->capacity);
    for (int i = 0; i < freed->spec.n_states; i++)
        cpu_release(e, c->states[i], state_bytes(&freed->spec, i), account(e, freed));
    free(c);
}

/* Makes room in `to` for all that from holds, in from's form. */
static int fit(cpu *e, cpu_cache *to, const cpu_cache *from) {
    if (to->base.bits == from->base.bits && to->capacity >= from->length) return 0;
    int64_t capacity = to->capacity > from->length ? to->capacity : from->length;
    for (int part = 0; part < 2; part++) release(e, &to->base, &to->entries[part], to->capacity);
    to->capacity = 0;
    to->base.bits = from->base.bits;
    to->base.group_size = from->base.group_size;
    for (int part = 0; part < 2; part++)
        if (allocate(e, &to->base, &to->entries[part], capacity)) {
            if (part) release(e, &to->base, &to->entries[0], capacity);
            return -1;
        }
    to->capacity = capacity;
    return 0;
}

int cpu_cache_copy(engine *base, cache *copy, const cache *original) {
    cpu_cache *to = (cpu_cache *)copy;
    const cpu_cache *from = (const cpu_cache *)original;
    if (fit((cpu *)base, to, from)) return -1;
    segment all = {0, from->length};
    for (int part = 0; part < 2 && from->length; part++) {
        const cpu_entries *a = &from->entries[part], *b = &to->entries[part];
        size_t values = value_bytes(original, a->dim), scales = scale_bytes(original, a->dim);
        int heads = n_heads(original);
        copy_segments(b->values, to->capacity, a->values, from->capacity, heads, values, &all, 1);
        copy_segments(b->scales, to->capacity, a->scales, from->capacity, heads, scales, &all, 1);
        copy_segments(b->biases, to->capacity, a->biases, from->capacity, heads, scales, &all, 1);
    }
    for (int i = 0; i < original->spec.n_states; i++)
        memcpy(to->states[i], from->states[i], state_bytes(&original->spec, i));
    to->length = from->length;
    to->index = from->index;
    return 0;
}

/* A latent and its rotated key, one behind the other. */
static void store_latent(const cpu *e, cpu_cache *c, int part, int64_t h, int64_t i, const float *x) {
    const cache_spec *s = &c->base.spec;
    size_t at = (size_t)((h * c->capacity + i) * c->entries[0].dim + (part ? s->head_dim : 0));
    e->kernels->from_f32((char *)c->entries[0].values + at * dtype_size(s->dtype), s->dtype, x,
                         part ? s->v_head_dim : s->head_dim);
}

void cpu_cache_store(const cpu *e, cpu_cache *c, int part, int64_t h, int64_t i, const float *x) {
    if (c->base.spec.latent) {
        store_latent(e, c, part, h, i, x);
        return;
    }
    const cpu_entries *to = &c->entries[part];
    size_t entry = (size_t)(h * c->capacity + i), scales = scale_bytes(&c->base, to->dim);
    char *values = (char *)to->values + entry * value_bytes(&c->base, to->dim);
    dtype type = c->base.spec.dtype;
    if (c->base.bits)
        quantize_row((uint32_t *)(void *)values, (char *)to->scales + entry * scales,
                     (char *)to->biases + entry * scales, type, x, to->dim, c->base.bits, c->base.group_size);
    else
        e->kernels->from_f32(values, type, x, to->dim);
}

rows cpu_cache_rows(const cpu_cache *c, int part, int64_t h) {
    const cpu_entries *from = &c->entries[part];
    size_t entry = (size_t)(h * c->capacity), scales = scale_bytes(&c->base, from->dim);
    rows r = {.n = from->dim, .dtype = c->base.spec.dtype};
    r.values = (const char *)from->values + entry * value_bytes(&c->base, from->dim);
    if (!c->base.bits) return r;
    r.scales = (const char *)from->scales + entry * scales;
    r.biases = (const char *)from->biases + entry * scales;
    r.kind = MATRIX_AFFINE;
    r.bits = c->base.bits;
    r.group_size = c->base.group_size;
    return r;
}

int cpu_cache_quantize(engine *base, cache *plain, int bits, int group_size) {
    cpu *e = (cpu *)base;
    cpu_cache *c = (cpu_cache *)plain, old = *c;
    const cache_spec *s = &plain->spec;
    cache quantized = *plain;
    quantized.bits = bits;
    quantized.group_size = group_size;
    float *row = mem_new((size_t)(s->head_dim + s->v_head_dim), sizeof *row, "a KV cache");
    if (!row) return -1;
    for (int part = 0; part < 2 && c->capacity; part++) {
        c->entries[part] = (cpu_entries){.dim = old.entries[part].dim};
        if (allocate(e, &quantized, &c->entries[part], c->capacity)) {
            c->entries[part] = old.entries[part];
            free(row);
            return -1; /* the session ends; its caches are only freed */
        }
        c->base = quantized;
        for (int h = 0; h < n_heads(plain); h++)
            for (int64_t i = 0; i < c->length; i++) {
                rows from = cpu_cache_rows(&old, part, h);
                e->kernels->of[from.kind].unpack(row, &from, i);
                cpu_cache_store(e, c, part, h, i, row);
            }
        c->base = old.base;
        release(e, &old.base, &old.entries[part], c->capacity);
    }
    free(row);
    return 0;
}

/* Removes `count` entries that follow the first `keep` of a list of segments, in place. */
static void drop(segment *segments, int *n, int64_t keep, int64_t count) {
    segment out[6];
    int used = 0;
    int64_t at = 0; /* position of the segment's first entry in the list */
    for (int i = 0; i < *n; i++) {
        segment s = segments[i];
        int64_t before = keep - at < 0     ? 0
                         : keep - at < s.n ? keep - at
                                           : s.n; /* kept at the segment's start */
        int64_t gone = s.n - before < count ? s.n - before : count;
        count -= gone;
        at += s.n;
        if (before) out[used++] = (segment){s.first, before};
        if (s.n - before - gone) out[used++] = (segment){s.first + before + gone, s.n - before - gone};
    }
    memcpy(segments, out, (size_t)used * sizeof *out);
    *n = used;
}

static int64_t total(const segment *segments, int n) {
    int64_t sum = 0;
    for (int i = 0; i < n; i++) sum += segments[i].n;
    return sum;
}

/* mlx-lm cache.py: RotatingKVCache._update_concat and make_mask, for several tokens. */
static int prepare_concat(cpu *e, cpu_cache *c, int64_t position, int64_t n_tokens) {
    int64_t keep = c->base.spec.keep, max_size = c->base.spec.max_size;
    segment segments[6] = {{0, c->index}};
    int n = 1;
    if (c->index != c->length && c->index < position) { /* a ring: oldest first, after the kept ones */
        segments[0] = (segment){0, keep};
        segments[1] = (segment){c->index, c->length - c->index};
        segments[2] = (segment){keep, c->index - keep};
        n = 3;
    }
    int64_t surplus = total(segments, n) - max_size + 1;
    if (surplus > 0) drop(segments, &n, keep, surplus);
    int64_t kept = total(segments, n),
            hint = c->base.spec.capacity < max_size ? c->base.spec.capacity : max_size;
    int64_t capacity = kept + n_tokens > hint ? kept + n_tokens : hint;
    if (rearrange(e, c, capacity, segments, n)) return -1;
    c->write_at = kept;
    c->length = c->index = c->n_visible = kept + n_tokens;
    int64_t window = c->base.spec.window ? c->base.spec.window : max_size;
    c->window = kept + n_tokens > window ? window : 0;
    c->whole = false;
    return 0;
}

/* mlx-lm cache.py: RotatingKVCache._update_in_place, for one token. */
static int prepare_in_place(cpu *e, cpu_cache *c, int64_t position) {
    int64_t keep = c->base.spec.keep, max_size = c->base.spec.max_size;
    segment segments[6] = {{0, c->length}};
    int n = 1;
    if (position >= c->length && c->length < max_size) {
        int64_t more = max_size - position < STEP ? max_size - position : STEP;
        c->index = position;
        if (c->length + more > c->capacity && rearrange(e, c, c->length + more, segments, n)) return -1;
        c->length += more;
    }
    if (c->length > max_size) {
        drop(segments, &n, keep, c->length - max_size);
        if (rearrange(e, c, max_size, segments, n)) return -1;
        c->length = c->index = max_size;
    }
    if (c->index == max_size) c->index = keep;
    c->write_at = c->index++;
    c->n_visible = position + 1 < c->length ? position + 1 : c->length;
    c->window = 0;
    c->whole = true;
    return 0;
}

/* Chunks of the text: entries of earlier ones go when there is no room. mlx-lm's ChunkedKVCache
 * keeps some longer, which nobody sees. */
static int prepare_chunk(cpu *e, cpu_cache *c, int64_t position, int64_t n_tokens) {
    int64_t chunk = c->base.spec.chunk;
    if (position % chunk == 0) c->length = 0;
    int64_t kept = c->length;
    if (c->length + n_tokens > c->capacity) {
        kept = position % chunk < c->length ? position % chunk : c->length;
        int64_t hint = c->base.spec.capacity < chunk ? c->base.spec.capacity : chunk;
        int64_t wanted = kept + n_tokens > hint ? kept + n_tokens : hint;
        segment last = {c->length - kept, kept};
        if (rearrange(e, c, (wanted + STEP - 1) / STEP * STEP, &last, 1)) return -1;
    }
    c->first = position - kept;
    c->write_at = kept;
    c->length = c->n_visible = kept + n_tokens;
    c->window = 0;
    c->whole = n_tokens == 1;
    return 0;
}

int cpu_cache_prepare(cpu *e, cpu_cache *c, int64_t position, int64_t n_tokens) {
    if (c->base.spec.chunk) return prepare_chunk(e, c, position, n_tokens);
    if (c->base.spec.max_size)
        return n_tokens > 1 ? prepare_concat(e, c, position, n_tokens) : prepare_in_place(e, c, position);
    int64_t need = position + n_tokens;
    if (need > c->capacity) {
        int64_t wanted = need > c->base.spec.capacity ? need : c->base.spec.capacity;
        segment all = {0, c->length};
        if (rearrange(e, c, (wanted + STEP - 1) / STEP * STEP, &all, 1)) return -1;
    }
    c->write_at = position;
    c->length = c->n_visible = need;
    c->window = c->base.spec.window;
    c->whole = n_tokens == 1;
    return 0;
}
