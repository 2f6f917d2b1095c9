/* test_pool.c - the thread pool: every thread runs, barriers order memory, and shared work is done once.
 * Many short rounds, so that threads meet while spinning and while sleeping; meant for ThreadSanitizer, too.
 */
#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>

enum { MAX_THREADS = 8, ROUNDS = 100, ITEMS = 1000 };

static const int sizes[] = {1, 2, 3, MAX_THREADS};

/* Each check gets a pool of each size. */
static void on_each_size(void (*check)(pool *p)) {
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pool *p = pool_new(sizes[i], i % 2, NULL, 0);
        assert_non_null(p);
        assert_int_equal(pool_size(p), sizes[i]);
        check(p);
        pool_free(p);
    }
}

/* Plain variables: only the pool's own ordering makes these right. */
typedef struct context {
    pool *pool;
    int runs[MAX_THREADS];
    int values[MAX_THREADS];
    int wrong[MAX_THREADS];
    unsigned char done[ITEMS];
    atomic_long taken[ROUNDS];
    int64_t step;
} context;

static void count_run(void *argument, int thread) {
    ((context *)argument)->runs[thread]++;
}

static void check_runs(pool *p) {
    context c = {.pool = p};
    for (int i = 0; i < ROUNDS; i++) {
        pool_run(p, count_run, &c);
        for (int t = 0; t < pool_size(p); t++) assert_int_equal(c.runs[t], i + 1);
    }
    for (int t = pool_size(p); t < MAX_THREADS; t++) assert_int_equal(c.runs[t], 0);
}

static void test_runs(void **state) {
    (void)state;
    on_each_size(check_runs);
}

/* Workers that went to sleep come back. */
static void check_sleep(pool *p) {
    context c = {.pool = p};
    for (int i = 0; i < 5; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
        pool_run(p, count_run, &c);
    }
    for (int t = 0; t < pool_size(p); t++) assert_int_equal(c.runs[t], 5);
}

static void test_sleep(void **state) {
    (void)state;
    on_each_size(check_sleep);
}

/* Writes its own value, meets the others, and reads theirs. */
static void exchange(void *argument, int thread) {
    context *c = argument;
    int n = pool_size(c->pool);
    for (int round = 1; round <= ROUNDS; round++) {
        c->values[thread] = round * 100 + thread;
        if (thread == round % n && round % 20 == 0) /* one comes late: the others fall asleep */
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        pool_barrier(c->pool, thread);
        for (int t = 0; t < n; t++) c->wrong[thread] += c->values[t] != round * 100 + t;
        pool_barrier(c->pool, thread); /* no one overwrites what another still reads */
    }
}

static void check_barrier(pool *p) {
    context c = {.pool = p};
    for (int i = 0; i < 3; i++) pool_run(p, exchange, &c);
    for (int t = 0; t < pool_size(p); t++) assert_int_equal(c.wrong[t], 0);
}

static void test_barrier(void **state) {
    (void)state;
    on_each_size(check_barrier);
}

/* Every other round in pieces that shrink. */
static bool take(context *c, int round, int64_t *first, int64_t *end) {
    atomic_long *counter = &c->taken[round];
    if (round % 2) return pool_take_guided(counter, ITEMS, c->step, 3, first, end);
    return pool_take(counter, ITEMS, c->step, first, end);
}

static void share(void *argument, int thread) {
    context *c = argument;
    for (int round = 0; round < ROUNDS; round++) {
        int64_t first, end, most = round % 2 ? pool_piece(ITEMS, c->step, 3) : c->step;
        while (take(c, round, &first, &end)) {
            c->wrong[thread] += first < 0 || end > ITEMS || end <= first || end - first > most;
            for (int64_t i = first; i < end; i++) c->done[i]++;
        }
        pool_barrier(c->pool, thread);
        int64_t share = ITEMS / pool_size(c->pool) + 1; /* a part of the items for each thread to check */
        for (int64_t i = thread * share; i < (thread + 1) * share && i < ITEMS; i++) {
            c->wrong[thread] += c->done[i] != 1;
            c->done[i] = 0;
        }
        pool_barrier(c->pool, thread);
    }
}

static void check_take(pool *p) {
    static const int64_t steps[] = {1, 7, 64, ITEMS, 3 * ITEMS};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        context c = {.pool = p, .step = steps[i]};
        pool_run(p, share, &c);
        for (int t = 0; t < pool_size(p); t++) assert_int_equal(c.wrong[t], 0);
    }
}

static void test_take(void **state) {
    (void)state;
    on_each_size(check_take);
    atomic_long counter = 0;
    int64_t first = 0, end = 0;
    assert_false(pool_take(&counter, 0, 4, &first, &end));
    assert_false(pool_take_guided(&counter, 0, 4, 3, &first, &end));
    counter = 0;
    assert_true(pool_take_guided(&counter, 100, 4, 3, &first, &end));
    assert_true(first == 0 && end == 32); /* a third of 100, in fours */
    assert_true(pool_take_guided(&counter, 100, 80, 3, &first, &end));
    assert_true(first == 32 && end == 100);
}

/* Pools come and go: also ones that never ran, and two side by side. */
static void test_lifetime(void **state) {
    (void)state;
    for (int i = 0; i < 50; i++) {
        pool *a = pool_new(3, true, NULL, 0), *b = pool_new(2, false, NULL, 0);
        assert_true(a && b);
        context c = {.pool = a}, d = {.pool = b};
        if (i % 2) {
            pool_run(a, count_run, &c);
            pool_run(b, count_run, &d);
            assert_true(c.runs[2] == 1 && d.runs[1] == 1 && d.runs[2] == 0);
        }
        pool_free(a);
        pool_free(b);
    }
    pool_free(NULL);
}

#ifdef __linux__
static void note_cpus(void *argument, int thread) {
    cpu_set_t set;
    assert_int_equal(pthread_getaffinity_np(pthread_self(), sizeof set, &set), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set)) ((context *)argument)->values[thread] = cpu;
    ((context *)argument)->runs[thread] = CPU_COUNT(&set);
}

/* Each thread stays on the CPU it was given, and the caller is free again afterwards. */
static void test_affinity(void **state) {
    (void)state;
    cpu_set_t before, after;
    int cpus[2] = {-1, -1}, n = 0, most = CPU_SETSIZE;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    for (int cpu = 0; cpu < most && n < 2; cpu++)
        if (CPU_ISSET(cpu, &before)) cpus[n++] = cpu;
    pool *p = pool_new(3, false, cpus, n);
    assert_non_null(p);
    context c = {.pool = p};
    pool_run(p, note_cpus, &c);
    for (int t = 0; t < 3; t++) {
        assert_int_equal(c.runs[t], 1);
        assert_int_equal(c.values[t], cpus[t % n]);
    }
    pool_free(p);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
    assert_null(pool_new(2, true, (const int[]){most}, 1));
    assert_non_null(strstr(error_message(), "CPU"));
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
}
#else
static void test_affinity(void **state) {
    (void)state;
    assert_null(pool_new(2, true, (const int[]){0}, 1));
    assert_non_null(strstr(error_message(), "Linux"));
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs), cmocka_unit_test(test_sleep),    cmocka_unit_test(test_barrier),
        cmocka_unit_test(test_take), cmocka_unit_test(test_lifetime), cmocka_unit_test(test_affinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
