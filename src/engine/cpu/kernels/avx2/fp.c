/* kernels/avx2/fp.c - mxfp4, mxfp8 and nvfp4 in F32 for processors with AVX2: one token, and
 * unpacking. The kind is a compile-time constant of inlined functions: no branch in an inner
 * loop. */
#include "engine/cpu/kernels/avx2/vector.h"

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

/* 16 E4M3 numbers divided by 256, which are F16's with the same digits: 16 bytes. */
INLINE __m256i e4m3_halves(__m128i bytes) {
    __m256i halves = _mm256_slli_epi16(_mm256_cvtepi8_epi16(bytes), 7);
    halves = _mm256_and_si256(halves, _mm256_set1_epi16((int16_t)0xbf80));
    __m256i above = _mm256_add_epi16(halves, _mm256_set1_epi16(0x80)); /* carries into bit 14: NaN */
    return _mm256_or_si256(halves, _mm256_and_si256(above, _mm256_set1_epi16(0x4000)));
}

/* 16 numbers, those of mxfp8 divided by 256. */
INLINE void numbers16(__m256 out[2], const uint8_t *packed, matrix_kind kind) {
    if (kind != MATRIX_MXFP8) {
        out[0] = e2m1_8(packed), out[1] = e2m1_8(packed + 4);
        return;
    }
    __m256i halves = e4m3_halves(_mm_loadu_si128((const void *)packed));
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

INLINE __m256 dot_group(const uint8_t *packed, const float *x, matrix_kind kind) {
    __m256 numbers[2];
    numbers16(numbers, packed, kind);
    __m256 sum = v_fma(numbers[1], v_load(x + 8), v_mul(numbers[0], v_load(x)));
    if (group_of(kind) == 16) return sum;
    numbers16(numbers, packed + 2 * bits_of(kind), kind);
    sum = v_fma(numbers[1], v_load(x + 24), v_fma(numbers[0], v_load(x + 16), sum));
    return kind == MATRIX_MXFP8 ? v_mul(sum, v_all(256)) : sum;
}

INLINE float dot_fp(const rows *w, int64_t r, const float *x, matrix_kind kind) {
    int size = group_of(kind), bytes = size * bits_of(kind) / 8;
    int64_t groups = w->n / size, g = 0;
    const uint8_t *packed = (const uint8_t *)w->values + r * groups * bytes;
    __m256 total[2] = {v_zero(), v_zero()};
    for (; g + 8 <= groups; g += 8) {
        float scales[8];
        v_store(scales, scales8(w, r * groups + g, kind));
        for (int i = 0; i < 8; i++, packed += bytes, x += size) {
            if (i * bytes % 64 == 0) _mm_prefetch((const char *)packed + AHEAD, _MM_HINT_T0);
            total[i % 2] = v_fma(dot_group(packed, x, kind), v_spread(scales + i), total[i % 2]);
        }
    }
    for (; g < groups; g++, packed += bytes, x += size)
        total[0] = v_fma(dot_group(packed, x, kind), v_all(fp_scale(w, r * groups + g, kind)), total[0]);
    return v_sum(v_add(total[0], total[1]));
}

INLINE void matvec_fp(float *y, const rows *w, int64_t first, int64_t end, const float *x, matrix_kind kind) {
    for (int64_t r = first; r < end; r++) y[r] = dot_fp(w, r, x, kind);
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
            numbers16(numbers, packed, kind);
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
