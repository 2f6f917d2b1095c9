/* kernels_avx512_attention.c - attention on BF16 caches for processors with AVX-512 BF16 (2020 and later).
 * Entries are multiplied as they are stored, in pairs of BF16 numbers with F32 sums; queries and
 * probabilities are rounded to BF16, as they are where the model was trained.
 *
 * Many query rows: a register holds 16 rows, and numbers of the cache are broadcast. Everything of the
 * softmax is then vertical, and keys need no packing. Few rows, as in decode: a register holds 32 dimensions.
 */
#include "engine/cpu/kernels.h"

#include <immintrin.h>
#include <math.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    KEYS = 64,   /* of a block; its keys, values and scores stay in the first cache */
    LANES = 16,  /* F32 of a register */
    ROWS = 32,   /* query rows worked on at a time: two registers */
    OUTPUTS = 8, /* times two registers of rows: sums kept in registers */
    FEW_ROWS = 8,
    AT_ONCE = 4, /* rows, and keys, of the few-rows products */
    CHUNK = 32,  /* BF16 of a register */
    AHEAD = 4096 /* bytes that decode fetches ahead: the processor's own prefetching ends with each page */
};

INLINE int64_t at_most(int64_t n, int64_t most) {
    return n < most ? n : most;
}

INLINE int64_t padded(int64_t n_rows) {
    return (n_rows + ROWS - 1) / ROWS * ROWS;
}

/* exp(x) for x <= 0: as exp8 of kernels_avx2.c; scalef rounds to subnormal numbers and to zero. */
INLINE __m512 exp16(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-104), x); /* in this order: NaN stays */
    __m512 k = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    __m512 r = _mm512_fnmadd_ps(k, _mm512_set1_ps(0x1.62e4p-1f), x);
    r = _mm512_fnmadd_ps(k, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
    static const float over_factorial[] = {1 / 120.f, 1 / 24.f, 1 / 6.f, 1 / 2.f, 1, 1};
    __m512 sum = _mm512_set1_ps(1 / 720.f);
    for (int i = 0; i < 6; i++) sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(over_factorial[i]));
    return _mm512_scalef_ps(sum, k);
}

/* What to subtract before exp: rows that have seen nothing have the maximum -inf, and all their scores are.
 */
INLINE __m512 shift_of(__m512 max) {
    return _mm512_mask_mov_ps(max, _mm512_cmp_ps_mask(max, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ),
                              _mm512_setzero_ps());
}

/* a0 b0 a1 b1 ... of two registers of 16 floats, as BF16. */
INLINE __m512i pairs_of(__m512 a, __m512 b) {
    static const uint16_t order[CHUNK] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                          8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(order), (__m512i)_mm512_cvtne2ps_pbh(b, a));
}

/* ---- many rows ---- */

/* One unit's memory. Panels are [pairs of dimensions or keys][ROWS][2]. */
typedef struct many {
    float *max, *sum;   /* of each row */
    int32_t *low, *end; /* keys it sees */
    uint16_t *q;        /* per ROWS rows: a panel */
    float *out;         /* per ROWS rows: [v_dim][ROWS] */
    float *scores;      /* [KEYS][ROWS] */
    uint16_t *p;        /* a panel */
    uint32_t *values;   /* [KEYS / 2][v_dim]: those of two keys side by side */
} many;

static size_t many_floats(int64_t n_rows, int64_t dim, int64_t v_dim) {
    return (size_t)(padded(n_rows) * (4 + dim / 2 + v_dim) + KEYS * ROWS + KEYS / 2 * (ROWS + v_dim));
}

static many carve(float *scratch, const attention *a) {
    int64_t n = padded(a->n_rows);
    many m = {.max = scratch, .sum = scratch + n};
    m.low = (int32_t *)(scratch + 2 * n), m.end = m.low + n;
    m.out = scratch + 4 * n;
    m.scores = m.out + n * a->v_dim;
    m.q = (uint16_t *)(m.scores + KEYS * ROWS);
    m.p = m.q + n * a->dim;
    m.values = (uint32_t *)(void *)(m.p + KEYS * ROWS);
    return m;
}

/* Keys as 32-bit numbers relative to the first of the cache, since lanes hold them. */
static void begin_many(const many *m, const attention *a) {
    int64_t n = padded(a->n_rows);
    memset(m->out, 0, (size_t)(n * a->v_dim) * sizeof *m->out);
    for (int64_t r = 0; r < n; r++) {
        m->max[r] = -INFINITY;
        m->sum[r] = 0;
        m->low[r] = r < a->n_rows ? (int32_t)a->seen[r].low : 0;
        m->end[r] = r < a->n_rows ? (int32_t)a->seen[r].end : 0;
        uint16_t *to = m->q + r / ROWS * ROWS * a->dim + r % ROWS * 2;
        for (int64_t d = 0; d < a->dim; d++)
            to[d / 2 * 2 * ROWS + d % 2] = r < a->n_rows ? f32_to_bf16(a->q[r * a->dim + d]) : 0;
    }
}

/* out[i][ROWS] (+)= sum over j of panel[j][ROWS] times pair j of output i, i < n <= OUTPUTS. Pair j of output
 * i is at x + i * stride + j * step, in bytes. */
INLINE void multiply_some(float *out, const uint16_t *panel, const char *x, int64_t stride, int64_t step,
                          int64_t n_pairs, bool add, int n) {
    __m512 sum[OUTPUTS][2];
    for (int i = 0; i < n; i++)
        for (int p = 0; p < 2; p++)
            sum[i][p] = add ? _mm512_loadu_ps(out + i * ROWS + p * LANES) : _mm512_setzero_ps();
    for (int64_t j = 0; j < n_pairs; j++, panel += 2 * ROWS, x += step) {
        __m512bh a = (__m512bh)_mm512_loadu_si512(panel), b = (__m512bh)_mm512_loadu_si512(panel + CHUNK);
        for (int i = 0; i < n; i++) {
            int32_t pair;
            memcpy(&pair, x + i * stride, sizeof pair);
            __m512bh y = (__m512bh)_mm512_set1_epi32(pair);
            sum[i][0] = _mm512_dpbf16_ps(sum[i][0], a, y);
            sum[i][1] = _mm512_dpbf16_ps(sum[i][1], b, y);
        }
    }
    for (int i = 0; i < n; i++)
        for (int p = 0; p < 2; p++) _mm512_storeu_ps(out + i * ROWS + p * LANES, sum[i][p]);
}

static void multiply(float *out, const uint16_t *panel, const void *x, int64_t stride, int64_t step,
                     int64_t n_pairs, bool add, int64_t n) {
    const char *from = x;
    for (; n >= OUTPUTS; n -= OUTPUTS, out += OUTPUTS * ROWS, from += OUTPUTS * stride)
        multiply_some(out, panel, from, stride, step, n_pairs, add, OUTPUTS);
    for (; n; n--, out += ROWS, from += stride)
        multiply_some(out, panel, from, stride, step, n_pairs, add, 1);
}

/* Values of keys 2 i and 2 i + 1 side by side; an odd last one is beside zeros. */
static void pair_values(uint32_t *out, const uint16_t *values, int64_t n, int64_t v_dim) {
    for (int64_t i = 0; i < n; i += 2, values += 2 * v_dim)
        for (int64_t d = 0; d < v_dim; d += LANES, out += LANES) {
            __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(values + d)));
            __m512i odd = _mm512_setzero_si512();
            if (i + 1 < n)
                odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(values + v_dim + d)));
            _mm512_storeu_si512(out, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
        }
}

/* Where rows do not see all keys of the block, their scores become -inf. */
static void mask_scores(const many *m, int64_t r, int64_t first, int64_t n) {
    __m512i low = _mm512_loadu_si512(m->low + r), end = _mm512_loadu_si512(m->end + r);
    float *scores = m->scores + r % ROWS;
    for (int64_t i = 0; i < n; i++, scores += ROWS) {
        __m512i key = _mm512_set1_epi32((int32_t)(first + i));
        __mmask16 unseen = _mm512_cmplt_epi32_mask(key, low) | _mm512_cmpge_epi32_mask(key, end);
        _mm512_mask_storeu_ps(scores, unseen, _mm512_set1_ps(-INFINITY));
    }
}

/* Scores of 16 rows from r on into probabilities; what the rows have so far is scaled to their new maximum.
 */
static void soften(const many *m, const attention *a, int64_t r, int64_t n) {
    const float *scores = m->scores + r % ROWS;
    uint16_t *p = m->p + r % ROWS * 2;
    float *out = m->out + r / ROWS * ROWS * a->v_dim + r % ROWS;
    __m512 before = _mm512_loadu_ps(m->max + r), max = before;
    for (int64_t i = 0; i < n; i++) max = _mm512_max_ps(max, _mm512_loadu_ps(scores + i * ROWS));
    __m512 shift = shift_of(max), sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 2, p += 2 * ROWS) {
        __m512 even = exp16(_mm512_sub_ps(_mm512_loadu_ps(scores + i * ROWS), shift));
        __m512 odd = _mm512_setzero_ps();
        if (i + 1 < n) odd = exp16(_mm512_sub_ps(_mm512_loadu_ps(scores + (i + 1) * ROWS), shift));
        sum = _mm512_add_ps(sum, _mm512_add_ps(even, odd));
        _mm512_storeu_si512(p, pairs_of(even, odd));
    }
    if (_mm512_cmp_ps_mask(before, max, _CMP_NEQ_UQ)) {
        __m512 old = exp16(_mm512_sub_ps(before, shift));
        sum = _mm512_fmadd_ps(_mm512_loadu_ps(m->sum + r), old, sum);
        for (int64_t d = 0; d < a->v_dim; d++, out += ROWS)
            _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_loadu_ps(out), old));
    } else {
        sum = _mm512_add_ps(_mm512_loadu_ps(m->sum + r), sum);
    }
    _mm512_storeu_ps(m->sum + r, sum);
    _mm512_storeu_ps(m->max + r, max);
}

/* ROWS rows from r on, over a block of n keys. */
static void block_many(const many *m, const attention *a, int64_t r, const uint16_t *keys, int64_t first,
                       int64_t n) {
    int64_t last = at_most(r + ROWS, a->n_rows) - 1;
    bool all = last - r + 1 == ROWS, any = false; /* rows' views grow or stay from row to row */
    all = all && m->low[last] <= first && m->end[r] >= first + n;
    any = m->end[last] > first && m->low[r] < first + n;
    if (!any) return;
    multiply(m->scores, m->q + r * a->dim, keys, a->dim * 2, 4, a->dim / 2, false, n);
    for (int64_t half = 0; half < ROWS; half += LANES) {
        if (!all) mask_scores(m, r + half, first, n);
        soften(m, a, r + half, n);
    }
    multiply(m->out + r * a->v_dim, m->p, m->values, 4, a->v_dim * 4, (n + 1) / 2, true, a->v_dim);
}

static void attend_many(const attention *a, float *scratch) {
    many m = carve(scratch, a);
    begin_many(&m, a);
    for (int64_t at = a->first; at < a->end; at += KEYS) {
        int64_t n = at_most(a->end - at, KEYS);
        pair_values(m.values, (const uint16_t *)a->values + at * a->v_dim, n, a->v_dim);
        for (int64_t r = 0; r < a->n_rows; r += ROWS)
            block_many(&m, a, r, (const uint16_t *)a->keys + at * a->dim, at, n);
    }
    for (int64_t r = 0; r < a->n_rows; r++) {
        a->state[r] = (softmax_state){m.max[r], m.sum[r]};
        const float *from = m.out + r / ROWS * ROWS * a->v_dim + r % ROWS;
        for (int64_t d = 0; d < a->v_dim; d++) a->out[r * a->v_dim + d] = from[d * ROWS];
    }
}

/* ---- few rows ---- */

/* The sums of the lanes of 4 vectors, in 4 lanes of 128 bits each: lane 0 + 1 + 2 + 3 is the result. */
INLINE __m512 fold4(const __m512 v[AT_ONCE]) {
    __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
}

INLINE __m128 sum4(__m512 folded) {
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(folded),
                                _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(folded), 1)));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/* scores[r * KEYS + k] of R rows and K keys. */
INLINE void score_tile(float *scores, const uint16_t *q, const uint16_t *keys, int64_t dim, int R, int K) {
    __m512 sum[AT_ONCE][AT_ONCE];
    for (int r = 0; r < R; r++)
        for (int k = 0; k < AT_ONCE; k++) sum[r][k] = _mm512_setzero_ps();
    for (int64_t d = 0; d < dim; d += CHUNK) {
        __m512bh key[AT_ONCE];
        for (int k = 0; k < K; k++) key[k] = (__m512bh)_mm512_loadu_si512(keys + k * dim + d);
        for (int r = 0; r < R; r++) {
            __m512bh row = (__m512bh)_mm512_loadu_si512(q + r * dim + d);
            for (int k = 0; k < K; k++) sum[r][k] = _mm512_dpbf16_ps(sum[r][k], row, key[k]);
        }
    }
    for (int r = 0; r < R; r++) {
        __m128 four = sum4(fold4(sum[r]));
        if (K == AT_ONCE)
            _mm_storeu_ps(scores + r * KEYS, four);
        else
            _mm_store_ss(scores + r * KEYS, four);
    }
}

INLINE void score_rows(float *scores, const uint16_t *q, const uint16_t *keys, int64_t n, int64_t dim,
                       int R) {
    int64_t k = 0;
    for (; k + AT_ONCE <= n; k += AT_ONCE) {
        for (int64_t byte = 0; byte < AT_ONCE * dim * 2; byte += 64)
            _mm_prefetch((const char *)(keys + k * dim) + AHEAD * 2 + byte, _MM_HINT_T0);
        score_tile(scores + k, q, keys + k * dim, dim, R, AT_ONCE);
    }
    for (; k < n; k++) score_tile(scores + k, q, keys + k * dim, dim, R, 1);
}

/* C chunks of R rows: out += probabilities times values. A register of two keys' values side by side holds
 * dimensions 0-3, 8-11, 16-19, 24-27 of a chunk, the other the rest; out keeps this order. */
INLINE void mix_tile(float *out, int64_t v_dim, const uint16_t *p, const uint16_t *values, int64_t n, int R,
                     int C) {
    __m512 sum[AT_ONCE][4];
    for (int r = 0; r < R; r++)
        for (int c = 0; c < 2 * C; c++) sum[r][c] = _mm512_loadu_ps(out + r * v_dim + c * LANES);
    for (int64_t k = 0; k < n; k += 2, values += 2 * v_dim) {
        __m512bh side[4];
        for (int c = 0; c < C; c++) {
            __m512i even = _mm512_loadu_si512(values + c * CHUNK), odd = _mm512_setzero_si512();
            if (k + 1 < n) odd = _mm512_loadu_si512(values + v_dim + c * CHUNK);
            _mm_prefetch((const char *)(values + c * CHUNK) + AHEAD * 2, _MM_HINT_T0);
            _mm_prefetch((const char *)(values + v_dim + c * CHUNK) + AHEAD * 2, _MM_HINT_T0);
            side[2 * c] = (__m512bh)_mm512_unpacklo_epi16(even, odd);
            side[2 * c + 1] = (__m512bh)_mm512_unpackhi_epi16(even, odd);
        }
        for (int r = 0; r < R; r++) {
            int32_t pair;
            memcpy(&pair, p + r * KEYS + k, sizeof pair);
            for (int c = 0; c < 2 * C; c++)
                sum[r][c] = _mm512_dpbf16_ps(sum[r][c], side[c], (__m512bh)_mm512_set1_epi32(pair));
        }
    }
    for (int r = 0; r < R; r++)
        for (int c = 0; c < 2 * C; c++) _mm512_storeu_ps(out + r * v_dim + c * LANES, sum[r][c]);
}

INLINE void mix_rows(float *out, int64_t v_dim, const uint16_t *p, const uint16_t *values, int64_t n, int R) {
    int64_t d = 0;
    for (; d + 2 * CHUNK <= v_dim; d += 2 * CHUNK) mix_tile(out + d, v_dim, p, values + d, n, R, 2);
    for (; d < v_dim; d += CHUNK) mix_tile(out + d, v_dim, p, values + d, n, R, 1);
}

/* One row's scores into probabilities, zeros where it sees nothing and beyond n. */
static void soften_row(float *scores, uint16_t *p, softmax_state *state, float *out, int64_t v_dim,
                       int64_t low, int64_t end, int64_t n) {
    __m512 most = _mm512_set1_ps(state->max), sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < KEYS; i++)
        if (i < low || i >= end || i >= n) scores[i] = -INFINITY;
    for (int i = 0; i < KEYS; i += LANES) most = _mm512_max_ps(most, _mm512_loadu_ps(scores + i));
    float max = _mm512_reduce_max_ps(most);
    __m512 shift = shift_of(_mm512_set1_ps(max));
    for (int i = 0; i < KEYS; i += CHUNK) {
        __m512 a = exp16(_mm512_sub_ps(_mm512_loadu_ps(scores + i), shift));
        __m512 b = exp16(_mm512_sub_ps(_mm512_loadu_ps(scores + i + LANES), shift));
        sum = _mm512_add_ps(sum, _mm512_add_ps(a, b));
        _mm512_storeu_si512(p + i, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    }
    if (max == state->max) {
        state->sum += _mm512_reduce_add_ps(sum);
        return;
    }
    float old = max == -INFINITY ? 0 : expf(state->max - max);
    state->sum = state->sum * old + _mm512_reduce_add_ps(sum);
    state->max = max;
    for (int64_t d = 0; d < v_dim; d++) out[d] *= old;
}

INLINE void block_few(const attention *a, const uint16_t *q, int64_t r, float *scores, uint16_t *p,
                      int64_t first, int64_t n, int R) {
    const uint16_t *keys = (const uint16_t *)a->keys + first * a->dim;
    float *out = a->out + r * a->v_dim;
    score_rows(scores, q + r * a->dim, keys, n, a->dim, R);
    for (int i = 0; i < R; i++)
        soften_row(scores + i * KEYS, p + i * KEYS, &a->state[r + i], out + i * a->v_dim, a->v_dim,
                   a->seen[r + i].low - first, a->seen[r + i].end - first, n);
    mix_rows(out, a->v_dim, p, (const uint16_t *)a->values + first * a->v_dim, n, R);
}

static void attend_few(const attention *a, float *scratch) {
    float *scores = scratch;
    uint16_t *p = (uint16_t *)(scores + AT_ONCE * KEYS), *q = p + AT_ONCE * KEYS;
    for (int64_t i = 0; i < a->n_rows * a->dim; i++) q[i] = f32_to_bf16(a->q[i]);
    for (int64_t r = 0; r < a->n_rows; r++) a->state[r] = (softmax_state){-INFINITY, 0};
    memset(a->out, 0, (size_t)(a->n_rows * a->v_dim) * sizeof *a->out);
    for (int64_t at = a->first; at < a->end; at += KEYS) {
        int64_t n = at_most(a->end - at, KEYS), r = 0;
        for (; r + AT_ONCE <= a->n_rows; r += AT_ONCE) block_few(a, q, r, scores, p, at, n, AT_ONCE);
        if (a->n_rows - r == 3) block_few(a, q, r, scores, p, at, n, 3);
        if (a->n_rows - r == 2) block_few(a, q, r, scores, p, at, n, 2);
        if (a->n_rows - r == 1) block_few(a, q, r, scores, p, at, n, 1);
    }
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    for (int64_t i = 0; i < a->n_rows * a->v_dim; i += CHUNK) { /* back into the order of dimensions */
        __m512 low = _mm512_loadu_ps(a->out + i), high = _mm512_loadu_ps(a->out + i + LANES);
        _mm512_storeu_ps(a->out + i, _mm512_permutex2var_ps(low, first, high));
        _mm512_storeu_ps(a->out + i + LANES, _mm512_permutex2var_ps(low, second, high));
    }
}

/* ---- either ---- */

static bool fits(dtype type, int64_t dim, int64_t v_dim) {
    return type == DTYPE_BF16 && dim % CHUNK == 0 && v_dim % CHUNK == 0;
}

static size_t scratch_bytes(int64_t n_rows, int64_t dim, int64_t v_dim) {
    size_t few = (size_t)(AT_ONCE * KEYS * 3 / 2 + n_rows * dim / 2), most = many_floats(n_rows, dim, v_dim);
    return (n_rows <= FEW_ROWS ? few : most) * sizeof(float);
}

static void attend_rows(const attention *a, void *scratch) {
    if (a->n_rows <= FEW_ROWS)
        attend_few(a, scratch);
    else
        attend_many(a, scratch);
}

const attention_kernels attention_bf16 = {
    .fits = fits, .scratch_bytes = scratch_bytes, .attend = attend_rows};
