/* test_kernels_attention.c - attention on entries as they are stored, against sums in double.
 * Queries are BF16 numbers already, so that rounding them again is no error; probabilities are rounded. */
#include "kernel_tables.h"

static const kernels *const with_attention[] = {
#if defined(__x86_64__)
    &kernels_avx512bf16,
#endif
    NULL,
};

static uint16_t *get_entries(int64_t n) {
    uint16_t *x = aligned_alloc(64, ((size_t)n * sizeof *x + 63) / 64 * 64);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) x[i] = f32_to_bf16(uniform());
    return x;
}

/* Row r's keys outside [first, end) and its view count as nothing. */
static void check_row(const attention *a, int64_t r) {
    const uint16_t *keys = a->keys, *values = a->values;
    int64_t low = a->seen[r].low > a->first ? a->seen[r].low : a->first;
    int64_t end = a->seen[r].end < a->end ? a->seen[r].end : a->end, n = end > low ? end - low : 0;
    double *p = get_memory((size_t)n * sizeof *p), max = -INFINITY, sum = 0;
    for (int64_t k = 0; k < n; k++) {
        p[k] = 0;
        for (int64_t d = 0; d < a->dim; d++)
            p[k] += (double)a->q[r * a->dim + d] * bf16_to_f32(keys[(low + k) * a->dim + d]);
        max = p[k] > max ? p[k] : max;
    }
    for (int64_t k = 0; k < n; k++) sum += p[k] = exp(p[k] - max);
    check_near(a->state[r].max, max, 1e-5 * fabs(max) + 1e-5, "attention's max", r);
    double share = n ? exp(a->state[r].max - max) : 1; /* what the kernel divides all by beside us */
    check_near(a->state[r].sum * share, sum, 2e-5 * sum, "attention's sum", r);
    for (int64_t d = 0; d < a->v_dim; d++) {
        double wanted = 0, magnitude = 0;
        for (int64_t k = 0; k < n; k++) {
            double term = p[k] * bf16_to_f32(values[(low + k) * a->v_dim + d]);
            wanted += term;
            magnitude += fabs(term);
        }
        check_near(a->out[r * a->v_dim + d] * share, wanted, magnitude * (0x1p-8 + 2e-5), "attention", d);
    }
    free(p);
}

/* causal: row r sees keys up to its own; window: that many of them (0: all). Some keys before `first` and
 * behind `end` belong to nobody. */
static void check(int64_t n_rows, int64_t dim, int64_t v_dim, int64_t first, int64_t end, bool causal,
                  int64_t window) {
    float *q = get_floats(n_rows * dim), *out = get_marks(n_rows * v_dim + 1);
    uint16_t *keys = get_entries(end * dim), *values = get_entries(end * v_dim);
    seen_keys *seen = get_memory((size_t)n_rows * sizeof *seen);
    softmax_state *state = get_memory((size_t)n_rows * sizeof *state);
    size_t bytes = tested->attention->scratch_bytes(n_rows, dim, v_dim);
    void *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
    for (int64_t i = 0; i < n_rows * dim; i++) q[i] = bf16_to_f32(f32_to_bf16(q[i]));
    for (int64_t r = 0; r < n_rows; r++) {
        seen[r].end = causal ? end - n_rows + r + 1 : end;
        seen[r].low = window && seen[r].end > window ? seen[r].end - window : 0;
    }
    attention a = {n_rows, dim, v_dim, q, seen, keys, values, first, end, out, state};
    tested->attention->attend(&a, scratch);
    for (int64_t r = 0; r < n_rows; r++) check_row(&a, r);
    assert_true(out[n_rows * v_dim] == mark);
    free(q), free(out), free(keys), free(values), free(seen), free(state), free(scratch);
}

static void test_attention(void **unused) {
    (void)unused;
    static const int64_t counts[] = {1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 100},
                         lengths[] = {1, 2, 5, 64, 65, 200};
    for (const kernels *const *k = with_attention; *k; k++) {
        tested = *k;
        if (!tested->supported()) {
            print_message("%s: skipped, this processor cannot run it\n", tested->name);
            continue;
        }
        for
            EACH(i, counts)
        for
            EACH(j, lengths) {
                check(counts[i], 64, 64, 0, lengths[j], false, 0);
                check(counts[i], 32, 96, 0, counts[i] + lengths[j] - 1, true, 0);
                check(counts[i], 128, 32, 0, counts[i] + lengths[j] - 1, true, 7);
            }
        check(4, 64, 64, 512, 1024, false, 0);
        check(6, 256, 256, 3, 131, true, 0);
        check(40, 64, 64, 70, 140, true, 0); /* the first rows see nothing of it */
        check(40, 64, 64, 0, 140, true, 1);
    }
}

static void test_what_fits(void **unused) {
    (void)unused;
    for (const kernels *const *k = with_attention; *k; k++) {
        assert_true((*k)->attention->fits(DTYPE_BF16, 64, 128));
        assert_false((*k)->attention->fits(DTYPE_F32, 64, 64));
        assert_false((*k)->attention->fits(DTYPE_BF16, 80, 64));
        assert_false((*k)->attention->fits(DTYPE_BF16, 64, 80));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_attention), cmocka_unit_test(test_what_fits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
