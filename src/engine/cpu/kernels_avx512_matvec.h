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
enum { AHEAD = 512, CHUNK_GROUPS = 16 };

/* A prepared token: scales of the groups, their sums, both padded to 16; then the blocks. */
INLINE int64_t padded_groups(const rows *w) {
    return round_up(w->n / w->group_size, CHUNK_GROUPS);
}

INLINE size_t prepared_size(const rows *w, int64_t block_size) {
    int64_t width = block_width(w->bits);
    return (size_t)(2 * padded_groups(w)) * sizeof(float) + (size_t)((w->n + width - 1) / width * block_size);
}

/* A prepared token, and of each lane of a block's product the group, counted from the block's first. */
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

/* total[k] += n columns of the row at packed + k * apart bytes times those of the token at x; group g of
 * these columns has its scale in lane lane + g of scale[k]. */
INLINE void dot_blocks(__m512 total[RUNS], const __m512 scale[RUNS], const token *t, const uint8_t *packed,
                       const char *x, int64_t n, int64_t lane, int bits, bool words, int R, int64_t apart) {
    int64_t width = block_width(bits), bytes = width * bits / 8;
    for (int64_t c = 0; c < n; c += width, x += block_bytes(bits, words), packed += bytes) {
        __m512i group = _mm512_add_epi32(t->lanes, _mm512_set1_epi32((int)(lane + (c >> t->log2_group))));
        for (int k = 0; k < R; k++) {
            const uint8_t *q = packed + k * apart;
            _mm_prefetch((const char *)q + AHEAD, _MM_HINT_T0);
            __m512 dot = dot_block(q, (n - c) * bits / 8, x, bits, words);
            total[k] = _mm512_fmadd_ps(dot, _mm512_permutexvar_ps(group, scale[k]), total[k]);
        }
    }
}

INLINE void store_sums(float *y, int64_t apart, const __m512 total[RUNS], int R) {
    float sums[4];
    _mm_storeu_ps(sums, sum16x4(total));
    for (int k = 0; k < R; k++) y[k * apart] = sums[k];
}

/* y[k * apart] = dot(row r + k * apart, x) for k < R. */
INLINE void dot_rows(float *y, const rows *w, int64_t r, const token *t, int bits, bool words, int R,
                     int64_t apart) {
    int64_t groups = w->n / w->group_size, row_bytes = w->n * bits / 8, part = CHUNK_GROUPS * w->group_size;
    const char *x = t->values;
    __m512 total[RUNS], scale[RUNS];
    for (int k = 0; k < RUNS; k++) total[k] = _mm512_setzero_ps();
    for (int64_t g = 0, first = 0; g < groups; g += CHUNK_GROUPS, first += part) {
        for (int k = 0; k < R; k++) {
            int64_t place = (r + k * apart) * groups + g;
            const char *s = at(w->scales, w->dtype, place), *b = at(w->biases, w->dtype, place);
            scale[k] = _mm512_mul_ps(load_some(s, w->dtype, groups - g), _mm512_load_ps(t->scales + g));
            total[k] =
                _mm512_fmadd_ps(load_some(b, w->dtype, groups - g), _mm512_load_ps(t->sums + g), total[k]);
        }
        const uint8_t *packed = (const uint8_t *)w->values + r * row_bytes + first * bits / 8;
        dot_blocks(total, scale, t, packed, x, w->n - first < part ? w->n - first : part, 0, bits, words, R,
                   apart * row_bytes);
        x += part / block_width(bits) * block_bytes(bits, words);
    }
    store_sums(y, apart, total, R);
}

/* Rows of 1, 2, 4 or 8 groups: those of the next rows fill the register, and are converted with them.
 * y[i + k * apart] = dot(row r + i + k * apart, x) for i < 16 / groups, k < RUNS. */
INLINE void dot_short_rows(float *y, const rows *w, int64_t r, const token *t, int bits, bool words,
                           int64_t apart) {
    int64_t groups = w->n / w->group_size, row_bytes = w->n * bits / 8;
    __m512i place = _mm512_and_si512(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                     _mm512_set1_epi32((int)groups - 1));
    __m512 scales = _mm512_permutexvar_ps(place, _mm512_load_ps(t->scales));
    __m512 sums = _mm512_permutexvar_ps(place, _mm512_load_ps(t->sums));
    __m512 total[RUNS], scale[RUNS], bias[RUNS];
    for (int k = 0; k < RUNS; k++) {
        int64_t from = (r + k * apart) * groups;
        scale[k] = _mm512_mul_ps(load16(at(w->scales, w->dtype, from), w->dtype), scales);
        bias[k] = _mm512_mul_ps(load16(at(w->biases, w->dtype, from), w->dtype), sums);
    }
    const uint8_t *packed = (const uint8_t *)w->values + r * row_bytes;
    for (int64_t lane = 0; lane < CHUNK_GROUPS; lane += groups, packed += row_bytes, y++) {
        __mmask16 own = (__mmask16)(first_lanes(groups) << lane);
        for (int k = 0; k < RUNS; k++) total[k] = _mm512_maskz_mov_ps(own, bias[k]);
        dot_blocks(total, scale, t, packed, t->values, w->n, lane, bits, words, RUNS, apart * row_bytes);
        store_sums(y, apart, total, RUNS);
    }
}

INLINE void matvec_of(float *y, const rows *w, runs rs, const void *prepared, int bits, bool words) {
    int64_t r = rs.first, groups = w->n / w->group_size;
    token t = token_at(prepared, w, bits);
    fetch_runs(w, rs, AHEAD);
    bool is_short = groups < CHUNK_GROUPS && CHUNK_GROUPS % groups == 0 && w->n % block_width(bits) == 0;
    int64_t at_once = rs.apart && is_short ? CHUNK_GROUPS / groups : 0;
    for (; at_once && r + at_once <= rs.end; r += at_once)
        dot_short_rows(y + r, w, r, &t, bits, words, rs.apart);
    for (; r < rs.end && rs.apart; r++) dot_rows(y + r, w, r, &t, bits, words, RUNS, rs.apart);
    for (; r < rs.end; r++) dot_rows(y + r, w, r, &t, bits, words, 1, 0);
}

INLINE void matvec(float *y, const rows *w, runs rs, const void *x, bool words) {
    switch (w->bits) {
    case 2:
        matvec_of(y, w, rs, x, 2, words);
        break;
    case 3:
        matvec_of(y, w, rs, x, 3, words);
        break;
    case 4:
        matvec_of(y, w, rs, x, 4, words);
        break;
    case 5:
        matvec_of(y, w, rs, x, 5, words);
        break;
    case 6:
        matvec_of(y, w, rs, x, 6, words);
        break;
    case 8:
        matvec_of(y, w, rs, x, 8, words);
        break;
    }
}
