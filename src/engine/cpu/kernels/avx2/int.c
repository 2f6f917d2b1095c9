/* kernels/avx2/int.c - int16 and int8 products for processors with AVX2: many tokens, and the two
 * tables. kernels/avx2/int.h has what one token takes. */
#include "engine/cpu/kernels/avx2/int.h"

/* 8 rows fill a register; 5 tokens x 2 panels of rows are 10 sums, which leaves 6 registers (with 6
 * tokens gcc 12 spilled). A panel of tokens is worked on in parts of TOKEN_BYTES, which stay in the
 * first-level cache while all rows pass. */
enum { ROWS = 8, TOKENS = 5, TOKEN_BYTES = 24 * 1024 };

/* Are both sides stored as words, or as bytes? As words where activations have 16 bits, and where
 * weights have 8: two products of bytes would overflow 16 bits. */
INLINE bool in_words(const rows *w, bool int16) {
    return int16 || w->bits == 8;
}

/* A panel of rows: for each group 8 scales, 8 biases, and [group_size / unit][8] units of 32 bits,
 * which hold `unit` values each. A panel of tokens: 8 scales and 8 sums, of which 5 are used, and
 * [..][5]. */
enum { HEADER = 2 * 8 * sizeof(float) };

INLINE int unit_of(bool words) {
    return words ? 2 : 4;
}

INLINE int64_t group_bytes(const rows *w, int count, bool words) {
    return HEADER + w->group_size / unit_of(words) * count * 4;
}

INLINE size_t panel_bytes(const rows *w, int count, bool words) {
    return (size_t)(groups_of(w) * group_bytes(w, count, words) + 63) / 64 * 64;
}

/* 8 rows of 8 numbers of 32 bits, transposed in place. */
INLINE void transpose(__m256i a[8]) {
    __m256i b[8];
    for (int i = 0; i < 8; i += 2)
        b[i] = _mm256_unpacklo_epi32(a[i], a[i + 1]), b[i + 1] = _mm256_unpackhi_epi32(a[i], a[i + 1]);
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) { /* a[i + j]: numbers j and j + 4 of rows i .. i + 3 */
            a[i + 2 * k] = _mm256_unpacklo_epi64(b[i + k], b[i + 2 + k]);
            a[i + 2 * k + 1] = _mm256_unpackhi_epi64(b[i + k], b[i + 2 + k]);
        }
    for (int j = 0; j < 4; j++) {
        b[j] = _mm256_permute2x128_si256(a[j], a[j + 4], 0x20);
        b[j + 4] = _mm256_permute2x128_si256(a[j], a[j + 4], 0x31);
    }
    for (int i = 0; i < 8; i++) a[i] = b[i];
}

/* Scales or biases of 8 groups from g on, for 8 rows, to their places in the panel. */
INLINE void pack_scales(char *panel, int64_t stride, const rows *w, int64_t first, int64_t n_rows, form f,
                        bool biases) {
    int64_t groups = groups_of(w);
    __m256 factor = _mm256_set1_ps(f.kind == MATRIX_AFFINE ? 1 : biases ? E2M1_BIAS : E2M1_SCALE);
    for (int64_t g = 0; g < groups; g += 8) {
        __m256i a[8];
        for (int64_t i = 0; i < 8; i++)
            a[i] = i < n_rows ? _mm256_castps_si256(_mm256_mul_ps(
                                    load_groups(w, (first + i) * groups + g, groups - g, f, biases), factor))
                              : _mm256_setzero_si256();
        transpose(a);
        for (int64_t i = 0; i < 8 && g + i < groups; i++)
            _mm256_store_si256((void *)(panel + (g + i) * stride), a[i]);
    }
}

/* Does store i of a half begin a group, whose scales and biases come first? */
INLINE bool begins_group(const rows *w, int64_t c, int half, int i, form f) {
    if (f.kind == MATRIX_NVFP4) return f.words ? !i : i % 4 == 0;
    return !half && !i && c % w->group_size == 0;
}

INLINE void pack_values(char *panel, const rows *w, int64_t first, int64_t n_rows, form f) {
    int64_t row_bytes = w->n * f.bits / 8;
    const uint8_t *packed = (const uint8_t *)w->values + first * row_bytes;
    __m256i *to = (__m256i *)(void *)panel;
    for (int64_t c = 0; c < w->n; c += 32, packed += 4 * f.bits) {
        __m256i a[2][8];
        for (int64_t i = 0; i < 8; i++) {
            __m256i q = i < n_rows ? take_bytes(packed + i * row_bytes, w->n - c, f) : _mm256_setzero_si256();
            a[0][i] = f.words ? _mm256_cvtepu8_epi16(_mm256_castsi256_si128(q)) : q;
            if (f.words) a[1][i] = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(q, 1));
        }
        bool last = f.kind == MATRIX_NVFP4 && w->n - c < 32; /* only 16 columns */
        for (int half = 0; half < (f.words && !last ? 2 : 1); half++) {
            transpose(a[half]);
            for (int i = 0; i < (last && !f.words ? 4 : 8); i++) {
                if (begins_group(w, c, half, i, f)) to += 2;
                _mm256_store_si256(to++, a[half][i]);
            }
        }
    }
}

static void pack_affine_scales(char *panel, int64_t stride, const rows *w, int64_t first, int64_t n_rows,
                               bool biases) {
    pack_scales(panel, stride, w, first, n_rows, (form){.kind = MATRIX_AFFINE}, biases);
}

INLINE void pack_affine_rows(char *panel, const rows *w, int64_t first, int64_t n_rows, bool int16) {
    int64_t stride = group_bytes(w, ROWS, in_words(w, int16));
    pack_affine_scales(panel, stride, w, first, n_rows, false);
    pack_affine_scales(panel + HEADER / 2, stride, w, first, n_rows, true);
    switch (w->bits) {
    case 1:
        pack_values(panel, w, first, n_rows, (form){MATRIX_AFFINE, 1, int16, 1});
        break;
    case 2:
        pack_values(panel, w, first, n_rows, (form){MATRIX_AFFINE, 2, int16, 1});
        break;
    case 3:
        pack_values(panel, w, first, n_rows, (form){MATRIX_AFFINE, 3, int16, 1});
        break;
    case 4:
        pack_values(panel, w, first, n_rows, (form){MATRIX_AFFINE, 4, int16, 1});
        break;
    case 5:
        pack_values(panel, w, first, n_rows, (form){MATRIX_AFFINE, 5, int16, 1});
        break;
    case 6:
        pack_values(panel, w, first, n_rows, (form){MATRIX_AFFINE, 6, int16, 1});
        break;
    case 8:
        pack_values(panel, w, first, n_rows, (form){MATRIX_AFFINE, 8, true, 1});
        break;
    }
}

INLINE void pack_e2m1_rows(char *panel, const rows *w, int64_t first, int64_t n_rows, form f) {
    int64_t stride = group_bytes(w, ROWS, f.words);
    pack_scales(panel, stride, w, first, n_rows, f, false);
    pack_scales(panel + HEADER / 2, stride, w, first, n_rows, f, true);
    pack_values(panel, w, first, n_rows, f);
}

INLINE void pack_rows(void *panel, const rows *w, int64_t first, int64_t n_rows, bool int16) {
    if (w->kind == MATRIX_MXFP4)
        pack_e2m1_rows(panel, w, first, n_rows, (form){MATRIX_MXFP4, 4, int16, 1});
    else if (w->kind == MATRIX_NVFP4)
        pack_e2m1_rows(panel, w, first, n_rows, (form){MATRIX_NVFP4, 4, int16, 1});
    else
        pack_affine_rows(panel, w, first, n_rows, int16);
}

INLINE void pack_tokens(void *panel, const rows *w, const float *x, int64_t x_stride, int64_t n_tokens,
                        bool int16) {
    bool words = in_words(w, int16);
    int64_t groups = groups_of(w), units = w->group_size / unit_of(words);
    if (n_tokens < TOKENS) memset(panel, 0, panel_bytes(w, TOKENS, words));
    for (int64_t g = 0; g < groups; g++) {
        float *scales = (float *)(void *)((char *)panel + g * group_bytes(w, TOKENS, words));
        int32_t *to = (int32_t *)(scales + 16);
        for (int64_t t = 0; t < n_tokens; t++) {
            _Alignas(32) int16_t values[MAX_GROUP];
            quantize_group(values, scales + t, scales + 8 + t, x + t * x_stride + g * w->group_size,
                           w->group_size, int16 ? MOST_INT16 : MOST_INT8);
            for (int i = 0; i < w->group_size && !words; i += 32)
                _mm256_storeu_si256((void *)(values + i / 2),
                                    narrow(load(values + i), load(values + (i + 16) % w->group_size)));
            for (int64_t i = 0; i < units; i++) memcpy(to + i * TOKENS + t, values + 2 * i, 4);
        }
    }
}

typedef float tile_sums[TOKENS][2][ROWS];

/* How many products of bytes, added in pairs, 16 bits hold, at most 8: a group of 32. */
INLINE int run_of(int bits) {
    return bits <= 4 ? 8 : bits == 5 ? 4 : 2;
}

INLINE __m256i broadcast(const char *p) {
    int32_t unit;
    memcpy(&unit, p, sizeof unit);
    return _mm256_set1_epi32(unit);
}

/* sum + products of q with x, added in pairs. As assembly, since with the intrinsics gcc 12
 * multiplies first and adds later, and spills what lies between. */
INLINE __m256i add_words(__m256i sum, __m256i q, __m256i x) {
    __m256i product;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(q), "x"(x));
    return sum;
}

INLINE __m256i add_bytes(__m256i sum, __m256i q, __m256i x) {
    __m256i product;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(q), "x"(x));
    return sum;
}

/* T tokens x 2 panels of a group, as words. */
INLINE void dot_words(__m256i dot[TOKENS][2], const char *x, const char *w, int64_t w_stride, int units,
                      int T) {
    UNROLL
    for (int t = 0; t < T; t++) dot[t][0] = dot[t][1] = _mm256_setzero_si256();
    for (int i = 0; i < units; i += 4) {
        UNROLL
        for (int k = 0; k < 4; k++, w += 32, x += TOKENS * 4) {
            __m256i q[2] = {load(w), load(w + w_stride)};
            UNROLL
            for (int t = 0; t < T; t++) {
                __m256i all = broadcast(x + 4 * t);
                for (int p = 0; p < 2; p++) dot[t][p] = add_words(dot[t][p], q[p], all);
            }
        }
    }
}

/* A run of units of bytes, summed in 16 bits, then added to dot. */
INLINE void dot_run(__m256i dot[TOKENS][2], const char *x, const char *w, int64_t w_stride, int run,
                    bool first, int T) {
    __m256i sum[TOKENS][2];
    UNROLL
    for (int k = 0; k < run; k++, w += 32, x += TOKENS * 4) {
        __m256i q[2] = {load(w), load(w + w_stride)};
        UNROLL
        for (int t = 0; t < T; t++) {
            __m256i all = broadcast(x + 4 * t);
            for (int p = 0; p < 2; p++)
                sum[t][p] = k ? add_bytes(sum[t][p], q[p], all) : _mm256_maddubs_epi16(q[p], all);
        }
    }
    UNROLL
    for (int t = 0; t < T; t++)
        for (int p = 0; p < 2; p++) {
            __m256i wide = _mm256_madd_epi16(sum[t][p], _mm256_set1_epi16(1));
            dot[t][p] = first ? wide : _mm256_add_epi32(dot[t][p], wide);
        }
}

/* As bytes. */
INLINE void dot_bytes(__m256i dot[TOKENS][2], const char *x, const char *w, int64_t w_stride, int units,
                      int run, int T) {
    dot_run(dot, x, w, w_stride, run, true, T);
    for (int i = run; i < units; i += run)
        dot_run(dot, x + i * TOKENS * 4, w + i * 32, w_stride, run, false, T);
}

/* Adds one group's part to the sums of T tokens and 2 panels of rows. run 0: words. */
INLINE void multiply_group(tile_sums sums, const char *x, const char *w, int64_t w_stride, int group_size,
                           int run, int T) {
    __m256i dot[TOKENS][2];
    if (run)
        dot_bytes(dot, x + HEADER, w + HEADER, w_stride, group_size / 4, run, T);
    else
        dot_words(dot, x + HEADER, w + HEADER, w_stride, group_size / 2, T);
    const float *scales = (const float *)(const void *)x;
    UNROLL
    for (int p = 0; p < 2; p++) {
        const float *of_rows = (const float *)(const void *)(w + p * w_stride);
        __m256 scale = _mm256_load_ps(of_rows), bias = _mm256_load_ps(of_rows + 8);
        UNROLL
        for (int t = 0; t < T; t++) {
            __m256 sum = _mm256_fmadd_ps(bias, _mm256_set1_ps(scales[8 + t]), _mm256_load_ps(sums[t][p]));
            __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(dot[t][p]), _mm256_set1_ps(scales[t]));
            _mm256_store_ps(sums[t][p], _mm256_fmadd_ps(product, scale, sum));
        }
    }
}

/* Where the parts of both sides lie. */
typedef struct panels {
    const char *x, *w;
    int64_t x_panel, w_panel, x_group, w_group; /* bytes */
    int64_t groups;
    int group_size;
} panels;

/* T tokens, of which n_tokens exist, times 2 panels of rows over n_groups groups; added to out when
 * `add`. rest: rows that exist; where that is one panel's, it is read twice. */
INLINE void multiply_tile(float *out, int64_t out_stride, const panels *p, const char *x, const char *w,
                          int64_t n_groups, bool add, int64_t n_tokens, int64_t rest, int run, int T) {
    _Alignas(32) tile_sums sums;
    __m256i masks[2] = {first_lanes(rest), first_lanes(rest - ROWS)};
    int n_panels = rest > ROWS ? 2 : 1;
    for (int t = 0; t < T; t++)
        _mm256_store_ps(sums[t][0], _mm256_setzero_ps()), _mm256_store_ps(sums[t][1], _mm256_setzero_ps());
    for (int t = 0; t < n_tokens && add; t++)
        for (int k = 0; k < n_panels; k++)
            _mm256_store_ps(sums[t][k], _mm256_maskload_ps(out + t * out_stride + k * ROWS, masks[k]));
    for (int64_t g = 0; g < n_groups; g++, x += p->x_group, w += p->w_group)
        multiply_group(sums, x, w, n_panels == 2 ? p->w_panel : 0, p->group_size, run, T);
    for (int t = 0; t < n_tokens; t++)
        for (int k = 0; k < n_panels; k++)
            _mm256_maskstore_ps(out + t * out_stride + k * ROWS, masks[k], _mm256_load_ps(sums[t][k]));
}

/* One panel of tokens. */
INLINE void multiply_tokens(float *out, int64_t out_stride, const panels *p, const char *x, const char *w,
                            int64_t n_groups, bool add, int64_t n_tokens, int64_t rest, int run) {
    if (n_tokens <= 2)
        multiply_tile(out, out_stride, p, x, w, n_groups, add, n_tokens, rest, run, 2);
    else
        multiply_tile(out, out_stride, p, x, w, n_groups, add, n_tokens < TOKENS ? n_tokens : TOKENS, rest,
                      run, TOKENS);
}

INLINE void multiply_of(float *out, int64_t out_stride, const panels *p, int64_t n_tokens, int64_t n_rows,
                        int run) {
    int64_t block = TOKEN_BYTES / p->x_group; /* groups, at least 18 */
    for (int64_t g = 0; g < p->groups; g += block)
        for (int64_t t = 0; t < n_tokens; t += TOKENS)
            for (int64_t r = 0; r < n_rows; r += 2 * ROWS)
                multiply_tokens(
                    out + t * out_stride + r, out_stride, p, p->x + t / TOKENS * p->x_panel + g * p->x_group,
                    p->w + r / ROWS * p->w_panel + g * p->w_group,
                    p->groups - g < block ? p->groups - g : block, g > 0, n_tokens - t, n_rows - r, run);
}

static void multiply(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens, const void *tile,
                     int64_t n_rows, const rows *w, bool int16) {
    bool words = in_words(w, int16);
    panels p = {.x = tokens, .w = tile, .groups = groups_of(w), .group_size = w->group_size};
    p.x_panel = (int64_t)panel_bytes(w, TOKENS, words), p.x_group = group_bytes(w, TOKENS, words);
    p.w_panel = (int64_t)panel_bytes(w, ROWS, words), p.w_group = group_bytes(w, ROWS, words);
    if (words)
        multiply_of(out, out_stride, &p, n_tokens, n_rows, 0);
    else if (w->bits <= 4 && w->kind == MATRIX_AFFINE)
        multiply_of(out, out_stride, &p, n_tokens, n_rows, run_of(4));
    else if (w->bits <= 5) /* E2M1's integers are below 32 */
        multiply_of(out, out_stride, &p, n_tokens, n_rows, run_of(5));
    else
        multiply_of(out, out_stride, &p, n_tokens, n_rows, run_of(6));
}

/* ---- one token ---- */

INLINE void prepare(void *prepared, const rows *w, const float *x, bool int16) {
    float limit = int16 ? MOST_INT16 : MOST_INT8;
    if (w->bits == 1)
        prepare_of(prepared, w, x, limit, 1, int16);
    else if (w->bits == 2)
        prepare_of(prepared, w, x, limit, 2, int16);
    else if (w->bits != 4)
        prepare_of(prepared, w, x, limit, 8, true);
    else if (int16)
        prepare_of(prepared, w, x, MOST_INT16, 4, true);
    else
        prepare_of(prepared, w, x, MOST_INT8, 4, false);
}

/* Weights of 1 or 2 bits: several groups are in a block. */
INLINE void matvec_narrow(float *y, const rows *w, runs rs, const token *t, int bits, bool int16) {
    if (w->group_size == 32)
        matvec_of(y, w, rs, t, (form){MATRIX_AFFINE, bits, int16, block_width(bits) / 32});
    if (w->group_size == 64)
        matvec_of(y, w, rs, t, (form){MATRIX_AFFINE, bits, int16, block_width(bits) / 64});
    if (w->group_size == 128)
        matvec_of(y, w, rs, t, (form){MATRIX_AFFINE, bits, int16, block_width(bits) / 128});
}

INLINE void matvec(float *y, const rows *w, runs rs, const void *prepared, bool int16) {
    token t = token_at(prepared, w);
    switch (w->bits) {
    case 1:
        matvec_narrow(y, w, rs, &t, 1, int16);
        break;
    case 2:
        matvec_narrow(y, w, rs, &t, 2, int16);
        break;
    case 3:
        matvec_of(y, w, rs, &t, (form){MATRIX_AFFINE, 3, true, 1});
        break;
    case 4:
        if (w->kind == MATRIX_NVFP4)
            matvec_of(y, w, rs, &t, (form){MATRIX_NVFP4, 4, int16, 4});
        else if (w->kind == MATRIX_MXFP4)
            matvec_of(y, w, rs, &t, (form){MATRIX_MXFP4, 4, int16, 2});
        else if (w->group_size == 32)
            matvec_of(y, w, rs, &t, (form){MATRIX_AFFINE, 4, int16, 2});
        else
            matvec_of(y, w, rs, &t, (form){MATRIX_AFFINE, 4, int16, 1});
        break;
    case 5:
        matvec_of(y, w, rs, &t, (form){MATRIX_AFFINE, 5, true, 1});
        break;
    case 6:
        matvec_of(y, w, rs, &t, (form){MATRIX_AFFINE, 6, true, 1});
        break;
    case 8:
        matvec_of(y, w, rs, &t, (form){MATRIX_AFFINE, 8, true, 1});
        break;
    }
}

#define FIXED_POINT(name, int16)                                                                             \
    static void prepare_##name(void *prepared, const rows *w, const float *x) {                              \
        prepare(prepared, w, x, int16);                                                                      \
    }                                                                                                        \
    static void matvec_##name(float *y, const rows *w, runs rs, const void *prepared) {                      \
        matvec(y, w, rs, prepared, int16);                                                                   \
    }                                                                                                        \
    static size_t row_panel_bytes_##name(const rows *w) {                                                    \
        return panel_bytes(w, ROWS, in_words(w, int16));                                                     \
    }                                                                                                        \
    static size_t token_panel_bytes_##name(const rows *w) {                                                  \
        return panel_bytes(w, TOKENS, in_words(w, int16));                                                   \
    }                                                                                                        \
    static void pack_rows_##name(void *panel, const rows *w, int64_t first, int64_t n_rows) {                \
        pack_rows(panel, w, first, n_rows, int16);                                                           \
    }                                                                                                        \
    static void pack_tokens_##name(void *panel, const rows *w, const float *x, int64_t x_stride,             \
                                   int64_t n_tokens) {                                                       \
        pack_tokens(panel, w, x, x_stride, n_tokens, int16);                                                 \
    }                                                                                                        \
    static void multiply_##name(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens,        \
                                const void *tile, int64_t n_rows, const rows *w) {                           \
        multiply(out, out_stride, tokens, n_tokens, tile, n_rows, w, int16);                                 \
    }                                                                                                        \
    const products avx2_##name = {                                                                           \
        .prepared_bytes = prepared_bytes,                                                                    \
        .prepare = prepare_##name,                                                                           \
        .matvec = matvec_##name,                                                                             \
        .panel_rows = ROWS,                                                                                  \
        .panel_tokens = TOKENS,                                                                              \
        .row_panel_bytes = row_panel_bytes_##name,                                                           \
        .token_panel_bytes = token_panel_bytes_##name,                                                       \
        .pack_rows = pack_rows_##name,                                                                       \
        .pack_tokens = pack_tokens_##name,                                                                   \
        .multiply = multiply_##name,                                                                         \
    }

FIXED_POINT(int16, true);
FIXED_POINT(int8, false);
