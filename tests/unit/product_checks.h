/* product_checks.h - checks of f32, bf16, int16 and int8 products of the table under test, those it
 * has, against double-precision loops over the rounded numbers. All bit widths and group sizes;
 * rows, tokens and columns around every panel's size; what lies beside the result must stay as it
 * is. */
#ifndef TESTS_PRODUCT_CHECKS_H
#define TESTS_PRODUCT_CHECKS_H

#include "kernel_tables.h"

#include <float.h>

typedef enum arithmetic {
    BF16,
    F32,
    INT16,
    INT8
} arithmetic; /* the last three are for affine weights, too */

static inline const products *products_of(const kernels *table, matrix_kind kind, arithmetic f) {
    const matrix_kernels *k = &table->of[kind];
    return f == BF16 ? k->bf16 : f == F32 ? k->f32 : f == INT16 ? k->int16 : k->int8;
}

/* Random weights: words of `bits`, and scales and biases of `type`; or plain BF16. The memory
 * starts `skew` bytes off its alignment. */
typedef struct weights {
    rows w;
    char *values, *scales, *biases; /* what to free */
} weights;

static inline char *random_stored(int64_t n, dtype type, size_t skew) {
    char *stored = get_memory(skew + (size_t)n * dtype_size(type));
    for (int64_t i = 0; i < n; i++) {
        float x = uniform();
        char element[4];
        floats_to(element, type, &x, 1);
        memcpy(stored + skew + (size_t)i * dtype_size(type), element, dtype_size(type));
    }
    return stored;
}

static inline weights make_weights(int64_t n_rows, int64_t n, dtype type, int bits, int group_size,
                                   size_t skew) {
    weights m = {.w = {.kind = bits ? MATRIX_AFFINE : MATRIX_PLAIN,
                       .n = n,
                       .dtype = type,
                       .bits = bits,
                       .group_size = group_size}};
    if (!bits) {
        m.values = random_stored(n_rows * n, type, skew);
    } else {
        int64_t n_bytes = n_rows * n * bits / 8;
        m.values = get_memory((size_t)n_bytes + skew);
        for (int64_t i = 0; i < n_bytes; i++) m.values[(size_t)i + skew] = (char)(uniform() * 128);
        m.scales = random_stored(n_rows * n / group_size, type, skew);
        m.biases = random_stored(n_rows * n / group_size, type, skew);
        m.w.scales = m.scales + skew;
        m.w.biases = m.biases + skew;
    }
    m.w.values = m.values + skew;
    return m;
}

/* Of a kind of small floating-point numbers. */
static inline weights make_fp_weights(int64_t n_rows, int64_t n, matrix_kind kind, size_t skew) {
    int bits = matrix_kind_bits(kind), group_size = matrix_kind_group_size(kind);
    int64_t n_bytes = n_rows * n * bits / 8, n_groups = n_rows * n / group_size;
    weights m = {.w = {.kind = kind, .n = n, .bits = bits, .group_size = group_size}};
    m.values = get_memory((size_t)n_bytes + skew);
    m.scales = get_memory((size_t)n_groups + skew);
    for (int64_t i = 0; i < n_bytes; i++) {
        uint8_t byte = (uint8_t)((uniform() + 1) * 128);
        if (bits == 8) byte &= 0xbf; /* up to 1.875: no NaN, and none so large that others do not count */
        m.values[skew + (size_t)i] = (char)byte;
    }
    for (int64_t i = 0; i < n_groups; i++) m.scales[skew + (size_t)i] = (char)random_scale(kind);
    m.w.values = m.values + skew;
    m.w.scales = m.scales + skew;
    return m;
}

static inline void free_weights(weights *m) {
    free(m->values), free(m->scales), free(m->biases);
}

/* x as the products see it: kernels.h has the definition. */
static inline double *rounded(const float *x, int64_t n, const rows *w, arithmetic f) {
    double *to = get_memory((size_t)n * sizeof *to);
    float most = f == INT16 ? MOST_INT16 : MOST_INT8;
    for (int64_t i = 0; i < n; i++) to[i] = f == BF16 ? bf16_to_f32(f32_to_bf16(x[i])) : x[i];
    for (int64_t at = 0; at < n && f >= INT16; at += w->group_size) {
        float largest = 0;
        for (int64_t i = at; i < at + w->group_size; i++) largest = fmaxf(largest, fabsf(x[i]));
        for (int64_t i = at; i < at + w->group_size; i++)
            to[i] = largest < 1e-30f ? 0 : (double)rintf(x[i] * (most / largest)) * (largest / most);
    }
    return to;
}

/* Tokens of very different sizes, so that a scale taken from another group or token shows; one
 * group is zero.
 */
static inline float *get_tokens(int64_t n_tokens, int64_t n) {
    float *x = get_floats(n_tokens * n);
    for (int64_t i = 0; i < n_tokens * n; i++) x[i] *= ldexpf(1, (int)(i / 32 % 7));
    for (int64_t i = 0; i < n && i < 32; i++) x[i] = 0;
    return x;
}

static inline void check_row(const weights *m, const double *row, const double *x, double found,
                             const char *what, int64_t r) {
    double sum = 0, magnitude = 0;
    for (int64_t i = 0; i < m->w.n; i++) {
        sum += row[i] * x[i];
        /* scale * dot(q, x) and bias * sum(x) are added separately: their sizes count, not that of
         * the sum */
        magnitude += fabs(row[i] * x[i]) + (m->w.bits ? fabs(x[i]) * 2 * (1 << m->w.bits) : 0);
    }
    check_near(found, sum, sum_tolerance(m->w.n, magnitude), what, r);
}

/* Row r of w as doubles, without any rounding. */
static inline double *exact_row(const rows *w, int64_t r) {
    double *row = get_memory((size_t)w->n * sizeof *row);
    for (int64_t i = 0; i < w->n; i++) {
        float value, scale, bias;
        int64_t at = r * w->n + i, bit = at * w->bits;
        if (w->kind > MATRIX_AFFINE) {
            uint8_t byte = ((const uint8_t *)w->scales)[at / w->group_size];
            row[i] = (double)stored_scale(w->kind, byte) * fp_number(w->kind, w->values, at);
            continue;
        }
        if (!w->bits) {
            floats_from(&value, (const char *)w->values + (size_t)at * dtype_size(w->dtype), w->dtype, 1);
            row[i] = value;
            continue;
        }
        unsigned q = 0;
        for (int b = 0; b < w->bits; b++, bit++)
            q |= (unsigned)(((const uint8_t *)w->values)[bit / 8] >> bit % 8 & 1) << b;
        size_t group = (size_t)(at / w->group_size) * dtype_size(w->dtype);
        floats_from(&scale, (const char *)w->scales + group, w->dtype, 1);
        floats_from(&bias, (const char *)w->biases + group, w->dtype, 1);
        row[i] = (double)scale * q + bias;
    }
    return row;
}

static inline void *get_aligned(size_t n) {
    assert_int_equal(n % 64, 0);
    void *memory = aligned_alloc(64, n);
    assert_non_null(memory);
    memset(memory, 0xff, n); /* NaN, unless it is written */
    return memory;
}

/* ---- one token ---- */

static inline bool is_in(runs rs, int64_t r) {
    int64_t k = rs.apart ? r / rs.apart : 0;
    return k < count_runs(rs) && r - k * rs.apart >= rs.first && r - k * rs.apart < rs.end;
}

static inline void check_matvec(arithmetic f, const weights *m, int64_t n_rows, runs rs, const float *x) {
    const products *p = products_of(tested, m->w.kind, f);
    float *y = get_marks(n_rows);
    double *seen = rounded(x, m->w.n, &m->w, f);
    void *prepared = get_aligned(p->prepared_bytes(&m->w));
    char what[96];
    snprintf(what, sizeof what, "matvec of form %d, %s, %d bits, group %d, n %d", f,
             matrix_kind_name(m->w.kind), m->w.bits, m->w.group_size, (int)m->w.n);
    p->prepare(prepared, &m->w, x);
    p->matvec(y, &m->w, rs, prepared);
    for (int64_t r = 0; r < n_rows; r++) {
        if (!is_in(rs, r)) {
            assert_true(y[r] == mark);
            continue;
        }
        double *row = exact_row(&m->w, r);
        check_row(m, row, seen, y[r], what, r);
        free(row);
    }
    free(y), free(seen), free(prepared);
}

static inline void check_some_rows(arithmetic f, weights m) {
    static const runs some[] = {{0, 11, 0}, {2, 6, 0}, {9, 11, 0}, {3, 3, 0},
                                {0, 2, 2},  {1, 2, 2}, {1, 1, 2}};
    float *x = get_tokens(1, m.w.n);
    for
        EACH(i, some) check_matvec(f, &m, 11, some[i], x);
    free_weights(&m);
    free(x);
}

static inline void check_matvecs(arithmetic f, int64_t n, dtype type, int bits, int group_size, size_t skew) {
    check_some_rows(f, make_weights(11, n, type, bits, group_size, skew));
}

/* ---- many tokens ---- */

/* Tokens as panels, which the caller frees. */
static inline char *pack_all_tokens(const products *p, const rows *w, const float *x, int64_t n_tokens) {
    int64_t n_panels = (n_tokens + p->panel_tokens - 1) / p->panel_tokens;
    size_t bytes = p->token_panel_bytes(w);
    char *tokens = get_aligned((size_t)n_panels * bytes);
    for (int64_t i = 0, t = 0; i < n_panels; i++, t += p->panel_tokens)
        p->pack_tokens(tokens + (size_t)i * bytes, w, x + t * w->n, w->n,
                       n_tokens - t < p->panel_tokens ? n_tokens - t : p->panel_tokens);
    return tokens;
}

/* out[t * stride + r] = dot(token t, row r), by panels of both. */
static inline void multiply_panels(const products *p, float *out, int64_t stride, const rows *w,
                                   int64_t n_rows, const float *x, int64_t n_tokens) {
    int64_t row_panels = (n_rows + p->panel_rows - 1) / p->panel_rows;
    size_t row_bytes = p->row_panel_bytes(w);
    char *tokens = pack_all_tokens(p, w, x, n_tokens), *tile = get_aligned((size_t)row_panels * row_bytes);
    for (int64_t i = 0, r = 0; i < row_panels; i++, r += p->panel_rows)
        p->pack_rows(tile + (size_t)i * row_bytes, w, r,
                     n_rows - r < p->panel_rows ? n_rows - r : p->panel_rows);
    p->multiply(out, stride, tokens, n_tokens, tile, n_rows, w);
    free(tokens), free(tile);
}

/* The same, rows straight from the checkpoint, gives the same numbers. */
static inline void check_straight(const products *p, const float *expected, int64_t stride, const rows *w,
                                  int64_t n_rows, const float *x, int64_t n_tokens) {
    if (!p->straight_tokens || n_tokens > p->straight_tokens(w)) return;
    char *tokens = pack_all_tokens(p, w, x, n_tokens);
    float *out = get_marks(n_tokens * stride);
    p->multiply_straight(out, stride, tokens, n_tokens, w, n_rows);
    assert_memory_equal(out, expected, (size_t)(n_tokens * stride) * sizeof *out);
    free(tokens), free(out);
}

static inline void check_panels(arithmetic f, const weights *m, int64_t n_rows, const float *x,
                                int64_t n_tokens) {
    enum { BESIDE = 3 };
    int64_t stride = n_rows + BESIDE, n = m->w.n;
    float *out = get_marks(n_tokens * stride);
    char what[96];
    multiply_panels(products_of(tested, m->w.kind, f), out, stride, &m->w, n_rows, x, n_tokens);
    check_straight(products_of(tested, m->w.kind, f), out, stride, &m->w, n_rows, x, n_tokens);
    snprintf(what, sizeof what, "panels of form %d, %s, %d bits, group %d, %d x %d x %d", f,
             matrix_kind_name(m->w.kind), m->w.bits, m->w.group_size, (int)n_tokens, (int)n_rows, (int)n);
    double *seen = get_memory((size_t)(n_tokens * n) * sizeof *seen);
    for (int64_t t = 0; t < n_tokens; t++) {
        double *one = rounded(x + t * n, n, &m->w, f);
        memcpy(seen + t * n, one, (size_t)n * sizeof *one);
        free(one);
    }
    for (int64_t r = 0; r < n_rows; r++) {
        double *row = exact_row(&m->w, r);
        for (int64_t t = 0; t < n_tokens; t++) check_row(m, row, seen + t * n, out[t * stride + r], what, r);
        free(row);
    }
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t i = n_rows; i < stride; i++) assert_true(out[t * stride + i] == mark);
    free(out), free(seen);
}

static inline void check_all_rows(arithmetic f, weights m, int64_t n_tokens, int64_t n_rows) {
    float *x = get_tokens(n_tokens, m.w.n);
    check_panels(f, &m, n_rows, x, n_tokens);
    free_weights(&m);
    free(x);
}

static inline void check_product(arithmetic f, int64_t n_tokens, int64_t n_rows, int64_t n, dtype type,
                                 int bits, int group_size) {
    check_all_rows(f, make_weights(n_rows, n, type, bits, group_size, 1), n_tokens, n_rows);
}

/* ---- which ---- */

static const int widths[] = {1, 2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};

static inline void test_affine_matvec(void) {
    static const int multiples[] = {1, 2, 3, 5, 17, 35};
    for (arithmetic f = F32; f <= INT8; f++)
        for
            EACH(b, widths)
            for
                EACH(g, groups)
                for
                    EACH(n, multiples) {
                        if (!products_of(tested, MATRIX_AFFINE, f)) continue;
                        dtype type = float_types[(n + g) % 3];
                        check_matvecs(f, groups[g] * multiples[n], type, widths[b], groups[g], n % 4);
                    }
}

/* Rows so short, and so many, that kernels convert the scales of several at once. */
static inline void test_short_rows(void) {
    enum { N_ROWS = 150 };
    for (arithmetic f = F32; f <= INT8; f++)
        for (int i = 0; i < 15; i++) {
            int n_groups = 1 + i / 3, group_size = n_groups == 4 ? 64 : groups[i % 3];
            if (!products_of(tested, MATRIX_AFFINE, f)) continue;
            weights m = make_weights(N_ROWS, group_size * n_groups, float_types[i % 3], 4, group_size, 1);
            float *x = get_tokens(1, group_size * n_groups);
            check_matvec(f, &m, N_ROWS, (runs){0, N_ROWS / RUNS, N_ROWS / RUNS}, x);
            check_matvec(f, &m, N_ROWS, (runs){5, N_ROWS / RUNS - 2, N_ROWS / RUNS}, x);
            check_matvec(f, &m, N_ROWS, (runs){0, N_ROWS, 0}, x);
            free_weights(&m);
            free(x);
        }
}

/* More than kernels convert the scales of at once. */
static inline void test_many_groups(void) {
    for
        EACH(b, widths) {
            if (tested->of[MATRIX_AFFINE].int16) check_matvecs(INT16, 32 * 259, DTYPE_BF16, widths[b], 32, 0);
            check_matvecs(INT8, 32 * 259, DTYPE_BF16, widths[b], 32, 0);
        }
}

static inline void test_affine_panels(void) {
    static const int sizes[][3] = {{1, 1, 1},   {5, 16, 2},  {12, 17, 3}, {13, 32, 4}, {24, 33, 1},
                                   {30, 49, 2}, {7, 64, 20}, {12, 8, 66}, {4, 3, 33},  {35, 33, 22},
                                   {8, 70, 5},  {16, 33, 2}, {9, 65, 35}, {6, 97, 1}};
    for (arithmetic f = F32; f <= INT8; f++)
        for
            EACH(b, widths)
            for
                EACH(g, groups)
                for
                    EACH(i, sizes) {
                        if (!products_of(tested, MATRIX_AFFINE, f)) continue;
                        check_product(f, sizes[i][0], sizes[i][1], groups[g] * sizes[i][2],
                                      float_types[(i + g) % 3], widths[b], groups[g]);
                    }
}

static inline void test_fp_products(void) {
    static const int multiples[] = {1, 2, 3, 5, 8, 17, 35, 259};
    static const int sizes[][3] = {{1, 1, 1},   {5, 16, 2},  {12, 17, 3}, {13, 32, 4}, {24, 33, 1},
                                   {30, 49, 2}, {7, 64, 20}, {12, 8, 66}, {4, 3, 33},  {35, 33, 22},
                                   {8, 70, 5},  {16, 33, 2}, {9, 65, 35}, {6, 97, 1}};
    for (arithmetic f = F32; f <= INT8; f++)
        for
            EACH(k, fp_kinds) {
                int group = matrix_kind_group_size(fp_kinds[k]);
                if (!products_of(tested, fp_kinds[k], f)) continue;
                for
                    EACH(n, multiples)
                check_some_rows(f, make_fp_weights(11, group * multiples[n], fp_kinds[k], n % 4));
                for
                    EACH(i, sizes)
                check_all_rows(f, make_fp_weights(sizes[i][1], group * sizes[i][2], fp_kinds[k], 1),
                               sizes[i][0], sizes[i][1]);
            }
}

/* Each code of a number as the only one of a row, with one token: NaN is one, and nothing else. */
static inline void test_fp_products_of_codes(void) {
    enum { N_CODES = 256, N = 96 };
    uint8_t codes[N_CODES * N] = {0}, scales[N_CODES * N / 16];
    float x[N], y[N_CODES];
    for (int i = 0; i < N; i++) x[i] = 1;
    for (int i = 0; i < N_CODES; i++) codes[i * N + i % N] = (uint8_t)i;
    for
        EACH(k, fp_kinds) {
            matrix_kind kind = fp_kinds[k];
            const products *p = products_of(tested, kind, F32);
            if (!p || matrix_kind_bits(kind) != 8) continue;
            memset(scales, 127, sizeof scales);
            rows w = {.kind = kind, .n = N, .values = codes, .scales = scales, .bits = 8, .group_size = 32};
            void *prepared = get_aligned(p->prepared_bytes(&w));
            p->prepare(prepared, &w, x);
            p->matvec(y, &w, (runs){0, N_CODES / RUNS, N_CODES / RUNS}, prepared);
            for (int i = 0; i < N_CODES; i++)
                check_near(y[i], fp_number(kind, codes, i * N + i % N), 0, "one code", i);
            free(prepared);
        }
}

/* E2M1's largest and smallest numbers, all of them: whatever is too narrow for a sum overflows. */
static inline void test_largest_fp_sums(void) {
    enum { N_ROWS = 3, N_TOKENS = 3, N = 256 };
    float x[N_TOKENS * N];
    for (arithmetic f = INT16; f <= INT8; f++)
        for (int i = 0; i < 8; i++) {
            matrix_kind kind = i / 4 ? MATRIX_MXFP4 : MATRIX_NVFP4;
            if (!products_of(tested, kind, f)) continue;
            weights m = make_fp_weights(N_ROWS, N, kind, 0);
            memset(m.values, i % 2 ? 0xff : 0x77, N_ROWS * N / 2);
            for (int k = 0; k < N_TOKENS * N; k++) x[k] = i / 2 % 2 ? 1 : -1;
            check_matvec(f, &m, N_ROWS, (runs){0, N_ROWS, 0}, x);
            check_panels(f, &m, N_ROWS, x, N_TOKENS);
            free_weights(&m);
        }
}

/* Every product as large as it can be, of one sign: whatever is too narrow for a sum overflows. */
static inline void test_largest_sums(void) {
    enum { N_ROWS = 3, N_TOKENS = 3, N = 256 };
    float x[N_TOKENS * N];
    for (arithmetic f = INT16; f <= INT8; f++)
        for
            EACH(b, widths)
            for
                EACH(g, groups)
            for (float sign = -1; sign <= 1; sign += 2) {
                if (!products_of(tested, MATRIX_AFFINE, f)) continue;
                weights m = make_weights(N_ROWS, N, DTYPE_F32, widths[b], groups[g], 0);
                memset(m.values, 0xff, (size_t)(N_ROWS * N * widths[b] / 8));
                for (int i = 0; i < N_TOKENS * N; i++) x[i] = sign;
                check_matvec(f, &m, N_ROWS, (runs){0, N_ROWS, 0}, x);
                check_panels(f, &m, N_ROWS, x, N_TOKENS);
                free_weights(&m);
            }
}

static inline void test_plain(void) {
    static const int64_t sizes[][3] = {{1, 1, 32},   {5, 16, 64},  {12, 17, 96}, {13, 32, 128},
                                       {24, 33, 32}, {30, 49, 64}, {7, 64, 160}, {12, 32, 2112},
                                       {4, 3, 4128}, {12, 16, 40}, {3, 5, 7},    {16, 16, 39}};
    for (arithmetic f = BF16; f <= F32; f++)
        for
            EACH(t, float_types)
            for
                EACH(i, sizes) {
                    dtype type = float_types[t];
                    if (!products_of(tested, MATRIX_PLAIN, f) || (f == BF16 && type != DTYPE_BF16)) continue;
                    check_product(f, sizes[i][0], sizes[i][1], sizes[i][2], type, 0, 0);
                    check_matvecs(f, sizes[i][2], type, 0, 0, i % 4);
                }
}

/* A number that is not finite must not become one that is. */
static inline void test_not_finite(void) {
    float x[128] = {1, 2, 3};
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (arithmetic f = F32; f <= INT8; f++)
        for
            EACH(i, bad) {
                const products *p = products_of(tested, MATRIX_AFFINE, f);
                if (!p) continue;
                weights m = make_weights(1, 128, DTYPE_F32, 4, 32, 0);
                void *prepared = get_aligned(p->prepared_bytes(&m.w));
                float y, z;
                x[40 + i] = bad[i];
                p->prepare(prepared, &m.w, x);
                p->matvec(&y, &m.w, (runs){0, 1, 0}, prepared);
                multiply_panels(p, &z, 1, &m.w, 1, x, 1);
                x[40 + i] = 0;
                assert_false(fabsf(y) <= FLT_MAX);
                assert_false(fabsf(z) <= FLT_MAX);
                free(prepared);
                free_weights(&m);
            }
}

#endif
