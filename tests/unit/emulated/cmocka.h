/* cmocka.h - the little of cmocka that the CPU engine's tests use, for builds without libraries:
 * those that an emulator runs (cmake/emulated.cmake). The first failure ends the program. */
#ifndef TESTS_EMULATED_CMOCKA_H
#define TESTS_EMULATED_CMOCKA_H

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*test_func)(void **state);
    void *initial_state;
};

#define cmocka_unit_test(function)                                                                           \
    { .name = #function, .test_func = function }
#define cmocka_run_group_tests(tests, setup, teardown)                                                       \
    run_tests(tests, sizeof(tests) / sizeof *(tests), setup, teardown)

static jmp_buf after_test; /* where skip() leads: the next test */
#define skip() longjmp(after_test, 1)

static inline int run_tests(const struct CMUnitTest *tests, size_t n, const void *setup,
                            const void *teardown) {
    if (setup || teardown) abort(); /* no test here has one */
    for (size_t i = 0; i < n; i++) {
        void *state = tests[i].initial_state;
        printf("%s\n", tests[i].name);
        fflush(stdout);
        if (!setjmp(after_test)) tests[i].test_func(&state);
    }
    return 0;
}

#define print_message printf
#define fail_msg(...)                                                                                        \
    do {                                                                                                     \
        printf("%s:%d: ", __FILE__, __LINE__);                                                               \
        printf(__VA_ARGS__);                                                                                 \
        printf("\n");                                                                                        \
        exit(1);                                                                                             \
    } while (0)
#define assert_true(condition)                                                                               \
    do {                                                                                                     \
        if (!(condition)) fail_msg("not so: %s", #condition);                                                \
    } while (0)
#define assert_false(condition)      assert_true(!(condition))
#define assert_null(pointer)         assert_true(!(pointer))
#define assert_non_null(pointer)     assert_true(pointer)
#define assert_int_equal(a, b)       assert_true((a) == (b))
#define assert_int_not_equal(a, b)   assert_true((a) != (b))
#define assert_string_equal(a, b)    assert_true(!strcmp(a, b))
#define assert_memory_equal(a, b, n) assert_true(!memcmp(a, b, n))

#endif
