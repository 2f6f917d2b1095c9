/* test_kernels_amx.c - the AMX kernels on processors without AMX: compiled once more, with emulated
 * tiles. What is not AMX needs AVX-512 VNNI. */
#if defined(__x86_64__)
#include "amx_tiles.h"

#define kernels_avx512amx emulated
#include "engine/cpu/kernels/avx512/amx.c"

#include "product_checks.h"

static void check_emulated(void (*check)(void)) {
    tested = &emulated;
    check();
    assert_false(amx.configured);
}

static void test_one_token(void **state) {
    (void)state;
    check_emulated(test_affine_matvec);
}

static void test_many_tokens(void **state) {
    (void)state;
    check_emulated(test_affine_panels);
}

/* The largest sums there are. */
static void test_largest(void **state) {
    (void)state;
    enum { N = 128 };
    float scale = 1, bias = 0, x[N], y;
    uint8_t values[N];
    memset(values, 255, sizeof values);
    rows w = {.kind = MATRIX_AFFINE,
              .n = N,
              .values = values,
              .scales = &scale,
              .biases = &bias,
              .dtype = DTYPE_F32,
              .bits = 8};
    w.group_size = N;
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int i = 0; i < N; i++) x[i] = (float)sign;
        multiply_panels(emulated.of[MATRIX_AFFINE].int16, &y, 1, &w, 1, x, 1);
        assert_true(fabsf(y - (float)(sign * N * 255)) <= 0.01f);
    }
}

static void test_mxfp4(void **state) {
    (void)state;
    check_emulated(test_fp_products);
    check_emulated(test_largest_fp_sums);
}

static void test_not_a_number(void **state) {
    (void)state;
    check_emulated(test_not_finite);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        /* static, since this file is compiled for AVX-512: nothing may be copied before the
         * check */
        cmocka_unit_test(test_one_token), cmocka_unit_test(test_many_tokens),  cmocka_unit_test(test_largest),
        cmocka_unit_test(test_mxfp4),     cmocka_unit_test(test_not_a_number),
    };
    if (kernels_avx512vnni.supported()) return cmocka_run_group_tests(tests, NULL, NULL);
    printf("skipped: even with emulated tiles, the AMX kernels need AVX-512 VNNI\n");
    return 0;
}

#else

#include <stdio.h>

int main(void) {
    printf("skipped: the AMX kernels are for x86\n");
    return 0;
}

#endif
