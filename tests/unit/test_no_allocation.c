/* test_no_allocation.c - once warm, a token of a whole model allocates nothing, and does not call
 * the system. This program's own malloc and its relatives count and call glibc's; a filter stops
 * system calls. */
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

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* A model that has just said WARM tokens. */
typedef struct warm {
    checkpoint *c;
    engine *e;
    model *m;
    session *s;
} warm;

/* PROMPT + WARM tokens are below a size at which attention splits its keys, the last ones above
 * it. */
static warm warm_up(int threads, int64_t kv_bits) {
    warm w = {.c = checkpoint_open("synthetic:tiny-llama-13m-4bit", 0),
              .e = engine_open("cpu", &(engine_options){.threads = threads})};
    assert_true(w.c && w.e);
    w.m = model_load(w.c, w.e);
    assert_non_null(w.m);
    session_spec spec = {.options = {.prefill_step_size = 128, .kv_bits = kv_bits, .kv_group_size = 64},
                         .capacity = PROMPT + WARM + TOKENS};
    int32_t prompt[PROMPT] = {0}, id;
    w.s = session_new(w.m, w.e, &spec);
    assert_non_null(w.s);
    assert_int_equal(session_prefill(w.s, prompt, PROMPT), 0);
    for (int i = 0; i < WARM; i++) assert_int_equal(session_step(w.s, &id), 0);
    return w;
}

static void check_allocations(int threads, int64_t kv_bits) {
    warm w = warm_up(threads, kv_bits);
    int32_t id;
    long before = allocations;
    assert_true(before > 0); /* they are counted */
    for (int i = 0; i < TOKENS; i++) assert_int_equal(session_step(w.s, &id), 0);
    assert_int_equal(allocations - before, 0);
    session_free(w.s);
    model_free(w.m);
    engine_close(w.e);
    checkpoint_close(w.c);
}

static void test_allocations(void **state) {
    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        check_allocations(threads, 0);
        check_allocations(threads, 4);
    }
}

/* ---- system calls ---- */

enum { CALLED = 100, NO_FILTER, WRONG };

static void called(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    char text[] = "system call 000\n";
    for (int i = 14, n = info->si_syscall; i > 11; i--, n /= 10) text[i] = (char)('0' + n % 10);
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(WRONG);
    _exit(CALLED);
}

#define ALLOW(call)                                                                                          \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* From now on every thread that calls the system ends the process by way of called(), except to end
 * it, to write there, and, if there are threads to wait for, to give a core away. */
static bool filter_calls(bool waits) {
    long wait1 = waits ? SYS_futex : SYS_exit_group, wait2 = waits ? SYS_sched_yield : SYS_exit_group;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW((unsigned)wait1),
        ALLOW((unsigned)wait2),
        ALLOW(SYS_exit_group),
        ALLOW(SYS_write),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    struct sigaction action = {.sa_sigaction = called, .sa_flags = SA_SIGINFO};
    return !sigaction(SIGSYS, &action, NULL) && !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
           !syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}

/* In a process of its own, which cannot get rid of the filter. too: it also calls the system, as a
 * check. */
static int status_of_tokens(int threads, bool too) {
    pid_t child = fork();
    if (child == 0) {
        warm w = warm_up(threads, 0);
        int32_t id;
        if (!filter_calls(threads > 1)) _exit(NO_FILTER);
        for (int i = 0; i < TOKENS; i++)
            if (session_step(w.s, &id)) _exit(WRONG);
        if (too) syscall(SYS_getppid);
        _exit(0);
    }
    int status = 0;
    assert_true(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_system_calls(void **state) {
    (void)state;
    int status = status_of_tokens(1, true);
    if (status == NO_FILTER) {
        puts("skipped: this system has no filters for system calls");
        skip();
    }
    assert_int_equal(status, CALLED);
    assert_int_equal(status_of_tokens(1, false), 0);
    assert_int_equal(status_of_tokens(2, false), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_allocations),
                                       cmocka_unit_test(test_system_calls)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void) {
    puts("skipped: only glibc without a sanitizer lets a program count its allocations");
    return 0;
}
#endif
