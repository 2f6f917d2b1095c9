/* templates/matmul.h - matmul and mix of kernels.h for any registers.
 * A template: the including file has its registers' vector.h, and defines TOKENS, of which TOKENS *
 * ROWS sums stay in registers, and SUMS, how many sums hide an addition's latency. */

/* K_BLOCK columns of TOKENS tokens stay in the first cache. */
enum { K_BLOCK = 1024, ROWS = 4 };

/* T tokens times R rows, T <= TOKENS, R <= ROWS, over k columns. add: to what out holds. */
INLINE void matmul_tile(float *out, int64_t out_stride, const float *x, int64_t x_stride, const float *w,
                        int64_t n, int64_t k, bool add, int T, int R) {
    vec sum[TOKENS][ROWS], row[ROWS];
    for (int t = 0; t < T; t++)
        for (int r = 0; r < ROWS; r++) sum[t][r] = v_zero();
    int64_t i = 0;
    for (; i + LANES <= k; i += LANES) {
        for (int r = 0; r < R; r++) row[r] = v_load(w + r * n + i);
        for (int t = 0; t < T; t++) {
            vec token = v_load(x + t * x_stride + i);
            for (int r = 0; r < R; r++) sum[t][r] = v_fma(token, row[r], sum[t][r]);
        }
    }
    for (int t = 0; t < T; t++) {
        float total[ROWS];
        v_sum4(total, sum[t]);
        for (int r = 0; r < R; r++)
            out[t * out_stride + r] = add ? out[t * out_stride + r] + total[r] : total[r];
    }
    for (; i < k; i++) /* here, so that no index but a constant keeps the sums out of registers */
        for (int t = 0; t < T; t++)
            for (int r = 0; r < R; r++) out[t * out_stride + r] += x[t * x_stride + i] * w[r * n + i];
}

INLINE void matmul_tokens(float *out, int64_t out_stride, const float *x, int64_t x_stride, const float *w,
                          int64_t n_rows, int64_t n, int64_t k, bool add, int T) {
    int64_t r = 0;
    for (; r + ROWS <= n_rows; r += ROWS)
        matmul_tile(out + r, out_stride, x, x_stride, w + r * n, n, k, add, T, ROWS);
    for (; r < n_rows; r++) matmul_tile(out + r, out_stride, x, x_stride, w + r * n, n, k, add, T, 1);
}

static void matmul(float *out, int64_t out_stride, const float *x, int64_t x_stride, int64_t n_tokens,
                   const float *w, int64_t n_rows, int64_t n) {
    for (int64_t c = 0; c < n || !c; c += K_BLOCK) {
        int64_t k = n - c < K_BLOCK ? n - c : K_BLOCK, t = 0;
        for (; t + TOKENS <= n_tokens; t += TOKENS)
            matmul_tokens(out + t * out_stride, out_stride, x + t * x_stride + c, x_stride, w + c, n_rows, n,
                          k, c > 0, TOKENS);
        for (; t + 2 <= n_tokens; t += 2)
            matmul_tokens(out + t * out_stride, out_stride, x + t * x_stride + c, x_stride, w + c, n_rows, n,
                          k, c > 0, 2);
        if (t < n_tokens)
            matmul_tokens(out + t * out_stride, out_stride, x + t * x_stride + c, x_stride, w + c, n_rows, n,
                          k, c > 0, 1);
    }
}

/* T tokens times all rows, for C vectors of columns; n_last columns, fewer than LANES, of the only
 * one where it is not 0. */
INLINE void mix_tile(float *out, int64_t out_stride, const float *p, int64_t p_stride, const float *v,
                     int64_t n_rows, int64_t n, int T, int C, int64_t n_last) {
    vec sum[SUMS];
    for (int i = 0; i < T * C; i++) {
        const float *from = out + i / C * out_stride + i % C * LANES;
        sum[i] = n_last ? v_load_some(from, DTYPE_F32, n_last) : v_load(from);
    }
    for (int64_t r = 0; r < n_rows; r++)
        for (int c = 0; c < C; c++) {
            const float *from = v + r * n + c * LANES;
            vec value = n_last ? v_load_some(from, DTYPE_F32, n_last) : v_load(from);
            for (int t = 0; t < T; t++)
                sum[t * C + c] = v_fma(value, v_spread(p + t * p_stride + r), sum[t * C + c]);
        }
    for (int i = 0; i < T * C; i++) {
        float *to = out + i / C * out_stride + i % C * LANES;
        if (n_last)
            v_store_some(to, sum[i], n_last);
        else
            v_store(to, sum[i]);
    }
}

/* C vectors of columns at a time, so that T * C are SUMS, or nearly. */
INLINE void mix_tokens(float *out, int64_t out_stride, const float *p, int64_t p_stride, const float *v,
                       int64_t n_rows, int64_t n, int T, int C) {
    int64_t c = 0;
    for (; c + LANES * C <= n; c += LANES * C)
        mix_tile(out + c, out_stride, p, p_stride, v + c, n_rows, n, T, C, 0);
    for (; c + LANES <= n; c += LANES) mix_tile(out + c, out_stride, p, p_stride, v + c, n_rows, n, T, 1, 0);
    if (c < n) mix_tile(out + c, out_stride, p, p_stride, v + c, n_rows, n, T, 1, n - c);
}

static void mix(float *out, int64_t out_stride, const float *p, int64_t p_stride, int64_t n_tokens,
                const float *v, int64_t n_rows, int64_t n) {
    for (; n_tokens >= 4; n_tokens -= 4, out += 4 * out_stride, p += 4 * p_stride)
        mix_tokens(out, out_stride, p, p_stride, v, n_rows, n, 4, SUMS / 4);
    if (n_tokens == 3) mix_tokens(out, out_stride, p, p_stride, v, n_rows, n, 3, SUMS / 4);
    if (n_tokens == 2) mix_tokens(out, out_stride, p, p_stride, v, n_rows, n, 2, SUMS / 2);
    if (n_tokens == 1) mix_tokens(out, out_stride, p, p_stride, v, n_rows, n, 1, SUMS);
}
