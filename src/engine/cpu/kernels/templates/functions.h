/* templates/functions.h - plain weights times one token, conversions, norms and sums of
 * exponentials for any registers (kernels.h has what they do). A template: the including file has
 * its registers' vector.h, and defines v_exp(x), e^x over the whole range, and fetch_ahead(p,
 * type), which brings into the cache what is read some time after the 4 * LANES numbers at p. */

#include <math.h>

/* n numbers of `type` times x. */
INLINE float dot_plain(const void *row, const float *x, int64_t n, dtype type) {
    vec sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        const char *p = at(row, type, i);
        fetch_ahead(p, type);
        for (int k = 0; k < 4; k++)
            sum[k] = v_fma(v_load_as(at(p, type, k * LANES), type), v_load(x + i + k * LANES), sum[k]);
    }
    for (; i + LANES <= n; i += LANES)
        sum[0] = v_fma(v_load_as(at(row, type, i), type), v_load(x + i), sum[0]);
    if (i < n)
        sum[1] =
            v_fma(v_load_some(at(row, type, i), type, n - i), v_load_some(x + i, DTYPE_F32, n - i), sum[1]);
    return v_sum(v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3])));
}

INLINE void matvec_plain_of(float *y, const rows *w, int64_t first, int64_t end, const float *x, dtype type) {
    for (int64_t r = first; r < end; r++) y[r] = dot_plain(at(w->values, type, r * w->n), x, w->n, type);
}

static void matvec_plain(float *y, const rows *w, int64_t first, int64_t end, const float *x,
                         const float *sums) {
    (void)sums;
    if (w->dtype == DTYPE_BF16) matvec_plain_of(y, w, first, end, x, DTYPE_BF16);
    if (w->dtype == DTYPE_F16) matvec_plain_of(y, w, first, end, x, DTYPE_F16);
    if (w->dtype == DTYPE_F32) matvec_plain_of(y, w, first, end, x, DTYPE_F32);
}

INLINE void to_f32_of(float *out, const void *in, int64_t n, dtype type) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(out + i, v_load_as(at(in, type, i), type));
    if (i < n) v_store_some(out + i, v_load_some(at(in, type, i), type, n - i), n - i);
}

static void to_f32(float *out, const void *in, dtype type, int64_t n) {
    if (type == DTYPE_BF16) to_f32_of(out, in, n, DTYPE_BF16);
    if (type == DTYPE_F16) to_f32_of(out, in, n, DTYPE_F16);
    if (type == DTYPE_F32) memcpy(out, in, (size_t)n * sizeof *out);
}

static void unpack_plain(float *out, const rows *w, int64_t r) {
    to_f32(out, at(w->values, w->dtype, r * w->n), w->dtype, w->n);
}

static void rms_norm_row(float *out, const float *x, const float *w, int64_t n, float eps) {
    float factor = 1 / sqrtf(dot_plain(x, x, n, DTYPE_F32) / (float)n + eps);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vec y = v_mul(v_load(x + i), v_all(factor));
        v_store(out + i, w ? v_mul(y, v_load(w + i)) : y);
    }
    for (; i < n; i++) out[i] = w ? x[i] * factor * w[i] : x[i] * factor;
}

/* The sums of x - shift and of its square. */
typedef struct moments {
    float sum, squares;
} moments;

INLINE moments moments_of(const float *x, int64_t n, float shift) {
    vec sum[2] = {v_zero(), v_zero()}, squares[2] = {v_zero(), v_zero()};
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        for (int k = 0; k < 2; k++) {
            vec rest = v_sub(v_load(x + i + k * LANES), v_all(shift));
            sum[k] = v_add(sum[k], rest);
            squares[k] = v_fma(rest, rest, squares[k]);
        }
    moments m = {v_sum(v_add(sum[0], sum[1])), v_sum(v_add(squares[0], squares[1]))};
    for (; i < n; i++) m.sum += x[i] - shift, m.squares += (x[i] - shift) * (x[i] - shift);
    return m;
}

/* A mean that is much larger than the row's spread is found in two steps, each from a number near
 * it. */
static void layer_norm_row(float *out, const float *x, const float *w, const float *bias, int64_t n,
                           float eps) {
    float near = x[0] + moments_of(x, n, x[0]).sum / (float)n;
    moments m = moments_of(x, n, near);
    float rest = m.sum / (float)n, mean = near + rest;
    float factor = 1 / sqrtf(m.squares / (float)n - rest * rest + eps);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vec y = v_mul(v_sub(v_load(x + i), v_all(mean)), v_all(factor));
        if (w) y = v_mul(y, v_load(w + i));
        v_store(out + i, bias ? v_add(y, v_load(bias + i)) : y);
    }
    for (; i < n; i++) out[i] = (x[i] - mean) * factor * (w ? w[i] : 1) + (bias ? bias[i] : 0);
}

static float exp_sum(float *x, int64_t n, float shift) {
    vec sum = v_zero(), less = v_all(shift);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vec y = v_exp(v_sub(v_load(x + i), less));
        v_store(x + i, y);
        sum = v_add(sum, y);
    }
    if (i < n) {
        v_store_some(x + i, v_exp(v_sub(v_load_some(x + i, DTYPE_F32, n - i), less)), n - i);
        sum = v_add(sum, v_load_some(x + i, DTYPE_F32, n - i));
    }
    return v_sum(sum);
}
