/* kernels/avx2/avx2.c - the kernels for x86-64 processors with AVX2, FMA and F16C (2013 and later).
 * Number types and bit widths are compile-time constants of inlined functions: no branch in an inner loop. */
#include "engine/cpu/kernels/avx2/avx2.h"

#include <math.h>

/* Weights are fetched this many bytes ahead: the processor's own prefetching stops at the end of each page.
 */
enum { AHEAD = 4096 };

static bool supported(void) {
    /* every processor with AVX2 has F16C */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/* ---- plain weights ---- */

INLINE float dot_plain(const rows *w, int64_t r, const float *x, dtype type) {
    const char *row = at(w->values, type, r * w->n);
    int64_t i = 0;
    __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    for (; i + 32 <= w->n; i += 32) {
        const char *p = at(row, type, i);
        _mm_prefetch(p + AHEAD, _MM_HINT_T0);
        if (type == DTYPE_F32) _mm_prefetch(p + AHEAD + 64, _MM_HINT_T0);
        for (int k = 0; k < 4; k++)
            sum[k] = _mm256_fmadd_ps(load8(at(p, type, k * 8), type), _mm256_loadu_ps(x + i + k * 8), sum[k]);
    }
    for (; i + 8 <= w->n; i += 8)
        sum[0] = _mm256_fmadd_ps(load8(at(row, type, i), type), _mm256_loadu_ps(x + i), sum[0]);
    __m256 rest = load_some(at(row, type, i), type, w->n - i);
    sum[1] = _mm256_fmadd_ps(rest, load_some(x + i, DTYPE_F32, w->n - i), sum[1]);
    return sum8(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
}

INLINE void matvec_plain(float *y, const rows *w, int64_t first, int64_t end, const float *x, dtype type) {
    for (int64_t r = first; r < end; r++) y[r] = dot_plain(w, r, x, type);
}

static void matvec(float *y, const rows *w, int64_t first, int64_t end, const float *x, const float *sums) {
    if (w->bits)
        avx2_matvec_affine(y, w, first, end, x, sums);
    else if (w->dtype == DTYPE_BF16)
        matvec_plain(y, w, first, end, x, DTYPE_BF16);
    else if (w->dtype == DTYPE_F16)
        matvec_plain(y, w, first, end, x, DTYPE_F16);
    else
        matvec_plain(y, w, first, end, x, DTYPE_F32);
}

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

/* ---- conversions ---- */

INLINE void to_f32_of(float *out, const void *in, int64_t n, dtype type) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, load8(at(in, type, i), type));
    store_some(out + i, load_some(at(in, type, i), type, n - i), n - i);
}

static void to_f32(float *out, const void *in, dtype type, int64_t n) {
    if (type == DTYPE_BF16) to_f32_of(out, in, n, DTYPE_BF16);
    if (type == DTYPE_F16) to_f32_of(out, in, n, DTYPE_F16);
    if (type == DTYPE_F32) memcpy(out, in, (size_t)n * sizeof *out);
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

static void unpack(float *out, const rows *w, int64_t r) {
    if (w->bits)
        avx2_unpack_affine(out, w, r);
    else
        to_f32(out, at(w->values, w->dtype, r * w->n), w->dtype, w->n);
}

/* ---- products of blocks ---- */

enum { K_BLOCK = 1024, TOKENS = 3, ROWS = 4 }; /* 12 sums in registers; 3 rows of x stay in the first cache */

/* T tokens times R rows, T <= 3, R <= 4, over k columns. add: to what out holds. */
INLINE void matmul_tile(float *out, int64_t out_stride, const float *x, int64_t x_stride, const float *w,
                        int64_t n, int64_t k, bool add, int T, int R) {
    __m256 sum[TOKENS][ROWS], row[ROWS];
    for (int t = 0; t < T; t++)
        for (int r = 0; r < ROWS; r++) sum[t][r] = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + 8 <= k; i += 8) {
        for (int r = 0; r < R; r++) row[r] = _mm256_loadu_ps(w + r * n + i);
        for (int t = 0; t < T; t++) {
            __m256 token = _mm256_loadu_ps(x + t * x_stride + i);
            for (int r = 0; r < R; r++) sum[t][r] = _mm256_fmadd_ps(token, row[r], sum[t][r]);
        }
    }
    if (i < k)
        for (int t = 0; t < T; t++)
            for (int r = 0; r < R; r++)
                sum[t][r] = _mm256_fmadd_ps(load_some(x + t * x_stride + i, DTYPE_F32, k - i),
                                            load_some(w + r * n + i, DTYPE_F32, k - i), sum[t][r]);
    for (int t = 0; t < T; t++) {
        float total[ROWS];
        _mm_storeu_ps(total, sum8x4(sum[t]));
        for (int r = 0; r < R; r++)
            out[t * out_stride + r] = add ? out[t * out_stride + r] + total[r] : total[r];
    }
}

INLINE void matmul_tokens(float *out, int64_t out_stride, const float *x, int64_t x_stride, const float *w,
                          int64_t n_rows, int64_t n, int64_t k, bool add, int T) {
    int64_t r = 0;
    for (; r + ROWS <= n_rows; r += ROWS)
        matmul_tile(out + r, out_stride, x, x_stride, w + r * n, n, k, add, T, ROWS);
    for (; r < n_rows; r++) matmul_tile(out + r, out_stride, x, x_stride, w + r * n, n, k, add, T, 1);
}

static void matmul(float *out, int64_t out_stride, const float *x, int64_t x_stride, int64_t n_tokens,
                   const float *w, int64_t n_rows, int64_t n) {
    for (int64_t c = 0; c < n || !c; c += K_BLOCK) {
        int64_t k = n - c < K_BLOCK ? n - c : K_BLOCK, t = 0;
        for (; t + TOKENS <= n_tokens; t += TOKENS)
            matmul_tokens(out + t * out_stride, out_stride, x + t * x_stride + c, x_stride, w + c, n_rows, n,
                          k, c > 0, TOKENS);
        if (n_tokens - t == 2)
            matmul_tokens(out + t * out_stride, out_stride, x + t * x_stride + c, x_stride, w + c, n_rows, n,
                          k, c > 0, 2);
        if (n_tokens - t == 1)
            matmul_tokens(out + t * out_stride, out_stride, x + t * x_stride + c, x_stride, w + c, n_rows, n,
                          k, c > 0, 1);
    }
}

/* T tokens times all rows, for C vectors of columns; n_last < 8 columns of the only one where it is not 0. */
INLINE void mix_tile(float *out, int64_t out_stride, const float *p, int64_t p_stride, const float *v,
                     int64_t n_rows, int64_t n, int T, int C, int64_t n_last) {
    __m256 sum[8];
    for (int i = 0; i < T * C; i++) {
        const float *from = out + i / C * out_stride + i % C * 8;
        sum[i] = n_last ? load_some(from, DTYPE_F32, n_last) : _mm256_loadu_ps(from);
    }
    for (int64_t r = 0; r < n_rows; r++)
        for (int c = 0; c < C; c++) {
            const float *from = v + r * n + c * 8;
            __m256 value = n_last ? load_some(from, DTYPE_F32, n_last) : _mm256_loadu_ps(from);
            for (int t = 0; t < T; t++)
                sum[t * C + c] =
                    _mm256_fmadd_ps(_mm256_broadcast_ss(p + t * p_stride + r), value, sum[t * C + c]);
        }
    for (int i = 0; i < T * C; i++) {
        float *to = out + i / C * out_stride + i % C * 8;
        if (n_last)
            store_some(to, sum[i], n_last);
        else
            _mm256_storeu_ps(to, sum[i]);
    }
}

/* C vectors of columns at a time, so that T * C sums are enough to hide an addition's latency. */
INLINE void mix_tokens(float *out, int64_t out_stride, const float *p, int64_t p_stride, const float *v,
                       int64_t n_rows, int64_t n, int T, int C) {
    int64_t c = 0;
    for (; c + 8 * C <= n; c += 8 * C) mix_tile(out + c, out_stride, p, p_stride, v + c, n_rows, n, T, C, 0);
    for (; c + 8 <= n; c += 8) mix_tile(out + c, out_stride, p, p_stride, v + c, n_rows, n, T, 1, 0);
    if (c < n) mix_tile(out + c, out_stride, p, p_stride, v + c, n_rows, n, T, 1, n - c);
}

static void mix(float *out, int64_t out_stride, const float *p, int64_t p_stride, int64_t n_tokens,
                const float *v, int64_t n_rows, int64_t n) {
    for (; n_tokens >= 4; n_tokens -= 4, out += 4 * out_stride, p += 4 * p_stride)
        mix_tokens(out, out_stride, p, p_stride, v, n_rows, n, 4, 2);
    if (n_tokens == 3) mix_tokens(out, out_stride, p, p_stride, v, n_rows, n, 3, 2);
    if (n_tokens == 2) mix_tokens(out, out_stride, p, p_stride, v, n_rows, n, 2, 4);
    if (n_tokens == 1) mix_tokens(out, out_stride, p, p_stride, v, n_rows, n, 1, 8);
}

/* ---- functions of vectors ---- */

/* exp: x = k ln 2 + r with |r| <= ln 2 / 2, then 2^k times Taylor's polynomial of r. 2^k is multiplied in two
 * steps, so that results below and above the normal numbers round to subnormal ones and to infinity. */
INLINE __m256 exp8(__m256 x) {
    x = _mm256_min_ps(_mm256_set1_ps(89),
                      _mm256_max_ps(_mm256_set1_ps(-104), x)); /* in this order: NaN stays */
    __m256 k = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    __m256 r = _mm256_fnmadd_ps(k, _mm256_set1_ps(0x1.62e4p-1f), x); /* ln 2 in two parts, the first short */
    r = _mm256_fnmadd_ps(k, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
    static const float over_factorial[] = {1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, 1 / 2.f, 1, 1};
    __m256 sum = _mm256_set1_ps(1 / 5040.f);
    for (int i = 0; i < 7; i++) sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(over_factorial[i]));
    __m256i power = _mm256_cvtps_epi32(k), half = _mm256_srai_epi32(power, 1), one = _mm256_set1_epi32(127);
    __m256i rest = _mm256_sub_epi32(power, half);
    sum = _mm256_mul_ps(sum, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, one), 23)));
    return _mm256_mul_ps(sum, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, one), 23)));
}

static float exp_sum(float *x, int64_t n, float shift) {
    __m256 sum = _mm256_setzero_ps(), less = _mm256_set1_ps(shift);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 y = exp8(_mm256_sub_ps(_mm256_loadu_ps(x + i), less));
        _mm256_storeu_ps(x + i, y);
        sum = _mm256_add_ps(sum, y);
    }
    __m256 y = exp8(_mm256_sub_ps(load_some(x + i, DTYPE_F32, n - i), less));
    store_some(x + i, y, n - i);
    return sum8(_mm256_add_ps(sum, _mm256_and_ps(y, _mm256_castsi256_ps(first_lanes(n - i)))));
}

/* Both activations are x * sigmoid(u): (1 + tanh(a)) / 2 is sigmoid(2 a). */
INLINE __m256 gate8(__m256 x, __m256 up, activation act) {
    __m256 u = x, one = _mm256_set1_ps(1);
    if (act == ACT_GELU_TANH) {
        __m256 cubic = _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(0.044715f), _mm256_mul_ps(x, x)), x);
        u = _mm256_mul_ps(_mm256_set1_ps(1.5957691216f), _mm256_add_ps(x, cubic)); /* 2 sqrt(2 / pi) */
    }
    __m256 e = exp8(_mm256_sub_ps(_mm256_setzero_ps(), u));
    return _mm256_mul_ps(_mm256_div_ps(x, _mm256_add_ps(one, e)), up);
}

INLINE void gated_by(float *out, const float *gate, const float *up, int64_t n, activation act) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, gate8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i), act));
    __m256 x = load_some(gate + i, DTYPE_F32, n - i);
    store_some(out + i, gate8(x, load_some(up + i, DTYPE_F32, n - i), act), n - i);
}

static void gated_row(float *out, activation act, const float *gate, const float *up, int64_t n) {
    if (act == ACT_SILU)
        gated_by(out, gate, up, n, ACT_SILU);
    else
        gated_by(out, gate, up, n, ACT_GELU_TANH);
}

static void rms_norm_row(float *out, const float *x, const float *w, int64_t n, float eps) {
    rows itself = {.n = n, .values = x};
    float factor = 1 / sqrtf(dot_plain(&itself, 0, x, DTYPE_F32) / (float)n + eps);
    __m256 factors = _mm256_set1_ps(factor);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 y = _mm256_mul_ps(_mm256_loadu_ps(x + i), factors);
        _mm256_storeu_ps(out + i, w ? _mm256_mul_ps(y, _mm256_loadu_ps(w + i)) : y);
    }
    for (; i < n; i++) out[i] = w ? x[i] * factor * w[i] : x[i] * factor;
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
    .matvec = matvec,
    .group_sums = group_sums,
    .unpack = unpack,
    .matmul = matmul,
    .mix = mix,
    .to_f32 = to_f32,
    .from_f32 = from_f32,
    .rms_norm = rms_norm_row,
    .gated = gated_row,
    .max = max,
    .exp_sum = exp_sum,
    .int16 = &avx2_int16,
    .int8 = &avx2_int8,
    .attention = &attention_avx2,
};
