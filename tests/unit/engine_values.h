/* engine_values.h - values and weights for tests of an engine: small, random, and known to the
 * test, too. A graph's only way in is embed, so an input is an embedding table whose rows are
 * looked up in order. */
#ifndef TESTS_ENGINE_VALUES_H
#define TESTS_ENGINE_VALUES_H

#include "engine/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static uint32_t seed = 1;

static inline float uniform(void) { /* [-1, 1) */
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / 8388608.0f - 1;
}

static inline engine *open_cpu(int threads) {
    engine *e = engine_open("cpu", &(engine_options){.threads = threads});
    if (!e) fail_msg("%s", error_message());
    return e;
}

/* A plain F32 weight [a], [a, b] or [a, b, c] (0: no such dimension) with random values, which stay
 * in *values until the caller frees them. */
static inline const weight *new_weight(engine *e, int64_t a, int64_t b, int64_t c, float **values) {
    int64_t n = a * (b ? b : 1) * (c ? c : 1);
    float *x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) x[i] = uniform();
    weight_source s = {.name = "w", .m = {.rank = c ? 3 : b ? 2 : 1, .shape = {a, b, c}}};
    s.m.values = (array){.dtype = DTYPE_F32, .rank = s.m.rank, .shape = {a, b, c}, .data = x};
    const weight *w = engine_weight(e, &s);
    assert_non_null(w);
    *values = x;
    return w;
}

/* Rows [first, first + n) of w, through embed. */
static inline tensor rows_of(graph *g, const weight *w, int64_t first, int64_t n) {
    int32_t ids[1024];
    assert_true(n <= 1024);
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)(first + i);
    return embed(g, tokens(g, ids, n), w);
}

/* Ends the graph with one output of count elements. */
static inline void finish(graph *g, tensor x, void *out, int64_t count) {
    result *r;
    if (graph_end(g, 1, &x, &r)) fail_msg("%s", error_message());
    assert_int_equal(result_read(r, out, count), 0);
    result_free(r);
}

static inline void check_close(const float *found, const double *wanted, int64_t n, double tolerance) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(found[i] - wanted[i]) <= tolerance))
            fail_msg("element %lld is %.9g, wants %.9g", (long long)i, found[i], wanted[i]);
}

#endif
