/* test_no_allocation.c - once warm, a token of a whole model allocates nothing.
 * This program's own malloc and its relatives count and call glibc's. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#if defined(__GLIBC__) && !defined(SANITIZED)
#include "generate/generate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { PROMPT = 460, WARM = 10, TOKENS = 100 };

static atomic_long allocations;

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

void *malloc(size_t n) {
    allocations++;
    return __libc_malloc(n);
}

void *calloc(size_t count, size_t n) {
    allocations++;
    return __libc_calloc(count, n);
}

void *realloc(void *p, size_t n) {
    allocations++;
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t alignment, size_t n) {
    allocations++;
    return __libc_memalign(alignment, n);
}

/* PROMPT + WARM tokens are below a size at which attention splits its keys, the last ones above it. */
static void check(int threads, int64_t kv_bits) {
    checkpoint *c = checkpoint_open("synthetic:tiny-llama-13m-4bit", 0);
    engine *e = engine_open("cpu", &(engine_options){.threads = threads});
    assert_true(c && e);
    model *m = model_load(c, e);
    assert_non_null(m);
    generate_options how = {.prefill_step_size = 128, .kv_bits = kv_bits, .kv_group_size = 64};
    int32_t prompt[PROMPT] = {0}, id;
    session *s = session_new(m, e, &how, prompt, PROMPT, WARM + TOKENS);
    assert_non_null(s);
    for (int i = 0; i < WARM; i++) assert_int_equal(session_next(s, &id), 1);
    long before = allocations;
    assert_true(before > 0); /* they are counted */
    for (int i = 0; i < TOKENS; i++) assert_int_equal(session_next(s, &id), 1);
    assert_int_equal(allocations - before, 0);
    session_free(s);
    model_free(m);
    engine_close(e);
    checkpoint_close(c);
}

static void test_tokens(void **state) {
    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        check(threads, 0);
        check(threads, 4);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tokens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void) {
    puts("skipped: only glibc without a sanitizer lets a program count its allocations");
    return 0;
}
#endif
