/* kernels/avx512/panels.h - many tokens in fixed point: both sides packed into panels, then
 * multiplied. A part of vnni.c, which defines dot_add, integers, scales_of and biases_of. */

/* Panels: 16 rows fill a register; 12 tokens x 2 panels of rows are 24 sums in registers. A panel
 * of tokens is worked on in parts of TOKEN_BYTES, which stay in the first-level cache while all
 * rows pass; the tokens' next parts are fetched TOKENS_AHEAD bytes ahead, since those of a long
 * prompt come from far. */
enum { ROWS = 16, TOKENS = 12, TOKEN_BYTES = 24 * 1024, TOKENS_AHEAD = 2048 };

/* A panel of rows: for each group 16 scales, 16 biases, and [group_size / unit][16] units of 32
 * bits, which hold `unit` values each. A panel of tokens: 16 scales and 16 sums, of which 12 are
 * used, and [..][12]. */
INLINE int unit_of(bool words) {
    return words ? 2 : 4;
}

INLINE size_t panel_group_bytes(const rows *w, int count, bool words) {
    return 2 * 16 * sizeof(float) + (size_t)(w->group_size / unit_of(words) * count) * 4;
}

INLINE size_t panel_size(const rows *w, int count, bool words) {
    return (size_t)(w->n / w->group_size) * panel_group_bytes(w, count, words);
}

/* Scales or biases of 16 groups from g on, for 16 rows, to their places in the panel. */
INLINE void pack_scales(char *panel, size_t group_bytes, const rows *w, int64_t first, int64_t n_rows, form f,
                        bool biases) {
    int64_t groups = w->n / w->group_size;
    for (int64_t g = 0; g < groups; g += 16) {
        __m512i a[16];
        for (int64_t i = 0; i < 16; i++) {
            int64_t at_group = (first + i) * groups + g, n = i < n_rows ? groups - g : 0;
            __m512 some = _mm512_setzero_ps();
            if (n) some = biases ? biases_of(w, at_group, n, f) : scales_of(w, at_group, n, f);
            a[i] = _mm512_castps_si512(some);
        }
        transpose(a);
        for (int64_t i = 0; i < 16 && g + i < groups; i++)
            _mm512_store_si512(panel + (size_t)(g + i) * group_bytes, a[i]);
    }
}

/* The place of a unit in a panel of rows. */
INLINE char *unit_place(char *panel, const rows *w, int64_t unit, bool words) {
    int64_t per_group = w->group_size / unit_of(words);
    char *group = panel + (size_t)(unit / per_group) * panel_group_bytes(w, ROWS, words);
    return group + 128 + unit % per_group * 64;
}

/* 4-bit values. */
INLINE void pack_nibbles(char *panel, const rows *w, int64_t first, int64_t n_rows, form f) {
    bool words = f.words;
    __m512i mask = _mm512_set1_epi32(words ? 0x000f000f : 0x0f0f0f0f);
    __m512i low = _mm512_set1_epi32(words ? 0x00ff00ff : -1); /* the bytes that hold values */
    int64_t row_bytes = w->n / 2;
    for (int64_t at_byte = 0; at_byte < row_bytes; at_byte += 64) {
        const char *from = (const char *)w->values + first * row_bytes + at_byte;
        int64_t rest = row_bytes - at_byte;
        __m512i a[16];
        for (int64_t i = 0; i < 16; i++) {
            const char *row = from + i * row_bytes;
            a[i] = i < n_rows ? load_bytes(row, rest) : _mm512_setzero_si512();
            _mm_prefetch(row + 128, _MM_HINT_T0); /* so many rows at once the processor does not foresee */
        }
        transpose(a);
        for (int64_t i = 0; i < 16 && i * 4 < rest; i++) { /* 8 columns of 16 rows */
            char *to = unit_place(panel, w, (at_byte + i * 4) * 2 / unit_of(words), words);
            for (int k = 0; k < 8 / unit_of(words); k++, to += 64, a[i] = _mm512_srli_epi32(a[i], 4))
                if (f.kind == MATRIX_AFFINE)
                    _mm512_store_si512(to, _mm512_and_si512(a[i], mask));
                else
                    _mm512_store_si512(to, _mm512_and_si512(integers(_mm512_and_si512(a[i], mask), f), low));
        }
    }
}

/* Values of other widths. */
INLINE void pack_values(char *panel, const rows *w, int64_t first, int64_t n_rows, int bits, bool words) {
    int64_t unit = unit_of(words);
    for (int64_t c = 0; c < w->n; c += 64) {
        __m512i a[16], high[16];
        for (int64_t i = 0; i < 16; i++) {
            const uint8_t *packed = (const uint8_t *)w->values + ((first + i) * w->n + c) * bits / 8;
            a[i] = i < n_rows ? unpack_bytes(packed, bits, (w->n - c) * bits / 8) : _mm512_setzero_si512();
            if (!words) continue;
            high[i] = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(a[i], 1));
            a[i] = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(a[i]));
        }
        for (int half = 0; half < (words ? 2 : 1); half++) {
            __m512i *b = half ? high : a;
            transpose(b);
            int64_t first_unit = (c + half * 32) / unit;
            for (int64_t i = 0; i < 16 && (first_unit + i) * unit < w->n; i++)
                _mm512_store_si512(unit_place(panel, w, first_unit + i, words), b[i]);
        }
    }
}

INLINE void pack_affine_rows(void *panel, const rows *w, int64_t first, int64_t n_rows, bool words) {
    switch (w->bits) {
    case 1:
        pack_values(panel, w, first, n_rows, 1, words);
        break;
    case 2:
        pack_values(panel, w, first, n_rows, 2, words);
        break;
    case 3:
        pack_values(panel, w, first, n_rows, 3, words);
        break;
    case 4:
        pack_nibbles(panel, w, first, n_rows, (form){MATRIX_AFFINE, 4, words});
        break;
    case 5:
        pack_values(panel, w, first, n_rows, 5, words);
        break;
    case 6:
        pack_values(panel, w, first, n_rows, 6, words);
        break;
    case 8:
        pack_values(panel, w, first, n_rows, 8, words);
        break;
    }
}

static void pack_affine_scales(char *panel, size_t group_bytes, const rows *w, int64_t first, int64_t n_rows,
                               bool biases) {
    pack_scales(panel, group_bytes, w, first, n_rows, (form){MATRIX_AFFINE, 0, false}, biases);
}

INLINE void pack_e2m1_rows(char *panel, const rows *w, int64_t first, int64_t n_rows, form f) {
    size_t group_bytes = panel_group_bytes(w, ROWS, f.words);
    pack_scales(panel, group_bytes, w, first, n_rows, f, false);
    pack_scales(panel + 64, group_bytes, w, first, n_rows, f, true);
    pack_nibbles(panel, w, first, n_rows, f);
}

INLINE void pack_rows(char *panel, const rows *w, int64_t first, int64_t n_rows, bool words) {
    size_t group_bytes = panel_group_bytes(w, ROWS, words);
    if (w->kind == MATRIX_MXFP4) {
        pack_e2m1_rows(panel, w, first, n_rows, (form){MATRIX_MXFP4, 4, words});
    } else if (w->kind == MATRIX_NVFP4) {
        pack_e2m1_rows(panel, w, first, n_rows, (form){MATRIX_NVFP4, 4, words});
    } else {
        pack_affine_scales(panel, group_bytes, w, first, n_rows, false);
        pack_affine_scales(panel + 64, group_bytes, w, first, n_rows, true);
        pack_affine_rows(panel, w, first, n_rows, words);
    }
}

INLINE void pack_tokens(void *panel, const rows *w, const float *x, int64_t x_stride, int64_t n_tokens,
                        bool words) {
    int64_t groups = w->n / w->group_size, units = w->group_size / unit_of(words);
    size_t group_bytes = panel_group_bytes(w, TOKENS, words);
    if (n_tokens < TOKENS) memset(panel, 0, (size_t)groups * group_bytes);
    for (int64_t g = 0; g < groups; g++) {
        float *scales = (float *)(void *)((char *)panel + (size_t)g * group_bytes);
        int32_t *values = (int32_t *)(scales + 32);
        _Alignas(64) int32_t units_of_token[64] = {0}; /* a group of 16 fills no register */
        for (int64_t t = 0; t < n_tokens; t++) {
            quantize_group(units_of_token, scales + t, scales + 16 + t, x + t * x_stride + g * w->group_size,
                           w->group_size, words);
            for (int64_t i = 0; i < units; i += 16) {
                __m512i *some = (void *)(units_of_token + i);
                *some = panel_order(*some, w->bits, words);
            }
            for (int64_t i = 0; i < units; i++) values[i * TOKENS + t] = units_of_token[i];
        }
    }
}

typedef float tile_sums[TOKENS][2][ROWS];

/* What a group's integer sums of 2 panels of rows are multiplied with, and what the sum of its
 * activations is. */
typedef struct row_scales {
    __m512 scale[2], bias[2];
} row_scales;

/* Adds a group's integer sums of T tokens and 2 panels of rows, scaled. x: the tokens' scales, and
 * 16 numbers on their sums. */
INLINE void scale_dots(float (*sums)[2][ROWS], __m512i (*dot)[2], const float *x, const row_scales *by,
                       int T) {
    UNROLL
    for (int t = 0; t < T; t++) {
        __m512 x_scale = _mm512_set1_ps(x[t]), x_sum = _mm512_set1_ps(x[16 + t]);
        for (int p = 0; p < 2; p++) {
            __m512 sum = _mm512_fmadd_ps(by->bias[p], x_sum, _mm512_load_ps(sums[t][p]));
            __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[t][p]), x_scale);
            _mm512_store_ps(sums[t][p], _mm512_fmadd_ps(product, by->scale[p], sum));
        }
    }
}

/* Adds one group's part to the sums of T tokens and 2 panels of rows. */
INLINE void multiply_group(tile_sums sums, const char *x, const char *w, int64_t w_stride, int group_size,
                           bool words, int T) {
    __m512i dot[TOKENS][2];
    const char *values = w + 128, *tokens = x + 128;
    UNROLL
    for (int t = 0; t < T; t++) dot[t][0] = dot[t][1] = _mm512_setzero_si512();
    for (int i = 0; i < group_size / unit_of(words); i++, values += 64, tokens += TOKENS * 4) {
        __m512i q[2] = {_mm512_load_si512(values), _mm512_load_si512(values + w_stride)};
        _mm_prefetch(tokens + TOKENS_AHEAD, _MM_HINT_T0);
        UNROLL
        for (int t = 0; t < T; t++) {
            int32_t unit;
            memcpy(&unit, tokens + t * 4, sizeof unit);
            __m512i all = _mm512_set1_epi32(unit);
            for (int p = 0; p < 2; p++) dot[t][p] = dot_add(dot[t][p], q[p], all, words);
        }
    }
    row_scales by;
    for (int p = 0; p < 2; p++)
        by.scale[p] = _mm512_load_ps(w + p * w_stride), by.bias[p] = _mm512_load_ps(w + p * w_stride + 64);
    scale_dots(sums, dot, (const float *)(const void *)x, &by, T);
}

/* Where the parts of both sides lie. */
typedef struct panels {
    const char *x, *w;
    int64_t x_panel, w_panel, x_group, w_group; /* bytes */
    int64_t groups;
    int group_size;
} panels;

/* T tokens times 2 panels of rows over n_groups groups; added to out when `add`. rest: rows that
 * exist; where that is one panel's, it is read twice. */
INLINE void multiply_tile(float *out, int64_t out_stride, const panels *p, const char *x, const char *w,
                          int64_t n_groups, bool add, int64_t rest, bool words, int T) {
    _Alignas(64) tile_sums sums;
    __mmask16 masks[2] = {first_lanes(rest), rest > ROWS ? first_lanes(rest - ROWS) : 0};
    for (int t = 0; t < T; t++)
        for (int k = 0; k < 2; k++)
            _mm512_store_ps(sums[t][k], first_sums(out + t * out_stride + k * ROWS, masks[k], add));
    for (int64_t g = 0; g < n_groups; g++, x += p->x_group, w += p->w_group)
        multiply_group(sums, x, w, rest > ROWS ? p->w_panel : 0, p->group_size, words, T);
    for (int t = 0; t < T; t++)
        for (int k = 0; k < 2; k++)
            _mm512_mask_storeu_ps(out + t * out_stride + k * ROWS, masks[k], _mm512_load_ps(sums[t][k]));
}

/* One panel of tokens; few of them are not padded to all twelve. */
INLINE void multiply_tokens(float *out, int64_t out_stride, const panels *p, const char *x, const char *w,
                            int64_t n_groups, bool add, int64_t rest, bool words, int64_t n_tokens) {
    if (n_tokens >= TOKENS) {
        multiply_tile(out, out_stride, p, x, w, n_groups, add, rest, words, TOKENS);
        return;
    }
    for (; n_tokens >= 4; n_tokens -= 4, out += 4 * out_stride, x += 16)
        multiply_tile(out, out_stride, p, x, w, n_groups, add, rest, words, 4);
    for (; n_tokens; n_tokens--, out += out_stride, x += 4)
        multiply_tile(out, out_stride, p, x, w, n_groups, add, rest, words, 1);
}

INLINE void multiply(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens, const void *tile,
                     int64_t n_rows, const rows *w, bool words) {
    panels p = {.x = tokens, .w = tile, .groups = w->n / w->group_size, .group_size = w->group_size};
    p.x_panel = (int64_t)panel_size(w, TOKENS, words), p.x_group = p.x_panel / p.groups;
    p.w_panel = (int64_t)panel_size(w, ROWS, words), p.w_group = p.w_panel / p.groups;
    int64_t block = TOKEN_BYTES / p.x_group; /* groups, at least 2 */
    for (int64_t g = 0; g < p.groups; g += block)
        for (int64_t t = 0; t < n_tokens; t += TOKENS)
            for (int64_t r = 0; r < n_rows; r += 2 * ROWS)
                multiply_tokens(
                    out + t * out_stride + r, out_stride, &p, p.x + t / TOKENS * p.x_panel + g * p.x_group,
                    p.w + r / ROWS * p.w_panel + g * p.w_group, p.groups - g < block ? p.groups - g : block,
                    g > 0, n_rows - r, words, n_tokens - t);
}
