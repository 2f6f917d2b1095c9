/* kernels_amx.c - fixed-point products for many tokens on processors with AMX (Xeon since Sapphire Rapids).
 * A tile holds 16 rows of 64 bytes; one instruction multiplies 16 tokens x 64 columns with 64 columns x 16
 * rows of weights, bytes times bytes, adding to 32-bit sums. A token of 16 bits is a signed high and an
 * unsigned low byte: two products. One token is multiplied by VNNI, whose panels of rows serve here as they
 * are. */
#include "engine/cpu/kernels_avx512.h"

#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* A panel of tokens fills two tiles: of 16 bits, the high and the low bytes of 16 tokens; of 8 bits, 32
 * tokens. It is worked on in parts of TOKEN_BYTES, which stay in the first-level cache while all rows pass.
 */
enum { ROWS = 16, MOST_TOKENS = 32, TOKEN_BYTES = 24 * 1024 };

static bool supported(void) {
#ifdef __linux__
    enum { AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 }; /* in EDX of CPUID's leaf 7 */
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    unsigned a, b, c, d, wanted = AMX_TILE | AMX_INT8;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & wanted) == wanted &&
           kernels_avx512vnni.supported() &&
           /* Linux lets a process use tiles once it has asked for them; asking again changes nothing */
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

/* `words`, everywhere below: activations have 16 bits, else 8. */

/* ---- tokens ---- */

/* A panel of tokens: for each group their scales and their sums, then for each part of it, up to 64 columns,
 * two tiles of [16][columns] bytes. */
INLINE int tokens_of(bool words) {
    return words ? 16 : MOST_TOKENS;
}

INLINE int part_columns(int64_t group_size) {
    return group_size < 64 ? (int)group_size : 64;
}

INLINE int64_t scales_bytes(bool words) {
    return 2 * tokens_of(words) * (int64_t)sizeof(float);
}

INLINE int64_t token_group_bytes(const rows *w, bool words) {
    return scales_bytes(words) + 2 * 16 * w->group_size;
}

INLINE void pack_tokens(void *panel, const rows *w, const float *x, int64_t x_stride, int64_t n_tokens,
                        bool words) {
    int64_t groups = w->n / w->group_size, columns = part_columns(w->group_size);
    int64_t group_bytes = token_group_bytes(w, words);
    if (n_tokens < tokens_of(words)) memset(panel, 0, (size_t)(groups * group_bytes));
    for (int64_t g = 0; g < groups; g++) {
        float *scales = (float *)(void *)((char *)panel + g * group_bytes);
        char *tiles = (char *)scales + scales_bytes(words);
        for (int64_t t = 0; t < n_tokens; t++) {
            _Alignas(64) int16_t values[128];
            quantize_group(values, scales + t, scales + tokens_of(words) + t,
                           x + t * x_stride + g * w->group_size, w->group_size, words);
            for (int64_t c = 0; c < w->group_size; c += 32) {
                char *to = tiles + c / columns * (32 * columns) + t * columns + c % columns;
                if (!words) {
                    memcpy(to, (const char *)values + c, 32);
                    continue;
                }
                __m512i v = _mm512_load_si512(values + c);
                _mm256_store_si256((void *)to, _mm512_cvtepi16_epi8(_mm512_srli_epi16(v, 8)));
                _mm256_store_si256((void *)(to + 16 * columns), _mm512_cvtepi16_epi8(v));
            }
        }
    }
}

/* ---- products ---- */

/* What ldtilecfg loads. Tiles 0 to 3 are sums: of the first of the tokens' tiles with either panel of rows,
 * of the second with either; 4 and 5 are the tokens', 6 and 7 the rows'. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

#define SIZES(columns)                                                                                       \
    .row_bytes = {64, 64, 64, 64, columns, columns, 64, 64},                                                 \
    .rows = {16, 16, 16, 16, 16, 16, columns / 4, columns / 4}

static const _Alignas(64) tile_config config32 = {.palette = 1, SIZES(32)};
static const _Alignas(64) tile_config config64 = {.palette = 1, SIZES(64)};

typedef int32_t dots[2][2][16][ROWS]; /* of the tokens' tiles, panels of rows */
typedef float tile_sums[MOST_TOKENS][2][ROWS];

/* One group of a panel of tokens times two panels of rows. */
INLINE void dot_group(dots out, const char *x, const char *w, int64_t w_stride, int group_size, bool words) {
    int columns = part_columns(group_size);
    x += scales_bytes(words), w += 2 * ROWS * sizeof(float);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int c = 0; c < group_size; c += columns, x += 32 * columns, w += ROWS * columns) {
        _tile_loadd(4, x, columns);
        _tile_loadd(5, x + 16 * columns, columns);
        _tile_loadd(6, w, 64);
        _tile_loadd(7, w + w_stride, 64);
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
        if (words) {
            _tile_dpbuud(2, 5, 6);
            _tile_dpbuud(3, 5, 7);
        } else {
            _tile_dpbsud(2, 5, 6);
            _tile_dpbsud(3, 5, 7);
        }
    }
    _tile_stored(0, out[0][0], 64);
    _tile_stored(1, out[0][1], 64);
    _tile_stored(2, out[1][0], 64);
    _tile_stored(3, out[1][1], 64);
}

/* Scales one group's dots and adds them to the sums. */
INLINE void add_group(tile_sums sums, dots dot, const char *x, const char *w, int64_t w_stride,
                      int64_t n_tokens, bool words) {
    const float *scales = (const float *)(const void *)x;
    for (int p = 0; p < 2; p++) {
        __m512 scale = _mm512_load_ps(w + p * w_stride), bias = _mm512_load_ps(w + p * w_stride + 64);
        for (int64_t t = 0; t < n_tokens; t++) {
            __m512i whole = _mm512_load_si512(dot[t / 16][p][t % 16]);
            if (words) /* below 2^31: 128 * 255 * 32768 */
                whole = _mm512_add_epi32(_mm512_slli_epi32(whole, 8), _mm512_load_si512(dot[1][p][t]));
            __m512 sum = _mm512_fmadd_ps(bias, _mm512_set1_ps(scales[tokens_of(words) + t]),
                                         _mm512_load_ps(sums[t][p]));
            __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_set1_ps(scales[t]));
            _mm512_store_ps(sums[t][p], _mm512_fmadd_ps(product, scale, sum));
        }
    }
}

/* Where the parts of both sides lie. */
typedef struct panels {
    int64_t x_panel, w_panel, x_group, w_group; /* bytes */
    int group_size;
} panels;

/* A panel of tokens times two of rows over n_groups groups; added to out when `add`. n_tokens, n_rows: those
 * that exist; where the rows are one panel's, it is read twice. */
INLINE void multiply_tile(float *out, int64_t out_stride, const panels *p, const char *x, const char *w,
                          int64_t n_groups, bool add, int64_t n_tokens, int64_t n_rows, bool words) {
    _Alignas(64) tile_sums sums;
    _Alignas(64) dots dot[2];
    int64_t w_stride = n_rows > ROWS ? p->w_panel : 0;
    __mmask16 masks[2] = {first_lanes(n_rows), n_rows > ROWS ? first_lanes(n_rows - ROWS) : 0};
    for (int64_t t = 0; t < n_tokens; t++)
        for (int k = 0; k < 2; k++) {
            const float *from = out + t * out_stride + k * ROWS;
            _mm512_store_ps(sums[t][k], _mm512_maskz_loadu_ps(add ? masks[k] : 0, from));
        }
    /* the tiles work on a group while vectors scale the one before */
    dot_group(dot[0], x, w, w_stride, p->group_size, words);
    for (int64_t g = 1; g <= n_groups; g++, x += p->x_group, w += p->w_group) {
        if (g < n_groups)
            dot_group(dot[g % 2], x + p->x_group, w + p->w_group, w_stride, p->group_size, words);
        add_group(sums, dot[(g - 1) % 2], x, w, w_stride, n_tokens, words);
    }
    for (int64_t t = 0; t < n_tokens; t++)
        for (int k = 0; k < 2; k++)
            _mm512_mask_storeu_ps(out + t * out_stride + k * ROWS, masks[k], _mm512_load_ps(sums[t][k]));
}

INLINE int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

INLINE void multiply(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens, const void *tile,
                     int64_t n_rows, const rows *w, bool words) {
    int64_t groups = w->n / w->group_size, T = tokens_of(words);
    panels p = {.x_group = token_group_bytes(w, words), .group_size = w->group_size};
    p.w_panel = (int64_t)vnni_int8.row_panel_bytes(w), p.w_group = p.w_panel / groups;
    p.x_panel = groups * p.x_group;
    int64_t block = TOKEN_BYTES / p.x_group; /* groups, at least 5 */
    _tile_loadconfig(w->group_size < 64 ? &config32 : &config64);
    for (int64_t g = 0; g < groups; g += block)
        for (int64_t t = 0; t < n_tokens; t += T)
            for (int64_t r = 0; r < n_rows; r += 2 * ROWS)
                multiply_tile(out + t * out_stride + r, out_stride, &p,
                              (const char *)tokens + t / T * p.x_panel + g * p.x_group,
                              (const char *)tile + r / ROWS * p.w_panel + g * p.w_group,
                              least(block, groups - g), g > 0, least(T, n_tokens - t), n_rows - r, words);
    _tile_release(); /* else every switch of threads would save them */
}

/* ---- both widths ---- */

static size_t row_panel_bytes(const rows *w) {
    return vnni_int8.row_panel_bytes(w);
}

static void pack_rows(void *panel, const rows *w, int64_t first, int64_t n_rows) {
    vnni_int8.pack_rows(panel, w, first, n_rows);
}

#define FIXED_POINT(name, words)                                                                             \
    static size_t prepared_bytes_##name(const rows *w) {                                                     \
        return vnni_##name.prepared_bytes(w);                                                                \
    }                                                                                                        \
    static void prepare_##name(void *prepared, const rows *w, const float *x) {                              \
        vnni_##name.prepare(prepared, w, x);                                                                 \
    }                                                                                                        \
    static void matvec_##name(float *y, const rows *w, int64_t first, int64_t end, const void *prepared) {   \
        vnni_##name.matvec(y, w, first, end, prepared);                                                      \
    }                                                                                                        \
    static size_t token_panel_bytes_##name(const rows *w) {                                                  \
        return (size_t)(w->n / w->group_size * token_group_bytes(w, words));                                 \
    }                                                                                                        \
    static void pack_tokens_##name(void *panel, const rows *w, const float *x, int64_t x_stride,             \
                                   int64_t n_tokens) {                                                       \
        pack_tokens(panel, w, x, x_stride, n_tokens, words);                                                 \
    }                                                                                                        \
    static void multiply_##name(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens,        \
                                const void *tile, int64_t n_rows, const rows *w) {                           \
        multiply(out, out_stride, tokens, n_tokens, tile, n_rows, w, words);                                 \
    }                                                                                                        \
    static const products name##_products = {                                                                \
        .prepared_bytes = prepared_bytes_##name,                                                             \
        .prepare = prepare_##name,                                                                           \
        .matvec = matvec_##name,                                                                             \
        .panel_rows = ROWS,                                                                                  \
        .panel_tokens = words ? 16 : MOST_TOKENS,                                                            \
        .row_panel_bytes = row_panel_bytes,                                                                  \
        .token_panel_bytes = token_panel_bytes_##name,                                                       \
        .pack_rows = pack_rows,                                                                              \
        .pack_tokens = pack_tokens_##name,                                                                   \
        .multiply = multiply_##name,                                                                         \
    }

FIXED_POINT(int16, true);
FIXED_POINT(int8, false);

const kernels kernels_avx512amx = {
    .name = "avx512amx",
    .supported = supported,
    .base = &kernels_avx512vnni,
    .int16 = &int16_products,
    .int8 = &int8_products,
};
