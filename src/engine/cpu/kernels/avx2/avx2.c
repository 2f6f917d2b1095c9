/* kernels/avx2/avx2.c - the kernels for x86-64 processors with AVX2, FMA and F16C (2013 and later).
 * Number types and bit widths are compile-time constants of inlined functions: no branch in an
 * inner loop. What other instruction sets do alike is in templates/. */
#include "engine/cpu/kernels/avx2/vector.h"
#include "engine/cpu/kernels/templates/exp.h"

/* Weights are fetched this many bytes ahead: the processor's own prefetching stops at the end of
 * each page.
 */
enum { AHEAD = 4096, TOKENS = 3, SUMS = 8 }; /* the last two: of templates/matmul.h */

static bool supported(void) {
    return x86_has(X86_AVX2 | X86_FMA | X86_F16C);
}

INLINE void fetch_ahead(const char *p, dtype type) {
    _mm_prefetch(p + AHEAD, _MM_HINT_T0);
    if (type == DTYPE_F32) _mm_prefetch(p + AHEAD + 64, _MM_HINT_T0);
}

/* 2^k is multiplied in two steps, so that results below and above the normal numbers round to
 * subnormal ones and to infinity. */
INLINE vec v_exp(vec x) {
    x = v_min(v_all(89), v_max(v_all(-104), x)); /* in this order: NaN stays */
    vec k = _mm256_round_ps(v_mul(x, v_all(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    __m256i power = _mm256_cvtps_epi32(k), half = _mm256_srai_epi32(power, 1), one = _mm256_set1_epi32(127);
    __m256i rest = _mm256_sub_epi32(power, half);
    vec sum =
        v_mul(exp_rest(x, k, 7), _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, one), 23)));
    return v_mul(sum, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, one), 23)));
}

#include "engine/cpu/kernels/templates/functions.h"
#include "engine/cpu/kernels/templates/gates.h"
#include "engine/cpu/kernels/templates/matmul.h"
#include "engine/cpu/kernels/templates/states.h"

static void group_sums(float *sums, const float *x, int64_t n, int group_size) {
    for (int64_t g = 0; g < n / group_size; g++, x += group_size) {
        __m256 even = _mm256_loadu_ps(x), odd = _mm256_loadu_ps(x + 8);
        for (int i = 16; i < group_size; i += 16) {
            even = _mm256_add_ps(even, _mm256_loadu_ps(x + i));
            odd = _mm256_add_ps(odd, _mm256_loadu_ps(x + i + 8));
        }
        sums[g] = sum8(_mm256_add_ps(even, odd));
    }
}

INLINE __m128i bf16_of(__m256 x) {
    __m256i bits = _mm256_castps_si256(x), one = _mm256_set1_epi32(1);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}

static void from_f32(void *out, dtype type, const float *in, int64_t n) {
    int64_t i = 0;
    for (; type != DTYPE_F32 && i + 8 <= n; i += 8) {
        __m256 x = _mm256_loadu_ps(in + i);
        __m128i half = type == DTYPE_BF16 ? bf16_of(x) : _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((void *)((uint16_t *)out + i), half);
    }
    floats_to((char *)out + (size_t)i * size_of(type), type, in + i, n - i);
}

static float max(const float *x, int64_t n) {
    __m256 largest = _mm256_set1_ps(-INFINITY);
    float most = -INFINITY, lanes[8];
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) largest = _mm256_max_ps(largest, _mm256_loadu_ps(x + i));
    for (; i < n; i++) most = x[i] > most ? x[i] : most;
    _mm256_storeu_ps(lanes, largest);
    for (int k = 0; k < 8; k++) most = lanes[k] > most ? lanes[k] : most;
    return most;
}

const kernels kernels_avx2 = {
    .name = "avx2",
    .supported = supported,
    .of = {[MATRIX_PLAIN] = {.matvec = matvec_plain, .unpack = unpack_plain},
           [MATRIX_AFFINE] = {.matvec = avx2_matvec_affine,
                              .unpack = avx2_unpack_affine,
                              .int16 = &avx2_int16,
                              .int8 = &avx2_int8},
           [MATRIX_MXFP4] =
               {.matvec = avx2_matvec_fp, .unpack = avx2_unpack_fp, .int16 = &avx2_int16, .int8 = &avx2_int8},
           [MATRIX_MXFP8] = {.matvec = avx2_matvec_fp, .unpack = avx2_unpack_fp, .f32 = &avx2_mxfp8},
           [MATRIX_NVFP4] = {.matvec = avx2_matvec_fp,
                             .unpack = avx2_unpack_fp,
                             .int16 = &avx2_int16,
                             .int8 = &avx2_int8}},
    .group_sums = group_sums,
    .matmul = matmul,
    .mix = mix,
    .to_f32 = to_f32,
    .from_f32 = from_f32,
    .rms_norm = rms_norm_row,
    .layer_norm = layer_norm_row,
    .gated = gated_row,
    .max = max,
    .exp_sum = exp_sum,
    .scan = scan,
    .convolve = convolve,
    .attention = &attention_avx2,
};
