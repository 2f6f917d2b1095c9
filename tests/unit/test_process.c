/* test_process.c - child processes: what they get, how they end, and what is said of it.
 */
#include "base/base.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const int64_t MINUTE = 60000000000;

/* A shell that does what the text says. */
static pid_t start(const char *text, int in, int out, int channel) {
    const char *const arguments[] = {"sh", "-c", text, NULL};
    const process_spec spec = {
        .program = "/bin/sh", .arguments = arguments, .in = in, .out = out, .err = -1, .channel = channel};
    pid_t pid = process_start(&spec);
    assert_true(pid > 0);
    return pid;
}

static void assert_reason(const char *text, const char *expected) {
    str why = {0};
    int status;
    assert_true(process_ended(start(text, -1, -1, -1), MINUTE, &status));
    process_put_reason(&why, status);
    assert_string_equal(why.data, expected);
    str_free(&why);
}

static void test_reasons(void **state) {
    (void)state;
    assert_reason("exit 0", "ended with exit code 0");
    assert_reason("exit 3", "ended with exit code 3");
    assert_reason("kill -SEGV $$", "killed by signal 11 (SIGSEGV)");
    assert_reason("kill -KILL $$", "killed by signal 9 (SIGKILL)");
    assert_reason("kill -ABRT $$", "killed by signal 6 (SIGABRT)");
    assert_reason("read line && exit 1; exit 7", "ended with exit code 7"); /* its input is empty */
}

static void test_what_cannot_be_started(void **state) {
    (void)state;
    const char *const arguments[] = {"nonesuch", NULL};
    const process_spec spec = {.program = "/nonesuch/program",
                               .arguments = arguments,
                               .in = -1,
                               .out = -1,
                               .err = -1,
                               .channel = -1};
    assert_int_equal(process_start(&spec), -1);
    assert_non_null(strstr(error_message(), "/nonesuch/program: No such file"));
}

static void test_waiting_and_killing(void **state) {
    (void)state;
    int status;
    pid_t pid = start("exec sleep 1000", -1, -1, -1);
    assert_false(process_ended(pid, 0, &status));
    assert_false(process_ended(pid, 20000000, &status));
    process_kill(pid);
    assert_int_equal(kill(pid, 0), -1);
    assert_true(process_ended(pid, 0, &status)); /* nobody to wait for */
}

/* Input, output and the channel, whichever numbers they have here. */
static void test_descriptors(void **state) {
    (void)state;
    for (int n_taken = 0; n_taken < 6; n_taken++) {
        int ends[2], taken[6], status;
        char text[64] = "";
        for (int i = 0; i < n_taken; i++) taken[i] = dup(0);
        int in = process_file("from a file\n", strlen("from a file\n")), out = process_file("", 0);
        assert_true(in >= 0 && out >= 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        pid_t pid = start("read line; echo \"$line\"; read line <&3; echo \"<$line>\" >&3", in, out, ends[1]);
        close(ends[1]);
        assert_int_equal(write(ends[0], "hello\n", 6), 6);
        ssize_t n = read(ends[0], text, sizeof text - 1);
        assert_int_equal(n, 8);
        assert_string_equal(text, "<hello>\n");
        assert_true(process_ended(pid, MINUTE, &status) && !status);
        assert_int_equal(read(ends[0], text, sizeof text), 0); /* nobody else has the other end */
        lseek(out, 0, SEEK_SET);
        memset(text, 0, sizeof text);
        assert_int_equal(read(out, text, sizeof text - 1), 12);
        assert_string_equal(text, "from a file\n");
        close(ends[0]);
        close(in);
        close(out);
        for (int i = 0; i < n_taken; i++) close(taken[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_what_cannot_be_started),
        cmocka_unit_test(test_waiting_and_killing),
        cmocka_unit_test(test_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
