/* kernels/neon/neon.c - the kernels for every 64-bit ARM processor: NEON as ARMv8.0 has it, F32
 * arithmetic. Number types and bit widths are compile-time constants of inlined functions: no
 * branch in an inner loop. What other instruction sets do alike is in templates/. */
#include "engine/cpu/kernels/neon/vector.h"
#include "engine/cpu/kernels/templates/exp.h"

#ifdef __APPLE__
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

enum {
    MAX_GROUPS = 256, /* a row's scales are converted this many at a time */
    TOKENS = 6,
    SUMS = 16 /* of templates/matmul.h: 6 x 4 sums, 4 rows and a token fit the 32 registers */
};

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

/* ---- the templates ---- */

INLINE void fetch_ahead(const char *p, dtype type) {
    (void)p, (void)type; /* the processor does it */
}

INLINE float32x4_t power_of_2(int32x4_t k) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(k, vdupq_n_s32(127)), 23));
}

/* 2^k is multiplied in two steps, so that results below and above the normal numbers round to
 * subnormal ones and to infinity. */
INLINE vec v_exp(vec x) {
    x = v_min(v_all(89), v_max(v_all(-104), x)); /* NaN stays */
    vec k = vrndnq_f32(v_mul(x, v_all(1.44269504f)));
    int32x4_t power = vcvtq_s32_f32(k), half = vshrq_n_s32(power, 1);
    return v_mul(v_mul(exp_rest(x, k, 7), power_of_2(half)), power_of_2(vsubq_s32(power, half)));
}

#include "engine/cpu/kernels/templates/functions.h"
#include "engine/cpu/kernels/templates/gates.h"
#include "engine/cpu/kernels/templates/matmul.h"
#include "engine/cpu/kernels/templates/states.h"

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

static void matvec_quantized(float *y, const rows *w, int64_t first, int64_t end, const float *x,
                             const float *sums) {
    if (w->bits == 1) matvec_bits(y, w, first, end, x, sums, 1);
    if (w->bits == 2) matvec_bits(y, w, first, end, x, sums, 2);
    if (w->bits == 3) matvec_bits(y, w, first, end, x, sums, 3);
    if (w->bits == 4) matvec_bits(y, w, first, end, x, sums, 4);
    if (w->bits == 5) matvec_bits(y, w, first, end, x, sums, 5);
    if (w->bits == 6) matvec_bits(y, w, first, end, x, sums, 6);
    if (w->bits == 8) matvec_bits(y, w, first, end, x, sums, 8);
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

static void unpack_quantized(float *out, const rows *w, int64_t r) {
    if (w->bits == 1) unpack_affine(out, w, r, 1);
    if (w->bits == 2) unpack_affine(out, w, r, 2);
    if (w->bits == 3) unpack_affine(out, w, r, 3);
    if (w->bits == 4) unpack_affine(out, w, r, 4);
    if (w->bits == 5) unpack_affine(out, w, r, 5);
    if (w->bits == 6) unpack_affine(out, w, r, 6);
    if (w->bits == 8) unpack_affine(out, w, r, 8);
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
    .of = {[MATRIX_PLAIN] = {.matvec = matvec_plain, .unpack = unpack_plain},
           [MATRIX_AFFINE] = {.matvec = matvec_quantized, .unpack = unpack_quantized},
           [MATRIX_MXFP4] = {.matvec = neon_matvec_fp, .unpack = neon_unpack_fp},
           [MATRIX_MXFP8] = {.matvec = neon_matvec_fp, .unpack = neon_unpack_fp},
           [MATRIX_NVFP4] = {.matvec = neon_matvec_fp, .unpack = neon_unpack_fp}},
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
};
