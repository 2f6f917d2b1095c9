/* kernels/avx512/avx512.c - F32 products for processors with AVX-512 (2017 and later): twice as
 * wide as AVX2. Where the VNNI and BF16 tables have nothing faster, which is where scales are F32,
 * they take these. */
#include "engine/cpu/kernels/avx512/exp.h"

/* A panel of rows is one register wide. 12 tokens x 2 panels of rows are 24 sums: with 2 registers
 * of weights and a broadcast they fit the 32 there are, and each load serves as many products as
 * possible. */
enum { ROWS = 16, TOKENS = 12, BLOCK_COLUMNS = 512 };

static bool supported(void) {
    return x86_has(X86_AVX512F | X86_AVX512BW | X86_AVX512VL | X86_AVX512DQ) && kernels_avx2.supported();
}

/* ---- quantized rows times one token ---- */

/* 4 bits: 64 bytes, where bits 4 k and on of the 16 words are looked up, which needs no conversion.
 * Else two registers of 16 values. */
INLINE int block_width(int bits) {
    return bits == 4 ? 128 : 32;
}

INLINE int block_bytes(form f) {
    return block_width(f.bits) * (int)sizeof(float);
}

/* 16 values of 1 to 8 bits: 2 * bits bytes. */
INLINE __m512 quants16(const uint8_t *packed, int bits) {
    if (bits == 8) return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)packed)));
    __m128i bytes = _mm_maskz_loadu_epi8((__mmask16)((1u << 2 * bits) - 1), packed);
    __m512i first_bit = _mm512_mullo_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(bits));
    /* each lane gets the two bytes its value may lie in, and zeros */
    __m512i byte = _mm512_srli_epi32(first_bit, 3);
    __m512i two = _mm512_add_epi32(_mm512_mullo_epi32(byte, _mm512_set1_epi32(0x0101)),
                                   _mm512_set1_epi32((int)0x80800100));
    __m512i q = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), two);
    q = _mm512_srlv_epi32(q, _mm512_and_si512(first_bit, _mm512_set1_epi32(7)));
    return _mm512_cvtepi32_ps(_mm512_and_si512(q, _mm512_set1_epi32((1 << bits) - 1)));
}

/* What the 4-bit codes of f stand for. */
INLINE __m512 values_of(form f) {
    if (f.kind == MATRIX_AFFINE) return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -0.5f, -1, -1.5f, -2, -3, -4, -6);
}

/* 16 numbers without scale and bias; those of mxfp8 divided by 256. */
INLINE __m512 numbers16(const uint8_t *packed, form f) {
    if (f.kind == MATRIX_MXFP8) return from_e4m3(_mm_loadu_si128((const void *)packed));
    if (f.kind == MATRIX_AFFINE) return quants16(packed, f.bits);
    return _mm512_permutexvar_ps(_mm512_cvtps_epi32(quants16(packed, f.bits)), values_of(f));
}

INLINE __m512i dot_one(const uint8_t *packed, int64_t n_bytes, const char *x, form f) {
    if (f.bits == 1) { /* bits are masks */
        uint16_t bits[2];
        memcpy(bits, packed, sizeof bits);
        __m512 first = _mm512_maskz_loadu_ps(bits[0], x);
        return _mm512_castps_si512(_mm512_mask_add_ps(first, bits[1], first, _mm512_load_ps(x + 64)));
    }
    if (f.bits != 4)
        return _mm512_castps_si512(
            _mm512_fmadd_ps(quants16(packed + 2 * f.bits, f.bits), _mm512_load_ps(x + 64),
                            _mm512_mul_ps(quants16(packed, f.bits), _mm512_load_ps(x))));
    __m512i q = load_bytes(packed, n_bytes);
    __m512 sum = _mm512_mul_ps(_mm512_permutexvar_ps(q, values_of(f)), _mm512_load_ps(x));
    for (unsigned k = 1; k < 8; k++)
        sum = _mm512_fmadd_ps(_mm512_permutexvar_ps(_mm512_srli_epi32(q, 4 * k), values_of(f)),
                              _mm512_load_ps(x + k * 64), sum);
    return _mm512_castps_si512(sum);
}

#include "engine/cpu/kernels/avx512/floats.h"

INLINE __m512 biases_of(const rows *w, int64_t i, int64_t n, form f) {
    (void)f;
    return take_biases(w, i, n);
}

INLINE bool has_biases(form f) {
    return f.kind == MATRIX_AFFINE;
}

#include "engine/cpu/kernels/avx512/matvec.h"

/* ---- plain rows times one token ---- */

/* y[k * apart] = dot(row r + k * apart, x) for k < R. Memory is read as affine rows are. */
INLINE void dot_plain(float *y, const rows *w, int64_t r, int64_t apart, const float *x, dtype type, int R) {
    const char *row = at(w->values, type, r * w->n);
    int64_t c = 0, next = apart * w->n;
    __m512 sum[RUNS], more[RUNS];
    for (int k = 0; k < RUNS; k++) sum[k] = more[k] = _mm512_setzero_ps();
    for (; c + 32 <= w->n; c += 32)
        for (int k = 0; k < R; k++) {
            const char *p = at(row, type, k * next + c), *q = at(p, type, 16);
            _mm_prefetch(p + AHEAD, _MM_HINT_T0);
            if (type == DTYPE_F32) _mm_prefetch(q + AHEAD, _MM_HINT_T0);
            sum[k] = _mm512_fmadd_ps(load16(p, type), _mm512_load_ps(x + c), sum[k]);
            more[k] = _mm512_fmadd_ps(load16(q, type), _mm512_load_ps(x + c + 16), more[k]);
        }
    for (; c < w->n; c += 16)
        for (int k = 0; k < R; k++)
            sum[k] = _mm512_fmadd_ps(load_some(at(row, type, k * next + c), type, w->n - c),
                                     _mm512_load_ps(x + c), sum[k]);
    for (int k = 0; k < R; k++) sum[k] = _mm512_add_ps(sum[k], more[k]);
    store_sums(y, apart, sum, R);
}

INLINE void matvec_plain(float *y, const rows *w, runs rs, const float *x, dtype type) {
    int64_t r = rs.first;
    fetch_runs(w, rs, AHEAD);
    for (; r < rs.end && rs.apart; r++) dot_plain(y + r, w, r, rs.apart, x, type, RUNS);
    for (; r < rs.end; r++) dot_plain(y + r, w, r, 0, x, type, 1);
}

static void matvec_f32(float *y, const rows *w, runs rs, const void *prepared) {
    switch (w->kind) {
    case MATRIX_AFFINE:
        matvec_affine(y, w, rs, prepared, false);
        break;
    case MATRIX_MXFP4:
        matvec_of(y, w, rs, prepared, (form){MATRIX_MXFP4, 4, false});
        break;
    case MATRIX_NVFP4:
        matvec_of(y, w, rs, prepared, (form){MATRIX_NVFP4, 4, false});
        break;
    default:
        if (w->dtype == DTYPE_BF16) matvec_plain(y, w, rs, prepared, DTYPE_BF16);
        if (w->dtype == DTYPE_F16) matvec_plain(y, w, rs, prepared, DTYPE_F16);
        if (w->dtype == DTYPE_F32) matvec_plain(y, w, rs, prepared, DTYPE_F32);
    }
}

static size_t prepared_bytes(const rows *w) {
    if (!w->bits) return (size_t)round_up(w->n, 16) * sizeof(float);
    return prepared_size(w, block_width(w->bits) * (int)sizeof(float));
}

/* A copy of x; in blocks of 4-bit weights register k has columns k, k + 8, ... */
static void prepare(void *prepared, const rows *w, const float *x) {
    float *to = prepared;
    memset(prepared, 0, prepared_bytes(w));
    if (w->bits) {
        for (int64_t g = 0; g < w->n / w->group_size; g++) to[g] = 1;
        to += padded_groups(w);
        if (w->kind == MATRIX_AFFINE) kernels_avx2.group_sums(to, x, w->n, w->group_size);
        to += padded_groups(w);
    }
    if (w->bits != 4) {
        memcpy(to, x, (size_t)w->n * sizeof *x);
        return;
    }
    __m512i every_8th = _mm512_setr_epi32(0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120);
    for (int64_t c = 0; c < w->n; c += 128, to += 128) {
        __mmask16 some = first_lanes((w->n - c) / 8);
        for (int k = 0; k < 8; k++)
            _mm512_store_ps(to + k * 16,
                            _mm512_mask_i32gather_ps(_mm512_setzero_ps(), some, every_8th, x + c + k, 4));
    }
}

/* ---- many tokens ---- */

/* Number i in all lanes. */
INLINE __m512 load1(const void *values, dtype type, int64_t i) {
    uint32_t single;
    uint16_t half;
    memcpy(&half, at(values, type, i), sizeof half);
    if (type == DTYPE_F16) return _mm512_set1_ps(_cvtsh_ss(half));
    if (type == DTYPE_BF16) return _mm512_castsi512_ps(_mm512_set1_epi32((int)((uint32_t)half << 16)));
    memcpy(&single, at(values, type, i), sizeof single);
    return _mm512_castsi512_ps(_mm512_set1_epi32((int)single));
}

/* 16 columns of row r from column c on, as floats, zeros beyond the last. */
INLINE __m512i take_row(const rows *w, int64_t r, int64_t c, form f) {
    bool plain = f.kind == MATRIX_PLAIN;
    int64_t i = r * w->n + c, g = i >> (plain ? 0 : __builtin_ctz((unsigned)w->group_size));
    if (plain) return _mm512_castps_si512(load_some(at(w->values, w->dtype, i), w->dtype, w->n - c));
    __m512 q = numbers16((const uint8_t *)w->values + i * f.bits / 8, f);
    if (f.kind == MATRIX_AFFINE)
        return _mm512_castps_si512(
            _mm512_fmadd_ps(q, load1(w->scales, w->dtype, g), load1(w->biases, w->dtype, g)));
    if (f.kind == MATRIX_MXFP8) q = _mm512_mul_ps(q, _mm512_set1_ps(256));
    return _mm512_castps_si512(_mm512_mul_ps(q, _mm512_set1_ps(fp_scale(w, g, f.kind))));
}

static size_t row_panel_bytes(const rows *w) {
    return (size_t)(round_up(w->n, 16) * ROWS) * sizeof(float);
}

static size_t token_panel_bytes(const rows *w) {
    return (size_t)(round_up(w->n, 16) * TOKENS) * sizeof(float);
}

/* A panel: [columns][ROWS or TOKENS], zeros where there is no row, token or column. */
INLINE void pack_row_panel(void *panel, const rows *w, int64_t first, int64_t n_rows, form f) {
    float *to = panel;
    for (int64_t c = 0; c < w->n; c += 16, to += 16 * ROWS) {
        __m512i a[ROWS];
        for (int64_t i = 0; i < ROWS; i++)
            a[i] = i < n_rows ? take_row(w, first + i, c, f) : _mm512_setzero_si512();
        transpose(a);
        for (int i = 0; i < ROWS; i++) _mm512_store_si512(to + i * ROWS, a[i]);
    }
}

static void pack_affine_rows(void *panel, const rows *w, int64_t first, int64_t n_rows) {
    switch (w->bits) {
    case 1:
        pack_row_panel(panel, w, first, n_rows, (form){MATRIX_AFFINE, 1, false});
        break;
    case 2:
        pack_row_panel(panel, w, first, n_rows, (form){MATRIX_AFFINE, 2, false});
        break;
    case 3:
        pack_row_panel(panel, w, first, n_rows, (form){MATRIX_AFFINE, 3, false});
        break;
    case 4:
        pack_row_panel(panel, w, first, n_rows, (form){MATRIX_AFFINE, 4, false});
        break;
    case 5:
        pack_row_panel(panel, w, first, n_rows, (form){MATRIX_AFFINE, 5, false});
        break;
    case 6:
        pack_row_panel(panel, w, first, n_rows, (form){MATRIX_AFFINE, 6, false});
        break;
    case 8:
        pack_row_panel(panel, w, first, n_rows, (form){MATRIX_AFFINE, 8, false});
        break;
    }
}

static void pack_rows(void *panel, const rows *w, int64_t first, int64_t n_rows) {
    switch (w->kind) {
    case MATRIX_AFFINE:
        pack_affine_rows(panel, w, first, n_rows);
        break;
    case MATRIX_MXFP4:
        pack_row_panel(panel, w, first, n_rows, (form){MATRIX_MXFP4, 4, false});
        break;
    case MATRIX_MXFP8:
        pack_row_panel(panel, w, first, n_rows, (form){MATRIX_MXFP8, 8, false});
        break;
    case MATRIX_NVFP4:
        pack_row_panel(panel, w, first, n_rows, (form){MATRIX_NVFP4, 4, false});
        break;
    default:
        pack_row_panel(panel, w, first, n_rows, (form){MATRIX_PLAIN, 0, false});
    }
}

static void pack_tokens(void *panel, const rows *w, const float *x, int64_t x_stride, int64_t n_tokens) {
    float columns[16], *to = panel;
    if (n_tokens < TOKENS) memset(panel, 0, token_panel_bytes(w));
    for (int64_t c = 0; c < w->n; c += 16, to += 16 * TOKENS)
        for (int64_t t = 0; t < n_tokens; t++) {
            _mm512_storeu_ps(columns, load_some(x + t * x_stride + c, DTYPE_F32, w->n - c));
            for (int i = 0; i < 16; i++) to[i * TOKENS + t] = columns[i];
        }
}

/* Sums of n columns in registers; added to out when `add`. masks: which rows of each panel
 * exist. */
INLINE void multiply_tile(float *out, int64_t out_stride, const float *x, const float *w, int64_t w_stride,
                          int64_t n, bool add, const __mmask16 masks[2], int T) {
    __m512 sum[TOKENS][2];
    UNROLL
    for (int t = 0; t < T; t++)
        for (int p = 0; p < 2; p++) sum[t][p] = first_sums(out + t * out_stride + p * ROWS, masks[p], add);
    for (int64_t k = 0; k < n; k++, w += ROWS, x += TOKENS) {
        __m512 row[2] = {_mm512_load_ps(w), _mm512_load_ps(w + w_stride)};
        UNROLL
        for (int t = 0; t < T; t++)
            for (int p = 0; p < 2; p++) sum[t][p] = _mm512_fmadd_ps(row[p], _mm512_set1_ps(x[t]), sum[t][p]);
    }
    UNROLL
    for (int t = 0; t < T; t++)
        for (int p = 0; p < 2; p++)
            _mm512_mask_storeu_ps(out + t * out_stride + p * ROWS, masks[p], sum[t][p]);
}

/* One panel of tokens; few of them are not padded to all twelve. rest: rows that exist; where that
 * is one panel's, it is read twice. */
static void multiply_tokens(float *out, int64_t out_stride, const float *x, const float *w,
                            int64_t panel_floats, int64_t n, bool add, int64_t rest, int64_t n_tokens) {
    const __mmask16 masks[2] = {first_lanes(rest), rest > ROWS ? first_lanes(rest - ROWS) : 0};
    int64_t w_stride = rest > ROWS ? panel_floats : 0;
    if (n_tokens >= TOKENS) {
        multiply_tile(out, out_stride, x, w, w_stride, n, add, masks, TOKENS);
        return;
    }
    for (; n_tokens >= 4; n_tokens -= 4, out += 4 * out_stride, x += 4)
        multiply_tile(out, out_stride, x, w, w_stride, n, add, masks, 4);
    for (; n_tokens; n_tokens--, out += out_stride, x++)
        multiply_tile(out, out_stride, x, w, w_stride, n, add, masks, 1);
}

static void multiply(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens, const void *panels,
                     int64_t n_rows, const rows *w) {
    int64_t width = round_up(w->n, 16);
    for (int64_t c = 0; c < width; c += BLOCK_COLUMNS)
        for (int64_t t = 0; t < n_tokens; t += TOKENS)
            for (int64_t r = 0; r < n_rows; r += 2 * ROWS)
                multiply_tokens(
                    out + t * out_stride + r, out_stride, (const float *)tokens + t * width + c * TOKENS,
                    (const float *)panels + r * width + c * ROWS, width * ROWS,
                    width - c < BLOCK_COLUMNS ? width - c : BLOCK_COLUMNS, c > 0, n_rows - r, n_tokens - t);
}

/* ---- gates ---- */

/* In this order: NaN stays. */
INLINE vec v_exp(vec x) {
    return exp_most(v_min(v_all(89), x));
}

#include "engine/cpu/kernels/templates/gates.h"
#include "engine/cpu/kernels/templates/states.h"

/* What all products in F32 share: only one token differs. */
#define PANELS_OF_FLOATS                                                                                     \
    .panel_rows = ROWS, .panel_tokens = TOKENS, .row_panel_bytes = row_panel_bytes,                          \
    .token_panel_bytes = token_panel_bytes, .pack_rows = pack_rows, .pack_tokens = pack_tokens,              \
    .multiply = multiply

static const products f32_products = {
    .prepared_bytes = prepared_bytes,
    .prepare = prepare,
    .matvec = matvec_f32,
    PANELS_OF_FLOATS,
};

static const products mxfp8_products = {
    .prepared_bytes = avx2_float_bytes,
    .prepare = avx2_prepare_floats,
    .matvec = avx2_matvec_mxfp8,
    PANELS_OF_FLOATS,
};

const products avx512vbmi_mxfp8 = {
    .prepared_bytes = avx512vbmi_prepared_bytes,
    .prepare = avx512vbmi_prepare,
    .matvec = avx512vbmi_matvec_mxfp8,
    PANELS_OF_FLOATS,
};

const kernels kernels_avx512 = {
    .name = "avx512",
    .supported = supported,
    .base = &kernels_avx2,
    .gated = gated_row,
    .scan = scan,
    .convolve = convolve,
    .of = {[MATRIX_PLAIN] = {.f32 = &f32_products},
           [MATRIX_AFFINE] = {.f32 = &f32_products},
           [MATRIX_MXFP4] = {.f32 = &f32_products},
           [MATRIX_MXFP8] = {.f32 = &mxfp8_products},
           [MATRIX_NVFP4] = {.f32 = &f32_products}},
    .attention = &attention_avx512,
};
