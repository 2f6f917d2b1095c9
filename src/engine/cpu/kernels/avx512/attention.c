/* kernels/avx512/attention.c - attention for processors with AVX-512: entries are converted to F32
 * in registers or, for many rows, once per block (the template's), and all query rows that share
 * them are multiplied with them there. For few rows, as in decode, a register holds 16 dimensions.
 * Products of BF16 numbers (vdpbf16ps) are not used: they would round queries and probabilities,
 * and on Xeons they take twice as long as these (on Zen 4, half as long). */
#include "engine/cpu/kernels/avx512/exp.h"

enum {
    KEYS = 64,
    OUTPUTS = 8,
    FEW_ROWS = 8,
    AT_ONCE = 4 /* rows, keys, and registers of values, of the products of few rows */
};

INLINE vec exp_negative(vec x) {
    return exp_most(x);
}

/* n entries from key `first` on, as floats: in place, or in buffer. */
static const float *convert(float *buffer, const rows *w, int64_t first, int64_t n) {
    if (w->bits) {
        for (int64_t i = 0; i < n; i++)
            kernels_avx2.of[MATRIX_AFFINE].unpack(buffer + i * w->n, w, first + i);
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

#include "engine/cpu/kernels/templates/attention.h"
#include "engine/cpu/kernels/templates/softmax.h"

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

/* type: of the entries as they are multiplied; where they are not stored so, they are converted to
 * F32 block by block. */
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
