/* kernels/neon/dotprod.c - integer products for ARM processors with dot products (2018 and later;
 * Apple's from M1 on). Everything else is the NEON table's. */
#include "engine/cpu/kernels/neon/int.h"

const kernels kernels_neon_dotprod = {
    .name = "dotprod",
    .supported = neon_has_dotprod,
    .base = &kernels_neon,
    .of = {[MATRIX_AFFINE] = {.int16 = &int16_products, .int8 = &int8_products}},
};
