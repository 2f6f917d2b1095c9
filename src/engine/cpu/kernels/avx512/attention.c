/* kernels/avx512/attention.c - attention for processors with AVX-512: entries are converted to F32 in
 * registers or, for many rows, once per block, and all query rows that share them are multiplied with them
 * there.
 *
 * Many query rows: a register holds 16 rows, and numbers of the cache are broadcast. Everything of the
 * softmax is then vertical, and nothing needs packing. Few rows, as in decode: a register holds 16
 * dimensions. Products of BF16 numbers (vdpbf16ps) are not used: they would round queries and probabilities,
 * and on Xeons they take twice as long as these (on Zen 4, half as long). */
#include "engine/cpu/kernels/avx512/avx512.h"

#include <math.h>

enum {
    KEYS = 64,   /* of a block: its keys, values and scores stay in the first caches */
    LANES = 16,  /* of a register */
    ROWS = 32,   /* query rows worked on at a time: two registers */
    OUTPUTS = 8, /* times two registers of rows: sums kept in registers */
    FEW_ROWS = 8,
    AT_ONCE = 4 /* rows, keys, and registers of values, of the products of few rows */
};

INLINE int64_t at_most(int64_t n, int64_t most) {
    return n < most ? n : most;
}

INLINE int64_t padded(int64_t n_rows) {
    return (n_rows + ROWS - 1) / ROWS * ROWS;
}

/* What to subtract before exp: rows that have seen nothing have the maximum -inf, and all their scores are.
 */
INLINE __m512 shift_of(__m512 max) {
    return _mm512_mask_mov_ps(max, _mm512_cmp_ps_mask(max, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ),
                              _mm512_setzero_ps());
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
    __m512 sum[OUTPUTS][2];
    for (int i = 0; i < n_out; i++)
        for (int p = 0; p < 2; p++)
            sum[i][p] = add ? _mm512_loadu_ps(out + i * ROWS + p * LANES) : _mm512_setzero_ps();
    for (int64_t j = 0; j < n; j++, panel += ROWS, x += step) {
        __m512 a = _mm512_loadu_ps(panel), b = _mm512_loadu_ps(panel + LANES);
        for (int i = 0; i < n_out; i++) {
            __m512 y = _mm512_set1_ps(x[i * stride]);
            sum[i][0] = _mm512_fmadd_ps(a, y, sum[i][0]);
            sum[i][1] = _mm512_fmadd_ps(b, y, sum[i][1]);
        }
    }
    for (int i = 0; i < n_out; i++)
        for (int p = 0; p < 2; p++) _mm512_storeu_ps(out + i * ROWS + p * LANES, sum[i][p]);
}

static void multiply(float *out, const float *panel, const float *x, int64_t stride, int64_t step, int64_t n,
                     bool add, int64_t n_out) {
    for (; n_out >= OUTPUTS; n_out -= OUTPUTS, out += OUTPUTS * ROWS, x += OUTPUTS * stride)
        multiply_some(out, panel, x, stride, step, n, add, OUTPUTS);
    for (; n_out; n_out--, out += ROWS, x += stride) multiply_some(out, panel, x, stride, step, n, add, 1);
}

/* n entries from key `first` on, as floats: in place, or in buffer. */
static const float *convert(float *buffer, const rows *w, int64_t first, int64_t n) {
    if (w->bits) {
        for (int64_t i = 0; i < n; i++) kernels_avx2.unpack(buffer + i * w->n, w, first + i);
        return buffer;
    }
    dtype type = w->dtype;
    const char *from = at(w->values, type, first * w->n);
    if (type == DTYPE_F32) return (const float *)(const void *)from;
    for (int64_t i = 0; i < n * w->n; i += LANES)
        _mm512_storeu_ps(buffer + i, type == DTYPE_F16 ? load16(from + i * 2, DTYPE_F16)
                                                       : load16(from + i * 2, DTYPE_BF16));
    return buffer;
}

/* Where rows do not see all keys of the block, their scores become -inf. */
static void mask_scores(const many *m, int64_t r, int64_t first, int64_t n) {
    __m512i low = _mm512_loadu_si512(m->low + r), end = _mm512_loadu_si512(m->end + r);
    float *scores = m->scores + r % ROWS;
    for (int64_t i = 0; i < n; i++, scores += ROWS) {
        __m512i key = _mm512_set1_epi32((int32_t)(first + i));
        __mmask16 unseen = _mm512_cmplt_epi32_mask(key, low) | _mm512_cmpge_epi32_mask(key, end);
        __m512 score = _mm512_loadu_ps(scores); /* a masked store would hold up the loads that follow */
        _mm512_storeu_ps(scores, _mm512_mask_mov_ps(score, unseen, _mm512_set1_ps(-INFINITY)));
    }
}

/* Scores of 16 rows from r on into probabilities; what the rows have so far is scaled to their new maximum.
 */
static void soften(const many *m, const attention *a, int64_t r, int64_t n) {
    float *scores = m->scores + r % ROWS, *out = m->out + r / ROWS * ROWS * a->v_dim + r % ROWS;
    __m512 before = _mm512_loadu_ps(m->max + r), max = before;
    for (int64_t i = 0; i < n; i++) max = _mm512_max_ps(max, _mm512_loadu_ps(scores + i * ROWS));
    __m512 shift = shift_of(max), sum = _mm512_setzero_ps(), old = exp16(_mm512_sub_ps(before, shift));
    for (int64_t i = 0; i < n; i++) {
        __m512 p = exp16(_mm512_sub_ps(_mm512_loadu_ps(scores + i * ROWS), shift));
        _mm512_storeu_ps(scores + i * ROWS, p);
        sum = _mm512_add_ps(sum, p);
    }
    _mm512_storeu_ps(m->sum + r, _mm512_fmadd_ps(_mm512_loadu_ps(m->sum + r), old, sum));
    _mm512_storeu_ps(m->max + r, max);
    bool same = !_mm512_cmp_ps_mask(before, max, _CMP_NEQ_UQ);
    for (int64_t d = 0; d < a->v_dim && !same; d++, out += ROWS)
        _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_loadu_ps(out), old));
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

/* 32 numbers of BF16 are two registers, those of even and those of odd dimensions, since a shift
 * and a mask make floats of them; widening 16 in a row takes two instructions for each. */
INLINE int together(dtype type) {
    return type == DTYPE_BF16 ? 2 : 1;
}

/* Register c of the numbers from p on. */
INLINE __m512 load_part(const char *p, dtype type, int c) {
    if (type != DTYPE_BF16) return load16(at(p, type, c * LANES), type);
    __m512i pairs = _mm512_loadu_si512(at(p, type, c / 2 * 2 * LANES));
    return _mm512_castsi512_ps(c % 2 ? _mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000))
                                     : _mm512_slli_epi32(pairs, 16));
}

/* n floats from their natural order to that of BF16's registers, or back; to may be from. */
INLINE void reorder(float *to, const float *from, int64_t n, bool back) {
    __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i first = _mm512_slli_epi32(lanes, 1), second = _mm512_add_epi32(first, _mm512_set1_epi32(1));
    if (back) { /* lane l: number l / 2 of the one or, from 16 on, of the other */
        first = _mm512_add_epi32(_mm512_srli_epi32(lanes, 1),
                                 _mm512_slli_epi32(_mm512_and_si512(lanes, _mm512_set1_epi32(1)), 4));
        second = _mm512_add_epi32(first, _mm512_set1_epi32(LANES / 2));
    }
    for (int64_t i = 0; i < n; i += 2 * LANES) {
        __m512 a = _mm512_loadu_ps(from + i), b = _mm512_loadu_ps(from + i + LANES);
        _mm512_storeu_ps(to + i, _mm512_permutex2var_ps(a, first, b));
        _mm512_storeu_ps(to + i + LANES, _mm512_permutex2var_ps(a, second, b));
    }
}

/* scores[r * KEYS + k] of R rows and K keys. */
INLINE void score_tile(float *scores, const float *q, const char *keys, int64_t ahead, dtype type,
                       int64_t dim, int R, int K) {
    __m512 sum[AT_ONCE][AT_ONCE];
    for (int r = 0; r < R; r++)
        for (int k = 0; k < AT_ONCE; k++) sum[r][k] = _mm512_setzero_ps();
    for (int64_t d = 0; d < dim; d += together(type) * LANES) {
        for (int c = 0; c < together(type); c++) {
            __m512 key[AT_ONCE];
            for (int k = 0; k < K; k++) {
                const char *p = at(keys, type, k * dim + d);
                if (type != DTYPE_F16 ? c == 0 : d % 32 == 0) _mm_prefetch(p + ahead, _MM_HINT_T0);
                key[k] = load_part(p, type, c);
            }
            for (int r = 0; r < R; r++) {
                __m512 row = _mm512_loadu_ps(q + r * dim + d + c * LANES);
                for (int k = 0; k < K; k++) sum[r][k] = _mm512_fmadd_ps(row, key[k], sum[r][k]);
            }
        }
    }
    for (int r = 0; r < R; r++) {
        __m128 four = sum16x4(sum[r]);
        if (K == AT_ONCE)
            _mm_storeu_ps(scores + r * KEYS, four);
        else
            _mm_store_ss(scores + r * KEYS, four);
    }
}

INLINE void score_rows(float *scores, const float *q, const char *keys, int64_t ahead, dtype type, int64_t n,
                       int64_t dim, int R) {
    int64_t k = 0;
    for (; k + AT_ONCE <= n; k += AT_ONCE)
        score_tile(scores + k, q, at(keys, type, k * dim), ahead, type, dim, R, AT_ONCE);
    for (; k < n; k++) score_tile(scores + k, q, at(keys, type, k * dim), ahead, type, dim, R, 1);
}

/* C registers of R rows: out += probabilities times values. */
INLINE void mix_tile(float *out, int64_t v_dim, const float *p, const char *values, int64_t ahead, dtype type,
                     int64_t n, int R, int C) {
    __m512 sum[AT_ONCE][AT_ONCE];
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) sum[r][c] = _mm512_loadu_ps(out + r * v_dim + c * LANES);
    for (int64_t k = 0; k < n; k++, values = at(values, type, v_dim)) {
        __m512 value[AT_ONCE];
        for (int c = 0; c < C; c++) value[c] = load_part(values, type, c);
        for (int c = 0; c < C; c += 2) _mm_prefetch(at(values, type, c * LANES) + ahead, _MM_HINT_T0);
        for (int r = 0; r < R; r++) {
            __m512 share = _mm512_set1_ps(p[r * KEYS + k]);
            for (int c = 0; c < C; c++) sum[r][c] = _mm512_fmadd_ps(value[c], share, sum[r][c]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) _mm512_storeu_ps(out + r * v_dim + c * LANES, sum[r][c]);
}

INLINE void mix_rows(float *out, int64_t v_dim, const float *p, const char *values, int64_t ahead, dtype type,
                     int64_t n, int R) {
    int64_t d = 0;
    for (; d + AT_ONCE * LANES <= v_dim; d += AT_ONCE * LANES)
        mix_tile(out + d, v_dim, p, at(values, type, d), ahead, type, n, R, AT_ONCE);
    for (; d < v_dim; d += together(type) * LANES)
        mix_tile(out + d, v_dim, p, at(values, type, d), ahead, type, n, R, together(type));
}

/* One row's scores into probabilities, zeros where it sees nothing and beyond n. */
static void soften_row(float *scores, softmax_state *state, float *out, int64_t v_dim, int64_t low,
                       int64_t end, int64_t n) {
    __m512 most = _mm512_set1_ps(state->max), sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < KEYS && (low > 0 || end < KEYS || n < KEYS); i++)
        if (i < low || i >= end || i >= n) scores[i] = -INFINITY;
    for (int i = 0; i < KEYS; i += LANES) most = _mm512_max_ps(most, _mm512_loadu_ps(scores + i));
    float max = _mm512_reduce_max_ps(most);
    __m512 shift = shift_of(_mm512_set1_ps(max));
    for (int i = 0; i < KEYS; i += LANES) {
        __m512 p = exp16(_mm512_sub_ps(_mm512_loadu_ps(scores + i), shift));
        _mm512_storeu_ps(scores + i, p);
        sum = _mm512_add_ps(sum, p);
    }
    float old = state->max == max ? 1 : expf(state->max - max);
    state->sum = state->sum * old + _mm512_reduce_add_ps(sum);
    state->max = max;
    for (int64_t d = 0; d < v_dim && old != 1; d++) out[d] *= old;
}

/* A block's entries, and the bytes to what is fetched meanwhile (jump_ahead). */
typedef struct block {
    const void *keys, *values;
    int64_t keys_ahead, values_ahead;
} block;

INLINE void block_few(const attention *a, const float *q, int64_t r, float *scores, const block *b,
                      int64_t first, int64_t n, dtype type, int R) {
    float *out = a->out + r * a->v_dim;
    score_rows(scores, q + r * a->dim, b->keys, b->keys_ahead, type, n, a->dim, R);
    for (int i = 0; i < R; i++)
        soften_row(scores + i * KEYS, &a->state[r + i], out + i * a->v_dim, a->v_dim,
                   a->seen[r + i].low - first, a->seen[r + i].end - first, n);
    mix_rows(out, a->v_dim, scores, b->values, b->values_ahead, type, n, R);
}

/* type: of the entries as they are multiplied; where they are not stored so, they are converted to F32 block
 * by block. */
INLINE void attend_few(const attention *a, float *scores, dtype type) {
    float *key_buffer = scores + AT_ONCE * KEYS, *value_buffer = key_buffer + KEYS * a->dim;
    float *ordered = value_buffer + KEYS * a->v_dim;
    const float *q = together(type) > 1 ? ordered : a->q;
    if (q == ordered) reorder(ordered, a->q, a->n_rows * a->dim, false);
    for (int64_t r = 0; r < a->n_rows; r++) a->state[r] = (softmax_state){-INFINITY, 0};
    memset(a->out, 0, (size_t)(a->n_rows * a->v_dim) * sizeof *a->out);
    for (int64_t first = a->first; first < a->end; first += KEYS) {
        int64_t n = at_most(a->end - first, KEYS), r = 0;
        block b;
        if (a->keys.bits || a->keys.dtype != type) {
            b = (block){.keys = convert(key_buffer, &a->keys, first, n),
                        .values = convert(value_buffer, &a->values, first, n)};
        } else {
            b = (block){at(a->keys.values, type, first * a->dim),
                        at(a->values.values, type, first * a->v_dim),
                        jump_ahead(a, &a->keys, first, KEYS, a->next_keys),
                        jump_ahead(a, &a->values, first, KEYS, a->next_values)};
        }
        for (; r + AT_ONCE <= a->n_rows; r += AT_ONCE)
            block_few(a, q, r, scores, &b, first, n, type, AT_ONCE);
        if (a->n_rows - r == 3) block_few(a, q, r, scores, &b, first, n, type, 3);
        if (a->n_rows - r == 2) block_few(a, q, r, scores, &b, first, n, type, 2);
        if (a->n_rows - r == 1) block_few(a, q, r, scores, &b, first, n, type, 1);
    }
    if (q == ordered) reorder(a->out, a->out, a->n_rows * a->v_dim, true);
}

/* ---- either ---- */

static bool fits(int64_t dim, int64_t v_dim) {
    return dim % LANES == 0 && v_dim % LANES == 0;
}

static size_t scratch_bytes(int64_t n_rows, int64_t dim, int64_t v_dim) {
    int64_t few = KEYS * (AT_ONCE + dim + v_dim) + FEW_ROWS * dim;
    return (n_rows <= FEW_ROWS ? (size_t)few : many_floats(n_rows, dim, v_dim)) * sizeof(float);
}

static void attend_rows(const attention *a, void *scratch) {
    if (a->n_rows > FEW_ROWS)
        attend_many(a, scratch);
    else if (!a->keys.bits && a->keys.dtype == DTYPE_F16)
        attend_few(a, scratch, DTYPE_F16);
    else if (!a->keys.bits && a->keys.dtype == DTYPE_BF16 && a->dim % 32 == 0 && a->v_dim % 32 == 0)
        attend_few(a, scratch, DTYPE_BF16);
    else
        attend_few(a, scratch, DTYPE_F32);
}

const attention_kernels attention_avx512 = {
    .fits = fits, .scratch_bytes = scratch_bytes, .attend = attend_rows};
