/* kernels_avx2_attention.c - attention for processors with AVX2, the same way as with AVX-512: many query
 * rows are lanes of registers, and numbers of the cache, converted once per block, are broadcast; for few
 * rows, as in decode, a register holds 8 dimensions, and entries are converted where they are multiplied. The
 * tiles are those that 16 registers hold. */
#include "engine/cpu/kernels_avx2.h"

#include <math.h>

enum {
    KEYS = 64,   /* of a block: its keys, values and scores stay in the first caches */
    LANES = 8,   /* of a register */
    ROWS = 16,   /* query rows worked on at a time: two registers */
    OUTPUTS = 6, /* times two registers of rows: sums kept in registers */
    FEW_ROWS = 8,
    AT_ONCE = 4 /* rows of the products of few rows */
};

INLINE int64_t at_most(int64_t n, int64_t most) {
    return n < most ? n : most;
}

INLINE int64_t padded(int64_t n_rows) {
    return (n_rows + ROWS - 1) / ROWS * ROWS;
}

/* exp(x) for x <= 0: x = k ln 2 + r, then 2^k times Taylor's polynomial of r. k + 127, the bits of 2^k, are
 * the lowest of a number so large that its last digit is 1. Below the normal numbers k + 127 is 0, and so is
 * the result. */
INLINE __m256 exp8(__m256 x) {
    __m256 large = _mm256_set1_ps(0x1.8p23f + 127);
    x = _mm256_max_ps(_mm256_set1_ps(-88), x); /* in this order: NaN stays */
    __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(1.44269504f), large),
           k = _mm256_sub_ps(shifted, large);
    __m256 r = _mm256_fnmadd_ps(k, _mm256_set1_ps(0x1.62e4p-1f), x); /* ln 2 in two parts, the first short */
    r = _mm256_fnmadd_ps(k, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
    static const float over_factorial[] = {1 / 120.f, 1 / 24.f, 1 / 6.f, 1 / 2.f, 1, 1};
    __m256 sum = _mm256_set1_ps(1 / 720.f);
    for (int i = 0; i < 6; i++) sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(over_factorial[i]));
    return _mm256_mul_ps(sum, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(shifted), 23)));
}

INLINE float max8(__m256 x) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* What to subtract before exp: rows that have seen nothing have the maximum -inf, and all their scores are.
 */
INLINE __m256 shift_of(__m256 max) {
    __m256 nothing = _mm256_cmp_ps(max, _mm256_set1_ps(-INFINITY), _CMP_EQ_OQ);
    return _mm256_andnot_ps(nothing, max);
}

/* Entry i and what follows it for `bytes` is fetched. */
INLINE void fetch(const char *p, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(p + i, _MM_HINT_T0);
}

/* Bytes of an entry's numbers. */
INLINE int64_t entry_bytes(const rows *w) {
    return w->bits ? w->n * w->bits / 8 : w->n * (int64_t)size_of(w->dtype);
}

/* n entries from key `first` on, as floats: in place, or in buffer. */
static const float *convert(float *buffer, const rows *w, int64_t first, int64_t n) {
    int64_t bytes = entry_bytes(w);
    const char *from = (const char *)w->values + first * bytes;
    if (!w->bits && w->dtype == DTYPE_F32) return (const float *)(const void *)from;
    for (int64_t i = 0; i < n; i++, from += bytes) {
        fetch(from + KEYS * bytes, bytes);
        kernels_avx2.unpack(buffer + i * w->n, w, first + i);
    }
    return buffer;
}

/* ---- many rows ---- */

/* One unit's memory. */
typedef struct many {
    float *max, *sum;     /* of each row */
    int32_t *low, *end;   /* keys it sees */
    float *q;             /* per ROWS rows: [dim][ROWS] */
    float *out;           /* per ROWS rows: [v_dim][ROWS] */
    float *scores;        /* [KEYS][ROWS], then probabilities */
    float *keys, *values; /* converted: [KEYS][dim], [KEYS][v_dim] */
} many;

static size_t many_floats(int64_t n_rows, int64_t dim, int64_t v_dim) {
    return (size_t)(padded(n_rows) * (4 + dim + v_dim) + KEYS * (ROWS + dim + v_dim));
}

static many carve(float *scratch, const attention *a) {
    int64_t n = padded(a->n_rows);
    many m = {.max = scratch, .sum = scratch + n};
    m.low = (int32_t *)(scratch + 2 * n), m.end = m.low + n;
    m.q = scratch + 4 * n;
    m.out = m.q + n * a->dim;
    m.scores = m.out + n * a->v_dim;
    m.keys = m.scores + KEYS * ROWS;
    m.values = m.keys + KEYS * a->dim;
    return m;
}

/* Keys are counted in 32 bits, since lanes hold them. */
static void begin_many(const many *m, const attention *a) {
    int64_t n = padded(a->n_rows);
    memset(m->out, 0, (size_t)(n * a->v_dim) * sizeof *m->out);
    for (int64_t r = 0; r < n; r++) {
        m->max[r] = -INFINITY;
        m->sum[r] = 0;
        seen_keys seen = a->seen[at_most(r, a->n_rows - 1)]; /* rows that only fill a register see the same */
        m->low[r] = (int32_t)seen.low;
        m->end[r] = (int32_t)seen.end;
        float *to = m->q + r / ROWS * ROWS * a->dim + r % ROWS;
        for (int64_t d = 0; d < a->dim; d++) to[d * ROWS] = r < a->n_rows ? a->q[r * a->dim + d] : 0;
    }
}

/* out[i][ROWS] (+)= sum over j < n of panel[j][ROWS] * x[i * stride + j * step], for n_out <= OUTPUTS of i.
 */
INLINE void multiply_some(float *out, const float *panel, const float *x, int64_t stride, int64_t step,
                          int64_t n, bool add, int n_out) {
    __m256 sum[OUTPUTS][2];
    for (int i = 0; i < n_out; i++)
        for (int p = 0; p < 2; p++)
            sum[i][p] = add ? _mm256_loadu_ps(out + i * ROWS + p * LANES) : _mm256_setzero_ps();
    for (int64_t j = 0; j < n; j++, panel += ROWS, x += step) {
        __m256 a = _mm256_loadu_ps(panel), b = _mm256_loadu_ps(panel + LANES);
        for (int i = 0; i < n_out; i++) {
            __m256 y = _mm256_broadcast_ss(x + i * stride);
            sum[i][0] = _mm256_fmadd_ps(a, y, sum[i][0]);
            sum[i][1] = _mm256_fmadd_ps(b, y, sum[i][1]);
        }
    }
    for (int i = 0; i < n_out; i++)
        for (int p = 0; p < 2; p++) _mm256_storeu_ps(out + i * ROWS + p * LANES, sum[i][p]);
}

static void multiply(float *out, const float *panel, const float *x, int64_t stride, int64_t step, int64_t n,
                     bool add, int64_t n_out) {
    for (; n_out >= OUTPUTS; n_out -= OUTPUTS, out += OUTPUTS * ROWS, x += OUTPUTS * stride)
        multiply_some(out, panel, x, stride, step, n, add, OUTPUTS);
    if (n_out >= 4) {
        multiply_some(out, panel, x, stride, step, n, add, 4);
        n_out -= 4, out += 4 * ROWS, x += 4 * stride;
    }
    for (; n_out >= 2; n_out -= 2, out += 2 * ROWS, x += 2 * stride)
        multiply_some(out, panel, x, stride, step, n, add, 2);
    if (n_out) multiply_some(out, panel, x, stride, step, n, add, 1);
}

/* Where rows do not see all keys of the block, their scores become -inf. */
static void mask_scores(const many *m, int64_t r, int64_t first, int64_t n) {
    __m256i low = _mm256_loadu_si256((const void *)(m->low + r));
    __m256i end = _mm256_loadu_si256((const void *)(m->end + r));
    float *scores = m->scores + r % ROWS;
    for (int64_t i = 0; i < n; i++, scores += ROWS) {
        __m256i key = _mm256_set1_epi32((int32_t)(first + i));
        __m256i seen = _mm256_andnot_si256(_mm256_cmpgt_epi32(low, key), _mm256_cmpgt_epi32(end, key));
        _mm256_storeu_ps(scores, _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), _mm256_loadu_ps(scores),
                                                  _mm256_castsi256_ps(seen)));
    }
}

/* Scores of 8 rows from r on into probabilities; what the rows have so far is scaled to their new maximum. */
static void soften(const many *m, const attention *a, int64_t r, int64_t n) {
    float *scores = m->scores + r % ROWS, *out = m->out + r / ROWS * ROWS * a->v_dim + r % ROWS;
    __m256 before = _mm256_loadu_ps(m->max + r), max = before;
    for (int64_t i = 0; i < n; i++) max = _mm256_max_ps(max, _mm256_loadu_ps(scores + i * ROWS));
    __m256 shift = shift_of(max), sum = _mm256_setzero_ps(), old = exp8(_mm256_sub_ps(before, shift));
    for (int64_t i = 0; i < n; i++) {
        __m256 p = exp8(_mm256_sub_ps(_mm256_loadu_ps(scores + i * ROWS), shift));
        _mm256_storeu_ps(scores + i * ROWS, p);
        sum = _mm256_add_ps(sum, p);
    }
    _mm256_storeu_ps(m->sum + r, _mm256_fmadd_ps(_mm256_loadu_ps(m->sum + r), old, sum));
    _mm256_storeu_ps(m->max + r, max);
    bool same = !_mm256_movemask_ps(_mm256_cmp_ps(before, max, _CMP_NEQ_UQ));
    for (int64_t d = 0; d < a->v_dim && !same; d++, out += ROWS)
        _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_loadu_ps(out), old));
}

/* ROWS rows from r on, over a block of n keys. */
static void block_many(const many *m, const attention *a, int64_t r, const float *keys, const float *values,
                       int64_t first, int64_t n) {
    int64_t last = at_most(r + ROWS, a->n_rows) - 1; /* sees the most of them, r sees from the lowest on */
    if (m->end[last] <= first || m->low[r] >= first + n) return;
    bool all = m->low[last] <= first && m->end[r] >= first + n;
    multiply(m->scores, m->q + r * a->dim, keys, a->dim, 1, a->dim, false, n);
    for (int64_t half = 0; half < ROWS; half += LANES) {
        if (!all) mask_scores(m, r + half, first, n);
        soften(m, a, r + half, n);
    }
    multiply(m->out + r * a->v_dim, m->scores, values, 1, a->v_dim, n, true, a->v_dim);
}

static void attend_many(const attention *a, float *scratch) {
    many m = carve(scratch, a);
    begin_many(&m, a);
    for (int64_t first = a->first; first < a->end; first += KEYS) {
        int64_t n = at_most(a->end - first, KEYS);
        const float *keys = convert(m.keys, &a->keys, first, n);
        const float *values = convert(m.values, &a->values, first, n);
        for (int64_t r = 0; r < a->n_rows; r += ROWS) block_many(&m, a, r, keys, values, first, n);
    }
    for (int64_t r = 0; r < a->n_rows; r++) {
        a->state[r] = (softmax_state){m.max[r], m.sum[r]};
        const float *from = m.out + r / ROWS * ROWS * a->v_dim + r % ROWS;
        for (int64_t d = 0; d < a->v_dim; d++) a->out[r * a->v_dim + d] = from[d * ROWS];
    }
}

/* ---- few rows ---- */

/* x, which the compiler would else load again for each product, into which it can put one load. */
INLINE __m256 keep(__m256 x) {
    __asm__("" : "+x"(x));
    return x;
}

/* scores[r * KEYS + k] of R rows and K keys. */
INLINE void score_tile(float *scores, const float *q, const char *keys, dtype type, int64_t dim, int R,
                       int K) {
    __m256 sum[2 * AT_ONCE];
    for (int i = 0; i < 2 * AT_ONCE; i++) sum[i] = _mm256_setzero_ps();
    for (int64_t d = 0; d < dim; d += LANES) {
        __m256 key[AT_ONCE];
        for (int k = 0; k < K; k++) key[k] = load8(at(keys, type, k * dim + d), type);
        for (int r = 0; r < R; r++) {
            __m256 row = keep(_mm256_loadu_ps(q + r * dim + d));
            for (int k = 0; k < K; k++) sum[r * K + k] = _mm256_fmadd_ps(row, key[k], sum[r * K + k]);
        }
    }
    float folded[2 * AT_ONCE];
    for (int i = 0; i < R * K; i += 4) _mm_storeu_ps(folded + i, sum8x4(sum + i));
    for (int r = 0; r < R; r++)
        for (int k = 0; k < K; k++) scores[r * KEYS + k] = folded[r * K + k];
}

INLINE void score_rows(float *scores, const float *q, const char *keys, dtype type, int64_t n, int64_t dim,
                       int64_t ahead, int R) {
    int K = R > 2 ? 2 : 4;
    int64_t k = 0, bytes = K * dim * (int64_t)size_of(type);
    for (; k + K <= n; k += K, keys += bytes) {
        fetch(keys + ahead, bytes);
        score_tile(scores + k, q, keys, type, dim, R, K);
    }
    for (; k < n; k++, keys = at(keys, type, dim)) score_tile(scores + k, q, keys, type, dim, R, 1);
}

/* C registers of R rows: out += probabilities times values. */
INLINE void mix_tile(float *out, int64_t v_dim, const float *p, const char *values, dtype type, int64_t n,
                     int64_t ahead, int R, int C) {
    __m256 sum[AT_ONCE][8];
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) sum[r][c] = _mm256_loadu_ps(out + r * v_dim + c * LANES);
    for (int64_t k = 0; k < n; k++, values = at(values, type, v_dim)) {
        fetch(values + ahead, C * LANES * (int64_t)size_of(type));
        __m256 value[8];
        for (int c = 0; c < C; c++) {
            value[c] = load8(at(values, type, c * LANES), type);
            if (R > 1) value[c] = keep(value[c]);
        }
        for (int r = 0; r < R; r++) {
            __m256 share = _mm256_broadcast_ss(p + r * KEYS + k);
            for (int c = 0; c < C; c++) sum[r][c] = _mm256_fmadd_ps(value[c], share, sum[r][c]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) _mm256_storeu_ps(out + r * v_dim + c * LANES, sum[r][c]);
}

INLINE void mix_rows(float *out, int64_t v_dim, const float *p, const char *values, dtype type, int64_t n,
                     int64_t ahead, int R) {
    int C = R == 1 ? 6 : R == 2 ? 4 : 3;
    int64_t d = 0;
    for (; d + C * LANES <= v_dim; d += C * LANES)
        mix_tile(out + d, v_dim, p, at(values, type, d), type, n, ahead, R, C);
    if (C > 2 && d + 2 * LANES <= v_dim) {
        mix_tile(out + d, v_dim, p, at(values, type, d), type, n, ahead, R, 2);
        d += 2 * LANES;
    }
    for (; d < v_dim; d += LANES) mix_tile(out + d, v_dim, p, at(values, type, d), type, n, ahead, R, 1);
}

/* One row's scores into probabilities, zeros where it sees nothing and beyond n. */
static void soften_row(float *scores, softmax_state *state, float *out, int64_t v_dim, int64_t low,
                       int64_t end, int64_t n) {
    __m256 most = _mm256_set1_ps(state->max), sum = _mm256_setzero_ps();
    for (int64_t i = 0; i < KEYS && (low > 0 || end < KEYS || n < KEYS); i++)
        if (i < low || i >= end || i >= n) scores[i] = -INFINITY;
    for (int i = 0; i < KEYS; i += LANES) most = _mm256_max_ps(most, _mm256_loadu_ps(scores + i));
    float max = max8(most);
    __m256 shift = shift_of(_mm256_set1_ps(max));
    for (int i = 0; i < KEYS; i += LANES) {
        __m256 p = exp8(_mm256_sub_ps(_mm256_loadu_ps(scores + i), shift));
        _mm256_storeu_ps(scores + i, p);
        sum = _mm256_add_ps(sum, p);
    }
    float old = state->max == max ? 1 : expf(state->max - max);
    state->sum = state->sum * old + sum8(sum);
    state->max = max;
    for (int64_t d = 0; d < v_dim && old != 1; d++) out[d] *= old;
}

/* Entries of a block as they are multiplied. */
typedef struct block {
    int64_t first, n;
    const void *keys, *values;
    int64_t key_ahead, value_ahead; /* bytes to the same place in the next block */
} block;

INLINE void block_few(const attention *a, int64_t r, float *scores, const block *b, dtype type, int R) {
    float *out = a->out + r * a->v_dim;
    score_rows(scores, a->q + r * a->dim, b->keys, type, b->n, a->dim, b->key_ahead, R);
    for (int i = 0; i < R; i++)
        soften_row(scores + i * KEYS, &a->state[r + i], out + i * a->v_dim, a->v_dim,
                   a->seen[r + i].low - b->first, a->seen[r + i].end - b->first, b->n);
    mix_rows(out, a->v_dim, scores, b->values, type, b->n, b->value_ahead, R);
}

/* type: of the entries as they are multiplied; affine ones are converted to F32, block by block. */
INLINE void attend_few(const attention *a, float *scores, dtype type) {
    float *keys = scores + AT_ONCE * KEYS, *values = keys + KEYS * a->dim;
    int64_t size = (int64_t)size_of(type);
    for (int64_t r = 0; r < a->n_rows; r++) a->state[r] = (softmax_state){-INFINITY, 0};
    memset(a->out, 0, (size_t)(a->n_rows * a->v_dim) * sizeof *a->out);
    for (int64_t first = a->first; first < a->end; first += KEYS) {
        block b = {.first = first, .n = at_most(a->end - first, KEYS)};
        if (a->keys.bits) {
            b.keys = convert(keys, &a->keys, first, b.n);
            b.values = convert(values, &a->values, first, b.n);
        } else {
            b.keys = at(a->keys.values, type, first * a->dim);
            b.values = at(a->values.values, type, first * a->v_dim);
            b.key_ahead = KEYS * a->dim * size;
            b.value_ahead = KEYS * a->v_dim * size;
        }
        int64_t r = 0;
        for (; r + AT_ONCE <= a->n_rows; r += AT_ONCE) block_few(a, r, scores, &b, type, AT_ONCE);
        if (a->n_rows - r == 3) block_few(a, r, scores, &b, type, 3);
        if (a->n_rows - r == 2) block_few(a, r, scores, &b, type, 2);
        if (a->n_rows - r == 1) block_few(a, r, scores, &b, type, 1);
    }
}

/* ---- either ---- */

static bool fits(int64_t dim, int64_t v_dim) {
    return dim % LANES == 0 && v_dim % LANES == 0;
}

static size_t scratch_bytes(int64_t n_rows, int64_t dim, int64_t v_dim) {
    int64_t few = KEYS * (AT_ONCE + dim + v_dim);
    return (n_rows <= FEW_ROWS ? (size_t)few : many_floats(n_rows, dim, v_dim)) * sizeof(float);
}

static void attend_rows(const attention *a, void *scratch) {
    if (a->n_rows > FEW_ROWS)
        attend_many(a, scratch);
    else if (a->keys.bits || a->keys.dtype == DTYPE_F32)
        attend_few(a, scratch, DTYPE_F32);
    else if (a->keys.dtype == DTYPE_F16)
        attend_few(a, scratch, DTYPE_F16);
    else
        attend_few(a, scratch, DTYPE_BF16);
}

const attention_kernels attention_avx2 = {
    .fits = fits, .scratch_bytes = scratch_bytes, .attend = attend_rows};
