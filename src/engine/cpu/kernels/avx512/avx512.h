/* kernels/avx512/avx512.h - what the files of AVX-512 kernels share: loads of any number type, a
 * transposition, activations in fixed point. */
#ifndef ENGINE_CPU_KERNELS_AVX512_AVX512_H
#define ENGINE_CPU_KERNELS_AVX512_AVX512_H

#include "engine/cpu/kernels/x86.h"

#include <float.h>

INLINE int64_t round_up(int64_t n, int64_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* The first n lanes of 16. */
INLINE __mmask16 first_lanes(int64_t n) {
    return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
}

INLINE __m512 from_bf16(__m256i half) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* 16 floats stored as `type`. */
INLINE __m512 load16(const void *p, dtype type) {
    if (type == DTYPE_F32) return _mm512_loadu_ps(p);
    __m256i half = _mm256_loadu_si256(p);
    return type == DTYPE_F16 ? _mm512_cvtph_ps(half) : from_bf16(half);
}

/* The first n of them, at most 16, then zeros. */
INLINE __m512 load_some(const void *p, dtype type, int64_t n) {
    if (n >= 16) return load16(p, type);
    if (type == DTYPE_F32) return _mm512_maskz_loadu_ps(first_lanes(n), p);
    __m256i half = _mm256_maskz_loadu_epi16(first_lanes(n), p);
    return type == DTYPE_F16 ? _mm512_cvtph_ps(half) : from_bf16(half);
}

/* The first n bytes from p on, at most 64, then zeros. */
INLINE __m512i load_bytes(const void *p, int64_t n) {
    return n >= 64 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8((1ull << n) - 1, p);
}

/* How a matrix is stored, and whether activations have 16 bits, else 8, where they are in fixed
 * point: constants of inlined functions. */
typedef struct form {
    matrix_kind kind;
    int bits;
    bool words;
} form;

/* 16 E4M3 numbers divided by 256, which are F16's with the same digits. */
INLINE __m512 from_e4m3(__m128i bytes) {
    __m256i halves = _mm256_slli_epi16(_mm256_cvtepi8_epi16(bytes), 7);
    halves = _mm256_and_si256(halves, _mm256_set1_epi16((int16_t)0xbf80));
    __m256i above = _mm256_add_epi16(halves, _mm256_set1_epi16(0x80)); /* carries into bit 14: NaN */
    halves = _mm256_ternarylogic_epi32(halves, above, _mm256_set1_epi16(0x4000), 0xf8); /* a | (b & c) */
    return _mm512_cvtph_ps(halves);
}

/* 16 numbers of 8 bits, the scales of mxfp4 and mxfp8, or of nvfp4. 2^-127 is subnormal. */
INLINE __m512 from_bytes(__m128i bytes, form f) {
    if (f.kind == MATRIX_NVFP4) return _mm512_mul_ps(from_e4m3(bytes), _mm512_set1_ps(256));
    __m512i exponents = _mm512_slli_epi32(_mm512_cvtepu8_epi32(bytes), 23);
    return _mm512_castsi512_ps(_mm512_max_epi32(exponents, _mm512_set1_epi32(1 << 22)));
}

/* Scales i and on of w, of which n exist, at most 16, then zeros. */
INLINE __m512 take_scales(const rows *w, int64_t i, int64_t n, form f) {
    if (f.kind == MATRIX_AFFINE) return load_some(at(w->scales, w->dtype, i), w->dtype, n);
    __m128i bytes = _mm_maskz_loadu_epi8(first_lanes(n), (const char *)w->scales + i);
    return _mm512_maskz_mov_ps(first_lanes(n), from_bytes(bytes, f));
}

INLINE __m512 take_biases(const rows *w, int64_t i, int64_t n) {
    return load_some(at(w->biases, w->dtype, i), w->dtype, n);
}

/* What a tile's sums begin with: zeros or, when `add`, what out holds. Its line is fetched in
 * either case, since stores that miss wait for each other. */
INLINE __m512 first_sums(const float *out, __mmask16 lanes, bool add) {
    if (add) return _mm512_maskz_loadu_ps(lanes, out);
    __builtin_prefetch(out, 1);
    return _mm512_setzero_ps();
}

/* The sums of the lanes of four vectors. */
INLINE __m128 sum16x4(const __m512 v[4]) {
    __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    __m512 s = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/* A first step of transpose: out[j] has number 4 l + j of the four rows, in lane l. */
INLINE void transpose_rows(__m512i out[4], const __m512i a[4]) {
    __m512i b0 = _mm512_unpacklo_epi32(a[0], a[1]), b1 = _mm512_unpackhi_epi32(a[0], a[1]);
    __m512i b2 = _mm512_unpacklo_epi32(a[2], a[3]), b3 = _mm512_unpackhi_epi32(a[2], a[3]);
    out[0] = _mm512_unpacklo_epi64(b0, b2), out[1] = _mm512_unpackhi_epi64(b0, b2);
    out[2] = _mm512_unpacklo_epi64(b1, b3), out[3] = _mm512_unpackhi_epi64(b1, b3);
}

/* A second step: of what four first steps have at the same j, 4 apart -> numbers j, 4 + j, 8 + j
 * and 12 + j of 16 rows, 4 apart. */
INLINE void transpose_lanes(__m512i *out, const __m512i *a) {
    __m512i low = _mm512_shuffle_i32x4(a[0], a[4], 0x44), high = _mm512_shuffle_i32x4(a[0], a[4], 0xee);
    __m512i low2 = _mm512_shuffle_i32x4(a[8], a[12], 0x44), high2 = _mm512_shuffle_i32x4(a[8], a[12], 0xee);
    out[0] = _mm512_shuffle_i32x4(low, low2, 0x88), out[4] = _mm512_shuffle_i32x4(low, low2, 0xdd);
    out[8] = _mm512_shuffle_i32x4(high, high2, 0x88), out[12] = _mm512_shuffle_i32x4(high, high2, 0xdd);
}

/* 16 rows of 16 numbers of 32 bits, transposed in place. */
INLINE void transpose(__m512i a[16]) {
    __m512i b[16];
    for (int i = 0; i < 16; i += 4) transpose_rows(b + i, a + i);
    for (int j = 0; j < 4; j++) transpose_lanes(a + j, b + j);
}

/* One group of activations, in natural order -> its values, of 16 bits if `words`, else 8; *scale
 * and *sum as kernels.h defines them. */
INLINE void quantize_group(void *values, float *scale, float *sum, const float *x, int group_size,
                           bool words) {
    __m512i most = _mm512_setzero_si512(), total = _mm512_setzero_si512();
    for (int i = 0; i < group_size; i += 16) /* compared as integers, NaN is the largest of all */
        most = _mm512_max_epu32(most,
                                _mm512_and_si512(_mm512_loadu_si512(x + i), _mm512_set1_epi32(0x7fffffff)));
    uint32_t bits = _mm512_reduce_max_epu32(most);
    float largest, limit = words ? MOST_INT16 : MOST_INT8;
    memcpy(&largest, &bits, sizeof largest);
    bool usable = largest >= 1e-30f && largest <= FLT_MAX;
    __m512 factor = _mm512_set1_ps(usable ? limit / largest : 0);
    for (int i = 0; i < group_size; i += 16) {
        __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), factor));
        total = _mm512_add_epi32(total, q);
        if (words)
            _mm256_storeu_si256((void *)((int16_t *)values + i), _mm512_cvtsepi32_epi16(q));
        else
            _mm_storeu_si128((void *)((int8_t *)values + i), _mm512_cvtsepi32_epi8(q));
    }
    *scale = largest < 1e-30f ? 0 : largest / limit;
    *sum = *scale * (float)_mm512_reduce_add_epi32(total);
}

/* The order of 64 columns in panels, from their natural one. 4-bit weights are taken out of a word
 * of 8 by shifts and one mask: bytes are columns 0 2 4 6, then 1 3 5 7; words are 0 4, 1 5, 2 6, 3
 * 7. Weights of other widths keep their order. */
INLINE __m512i panel_order(__m512i columns, int bits, bool words) {
    if (bits != 4) return columns;
    __m128i bytes = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    __m128i pairs = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    return _mm512_shuffle_epi8(columns, _mm512_broadcast_i32x4(words ? pairs : bytes));
}

/* One token and mxfp8 by look-ups of bytes, where there is VBMI (kernels/avx512/mxfp8.c); and with
 * them the products, of which many tokens are avx512.c's. */
size_t avx512vbmi_prepared_bytes(const rows *w);
void avx512vbmi_prepare(void *prepared, const rows *w, const float *x);
void avx512vbmi_matvec_mxfp8(float *y, const rows *w, runs rs, const void *prepared);
extern const products avx512vbmi_mxfp8;

/* The products of kernels/avx512/vnni.c. A panel of rows of vnni_int8 holds, for each group, 16
 * scales, 16 biases, and [group_size / 4][16 rows] of 4 values as bytes, in panel_order. */
extern const products vnni_int16, vnni_int8;

#endif
