/* test_kernels_panels.c - products of BF16 panels against double-precision loops over the rounded numbers.
 * Rows, tokens and columns around every panel's size; what lies beside the result must stay as it is. */
#include "kernel_tables.h"

/* Words for n_rows x n values of 4 or 8 bits, and scales and biases in BF16, all random. */
typedef struct weights {
    rows w;
    void *values, *scales, *biases;
} weights;

static void *random_bf16(int64_t n) {
    uint16_t *x = get_memory((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = f32_to_bf16(uniform());
    return x;
}

static weights make_weights(int64_t n_rows, int64_t n, int bits) {
    weights m = {.w = {.n = n, .dtype = DTYPE_BF16, .bits = bits, .group_size = bits ? 32 : 0}};
    if (!bits) {
        m.w.values = m.values = random_bf16(n_rows * n);
        return m;
    }
    uint8_t *bytes = get_memory((size_t)(n_rows * n * bits / 8));
    for (int64_t i = 0; i < n_rows * n * bits / 8; i++) bytes[i] = (uint8_t)(uniform() * 128 + 128);
    m.w.values = m.values = bytes;
    m.w.scales = m.scales = random_bf16(n_rows * n / 32);
    m.w.biases = m.biases = random_bf16(n_rows * n / 32);
    return m;
}

static float to_bf16(float x) {
    return bf16_to_f32(f32_to_bf16(x));
}

static void check_product(const kernels *k, int64_t n_tokens, int64_t n_rows, int64_t n, int bits) {
    enum { BESIDE = 3 };
    int64_t width = (n + 31) / 32 * 32, stride = n_rows + BESIDE;
    int64_t token_panels = (n_tokens + k->panel_tokens - 1) / k->panel_tokens;
    int64_t row_panels = (n_rows + k->panel_rows - 1) / k->panel_rows;
    weights m = make_weights(n_rows, n, bits);
    float *x = get_floats(n_tokens * n), *out = get_marks(n_tokens * stride),
          *row = get_memory((size_t)n * sizeof *row);
    float *scratch = get_memory((size_t)(k->panel_rows * n) * sizeof *scratch);
    uint16_t *tokens = get_memory((size_t)(token_panels * k->panel_tokens * width) * sizeof *tokens);
    uint16_t *tile = get_memory((size_t)(row_panels * k->panel_rows * width) * sizeof *tile);
    for (int64_t t = 0; t < n_tokens; t += k->panel_tokens)
        k->pack_tokens(tokens + t * width, x + t * n, n,
                       n_tokens - t < k->panel_tokens ? n_tokens - t : k->panel_tokens, n);
    for (int64_t r = 0; r < n_rows; r += k->panel_rows)
        k->pack_rows(tile + r * width, &m.w, r, n_rows - r < k->panel_rows ? n_rows - r : k->panel_rows,
                     scratch);
    k->multiply_panels(out, stride, tokens, n_tokens, tile, n_rows, n);
    for (int64_t r = 0; r < n_rows; r++) {
        kernels_scalar.unpack(row, &m.w, r);
        for (int64_t t = 0; t < n_tokens; t++) {
            double sum = 0, magnitude = 0, slack = 0;
            for (int64_t i = 0; i < n; i++) {
                double product = (double)to_bf16(x[t * n + i]) * to_bf16(row[i]);
                sum += product;
                magnitude += fabs(product);
                /* scale * q + bias may be rounded once or twice before it becomes a BF16: rarely, one unit
                 * off */
                slack = fmax(slack, fabs((double)x[t * n + i] * row[i]) * 0x1p-8);
            }
            check_near(out[t * stride + r], sum, sum_tolerance(n, magnitude) + (bits ? 4 * slack : 0),
                       "panels", r);
        }
    }
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t i = n_rows; i < stride; i++) assert_true(out[t * stride + i] == mark);
    free(m.values), free(m.scales), free(m.biases), free(x), free(out), free(row);
    free(scratch), free(tokens), free(tile);
}

static const kernels *const with_panels[] = {
#if defined(__x86_64__)
    &kernels_avx512,
#endif
    NULL,
};

static void test_panels(void **state) {
    static const int64_t sizes[][3] = {{1, 1, 32},    {5, 16, 64},    {12, 17, 96},
                                       {13, 32, 128}, {24, 33, 32},   {30, 49, 64},
                                       {7, 64, 160},  {12, 32, 2112}, {4, 3, 4128}};
    (void)state;
    for (const kernels *const *k = with_panels; *k; k++) {
        tested = *k;
        if (!tested->supported()) {
            print_message("%s: skipped, this processor cannot run it\n", tested->name);
            continue;
        }
        for
            EACH(i, sizes)
        for (int bits = 0; bits <= 8; bits += 4)
            check_product(tested, sizes[i][0], sizes[i][1], sizes[i][2], bits);
        check_product(tested, 12, 16, 40, 0); /* no whole chunk of columns */
        check_product(tested, 3, 5, 7, 0);
    }
}

/* A table that lacks a kernel takes it from its base; only panels may be missing. */
static void test_tables_are_complete(void **state) {
    (void)state;
    const kernels *k = kernels_choose();
    assert_non_null(k);
    assert_true(k->matvec && k->group_sums && k->unpack && k->matmul && k->mix && k->to_f32 && k->from_f32);
    assert_true(k->rms_norm && k->gated && k->max && k->exp_sum);
    assert_true(!k->pack_rows == !k->multiply_panels && !k->pack_rows == !k->pack_tokens);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_panels),
        cmocka_unit_test(test_tables_are_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
