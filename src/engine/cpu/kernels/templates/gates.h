/* templates/gates.h - gated of kernels.h for any registers: the two activations, times the other
 * half. A template: the including file has its registers' vector.h, and defines v_exp(x), e^x over
 * the whole range.
 */

/* Both activations are x * sigmoid(u): (1 + tanh(a)) / 2 is sigmoid(2 a). */
INLINE vec gate(vec x, vec up, activation act) {
    vec u = x;
    if (act == ACT_GELU_TANH) {
        vec cubic = v_mul(v_mul(v_all(0.044715f), v_mul(x, x)), x);
        u = v_mul(v_all(1.5957691216f), v_add(x, cubic)); /* 2 sqrt(2 / pi) */
    }
    vec e = v_exp(v_sub(v_zero(), u));
    return v_mul(v_div(x, v_add(v_all(1), e)), up);
}

INLINE void gated_by(float *out, const float *x, const float *up, int64_t n, activation act) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(out + i, gate(v_load(x + i), v_load(up + i), act));
    if (i == n) return;
    vec last = v_load_some(x + i, DTYPE_F32, n - i);
    v_store_some(out + i, gate(last, v_load_some(up + i, DTYPE_F32, n - i), act), n - i);
}

static void gated_row(float *out, activation act, const float *x, const float *up, int64_t n) {
    if (act == ACT_SILU)
        gated_by(out, x, up, n, ACT_SILU);
    else
        gated_by(out, x, up, n, ACT_GELU_TANH);
}
