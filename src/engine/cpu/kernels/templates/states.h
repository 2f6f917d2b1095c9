/* templates/states.h - what operations with states do for every token, for any registers (kernels.h
 * has what it is). A template: the including file has its registers' vector.h, and defines
 * v_exp(x), e^x over the whole range. */

/* R rows of S. */
INLINE void scan_rows(float *y, float *S, int64_t n, const float *decay, const float *x, const float *b,
                      const float *c, int R) {
    vec sum[4], by[4];
    for (int r = 0; r < 4; r++) sum[r] = v_zero(), by[r] = v_all(r < R ? x[r] : 0);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vec keep = v_load(decay + i), in = v_load(b + i), out = v_load(c + i);
        for (int r = 0; r < R; r++) {
            vec s = v_fma(by[r], in, v_mul(v_load(S + r * n + i), keep));
            v_store(S + r * n + i, s);
            sum[r] = v_fma(s, out, sum[r]);
        }
    }
    for (int r = 0; r < R; r++) {
        float rest = 0;
        for (int64_t k = i; k < n; k++) {
            float s = S[r * n + k] * decay[k] + x[r] * b[k];
            S[r * n + k] = s;
            rest += s * c[k];
        }
        y[r] = v_sum(sum[r]) + rest;
    }
}

static void scan(float *y, float *S, int64_t n_rows, int64_t n, const float *decay, const float *x,
                 const float *b, const float *c) {
    for (; n_rows >= 4; n_rows -= 4, y += 4, x += 4, S += 4 * n) scan_rows(y, S, n, decay, x, b, c, 4);
    for (; n_rows; n_rows--, y++, x++, S += n) scan_rows(y, S, n, decay, x, b, c, 1);
}

/* Features i .. of one register, all of it or its first lanes. */
INLINE vec convolve_some(const float *const in[], const float *w, int64_t w_stride, int taps,
                         const float *bias, bool silu, int64_t i, int64_t n) {
    bool whole = n >= LANES;
    vec sum = !bias ? v_zero() : whole ? v_load(bias + i) : v_load_some(bias + i, DTYPE_F32, n);
    for (int j = 0; j < taps; j++) {
        const float *by = w + j * w_stride + i, *x = in[j] + i;
        vec a = whole ? v_load(by) : v_load_some(by, DTYPE_F32, n);
        sum = v_fma(a, whole ? v_load(x) : v_load_some(x, DTYPE_F32, n), sum);
    }
    return silu ? v_div(sum, v_add(v_all(1), v_exp(v_sub(v_zero(), sum)))) : sum;
}

static void convolve(float *out, const float *const in[], const float *w, int64_t w_stride, int taps,
                     const float *bias, bool silu, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v_store(out + i, convolve_some(in, w, w_stride, taps, bias, silu, i, LANES));
    if (i < n) v_store_some(out + i, convolve_some(in, w, w_stride, taps, bias, silu, i, n - i), n - i);
}
