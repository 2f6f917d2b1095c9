/* kernels/avx512/amx.c - 16-bit fixed-point products for many tokens on processors with AMX (Xeon
 * since Sapphire Rapids). 8-bit ones are left to VNNI, which is faster there: scaling the sums
 * limits both. A tile holds 16 rows of 64 bytes; one instruction multiplies 16 tokens x 64 columns
 * with 64 columns x 16 rows of weights, bytes times bytes, adding to 32-bit sums. A token of 16
 * bits is a signed high and an unsigned low byte: two products. One token is multiplied by VNNI,
 * whose panels of rows serve here as they are. */
#include "engine/cpu/kernels/avx512/avx512.h"

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* A panel of tokens fills two tiles, with the high and the low bytes of 16 tokens. It is worked on
 * in parts of TOKEN_BYTES, which stay in the first-level cache while all rows pass. */
enum { ROWS = 16, TOKENS = 16, SCALES_BYTES = 2 * TOKENS * sizeof(float), TOKEN_BYTES = 24 * 1024 };

static bool supported(void) {
#ifdef __linux__
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return x86_has(X86_AMX_TILE | X86_AMX_INT8) && kernels_avx512vnni.supported() &&
           /* Linux lets a process use tiles once it has asked for them; asking again changes
            * nothing */
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

/* ---- tokens ---- */

/* A panel of tokens: for each group their scales and their sums, then for each part of it, up to 64
 * columns, two tiles of [16][columns] bytes. */
INLINE int part_columns(int64_t group_size) {
    return group_size < 64 ? (int)group_size : 64;
}

INLINE int64_t token_group_bytes(const rows *w) {
    return SCALES_BYTES + 2 * TOKENS * w->group_size;
}

static size_t token_panel_bytes(const rows *w) {
    return (size_t)(w->n / w->group_size * token_group_bytes(w));
}

static void pack_tokens(void *panel, const rows *w, const float *x, int64_t x_stride, int64_t n_tokens) {
    int64_t groups = w->n / w->group_size, columns = part_columns(w->group_size);
    int64_t group_bytes = token_group_bytes(w);
    if (n_tokens < TOKENS) memset(panel, 0, (size_t)(groups * group_bytes));
    for (int64_t g = 0; g < groups; g++) {
        float *scales = (float *)(void *)((char *)panel + g * group_bytes);
        char *tiles = (char *)scales + SCALES_BYTES;
        for (int64_t t = 0; t < n_tokens; t++) {
            _Alignas(64) int16_t values[128];
            quantize_group(values, scales + t, scales + TOKENS + t, x + t * x_stride + g * w->group_size,
                           w->group_size, true);
            for (int64_t c = 0; c < w->group_size; c += 32) {
                char *to = tiles + c / columns * (32 * columns) + t * columns + c % columns;
                __m512i v = _mm512_load_si512(values + c);
                __m256i high = _mm512_cvtepi16_epi8(_mm512_srli_epi16(v, 8)), low = _mm512_cvtepi16_epi8(v);
                __m512i both =
                    panel_order(_mm512_inserti64x4(_mm512_castsi256_si512(high), low, 1), w->bits, false);
                _mm256_store_si256((void *)to, _mm512_castsi512_si256(both));
                _mm256_store_si256((void *)(to + 16 * columns), _mm512_extracti64x4_epi64(both, 1));
            }
        }
    }
}

/* ---- products ---- */

/* What ldtilecfg loads. Tiles 0 to 3 are sums: of the first of the tokens' tiles with either panel
 * of rows, of the second with either; 4 and 5 are the tokens', 6 and 7 the rows'. */
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

typedef int32_t dots[2][2][TOKENS][ROWS]; /* of high and low bytes, panels of rows */
typedef float tile_sums[TOKENS][2][ROWS];

/* One group of a panel of tokens times two panels of rows. */
INLINE void dot_group(dots out, const char *x, const char *w, int64_t w_stride, int group_size) {
    int columns = part_columns(group_size);
    x += SCALES_BYTES, w += 2 * ROWS * sizeof(float);
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
        _tile_dpbuud(2, 5, 6);
        _tile_dpbuud(3, 5, 7);
    }
    _tile_stored(0, out[0][0], 64);
    _tile_stored(1, out[0][1], 64);
    _tile_stored(2, out[1][0], 64);
    _tile_stored(3, out[1][1], 64);
}

/* Scales one group's dots and adds them to the sums. */
INLINE void add_group(tile_sums sums, dots dot, const char *x, const char *w, int64_t w_stride,
                      int64_t n_tokens) {
    const float *scales = (const float *)(const void *)x;
    for (int p = 0; p < 2; p++) {
        __m512 scale = _mm512_load_ps(w + p * w_stride), bias = _mm512_load_ps(w + p * w_stride + 64);
        for (int64_t t = 0; t < n_tokens; t++) {
            /* below 2^31: 128 * 255 * 32768 */
            __m512i whole = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(dot[0][p][t]), 8),
                                             _mm512_load_si512(dot[1][p][t]));
            __m512 sum =
                _mm512_fmadd_ps(bias, _mm512_set1_ps(scales[TOKENS + t]), _mm512_load_ps(sums[t][p]));
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

/* A panel of tokens times two of rows over n_groups groups; added to out when `add`. n_tokens,
 * n_rows: those that exist; where the rows are one panel's, it is read twice. */
INLINE void multiply_tile(float *out, int64_t out_stride, const panels *p, const char *x, const char *w,
                          int64_t n_groups, bool add, int64_t n_tokens, int64_t n_rows) {
    _Alignas(64) tile_sums sums;
    _Alignas(64) dots dot[2];
    int64_t w_stride = n_rows > ROWS ? p->w_panel : 0;
    __mmask16 masks[2] = {first_lanes(n_rows), n_rows > ROWS ? first_lanes(n_rows - ROWS) : 0};
    for (int64_t t = 0; t < n_tokens; t++)
        for (int k = 0; k < 2; k++)
            _mm512_store_ps(sums[t][k], first_sums(out + t * out_stride + k * ROWS, masks[k], add));
    /* the tiles work on a group while vectors scale the one before */
    dot_group(dot[0], x, w, w_stride, p->group_size);
    for (int64_t g = 1; g <= n_groups; g++, x += p->x_group, w += p->w_group) {
        if (g < n_groups) dot_group(dot[g % 2], x + p->x_group, w + p->w_group, w_stride, p->group_size);
        add_group(sums, dot[(g - 1) % 2], x, w, w_stride, n_tokens);
    }
    for (int64_t t = 0; t < n_tokens; t++)
        for (int k = 0; k < 2; k++)
            _mm512_mask_storeu_ps(out + t * out_stride + k * ROWS, masks[k], _mm512_load_ps(sums[t][k]));
}

INLINE int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static void multiply(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens, const void *tile,
                     int64_t n_rows, const rows *w) {
    int64_t groups = w->n / w->group_size;
    panels p = {.x_group = token_group_bytes(w), .group_size = w->group_size};
    p.w_panel = (int64_t)vnni_int8.row_panel_bytes(w), p.w_group = p.w_panel / groups;
    p.x_panel = groups * p.x_group;
    int64_t block = TOKEN_BYTES / p.x_group; /* groups, at least 5 */
    _tile_loadconfig(w->group_size < 64 ? &config32 : &config64);
    for (int64_t g = 0; g < groups; g += block)
        for (int64_t t = 0; t < n_tokens; t += TOKENS)
            for (int64_t r = 0; r < n_rows; r += 2 * ROWS)
                multiply_tile(out + t * out_stride + r, out_stride, &p,
                              (const char *)tokens + t / TOKENS * p.x_panel + g * p.x_group,
                              (const char *)tile + r / ROWS * p.w_panel + g * p.w_group,
                              least(block, groups - g), g > 0, least(TOKENS, n_tokens - t), n_rows - r);
    _tile_release(); /* else every switch of threads would save them */
}

/* ---- what VNNI does ---- */

static size_t prepared_bytes(const rows *w) {
    return vnni_int16.prepared_bytes(w);
}

static void prepare(void *prepared, const rows *w, const float *x) {
    vnni_int16.prepare(prepared, w, x);
}

static void matvec(float *y, const rows *w, runs rs, const void *prepared) {
    vnni_int16.matvec(y, w, rs, prepared);
}

static size_t row_panel_bytes(const rows *w) {
    return vnni_int8.row_panel_bytes(w);
}

static void pack_rows(void *panel, const rows *w, int64_t first, int64_t n_rows) {
    vnni_int8.pack_rows(panel, w, first, n_rows);
}

static const products amx_int16 = {
    .prepared_bytes = prepared_bytes,
    .prepare = prepare,
    .matvec = matvec,
    .panel_rows = ROWS,
    .panel_tokens = TOKENS,
    .row_panel_bytes = row_panel_bytes,
    .token_panel_bytes = token_panel_bytes,
    .pack_rows = pack_rows,
    .pack_tokens = pack_tokens,
    .multiply = multiply,
};

const kernels kernels_avx512amx = {
    .name = "avx512amx",
    .supported = supported,
    .base = &kernels_avx512vnni,
    .of = {[MATRIX_AFFINE] = {.int16 = &amx_int16}, [MATRIX_MXFP4] = {.int16 = &amx_int16}},
};
