/* test_kernels.c - products with weights and of blocks, of every kernel table, against
 * double-precision loops. All bit widths, group sizes, number types and addresses; lengths around
 * every block the kernels work in. */
#include "kernel_tables.h"

/* ---- weights ---- */

typedef struct weights {
    rows w;
    int64_t n_rows;
    char *values, *scales, *biases; /* what to free */
    float *q;                       /* [n_rows, n]: quantized values, or the plain ones */
    float *scale, *bias;            /* [n_rows, n / group_size] as floats */
} weights;

/* n random floats as `type`, in memory that starts `skew` bytes off its alignment; *as_float: what
 * was stored. */
static char *random_stored(int64_t n, dtype type, size_t skew, float factor, float **as_float) {
    *as_float = get_floats(n);
    char *stored = get_memory(skew + (size_t)n * dtype_size(type));
    void *aligned = get_memory((size_t)n * dtype_size(type));
    for (int64_t i = 0; i < n; i++) (*as_float)[i] *= factor;
    floats_to(aligned, type, *as_float, n);
    floats_from(*as_float, aligned, type, n);
    memcpy(stored + skew, aligned, (size_t)n * dtype_size(type));
    free(aligned);
    return stored;
}

static weights make_weights(int64_t n_rows, int64_t n, dtype type, int bits, int group_size, size_t skew) {
    weights m = {.w = {.kind = bits ? MATRIX_AFFINE : MATRIX_PLAIN,
                       .n = n,
                       .dtype = type,
                       .bits = bits,
                       .group_size = group_size},
                 .n_rows = n_rows};
    if (!bits) {
        m.values = random_stored(n_rows * n, type, skew, 1, &m.q);
        m.w.values = m.values + skew;
        return m;
    }
    int64_t n_groups = n_rows * n / group_size;
    m.values = calloc((size_t)(n_rows * n * bits / 8) + skew, 1);
    m.q = get_memory((size_t)(n_rows * n) * sizeof *m.q);
    assert_non_null(m.values);
    for (int64_t i = 0; i < n_rows * n; i++) {
        unsigned q = (unsigned)((uniform() + 1) / 2 * (float)(1 << bits));
        m.q[i] = (float)q;
        for (int b = 0; b < bits; b++) {
            int64_t bit = i * bits + b;
            m.values[skew + (size_t)bit / 8] |= (char)((q >> b & 1) << bit % 8);
        }
    }
    m.scales = random_stored(n_groups, type, skew, 2.0f / (float)(1 << bits), &m.scale);
    m.biases = random_stored(n_groups, type, skew, 1, &m.bias);
    m.w.values = m.values + skew;
    m.w.scales = m.scales + skew;
    m.w.biases = m.biases + skew;
    return m;
}

static weights make_fp_weights(int64_t n_rows, int64_t n, matrix_kind kind, size_t skew) {
    int bits = matrix_kind_bits(kind), group_size = matrix_kind_group_size(kind);
    int64_t n_bytes = n_rows * n * bits / 8, n_groups = n_rows * n / group_size;
    weights m = {.w = {.kind = kind, .n = n, .bits = bits, .group_size = group_size}, .n_rows = n_rows};
    m.values = get_memory((size_t)n_bytes + skew);
    m.scales = get_memory((size_t)n_groups + skew);
    m.q = get_memory((size_t)(n_rows * n) * sizeof *m.q);
    m.scale = get_memory((size_t)n_groups * sizeof *m.scale);
    m.bias = calloc((size_t)n_groups, sizeof *m.bias);
    assert_non_null(m.bias);
    for (int64_t i = 0; i < n_bytes; i++) { /* no NaN */
        uint8_t byte = (uint8_t)((uniform() + 1) * 128);
        m.values[skew + (size_t)i] = (char)((byte & 0x7f) == 0x7f ? 0 : byte);
    }
    for (int64_t i = 0; i < n_groups; i++) {
        uint8_t scale = i % 9 == 8 && kind != MATRIX_NVFP4 ? 0 : random_scale(kind); /* 0: 2^-127 */
        m.scales[skew + (size_t)i] = (char)scale;
        m.scale[i] = stored_scale(kind, scale);
    }
    for (int64_t i = 0; i < n_rows * n; i++) m.q[i] = fp_number(kind, m.values + skew, i);
    m.w.values = m.values + skew;
    m.w.scales = m.scales + skew;
    return m;
}

static void free_weights(weights *m) {
    free(m->values), free(m->scales), free(m->biases), free(m->q), free(m->scale), free(m->bias);
}

/* Rows [first, end) with x; the others' results must stay untouched. */
static void check_matvec(const weights *m, int64_t first, int64_t end) {
    int64_t n = m->w.n, group = m->w.bits ? m->w.group_size : n;
    float *x = get_floats(n), *sums = NULL, *y = get_marks(m->n_rows);
    if (m->w.kind == MATRIX_AFFINE) {
        sums = get_memory((size_t)(n / group) * sizeof *sums);
        tested->group_sums(sums, x, n, m->w.group_size);
    }
    tested->of[m->w.kind].matvec(y, &m->w, first, end, x, sums);
    char what[96];
    snprintf(what, sizeof what, "matvec, %s, %d bits, group %d, %s, n %lld", matrix_kind_name(m->w.kind),
             m->w.bits, m->w.group_size, dtype_name(m->w.dtype), (long long)n);
    for (int64_t r = 0; r < m->n_rows; r++) {
        double wanted = 0, magnitude = 0;
        for (int64_t i = 0; i < n; i++) {
            int64_t at = r * n + i;
            double value = m->q[at], bias = 0;
            if (m->w.bits) {
                value *= m->scale[at / group];
                bias = m->bias[at / group];
            }
            wanted += (value + bias) * x[i];
            magnitude += (fabs(value) + fabs(bias)) * fabs(x[i]);
        }
        bool inside = r >= first && r < end;
        check_near(y[r], inside ? wanted : mark, inside ? sum_tolerance(n, magnitude) : 0, what, r);
    }
    free(x), free(sums), free(y);
}

/* Row r must be what scale * q + bias, or scale * number, gives in F32, to the bit. */
static void check_unpack(const weights *m) {
    int64_t n = m->w.n;
    float *out = get_memory((size_t)n * sizeof *out);
    for (int64_t r = 0; r < m->n_rows; r++) {
        tested->of[m->w.kind].unpack(out, &m->w, r);
        for (int64_t i = 0; i < n; i++) {
            int64_t at = r * n + i;
            float wanted = m->q[at];
            if (m->w.bits) {
                wanted *= m->scale[at / m->w.group_size];
                if (m->w.kind == MATRIX_AFFINE) wanted += m->bias[at / m->w.group_size];
            }
            check_near(out[i], wanted, 0, "unpack", i);
        }
    }
    free(out);
}

static void check_some_rows(weights m) {
    check_matvec(&m, 0, 7);
    check_matvec(&m, 2, 5);
    check_matvec(&m, 6, 7);
    check_matvec(&m, 3, 3);
    check_unpack(&m);
    free_weights(&m);
}

static void check_weights(int64_t n, dtype type, int bits, int group_size) {
    for (size_t skew = 0; skew < 4; skew++) /* checkpoints may be at odd addresses */
        check_some_rows(make_weights(7, n, type, bits, group_size, skew));
}

static void test_affine_weights(void) {
    static const int widths[] = {1, 2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128},
                     multiples[] = {1, 2, 3, 9, 35};
    for
        EACH(b, widths)
        for
            EACH(g, groups)
            for
                EACH(t, float_types) {
                for
                    EACH(n, multiples)
                check_weights(groups[g] * multiples[n], float_types[t], widths[b], groups[g]);
                check_weights(8192 + groups[g], float_types[t], widths[b], groups[g]);
                }
    for
        EACH(b, widths) check_weights(2 * 8192 + 96, DTYPE_BF16, widths[b], 32);
}

static void test_fp_weights(void) {
    static const int groups[] = {1, 2, 3, 9, 35, 257, 515};
    for
        EACH(k, fp_kinds)
        for
            EACH(n, groups)
        for (size_t skew = 0; skew < 4; skew++)
            check_some_rows(
                make_fp_weights(7, groups[n] * matrix_kind_group_size(fp_kinds[k]), fp_kinds[k], skew));
}

/* Every code of a number, with every scale: NaN and infinity where they are. */
static void test_fp_codes(void) {
    enum { N = 256 };
    uint8_t codes[N], scales[N / 16];
    float out[N];
    for (int i = 0; i < N; i++) codes[i] = (uint8_t)i;
    for
        EACH(k, fp_kinds)
    for (int s = 0; s < 256; s++) {
        matrix_kind kind = fp_kinds[k];
        memset(scales, s, sizeof scales);
        rows w = {.kind = kind,
                  .n = N,
                  .values = codes,
                  .scales = scales,
                  .bits = matrix_kind_bits(kind),
                  .group_size = matrix_kind_group_size(kind)};
        tested->of[kind].unpack(out, &w, 0);
        for (int i = 0; i < N; i++)
            check_near(out[i], fp_number(kind, codes, i) * stored_scale(kind, (uint8_t)s), 0, "codes", i);
    }
}

static void test_plain_weights(void) {
    static const int lengths[] = {1, 7, 8, 9, 31, 32, 33, 47, 96, 1000, 4097, 9001};
    for
        EACH(t, float_types)
        for
            EACH(n, lengths) check_weights(lengths[n], float_types[t], 0, 0);
}

static void test_group_sums(void) {
    static const int groups[] = {32, 64, 128};
    for
        EACH(g, groups) {
            int64_t n = 5 * groups[g];
            float *x = get_floats(n), *sums = get_memory(5 * sizeof *sums);
            tested->group_sums(sums, x, n, groups[g]);
            for (int i = 0; i < 5; i++) {
                double wanted = 0, magnitude = 0;
                for (int k = i * groups[g]; k < (i + 1) * groups[g]; k++)
                    wanted += x[k], magnitude += fabs(x[k]);
                check_near(sums[i], wanted, sum_tolerance(groups[g], magnitude), "group_sums", i);
            }
            free(x), free(sums);
        }
}

/* ---- products of blocks ---- */

static void check_matmul(int64_t n_tokens, int64_t n_rows, int64_t n) {
    int64_t x_stride = n + 3, out_stride = n_rows + 2;
    float *x = get_floats((n_tokens - 1) * x_stride + n), *w = get_floats(n_rows * n);
    float *out = get_marks((n_tokens - 1) * out_stride + n_rows);
    tested->matmul(out, out_stride, x, x_stride, n_tokens, w, n_rows, n);
    for (int64_t i = 0; i < (n_tokens - 1) * out_stride + n_rows; i++) {
        int64_t t = i / out_stride, r = i % out_stride;
        double wanted = 0, magnitude = 0;
        for (int64_t k = 0; k < n && r < n_rows; k++) {
            double term = (double)x[t * x_stride + k] * w[r * n + k];
            wanted += term;
            magnitude += fabs(term);
        }
        check_near(out[i], r < n_rows ? wanted : mark, sum_tolerance(n, magnitude), "matmul", i);
    }
    free(x), free(w), free(out);
}

static void test_matmul(void) {
    static const int lengths[] = {1, 7, 8, 9, 33, 64, 1024, 1030, 2050}, counts[] = {1, 2, 3, 4, 5, 7, 9};
    for
        EACH(n, lengths)
        for
            EACH(t, counts)
            for
                EACH(r, counts) check_matmul(counts[t], counts[r], lengths[n]);
}

static void check_mix(int64_t n_tokens, int64_t n_rows, int64_t n) {
    int64_t p_stride = n_rows + 1, out_stride = n + 5, n_out = (n_tokens - 1) * out_stride + n;
    float *p = get_floats((n_tokens - 1) * p_stride + n_rows), *v = get_floats(n_rows * n);
    float *out = get_floats(n_out), *before = get_memory((size_t)n_out * sizeof *before);
    memcpy(before, out, (size_t)n_out * sizeof *out);
    tested->mix(out, out_stride, p, p_stride, n_tokens, v, n_rows, n);
    for (int64_t i = 0; i < n_out; i++) {
        int64_t t = i / out_stride, c = i % out_stride;
        double wanted = before[i], magnitude = fabs(wanted);
        for (int64_t r = 0; r < n_rows && c < n; r++) {
            double term = (double)p[t * p_stride + r] * v[r * n + c];
            wanted += term;
            magnitude += fabs(term);
        }
        check_near(out[i], wanted, c < n ? sum_tolerance(n_rows, magnitude) : 0, "mix", i);
    }
    free(p), free(v), free(out), free(before);
}

static void test_mix(void) {
    static const int widths[] = {1, 7, 8, 17, 64, 72, 130}, counts[] = {1, 2, 63};
    for
        EACH(n, widths)
        for
            EACH(r, counts)
        for (int t = 1; t <= 9; t++) check_mix(t, counts[r], widths[n]);
}

/* ---- the choice ---- */

static void test_choice(void **state) {
    (void)state;
    setenv("MLXBENCH_CPU", "scalar", 1);
    assert_string_equal(kernels_choose()->name, "scalar");
    setenv("MLXBENCH_CPU", "abacus", 1);
    assert_null(kernels_choose());
    assert_int_equal(error_exit_code(), EXIT_USAGE);
    assert_non_null(strstr(error_message(), "abacus"));
    assert_non_null(strstr(error_message(), "scalar"));
    setenv("MLXBENCH_CPU", "", 1);
    assert_non_null(kernels_choose());
    unsetenv("MLXBENCH_CPU");
    assert_true(kernels_choose()->supported());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EACH_TABLE(test_affine_weights),
        ON_EACH_TABLE(test_plain_weights),
        ON_EACH_TABLE(test_fp_weights),
        ON_EACH_TABLE(test_fp_codes),
        ON_EACH_TABLE(test_group_sums),
        ON_EACH_TABLE(test_matmul),
        ON_EACH_TABLE(test_mix),
        cmocka_unit_test(test_choice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
