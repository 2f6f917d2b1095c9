/* kernels/avx512/vnni.c - fixed-point products for processors with AVX-512 VNNI and VBMI (2019 and
 * later). vpdpbusd multiplies 64 unsigned with 64 signed bytes, vpdpwssd 32 with 32 words, both
 * adding to 32-bit sums: int8 and int16 are one code with two numbers' widths. Quantized values are
 * used as they are, and mxfp4's numbers as the integers E2M1_BYTES (kernels.h); the scale is
 * applied once per group. That 16 bits in fixed point serve as exact activations was found here;
 * int8 activations per group are llama.cpp's idea.
 */
#include "engine/cpu/kernels/avx512/avx512.h"

static bool supported(void) {
    return x86_has(X86_AVX512VNNI | X86_AVX512VBMI) && kernels_avx512.supported();
}

/* `words`, everywhere below: activations have 16 bits, else 8. */

/* As assembly, since with the intrinsics gcc 12 copies and spills the sums, at half the speed. */
INLINE __m512i dot_add(__m512i sum, __m512i q, __m512i x, bool words) {
    if (words)
        __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(q), "v"(x));
    else
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(q), "v"(x));
    return sum;
}

/* ---- one token ---- */

/* A block's bytes lie in this many registers of 64 columns. Weights of up to 4 bits have several,
 * so that sums of all of them are converted and scaled at once. */
INLINE int parts_of(int bits) {
    return bits == 1 ? 8 : bits == 2 ? 4 : bits <= 4 ? 2 : 1;
}

/* What a weight of 1 bit is multiplied as, where it is not 0: a byte's top bit. Bits get there by
 * additions, which more units can do than shifts. */
enum { SINGLE_BIT = 128 };

/* Columns of a block: what 64 bytes hold of weights of 1, 2 or 4 bits; else of one or two
 * registers. */
INLINE int block_width(int bits) {
    return 64 * parts_of(bits);
}

/* Of words these are the high bytes, and as many registers follow with the low ones. */
INLINE int registers(form f) {
    return parts_of(f.bits) * (f.words ? 2 : 1);
}

INLINE int block_bytes(form f) {
    return registers(f) * 64;
}

/* Of 64 bytes in natural order those for register k: each parts_of(bits)th one, of 1 bit from the
 * last on, or, of 3 bits, the first or the second 4 of 8. */
INLINE void store_part(char *to, __m512i v, int bits, unsigned k) {
    if (bits == 1)
        _mm_storel_epi64((void *)to, _mm512_cvtepi64_epi8(_mm512_srli_epi64(v, 56 - 8 * k)));
    else if (bits == 2)
        _mm_store_si128((void *)to, _mm512_cvtepi32_epi8(_mm512_srli_epi32(v, 8 * k)));
    else if (bits == 3)
        _mm256_store_si256((void *)to, _mm512_cvtepi64_epi32(_mm512_srli_epi64(v, 32 * k)));
    else if (bits == 4)
        _mm256_store_si256((void *)to, _mm512_cvtepi16_epi8(_mm512_srli_epi16(v, 8 * k)));
    else
        _mm512_store_si512(to, v);
}

/* A block from natural order to registers, in place. A word is 256 * high + low, two signed bytes:
 * bytes times bytes need fewer instructions than words times words. */
INLINE void arrange(char *block, form f) {
    int parts = parts_of(f.bits), n = registers(f);
    __m512i bytes[16];
    for (int i = 0; i < n; i++) {
        __m512i v = _mm512_load_si512(block + i * 64);
        if (!f.words) {
            bytes[i] = v;
            continue;
        }
        __m512i high = _mm512_srli_epi16(_mm512_add_epi16(v, _mm512_set1_epi16(128)), 8);
        __m256i *to = (__m256i *)(void *)bytes + i;
        to[0] = _mm512_cvtepi16_epi8(high), to[2 * parts] = _mm512_cvtepi16_epi8(v);
    }
    for (int i = 0; i < n; i++)
        for (int k = 0; k < parts; k++)
            store_part(block + (i / parts * parts + k) * 64 + i % parts * (64 / parts), bytes[i], f.bits,
                       (unsigned)k);
}

/* 64 values of 1 to 8 bits, as bytes: the first 8 * bits of those packed, of which n_bytes exist.
 * Where there are more, they are loaded too, since loads with a mask take longer. */
INLINE __m512i unpack_bytes(const uint8_t *packed, int bits, int64_t n_bytes) {
    __m512i v = load_bytes(packed, n_bytes);
    if (bits == 8) return v;
    /* each 64 bits get the `bits` bytes that hold 8 values, then each byte the bits of its value */
    __m512i lanes = _mm512_mullo_epi64(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7),
                                       _mm512_set1_epi64(bits * 0x0101010101010101ll));
    __m512i spread = _mm512_add_epi8(lanes, _mm512_set1_epi64(0x0706050403020100ll));
    __m512i shifts = _mm512_set1_epi64(0x0706050403020100ll * bits);
    v = _mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(spread, v));
    return _mm512_and_si512(v, _mm512_set1_epi8((char)((1 << bits) - 1)));
}

/* Codes of 4 bits, one a byte, as the integers that are multiplied. */
INLINE __m512i integers(__m512i codes, form f) {
    if (f.kind == MATRIX_AFFINE) return codes;
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_setr_epi8(E2M1_BYTES)), codes);
}

/* A block of weights, of whose bytes n_bytes exist: bytes, where it is one register; of 3 bits, 6
 * bytes in each 8; else as it is. */
INLINE __m512i load_block(const uint8_t *packed, int64_t n_bytes, form f) {
    if (f.bits > 4) return unpack_bytes(packed, f.bits, n_bytes);
    if (f.bits != 3) return load_bytes(packed, n_bytes);
    __m512i sixes = _mm512_add_epi8(_mm512_set1_epi64(0x0706050403020100ll),
                                    _mm512_mullo_epi64(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7),
                                                       _mm512_set1_epi64(0x0606060606060606ll)));
    return _mm512_permutexvar_epi8(sixes, load_bytes(packed, n_bytes));
}

/* Register k of a block's weights, as bytes: its columns are those of store_part. A block of single
 * bits has been doubled k times. */
INLINE __m512i take_part(__m512i block, int k, form f) {
    if (f.bits > 4) return block;
    if (f.bits == 1) return _mm512_and_si512(block, _mm512_set1_epi8((char)SINGLE_BIT));
    __m512i mask = _mm512_set1_epi8((char)((1 << f.bits) - 1));
    if (f.bits == 3) {
        __m512i shifts = _mm512_set1_epi64(0x211e1b1809060300ll + k * 0x0c0c0c0c0c0c0c0cll);
        return _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, block), mask);
    }
    if (k) block = _mm512_srli_epi16(block, (unsigned)(k * f.bits));
    return integers(_mm512_and_si512(block, mask), f);
}

/* dots[k]: the block at packed + k * apart with the registers of x, for k < R. Lane i is of columns
 * i * width / 16 and on. */
INLINE void dot_block(__m512i dots[], int R, const uint8_t *packed, int64_t apart, int64_t n_bytes,
                      const char *x, form f) {
    int parts = parts_of(f.bits);
    __m512i low[RUNS], block[RUNS];
    UNROLL
    for (int k = 0; k < R; k++) {
        dots[k] = low[k] = _mm512_setzero_si512();
        block[k] = load_block(packed + k * apart, n_bytes, f);
    }
    UNROLL
    for (int i = 0; i < parts; i++) {
        __m512i high_x = _mm512_load_si512(x + i * 64), low_x = high_x;
        if (f.words) low_x = _mm512_load_si512(x + (parts + i) * 64);
        UNROLL
        for (int k = 0; k < R; k++) {
            if (f.bits == 1 && i) block[k] = _mm512_add_epi8(block[k], block[k]);
            __m512i q = take_part(block[k], i, f);
            dots[k] = dot_add(dots[k], q, high_x, false);
            if (f.words) low[k] = dot_add(low[k], q, low_x, false);
        }
    }
    for (int k = 0; k < R && f.words; k++) dots[k] = _mm512_add_epi32(_mm512_slli_epi32(dots[k], 8), low[k]);
}

INLINE __m512i add_dots(__m512i a, __m512i b) {
    return _mm512_add_epi32(a, b);
}

INLINE __m512 dots_to_floats(__m512i a) {
    return _mm512_cvtepi32_ps(a);
}

/* Those of E2M1 numbers are E2M1_BYTES'. */
INLINE __m512 scales_of(const rows *w, int64_t i, int64_t n, form f) {
    __m512 scales = take_scales(w, i, n, f);
    return f.kind == MATRIX_AFFINE ? scales : _mm512_mul_ps(scales, _mm512_set1_ps(0.5f));
}

INLINE __m512 biases_of(const rows *w, int64_t i, int64_t n, form f) {
    if (f.kind == MATRIX_AFFINE) return take_biases(w, i, n);
    return _mm512_mul_ps(take_scales(w, i, n, f), _mm512_set1_ps(-6));
}

INLINE bool has_biases(form f) {
    (void)f;
    return true;
}

#include "engine/cpu/kernels/avx512/matvec.h"

INLINE void matvec(float *y, const rows *w, runs rs, const void *prepared, bool words) {
    if (w->kind == MATRIX_MXFP4)
        matvec_of(y, w, rs, prepared, (form){MATRIX_MXFP4, 4, words});
    else if (w->kind == MATRIX_NVFP4)
        matvec_of(y, w, rs, prepared, (form){MATRIX_NVFP4, 4, words});
    else
        matvec_affine(y, w, rs, prepared, words);
}

/* E2M1 numbers meet what affine weights of 4 bits do. */
INLINE form prepared_form(const rows *w, bool words) {
    return (form){MATRIX_AFFINE, w->bits, words};
}

INLINE void prepare(void *prepared, const rows *w, const float *x, bool words) {
    form f = prepared_form(w, words);
    int64_t groups = w->n / w->group_size, padded = padded_groups(w);
    float *scales = prepared, *sums = scales + padded;
    char *values = (char *)(sums + padded);
    memset(prepared, 0, prepared_size(w, block_bytes(f))); /* padding */
    for (int64_t g = 0; g < groups; g++) {
        quantize_group(values + g * w->group_size * (words ? 2 : 1), scales + g, sums + g,
                       x + g * w->group_size, w->group_size, words);
        if (w->bits == 1) scales[g] /= SINGLE_BIT;
    }
    for (int64_t c = 0; c < w->n; c += block_width(w->bits), values += block_bytes(f)) arrange(values, f);
}

#include "engine/cpu/kernels/avx512/panels.h"
#include "engine/cpu/kernels/avx512/straight.h"

/* ---- both widths ---- */

#define FIXED_POINT(name, words)                                                                             \
    static size_t prepared_bytes_##name(const rows *w) {                                                     \
        return prepared_size(w, block_bytes(prepared_form(w, words)));                                       \
    }                                                                                                        \
    static void prepare_##name(void *prepared, const rows *w, const float *x) {                              \
        prepare(prepared, w, x, words);                                                                      \
    }                                                                                                        \
    static void matvec_##name(float *y, const rows *w, runs rs, const void *prepared) {                      \
        matvec(y, w, rs, prepared, words);                                                                   \
    }                                                                                                        \
    static size_t row_panel_bytes_##name(const rows *w) {                                                    \
        return panel_size(w, ROWS, words);                                                                   \
    }                                                                                                        \
    static size_t token_panel_bytes_##name(const rows *w) {                                                  \
        return panel_size(w, TOKENS, words);                                                                 \
    }                                                                                                        \
    static void pack_rows_##name(void *panel, const rows *w, int64_t first, int64_t n_rows) {                \
        pack_rows(panel, w, first, n_rows, words);                                                           \
    }                                                                                                        \
    static void pack_tokens_##name(void *panel, const rows *w, const float *x, int64_t x_stride,             \
                                   int64_t n_tokens) {                                                       \
        pack_tokens(panel, w, x, x_stride, n_tokens, words);                                                 \
    }                                                                                                        \
    static void multiply_##name(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens,        \
                                const void *tile, int64_t n_rows, const rows *w) {                           \
        multiply(out, out_stride, tokens, n_tokens, tile, n_rows, w, words);                                 \
    }                                                                                                        \
    static int64_t straight_tokens_##name(const rows *w) {                                                   \
        return w->bits == 4 ? STRAIGHT_TOKENS : 0;                                                           \
    }                                                                                                        \
    static void multiply_straight_##name(float *out, int64_t out_stride, const void *tokens,                 \
                                         int64_t n_tokens, const rows *w, int64_t n_rows) {                  \
        multiply_4_bits(out, out_stride, tokens, n_tokens, w, n_rows, words);                                \
    }                                                                                                        \
    const products vnni_##name = {                                                                           \
        .prepared_bytes = prepared_bytes_##name,                                                             \
        .prepare = prepare_##name,                                                                           \
        .matvec = matvec_##name,                                                                             \
        .panel_rows = ROWS,                                                                                  \
        .panel_tokens = TOKENS,                                                                              \
        .row_panel_bytes = row_panel_bytes_##name,                                                           \
        .token_panel_bytes = token_panel_bytes_##name,                                                       \
        .pack_rows = pack_rows_##name,                                                                       \
        .pack_tokens = pack_tokens_##name,                                                                   \
        .multiply = multiply_##name,                                                                         \
        .straight_tokens = straight_tokens_##name,                                                           \
        .multiply_straight = multiply_straight_##name,                                                       \
    }

FIXED_POINT(int16, true);
FIXED_POINT(int8, false);

const kernels kernels_avx512vnni = {
    .name = "avx512vnni",
    .supported = supported,
    .base = &kernels_avx512,
    .of = {[MATRIX_AFFINE] = {.int16 = &vnni_int16, .int8 = &vnni_int8},
           [MATRIX_MXFP4] = {.int16 = &vnni_int16, .int8 = &vnni_int8},
           [MATRIX_MXFP8] = {.f32 = &avx512vbmi_mxfp8},
           [MATRIX_NVFP4] = {.int16 = &vnni_int16, .int8 = &vnni_int8}},
};
