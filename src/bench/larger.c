/* larger.c - after one size ran out of memory, larger ones of the same sweep are not tried: they
 * would fail as well, and on some systems end other programs.
 */
#include "bench/internal.h"

static bool is_size(int i) {
    return i == PARAM_n_prompt || i == PARAM_depth || i == PARAM_batch || i == PARAM_max_kv_size;
}

/* The number that a parameter has; without a limit it is the largest. */
static int64_t size_of(const params *p, int i) {
    int64_t n;
    memcpy(&n, (const char *)p + param_table[i].offset, sizeof n);
    return param_table[i].kind == KIND_OPTIONAL && !n ? INT64_MAX : n;
}

static bool same_value(const params *a, const params *b, int i) {
    const char *x, *y;
    if (!param_is_text(&param_table[i])) return size_of(a, i) == size_of(b, i);
    memcpy(&x, (const char *)a + param_table[i].offset, sizeof x);
    memcpy(&y, (const char *)b + param_table[i].offset, sizeof y);
    return x && y ? !strcmp(x, y) : x == y;
}

/* Is b the same as a, but for sizes, of which none is smaller? */
static bool is_larger(const params *a, const params *b) {
    for (int i = 0; i < N_PARAMS; i++)
        if (is_size(i) ? size_of(b, i) < size_of(a, i) : !same_value(a, b, i)) return false;
    return true;
}

void larger_note(bench *b, const series *s) {
    size_t n = (size_t)b->n_too_large;
    if (!error_is_memory() || mem_resize((void **)&b->too_large, n + 1, sizeof *b->too_large, "a list"))
        return;
    b->too_large[b->n_too_large++] = (too_large){s->params, s->program, s->configuration};
}

int larger_check(const bench *b, const series *s) {
    for (int64_t i = 0; i < b->n_too_large; i++) {
        const too_large *t = &b->too_large[i];
        if (t->program == s->program && is_larger(&t->params, &s->params))
            return fail("left out: configuration %lld, which is not larger, ran out of memory",
                        (long long)t->configuration);
    }
    return 0;
}
