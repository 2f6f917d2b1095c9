/* kernels/avx512/floats.h - what matvec.h asks for where dot products are F32: a part of the files
 * that define dot_one, a row's block times the token's. */

INLINE void dot_block(__m512i dots[], int R, const uint8_t *packed, int64_t apart, int64_t n_bytes,
                      const char *x, form f) {
    for (int k = 0; k < R; k++) dots[k] = dot_one(packed + k * apart, n_bytes, x, f);
}

INLINE __m512i add_dots(__m512i a, __m512i b) {
    return _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
}

INLINE __m512 dots_to_floats(__m512i a) {
    return _mm512_castsi512_ps(a);
}

INLINE __m512 scales_of(const rows *w, int64_t i, int64_t n, form f) {
    return take_scales(w, i, n, f);
}
