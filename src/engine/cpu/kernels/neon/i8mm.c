/* kernels/neon/i8mm.c - products of small matrices, of int8 and of BF16, for ARM processors that
 * have both (2020 and later; Apple's from M2 on). The integer ones are kernels/neon/int.h; BF16 is
 * here, the rest in base. */
#include "engine/cpu/kernels/neon/int.h"

/* A panel of BF16 holds 4 columns of each row or token one after another: [n / 4][BF16_ROWS or
 * BF16_TOKENS][4]. 16 blocks of 2 x 2 sums, and 8 registers that they are multiplied from. */
enum { BF16_ROWS = 8, BF16_TOKENS = 8, COLUMNS = 4, CHUNK = 32 };

/* The first n <= 8 numbers, then zeros. */
INLINE bfloat16x8_t load_bf16(const void *p, int64_t n) {
    uint8_t bytes[16] = {0};
    if (n >= 8) return vreinterpretq_bf16_u8(vld1q_u8(p));
    memcpy(bytes, p, 2 * (size_t)n);
    return vreinterpretq_bf16_u8(vld1q_u8(bytes));
}

/* ---- one token: as BF16 ---- */

static size_t prepared_bytes_bf16(const rows *w) {
    return round_up(w->n * 2);
}

static void prepare_bf16(void *prepared, const rows *w, const float *x) {
    kernels_neon.from_f32(prepared, DTYPE_BF16, x, w->n);
}

static float dot_bf16(const uint8_t *row, const uint8_t *x, int64_t n) {
    float32x4_t sum[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (int k = 0; k < 4; k++)
            sum[k] =
                vbfdotq_f32(sum[k], load_bf16(row + 2 * i + 16 * k, 8), load_bf16(x + 2 * i + 16 * k, 8));
    for (; i < n; i += 8)
        sum[0] = vbfdotq_f32(sum[0], load_bf16(row + 2 * i, n - i), load_bf16(x + 2 * i, n - i));
    return vaddvq_f32(vaddq_f32(vaddq_f32(sum[0], sum[1]), vaddq_f32(sum[2], sum[3])));
}

static void matvec_bf16(float *y, const rows *w, runs rs, const void *prepared) {
    for (int k = 0; k < count_runs(rs); k++) {
        runs run = one_run(rs, k);
        for (int64_t r = run.first; r < run.end; r++)
            y[r] = dot_bf16((const uint8_t *)w->values + 2 * r * w->n, prepared, w->n);
    }
}

/* ---- many tokens ---- */

INLINE int64_t padded_columns(const rows *w) {
    return (w->n + COLUMNS - 1) / COLUMNS * COLUMNS;
}

static size_t row_panel_bytes_bf16(const rows *w) {
    return round_up(2 * padded_columns(w) * BF16_ROWS);
}

static size_t token_panel_bytes_bf16(const rows *w) {
    return round_up(2 * padded_columns(w) * BF16_TOKENS);
}

/* n numbers into a panel of `width` rows or tokens; zeros follow up to a whole group of columns. */
INLINE void scatter_bf16(char *to, int width, const void *numbers, int64_t n) {
    enum { BYTES = 2 * COLUMNS };
    const char *from = numbers;
    for (; n >= COLUMNS; n -= COLUMNS, to += width * BYTES, from += BYTES) memcpy(to, from, BYTES);
    if (n) {
        memset(to, 0, BYTES);
        memcpy(to, from, 2 * (size_t)n);
    }
}

static void pack_rows_bf16(void *panel, const rows *w, int64_t first, int64_t n_rows) {
    if (n_rows < BF16_ROWS) memset(panel, 0, row_panel_bytes_bf16(w));
    for (int64_t i = 0; i < n_rows; i++)
        scatter_bf16((char *)panel + i * 2 * COLUMNS, BF16_ROWS,
                     (const char *)w->values + 2 * (first + i) * w->n, w->n);
}

static void pack_tokens_bf16(void *panel, const rows *w, const float *x, int64_t x_stride, int64_t n_tokens) {
    if (n_tokens < BF16_TOKENS) memset(panel, 0, token_panel_bytes_bf16(w));
    for (int64_t t = 0; t < n_tokens; t++, x += x_stride)
        for (int64_t c = 0; c < w->n; c += CHUNK) {
            uint16_t numbers[CHUNK];
            int64_t n = w->n - c < CHUNK ? w->n - c : CHUNK;
            kernels_neon.from_f32(numbers, DTYPE_BF16, x + c, n);
            scatter_bf16((char *)panel + 2 * (c * BF16_TOKENS + t * COLUMNS), BF16_TOKENS, numbers, n);
        }
}

/* One panel by the other. Lanes of a block: token 0 with row 0 and 1, token 1 with row 0 and 1. */
static void multiply_tile_bf16(float *out, int64_t out_stride, const uint8_t *x, int64_t n_tokens,
                               const uint8_t *w, int64_t n_rows, int64_t n) {
    float32x4_t sum[BF16_TOKENS / 2][BF16_ROWS / 2];
    for (int t = 0; t < BF16_TOKENS / 2; t++)
        for (int r = 0; r < BF16_ROWS / 2; r++) sum[t][r] = vdupq_n_f32(0);
    for (int64_t c = 0; c < n; c += COLUMNS, x += 8 * BF16_TOKENS, w += 8 * BF16_ROWS) {
        bfloat16x8_t row[BF16_ROWS / 2];
        for (int r = 0; r < BF16_ROWS / 2; r++) row[r] = load_bf16(w + 16 * r, 8);
        for (int t = 0; t < BF16_TOKENS / 2; t++) {
            bfloat16x8_t pair = load_bf16(x + 16 * t, 8);
            for (int r = 0; r < BF16_ROWS / 2; r++) sum[t][r] = vbfmmlaq_f32(sum[t][r], pair, row[r]);
        }
    }
    for (int64_t t = 0; t < n_tokens; t++) {
        float of_token[BF16_ROWS];
        for (int r = 0; r < BF16_ROWS / 2; r++)
            vst1_f32(of_token + 2 * r, t % 2 ? vget_high_f32(sum[t / 2][r]) : vget_low_f32(sum[t / 2][r]));
        memcpy(out + t * out_stride, of_token, (size_t)n_rows * sizeof *out);
    }
}

static void multiply_bf16(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens,
                          const void *panels, int64_t n_rows, const rows *w) {
    int64_t row_bytes = (int64_t)row_panel_bytes_bf16(w), token_bytes = (int64_t)token_panel_bytes_bf16(w);
    for (int64_t t = 0; t < n_tokens; t += BF16_TOKENS)
        for (int64_t r = 0; r < n_rows; r += BF16_ROWS)
            multiply_tile_bf16(out + t * out_stride + r, out_stride,
                               (const uint8_t *)tokens + t / BF16_TOKENS * token_bytes,
                               n_tokens - t < BF16_TOKENS ? n_tokens - t : BF16_TOKENS,
                               (const uint8_t *)panels + r / BF16_ROWS * row_bytes,
                               n_rows - r < BF16_ROWS ? n_rows - r : BF16_ROWS, padded_columns(w));
}

static const products bf16_products = {
    .prepared_bytes = prepared_bytes_bf16,
    .prepare = prepare_bf16,
    .matvec = matvec_bf16,
    .panel_rows = BF16_ROWS,
    .panel_tokens = BF16_TOKENS,
    .row_panel_bytes = row_panel_bytes_bf16,
    .token_panel_bytes = token_panel_bytes_bf16,
    .pack_rows = pack_rows_bf16,
    .pack_tokens = pack_tokens_bf16,
    .multiply = multiply_bf16,
};

const kernels kernels_neon_i8mm = {
    .name = "i8mm",
    .supported = neon_has_matrix_products,
    .base = &kernels_neon,
    .of = {[MATRIX_PLAIN] = {.bf16 = &bf16_products},
           [MATRIX_AFFINE] = {.int16 = &int16_products, .int8 = &int8_products}},
};
