/* test_kernels_attention.c - attention on entries as they are stored, against sums in double. */
#include "kernel_tables.h"

static const kernels *const with_attention[] = {
#if defined(__x86_64__)
    &kernels_avx512,
#endif
    NULL,
};

/* n random entries of that type, and their values in *as_floats. */
static void *get_entries(dtype type, int64_t n, float **as_floats) {
    *as_floats = get_floats(n);
    void *x = get_memory((size_t)n * dtype_size(type));
    floats_to(x, type, *as_floats, n);
    floats_from(*as_floats, x, type, n);
    return x;
}

/* Row r's keys outside [first, end) and its view count as nothing. */
static void check_row(const attention *a, const float *keys, const float *values, int64_t r) {
    int64_t low = a->seen[r].low > a->first ? a->seen[r].low : a->first;
    int64_t end = a->seen[r].end < a->end ? a->seen[r].end : a->end, n = end > low ? end - low : 0;
    double *p = get_memory((size_t)n * sizeof *p), max = -INFINITY, sum = 0;
    for (int64_t k = 0; k < n; k++) {
        p[k] = 0;
        for (int64_t d = 0; d < a->dim; d++)
            p[k] += (double)a->q[r * a->dim + d] * keys[(low + k) * a->dim + d];
        max = p[k] > max ? p[k] : max;
    }
    for (int64_t k = 0; k < n; k++) sum += p[k] = exp(p[k] - max);
    check_near(a->state[r].max, max, 1e-5 * fabs(max) + 1e-5, "attention's max", r);
    double share = n ? exp(a->state[r].max - max) : 1; /* what the kernel divides all by beside us */
    check_near(a->state[r].sum * share, sum, 2e-5 * sum, "attention's sum", r);
    for (int64_t d = 0; d < a->v_dim; d++) {
        double wanted = 0, magnitude = 0;
        for (int64_t k = 0; k < n; k++) {
            double term = p[k] * values[(low + k) * a->v_dim + d];
            wanted += term;
            magnitude += fabs(term);
        }
        check_near(a->out[r * a->v_dim + d] * share, wanted, magnitude * 2e-5, "attention", d);
    }
    free(p);
}

/* causal: row r sees keys up to its own; window: that many of them (0: all). Some keys before `first` and
 * behind `end` belong to nobody. */
static void check(dtype type, int64_t n_rows, int64_t dim, int64_t v_dim, int64_t first, int64_t end,
                  bool causal, int64_t window) {
    float *q = get_floats(n_rows * dim), *out = get_marks(n_rows * v_dim + 1);
    float *key_floats, *value_floats;
    void *keys = get_entries(type, end * dim, &key_floats);
    void *values = get_entries(type, end * v_dim, &value_floats);
    seen_keys *seen = get_memory((size_t)n_rows * sizeof *seen);
    softmax_state *state = get_memory((size_t)n_rows * sizeof *state);
    size_t bytes = tested->attention->scratch_bytes(n_rows, dim, v_dim);
    void *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
    for (int64_t r = 0; r < n_rows; r++) {
        seen[r].end = causal ? end - n_rows + r + 1 : end;
        seen[r].low = window && seen[r].end > window ? seen[r].end - window : 0;
    }
    attention a = {n_rows, dim, v_dim, q, seen, keys, values, type, first, end, out, state};
    tested->attention->attend(&a, scratch);
    for (int64_t r = 0; r < n_rows; r++) check_row(&a, key_floats, value_floats, r);
    assert_true(out[n_rows * v_dim] == mark);
    free(q), free(out), free(keys), free(values), free(seen), free(state), free(scratch);
    free(key_floats), free(value_floats);
}

static void check_type(dtype type) {
    static const int64_t counts[] = {1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 100};
    static const int64_t lengths[] = {1, 2, 5, 64, 65, 200};
    for
        EACH(i, counts)
    for
        EACH(j, lengths) {
            check(type, counts[i], 64, 64, 0, lengths[j], false, 0);
            check(type, counts[i], 32, 80, 0, counts[i] + lengths[j] - 1, true, 0);
            check(type, counts[i], 128, 16, 0, counts[i] + lengths[j] - 1, true, 7);
        }
    check(type, 4, 64, 64, 512, 1024, false, 0);
    check(type, 6, 256, 256, 3, 131, true, 0);
    check(type, 40, 64, 64, 70, 140, true, 0); /* the first rows see nothing of it */
    check(type, 40, 64, 64, 0, 140, true, 1);
}

static void test_attention(void **unused) {
    (void)unused;
    for (const kernels *const *k = with_attention; *k; k++) {
        tested = *k;
        if (tested->supported())
            for
                EACH(i, float_types) check_type(float_types[i]);
        else
            print_message("%s: skipped, this processor cannot run it\n", tested->name);
    }
}

static void test_what_fits(void **unused) {
    (void)unused;
    for (const kernels *const *k = with_attention; *k; k++) {
        assert_true((*k)->attention->fits(64, 128));
        assert_false((*k)->attention->fits(72, 64));
        assert_false((*k)->attention->fits(64, 72));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_attention), cmocka_unit_test(test_what_fits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
