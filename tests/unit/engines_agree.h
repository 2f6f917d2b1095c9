/* engines_agree.h - runs operations on engine/cpu and on engine/mlx, over dtypes, quantizations and
 * lengths. Both get the same random weights and inputs. cpu keeps values in F32, mlx rounds each to
 * its dtype, so the allowed difference is a few roundings of the largest value. */
#ifndef TESTS_ENGINES_AGREE_H
#define TESTS_ENGINES_AGREE_H

#include "engine_values.h"

#include <stdio.h>

enum {
    DIM = 128,
    HEADS = 4,
    KV_HEADS = 2,
    HEAD_DIM = 32,
    WIDTH = 64,
    EXPERTS = 4,
    ROWS = 256,
    BEFORE = 5,
    SEQUENCES = 7
};

typedef struct kind {
    dtype dtype;
    int bits, group_size; /* of matrices; 0: plain */
} kind;

static const kind kinds[] = {{DTYPE_F32, 0, 0},  {DTYPE_F16, 0, 0},  {DTYPE_BF16, 0, 0},
                             {DTYPE_F32, 4, 64}, {DTYPE_F16, 4, 32}, {DTYPE_BF16, 8, 64},
                             {DTYPE_F32, 3, 32}, {DTYPE_BF16, 6, 64}};
static const int64_t lengths[] = {1, 7, 70};

/* One engine with its weights. An engine may give a weight's memory back, so each has its own. */
typedef struct side {
    engine *e;
    const weight *table, *square, *biased, *keys, *norm, *head_norm, *router, *router_bias, *gate, *up, *down,
        *biased_up, *biased_down, *number[4];
    void *memory[96];
    int n_memory;
} side;

static void *take(side *s, size_t size) {
    assert_true(s->n_memory < 96);
    void *memory = calloc(1, size);
    assert_non_null(memory);
    return s->memory[s->n_memory++] = memory;
}

static array floats(side *s, dtype type, int rank, const int64_t *shape, float scale, float offset) {
    array a = {.dtype = type, .rank = rank};
    memcpy(a.shape, shape, (size_t)rank * sizeof *shape);
    int64_t n = array_count(&a);
    float *values = take(s, (size_t)n * sizeof *values);
    void *data = take(s, (size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++) values[i] = offset + scale * uniform();
    floats_to(data, type, values, n);
    a.data = data;
    return a;
}

/* Packed random numbers, with scales that give them about the spread of plain ones. */
static matrix packed(side *s, kind k, int rank, const int64_t *shape) {
    matrix m = {.kind = MATRIX_AFFINE, .rank = rank, .bits = k.bits, .group_size = k.group_size};
    int64_t words[3], groups[3];
    memcpy(m.shape, shape, (size_t)rank * sizeof *shape);
    memcpy(words, shape, (size_t)rank * sizeof *shape);
    memcpy(groups, shape, (size_t)rank * sizeof *shape);
    words[rank - 1] = shape[rank - 1] * k.bits / 32;
    groups[rank - 1] = shape[rank - 1] / k.group_size;
    m.values = (array){.dtype = DTYPE_U32, .rank = rank};
    memcpy(m.values.shape, words, (size_t)rank * sizeof *words);
    uint32_t *data = take(s, array_bytes(&m.values));
    for (int64_t i = 0; i < array_count(&m.values); i++)
        data[i] = (uint32_t)(uniform() * 32768) << 16 ^ (uint32_t)(uniform() * 65536);
    m.values.data = data;
    m.scales = floats(s, k.dtype, rank, groups, 0.2f / (float)(1 << k.bits), 0.4f / (float)(1 << k.bits));
    m.biases = floats(s, k.dtype, rank, groups, 0.02f, -0.2f);
    return m;
}

static const weight *make(side *s, kind k, int rank, const int64_t *shape, bool bias) {
    weight_source source = {.name = "w"};
    matrix vector = {.rank = rank - 1};
    if (k.bits && rank > 1)
        source.m = packed(s, k, rank, shape);
    else {
        source.m = (matrix){.rank = rank,
                            .values = floats(s, k.dtype, rank, shape, rank > 1 ? 0.2f : 0.5f, rank == 1)};
        memcpy(source.m.shape, shape, (size_t)rank * sizeof *shape);
    }
    if (bias) {
        memcpy(vector.shape, shape, (size_t)(rank - 1) * sizeof *shape);
        vector.values = floats(s, k.dtype, rank - 1, shape, 0.5f, 0);
        source.bias = &vector;
    }
    const weight *w = engine_weight(s->e, &source);
    if (!w) fail_msg("%s", error_message());
    return w;
}

static void load(side *s, kind k) {
    seed = 7;
    s->table = make(s, k, 2, (int64_t[]){ROWS, DIM}, false);
    s->square = make(s, k, 2, (int64_t[]){DIM, DIM}, false);
    s->biased = make(s, k, 2, (int64_t[]){DIM, DIM}, true);
    s->keys = make(s, k, 2, (int64_t[]){KV_HEADS * HEAD_DIM, DIM}, false);
    s->norm = make(s, k, 1, (int64_t[]){DIM}, false);
    s->head_norm = make(s, k, 1, (int64_t[]){HEAD_DIM}, false);
    s->router = make(s, k, 2, (int64_t[]){EXPERTS, DIM}, false);
    s->router_bias = make(s, k, 1, (int64_t[]){EXPERTS}, false);
    s->gate = make(s, k, 3, (int64_t[]){EXPERTS, WIDTH, DIM}, false);
    s->up = make(s, k, 3, (int64_t[]){EXPERTS, WIDTH, DIM}, false);
    s->down = make(s, k, 3, (int64_t[]){EXPERTS, DIM, WIDTH}, false);
    s->biased_up = make(s, k, 3, (int64_t[]){EXPERTS, WIDTH, DIM}, true);
    s->biased_down = make(s, k, 3, (int64_t[]){EXPERTS, DIM, WIDTH}, true);
    for (int i = 0; i < 4; i++) s->number[i] = make(s, k, 1, (int64_t[]){1}, false);
}

static void unload(side *s) {
    engine_drop_weights(s->e);
    while (s->n_memory) free(s->memory[--s->n_memory]);
}

/* ---- operations; x is [n, DIM] ---- */

typedef tensor operation(graph *g, const side *s, cache *c, tensor x);

/* max_size, window, chunk, kv_bits: of the cache. experts: MLX multiplies plain ones on the CPU in
 * F32 only. choosy: rounding decides what is chosen. */
typedef struct agreement {
    const char *name;
    operation *build;
    int64_t max_size, window, chunk;
    int kv_bits;
    bool experts, choosy;
} agreement;

static const float periods[HEAD_DIM / 2] = {1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597};
static const float plain_periods[HEAD_DIM / 2] = {
    1,   1.77827941f, 3.16227766f, 5.62341325f, 10,   17.7827941f, 31.6227766f, 56.2341325f,
    100, 177.827941f, 316.227766f, 562.341325f, 1000, 1778.27941f, 3162.27766f, 5623.41325f};
static const rope_spec ropes[] = {
    {.dims = HEAD_DIM, .scale = 1, .base = 10000, .mscale = 1, .freqs = plain_periods},
    {.dims = HEAD_DIM,
     .traditional = true,
     .scale = 0.25f,
     .base = 10000,
     .mscale = 1,
     .freqs = plain_periods},
    {.dims = HEAD_DIM, .scale = 1, .mscale = 1.25f, .freqs = periods},
};

static tensor of_attend(graph *g, const side *s, cache *c, tensor x) {
    tensor k = rope(g, heads(g, linear(g, x, s->keys), KV_HEADS), &ropes[0], c);
    return attend(g, c, heads(g, x, HEADS), k, heads(g, linear(g, x, s->keys), KV_HEADS),
                  &(attend_spec){.scale = 0.2f});
}

/* n rows, of so many sequences. */
static int64_t run_one(const side *s, const agreement *what, kind k, int64_t n, int n_sequences, float *out) {
    cache_spec spec = {.n_sequences = n_sequences,
                       .n_kv_heads = KV_HEADS,
                       .head_dim = HEAD_DIM,
                       .v_head_dim = HEAD_DIM,
                       .dtype = k.dtype,
                       .max_size = what->max_size,
                       .window = what->window,
                       .chunk = what->chunk};
    cache *c = cache_new(s->e, &spec);
    assert_non_null(c);
    /* a chunk before, so that positions and caches do not start at zero */
    graph *g = graph_begin(s->e, n_sequences);
    of_attend(g, s, c, rows_of(g, s->table, 100, BEFORE * n_sequences));
    if (graph_end(g, 0, NULL, NULL)) fail_msg("%s", error_message());
    if (what->kv_bits) assert_int_equal(cache_quantize(s->e, c, what->kv_bits, 32), 0);
    g = graph_begin(s->e, n_sequences);
    tensor x = what->build(g, s, c, rows_of(g, s->table, 3, n));
    int64_t count = 1;
    for (int i = 0; i < 3 && tensor_dim(x, i); i++) count *= tensor_dim(x, i);
    finish(g, x, out, count);
    cache_free(s->e, c);
    return count;
}

static void compare(const side *cpu, const side *mlx, const agreement *what, kind k, int64_t n,
                    int n_sequences) {
    static float a[70 * ROWS], b[70 * ROWS];
    int64_t count = run_one(cpu, what, k, n, n_sequences, a);
    assert_int_equal(run_one(mlx, what, k, n, n_sequences, b), count);
    float largest = 0, difference = 0;
    for (int64_t i = 0; i < count; i++) {
        largest = fmaxf(largest, fabsf(a[i]));
        difference = fmaxf(difference, fabsf(a[i] - b[i]));
        if (!isfinite(b[i])) difference = INFINITY;
    }
    float rounding = k.dtype == DTYPE_F32 ? 1e-6f : k.dtype == DTYPE_F16 ? 0x1p-11f : 0x1p-8f;
    /* MLX's CPU kernels for packed weights round each unpacked number, and the sum, to the
     * dtype. */
    float allowed = (k.bits && k.dtype != DTYPE_F32 ? 16 : 4) * rounding;
    if (what->kv_bits) allowed += 0.01f; /* an element on the border of two steps */
    assert_true(largest > 0);
    if (difference > allowed * largest)
        fail_msg("%s, %s, %d bits, %lld rows of %d sequences: %g apart, largest %g", what->name,
                 dtype_name(k.dtype), k.bits, (long long)n, n_sequences, (double)difference, (double)largest);
}

/* The test of all of them, or its end where MLX is not there. */
static void check_agreements(const agreement *operations, size_t n_operations) {
    side cpu = {.e = open_cpu(2)}, mlx = {.e = engine_open("mlx", &(engine_options){0})};
    if (!mlx.e) {
        print_message("not run: %s\n", error_message());
        engine_close(cpu.e);
        skip();
    }
    for (size_t k = 0; k < COUNT(kinds); k++) {
        load(&cpu, kinds[k]);
        load(&mlx, kinds[k]);
        for (size_t i = 0; i < n_operations * COUNT(lengths); i++) {
            const agreement *what = &operations[i / COUNT(lengths)];
            if (what->experts && !kinds[k].bits && kinds[k].dtype != DTYPE_F32) continue;
            if (what->choosy && kinds[k].dtype != DTYPE_F32) continue;
            int64_t n = lengths[i % COUNT(lengths)];
            compare(&cpu, &mlx, what, kinds[k], n, 1);
            if (n % SEQUENCES == 0) compare(&cpu, &mlx, what, kinds[k], n, SEQUENCES);
        }
        unload(&cpu);
        unload(&mlx);
    }
    engine_close(cpu.e);
    engine_close(mlx.e);
}

#endif
