/* kernel_tables.h - runs checks on every kernel table that this processor supports, with plain
 * references. Arrays have exactly the size the kernels may touch, so that a sanitizer sees what
 * reads or writes too far.
 *
 * Tolerances of sums: each F32 operation is off by at most 2^-24 of its result. The errors of n
 * terms in any order are nearly independent and grow like sqrt(n), so (16 + sqrt(n)) 2^-24 of the
 * sum of the terms' magnitudes covers them, and is still far below 1 / n of it: one wrong term is
 * seen. */
#ifndef TESTS_KERNEL_TABLES_H
#define TESTS_KERNEL_TABLES_H

#include "engine/cpu/kernels/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNT(array)   (sizeof(array) / sizeof *(array))
#define EACH(i, array) (size_t i = 0; i < COUNT(array); i++)

static const dtype float_types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
static const float mark = -12345.5f; /* in memory that must stay as it is */
static const kernels *tested;        /* the table under test, completed by its base */

static uint32_t seed = 1;

static inline float uniform(void) { /* [-1, 1) */
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / 8388608.0f - 1;
}

static inline void *get_memory(size_t n) {
    void *memory = malloc(n ? n : 1);
    assert_non_null(memory);
    return memory;
}

static inline float *get_floats(int64_t n) { /* random */
    float *x = get_memory((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = uniform();
    return x;
}

static inline float *get_marks(int64_t n) {
    float *x = get_memory((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = mark;
    return x;
}

static inline double sum_tolerance(int64_t n, double magnitude) {
    return (16 + sqrt((double)n)) * 0x1p-24 * magnitude;
}

static inline void check_near(double found, double wanted, double tolerance, const char *what, int64_t i) {
    bool equal = (isnan(found) && isnan(wanted)) || found == wanted || fabs(found - wanted) <= tolerance;
    if (!equal)
        fail_msg("%s: %s: element %lld is %.9g, wants %.9g +- %.3g", tested->name, what, (long long)i, found,
                 wanted, tolerance);
}

/* The kinds that hold small floating-point numbers. */
static const matrix_kind fp_kinds[] = {MATRIX_MXFP4, MATRIX_MXFP8, MATRIX_NVFP4};

/* A random scale of one byte: 2^-3 to 1, or numbers near them. */
static inline uint8_t random_scale(matrix_kind kind) {
    return (uint8_t)(kind == MATRIX_NVFP4 ? 0x20 + (uniform() + 1) * 12 : 124 + (uniform() + 1) * 2);
}

static inline float stored_scale(matrix_kind kind, uint8_t scale) {
    return kind == MATRIX_NVFP4 ? e4m3_to_f32(scale) : e8m0_to_f32(scale);
}

/* Number i of packed ones. */
static inline float fp_number(matrix_kind kind, const void *packed, int64_t i) {
    const uint8_t *bytes = packed;
    return kind == MATRIX_MXFP8 ? e4m3_to_f32(bytes[i]) : e2m1_to_f32(bytes[i / 2] >> i % 2 * 4);
}

static const kernels *const tables[] = {
#if defined(__x86_64__)
    &kernels_avx512amx, &kernels_avx512vnni, &kernels_avx512, &kernels_avx2,
#elif defined(__aarch64__)
    &kernels_neon_i8mm,
    &kernels_neon_dotprod,
    &kernels_neon,
#endif
    &kernels_scalar,
};

/* Runs a check on every table, or on the one that MLXBENCH_CPU names. */
static inline void on_each_table(void **state) {
    void (*check)(void) = *(void (**)(void)) * state;
    const char *only = getenv("MLXBENCH_CPU");
    for
        EACH(i, tables) {
            static kernels complete; /* outlives this call, as `tested` does */
            complete = kernels_complete(tables[i]);
            tested = &complete;
            if (only && strcmp(only, tested->name)) continue;
            if (tested->supported())
                check();
            else
                print_message("%s: skipped, this processor cannot run it\n", tested->name);
        }
}

#define ON_EACH_TABLE(test)                                                                                  \
    {                                                                                                        \
        .name = #test, .test_func = on_each_table, .initial_state = &(void (*)(void)) {                      \
            test                                                                                             \
        }                                                                                                    \
    }

#endif
