/* kernels/avx2/fp.c - mxfp4, mxfp8 and nvfp4 in F32 for processors with AVX2: one token, and
 * unpacking. The kind is a compile-time constant of inlined functions: no branch in an inner
 * loop. */
#include "engine/cpu/kernels/avx2/vector.h"

#include <math.h>

/* Weights are fetched this many bytes ahead: the processor's own prefetching stops at the end of
 * each page.
 */
enum { AHEAD = 4096 };

/* 8 E2M1 numbers: 4 bytes. A permutation looks at the low three bits, the magnitude; the fourth is
 * the sign.
 */
INLINE __m256 e2m1_8(const uint8_t *packed) {
    int32_t eight;
    memcpy(&eight, packed, sizeof eight);
    __m256i codes =
        _mm256_srlv_epi32(_mm256_set1_epi32(eight), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    __m256i sign = _mm256_and_si256(_mm256_slli_epi32(codes, 28), _mm256_set1_epi32((int)0x80000000));
    __m256 magnitudes = _mm256_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6);
    return _mm256_xor_ps(_mm256_permutevar8x32_ps(magnitudes, codes), _mm256_castsi256_ps(sign));
}

/* 16 numbers, those of mxfp8 divided by 256. nan: they may be such. */
INLINE void numbers16(__m256 out[2], const uint8_t *packed, matrix_kind kind, bool nan) {
    if (kind != MATRIX_MXFP8) {
        out[0] = e2m1_8(packed), out[1] = e2m1_8(packed + 4);
        return;
    }
    __m128i bytes = _mm_loadu_si128((const void *)packed);
    __m256i halves = nan ? e4m3_halves(bytes) : e4m3_finite(bytes);
    out[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
    out[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
}

/* The scales of 8 groups from `first` on. */
INLINE __m256 scales8(const rows *w, int64_t first, matrix_kind kind) {
    __m128i bytes = _mm_loadl_epi64((const void *)((const char *)w->scales + first));
    if (kind == MATRIX_NVFP4) {
        __m128i halves = _mm256_castsi256_si128(e4m3_halves(bytes));
        return v_mul(_mm256_cvtph_ps(halves), v_all(256));
    }
    __m256i exponents = _mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 23);
    return _mm256_castsi256_ps(_mm256_max_epi32(exponents, _mm256_set1_epi32(1 << 22)));
}

INLINE int bits_of(matrix_kind kind) {
    return kind == MATRIX_MXFP8 ? 8 : 4;
}

INLINE int group_of(matrix_kind kind) {
    return kind == MATRIX_NVFP4 ? 16 : 32;
}

/* A group's product; of mxfp8 without the factor 256, and NaN count as 480. */
INLINE __m256 dot_group(const uint8_t *packed, const float *x, matrix_kind kind) {
    __m256 numbers[2];
    numbers16(numbers, packed, kind, false);
    __m256 sum = v_fma(numbers[1], v_load(x + 8), v_mul(numbers[0], v_load(x)));
    if (group_of(kind) == 16) return sum;
    numbers16(numbers, packed + 2 * bits_of(kind), kind, false);
    return v_fma(numbers[1], v_load(x + 24), v_fma(numbers[0], v_load(x + 16), sum));
}

/* The largest magnitudes so far of 32 E4M3 codes, of which 0x7f is NaN: to be looked at once per
 * row. */
INLINE __m256i larger_codes(__m256i most, const uint8_t *packed) {
    return _mm256_max_epu8(
        most, _mm256_and_si256(_mm256_loadu_si256((const void *)packed), _mm256_set1_epi8(0x7f)));
}

INLINE bool has_nan(__m256i most) {
    return _mm256_movemask_epi8(_mm256_cmpeq_epi8(most, _mm256_set1_epi8(0x7f)));
}

/* y[k * apart] = dot(row r + k * apart, x) for k < R. */
INLINE void dot_rows(float *y, const rows *w, int64_t r, int64_t apart, const float *x, matrix_kind kind,
                     int R) {
    int size = group_of(kind), bytes = size * bits_of(kind) / 8;
    int64_t groups = w->n / size, row_bytes = groups * bytes, g = 0;
    const uint8_t *packed = (const uint8_t *)w->values + r * row_bytes;
    __m256 total[RUNS] = {v_zero(), v_zero(), v_zero(), v_zero()};
    __m256i most[RUNS];
    float scales[RUNS][8], sums[RUNS];
    for (int k = 0; k < RUNS; k++) most[k] = _mm256_setzero_si256();
    for (; g + 8 <= groups; g += 8) {
        UNROLL
        for (int k = 0; k < R; k++) v_store(scales[k], scales8(w, (r + k * apart) * groups + g, kind));
        for (int i = 0; i < 8; i++, packed += bytes, x += size) {
            UNROLL
            for (int k = 0; k < R; k++) {
                const uint8_t *q = packed + k * apart * row_bytes;
                if (i * bytes % 64 == 0) _mm_prefetch((const char *)q + AHEAD, _MM_HINT_T0);
                if (kind == MATRIX_MXFP8) most[k] = larger_codes(most[k], q);
                total[k] = v_fma(dot_group(q, x, kind), v_spread(scales[k] + i), total[k]);
            }
        }
    }
    for (; g < groups; g++, packed += bytes, x += size)
        for (int k = 0; k < R; k++) {
            const uint8_t *q = packed + k * apart * row_bytes;
            __m256 scale = v_all(fp_scale(w, (r + k * apart) * groups + g, kind));
            if (kind == MATRIX_MXFP8) most[k] = larger_codes(most[k], q);
            total[k] = v_fma(dot_group(q, x, kind), scale, total[k]);
        }
    v_sum4(sums, total);
    for (int k = 0; k < R; k++) {
        if (kind == MATRIX_MXFP8) sums[k] = has_nan(most[k]) ? NAN : 256 * sums[k];
        y[k * apart] = sums[k];
    }
}

INLINE void matvec_fp(float *y, const rows *w, int64_t first, int64_t end, const float *x, matrix_kind kind) {
    for (int64_t r = first; r < end; r++) dot_rows(y + r, w, r, 0, x, kind, 1);
}

void avx2_matvec_fp(float *y, const rows *w, int64_t first, int64_t end, const float *x, const float *sums) {
    (void)sums;
    if (w->kind == MATRIX_MXFP4) matvec_fp(y, w, first, end, x, MATRIX_MXFP4);
    if (w->kind == MATRIX_MXFP8) matvec_fp(y, w, first, end, x, MATRIX_MXFP8);
    if (w->kind == MATRIX_NVFP4) matvec_fp(y, w, first, end, x, MATRIX_NVFP4);
}

INLINE void unpack_fp(float *out, const rows *w, int64_t r, matrix_kind kind) {
    int size = group_of(kind), bits = bits_of(kind);
    int64_t groups = w->n / size;
    const uint8_t *packed = (const uint8_t *)w->values + r * w->n * bits / 8;
    for (int64_t g = 0; g < groups; g++) {
        __m256 scale = v_all(fp_scale(w, r * groups + g, kind));
        for (int i = 0; i < size; i += 16, packed += 2 * bits, out += 16) {
            __m256 numbers[2];
            numbers16(numbers, packed, kind, true);
            for (int k = 0; k < 2; k++) {
                if (kind == MATRIX_MXFP8) numbers[k] = v_mul(numbers[k], v_all(256));
                v_store(out + 8 * k, v_mul(numbers[k], scale));
            }
        }
    }
}

void avx2_unpack_fp(float *out, const rows *w, int64_t r) {
    if (w->kind == MATRIX_MXFP4) unpack_fp(out, w, r, MATRIX_MXFP4);
    if (w->kind == MATRIX_MXFP8) unpack_fp(out, w, r, MATRIX_MXFP8);
    if (w->kind == MATRIX_NVFP4) unpack_fp(out, w, r, MATRIX_NVFP4);
}

/* ---- mxfp8 as products: rows are read in four runs; a panel is one row or one token, as floats
 * ---- */

size_t avx2_float_bytes(const rows *w) {
    return (size_t)w->n * sizeof(float);
}

void avx2_prepare_floats(void *prepared, const rows *w, const float *x) {
    memcpy(prepared, x, avx2_float_bytes(w));
}

void avx2_matvec_mxfp8(float *y, const rows *w, runs rs, const void *prepared) {
    int64_t r = rs.first;
    fetch_runs(w, rs, AHEAD);
    for (; r < rs.end && rs.apart; r++) dot_rows(y + r, w, r, rs.apart, prepared, MATRIX_MXFP8, RUNS);
    for (; r < rs.end; r++) dot_rows(y + r, w, r, 0, prepared, MATRIX_MXFP8, 1);
}

static void pack_row(void *panel, const rows *w, int64_t first, int64_t n_rows) {
    (void)n_rows; /* one */
    unpack_fp(panel, w, first, MATRIX_MXFP8);
}

static void pack_token(void *panel, const rows *w, const float *x, int64_t x_stride, int64_t n_tokens) {
    (void)x_stride, (void)n_tokens; /* one */
    memcpy(panel, x, avx2_float_bytes(w));
}

static void multiply_floats(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens,
                            const void *panels, int64_t n_rows, const rows *w) {
    kernels_avx2.matmul(out, out_stride, tokens, w->n, n_tokens, panels, n_rows, w->n);
}

const products avx2_mxfp8 = {
    .prepared_bytes = avx2_float_bytes,
    .prepare = avx2_prepare_floats,
    .matvec = avx2_matvec_mxfp8,
    .panel_rows = 1,
    .panel_tokens = 1,
    .row_panel_bytes = avx2_float_bytes,
    .token_panel_bytes = avx2_float_bytes,
    .pack_rows = pack_row,
    .pack_tokens = pack_token,
    .multiply = multiply_floats,
};
