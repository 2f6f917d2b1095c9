/* scalar_fp.c - weights that are small floating-point numbers, in plain C: mxfp4, mxfp8 and nvfp4.
 * A number and its scale have so few digits that their product is exact in F32. */
#include "engine/cpu/kernels/kernels.h"

enum { MAX_GROUP = 32 };

/* The numbers of group g, counted from the matrix' first, without their scale. */
static void numbers_of(float *out, const rows *w, int64_t g) {
    const uint8_t *packed = (const uint8_t *)w->values + g * w->group_size * w->bits / 8;
    for (int i = 0; i < w->group_size; i++)
        out[i] = w->bits == 8 ? e4m3_to_f32(packed[i]) : e2m1_to_f32(packed[i / 2] >> i % 2 * 4);
}

static float scale_of(const rows *w, int64_t g) {
    uint8_t scale = ((const uint8_t *)w->scales)[g];
    return w->kind == MATRIX_NVFP4 ? e4m3_to_f32(scale) : e8m0_to_f32(scale);
}

void scalar_matvec_fp(float *y, const rows *w, int64_t first, int64_t end, const float *x,
                      const float *sums) {
    int64_t groups = w->n / w->group_size;
    (void)sums;
    for (int64_t r = first; r < end; r++) {
        y[r] = 0;
        for (int64_t g = 0; g < groups; g++) {
            float numbers[MAX_GROUP], dot = 0;
            numbers_of(numbers, w, r * groups + g);
            for (int i = 0; i < w->group_size; i++) dot += numbers[i] * x[g * w->group_size + i];
            y[r] += scale_of(w, r * groups + g) * dot;
        }
    }
}

void scalar_unpack_fp(float *out, const rows *w, int64_t r) {
    int64_t groups = w->n / w->group_size;
    for (int64_t g = r * groups; g < (r + 1) * groups; g++, out += w->group_size) {
        float scale = scale_of(w, g);
        numbers_of(out, w, g);
        for (int i = 0; i < w->group_size; i++) out[i] *= scale;
    }
}
