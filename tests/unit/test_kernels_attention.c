/* test_kernels_attention.c - attention on entries as they are stored, against sums in double. */
#include "kernel_tables.h"

static const struct with_attention {
    const kernels *table;
    int lanes; /* of a register */
} with_attention[] = {
#if defined(__x86_64__)
    {&kernels_avx512, 16},
    {&kernels_avx2, 8},
#endif
    {NULL, 0},
};

/* How entries are stored: bits 0 as floats of the type, else in groups with scales and biases of
 * the type. */
typedef struct storage {
    dtype type;
    int bits, group_size;
} storage;

/* n random entries of dim numbers; their values go to *as_floats. */
static rows get_entries(storage s, int64_t n, int64_t dim, float **as_floats) {
    float *x = *as_floats = get_floats(n * dim);
    rows w = {.kind = s.bits ? MATRIX_AFFINE : MATRIX_PLAIN,
              .n = dim,
              .dtype = s.type,
              .bits = s.bits,
              .group_size = s.group_size};
    if (!s.bits) {
        void *values = get_memory((size_t)(n * dim) * dtype_size(s.type));
        floats_to(values, s.type, x, n * dim);
        floats_from(x, values, s.type, n * dim);
        w.values = values;
        return w;
    }
    int64_t groups = dim / s.group_size, bytes = dim * s.bits / 8;
    size_t scale_bytes = (size_t)groups * dtype_size(s.type);
    char *values = get_memory((size_t)(n * bytes)), *scales = get_memory((size_t)n * scale_bytes);
    char *biases = get_memory((size_t)n * scale_bytes);
    w.values = values, w.scales = scales, w.biases = biases;
    for (int64_t i = 0; i < n; i++) {
        quantize_row((uint32_t *)(void *)(values + i * bytes), scales + (size_t)i * scale_bytes,
                     biases + (size_t)i * scale_bytes, s.type, x + i * dim, dim, s.bits, s.group_size);
        kernels_scalar.of[w.kind].unpack(x + i * dim, &w, i);
    }
    return w;
}

static void free_entries(const rows *w, float *as_floats) {
    free((void *)(uintptr_t)w->values), free((void *)(uintptr_t)w->scales);
    free((void *)(uintptr_t)w->biases), free(as_floats);
}

/* Row r's keys outside [first, end) and its view count as nothing. A score's error becomes a
 * relative one of its probability. */
static void check_row(const attention *a, const float *keys, const float *values, int64_t r) {
    int64_t low = a->seen[r].low > a->first ? a->seen[r].low : a->first;
    int64_t end = a->seen[r].end < a->end ? a->seen[r].end : a->end, n = end > low ? end - low : 0;
    double *p = get_memory((size_t)n * sizeof *p), max = -INFINITY, sum = 0, largest = 0;
    double more = a->keys.bits ? 2 : 0; /* of numbers in [-1, 1], a sum may have scale * q and bias apart */
    for (int64_t k = 0; k < n; k++) {
        double magnitude = p[k] = 0;
        for (int64_t d = 0; d < a->dim; d++) {
            double term = (double)a->q[r * a->dim + d] * keys[(low + k) * a->dim + d];
            p[k] += term;
            magnitude += fabs(term) + more * fabs((double)a->q[r * a->dim + d]);
        }
        max = p[k] > max ? p[k] : max;
        largest = magnitude > largest ? magnitude : largest;
    }
    double score_error = sum_tolerance(a->dim, largest), error = 2 * score_error + sum_tolerance(n, 1);
    for (int64_t k = 0; k < n; k++) sum += p[k] = exp(p[k] - max);
    check_near(a->state[r].max, max, score_error, "attention's max", r);
    double share = n ? exp(a->state[r].max - max) : 1; /* what the kernel divides all by beside us */
    check_near(a->state[r].sum * share, sum, error * sum, "attention's sum", r);
    for (int64_t d = 0; d < a->v_dim; d++) {
        double wanted = 0, magnitude = 0;
        for (int64_t k = 0; k < n; k++) {
            double term = p[k] * values[(low + k) * a->v_dim + d];
            wanted += term;
            magnitude += fabs(term) + more * p[k];
        }
        check_near(a->out[r * a->v_dim + d] * share, wanted, magnitude * error, "attention", d);
    }
    free(p);
}

/* What rows see. group: so many rows, the query heads of a KV head, see the same. causal: each
 * group sees one key more than the one before it, the last all; window: at most so many keys (0:
 * all). Keys before `first` and, where there are fewer rows than keys, some behind `end` belong to
 * nobody. */
typedef struct view {
    int64_t group, first, end;
    bool causal;
    int64_t window;
} view;

/* Entries and queries under test, with the answer. */
typedef struct setting {
    attention a;
    float *q, *keys, *values; /* as floats */
    void *scratch;
} setting;

static setting set_up(storage s, int64_t n_rows, int64_t dim, int64_t v_dim, view v) {
    setting t = {.q = get_floats(n_rows * dim)};
    t.a = (attention){.n_rows = n_rows, .dim = dim, .v_dim = v_dim, .q = t.q, .first = v.first, .end = v.end};
    t.a.keys = get_entries(s, v.end, dim, &t.keys);
    t.a.values = get_entries(s, v.end, v_dim, &t.values);
    if (v.causal) t.a.next_keys = t.a.keys.values, t.a.next_values = t.a.values.values; /* changes nothing */
    t.a.out = get_marks(n_rows * v_dim + 1);
    t.a.state = get_memory((size_t)n_rows * sizeof *t.a.state);
    seen_keys *seen = get_memory((size_t)n_rows * sizeof *seen);
    int64_t n_groups = (n_rows + v.group - 1) / v.group;
    for (int64_t r = 0; r < n_rows; r++) {
        seen[r].end = v.causal ? v.end - n_groups + r / v.group + 1 : v.end;
        seen[r].low = v.window && seen[r].end > v.window ? seen[r].end - v.window : 0;
    }
    t.a.seen = seen;
    size_t bytes = tested->attention->scratch_bytes(n_rows, dim, v_dim);
    t.scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(t.scratch);
    return t;
}

static void tear_down(setting *t) {
    assert_true(t->a.out[t->a.n_rows * t->a.v_dim] == mark);
    free_entries(&t->a.keys, t->keys), free_entries(&t->a.values, t->values);
    free(t->q), free(t->a.out), free(t->a.state), free(t->scratch);
    free((void *)(uintptr_t)t->a.seen);
}

static void check(storage s, int64_t n_rows, int64_t dim, int64_t v_dim, view v) {
    setting t = set_up(s, n_rows, dim, v_dim, v);
    tested->attention->attend(&t.a, t.scratch);
    for (int64_t r = 0; r < n_rows; r++) check_row(&t.a, t.keys, t.values, r);
    tear_down(&t);
}

static const int64_t dims[][2] = {{64, 64}, {32, 80}, {128, 16}, {80, 96}, {96, 128}, {256, 256}};

static void check_plain(dtype type) {
    static const int64_t counts[] = {1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 100};
    static const int64_t lengths[] = {1, 2, 5, 64, 65, 200};
    storage s = {type, 0, 0};
    for
        EACH(i, counts)
    for
        EACH(j, lengths) {
            int64_t n = counts[i], length = lengths[j];
            check(s, n, 64, 64, (view){1, 0, length, false, 0});
            check(s, n, 32, 80, (view){1, 0, n + length - 1, true, 0});
            check(s, n, 128, 16, (view){1, 0, n + length - 1, true, 7});
        }
    for
        EACH(i, dims)
    for (int64_t group = 1; group <= 8; group += group == 1 ? 2 : group == 3 ? 1 : 4) /* 1, 3, 4, 8 */
        for (int64_t tokens = 1; tokens <= 40; tokens += 13)
            check(s, group * tokens, dims[i][0], dims[i][1], (view){group, 11, 150, true, 90});
    check(s, 4, 64, 64, (view){4, 512, 1024, false, 0});
    check(s, 6, 256, 256, (view){1, 3, 131, true, 0});
    check(s, 40, 64, 64, (view){1, 70, 140, true, 0}); /* the first rows see nothing of it */
    check(s, 5, 64, 64, (view){1, 68, 70, true, 0});
    check(s, 40, 64, 64, (view){1, 0, 140, true, 1});
}

static void check_affine(storage s) {
    static const int64_t counts[] = {1, 3, 4, 8, 9, 50};
    for
        EACH(i, counts) {
            check(s, counts[i], 64, 64, (view){1, 0, 1, false, 0});
            check(s, counts[i], 64, 128, (view){1, 7, 150, true, 100});
            check(s, counts[i], 256, 192, (view){counts[i], 0, 65, false, 0});
            if (s.group_size == 32) check(s, counts[i], 96, 32, (view){1, 0, 70, true, 0});
        }
}

/* One row's or one key's number that is not finite spoils what depends on it, and nothing else. */
static void check_not_finite(int64_t n_rows) {
    static const float not_finite[] = {NAN, INFINITY, -INFINITY};
    for
        EACH(i, not_finite) {
            setting t = set_up((storage){DTYPE_F32, 0, 0}, n_rows, 64, 64, (view){1, 0, 150, true, 0});
            t.q[(n_rows - 1) * 64] = not_finite[i];
            tested->attention->attend(&t.a, t.scratch);
            for (int64_t r = 0; r + 1 < n_rows; r++) check_row(&t.a, t.keys, t.values, r);
            assert_true(isnan(t.a.state[n_rows - 1].sum)); /* some scores are +inf, or NaN */
            tear_down(&t);
        }
}

/* Scores of -inf count as nothing, be it of some keys, of whole blocks, or of all. */
static void check_minus_infinity(int64_t n_rows) {
    static const int64_t ends[] = {1, 70, 149, 150};
    for
        EACH(i, ends) {
            setting t = set_up((storage){DTYPE_F32, 0, 0}, n_rows, 64, 64, (view){1, 0, 150, false, 0});
            for (int64_t r = 0; r < n_rows; r++) t.q[r * 64] = 1;
            for (int64_t k = 0; k < ends[i]; k++) t.keys[k * 64] = -INFINITY;
            memcpy((void *)(uintptr_t)t.a.keys.values, t.keys, 150 * 64 * sizeof *t.keys);
            tested->attention->attend(&t.a, t.scratch);
            t.a.first = ends[i]; /* as if the others were not there */
            for (int64_t r = 0; r < n_rows; r++) check_row(&t.a, t.keys, t.values, r);
            tear_down(&t);
        }
}

static void check_all(void) {
    static const storage affine[] = {{DTYPE_BF16, 8, 64}, {DTYPE_BF16, 4, 64}, {DTYPE_F16, 8, 32},
                                     {DTYPE_F32, 4, 32},  {DTYPE_BF16, 2, 32}, {DTYPE_F16, 3, 64},
                                     {DTYPE_BF16, 5, 32}, {DTYPE_F32, 6, 64},  {DTYPE_BF16, 6, 32}};
    for
        EACH(i, float_types) check_plain(float_types[i]);
    for
        EACH(i, affine) check_affine(affine[i]);
    for (int64_t n_rows = 1; n_rows <= 40; n_rows += 3) {
        check_not_finite(n_rows);
        check_minus_infinity(n_rows);
    }
}

static void test_attention(void **unused) {
    (void)unused;
    for (const struct with_attention *w = with_attention; w->table; w++) {
        tested = w->table;
        if (tested->supported())
            check_all();
        else
            print_message("%s: skipped, this processor cannot run it\n", tested->name);
    }
}

static void test_what_fits(void **unused) {
    (void)unused;
    for (const struct with_attention *w = with_attention; w->table; w++) {
        const attention_kernels *k = w->table->attention;
        assert_true(k->fits(64, 128) && k->fits(64 + w->lanes, 64));
        assert_false(k->fits(64 + w->lanes / 2, 64));
        assert_false(k->fits(64, 64 + w->lanes / 2));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_attention), cmocka_unit_test(test_what_fits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
