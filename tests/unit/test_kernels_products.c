/* test_kernels_products.c - f32, bf16, int16 and int8 products of every kernel table that this
 * processor runs: product_checks.h says what is checked. */
#include "product_checks.h"

/* A table that lacks a kernel takes it from its base; only products may be missing. */
static void test_tables_are_complete(void **state) {
    (void)state;
    const kernels *k = kernels_choose();
    assert_non_null(k);
    assert_true(k->group_sums && k->matmul && k->mix && k->to_f32 && k->from_f32);
    assert_true(k->rms_norm && k->layer_norm && k->gated && k->max && k->exp_sum);
    for (int i = 0; i < N_MATRIX_KINDS; i++) assert_true(k->of[i].matvec && k->of[i].unpack);
    assert_true(k->of[MATRIX_AFFINE].int8 && k->of[MATRIX_MXFP4].int8);
}

/* Where a table has wider floats than its base, the base's int16 products would be a step back. */
static void test_int16_is_not_inherited_beside_f32(void **state) {
    (void)state;
    for
        EACH(i, tables) {
            kernels complete = kernels_complete(tables[i]);
            for (int kind = 0; kind < N_MATRIX_KINDS; kind++) {
                const matrix_kernels *own = &tables[i]->of[kind], *all = &complete.of[kind];
                if (own->f32 && !own->int16) assert_null(all->int16);
                if (own->int16) assert_true(all->int16 == own->int16);
            }
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EACH_TABLE(test_affine_matvec),
        ON_EACH_TABLE(test_many_groups),
        ON_EACH_TABLE(test_short_rows),
        ON_EACH_TABLE(test_affine_panels),
        ON_EACH_TABLE(test_largest_sums),
        ON_EACH_TABLE(test_fp_products),
        ON_EACH_TABLE(test_fp_products_of_codes),
        ON_EACH_TABLE(test_largest_fp_sums),
        ON_EACH_TABLE(test_plain),
        ON_EACH_TABLE(test_not_finite),
        cmocka_unit_test(test_tables_are_complete),
        cmocka_unit_test(test_int16_is_not_inherited_beside_f32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
