/* kernels/avx2/attention.c - attention for processors with AVX2: of many query rows the template's,
 * with the tiles that 16 registers hold; of few, attention_few.c. */
#include "engine/cpu/kernels/avx2/attention.h"

enum {
    OUTPUTS = 6,
    KEYS = 96 /* a multiple of OUTPUTS and LANES */
};

const float *avx2_convert(float *buffer, const rows *w, int64_t first, int64_t n) {
    int64_t bytes = row_bytes_of(w);
    const char *from = (const char *)w->values + first * bytes;
    if (!w->bits && w->dtype == DTYPE_F32) return (const float *)(const void *)from;
    float *to = buffer;
    for (int64_t i = 0; i < n; i++, from += bytes, to += w->n) {
        fetch(from + n * bytes, bytes);
        if (w->bits) kernels_avx2.of[MATRIX_AFFINE].unpack(to, w, first + i);
        for (int64_t d = 0; d < w->n && !w->bits; d += LANES)
            v_store(to + d,
                    w->dtype == DTYPE_F16 ? load8(from + d * 2, DTYPE_F16) : load8(from + d * 2, DTYPE_BF16));
    }
    return buffer;
}

#define convert avx2_convert
#include "engine/cpu/kernels/templates/attention.h"

static bool fits(int64_t dim, int64_t v_dim) {
    return dim % LANES == 0 && v_dim % LANES == 0;
}

static size_t scratch_bytes(int64_t n_rows, int64_t dim, int64_t v_dim) {
    return (n_rows <= FEW_ROWS ? avx2_few_floats(dim, v_dim) : many_floats(n_rows, dim, v_dim)) *
           sizeof(float);
}

static void attend_rows(const attention *a, void *scratch) {
    if (a->n_rows > FEW_ROWS)
        attend_many(a, scratch);
    else
        avx2_attend_few(a, scratch);
}

const attention_kernels attention_avx2 = {
    .fits = fits, .scratch_bytes = scratch_bytes, .attend = attend_rows};
