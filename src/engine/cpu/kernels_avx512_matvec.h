/* kernels_avx512_matvec.h - affine rows times one token, for any form of the token: a template.
 * The including file defines what a block of columns is, at most 16 groups and at least a quarter of one:
 *   block_width(bits)             its columns
 *   block_bytes(bits, words)      what it takes of a prepared token
 *   dot_block(packed, n_bytes, x, bits, words)
 *       a row's block times the token's, in 16 lanes: lane i is of columns i * width / 16 and on, or, where a
 *       block lies in one group, of any. Of the packed bytes, n_bytes exist.
 * `words` is a constant for the including file's use. */
#include "engine/cpu/kernels_avx512.h"

/* Rows are read from several places at once, each in order: the processor prefetches one stream per page, and
 * more streams use more of the memory's bandwidth. It stops at a page's end, so weights are also fetched
 * AHEAD bytes ahead. Scales are applied for 16 groups at once. */
enum { ROWS_AT_ONCE = 4, AHEAD = 1024, CHUNK_GROUPS = 16 };

/* A prepared token: scales of the groups, their sums, both padded to 16; then the blocks. */
INLINE int64_t padded_groups(const rows *w) {
    return round_up(w->n / w->group_size, CHUNK_GROUPS);
}

INLINE size_t prepared_size(const rows *w, int64_t block_size) {
    int64_t width = block_width(w->bits);
    return (size_t)(2 * padded_groups(w)) * sizeof(float) + (size_t)((w->n + width - 1) / width * block_size);
}

/* y[k * apart] = dot(row r + k * apart, x) for k < R. */
INLINE void dot_rows(float *y, const rows *w, int64_t r, const void *prepared, int bits, bool words, int R,
                     int64_t apart) {
    int64_t group_size = w->group_size, groups = w->n / group_size, row_bytes = w->n * bits / 8,
            padded = padded_groups(w);
    int64_t width = block_width(bits), bytes = width * bits / 8;
    const float *scales = prepared, *sums = scales + padded;
    const char *x = (const char *)(sums + padded);
    const uint8_t *packed = (const uint8_t *)w->values + r * row_bytes;
    /* the group of each lane's columns, counted from the block's first */
    __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    unsigned log2_group = (unsigned)__builtin_ctz((unsigned)group_size);
    lanes = _mm512_srli_epi32(lanes, log2_group + 4 - (unsigned)__builtin_ctz((unsigned)width));
    __m512 total[ROWS_AT_ONCE], scale[ROWS_AT_ONCE];
    for (int k = 0; k < R; k++) total[k] = _mm512_setzero_ps();
    for (int64_t g = 0; g < groups; g += CHUNK_GROUPS) {
        int64_t first = g * group_size, end = first + CHUNK_GROUPS * group_size;
        end = end < w->n ? end : w->n;
        for (int k = 0; k < R; k++) {
            int64_t at_group = (r + k * apart) * groups + g;
            scale[k] = _mm512_mul_ps(load_some(at(w->scales, w->dtype, at_group), w->dtype, groups - g),
                                     _mm512_load_ps(scales + g));
            total[k] = _mm512_fmadd_ps(load_some(at(w->biases, w->dtype, at_group), w->dtype, groups - g),
                                       _mm512_load_ps(sums + g), total[k]);
        }
        for (int64_t c = first; c < end; c += width, x += block_bytes(bits, words), packed += bytes) {
            __m512i group = _mm512_add_epi32(lanes, _mm512_set1_epi32((int)((c - first) >> log2_group)));
            for (int k = 0; k < R; k++) {
                const uint8_t *q = packed + k * apart * row_bytes;
                _mm_prefetch((const char *)q + AHEAD, _MM_HINT_T0);
                __m512 dot = dot_block(q, (end - c) * bits / 8, x, bits, words);
                total[k] = _mm512_fmadd_ps(dot, _mm512_permutexvar_ps(group, scale[k]), total[k]);
            }
        }
    }
    for (int k = 0; k < R; k++) y[k * apart] = _mm512_reduce_add_ps(total[k]);
}

INLINE void matvec_of(float *y, const rows *w, int64_t first, int64_t end, const void *x, int bits,
                      bool words) {
    int64_t apart = (end - first) / ROWS_AT_ONCE, r = first;
    for (; r < first + apart; r++) dot_rows(y + r, w, r, x, bits, words, ROWS_AT_ONCE, apart);
    for (r = first + ROWS_AT_ONCE * apart; r < end; r++) dot_rows(y + r, w, r, x, bits, words, 1, 0);
}

INLINE void matvec(float *y, const rows *w, int64_t first, int64_t end, const void *x, bool words) {
    switch (w->bits) {
    case 2:
        matvec_of(y, w, first, end, x, 2, words);
        break;
    case 3:
        matvec_of(y, w, first, end, x, 3, words);
        break;
    case 4:
        matvec_of(y, w, first, end, x, 4, words);
        break;
    case 5:
        matvec_of(y, w, first, end, x, 5, words);
        break;
    case 6:
        matvec_of(y, w, first, end, x, 6, words);
        break;
    case 8:
        matvec_of(y, w, first, end, x, 8, words);
        break;
    }
}
