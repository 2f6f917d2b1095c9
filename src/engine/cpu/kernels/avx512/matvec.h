/* kernels/avx512/matvec.h - quantized rows times one token, for any form of the token: a template.
 * The including file defines what a block of columns is, at most 16 groups and at least a quarter
 * of one:
 *   block_width(bits)   its columns
 *   block_bytes(f)      what it takes of a prepared token
 *   dot_block(dots, R, packed, apart, n_bytes, x, f)
 *       dots[k]: the block of the row at packed + k * apart times the token's, k < R <= RUNS, in 16
 *       lanes of 32 bits: lane i is of columns i * width / 16 and on, or, where a block lies in one
 *       group, of any. Of a block's bytes, n_bytes exist.
 *   add_dots(a, b), dots_to_floats(a)
 *       sums of such lanes, whatever numbers they are, and what they are as floats
 *   scales_of(w, i, n, f), biases_of(w, i, n, f)
 *       what is multiplied with a group's dot product and with the sum of its activations, of
 *       groups i and on, of which n exist, at most 16, then zeros
 *   has_biases(f)
 *       whether there are biases */
#include "engine/cpu/kernels/avx512/avx512.h"

/* Rows are read from several places at once, each in order: the processor prefetches one stream per
 * page, and more streams use more of the memory's bandwidth. It stops at a page's end, so weights
 * are also fetched AHEAD bytes ahead. Scales are applied for 16 groups at once. */
enum { AHEAD = 512, CHUNK_GROUPS = 16 };

/* A prepared token: scales of the groups, their sums, both padded to 16; then the blocks. */
INLINE int64_t padded_groups(const rows *w) {
    return round_up(w->n / w->group_size, CHUNK_GROUPS);
}

INLINE size_t prepared_size(const rows *w, int64_t block_size) {
    int64_t width = block_width(w->bits);
    return (size_t)(2 * padded_groups(w)) * sizeof(float) + (size_t)((w->n + width - 1) / width * block_size);
}

/* A prepared token, and of each lane of a block's product the group, counted from the block's
 * first. */
typedef struct token {
    const float *scales, *sums;
    const char *values;
    __m512i lanes;
    unsigned log2_group;
} token;

INLINE token token_at(const void *prepared, const rows *w, int bits) {
    const float *scales = prepared;
    token t = {scales, scales + padded_groups(w), (const char *)(scales + 2 * padded_groups(w)),
               .log2_group = (unsigned)__builtin_ctz((unsigned)w->group_size)};
    __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    t.lanes =
        _mm512_srli_epi32(lanes, t.log2_group + 4 - (unsigned)__builtin_ctz((unsigned)block_width(bits)));
    return t;
}

/* total[k] += n columns of the row at packed + k * apart bytes times those of the token at x; group
 * g of these columns has its scale in lane g of scale[k]. */
INLINE void dot_blocks(__m512 total[RUNS], const __m512 scale[RUNS], const token *t, const uint8_t *packed,
                       const char *x, int64_t n, form f, int R, int64_t apart) {
    int64_t width = block_width(f.bits), bytes = width * f.bits / 8;
    for (int64_t c = 0; c < n; c += width, x += block_bytes(f), packed += bytes) {
        __m512i group = _mm512_add_epi32(t->lanes, _mm512_set1_epi32((int)(c >> t->log2_group)));
        __m512i dots[RUNS];
        for (int k = 0; k < R; k++) _mm_prefetch((const char *)packed + k * apart + AHEAD, _MM_HINT_T0);
        dot_block(dots, R, packed, apart, (n - c) * f.bits / 8, x, f);
        for (int k = 0; k < R; k++)
            total[k] =
                _mm512_fmadd_ps(dots_to_floats(dots[k]), _mm512_permutexvar_ps(group, scale[k]), total[k]);
    }
}

INLINE void store_sums(float *y, int64_t apart, const __m512 total[RUNS], int R) {
    float sums[4];
    _mm_storeu_ps(sums, sum16x4(total));
    for (int k = 0; k < R; k++) y[k * apart] = sums[k];
}

/* y[k * apart] = dot(row r + k * apart, x) for k < R. */
INLINE void dot_rows(float *y, const rows *w, int64_t r, const token *t, form f, int R, int64_t apart) {
    int bits = f.bits;
    int64_t groups = w->n / w->group_size, row_bytes = w->n * bits / 8, part = CHUNK_GROUPS * w->group_size;
    const char *x = t->values;
    __m512 total[RUNS], scale[RUNS];
    for (int k = 0; k < RUNS; k++) total[k] = _mm512_setzero_ps();
    for (int64_t g = 0, first = 0; g < groups; g += CHUNK_GROUPS, first += part) {
        for (int k = 0; k < R; k++) {
            int64_t place = (r + k * apart) * groups + g;
            scale[k] = _mm512_mul_ps(scales_of(w, place, groups - g, f), _mm512_load_ps(t->scales + g));
            if (!has_biases(f)) continue;
            __m512 bias = biases_of(w, place, groups - g, f);
            total[k] = _mm512_fmadd_ps(bias, _mm512_load_ps(t->sums + g), total[k]);
        }
        const uint8_t *packed = (const uint8_t *)w->values + r * row_bytes + first * bits / 8;
        dot_blocks(total, scale, t, packed, x, w->n - first < part ? w->n - first : part, f, R,
                   apart * row_bytes);
        x += part / block_width(bits) * block_bytes(f);
    }
    store_sums(y, apart, total, R);
}

/* 4-bit rows of 256 columns in 4 groups, as embeddings of small models have them, are so short that
 * scales and sums cost as much as products. So lanes of 4 rows, one after another, are added up
 * before they are scaled: then 4 rows by 4 groups fill a register. */
enum { SHORT_ROWS = 4, SHORT_GROUPS = 4, SHORT_BLOCKS = 2 };

/* Lanes 4 i and on: the sums of pairs of a's, then of b's. */
INLINE __m512i add_pairs(__m512i a, __m512i b) {
    __m512 x = _mm512_castsi512_ps(a), y = _mm512_castsi512_ps(b);
    return add_dots(_mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88)),
                    _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd)));
}

/* Scales, or biases, of 4 short rows: lane 4 g + i has that of row i's group g. */
INLINE __m512 short_scales(const void *scales, const rows *w, int64_t r) {
    __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_ps(order, load16(at(scales, w->dtype, r * SHORT_GROUPS), w->dtype));
}

/* y[i] = dot(row r + i, x) for i < SHORT_ROWS. x_scales, x_sums: of the token, lane 4 g + i has
 * group g's. */
INLINE void dot_short_rows(float *y, const rows *w, int64_t r, const token *t, __m512 x_scales, __m512 x_sums,
                           form f) {
    const uint8_t *packed = (const uint8_t *)w->values + r * SHORT_BLOCKS * 64;
    __m512i half[SHORT_BLOCKS];
    for (int b = 0; b < SHORT_BLOCKS; b++) {
        __m512i dot[SHORT_ROWS];
        const uint8_t *q = packed + b * 64;
        for (int i = 0; i < SHORT_ROWS; i++)
            _mm_prefetch((const char *)q + i * SHORT_BLOCKS * 64 + AHEAD, _MM_HINT_T0);
        dot_block(dot, SHORT_ROWS, q, SHORT_BLOCKS * 64, 64, t->values + b * block_bytes(f), f);
        half[b] = add_pairs(add_pairs(dot[0], dot[1]), add_pairs(dot[2], dot[3]));
    }
    __m512i all =
        add_dots(_mm512_shuffle_i32x4(half[0], half[1], 0x88), _mm512_shuffle_i32x4(half[0], half[1], 0xdd));
    __m512 sums = _mm512_mul_ps(short_scales(w->biases, w, r), x_sums);
    sums = _mm512_fmadd_ps(dots_to_floats(all), _mm512_mul_ps(short_scales(w->scales, w, r), x_scales), sums);
    __m256 two = _mm256_add_ps(_mm512_castps512_ps256(sums), _mm512_extractf32x8_ps(sums, 1));
    _mm_storeu_ps(y, _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1)));
}

INLINE bool is_short(const rows *w) {
    return w->bits == 4 && w->group_size == 64 && w->n == SHORT_GROUPS * 64;
}

/* Runs of short rows; returns the first row of each run that is left. */
INLINE int64_t dot_short_runs(float *y, const rows *w, runs rs, const token *t, form f) {
    __m512i group =
        _mm512_srli_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 2);
    __m512 x_scales = _mm512_permutexvar_ps(group, _mm512_load_ps(t->scales));
    __m512 x_sums = _mm512_permutexvar_ps(group, _mm512_load_ps(t->sums));
    int64_t r = rs.first;
    for (; r + SHORT_ROWS <= rs.end; r += SHORT_ROWS)
        for (int k = 0; k < count_runs(rs); k++)
            dot_short_rows(y + r + k * rs.apart, w, r + k * rs.apart, t, x_scales, x_sums, f);
    return r;
}

INLINE void matvec_of(float *y, const rows *w, runs rs, const void *prepared, form f) {
    int64_t r = rs.first;
    token t = token_at(prepared, w, f.bits);
    fetch_runs(w, rs, AHEAD);
    if (f.bits == 4 && f.kind == MATRIX_AFFINE && is_short(w)) r = dot_short_runs(y, w, rs, &t, f);
    for (; r < rs.end && rs.apart; r++) dot_rows(y + r, w, r, &t, f, RUNS, rs.apart);
    for (; r < rs.end; r++) dot_rows(y + r, w, r, &t, f, 1, 0);
}

INLINE void matvec_affine(float *y, const rows *w, runs rs, const void *x, bool words) {
    switch (w->bits) {
    case 1:
        matvec_of(y, w, rs, x, (form){MATRIX_AFFINE, 1, words});
        break;
    case 2:
        matvec_of(y, w, rs, x, (form){MATRIX_AFFINE, 2, words});
        break;
    case 3:
        matvec_of(y, w, rs, x, (form){MATRIX_AFFINE, 3, words});
        break;
    case 4:
        matvec_of(y, w, rs, x, (form){MATRIX_AFFINE, 4, words});
        break;
    case 5:
        matvec_of(y, w, rs, x, (form){MATRIX_AFFINE, 5, words});
        break;
    case 6:
        matvec_of(y, w, rs, x, (form){MATRIX_AFFINE, 6, words});
        break;
    case 8:
        matvec_of(y, w, rs, x, (form){MATRIX_AFFINE, 8, words});
        break;
    }
}
