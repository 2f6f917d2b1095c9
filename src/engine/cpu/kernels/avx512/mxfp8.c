/* kernels/avx512/mxfp8.c - one token and mxfp8 in F32 for processors with AVX-512 VBMI. An E4M3
 * number is a BF16 number, whose two bytes are looked up by the seven bits of its magnitude:
 * vpermi2b looks 64 bytes up in a table of 128. So numbers below the normal ones and NaN take no
 * steps of their own. */
#include "engine/cpu/kernels/avx512/avx512.h"

/* Columns of a block; their floats take four registers. */
INLINE int block_width(int bits) {
    (void)bits;
    return 64;
}

INLINE int block_bytes(form f) {
    return block_width(f.bits) * (int)sizeof(float);
}

/* The high and the low byte of the BF16 number of each code without its sign: exponent e, digits m.
 * BF16's exponents are 120 more. Eight codes are below the normal numbers, and the last is NaN. */
#define HIGH(e, m)   ((e) + 120) / 2
#define LOW(e, m)    ((e) % 2 * 128 + (m)*16)
#define SEVEN(of, e) of(e, 0), of(e, 1), of(e, 2), of(e, 3), of(e, 4), of(e, 5), of(e, 6)
#define EIGHT(of, e) SEVEN(of, e), of(e, 7)
#define NORMAL(of)                                                                                           \
    EIGHT(of, 1), EIGHT(of, 2), EIGHT(of, 3), EIGHT(of, 4), EIGHT(of, 5), EIGHT(of, 6), EIGHT(of, 7),        \
        EIGHT(of, 8), EIGHT(of, 9), EIGHT(of, 10), EIGHT(of, 11), EIGHT(of, 12), EIGHT(of, 13),              \
        EIGHT(of, 14), SEVEN(of, 15)

static const _Alignas(64) uint8_t highs[128] = {0, 59, 59, 59, 60, 60, 60, 60, NORMAL(HIGH), 0x7f};
static const _Alignas(64) uint8_t lows[128] = {0, 0, 128, 192, 0, 32, 64, 96, NORMAL(LOW), 0xc0};

/* Of each 16 columns, registers 0 and 1 have the even and the odd ones of the first 8, registers 2
 * and 3 those of the others. */
INLINE __m512i dot_one(const uint8_t *packed, int64_t n_bytes, const char *x, form f) {
    (void)f;
    __m512i codes = load_bytes(packed, n_bytes), upper = _mm512_set1_epi32((int)0xffff0000);
    __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(highs), codes, _mm512_load_si512(highs + 64));
    __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(lows), codes, _mm512_load_si512(lows + 64));
    high = _mm512_ternarylogic_epi32(high, codes, _mm512_set1_epi8((char)0x80), 0xf8); /* a | (b & c) */
    __m512i half[2] = {_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)};
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < 2; i++, x += 128) {
        __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(half[i], 16));
        __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(half[i], upper));
        sum = i ? _mm512_fmadd_ps(even, _mm512_load_ps(x), sum) : _mm512_mul_ps(even, _mm512_load_ps(x));
        sum = _mm512_fmadd_ps(odd, _mm512_load_ps(x + 64), sum);
    }
    return _mm512_castps_si512(sum);
}

#include "engine/cpu/kernels/avx512/floats.h"

INLINE __m512 biases_of(const rows *w, int64_t i, int64_t n, form f) {
    (void)w, (void)i, (void)n, (void)f;
    return _mm512_setzero_ps();
}

INLINE bool has_biases(form f) {
    (void)f;
    return false;
}

#include "engine/cpu/kernels/avx512/matvec.h"

static const form mxfp8 = {MATRIX_MXFP8, 8, false};

size_t avx512vbmi_prepared_bytes(const rows *w) {
    return prepared_size(w, block_bytes(mxfp8));
}

void avx512vbmi_prepare(void *prepared, const rows *w, const float *x) {
    static const int firsts[] = {0, 1, 8, 9}; /* of the four registers */
    __m512i columns = _mm512_setr_epi32(0, 2, 4, 6, 16, 18, 20, 22, 32, 34, 36, 38, 48, 50, 52, 54);
    float *to = prepared;
    memset(prepared, 0, avx512vbmi_prepared_bytes(w));
    for (int64_t g = 0; g < w->n / w->group_size; g++) to[g] = 1;
    to += 2 * padded_groups(w);
    for (int64_t c = 0; c < w->n; c += 64)
        for (int i = 0; i < 4; i++, to += 16)
            _mm512_store_ps(to, _mm512_mask_i32gather_ps(_mm512_setzero_ps(), first_lanes((w->n - c) / 4),
                                                         columns, x + c + firsts[i], 4));
}

void avx512vbmi_matvec_mxfp8(float *y, const rows *w, runs rs, const void *prepared) {
    matvec_of(y, w, rs, prepared, mxfp8);
}
