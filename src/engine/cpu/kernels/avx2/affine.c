/* kernels/avx2/affine.c - affine weights in F32 for processors with AVX2: one token, and unpacking.
 * Bit widths and group sizes are compile-time constants of inlined functions: no branch in an inner
 * loop. */
#include "engine/cpu/kernels/avx2/avx2.h"

/* x is worked on in chunks of this many columns (a multiple of every group size), so that what a
 * chunk needs fits the first-level cache and the stack. */
enum { CHUNK = 8192, MAX_GROUPS = CHUNK / 32 };

/* Weights are fetched this many bytes ahead: the processor's own prefetching stops at the end of
 * each page.
 */
enum { AHEAD = 4096 };

/* 8 quantized values of 1 to 8 bits: `bits` bytes, the first value in the lowest bits. */
INLINE __m256 quants8(const uint8_t *packed, int bits) {
    if (bits == 8) return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)packed)));
    uint64_t eight = load_bytes(packed, bits);
    /* 4 values fit 32 bits at every width, 8 values up to 4 bits */
    int second = bits <= 4 ? 4 * bits : 0;
    __m256i low = _mm256_set1_epi32((int)eight);
    __m256i words =
        bits <= 4 ? low : _mm256_blend_epi32(low, _mm256_set1_epi32((int)(eight >> 4 * bits)), 0xf0);
    __m256i shifts = _mm256_setr_epi32(0, bits, 2 * bits, 3 * bits, second, second + bits, second + 2 * bits,
                                       second + 3 * bits);
    __m256i mask = _mm256_set1_epi32((1 << bits) - 1);
    return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srlv_epi32(words, shifts), mask));
}

/* A block is 64 columns when 4 bits wide, else 32. */
INLINE int block_width(int bits) {
    return bits == 4 ? 64 : 32;
}

/* 4 bits: lane i holds values 8 i .. 8 i + 7 as nibbles. They are not shifted down: arrange_x has
 * divided x by what a nibble's place multiplies it with, which is exact. Three instructions for 8
 * products. */
INLINE __m256 dot_block4(const uint8_t *packed, const float *x) {
    __m256i w = _mm256_loadu_si256((const void *)packed);
    __m256 top = _mm256_cvtepi32_ps(_mm256_srli_epi32(w, 28)); /* in place it would be a sign */
    __m256 sum = _mm256_mul_ps(top, _mm256_loadu_ps(x + 7 * 8));
    for (int k = 0; k < 7; k++) {
        __m256i nibble = _mm256_and_si256(w, _mm256_set1_epi32(0xf << (4 * k)));
        sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(nibble), _mm256_loadu_ps(x + k * 8), sum);
    }
    return sum;
}

INLINE __m256 dot_block(const uint8_t *packed, const float *x, int bits) {
    if (bits == 4) return dot_block4(packed, x);
    __m256 sum = _mm256_mul_ps(quants8(packed, bits), _mm256_loadu_ps(x));
    for (int k = 1; k < 4; k++)
        sum = _mm256_fmadd_ps(quants8(packed + k * bits, bits), _mm256_loadu_ps(x + k * 8), sum);
    return sum;
}

/* The scale of each lane of block b. */
INLINE __m256 block_scale(const float *scales, int64_t b, int bits, int group_size) {
    if (block_width(bits) <= group_size)
        return _mm256_broadcast_ss(scales + b * block_width(bits) / group_size);
    return _mm256_set_m128(_mm_broadcast_ss(scales + 2 * b + 1), _mm_broadcast_ss(scales + 2 * b));
}

/* Groups [g, g + n): their scales as floats, followed by a zero, and the sum of bias * sum. */
INLINE __m256 take_scales(float *scales, const rows *w, int64_t g, int64_t n, const float *sums) {
    dtype type = w->dtype;
    __m256 total = _mm256_setzero_ps();
    int64_t i = 0, rest = n % 8;
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(scales + i, load8(at(w->scales, type, g + i), type));
        total = _mm256_fmadd_ps(load8(at(w->biases, type, g + i), type), _mm256_loadu_ps(sums + i), total);
    }
    if (rest && n > 8) { /* the last 8 once more: new are their last lanes */
        i = n - 8;
        _mm256_storeu_ps(scales + i, load8(at(w->scales, type, g + i), type));
        __m256 old = _mm256_castsi256_ps(first_lanes(8 - rest));
        __m256 new_sums = _mm256_andnot_ps(old, _mm256_loadu_ps(sums + i));
        total = _mm256_fmadd_ps(load8(at(w->biases, type, g + i), type), new_sums, total);
    } else if (rest) {
        _mm256_storeu_ps(scales, load_some(at(w->scales, type, g), type, rest));
        __m256 biases = load_some(at(w->biases, type, g), type, rest);
        total = _mm256_mul_ps(biases, load_some(sums, DTYPE_F32, rest));
    }
    scales[n] = 0;
    return total;
}

/* The part of row r that lies in columns [c, c + n): sums and x begin there, x in the order the
 * blocks want.
 */
INLINE float dot_affine(const rows *w, int64_t r, int64_t c, int64_t n, const float *x, const float *sums,
                        int bits, int group_size) {
    float scales[MAX_GROUPS + 8];
    const uint8_t *packed = (const uint8_t *)w->values + (r * w->n + c) * bits / 8;
    int64_t width = block_width(bits), blocks = n / width;
    __m256 total = take_scales(scales, w, (r * w->n + c) / group_size, n / group_size, sums);
    for (int64_t b = 0; b < blocks; b++, packed += width * bits / 8, x += width) {
        _mm_prefetch((const char *)packed + AHEAD, _MM_HINT_T0);
        __m256 scale = block_scale(scales, b, bits, group_size);
        total = _mm256_fmadd_ps(scale, dot_block(packed, x, bits), total);
    }
    if (n % width) { /* half a block of 64 */
        uint8_t last[32] = {0};
        memcpy(last, packed, 16);
        __m256 scale = block_scale(scales, blocks, bits, group_size);
        total = _mm256_fmadd_ps(scale, dot_block(last, x, bits), total);
    }
    return sum8(total);
}

/* out[k * 8 + i] = in[i * 8 + k] / 16^k for k < 7, k = 7 undivided: x in the order of
 * dot_block4. */
INLINE void arrange_block4(float *out, const float *in) {
    float factor = 1;
    for (int k = 0; k < 8; k += 4) {
        __m256 a[4];
        for (int j = 0; j < 4; j++)
            a[j] = _mm256_set_m128(_mm_loadu_ps(in + (j + 4) * 8 + k), _mm_loadu_ps(in + j * 8 + k));
        __m256 lo01 = _mm256_unpacklo_ps(a[0], a[1]), hi01 = _mm256_unpackhi_ps(a[0], a[1]);
        __m256 lo23 = _mm256_unpacklo_ps(a[2], a[3]), hi23 = _mm256_unpackhi_ps(a[2], a[3]);
        a[0] = _mm256_shuffle_ps(lo01, lo23, 0x44);
        a[1] = _mm256_shuffle_ps(lo01, lo23, 0xee);
        a[2] = _mm256_shuffle_ps(hi01, hi23, 0x44);
        a[3] = _mm256_shuffle_ps(hi01, hi23, 0xee);
        for (int j = 0; j < 4; j++, factor /= 16)
            _mm256_store_ps(out + (k + j) * 8, _mm256_mul_ps(a[j], _mm256_set1_ps(k + j == 7 ? 1 : factor)));
    }
}

static void arrange4(float *out, const float *x, int64_t n) {
    int64_t c = 0;
    for (; c + 64 <= n; c += 64) arrange_block4(out + c, x + c);
    if (c < n) {
        float last[64] = {0};
        memcpy(last, x + c, (size_t)(n - c) * sizeof *x);
        arrange_block4(out + c, last);
    }
}

INLINE void matvec_affine(float *y, const rows *w, int64_t first, int64_t end, const float *x,
                          const float *sums, int bits, int group_size) {
    _Alignas(32) float arranged[CHUNK];
    for (int64_t c = 0; c < w->n; c += CHUNK) {
        int64_t n = w->n - c < CHUNK ? w->n - c : CHUNK;
        if (bits == 4) arrange4(arranged, x + c, n);
        for (int64_t r = first; r < end; r++) {
            float part =
                dot_affine(w, r, c, n, bits == 4 ? arranged : x + c, sums + c / group_size, bits, group_size);
            y[r] = c ? y[r] + part : part;
        }
    }
}

/* Makes a constant of the group size. The scales' type need not be one: it is asked once per 8
 * groups. */
INLINE void matvec_bits(float *y, const rows *w, int64_t first, int64_t end, const float *x,
                        const float *sums, int bits) {
    if (w->group_size == 32) matvec_affine(y, w, first, end, x, sums, bits, 32);
    if (w->group_size == 64) matvec_affine(y, w, first, end, x, sums, bits, 64);
    if (w->group_size == 128) matvec_affine(y, w, first, end, x, sums, bits, 128);
}

void avx2_matvec_affine(float *y, const rows *w, int64_t first, int64_t end, const float *x,
                        const float *sums) {
    switch (w->bits) {
    case 1:
        matvec_bits(y, w, first, end, x, sums, 1);
        break;
    case 2:
        matvec_bits(y, w, first, end, x, sums, 2);
        break;
    case 3:
        matvec_bits(y, w, first, end, x, sums, 3);
        break;
    case 4:
        matvec_bits(y, w, first, end, x, sums, 4);
        break;
    case 5:
        matvec_bits(y, w, first, end, x, sums, 5);
        break;
    case 6:
        matvec_bits(y, w, first, end, x, sums, 6);
        break;
    case 8:
        matvec_bits(y, w, first, end, x, sums, 8);
        break;
    }
}

INLINE void unpack_affine(float *out, const rows *w, int64_t r, int bits) {
    int64_t groups = w->n / w->group_size;
    const uint8_t *packed = (const uint8_t *)w->values + r * w->n * bits / 8;
    for (int64_t g = 0; g < groups; g++) {
        __m256 scale = spread(at(w->scales, w->dtype, r * groups + g), w->dtype);
        __m256 bias = spread(at(w->biases, w->dtype, r * groups + g), w->dtype);
        for (int i = 0; i < w->group_size; i += 8, packed += bits, out += 8) {
            __m256 product = _mm256_mul_ps(scale, quants8(packed, bits));
            _mm256_storeu_ps(out, _mm256_add_ps(product, bias));
        }
    }
}

void avx2_unpack_affine(float *out, const rows *w, int64_t r) {
    switch (w->bits) {
    case 1:
        unpack_affine(out, w, r, 1);
        break;
    case 2:
        unpack_affine(out, w, r, 2);
        break;
    case 3:
        unpack_affine(out, w, r, 3);
        break;
    case 4:
        unpack_affine(out, w, r, 4);
        break;
    case 5:
        unpack_affine(out, w, r, 5);
        break;
    case 6:
        unpack_affine(out, w, r, 6);
        break;
    case 8:
        unpack_affine(out, w, r, 8);
        break;
    }
}
