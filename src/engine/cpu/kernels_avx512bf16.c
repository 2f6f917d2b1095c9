/* kernels_avx512bf16.c - products of BF16 weights for processors with AVX-512 BF16 (2020 and later).
 * vdpbf16ps multiplies pairs of BF16 numbers and adds them to F32 sums: no conversion of either side. */
#include "engine/cpu/kernels_avx512.h"

/* A panel of rows is one register wide. 12 tokens x 2 panels of rows are 24 sums: with 2 registers of weights
 * and a broadcast they fit the 32 there are, and each load serves as many products as possible. */
enum { ROWS = 16, TOKENS = 12, BLOCK_COLUMNS = 2048, CHUNK = 32, AHEAD = 4096 };

static bool supported(void) {
    return __builtin_cpu_supports("avx512bf16") && kernels_avx512vnni.supported();
}

/* ---- packing ---- */

/* 32 floats as 16 pairs of BF16. */
INLINE __m512i pairs_of(const float *x) {
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
}

INLINE __m512i some_pairs_of(const float *x, int64_t n) {
    float copy[CHUNK] = {0};
    memcpy(copy, x, (size_t)n * sizeof *x);
    return pairs_of(copy);
}

/* The first n numbers, at most 32, then zeros. */
INLINE __m512i load_pairs(const uint16_t *p, int64_t n) {
    return _mm512_maskz_loadu_epi16(n < CHUNK ? (1u << n) - 1 : 0xffffffff, p);
}

static size_t panel_bytes(const rows *w, int64_t count) {
    return (size_t)(round_up(w->n, CHUNK) * count) * sizeof(uint16_t);
}

static size_t row_panel_bytes(const rows *w) {
    return panel_bytes(w, ROWS);
}

static size_t token_panel_bytes(const rows *w) {
    return panel_bytes(w, TOKENS);
}

/* A panel: [n / 2][ROWS or TOKENS][2], n rounded up to 32, zeros where there is nothing. */
static void pack_rows(void *panel, const rows *w, int64_t first, int64_t n_rows) {
    uint16_t *to = panel;
    for (int64_t c = 0; c < w->n; c += CHUNK, to += CHUNK * ROWS) {
        __m512i a[ROWS];
        int64_t n = w->n - c < CHUNK ? w->n - c : CHUNK;
        for (int64_t i = 0; i < ROWS; i++) {
            const uint16_t *from = (const uint16_t *)w->values + (first + i) * w->n + c;
            a[i] = i < n_rows ? load_pairs(from, n) : _mm512_setzero_si512();
        }
        transpose(a);
        for (int i = 0; i < ROWS; i++) _mm512_storeu_si512(to + i * 2 * ROWS, a[i]);
    }
}

static void pack_tokens(void *panel, const rows *w, const float *x, int64_t x_stride, int64_t n_tokens) {
    int32_t pairs[CHUNK / 2];
    int64_t n = w->n;
    if (n_tokens < TOKENS) memset(panel, 0, token_panel_bytes(w));
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t c = 0; c < n; c += CHUNK) {
            const float *from = x + t * x_stride + c;
            _mm512_storeu_si512(pairs, n - c < CHUNK ? some_pairs_of(from, n - c) : pairs_of(from));
            char *to = (char *)panel + (c / 2 * TOKENS + t) * (int64_t)sizeof *pairs;
            for (int i = 0; i < CHUNK / 2; i++)
                memcpy(to + i * TOKENS * (int)sizeof *pairs, pairs + i, sizeof *pairs);
        }
}

/* ---- one token ---- */

static size_t prepared_bytes(const rows *w) {
    return panel_bytes(w, 1);
}

static void prepare(void *prepared, const rows *w, const float *x) {
    for (int64_t c = 0; c < w->n; c += CHUNK)
        _mm512_storeu_si512((uint16_t *)prepared + c,
                            w->n - c < CHUNK ? some_pairs_of(x + c, w->n - c) : pairs_of(x + c));
}

static void matvec(float *y, const rows *w, int64_t first, int64_t end, const void *prepared) {
    const uint16_t *x = prepared;
    for (int64_t r = first; r < end; r++) {
        const uint16_t *row = (const uint16_t *)w->values + r * w->n;
        __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
        int64_t c = 0;
        for (; c + 4 * CHUNK <= w->n; c += 4 * CHUNK)
            for (int k = 0; k < 4; k++) {
                const uint16_t *at = row + c + k * CHUNK;
                _mm_prefetch((const char *)at + AHEAD, _MM_HINT_T0);
                sum[k] = _mm512_dpbf16_ps(sum[k], (__m512bh)_mm512_loadu_si512(at),
                                          (__m512bh)_mm512_loadu_si512(x + c + k * CHUNK));
            }
        for (; c < w->n; c += CHUNK)
            sum[0] = _mm512_dpbf16_ps(sum[0], (__m512bh)load_pairs(row + c, w->n - c),
                                      (__m512bh)_mm512_loadu_si512(x + c));
        y[r] =
            _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
    }
}

/* ---- many tokens ---- */

/* Sums of n columns in registers; added to out when `add`. masks: which rows of each panel exist. */
INLINE void multiply(float *out, int64_t out_stride, const uint16_t *x, const uint16_t *w, int64_t w_stride,
                     int64_t n, bool add, const __mmask16 masks[2], int n_tokens, int n_panels) {
    __m512 sum[TOKENS][2];
    for (int t = 0; t < n_tokens; t++)
        for (int p = 0; p < n_panels; p++)
            sum[t][p] =
                add ? _mm512_maskz_loadu_ps(masks[p], out + t * out_stride + p * ROWS) : _mm512_setzero_ps();
    for (int64_t k = 0; k < n; k += 2, w += 2 * ROWS, x += 2 * TOKENS) {
        __m512bh weights[2];
        for (int p = 0; p < n_panels; p++) weights[p] = (__m512bh)_mm512_loadu_si512(w + p * w_stride);
        for (int t = 0; t < n_tokens; t++) {
            int32_t pair;
            memcpy(&pair, x + 2 * t, sizeof pair);
            for (int p = 0; p < n_panels; p++)
                sum[t][p] = _mm512_dpbf16_ps(sum[t][p], weights[p], (__m512bh)_mm512_set1_epi32(pair));
        }
    }
    for (int t = 0; t < n_tokens; t++)
        for (int p = 0; p < n_panels; p++)
            _mm512_mask_storeu_ps(out + t * out_stride + p * ROWS, masks[p], sum[t][p]);
}

/* One panel of tokens; few of them are not padded to all twelve. */
static void multiply_tokens(float *out, int64_t out_stride, const uint16_t *x, const uint16_t *w,
                            int64_t w_stride, int64_t n, bool add, const __mmask16 masks[2],
                            int64_t n_tokens) {
    if (n_tokens >= TOKENS) {
        multiply(out, out_stride, x, w, w_stride, n, add, masks, TOKENS, 2);
        return;
    }
    for (; n_tokens >= 4; n_tokens -= 4, out += 4 * out_stride, x += 8)
        multiply(out, out_stride, x, w, w_stride, n, add, masks, 4, 2);
    for (; n_tokens; n_tokens--, out += out_stride, x += 2)
        multiply(out, out_stride, x, w, w_stride, n, add, masks, 1, 2);
}

static void multiply_panels(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens,
                            const void *panels, int64_t n_rows, const rows *of) {
    const uint16_t *x = tokens, *w = panels;
    int64_t width = round_up(of->n, CHUNK);
    for (int64_t c = 0; c < width; c += BLOCK_COLUMNS) {
        int64_t columns = width - c < BLOCK_COLUMNS ? width - c : BLOCK_COLUMNS;
        for (int64_t t = 0; t < n_tokens; t += TOKENS)
            for (int64_t r = 0; r < n_rows; r += 2 * ROWS) {
                int64_t rest = n_rows - r;
                __mmask16 masks[2] = {rest < ROWS ? (__mmask16)((1u << rest) - 1) : 0xffff,
                                      rest >= 2 * ROWS ? 0xffff
                                      : rest > ROWS    ? (__mmask16)((1u << (rest - ROWS)) - 1)
                                                       : 0};
                /* without a second panel the first is read twice, and its sums are not stored */
                multiply_tokens(out + t * out_stride + r, out_stride, x + (t * width + c * TOKENS),
                                w + r * width + c * ROWS, rest > ROWS ? width * ROWS : 0, columns, c > 0,
                                masks, n_tokens - t);
            }
    }
}

static const products bf16_products = {
    .prepared_bytes = prepared_bytes,
    .prepare = prepare,
    .matvec = matvec,
    .panel_rows = ROWS,
    .panel_tokens = TOKENS,
    .row_panel_bytes = row_panel_bytes,
    .token_panel_bytes = token_panel_bytes,
    .pack_rows = pack_rows,
    .pack_tokens = pack_tokens,
    .multiply = multiply_panels,
};

const kernels kernels_avx512bf16 = {
    .name = "avx512bf16",
    .supported = supported,
    .base = &kernels_avx512vnni,
    .attention = &attention_bf16,
    .bf16 = &bf16_products,
};
