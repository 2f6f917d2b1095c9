/* test_mac_release.c - how file_map_release gives memory back where the system has
 * MADV_FREE_REUSABLE, as macOS: that first, and MADV_DONTNEED where it is refused. The system's
 * calls are recorded. */
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

enum { REUSABLE = 4711 };
static struct {
    void *start;
    size_t size;
    int advice;
} calls[4];
static int n_calls, refused;

static int recorded_madvise(void *start, size_t size, int advice) {
    calls[n_calls].start = start;
    calls[n_calls].size = size;
    calls[n_calls++].advice = advice;
    return advice == REUSABLE && refused ? -1 : 0;
}

#define MADV_FREE_REUSABLE REUSABLE
#define madvise            recorded_madvise
#include "base/file.c" /* the file itself, with these */

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h> /* last: it has a `fail` of its own */

static void whole_pages_are_reusable(void **state) {
    (void)state;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    n_calls = refused = 0;
    file_map_release((void *)(10 * page + 1), 3 * page);
    assert_int_equal(n_calls, 1);
    assert_int_equal(calls[0].advice, REUSABLE);
    assert_ptr_equal(calls[0].start, (void *)(11 * page));
    assert_int_equal(calls[0].size, 2 * page);
    file_map_release((void *)(10 * page + 1), page); /* no whole page */
    assert_int_equal(n_calls, 1);
}

static void a_file_is_dropped(void **state) {
    (void)state;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    n_calls = 0, refused = 1;
    file_map_release((void *)(10 * page), page);
    assert_int_equal(n_calls, 2);
    assert_int_equal(calls[1].advice, MADV_DONTNEED);
    assert_int_equal(calls[1].size, page);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_pages_are_reusable),
        cmocka_unit_test(a_file_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
