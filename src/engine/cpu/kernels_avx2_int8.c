/* kernels_avx2_int8.c - int8 products for processors with AVX2: vpmaddubsw multiplies 32 unsigned with 32
 * signed bytes and adds neighbours in 16 bits, which up to 7 bits times 8 bits never overflow. 8-bit weights
 * are widened. */
#include "engine/cpu/kernels_avx2.h"

#include <float.h>

enum { UNIT = 32, ROWS = 4, TOKENS = 3 };

/* A token or a row, prepared: for each group two floats, its scale and its sum or bias, then its values as
 * bytes. */
INLINE int64_t group_bytes(const rows *w) {
    return w->group_size + 2 * (int64_t)sizeof(float);
}

static size_t prepared_bytes(const rows *w) {
    return ((size_t)(w->n / w->group_size * group_bytes(w)) + 63) / 64 * 64;
}

static void prepare(void *prepared, const rows *w, const float *x) {
    char *to = prepared;
    __m256i all_but_sign = _mm256_set1_epi32(0x7fffffff);
    for (int64_t c = 0; c < w->n; c += w->group_size, to += group_bytes(w)) {
        uint32_t bits[8], most = 0;
        __m256i lanes = _mm256_setzero_si256(), sums = lanes;
        for (int i = 0; i < w->group_size; i += 8) /* compared as integers, NaN is the largest of all */
            lanes = _mm256_max_epu32(
                lanes, _mm256_and_si256(_mm256_loadu_si256((const void *)(x + c + i)), all_but_sign));
        _mm256_storeu_si256((void *)bits, lanes);
        for (int i = 0; i < 8; i++) most = bits[i] > most ? bits[i] : most;
        float largest, header[2];
        memcpy(&largest, &most, sizeof largest);
        bool usable = largest >= 1e-30f && largest <= FLT_MAX;
        __m256 factor = _mm256_set1_ps(usable ? 127 / largest : 0);
        for (int i = 0; i < w->group_size; i += 8) {
            __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + c + i), factor));
            sums = _mm256_add_epi32(sums, q);
            __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
            _mm_storel_epi64((void *)(to + sizeof header + i), _mm_packs_epi16(words, words));
        }
        int32_t parts[8], sum = 0;
        _mm256_storeu_si256((void *)parts, sums);
        for (int i = 0; i < 8 && usable; i++) sum += parts[i];
        header[0] = largest < 1e-30f ? 0 : largest / 127;
        header[1] = header[0] * (float)sum;
        memcpy(to, header, sizeof header);
    }
}

/* ---- weights ---- */

/* 32 values as bytes. */
INLINE __m256i take_bytes(const uint8_t *packed, int bits) {
    if (bits == 8) return _mm256_loadu_si256((const void *)packed);
    if (bits == 4) {
        __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)packed));
        return _mm256_and_si256(_mm256_or_si256(wide, _mm256_slli_epi16(wide, 4)), _mm256_set1_epi8(15));
    }
    uint64_t eights[4], mask = 0x0101010101010101u * ((1u << bits) - 1);
    for (int i = 0; i < 4; i++) eights[i] = _pdep_u64(load_bytes(packed + i * bits, bits), mask);
    return _mm256_setr_epi64x((int64_t)eights[0], (int64_t)eights[1], (int64_t)eights[2], (int64_t)eights[3]);
}

/* 16 products, added in pairs. */
INLINE __m256i dot_wide(__m128i q, __m128i x) {
    return _mm256_madd_epi16(_mm256_cvtepu8_epi16(q), _mm256_cvtepi8_epi16(x));
}

/* sum + the products of 32 values with 32 of x, in 8 lanes. wide: the values have 8 bits. */
INLINE __m256i dot_add(__m256i sum, __m256i q, __m256i x, bool wide) {
    if (!wide)
        return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(q, x), _mm256_set1_epi16(1)));
    __m256i low = dot_wide(_mm256_castsi256_si128(q), _mm256_castsi256_si128(x));
    __m256i high = dot_wide(_mm256_extracti128_si256(q, 1), _mm256_extracti128_si256(x, 1));
    return _mm256_add_epi32(sum, _mm256_add_epi32(low, high));
}

INLINE float load1(const void *values, dtype type, int64_t i) {
    float x;
    uint16_t half;
    if (type == DTYPE_F32) {
        memcpy(&x, (const char *)values + i * 4, sizeof x);
        return x;
    }
    memcpy(&half, (const char *)values + i * 2, sizeof half);
    return type == DTYPE_F16 ? _cvtsh_ss(half) : bf16_to_f32(half);
}

INLINE void take_scale(float header[2], const rows *w, int64_t group) {
    header[0] = load1(w->scales, w->dtype, group);
    header[1] = load1(w->biases, w->dtype, group);
}

INLINE void matvec_of(float *y, const rows *w, int64_t first, int64_t end, const char *prepared, int bits) {
    int64_t groups = w->n / w->group_size;
    for (int64_t r = first; r < end; r++) {
        const uint8_t *packed = (const uint8_t *)w->values + r * w->n * bits / 8;
        const char *x = prepared;
        __m256 total = _mm256_setzero_ps();
        float rest = 0;
        for (int64_t g = 0; g < groups; g++, x += group_bytes(w)) {
            float scale[2], token[2];
            __m256i sum = _mm256_setzero_si256();
            take_scale(scale, w, r * groups + g);
            memcpy(token, x, sizeof token);
            for (int i = 0; i < w->group_size; i += UNIT, packed += UNIT * bits / 8) {
                _mm_prefetch((const char *)packed + 4096, _MM_HINT_T0);
                __m256i values = _mm256_loadu_si256((const void *)(x + sizeof token + i));
                sum = dot_add(sum, take_bytes(packed, bits), values, bits == 8);
            }
            total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(scale[0] * token[0]), total);
            rest += scale[1] * token[1];
        }
        y[r] = sum8(total) + rest;
    }
}

static void matvec(float *y, const rows *w, int64_t first, int64_t end, const void *prepared) {
    switch (w->bits) {
    case 2:
        matvec_of(y, w, first, end, prepared, 2);
        break;
    case 3:
        matvec_of(y, w, first, end, prepared, 3);
        break;
    case 4:
        matvec_of(y, w, first, end, prepared, 4);
        break;
    case 5:
        matvec_of(y, w, first, end, prepared, 5);
        break;
    case 6:
        matvec_of(y, w, first, end, prepared, 6);
        break;
    case 8:
        matvec_of(y, w, first, end, prepared, 8);
        break;
    }
}

/* ---- many tokens ---- */

static size_t row_panel_bytes(const rows *w) {
    return ROWS * prepared_bytes(w);
}

static size_t token_panel_bytes(const rows *w) {
    return TOKENS * prepared_bytes(w);
}

static void pack_tokens(void *panel, const rows *w, const float *x, int64_t x_stride, int64_t n_tokens) {
    for (int64_t t = 0; t < n_tokens; t++)
        prepare((char *)panel + (size_t)t * prepared_bytes(w), w, x + t * x_stride);
}

static void pack_rows(void *panel, const rows *w, int64_t first, int64_t n_rows) {
    int64_t groups = w->n / w->group_size;
    for (int64_t i = 0; i < n_rows; i++) {
        char *to = (char *)panel + (size_t)i * prepared_bytes(w);
        const uint8_t *packed = (const uint8_t *)w->values + (first + i) * w->n * w->bits / 8;
        for (int64_t g = 0; g < groups; g++, to += group_bytes(w)) {
            float header[2];
            take_scale(header, w, (first + i) * groups + g);
            memcpy(to, header, sizeof header);
            for (int k = 0; k < w->group_size; k += UNIT, packed += UNIT * w->bits / 8)
                _mm256_storeu_si256((void *)(to + sizeof header + k), take_bytes(packed, w->bits));
        }
    }
}

/* T tokens times R rows; wide: of 8 bits. */
INLINE void multiply_tile(float *out, int64_t out_stride, const char *x, const char *w, const rows *of,
                          bool wide, int T, int R) {
    int64_t stride = (int64_t)prepared_bytes(of);
    __m256 total[TOKENS][ROWS];
    float rest[TOKENS][ROWS];
    for (int i = 0; i < T * R; i++) total[i / R][i % R] = _mm256_setzero_ps(), rest[i / R][i % R] = 0;
    for (int64_t c = 0; c < of->n; c += of->group_size, x += group_bytes(of), w += group_bytes(of)) {
        float row[ROWS][2], token[TOKENS][2];
        for (int r = 0; r < R; r++) memcpy(row[r], w + r * stride, sizeof row[r]);
        for (int t = 0; t < T; t++) {
            __m256i sum[ROWS];
            memcpy(token[t], x + t * stride, sizeof token[t]);
            for (int r = 0; r < R; r++) sum[r] = _mm256_setzero_si256();
            for (int i = 0; i < of->group_size; i += UNIT) {
                __m256i values = _mm256_loadu_si256((const void *)(x + t * stride + sizeof token[t] + i));
                for (int r = 0; r < R; r++) {
                    const void *q = w + r * stride + sizeof row[r] + i;
                    sum[r] = dot_add(sum[r], _mm256_loadu_si256(q), values, wide);
                }
            }
            for (int r = 0; r < R; r++) {
                __m256 scale = _mm256_set1_ps(row[r][0] * token[t][0]);
                total[t][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r]), scale, total[t][r]);
                rest[t][r] += row[r][1] * token[t][1];
            }
        }
    }
    for (int i = 0; i < T * R; i++)
        out[i / R * out_stride + i % R] = sum8(total[i / R][i % R]) + rest[i / R][i % R];
}

INLINE void multiply_of(float *out, int64_t out_stride, const char *tokens, int64_t n_tokens,
                        const char *tile, int64_t n_rows, const rows *w, bool wide) {
    int64_t stride = (int64_t)prepared_bytes(w), t = 0, r;
    for (; t < n_tokens; t += n_tokens - t >= TOKENS ? TOKENS : 1)
        for (r = 0; r < n_rows; r += n_rows - r >= ROWS ? ROWS : 1) {
            bool whole = n_tokens - t >= TOKENS && n_rows - r >= ROWS;
            float *to = out + t * out_stride + r;
            if (whole)
                multiply_tile(to, out_stride, tokens + t * stride, tile + r * stride, w, wide, TOKENS, ROWS);
            for (int64_t i = 0; !whole && i < (n_tokens - t >= TOKENS ? TOKENS : 1); i++)
                for (int64_t k = 0; k < (n_rows - r >= ROWS ? ROWS : 1); k++)
                    multiply_tile(to + i * out_stride + k, out_stride, tokens + (t + i) * stride,
                                  tile + (r + k) * stride, w, wide, 1, 1);
        }
}

static void multiply(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens, const void *tile,
                     int64_t n_rows, const rows *w) {
    if (w->bits == 8)
        multiply_of(out, out_stride, tokens, n_tokens, tile, n_rows, w, true);
    else
        multiply_of(out, out_stride, tokens, n_tokens, tile, n_rows, w, false);
}

const products avx2_int8 = {
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
