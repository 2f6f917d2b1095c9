/* test_kernels_products.c - f32, bf16, int16 and int8 products of every kernel table that this processor
 * runs: product_checks.h says what is checked. */
#include "product_checks.h"

/* A table that lacks a kernel takes it from its base; only products may be missing. */
static void test_tables_are_complete(void **state) {
    (void)state;
    const kernels *k = kernels_choose();
    assert_non_null(k);
    assert_true(k->matvec && k->group_sums && k->unpack && k->matmul && k->mix && k->to_f32 && k->from_f32);
    assert_true(k->rms_norm && k->gated && k->max && k->exp_sum && k->int8);
}

/* Where a table has wider floats than its base, the base's int16 products would be a step back. */
static void test_int16_is_not_inherited_beside_f32(void **state) {
    (void)state;
    for
        EACH(i, tables) {
            kernels complete = kernels_complete(tables[i]);
            if (tables[i]->f32 && !tables[i]->int16) assert_null(complete.int16);
            if (tables[i]->int16) assert_true(complete.int16 == tables[i]->int16);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ON_EACH_TABLE(test_affine_matvec),
        ON_EACH_TABLE(test_many_groups),
        ON_EACH_TABLE(test_short_rows),
        ON_EACH_TABLE(test_affine_panels),
        ON_EACH_TABLE(test_largest_sums),
        ON_EACH_TABLE(test_plain),
        ON_EACH_TABLE(test_not_finite),
        cmocka_unit_test(test_tables_are_complete),
        cmocka_unit_test(test_int16_is_not_inherited_beside_f32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
