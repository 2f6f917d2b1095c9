/* kernels/avx2/fp.c - mxfp4, mxfp8 and nvfp4 in F32 for processors with AVX2: one token, and unpacking.
 * The kind is a compile-time constant of inlined functions: no branch in an inner loop. */
#include "engine/cpu/kernels/avx2/vector.h"

/* Weights are fetched this many bytes ahead: the processor's own prefetching stops at the end of each page.
 */
enum { AHEAD = 4096 };

/* 8 E2M1 numbers: 4 bytes. A permutation looks at the low three bits, the magnitude; the fourth is the sign.
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

/* 8 E4M3 numbers divided by 256, which are F16's with the same digits: 8 bytes. */
INLINE __m256 e4m3_8(const uint8_t *packed) {
    __m128i bytes = _mm_cvtepi8_epi16(_mm_loadl_epi64((const void *)packed));
    __m128i halves = _mm_and_si128(_mm_slli_epi16(bytes, 7), _mm_set1_epi16((int16_t)0xbf80));
    __m128i most = _mm_set1_epi16(0x3f80); /* NaN: F16's exponent must be all ones, too */
    __m128i nan = _mm_cmpeq_epi16(_mm_and_si128(halves, most), most);
    return _mm256_cvtph_ps(_mm_or_si128(halves, _mm_and_si128(nan, _mm_set1_epi16(0x7c00))));
}

/* 8 numbers, those of mxfp8 divided by 256. */
INLINE __m256 numbers8(const uint8_t *packed, matrix_kind kind) {
    return kind == MATRIX_MXFP8 ? e4m3_8(packed) : e2m1_8(packed);
}

INLINE int bits_of(matrix_kind kind) {
    return kind == MATRIX_MXFP8 ? 8 : 4;
}

INLINE int group_of(matrix_kind kind) {
    return kind == MATRIX_NVFP4 ? 16 : 32;
}

INLINE float dot_fp(const rows *w, int64_t r, const float *x, matrix_kind kind) {
    int size = group_of(kind), bytes = size * bits_of(kind) / 8;
    int64_t groups = w->n / size;
    const uint8_t *packed = (const uint8_t *)w->values + r * groups * bytes;
    __m256 total[2] = {v_zero(), v_zero()};
    for (int64_t g = 0; g < groups; g++, packed += bytes, x += size) {
        if (g * bytes % 64 == 0) _mm_prefetch((const char *)packed + AHEAD, _MM_HINT_T0);
        __m256 sum = v_mul(numbers8(packed, kind), v_load(x));
        for (int i = 8; i < size; i += 8)
            sum = v_fma(numbers8(packed + i * bits_of(kind) / 8, kind), v_load(x + i), sum);
        if (kind == MATRIX_MXFP8) sum = v_mul(sum, v_all(256));
        total[g % 2] = v_fma(sum, v_all(fp_scale(w, r * groups + g, kind)), total[g % 2]);
    }
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
        for (int i = 0; i < size; i += 8, packed += bits, out += 8) {
            __m256 numbers = numbers8(packed, kind);
            if (kind == MATRIX_MXFP8) numbers = v_mul(numbers, v_all(256));
            v_store(out, v_mul(numbers, scale));
        }
    }
}

void avx2_unpack_fp(float *out, const rows *w, int64_t r) {
    if (w->kind == MATRIX_MXFP4) unpack_fp(out, w, r, MATRIX_MXFP4);
    if (w->kind == MATRIX_MXFP8) unpack_fp(out, w, r, MATRIX_MXFP8);
    if (w->kind == MATRIX_NVFP4) unpack_fp(out, w, r, MATRIX_NVFP4);
}
