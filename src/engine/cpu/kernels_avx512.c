/* kernels_avx512.c - products of BF16 numbers for processors with AVX-512 BF16 (2020 and later).
 * Only the work of many tokens gains from it; everything else is the AVX2 table's. */
#include "engine/cpu/kernels.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* A panel of rows is one register wide. 12 tokens x 2 panels of rows are 24 sums: with 2 registers of weights
 * and a broadcast they fit the 32 there are, and each load serves as many products as possible. */
enum { ROWS = 16, TOKENS = 12, BLOCK_COLUMNS = 2048, CHUNK = 32 };

static bool supported(void) {
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && kernels_avx2.supported();
}

INLINE int64_t round_up(int64_t n, int64_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* ---- packing ---- */

/* 32 floats as 16 pairs of BF16. */
INLINE __m512i pairs_of(const float *x) {
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
}

INLINE __m512i some_pairs_of(const float *x, int64_t n) {
    float copy[CHUNK] = {0};
    memcpy(copy, x, (size_t)n * sizeof *x);
    return pairs_of(copy);
}

/* 32 columns from c of row r, 4 bits wide: scale * q + bias, rounded once to BF16. */
INLINE __m512i unpack4(const rows *w, int64_t r, int64_t c) {
    float scale[2];
    int64_t at = r * w->n + c, group = at / w->group_size;
    floats_from(scale, (const char *)w->scales + group * (int64_t)dtype_size(w->dtype), w->dtype, 1);
    floats_from(scale + 1, (const char *)w->biases + group * (int64_t)dtype_size(w->dtype), w->dtype, 1);
    __m512i q = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)((const uint8_t *)w->values + at / 2)));
    __m512 s = _mm512_set1_ps(scale[0]), b = _mm512_set1_ps(scale[1]);
    __m512 even = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_and_si512(q, _mm512_set1_epi32(15))), s, b);
    __m512 odd = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32(q, 4)), s, b);
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
    return _mm512_or_si512(low,
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd)), 16));
}

/* 16 rows of 16 pairs into 16 pairs of 16 rows. */
INLINE void transpose(__m512i a[ROWS]) {
    __m512i b[ROWS];
    for (int i = 0; i < ROWS; i += 4) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
        b[i + 2] = _mm512_unpacklo_epi32(a[i + 2], a[i + 3]),
              b[i + 3] = _mm512_unpackhi_epi32(a[i + 2], a[i + 3]);
    }
    for (int i = 0; i < ROWS; i += 4) { /* a[i + j]: pair 4 l + j of rows i .. i + 3, in lane l */
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]), a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]),
              a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for (int j = 0; j < 4; j++) {
        __m512i low = _mm512_shuffle_i32x4(a[j], a[j + 4], 0x44),
                high = _mm512_shuffle_i32x4(a[j], a[j + 4], 0xee);
        __m512i low2 = _mm512_shuffle_i32x4(a[j + 8], a[j + 12], 0x44),
                high2 = _mm512_shuffle_i32x4(a[j + 8], a[j + 12], 0xee);
        b[j] = _mm512_shuffle_i32x4(low, low2, 0x88), b[j + 4] = _mm512_shuffle_i32x4(low, low2, 0xdd);
        b[j + 8] = _mm512_shuffle_i32x4(high, high2, 0x88),
              b[j + 12] = _mm512_shuffle_i32x4(high, high2, 0xdd);
    }
    for (int i = 0; i < ROWS; i++) a[i] = b[i];
}

static void pack_rows(uint16_t *panel, const rows *w, int64_t first, int64_t n_rows, float *scratch) {
    bool direct = w->bits == 4; /* others go through floats: packing is a small part of the work */
    for (int64_t i = 0; i < n_rows && !direct; i++) kernels_avx2.unpack(scratch + i * w->n, w, first + i);
    for (int64_t c = 0; c < w->n; c += CHUNK, panel += CHUNK * ROWS) {
        __m512i a[ROWS];
        for (int64_t i = 0; i < ROWS; i++) {
            if (i >= n_rows)
                a[i] = _mm512_setzero_si512();
            else if (direct)
                a[i] = unpack4(w, first + i, c);
            else if (c + CHUNK <= w->n)
                a[i] = pairs_of(scratch + i * w->n + c);
            else
                a[i] = some_pairs_of(scratch + i * w->n + c, w->n - c);
        }
        transpose(a);
        for (int i = 0; i < ROWS; i++) _mm512_storeu_si512(panel + i * 2 * ROWS, a[i]);
    }
}

static void pack_tokens(uint16_t *panel, const float *x, int64_t x_stride, int64_t n_tokens, int64_t n) {
    int32_t pairs[CHUNK / 2];
    int64_t width = round_up(n, CHUNK);
    if (n_tokens < TOKENS) memset(panel, 0, (size_t)(width * TOKENS) * sizeof *panel);
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t c = 0; c < n; c += CHUNK) {
            const float *from = x + t * x_stride + c;
            _mm512_storeu_si512(pairs, n - c < CHUNK ? some_pairs_of(from, n - c) : pairs_of(from));
            char *to = (char *)panel + (c / 2 * TOKENS + t) * (int64_t)sizeof *pairs;
            for (int i = 0; i < CHUNK / 2; i++)
                memcpy(to + i * TOKENS * (int)sizeof *pairs, pairs + i, sizeof *pairs);
        }
}

/* ---- products ---- */

/* Sums of n columns in registers; added to out when `add`. masks: which rows of each panel exist. */
INLINE void multiply(float *out, int64_t out_stride, const uint16_t *x, const uint16_t *w, int64_t w_stride,
                     int64_t n, bool add, const __mmask16 masks[2], int n_tokens, int n_panels) {
    __m512 sum[TOKENS][2];
    for (int t = 0; t < n_tokens; t++)
        for (int p = 0; p < n_panels; p++)
            sum[t][p] =
                add ? _mm512_maskz_loadu_ps(masks[p], out + t * out_stride + p * ROWS) : _mm512_setzero_ps();
    for (int64_t k = 0; k < n; k += 2, w += 2 * ROWS, x += 2 * TOKENS) {
        __m512bh weights[2];
        for (int p = 0; p < n_panels; p++) weights[p] = (__m512bh)_mm512_loadu_si512(w + p * w_stride);
        for (int t = 0; t < n_tokens; t++) {
            int32_t pair;
            memcpy(&pair, x + 2 * t, sizeof pair);
            for (int p = 0; p < n_panels; p++)
                sum[t][p] = _mm512_dpbf16_ps(sum[t][p], weights[p], (__m512bh)_mm512_set1_epi32(pair));
        }
    }
    for (int t = 0; t < n_tokens; t++)
        for (int p = 0; p < n_panels; p++)
            _mm512_mask_storeu_ps(out + t * out_stride + p * ROWS, masks[p], sum[t][p]);
}

/* One panel of tokens; few of them are not padded to all twelve. */
static void multiply_tokens(float *out, int64_t out_stride, const uint16_t *x, const uint16_t *w,
                            int64_t w_stride, int64_t n, bool add, const __mmask16 masks[2],
                            int64_t n_tokens) {
    if (n_tokens >= TOKENS) {
        multiply(out, out_stride, x, w, w_stride, n, add, masks, TOKENS, 2);
        return;
    }
    for (; n_tokens >= 4; n_tokens -= 4, out += 4 * out_stride, x += 8)
        multiply(out, out_stride, x, w, w_stride, n, add, masks, 4, 2);
    for (; n_tokens; n_tokens--, out += out_stride, x += 2)
        multiply(out, out_stride, x, w, w_stride, n, add, masks, 1, 2);
}

static void multiply_panels(float *out, int64_t out_stride, const uint16_t *x, int64_t n_tokens,
                            const uint16_t *w, int64_t n_rows, int64_t n) {
    int64_t width = round_up(n, CHUNK);
    for (int64_t c = 0; c < width; c += BLOCK_COLUMNS) {
        int64_t columns = width - c < BLOCK_COLUMNS ? width - c : BLOCK_COLUMNS;
        for (int64_t t = 0; t < n_tokens; t += TOKENS)
            for (int64_t r = 0; r < n_rows; r += 2 * ROWS) {
                int64_t rest = n_rows - r;
                __mmask16 masks[2] = {rest < ROWS ? (__mmask16)((1u << rest) - 1) : 0xffff,
                                      rest >= 2 * ROWS ? 0xffff
                                      : rest > ROWS    ? (__mmask16)((1u << (rest - ROWS)) - 1)
                                                       : 0};
                /* without a second panel the first is read twice, and its sums are not stored */
                multiply_tokens(out + t * out_stride + r, out_stride, x + (t * width + c * TOKENS),
                                w + r * width + c * ROWS, rest > ROWS ? width * ROWS : 0, columns, c > 0,
                                masks, n_tokens - t);
            }
    }
}

const kernels kernels_avx512 = {
    .name = "avx512",
    .supported = supported,
    .base = &kernels_avx2,
    .panel_rows = ROWS,
    .panel_tokens = TOKENS,
    .pack_rows = pack_rows,
    .pack_tokens = pack_tokens,
    .multiply_panels = multiply_panels,
};
