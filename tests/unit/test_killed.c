/* test_killed.c - how the end of a process becomes the error of its configuration: killed since
 * memory ran out, or by someone. tests/cli/test_memory_kill.py lets the system do it. */
#include "bench/child.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* waitpid's status of a shell that ran this. */
static int status_of(const char *command) {
    const char *arguments[] = {"sh", "-c", command, NULL};
    process_spec spec = {
        .program = "/bin/sh", .arguments = arguments, .in = -1, .out = -1, .err = -1, .channel = -1};
    int status = 0;
    pid_t pid = process_start(&spec);
    assert_true(pid > 0);
    assert_true(process_ended(pid, 10000000000, &status));
    return status;
}

static void assert_end(const char *command, int64_t memory_kills, bool memory, const char *message) {
    assert_int_equal(fail_process(status_of(command), memory_kills), -1);
    assert_int_equal(error_is_memory(), memory);
    assert_string_equal(error_message(), message);
    error_clear();
}

/* memory_kills is what was counted before: one less than now, or as many. */
static void test_ends(void **state) {
    (void)state;
    static const char killed[] = "the process was killed by signal 9 (SIGKILL)",
                      by_system[] = "the process was killed by signal 9 (SIGKILL), as the system does when "
                                    "memory runs out";
    int64_t now = sys_memory_kills();
    assert_end("kill -KILL $$", now - 1, true, by_system); /* or -1, where nothing is counted */
    assert_end("kill -KILL $$", now, now < 0, now < 0 ? by_system : killed);
    assert_end("kill -SEGV $$", now - 1, false, "the process was killed by signal 11 (SIGSEGV)");
    assert_end("exit 137", now - 1, false, "the process ended with exit code 137");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
