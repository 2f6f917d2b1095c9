/* test_kernels_states.c - scan and convolve of every kernel table, against sums in double
 * precision. Arrays have exactly the size the kernels may touch. */
#include "kernel_tables.h"

static void check_scan(int64_t n_rows, int64_t n) {
    float *S = get_floats(n_rows * n), *before = get_memory((size_t)(n_rows * n) * sizeof *S);
    float *decay = get_floats(n), *x = get_floats(n_rows), *b = get_floats(n), *c = get_floats(n);
    float *y = get_marks(n_rows);
    memcpy(before, S, (size_t)(n_rows * n) * sizeof *S);
    tested->scan(y, S, n_rows, n, decay, x, b, c);
    for (int64_t r = 0; r < n_rows; r++) {
        double sum = 0, magnitude = 0;
        for (int64_t i = 0; i < n; i++) {
            double kept = (double)before[r * n + i] * decay[i], added = (double)x[r] * b[i];
            check_near(S[r * n + i], kept + added, (fabs(kept) + fabs(added)) * 0x1p-22, "scan", i);
            sum += (kept + added) * c[i];
            magnitude += (fabs(kept) + fabs(added)) * fabs(c[i]);
        }
        check_near(y[r], sum, sum_tolerance(n, magnitude), "scan", r);
    }
    free(S), free(before), free(decay), free(x), free(b), free(c), free(y);
}

static void test_scan(void) {
    static const int counts[] = {1, 3, 4, 9}, widths[] = {1, 7, 16, 24, 33, 128};
    for
        EACH(r, counts)
    for
        EACH(n, widths)
    check_scan(counts[r], widths[n]);
}

static void check_convolve(int64_t n, int taps, bool biased, bool silu) {
    int64_t stride = n + 5; /* between the weights of two taps */
    float *w = get_floats(taps * stride - 5), *bias = biased ? get_floats(n) : NULL, *out = get_marks(n);
    const float *in[16];
    for (int j = 0; j < taps; j++) in[j] = get_floats(n);
    tested->convolve(out, in, w, stride, taps, bias, silu, n);
    for (int64_t i = 0; i < n; i++) {
        double sum = bias ? bias[i] : 0;
        for (int j = 0; j < taps; j++) sum += (double)w[j * stride + i] * in[j][i];
        check_near(out[i], silu ? sum / (1 + exp(-sum)) : sum, (taps + 2) * 4 * 0x1p-23, "convolve", i);
    }
    for (int j = 0; j < taps; j++) free((void *)(uintptr_t)in[j]);
    free(w), free(bias), free(out);
}

static void test_convolve(void) {
    static const int widths[] = {1, 7, 16, 24, 33, 256}, taps[] = {2, 3, 4, 16};
    for
        EACH(n, widths)
    for
        EACH(k, taps)
    for (int form = 0; form < 4; form++) check_convolve(widths[n], taps[k], form & 1, form & 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {ON_EACH_TABLE(test_scan), ON_EACH_TABLE(test_convolve)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
