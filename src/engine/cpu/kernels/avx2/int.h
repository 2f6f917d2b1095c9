/* kernels/avx2/int.h - integers on AVX2: activations in fixed point, quantized weights, one token's
 * product. vpmaddwd multiplies 16 words, vpmaddubsw 32 unsigned with 32 signed bytes; both add
 * neighbours. Sums within a group are integers, and exact. numbers of mxfp4 and nvfp4 become the
 * integers E2M1_BYTES (kernels.h), looked up by their code. */
#ifndef ENGINE_CPU_KERNELS_AVX2_INT_H
#define ENGINE_CPU_KERNELS_AVX2_INT_H

#include "engine/cpu/kernels/avx2/avx2.h"

#include <float.h>

enum { MAX_GROUP = 128 };

/* What E2M1_BYTES are to be multiplied with, and what is added to their product, of a group's
 * scale. */
#define E2M1_SCALE 0.5f
#define E2M1_BIAS  -6

/* ---- activations ---- */

/* Quarters 0, 2, 1, 3, as packing two registers leaves them, to 0, 1, 2, 3. */
INLINE __m256i in_order(__m256i packed) {
    return _mm256_permute4x64_epi64(packed, 0xd8);
}

INLINE __m256i load(const void *p) {
    return _mm256_loadu_si256(p);
}

/* One group -> its values; *scale and *sum as kernels.h defines them. */
INLINE void quantize_group(int16_t *values, float *scale, float *sum, const float *x, int group_size,
                           float limit) {
    __m256i most = _mm256_setzero_si256(), total = most;
    for (int i = 0; i < group_size; i += 8) /* compared as integers, NaN is the largest of all */
        most = _mm256_max_epu32(most, _mm256_and_si256(load(x + i), _mm256_set1_epi32(0x7fffffff)));
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xb1));
    float largest = _mm_cvtss_f32(_mm_castsi128_ps(four));
    bool usable = largest >= 1e-30f && largest <= FLT_MAX;
    __m256 factor = _mm256_set1_ps(usable ? limit / largest : 0);
    for (int i = 0; i < group_size; i += 16) {
        __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), factor));
        __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8), factor));
        total = _mm256_add_epi32(total, _mm256_add_epi32(a, b));
        _mm256_storeu_si256((void *)(values + i), in_order(_mm256_packs_epi32(a, b)));
    }
    four = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    *scale = largest < 1e-30f ? 0 : largest / limit;
    *sum = *scale * (float)_mm_cvtsi128_si32(four);
}

/* 32 words that fit bytes, as bytes. */
INLINE __m256i narrow(__m256i a, __m256i b) {
    return in_order(_mm256_packs_epi16(a, b));
}

/* ---- quantized values ---- */

/* Of 16 values in half a register, word j gets values 2 j and 2 j + 1: PLACE are the two bytes they
 * lie in, RAISE the power of two that moves them to the word's top. */
#define PLACE(j, bits) (char)((j) * (bits) / 4), (char)((j) * (bits) / 4 + 1)
#define PLACES(from, bits)                                                                                   \
    _mm_add_epi8(_mm_setr_epi8(PLACE(0, bits), PLACE(1, bits), PLACE(2, bits), PLACE(3, bits),               \
                               PLACE(4, bits), PLACE(5, bits), PLACE(6, bits), PLACE(7, bits)),              \
                 _mm_set1_epi8((char)(from)))
#define RAISE(j, bits) (short)(1 << (16 - 2 * (bits) - (j) * (bits)*2 % 8))

/* 32 values of 1, 2, 3, 5, 6 or 8 bits (4 * bits bytes) as words: those in even columns, those in
 * odd ones. Two values lie in two bytes: these are looked up, moved to the top by a multiplication,
 * for want of a shift of words by different numbers, and shifted down. The second load ends where
 * the values end. */
INLINE void take_words(__m256i *even, __m256i *odd, const uint8_t *packed, int bits) {
    if (bits == 8) {
        __m256i v = load(packed);
        *even = _mm256_and_si256(v, _mm256_set1_epi16(255));
        *odd = _mm256_srli_epi16(v, 8);
        return;
    }
    int size = bits < 4 ? 8 : 16, second = 4 * bits - size;
    __m256i v;
    if (bits == 1) { /* less than a load: its bytes over and over */
        int32_t all;
        memcpy(&all, packed, sizeof all);
        v = _mm256_set1_epi32(all), second = 0;
    } else if (bits < 4)
        v = _mm256_set_m128i(_mm_loadl_epi64((const void *)(packed + second)),
                             _mm_loadl_epi64((const void *)packed));
    else
        v = _mm256_set_m128i(_mm_loadu_si128((const void *)(packed + second)),
                             _mm_loadu_si128((const void *)packed));
    v = _mm256_shuffle_epi8(v, _mm256_set_m128i(PLACES(2 * bits - second, bits), PLACES(0, bits)));
    v = _mm256_mullo_epi16(v, _mm256_broadcastsi128_si256(_mm_setr_epi16(
                                  RAISE(0, bits), RAISE(1, bits), RAISE(2, bits), RAISE(3, bits),
                                  RAISE(4, bits), RAISE(5, bits), RAISE(6, bits), RAISE(7, bits))));
    *even = _mm256_and_si256(_mm256_srli_epi16(v, 16 - 2 * bits), _mm256_set1_epi16((1 << bits) - 1));
    *odd = _mm256_srli_epi16(v, 16 - bits);
}

/* How a matrix is stored: constants of inlined functions. */
typedef struct form {
    matrix_kind kind;
    int bits;
    bool words; /* activations have 16 bits, and weights are multiplied so */
    int groups; /* one token: so many are in a block of columns: 1, 2, 4 or 8 */
} form;

/* Codes of 4 bits, one a byte, as the integers that are multiplied. */
INLINE __m256i integers(__m256i codes, form f) {
    if (f.kind == MATRIX_AFFINE) return codes;
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_setr_epi8(E2M1_BYTES)), codes);
}

/* 32 values as bytes, in order. Of nvfp4 n exist, 16 at least. */
INLINE __m256i take_bytes(const uint8_t *packed, int64_t n, form f) {
    int bits = f.bits;
    if (bits == 8) return load(packed);
    if (bits == 4) {
        bool half = f.kind == MATRIX_NVFP4 && n < 32;
        __m256i wide = _mm256_cvtepu8_epi16(half ? _mm_loadl_epi64((const void *)packed)
                                                 : _mm_loadu_si128((const void *)packed));
        wide = _mm256_and_si256(_mm256_or_si256(wide, _mm256_slli_epi16(wide, 4)), _mm256_set1_epi8(15));
        return integers(wide, f);
    }
    __m256i even, odd;
    take_words(&even, &odd, packed, bits);
    return _mm256_or_si256(even, _mm256_slli_epi16(odd, 8));
}

/* ---- one token ---- */

/* Rows are read from several places at once, each in order: the processor prefetches one stream per
 * page, and more streams use more of the memory's bandwidth. It stops at a page's end, so weights
 * are also fetched AHEAD bytes ahead, and their scales. Scales are converted for 8 groups at
 * once. */
enum { AHEAD = 512, SCALES_AHEAD = 128, CHUNK_GROUPS = 8 };

/* A block of columns: 32 bytes of weights of 1, 2 or 4 bits, else 32 columns, whose even and odd
 * columns are two registers of words. 4 bits: as words, register k has columns 4 i + k, as bytes 2
 * i + k. 2 bits: as bytes 4 i + k, 1 bit: 8 i + k. Words that are multiplied as bytes are 256 *
 * high + low, two signed bytes: registers of the high ones, then of the low ones. */
INLINE int block_width(int bits) {
    return bits == 1 ? 256 : bits == 2 ? 128 : bits == 4 ? 64 : 32;
}

/* Are activations multiplied as bytes, those of 16 bits as two? */
INLINE bool as_bytes(form f) {
    return f.bits < 3 || (f.bits == 4 && (!f.words || f.kind != MATRIX_AFFINE));
}

INLINE int block_bytes(int bits, bool words) {
    return block_width(bits) * (words ? 2 : 1);
}

INLINE int64_t groups_of(const rows *w) {
    return w->n / w->group_size;
}

INLINE int64_t padded_groups(const rows *w) {
    return (groups_of(w) + CHUNK_GROUPS - 1) / CHUNK_GROUPS * CHUNK_GROUPS;
}

/* The first of the 8 groups whose scales are converted for those from g on: the last 8 of a row are
 * read whole, though some of them were seen before. */
INLINE int64_t chunk_start(int64_t g, int64_t groups) {
    return g + CHUNK_GROUPS <= groups || groups < CHUNK_GROUPS ? g : groups - CHUNK_GROUPS;
}

/* A prepared token: scales of the groups; for each chunk of 8 groups the sums of those not seen
 * before, else zeros; then the blocks, with room for words. */
typedef struct token {
    float *scales, *sums;
    char *values;
} token;

INLINE token token_at(const void *prepared, const rows *w) {
    float *scales = (float *)(uintptr_t)prepared;
    return (token){scales, scales + padded_groups(w), (char *)(scales + 2 * padded_groups(w))};
}

INLINE int64_t blocks_of(const rows *w) {
    return (w->n + block_width(w->bits) - 1) / block_width(w->bits);
}

static size_t prepared_bytes(const rows *w) {
    int64_t scales = 2 * padded_groups(w) * (int64_t)sizeof(float);
    return (size_t)((scales + blocks_of(w) * block_bytes(w->bits, true) + 63) / 64 * 64);
}

/* 32 words to those in even places and those in odd ones. */
INLINE void split(__m256i *even, __m256i *odd, __m256i a, __m256i b) {
    *odd = in_order(_mm256_packs_epi32(_mm256_srai_epi32(a, 16), _mm256_srai_epi32(b, 16)));
    a = _mm256_slli_epi32(a, 16), b = _mm256_slli_epi32(b, 16);
    *even = in_order(_mm256_packs_epi32(_mm256_srai_epi32(a, 16), _mm256_srai_epi32(b, 16)));
}

INLINE __m256i high_bytes(__m256i words) {
    return _mm256_srai_epi16(_mm256_add_epi16(words, _mm256_set1_epi16(128)), 8);
}

INLINE __m256i low_bytes(__m256i words) {
    return _mm256_srai_epi16(_mm256_slli_epi16(words, 8), 8);
}

/* A block for weights of 1 or 2 bits: words are split into even and odd places, these again, and so
 * on, until each part has every nth, in the order of their numbers' bits reversed. */
INLINE void arrange_narrow(char *to, const int16_t *x, int bits, bool words) {
    static const int reversed[2][8] = {{0, 4, 2, 6, 1, 5, 3, 7}, {0, 2, 1, 3}};
    int parts = 8 / bits, n = 2 * parts;
    __m256i v[16], w[16];
    for (int i = 0; i < n; i++) v[i] = load(x + 16 * i);
    for (int size = n; size > 2; size /= 2) {
        for (int i = 0; i < n; i += size)
            for (int k = 0; k < size / 2; k++)
                split(&w[i + k], &w[i + size / 2 + k], v[i + 2 * k], v[i + 2 * k + 1]);
        memcpy(v, w, sizeof v);
    }
    for (int k = 0; k < parts; k++) {
        __m256i a = v[2 * k], b = v[2 * k + 1];
        char *place = to + 32 * reversed[bits - 1][k];
        _mm256_storeu_si256((void *)place, words ? narrow(high_bytes(a), high_bytes(b)) : narrow(a, b));
        if (words) _mm256_storeu_si256((void *)(place + 32 * parts), narrow(low_bytes(a), low_bytes(b)));
    }
}

/* A block of words, from their order to the registers that the weights meet. `to` may be x. apart:
 * high and low bytes are. */
INLINE void arrange(char *to, const int16_t *x, int bits, bool words, bool apart) {
    __m256i even[2], odd[2], v[4];
    if (bits < 3) {
        arrange_narrow(to, x, bits, words);
        return;
    }
    UNROLL
    for (int i = 0; i < block_width(bits) / 32; i++)
        split(&even[i], &odd[i], load(x + 32 * i), load(x + 32 * i + 16));
    if (bits != 4)
        v[0] = even[0], v[1] = odd[0];
    else if (words && apart)
        v[0] = narrow(high_bytes(even[0]), high_bytes(even[1])),
        v[1] = narrow(high_bytes(odd[0]), high_bytes(odd[1])),
        v[2] = narrow(low_bytes(even[0]), low_bytes(even[1])),
        v[3] = narrow(low_bytes(odd[0]), low_bytes(odd[1]));
    else if (words)
        split(&v[0], &v[2], even[0], even[1]), split(&v[1], &v[3], odd[0], odd[1]);
    else
        v[0] = narrow(even[0], even[1]), v[1] = narrow(odd[0], odd[1]);
    UNROLL
    for (int i = 0; i < block_bytes(bits, words) / 32; i++) _mm256_storeu_si256((void *)(to + 32 * i), v[i]);
}

INLINE void prepare_of(void *prepared, const rows *w, const float *x, float limit, int bits, bool words) {
    int64_t groups = groups_of(w);
    token t = token_at(prepared, w);
    int16_t *natural = (int16_t *)(void *)t.values;
    memset(prepared, 0, prepared_bytes(w)); /* what is not seen of sums, and half a block */
    for (int64_t g = 0; g < groups; g++) {
        int64_t chunk = g / CHUNK_GROUPS * CHUNK_GROUPS;
        float *sum = t.sums + chunk + g - chunk_start(chunk, groups);
        quantize_group(natural + g * w->group_size, t.scales + g, sum, x + g * w->group_size, w->group_size,
                       limit);
        if (w->kind == MATRIX_AFFINE) continue;
        t.scales[g] *= E2M1_SCALE;
        *sum *= E2M1_BIAS;
    }
    for (int64_t b = 0; b < blocks_of(w); b++)
        arrange(t.values + b * block_bytes(bits, words), natural + b * block_width(bits), bits, words,
                w->kind != MATRIX_AFFINE);
}

/* Weights in part k of 32 packed bytes, as bytes. */
INLINE __m256i take_part(__m256i packed, unsigned k, form f) {
    if (k) packed = _mm256_srli_epi16(packed, (int)k * f.bits);
    return integers(_mm256_and_si256(packed, _mm256_set1_epi8((char)((1 << f.bits) - 1))), f);
}

/* Sums of products of bytes fit 16 bits: at most 8 * 2 * 3 * 128 or 2 * 2 * 24 * 128. */
INLINE __m256 dot_parts(__m256i packed, const char *x, form f) {
    int parts = 8 / f.bits;
    __m256i high = _mm256_setzero_si256(), low = high, one = _mm256_set1_epi16(1);
    UNROLL
    for (int k = 0; k < parts; k++) {
        __m256i q = take_part(packed, (unsigned)k, f);
        high = _mm256_add_epi16(high, _mm256_maddubs_epi16(q, load(x + 32 * k)));
        if (f.words) low = _mm256_add_epi16(low, _mm256_maddubs_epi16(q, load(x + 32 * (parts + k))));
    }
    if (!f.words) return _mm256_cvtepi32_ps(_mm256_madd_epi16(high, one));
    high = _mm256_madd_epi16(high, _mm256_set1_epi16(256));
    return _mm256_cvtepi32_ps(_mm256_add_epi32(high, _mm256_madd_epi16(low, one)));
}

/* A row's block times the token's, in 8 lanes: lane i is of columns i * width / 8 and on. Of
 * weights of 1, 2 or 4 bits, n of the 32 packed bytes exist, a multiple of 4. */
INLINE __m256 dot_block(const uint8_t *packed, const char *x, form f, int64_t n) {
    __m256i sum, even, odd;
    if (f.bits != 4 && f.bits > 2) {
        take_words(&even, &odd, packed, f.bits);
        sum = _mm256_madd_epi16(even, load(x));
        return _mm256_cvtepi32_ps(_mm256_add_epi32(sum, _mm256_madd_epi16(odd, load(x + 32))));
    }
    __m256i q = n < 32 ? _mm256_maskload_epi32((const void *)packed, first_lanes(n / 4)) : load(packed);
    if (as_bytes(f)) return dot_parts(q, x, f);
    __m256i v[4];
    for (unsigned k = 0; k < 4; k++) v[k] = _mm256_srli_epi16(q, 4 * k);
    for (int k = 0; k < 3; k++) v[k] = _mm256_and_si256(v[k], _mm256_set1_epi16(15));
    sum = _mm256_madd_epi16(v[0], load(x));
    UNROLL
    for (int k = 1; k < 4; k++) sum = _mm256_add_epi32(sum, _mm256_madd_epi16(v[k], load(x + 32 * k)));
    return _mm256_cvtepi32_ps(sum);
}

/* The scales of the lanes of a block of some groups, of which n exist where there are 4 or 8. */
INLINE __m256 block_scale(const float *scales, int groups, int64_t n) {
    if (groups == 1) return _mm256_broadcast_ss(scales);
    if (groups == 2) {
        __m128i both = _mm_loadl_epi64((const void *)scales);
        return _mm256_permutevar8x32_ps(_mm256_castsi256_ps(_mm256_castsi128_si256(both)),
                                        _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
    }
    if (groups == 8) return n < 8 ? _mm256_maskload_ps(scales, first_lanes(n)) : _mm256_loadu_ps(scales);
    __m128 four =
        n < 4 ? _mm_maskload_ps(scales, _mm256_castsi256_si128(first_lanes(n))) : _mm_loadu_ps(scales);
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(four), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}

/* Scales of 8 groups from `from` on, of which n exist, or the biases of affine ones. Beyond them,
 * affine: zeros. */
INLINE __m256 load_groups(const rows *w, int64_t from, int64_t n, form f, bool biases) {
    if (f.kind == MATRIX_AFFINE) {
        const char *p = at(biases ? w->biases : w->scales, w->dtype, from);
        return n >= CHUNK_GROUPS ? load8(p, w->dtype) : load_some(p, w->dtype, n);
    }
    const uint8_t *p = (const uint8_t *)w->scales + from;
    __m128i bytes = n >= CHUNK_GROUPS ? _mm_loadl_epi64((const void *)p)
                                      : _mm_cvtsi64_si128((int64_t)load_bytes(p, (int)n));
    if (f.kind == MATRIX_NVFP4)
        return _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(e4m3_halves(bytes))),
                             _mm256_set1_ps(256));
    __m256i exponents = _mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 23);
    return _mm256_castsi256_ps(_mm256_max_epi32(exponents, _mm256_set1_epi32(1 << 22)));
}

/* y[k * apart] = dot(row r + k * apart, x) for k < R. */
INLINE void dot_rows(float *y, const rows *w, int64_t r, const token *t, form f, int R, int64_t apart) {
    int bits = f.bits;
    int64_t group_size = w->group_size, groups = groups_of(w), row_bytes = w->n * bits / 8;
    int64_t width = block_width(bits), bytes = width * bits / 8;
    unsigned log2_group = (unsigned)__builtin_ctz((unsigned)group_size);
    size_t scale_bytes = f.kind == MATRIX_AFFINE ? size_of(w->dtype) : 1;
    const char *x = t->values;
    const uint8_t *packed = (const uint8_t *)w->values + r * row_bytes;
    float scales[RUNS][CHUNK_GROUPS];
    __m256 total[RUNS];
    UNROLL
    for (int k = 0; k < RUNS; k++) total[k] = _mm256_setzero_ps();
    for (int64_t g = 0; g < groups; g += CHUNK_GROUPS) {
        int64_t from = chunk_start(g, groups), c = (g - from) * group_size, end = CHUNK_GROUPS * group_size;
        if (groups < CHUNK_GROUPS) end = w->n;
        UNROLL
        for (int k = 0; k < R; k++) {
            int64_t place = (r + k * apart) * groups + from;
            _mm_prefetch((const char *)w->scales + (size_t)place * scale_bytes + SCALES_AHEAD, _MM_HINT_T0);
            if (f.kind == MATRIX_AFFINE)
                _mm_prefetch(at(w->biases, w->dtype, place) + SCALES_AHEAD, _MM_HINT_T0);
            __m256 scale = load_groups(w, place, groups, f, false);
            _mm256_storeu_ps(scales[k], _mm256_mul_ps(scale, _mm256_loadu_ps(t->scales + from)));
            __m256 bias = f.kind == MATRIX_AFFINE ? load_groups(w, place, groups, f, true) : scale;
            total[k] = _mm256_fmadd_ps(bias, _mm256_loadu_ps(t->sums + g), total[k]);
        }
        for (; c + width <= end; c += width, x += block_bytes(bits, f.words), packed += bytes) {
            UNROLL
            for (int k = 0; k < R; k++) {
                const uint8_t *q = packed + k * apart * row_bytes;
                _mm_prefetch((const char *)q + AHEAD, _MM_HINT_T0);
                __m256 dot = dot_block(q, x, f, bytes);
                __m256 scale = block_scale(scales[k] + (c >> log2_group), f.groups, f.groups);
                total[k] = _mm256_fmadd_ps(dot, scale, total[k]);
            }
        }
        for (int k = 0; f.groups > 1 && c < end && k < R; k++) {
            const float *scale = scales[k] + (c >> log2_group);
            __m256 dot = dot_block(packed + k * apart * row_bytes, x, f, (end - c) * bits / 8);
            total[k] = _mm256_fmadd_ps(dot,
                                       f.groups == 2 ? _mm256_broadcast_ss(scale)
                                                     : block_scale(scale, f.groups, (end - c) >> log2_group),
                                       total[k]);
        }
    }
    float sums[4];
    _mm_storeu_ps(sums, sum8x4(total));
    for (int k = 0; k < R; k++) y[k * apart] = sums[k];
}

/* Rows of 256 columns in groups of 64 have so few groups that most of the time would go into their
 * scales: these are converted for SHORT_ROWS rows at once. */
enum { SHORT_GROUPS = 4, SHORT_ROWS = 16, SHORT_SCALES = SHORT_ROWS * SHORT_GROUPS };

/* out[i] = value from + i, times factors[i % SHORT_GROUPS]. */
INLINE void scale_short(float *out, const void *values, dtype type, int64_t from, const float *factors) {
    __m256 twice = _mm256_broadcast_ps((const void *)factors);
    const char *p = at(values, type, from);
    for (int i = 0; i < SHORT_SCALES; i += CHUNK_GROUPS, p += CHUNK_GROUPS * size_of(type)) {
        _mm_prefetch(p + SCALES_AHEAD, _MM_HINT_T0);
        _mm256_storeu_ps(out + i, _mm256_mul_ps(load8(p, type), twice));
    }
}

/* y[i + k * apart] = dot(row r + i + k * apart, x) for i < SHORT_ROWS, k < RUNS. */
INLINE void dot_short_rows(float *y, const rows *w, int64_t r, const token *t, form f, int64_t apart) {
    float scales[RUNS][SHORT_SCALES], biases[RUNS][SHORT_SCALES];
    int64_t row_bytes = w->n / 2, block = block_bytes(4, f.words);
    const uint8_t *packed = (const uint8_t *)w->values + r * row_bytes;
    for (int k = 0; k < RUNS; k++) {
        scale_short(scales[k], w->scales, w->dtype, (r + k * apart) * SHORT_GROUPS, t->scales);
        scale_short(biases[k], w->biases, w->dtype, (r + k * apart) * SHORT_GROUPS, t->sums);
    }
    for (int i = 0; i < SHORT_SCALES; i += SHORT_GROUPS, packed += row_bytes, y++) {
        __m256 total[RUNS];
        UNROLL
        for (int k = 0; k < RUNS; k++) total[k] = _mm256_zextps128_ps256(_mm_loadu_ps(biases[k] + i));
        for (int g = 0; g < SHORT_GROUPS; g++) {
            UNROLL
            for (int k = 0; k < RUNS; k++) {
                const uint8_t *q = packed + k * apart * row_bytes + g * row_bytes / SHORT_GROUPS;
                _mm_prefetch((const char *)q + AHEAD, _MM_HINT_T0);
                __m256 dot = dot_block(q, t->values + g * block, f, 32);
                total[k] = _mm256_fmadd_ps(dot, _mm256_broadcast_ss(scales[k] + i + g), total[k]);
            }
        }
        float sums[4];
        _mm_storeu_ps(sums, sum8x4(total));
        for (int k = 0; k < RUNS; k++) y[k * apart] = sums[k];
    }
}

INLINE void matvec_of(float *y, const rows *w, runs rs, const token *t, form f) {
    int64_t r = rs.first;
    fetch_runs(w, rs, AHEAD);
    bool is_short =
        rs.apart && f.bits == 4 && f.groups == 1 && w->group_size == 64 && groups_of(w) == SHORT_GROUPS;
    for (; is_short && r + SHORT_ROWS <= rs.end; r += SHORT_ROWS) dot_short_rows(y + r, w, r, t, f, rs.apart);
    for (; r < rs.end && rs.apart; r++) dot_rows(y + r, w, r, t, f, RUNS, rs.apart);
    for (; r < rs.end; r++) dot_rows(y + r, w, r, t, f, 1, 0);
}

#endif
