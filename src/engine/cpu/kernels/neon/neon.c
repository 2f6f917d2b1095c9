/* kernels/neon/neon.c - the kernels for every 64-bit ARM processor: NEON as ARMv8.0 has it, F32 arithmetic.
 * Number types and bit widths are compile-time constants of inlined functions: no branch in an inner loop. */
#include "engine/cpu/kernels/neon/neon.h"

#include <math.h>

#ifdef __APPLE__
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

enum { MAX_GROUPS = 256 }; /* a row's scales are converted this many at a time */

/* ---- what the processor has ---- */

static bool supported(void) {
    return true;
}

#ifdef __APPLE__
static bool has(const char *feature) {
    int value = 0;
    size_t size = sizeof value;
    return !sysctlbyname(feature, &value, &size, NULL, 0) && value;
}

bool neon_has_dotprod(void) {
    return has("hw.optional.arm.FEAT_DotProd");
}

bool neon_has_matrix_products(void) {
    return neon_has_dotprod() && has("hw.optional.arm.FEAT_I8MM") && has("hw.optional.arm.FEAT_BF16");
}
#elif defined(__linux__)
bool neon_has_dotprod(void) {
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
}

bool neon_has_matrix_products(void) {
    unsigned long both = HWCAP2_I8MM | HWCAP2_BF16;
    return neon_has_dotprod() && (getauxval(AT_HWCAP2) & both) == both;
}
#else
bool neon_has_dotprod(void) {
    return false;
}

bool neon_has_matrix_products(void) {
    return false;
}
#endif

/* ---- conversions ---- */

INLINE void to_f32_of(float *out, const void *in, int64_t n, dtype type) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(out + i, load4(at(in, type, i), type));
    store_some(out + i, load_some(at(in, type, i), type, n - i), n - i);
}

static void to_f32(float *out, const void *in, dtype type, int64_t n) {
    if (type == DTYPE_BF16) to_f32_of(out, in, n, DTYPE_BF16);
    if (type == DTYPE_F16) to_f32_of(out, in, n, DTYPE_F16);
    if (type == DTYPE_F32) memcpy(out, in, (size_t)n * sizeof *out);
}

INLINE uint16x4_t bf16_of(float32x4_t x) {
    uint32x4_t bits = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000)); /* NaN */
    return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, quiet), 16);
}

static void from_f32(void *out, dtype type, const float *in, int64_t n) {
    int64_t i = 0;
    for (; type != DTYPE_F32 && i + 4 <= n; i += 4) {
        float32x4_t x = vld1q_f32(in + i);
        uint16x4_t half = type == DTYPE_BF16 ? bf16_of(x) : vreinterpret_u16_f16(vcvt_f16_f32(x));
        vst1_u8((uint8_t *)out + 2 * i, vreinterpret_u8_u16(half));
    }
    floats_to((char *)out + (size_t)i * size_of(type), type, in + i, n - i);
}

/* ---- affine weights ---- */

/* 16 bytes as floats. */
INLINE void to_floats(float32x4_t out[4], uint8x16_t bytes) {
    uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
    out[0] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(low)));
    out[1] = vcvtq_f32_u32(vmovl_high_u16(low));
    out[2] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(high)));
    out[3] = vcvtq_f32_u32(vmovl_high_u16(high));
}

INLINE float32x4_t sum_of(const float32x4_t sum[4]) {
    return vaddq_f32(vaddq_f32(sum[0], sum[1]), vaddq_f32(sum[2], sum[3]));
}

INLINE float32x4_t dot_group(const uint8_t *packed, const float *x, int bits, int group_size) {
    float32x4_t sum[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)}, q[4];
    for (int i = 0; i < group_size; i += 32, packed += 4 * bits) {
        uint8x16x2_t bytes = quants32(packed, bits);
        for (int half = 0; half < 2; half++, x += 16) {
            to_floats(q, bytes.val[half]);
            for (int k = 0; k < 4; k++) sum[k] = vfmaq_f32(sum[k], q[k], vld1q_f32(x + 4 * k));
        }
    }
    return sum_of(sum);
}

/* The part of row r that lies in groups [g, g + n): sums and x begin there. */
INLINE float dot_affine(const rows *w, int64_t r, int64_t g, int64_t n, const float *x, const float *sums,
                        int bits, int group_size) {
    float scales[MAX_GROUPS], biases[MAX_GROUPS];
    float32x4_t total = vdupq_n_f32(0);
    int64_t i = 0, first = r * (w->n / group_size) + g;
    const uint8_t *packed = (const uint8_t *)w->values + first * group_size * bits / 8;
    to_f32(scales, at(w->scales, w->dtype, first), w->dtype, n);
    to_f32(biases, at(w->biases, w->dtype, first), w->dtype, n);
    for (; i + 4 <= n; i += 4) total = vfmaq_f32(total, vld1q_f32(biases + i), vld1q_f32(sums + i));
    total = vfmaq_f32(total, load_some(biases + i, DTYPE_F32, n - i), load_some(sums + i, DTYPE_F32, n - i));
    for (i = 0; i < n; i++, packed += group_size * bits / 8, x += group_size)
        total = vfmaq_n_f32(total, dot_group(packed, x, bits, group_size), scales[i]);
    return vaddvq_f32(total);
}

INLINE void matvec_affine(float *y, const rows *w, int64_t first, int64_t end, const float *x,
                          const float *sums, int bits, int group_size) {
    int64_t groups = w->n / group_size;
    for (int64_t g = 0; g < groups; g += MAX_GROUPS) {
        int64_t n = groups - g < MAX_GROUPS ? groups - g : MAX_GROUPS;
        for (int64_t r = first; r < end; r++) {
            float part = dot_affine(w, r, g, n, x + g * group_size, sums + g, bits, group_size);
            y[r] = g ? y[r] + part : part;
        }
    }
}

/* Makes a constant of the group size. */
INLINE void matvec_bits(float *y, const rows *w, int64_t first, int64_t end, const float *x,
                        const float *sums, int bits) {
    if (w->group_size == 32) matvec_affine(y, w, first, end, x, sums, bits, 32);
    if (w->group_size == 64) matvec_affine(y, w, first, end, x, sums, bits, 64);
    if (w->group_size == 128) matvec_affine(y, w, first, end, x, sums, bits, 128);
}

/* ---- plain weights ---- */

INLINE float dot_plain(const void *row, const float *x, int64_t n, dtype type) {
    float32x4_t sum[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 4; k++)
            sum[k] = vfmaq_f32(sum[k], load4(at(row, type, i + 4 * k), type), vld1q_f32(x + i + 4 * k));
    for (; i + 4 <= n; i += 4) sum[0] = vfmaq_f32(sum[0], load4(at(row, type, i), type), vld1q_f32(x + i));
    float32x4_t rest = load_some(at(row, type, i), type, n - i);
    sum[1] = vfmaq_f32(sum[1], rest, load_some(x + i, DTYPE_F32, n - i));
    return vaddvq_f32(sum_of(sum));
}

INLINE void matvec_plain(float *y, const rows *w, int64_t first, int64_t end, const float *x, dtype type) {
    for (int64_t r = first; r < end; r++) y[r] = dot_plain(at(w->values, type, r * w->n), x, w->n, type);
}

static void matvec(float *y, const rows *w, int64_t first, int64_t end, const float *x, const float *sums) {
    if (w->bits == 2) matvec_bits(y, w, first, end, x, sums, 2);
    if (w->bits == 3) matvec_bits(y, w, first, end, x, sums, 3);
    if (w->bits == 4) matvec_bits(y, w, first, end, x, sums, 4);
    if (w->bits == 5) matvec_bits(y, w, first, end, x, sums, 5);
    if (w->bits == 6) matvec_bits(y, w, first, end, x, sums, 6);
    if (w->bits == 8) matvec_bits(y, w, first, end, x, sums, 8);
    if (w->bits) return;
    if (w->dtype == DTYPE_BF16) matvec_plain(y, w, first, end, x, DTYPE_BF16);
    if (w->dtype == DTYPE_F16) matvec_plain(y, w, first, end, x, DTYPE_F16);
    if (w->dtype == DTYPE_F32) matvec_plain(y, w, first, end, x, DTYPE_F32);
}

static void group_sums(float *sums, const float *x, int64_t n, int group_size) {
    for (int64_t g = 0; g < n / group_size; g++, x += group_size) {
        float32x4_t sum[4] = {vld1q_f32(x), vld1q_f32(x + 4), vld1q_f32(x + 8), vld1q_f32(x + 12)};
        for (int i = 16; i < group_size; i += 16)
            for (int k = 0; k < 4; k++) sum[k] = vaddq_f32(sum[k], vld1q_f32(x + i + 4 * k));
        sums[g] = vaddvq_f32(sum_of(sum));
    }
}

INLINE void unpack_affine(float *out, const rows *w, int64_t r, int bits) {
    int64_t groups = w->n / w->group_size;
    const uint8_t *packed = (const uint8_t *)w->values + r * w->n * bits / 8;
    for (int64_t g = 0; g < groups; g++) {
        float scale, bias;
        floats_from(&scale, at(w->scales, w->dtype, r * groups + g), w->dtype, 1);
        floats_from(&bias, at(w->biases, w->dtype, r * groups + g), w->dtype, 1);
        for (int i = 0; i < w->group_size; i += 32, packed += 4 * bits, out += 32) {
            uint8x16x2_t bytes = quants32(packed, bits);
            float32x4_t q[8];
            to_floats(q, bytes.val[0]);
            to_floats(q + 4, bytes.val[1]);
            for (int k = 0; k < 8; k++) /* two roundings, as in mx.dequantize */
                vst1q_f32(out + 4 * k, vaddq_f32(vmulq_n_f32(q[k], scale), vdupq_n_f32(bias)));
        }
    }
}

static void unpack(float *out, const rows *w, int64_t r) {
    if (w->bits == 2) unpack_affine(out, w, r, 2);
    if (w->bits == 3) unpack_affine(out, w, r, 3);
    if (w->bits == 4) unpack_affine(out, w, r, 4);
    if (w->bits == 5) unpack_affine(out, w, r, 5);
    if (w->bits == 6) unpack_affine(out, w, r, 6);
    if (w->bits == 8) unpack_affine(out, w, r, 8);
    if (!w->bits) to_f32(out, at(w->values, w->dtype, r * w->n), w->dtype, w->n);
}

/* ---- products of blocks ---- */

/* 6 x 4 sums, 4 rows and a token fit the 32 registers; K_BLOCK columns of 6 tokens stay in the first cache.
 */
enum { K_BLOCK = 1024, TOKENS = 6, ROWS = 4 };

/* T tokens times R rows, T <= 6, R <= 4, over k columns. add: to what out holds. */
INLINE void matmul_tile(float *out, int64_t out_stride, const float *x, int64_t x_stride, const float *w,
                        int64_t n, int64_t k, bool add, int T, int R) {
    float32x4_t sum[TOKENS][ROWS], row[ROWS];
    for (int t = 0; t < T; t++)
        for (int r = 0; r < ROWS; r++) sum[t][r] = vdupq_n_f32(0);
    int64_t i = 0;
    for (; i + 4 <= k; i += 4) {
        for (int r = 0; r < R; r++) row[r] = vld1q_f32(w + r * n + i);
        for (int t = 0; t < T; t++) {
            float32x4_t token = vld1q_f32(x + t * x_stride + i);
            for (int r = 0; r < R; r++) sum[t][r] = vfmaq_f32(sum[t][r], token, row[r]);
        }
    }
    for (int t = 0; t < T; t++) {
        float *to = out + t * out_stride;
        float32x4_t total = vpaddq_f32(vpaddq_f32(sum[t][0], sum[t][1]), vpaddq_f32(sum[t][2], sum[t][3]));
        if (add) total = vaddq_f32(total, R == 4 ? vld1q_f32(to) : load_some(to, DTYPE_F32, R));
        if (R == 4)
            vst1q_f32(to, total);
        else
            store_some(to, total, R);
    }
    for (; i < k; i++) /* here, so that no index but a constant keeps the sums out of registers */
        for (int t = 0; t < T; t++)
            for (int r = 0; r < R; r++) out[t * out_stride + r] += x[t * x_stride + i] * w[r * n + i];
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
        for (; t + 2 <= n_tokens; t += 2)
            matmul_tokens(out + t * out_stride, out_stride, x + t * x_stride + c, x_stride, w + c, n_rows, n,
                          k, c > 0, 2);
        if (t < n_tokens)
            matmul_tokens(out + t * out_stride, out_stride, x + t * x_stride + c, x_stride, w + c, n_rows, n,
                          k, c > 0, 1);
    }
}

/* T tokens times all rows, for C <= 16 / T vectors of columns; n_last < 4 columns of the only one where it is
 * not 0. */
INLINE void mix_tile(float *out, int64_t out_stride, const float *p, int64_t p_stride, const float *v,
                     int64_t n_rows, int64_t n, int T, int C, int64_t n_last) {
    float32x4_t sum[16];
    for (int i = 0; i < T * C; i++) {
        const float *from = out + i / C * out_stride + i % C * 4;
        sum[i] = n_last ? load_some(from, DTYPE_F32, n_last) : vld1q_f32(from);
    }
    for (int64_t r = 0; r < n_rows; r++)
        for (int c = 0; c < C; c++) {
            const float *from = v + r * n + c * 4;
            float32x4_t value = n_last ? load_some(from, DTYPE_F32, n_last) : vld1q_f32(from);
            for (int t = 0; t < T; t++)
                sum[t * C + c] = vfmaq_n_f32(sum[t * C + c], value, p[t * p_stride + r]);
        }
    for (int i = 0; i < T * C; i++) {
        float *to = out + i / C * out_stride + i % C * 4;
        if (n_last)
            store_some(to, sum[i], n_last);
        else
            vst1q_f32(to, sum[i]);
    }
}

/* C vectors of columns at a time, so that T * C sums are enough to hide an addition's latency. */
INLINE void mix_tokens(float *out, int64_t out_stride, const float *p, int64_t p_stride, const float *v,
                       int64_t n_rows, int64_t n, int T, int C) {
    int64_t c = 0;
    for (; c + 4 * C <= n; c += 4 * C) mix_tile(out + c, out_stride, p, p_stride, v + c, n_rows, n, T, C, 0);
    for (; c + 4 <= n; c += 4) mix_tile(out + c, out_stride, p, p_stride, v + c, n_rows, n, T, 1, 0);
    if (c < n) mix_tile(out + c, out_stride, p, p_stride, v + c, n_rows, n, T, 1, n - c);
}

static void mix(float *out, int64_t out_stride, const float *p, int64_t p_stride, int64_t n_tokens,
                const float *v, int64_t n_rows, int64_t n) {
    for (; n_tokens >= 4; n_tokens -= 4, out += 4 * out_stride, p += 4 * p_stride)
        mix_tokens(out, out_stride, p, p_stride, v, n_rows, n, 4, 4);
    if (n_tokens == 3) mix_tokens(out, out_stride, p, p_stride, v, n_rows, n, 3, 4);
    if (n_tokens == 2) mix_tokens(out, out_stride, p, p_stride, v, n_rows, n, 2, 8);
    if (n_tokens == 1) mix_tokens(out, out_stride, p, p_stride, v, n_rows, n, 1, 16);
}

/* ---- functions of vectors ---- */

INLINE float32x4_t power_of_2(int32x4_t k) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(k, vdupq_n_s32(127)), 23));
}

/* exp: x = k ln 2 + r with |r| <= ln 2 / 2, then 2^k times Taylor's polynomial of r. 2^k is multiplied in two
 * steps, so that results below and above the normal numbers round to subnormal ones and to infinity. */
INLINE float32x4_t exp4(float32x4_t x) {
    x = vminq_f32(vdupq_n_f32(89), vmaxq_f32(vdupq_n_f32(-104), x)); /* NaN stays */
    float32x4_t k = vrndnq_f32(vmulq_n_f32(x, 1.44269504f));
    float32x4_t r = vfmsq_n_f32(x, k, 0x1.62e4p-1f); /* ln 2 in two parts, the first short */
    r = vfmsq_n_f32(r, k, 0x1.7f7d1cp-20f);
    static const float over_factorial[] = {1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, 1 / 2.f, 1, 1};
    float32x4_t sum = vdupq_n_f32(1 / 5040.f);
    for (int i = 0; i < 7; i++) sum = vfmaq_f32(vdupq_n_f32(over_factorial[i]), sum, r);
    int32x4_t power = vcvtq_s32_f32(k), half = vshrq_n_s32(power, 1);
    return vmulq_f32(vmulq_f32(sum, power_of_2(half)), power_of_2(vsubq_s32(power, half)));
}

static float exp_sum(float *x, int64_t n, float shift) {
    float32x4_t sum = vdupq_n_f32(0), less = vdupq_n_f32(shift);
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t y = exp4(vsubq_f32(vld1q_f32(x + i), less));
        vst1q_f32(x + i, y);
        sum = vaddq_f32(sum, y);
    }
    store_some(x + i, exp4(vsubq_f32(load_some(x + i, DTYPE_F32, n - i), less)), n - i);
    return vaddvq_f32(vaddq_f32(sum, load_some(x + i, DTYPE_F32, n - i)));
}

/* Both activations are x * sigmoid(u): (1 + tanh(a)) / 2 is sigmoid(2 a). */
INLINE float32x4_t gate4(float32x4_t x, float32x4_t up, activation act) {
    float32x4_t u = x;
    if (act == ACT_GELU_TANH) {
        float32x4_t cubic = vmulq_f32(vmulq_n_f32(vmulq_f32(x, x), 0.044715f), x);
        u = vmulq_n_f32(vaddq_f32(x, cubic), 1.5957691216f); /* 2 sqrt(2 / pi) */
    }
    float32x4_t e = exp4(vnegq_f32(u));
    return vmulq_f32(vdivq_f32(x, vaddq_f32(vdupq_n_f32(1), e)), up);
}

INLINE void gated_by(float *out, const float *gate, const float *up, int64_t n, activation act) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(out + i, gate4(vld1q_f32(gate + i), vld1q_f32(up + i), act));
    float32x4_t x = load_some(gate + i, DTYPE_F32, n - i);
    store_some(out + i, gate4(x, load_some(up + i, DTYPE_F32, n - i), act), n - i);
}

static void gated_row(float *out, activation act, const float *gate, const float *up, int64_t n) {
    if (act == ACT_SILU)
        gated_by(out, gate, up, n, ACT_SILU);
    else
        gated_by(out, gate, up, n, ACT_GELU_TANH);
}

static void rms_norm_row(float *out, const float *x, const float *w, int64_t n, float eps) {
    float factor = 1 / sqrtf(dot_plain(x, x, n, DTYPE_F32) / (float)n + eps);
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t y = vmulq_n_f32(vld1q_f32(x + i), factor);
        vst1q_f32(out + i, w ? vmulq_f32(y, vld1q_f32(w + i)) : y);
    }
    for (; i < n; i++) out[i] = w ? x[i] * factor * w[i] : x[i] * factor;
}

static float max(const float *x, int64_t n) {
    float32x4_t largest = vdupq_n_f32(-INFINITY);
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) largest = vmaxnmq_f32(largest, vld1q_f32(x + i));
    float most = vmaxnmvq_f32(largest);
    for (; i < n; i++) most = x[i] > most ? x[i] : most;
    return most;
}

const kernels kernels_neon = {
    .name = "neon",
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
};
