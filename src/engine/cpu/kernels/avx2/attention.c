/* kernels/avx2/attention.c - attention for processors with AVX2. Many query rows are lanes of registers, as
 * with AVX-512, and numbers of the cache, converted to F32 once per block, are broadcast: maxima,
 * exponentials and sums of the softmax are then vertical, and nothing needs packing. The tiles are those that
 * 16 registers hold. */
#include "engine/cpu/kernels/avx2/attention.h"

enum {
    ROWS = 16,   /* query rows worked on at a time: two registers */
    OUTPUTS = 6, /* times two registers of rows: sums kept in registers */
    KEYS = 96    /* of a block: a multiple of OUTPUTS and LANES; keys and values stay in the first caches */
};

INLINE int64_t padded(int64_t n_rows) {
    return (n_rows + ROWS - 1) / ROWS * ROWS;
}

const float *avx2_convert(float *buffer, const rows *w, int64_t first, int64_t n) {
    int64_t bytes = row_bytes_of(w);
    const char *from = (const char *)w->values + first * bytes;
    if (!w->bits && w->dtype == DTYPE_F32) return (const float *)(const void *)from;
    float *to = buffer;
    for (int64_t i = 0; i < n; i++, from += bytes, to += w->n) {
        fetch(from + n * bytes, bytes);
        if (w->bits) kernels_avx2.unpack(to, w, first + i);
        for (int64_t d = 0; d < w->n && !w->bits; d += LANES)
            _mm256_storeu_ps(to + d, w->dtype == DTYPE_F16 ? load8(from + d * 2, DTYPE_F16)
                                                           : load8(from + d * 2, DTYPE_BF16));
    }
    return buffer;
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

/* out[i][ROWS] (+)= sum over j < n of panel[j][ROWS] * x[i * stride + j * step], for n_out <= OUTPUTS of i.
 */
INLINE void multiply_some(float *out, const float *panel, const float *x, int64_t stride, int64_t step,
                          int64_t n, bool add, int n_out) {
    __m256 sum[OUTPUTS][2];
    for (int i = 0; i < n_out; i++)
        for (int p = 0; p < 2; p++)
            sum[i][p] = add ? _mm256_loadu_ps(out + i * ROWS + p * LANES) : _mm256_setzero_ps();
    for (int64_t j = 0; j < n; j++, panel += ROWS, x += step) {
        __m256 a = _mm256_loadu_ps(panel), b = _mm256_loadu_ps(panel + LANES);
        for (int i = 0; i < n_out; i++) {
            __m256 y = _mm256_broadcast_ss(x + i * stride);
            sum[i][0] = _mm256_fmadd_ps(a, y, sum[i][0]);
            sum[i][1] = _mm256_fmadd_ps(b, y, sum[i][1]);
        }
    }
    for (int i = 0; i < n_out; i++)
        for (int p = 0; p < 2; p++) _mm256_storeu_ps(out + i * ROWS + p * LANES, sum[i][p]);
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
    __m256i low = _mm256_loadu_si256((const void *)(m->low + r));
    __m256i end = _mm256_loadu_si256((const void *)(m->end + r));
    float *scores = m->scores + r % ROWS;
    for (int64_t i = 0; i < n; i++, scores += ROWS) {
        __m256i key = _mm256_set1_epi32((int32_t)(first + i));
        __m256i seen = _mm256_andnot_si256(_mm256_cmpgt_epi32(low, key), _mm256_cmpgt_epi32(end, key));
        _mm256_storeu_ps(scores, _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), _mm256_loadu_ps(scores),
                                                  _mm256_castsi256_ps(seen)));
    }
}

/* Scores of 8 rows from r on into probabilities; what the rows have so far is scaled to their new maximum. */
static void soften(const many *m, const attention *a, int64_t r, int64_t n) {
    float *scores = m->scores + r % ROWS, *out = m->out + r / ROWS * ROWS * a->v_dim + r % ROWS;
    __m256 before = _mm256_loadu_ps(m->max + r), max = before;
    for (int64_t i = 0; i < n; i++) max = _mm256_max_ps(max, _mm256_loadu_ps(scores + i * ROWS));
    __m256 shift = shift_of(max), sum = _mm256_setzero_ps(), old = exp8(_mm256_sub_ps(before, shift));
    for (int64_t i = 0; i < n; i++) {
        __m256 p = exp8(_mm256_sub_ps(_mm256_loadu_ps(scores + i * ROWS), shift));
        _mm256_storeu_ps(scores + i * ROWS, p);
        sum = _mm256_add_ps(sum, p);
    }
    _mm256_storeu_ps(m->sum + r, _mm256_fmadd_ps(_mm256_loadu_ps(m->sum + r), old, sum));
    _mm256_storeu_ps(m->max + r, max);
    bool same = !_mm256_movemask_ps(_mm256_cmp_ps(before, max, _CMP_NEQ_UQ));
    for (int64_t d = 0; d < a->v_dim && !same; d++, out += ROWS)
        _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_loadu_ps(out), old));
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
        const float *keys = avx2_convert(m.keys, &a->keys, first, n);
        const float *values = avx2_convert(m.values, &a->values, first, n);
        for (int64_t r = 0; r < a->n_rows; r += ROWS) block_many(&m, a, r, keys, values, first, n);
    }
    for (int64_t r = 0; r < a->n_rows; r++) {
        a->state[r] = (softmax_state){m.max[r], m.sum[r]};
        const float *from = m.out + r / ROWS * ROWS * a->v_dim + r % ROWS;
        for (int64_t d = 0; d < a->v_dim; d++) a->out[r * a->v_dim + d] = from[d * ROWS];
    }
}

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
