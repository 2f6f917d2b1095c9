/* templates/softmax.h - the running softmax of one query row over a block of keys, for any
 * registers. A template: the including file has its registers' vector.h, and defines KEYS, of a
 * block, and exp_negative(x), e^x for x <= 0. */

#include <math.h>

/* One row's scores into probabilities, zeros where it sees nothing and beyond n. */
static void soften_row(float *scores, softmax_state *state, float *out, int64_t v_dim, int64_t low,
                       int64_t end, int64_t n) {
    vec most = v_all(state->max), sum = v_zero();
    for (int64_t i = 0; i < KEYS && (low > 0 || end < KEYS || n < KEYS); i++)
        if (i < low || i >= end || i >= n) scores[i] = -INFINITY;
    for (int i = 0; i < KEYS; i += LANES) most = v_max(most, v_load(scores + i));
    float max = v_largest(most);
    vec shift = v_no_infinity(v_all(max));
    for (int i = 0; i < KEYS; i += LANES) {
        vec p = exp_negative(v_sub(v_load(scores + i), shift));
        v_store(scores + i, p);
        sum = v_add(sum, p);
    }
    float old = state->max == max ? 1 : expf(state->max - max);
    state->sum = state->sum * old + v_sum(sum);
    state->max = max;
    for (int64_t d = 0; d < v_dim && old != 1; d++) out[d] *= old;
}
