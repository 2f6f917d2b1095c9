/* kernels/neon/int.h - int16 and int8 products for ARM, compiled twice: with dot products
 * (dotprod), and with products of 2 x 8 by 8 x 2 matrices (i8mm). One source, as only the innermost
 * steps differ.
 *
 * An activation of 16 bits is 256 * high + low, high signed and low not; one of 8 bits is high
 * alone. Weights have no sign. dotprod multiplies only bytes of one kind: 8-bit weights are lowered
 * by 128 for `high`, and 128 times the sum of the high parts (`offset`) is added to each group's
 * product. */
#ifndef ENGINE_CPU_KERNELS_NEON_INT_H
#define ENGINE_CPU_KERNELS_NEON_INT_H

#include "engine/cpu/kernels/neon/neon.h"

#include <float.h>

/* A panel of rows or tokens holds UNIT columns of each one after another, as those of Arm's
 * KleidiAI do. TOKENS x ROWS sums take 8 registers in F32, 8 or 16 as integers. */
enum { ROWS = 8, TOKENS = 4, MAX_GROUPS = 256, MAX_GROUP = 128 };
#ifdef __ARM_FEATURE_MATMUL_INT8
enum { UNIT = 8 };
#else
enum { UNIT = 4 };
#endif

/* Are 8-bit weights lowered? */
INLINE bool lowers(int bits) {
    return UNIT == 4 && bits == 8;
}

INLINE size_t round_up(int64_t bytes) {
    return (size_t)(bytes + 63) / 64 * 64;
}

INLINE int64_t groups_of(const rows *w) {
    return w->n / w->group_size;
}

/* ---- activations ---- */

typedef struct group {
    float scale, sum, offset; /* sum, offset: of the rounded numbers, times the scale */
    int8_t high[MAX_GROUP];
    uint8_t low[MAX_GROUP];
} group;

/* Compared as integers, NaN is the largest of all. */
INLINE float largest_of(const float *x, int n) {
    uint32x4_t most = vdupq_n_u32(0), positive = vdupq_n_u32(0x7fffffff);
    for (int i = 0; i < n; i += 4)
        most = vmaxq_u32(most, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + i)), positive));
    return vgetq_lane_f32(vreinterpretq_f32_u32(vdupq_n_u32(vmaxvq_u32(most))), 0);
}

INLINE int16x4_t round4(const float *x, float factor) {
    return vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), factor)));
}

static void round_group(group *to, const float *x, int n, int parts) {
    float largest = largest_of(x, n), most = parts == 2 ? MOST_INT16 : MOST_INT8;
    bool usable = largest >= 1e-30f && largest <= FLT_MAX;
    float factor = usable ? most / largest : 0;
    int32x4_t sum = vdupq_n_s32(0), highs = vdupq_n_s32(0);
    for (int i = 0; i < n; i += 8) {
        int16x8_t v = vcombine_s16(round4(x + i, factor), round4(x + i + 4, factor));
        if (!usable) v = vdupq_n_s16(0);
        int8x8_t high = parts == 2 ? vshrn_n_s16(v, 8) : vmovn_s16(v);
        vst1_s8(to->high + i, high);
        vst1_u8(to->low + i, vreinterpret_u8_s8(vmovn_s16(v)));
        sum = vpadalq_s16(sum, v);
        highs = vpadalq_s16(highs, vmovl_s8(high));
    }
    to->scale = largest < 1e-30f ? 0 : largest / most;
    to->sum = to->scale * (float)vaddvq_s32(sum);
    to->offset = to->scale * (float)vaddvq_s32(highs) * (parts == 2 ? 128 * 256 : 128);
}

/* ---- one token ---- */

/* What prepare makes: numbers of each group, padded with zeros to whole vectors, then per 32
 * columns 32 high bytes and, with two parts, 32 low ones. */
typedef struct token {
    float *scales, *sums, *offsets;
    int8_t *values;
} token;

INLINE int64_t padded_groups(const rows *w) {
    return (groups_of(w) + 3) / 4 * 4;
}

INLINE token token_at(const void *prepared, const rows *w) {
    float *scales = (float *)(uintptr_t)prepared;
    int64_t n = padded_groups(w);
    return (token){scales, scales + n, scales + 2 * n, (int8_t *)(scales + 3 * n)};
}

INLINE size_t prepared_bytes(const rows *w, int parts) {
    return round_up(3 * padded_groups(w) * (int64_t)sizeof(float) + parts * w->n);
}

/* 4-bit weights are taken apart into even and odd ones, so x is stored like this. */
INLINE void store32(int8_t *to, const void *bytes, int bits) {
    uint8x16_t first = vld1q_u8(bytes), last = vld1q_u8((const uint8_t *)bytes + 16);
    vst1q_u8((uint8_t *)to, bits == 4 ? vuzp1q_u8(first, last) : first);
    vst1q_u8((uint8_t *)to + 16, bits == 4 ? vuzp2q_u8(first, last) : last);
}

INLINE void prepare(void *prepared, const rows *w, const float *x, int parts) {
    token t = token_at(prepared, w);
    int8_t *to = t.values;
    for (int64_t g = groups_of(w); g < padded_groups(w); g++) t.scales[g] = t.sums[g] = t.offsets[g] = 0;
    for (int64_t g = 0; g < groups_of(w); g++, x += w->group_size) {
        group rounded;
        round_group(&rounded, x, w->group_size, parts);
        t.scales[g] = rounded.scale;
        t.sums[g] = rounded.sum;
        t.offsets[g] = rounded.offset;
        for (int i = 0; i < w->group_size; i += 32, to += 32 * parts) {
            store32(to, rounded.high + i, w->bits);
            if (parts == 2) store32(to + 32, rounded.low + i, w->bits);
        }
    }
}

INLINE int32x4_t dot_high(int32x4_t sum, uint8x16_t q, int8x16_t x, bool lowered) {
#ifdef __ARM_FEATURE_MATMUL_INT8
    (void)lowered;
    return vusdotq_s32(sum, q, x);
#else
    if (lowered) q = veorq_u8(q, vdupq_n_u8(128));
    return vdotq_s32(sum, vreinterpretq_s8_u8(q), x);
#endif
}

/* Below 2^31 for a group of 128 weights of 8 bits. */
INLINE float32x4_t join(int32x4_t high, uint32x4_t low, int parts) {
    if (parts == 2) high = vaddq_s32(vshlq_n_s32(high, 8), vreinterpretq_s32_u32(low));
    return vcvtq_f32_s32(high);
}

/* The part of row r that lies in groups [g, g + n). */
INLINE float dot_row(const rows *w, int64_t r, int64_t g, int64_t n, const token *x, int bits, int parts) {
    float scales[MAX_GROUPS + 4] = {0}, biases[MAX_GROUPS + 4] = {0};
    int64_t first = r * groups_of(w) + g;
    const uint8_t *packed = (const uint8_t *)w->values + first * w->group_size * bits / 8;
    const int8_t *v = x->values + g * w->group_size * parts;
    float32x4_t total = vdupq_n_f32(0);
    kernels_neon.to_f32(scales, at(w->scales, w->dtype, first), w->dtype, n);
    kernels_neon.to_f32(biases, at(w->biases, w->dtype, first), w->dtype, n);
    for (int64_t i = 0; i < n; i += 4) {
        float32x4_t scale = vld1q_f32(scales + i);
        total = vfmaq_f32(total, vld1q_f32(biases + i), vld1q_f32(x->sums + g + i));
        if (lowers(bits)) total = vfmaq_f32(total, scale, vld1q_f32(x->offsets + g + i));
        vst1q_f32(scales + i, vmulq_f32(scale, vld1q_f32(x->scales + g + i)));
    }
    for (int64_t i = 0; i < n; i++) {
        int32x4_t high = vdupq_n_s32(0);
        uint32x4_t low = vdupq_n_u32(0);
        for (int k = 0; k < w->group_size; k += 32, packed += 4 * bits, v += 32 * parts) {
            uint8x16x2_t q = bits == 4 ? nibbles32(packed) : quants32(packed, bits);
            for (int half = 0; half < 2; half++) {
                high = dot_high(high, q.val[half], vld1q_s8(v + 16 * half), lowers(bits));
                if (parts == 2)
                    low = vdotq_u32(low, q.val[half], vreinterpretq_u8_s8(vld1q_s8(v + 32 + 16 * half)));
            }
        }
        total = vfmaq_n_f32(total, join(high, low, parts), scales[i]);
    }
    return vaddvq_f32(total);
}

INLINE void matvec_bits(float *y, const rows *w, int64_t first, int64_t end, const void *prepared, int bits,
                        int parts) {
    token x = token_at(prepared, w);
    for (int64_t g = 0; g < groups_of(w); g += MAX_GROUPS) {
        int64_t n = groups_of(w) - g < MAX_GROUPS ? groups_of(w) - g : MAX_GROUPS;
        for (int64_t r = first; r < end; r++) {
            float part = dot_row(w, r, g, n, &x, bits, parts);
            y[r] = g ? y[r] + part : part;
        }
    }
}

INLINE void matvec(float *y, const rows *w, runs rs, const void *prepared, int parts) {
    for (int k = 0; k < count_runs(rs); k++) {
        int64_t first = one_run(rs, k).first, end = one_run(rs, k).end;
        if (w->bits == 1) matvec_bits(y, w, first, end, prepared, 1, parts);
        if (w->bits == 2) matvec_bits(y, w, first, end, prepared, 2, parts);
        if (w->bits == 3) matvec_bits(y, w, first, end, prepared, 3, parts);
        if (w->bits == 4) matvec_bits(y, w, first, end, prepared, 4, parts);
        if (w->bits == 5) matvec_bits(y, w, first, end, prepared, 5, parts);
        if (w->bits == 6) matvec_bits(y, w, first, end, prepared, 6, parts);
        if (w->bits == 8) matvec_bits(y, w, first, end, prepared, 8, parts);
    }
}

/* ---- panels ---- */

/* Scales and biases [groups][ROWS], then bytes [n / UNIT][ROWS][UNIT]. */
static size_t row_panel_bytes(const rows *w) {
    return round_up(ROWS * (2 * groups_of(w) * (int64_t)sizeof(float) + w->n));
}

/* Scales, sums and offsets [groups][TOKENS], then bytes [n / UNIT][parts][TOKENS][UNIT]. */
INLINE size_t token_panel_bytes(const rows *w, int parts) {
    return round_up(TOKENS * (3 * groups_of(w) * (int64_t)sizeof(float) + w->n * parts));
}

/* n bytes into a panel that has `stride` bytes from unit to unit. */
INLINE void scatter(uint8_t *to, int64_t stride, const void *bytes, int64_t n) {
    for (int64_t i = 0; i < n; i += UNIT, to += stride) memcpy(to, (const char *)bytes + i, UNIT);
}

INLINE void pack_row(uint8_t *to, const uint8_t *packed, int64_t n, int bits) {
    for (int64_t c = 0; c < n; c += 32, packed += 4 * bits, to += 32 * ROWS) {
        uint8x16x2_t q = quants32(packed, bits);
        uint8_t bytes[32];
        vst1q_u8(bytes, q.val[0]);
        vst1q_u8(bytes + 16, q.val[1]);
        scatter(to, ROWS * UNIT, bytes, 32);
    }
}

static void pack_rows(void *panel, const rows *w, int64_t first, int64_t n_rows) {
    int64_t groups = groups_of(w);
    float *scales = panel, *biases = scales + groups * ROWS;
    if (n_rows < ROWS) memset(panel, 0, row_panel_bytes(w));
    for (int64_t i = 0; i < n_rows; i++) {
        const uint8_t *packed = (const uint8_t *)w->values + (first + i) * w->n * w->bits / 8;
        uint8_t *to = (uint8_t *)(biases + groups * ROWS) + i * UNIT;
        for (int64_t g = 0, from = (first + i) * groups; g < groups; g++) {
            floats_from(scales + g * ROWS + i, at(w->scales, w->dtype, from + g), w->dtype, 1);
            floats_from(biases + g * ROWS + i, at(w->biases, w->dtype, from + g), w->dtype, 1);
        }
        if (w->bits == 1) pack_row(to, packed, w->n, 1);
        if (w->bits == 2) pack_row(to, packed, w->n, 2);
        if (w->bits == 3) pack_row(to, packed, w->n, 3);
        if (w->bits == 4) pack_row(to, packed, w->n, 4);
        if (w->bits == 5) pack_row(to, packed, w->n, 5);
        if (w->bits == 6) pack_row(to, packed, w->n, 6);
        if (w->bits == 8) pack_row(to, packed, w->n, 8);
    }
}

INLINE void pack_tokens(void *panel, const rows *w, const float *x, int64_t x_stride, int64_t n_tokens,
                        int parts) {
    int64_t groups = groups_of(w), stride = parts * TOKENS * UNIT;
    float *scales = panel, *sums = scales + groups * TOKENS, *offsets = sums + groups * TOKENS;
    if (n_tokens < TOKENS) memset(panel, 0, token_panel_bytes(w, parts));
    for (int64_t t = 0; t < n_tokens; t++, x += x_stride) {
        uint8_t *to = (uint8_t *)(offsets + groups * TOKENS) + t * UNIT;
        for (int64_t g = 0; g < groups; g++, to += w->group_size / UNIT * stride) {
            group rounded;
            round_group(&rounded, x + g * w->group_size, w->group_size, parts);
            scales[g * TOKENS + t] = rounded.scale;
            sums[g * TOKENS + t] = rounded.sum;
            offsets[g * TOKENS + t] = rounded.offset;
            scatter(to, stride, rounded.high, w->group_size);
            if (parts == 2) scatter(to + TOKENS * UNIT, stride, rounded.low, w->group_size);
        }
    }
}

/* Integer sums of a group: 4 rows of a token each, or with i8mm [token pair][row pair] of 2 x 2
 * blocks. */
typedef struct sums {
    int32x4_t high[TOKENS][2];
    uint32x4_t low[TOKENS][2];
} sums;

#ifdef __ARM_FEATURE_MATMUL_INT8
INLINE void add_unit(sums *s, const uint8_t *q, const int8_t *x, int parts, bool lowered) {
    (void)lowered;
    for (int p = 0; p < 4; p++) {
        uint8x16_t row_pair = vld1q_u8(q + 16 * p);
        for (int t = 0; t < 2; t++) {
            int32x4_t *high = &s->high[2 * t + p / 2][p % 2];
            uint32x4_t *low = &s->low[2 * t + p / 2][p % 2];
            *high = vusmmlaq_s32(*high, row_pair, vld1q_s8(x + 16 * t));
            if (parts == 2) *low = vmmlaq_u32(*low, row_pair, vreinterpretq_u8_s8(vld1q_s8(x + 32 + 16 * t)));
        }
    }
}

/* [token][4 rows] of blocks whose lanes are row 0 of token 0 and 1, row 1 of token 0 and 1. */
INLINE void rows_of_tokens(float32x4_t of[TOKENS][2]) {
    for (int t = 0; t < TOKENS; t += 2) {
        float32x4_t a = of[t][0], b = of[t][1], c = of[t + 1][0], d = of[t + 1][1];
        of[t][0] = vuzp1q_f32(a, b), of[t][1] = vuzp1q_f32(c, d);
        of[t + 1][0] = vuzp2q_f32(a, b), of[t + 1][1] = vuzp2q_f32(c, d);
    }
}
#else
INLINE void add_unit(sums *s, const uint8_t *q, const int8_t *x, int parts, bool lowered) {
    int8x16_t high = vld1q_s8(x);
    uint8x16_t low = parts == 2 ? vreinterpretq_u8_s8(vld1q_s8(x + 16)) : vdupq_n_u8(0);
    for (int p = 0; p < 2; p++) {
        uint8x16_t row = vld1q_u8(q + 16 * p);
        int8x16_t signed_row = vreinterpretq_s8_u8(lowered ? veorq_u8(row, vdupq_n_u8(128)) : row);
#define ADD_TOKEN(t)                                                                                         \
    s->high[t][p] = vdotq_laneq_s32(s->high[t][p], signed_row, high, t);                                     \
    if (parts == 2) s->low[t][p] = vdotq_laneq_u32(s->low[t][p], row, low, t)
        ADD_TOKEN(0);
        ADD_TOKEN(1);
        ADD_TOKEN(2);
        ADD_TOKEN(3);
#undef ADD_TOKEN
    }
}

INLINE void rows_of_tokens(float32x4_t of[TOKENS][2]) {
    (void)of; /* they are */
}
#endif

INLINE void multiply_tile(float *out, int64_t out_stride, const float *token_panel, int64_t n_tokens,
                          const float *row_panel, int64_t n_rows, const rows *w, int parts, bool lowered) {
    int64_t groups = groups_of(w);
    const uint8_t *q = (const uint8_t *)(row_panel + 2 * groups * ROWS);
    const int8_t *x = (const int8_t *)(token_panel + 3 * groups * TOKENS);
    float32x4_t total[TOKENS][2];
    for (int i = 0; i < 2 * TOKENS; i++) total[i / 2][i % 2] = vdupq_n_f32(0);
    for (int64_t g = 0; g < groups; g++, token_panel += TOKENS, row_panel += ROWS) {
        sums s;
        float32x4_t product[TOKENS][2];
        for (int i = 0; i < 2 * TOKENS; i++)
            s.high[i / 2][i % 2] = vdupq_n_s32(0), s.low[i / 2][i % 2] = vdupq_n_u32(0);
        for (int k = 0; k < w->group_size; k += UNIT, q += ROWS * UNIT, x += parts * TOKENS * UNIT)
            add_unit(&s, q, x, parts, lowered);
        for (int i = 0; i < 2 * TOKENS; i++)
            product[i / 2][i % 2] = join(s.high[i / 2][i % 2], s.low[i / 2][i % 2], parts);
        rows_of_tokens(product);
        for (int i = 0; i < 2 * TOKENS; i++) {
            int t = i / 2, p = i % 2;
            float32x4_t scale = vld1q_f32(row_panel + 4 * p);
            float32x4_t bias = vld1q_f32(row_panel + groups * ROWS + 4 * p);
            float32x4_t scaled = vmulq_n_f32(product[t][p], token_panel[t]);
            if (lowered) scaled = vaddq_f32(scaled, vdupq_n_f32(token_panel[2 * groups * TOKENS + t]));
            total[t][p] = vfmaq_f32(total[t][p], scaled, scale);
            total[t][p] = vfmaq_n_f32(total[t][p], bias, token_panel[groups * TOKENS + t]);
        }
    }
    for (int64_t t = 0; t < n_tokens; t++)
        for (int p = 0; p < 2 && 4 * p < n_rows; p++)
            if (n_rows - 4 * p >= 4)
                vst1q_f32(out + t * out_stride + 4 * p, total[t][p]);
            else
                store_some(out + t * out_stride + 4 * p, total[t][p], n_rows - 4 * p);
}

INLINE void multiply(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens, const void *panels,
                     int64_t n_rows, const rows *w, int parts, bool lowered) {
    int64_t row_floats = (int64_t)(row_panel_bytes(w) / sizeof(float));
    int64_t token_floats = (int64_t)(token_panel_bytes(w, parts) / sizeof(float));
    const float *x = tokens;
    for (int64_t t = 0; t < n_tokens; t += TOKENS, x += token_floats) {
        const float *q = panels;
        for (int64_t r = 0; r < n_rows; r += ROWS, q += row_floats)
            multiply_tile(out + t * out_stride + r, out_stride, x,
                          n_tokens - t < TOKENS ? n_tokens - t : TOKENS, q,
                          n_rows - r < ROWS ? n_rows - r : ROWS, w, parts, lowered);
    }
}

/* ---- the two forms ---- */

#define PRODUCTS(form, parts)                                                                                \
    static size_t prepared_bytes_##form(const rows *w) {                                                     \
        return prepared_bytes(w, parts);                                                                     \
    }                                                                                                        \
    static void prepare_##form(void *prepared, const rows *w, const float *x) {                              \
        prepare(prepared, w, x, parts);                                                                      \
    }                                                                                                        \
    static void matvec_##form(float *y, const rows *w, runs rs, const void *prepared) {                      \
        matvec(y, w, rs, prepared, parts);                                                                   \
    }                                                                                                        \
    static size_t token_panel_bytes_##form(const rows *w) {                                                  \
        return token_panel_bytes(w, parts);                                                                  \
    }                                                                                                        \
    static void pack_tokens_##form(void *panel, const rows *w, const float *x, int64_t x_stride,             \
                                   int64_t n_tokens) {                                                       \
        pack_tokens(panel, w, x, x_stride, n_tokens, parts);                                                 \
    }                                                                                                        \
    static void multiply_##form(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens,        \
                                const void *panels, int64_t n_rows, const rows *w) {                         \
        if (lowers(w->bits))                                                                                 \
            multiply(out, out_stride, tokens, n_tokens, panels, n_rows, w, parts, true);                     \
        else                                                                                                 \
            multiply(out, out_stride, tokens, n_tokens, panels, n_rows, w, parts, false);                    \
    }                                                                                                        \
    static const products form##_products = {                                                                \
        .prepared_bytes = prepared_bytes_##form,                                                             \
        .prepare = prepare_##form,                                                                           \
        .matvec = matvec_##form,                                                                             \
        .panel_rows = ROWS,                                                                                  \
        .panel_tokens = TOKENS,                                                                              \
        .row_panel_bytes = row_panel_bytes,                                                                  \
        .token_panel_bytes = token_panel_bytes_##form,                                                       \
        .pack_rows = pack_rows,                                                                              \
        .pack_tokens = pack_tokens_##form,                                                                   \
        .multiply = multiply_##form,                                                                         \
    }

PRODUCTS(int16, 2);
PRODUCTS(int8, 1);

#endif
