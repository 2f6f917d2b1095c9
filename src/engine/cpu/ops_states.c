/* ops_states.c - operations whose caches are states: what they keep of earlier tokens has one size.
 * Features are shared out among threads, so that each thread changes states of its own. */
#include "engine/cpu/cpu.h"

#include <math.h>

enum { CONV_FEATURES = 256 }; /* of one piece of work */

/* A convolution's rows: those of the state, then the step's. */
typedef struct conv_rows {
    float *state; /* [n_before][width] */
    const float *x;
    int64_t n_before, n, width;
} conv_rows;

static float at(const conv_rows *r, int64_t row, int64_t d) {
    return row < r->n_before ? r->state[row * r->width + d] : r->x[(row - r->n_before) * r->width + d];
}

/* Feature d of all rows. */
static void convolve(const conv_rows *r, const float *w, float bias, bool silu, int64_t d, float *out) {
    for (int64_t t = 0; t < r->n; t++) {
        float sum = 0;
        for (int64_t j = 0; j <= r->n_before; j++) sum += w[j] * at(r, t + j, d);
        sum += bias;
        out[t * r->width + d] = silu ? sum / (1 + expf(-sum)) : sum;
    }
    for (int64_t i = 0; i < r->n_before; i++) r->state[i * r->width + d] = at(r, r->n + i, d);
}

void cpu_short_conv(cpu *e, const node *x, int thread) {
    const cpu_weight *w = cpu_weight_of(x, 0);
    float *state = ((cpu_cache *)x->cache)->states[x->conv.slot];
    int64_t taps = x->w[0]->shape[1];
    conv_rows r = {.n_before = taps - 1, .n = rows_per_sequence(e->running, x), .width = x->shape[1]};
    piece p = {0};
    while (cpu_take(e, x, r.width, CONV_FEATURES, &p))
        for (int64_t s = 0; s < e->running->n_sequences; s++) {
            r.state = state + s * r.n_before * r.width;
            r.x = floats_of(e, x->in[0], thread) + s * r.n * r.width;
            for (int64_t d = p.first; d < p.end; d++)
                convolve(&r, w->floats + d * taps, w->bias ? w->bias[d] : 0, x->conv.silu, d,
                         floats_of(e, x, thread) + s * r.n * r.width);
        }
}
