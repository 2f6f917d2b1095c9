/* templates/attention.h - attention of many query rows, as in prefill, for any registers, and the
 * softmax of few. Registers hold query rows, and numbers of the cache, converted to F32 once per
 * block, are broadcast: maxima, exponentials and sums of the softmax are then vertical, and nothing
 * needs packing. A template: the including file has its registers' vector.h, and defines KEYS
 * of a block: its keys, values and scores stay in the first caches OUTPUTS   times two registers of
 * rows: sums kept in registers exp_negative(x) e^x for x <= 0 convert(buffer, w, first, n)  n
 * entries from key `first` on, as floats: in place, or in buffer
 */

#include <math.h>

enum { ROWS = 2 * LANES }; /* query rows worked on at a time */

INLINE int64_t padded(int64_t n_rows) {
    return (n_rows + ROWS - 1) / ROWS * ROWS;
}

/* One unit's memory. */
typedef struct many {
    float *max, *sum;     /* of each row */
    int32_t *low, *end;   /* keys it sees */
    float *q;             /* per ROWS rows: [dim][ROWS] */
    float *out;           /* per ROWS rows: [v_dim][ROWS] */
    float *scores;        /* [KEYS][ROWS], then probabilities */
    float *keys, *values; /* converted: [KEYS][dim], [KEYS][v_dim] */
} many;

static size_t many_floats(int64_t n_rows, int64_t dim, int64_t v_dim) {
    return (size_t)(padded(n_rows) * (4 + dim + v_dim) + KEYS * (ROWS + dim + v_dim));
}

static many carve(float *scratch, const attention *a) {
    int64_t n = padded(a->n_rows);
    many m = {.max = scratch, .sum = scratch + n};
    m.low = (int32_t *)(scratch + 2 * n), m.end = m.low + n;
    m.q = scratch + 4 * n;
    m.out = m.q + n * a->dim;
    m.scores = m.out + n * a->v_dim;
    m.keys = m.scores + KEYS * ROWS;
    m.values = m.keys + KEYS * a->dim;
    return m;
}

/* Keys are counted in 32 bits, since lanes hold them. */
static void begin_many(const many *m, const attention *a) {
    int64_t n = padded(a->n_rows);
    memset(m->out, 0, (size_t)(n * a->v_dim) * sizeof *m->out);
    for (int64_t r = 0; r < n; r++) {
        m->max[r] = -INFINITY;
        m->sum[r] = 0;
        seen_keys seen = a->seen[at_most(r, a->n_rows - 1)]; /* rows that only fill a register see the same */
        m->low[r] = (int32_t)seen.low;
        m->end[r] = (int32_t)seen.end;
        float *to = m->q + r / ROWS * ROWS * a->dim + r % ROWS;
        for (int64_t d = 0; d < a->dim; d++) to[d * ROWS] = r < a->n_rows ? a->q[r * a->dim + d] : 0;
    }
}

/* out[i][ROWS] (+)= sum over j < n of panel[j][ROWS] * x[i * stride + j * step], for n_out <=
 * OUTPUTS of i.
 */
INLINE void multiply_some(float *out, const float *panel, const float *x, int64_t stride, int64_t step,
                          int64_t n, bool add, int n_out) {
    vec sum[OUTPUTS][2];
    for (int i = 0; i < n_out; i++)
        for (int p = 0; p < 2; p++) sum[i][p] = add ? v_load(out + i * ROWS + p * LANES) : v_zero();
    for (int64_t j = 0; j < n; j++, panel += ROWS, x += step) {
        vec a = v_load(panel), b = v_load(panel + LANES);
        for (int i = 0; i < n_out; i++) {
            vec y = v_spread(x + i * stride);
            sum[i][0] = v_fma(a, y, sum[i][0]);
            sum[i][1] = v_fma(b, y, sum[i][1]);
        }
    }
    for (int i = 0; i < n_out; i++)
        for (int p = 0; p < 2; p++) v_store(out + i * ROWS + p * LANES, sum[i][p]);
}

static void multiply(float *out, const float *panel, const float *x, int64_t stride, int64_t step, int64_t n,
                     bool add, int64_t n_out) {
    for (; n_out >= OUTPUTS; n_out -= OUTPUTS, out += OUTPUTS * ROWS, x += OUTPUTS * stride)
        multiply_some(out, panel, x, stride, step, n, add, OUTPUTS);
    if (n_out >= 4) {
        multiply_some(out, panel, x, stride, step, n, add, 4);
        n_out -= 4, out += 4 * ROWS, x += 4 * stride;
    }
    for (; n_out >= 2; n_out -= 2, out += 2 * ROWS, x += 2 * stride)
        multiply_some(out, panel, x, stride, step, n, add, 2);
    if (n_out) multiply_some(out, panel, x, stride, step, n, add, 1);
}

/* Where rows do not see all keys of the block, their scores become -inf. */
static void mask_scores(const many *m, int64_t r, int64_t first, int64_t n) {
    ints low = v_load_ints(m->low + r), end = v_load_ints(m->end + r);
    float *scores = m->scores + r % ROWS;
    for (int64_t i = 0; i < n; i++, scores += ROWS)
        v_store(scores, v_mask(v_load(scores), (int32_t)(first + i), low, end));
}

/* Scores of LANES rows from r on into probabilities; what the rows have so far is scaled to their
 * new maximum. */
static void soften(const many *m, const attention *a, int64_t r, int64_t n) {
    float *scores = m->scores + r % ROWS, *out = m->out + r / ROWS * ROWS * a->v_dim + r % ROWS;
    vec before = v_load(m->max + r), max = before;
    for (int64_t i = 0; i < n; i++) max = v_max(max, v_load(scores + i * ROWS));
    vec shift = v_no_infinity(max), sum = v_zero(), old = exp_negative(v_sub(before, shift));
    for (int64_t i = 0; i < n; i++) {
        vec p = exp_negative(v_sub(v_load(scores + i * ROWS), shift));
        v_store(scores + i * ROWS, p);
        sum = v_add(sum, p);
    }
    v_store(m->sum + r, v_fma(v_load(m->sum + r), old, sum));
    v_store(m->max + r, max);
    bool changed = v_differ(before, max);
    for (int64_t d = 0; d < a->v_dim && changed; d++, out += ROWS) v_store(out, v_mul(v_load(out), old));
}

/* ROWS rows from r on, over a block of n keys. */
static void block_many(const many *m, const attention *a, int64_t r, const float *keys, const float *values,
                       int64_t first, int64_t n) {
    int64_t last = at_most(r + ROWS, a->n_rows) - 1; /* sees the most of them, r sees from the lowest on */
    if (m->end[last] <= first || m->low[r] >= first + n) return;
    bool all = m->low[last] <= first && m->end[r] >= first + n;
    multiply(m->scores, m->q + r * a->dim, keys, a->dim, 1, a->dim, false, n);
    for (int64_t half = 0; half < ROWS; half += LANES) {
        if (!all) mask_scores(m, r + half, first, n);
        soften(m, a, r + half, n);
    }
    multiply(m->out + r * a->v_dim, m->scores, values, 1, a->v_dim, n, true, a->v_dim);
}

static void attend_many(const attention *a, float *scratch) {
    many m = carve(scratch, a);
    begin_many(&m, a);
    for (int64_t first = a->first; first < a->end; first += KEYS) {
        int64_t n = at_most(a->end - first, KEYS);
        const float *keys = convert(m.keys, &a->keys, first, n);
        const float *values = convert(m.values, &a->values, first, n);
        for (int64_t r = 0; r < a->n_rows; r += ROWS) block_many(&m, a, r, keys, values, first, n);
    }
    for (int64_t r = 0; r < a->n_rows; r++) {
        a->state[r] = (softmax_state){m.max[r], m.sum[r]};
        const float *from = m.out + r / ROWS * ROWS * a->v_dim + r % ROWS;
        for (int64_t d = 0; d < a->v_dim; d++) a->out[r * a->v_dim + d] = from[d * ROWS];
    }
}
