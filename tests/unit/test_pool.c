/* test_pool.c - the thread pool: every thread runs, barriers order memory, and shared work is done
 * once. Many short rounds, so that threads meet while spinning and while sleeping; meant for
 * ThreadSanitizer, too.
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

/* Items [first, end) of a round are this thread's to do. */
static void mark(context *c, int thread, int64_t first, int64_t end) {
    c->wrong[thread] += first < 0 || end > ITEMS || end <= first;
    for (int64_t i = first; i >= 0 && i < end && i < ITEMS; i++) c->done[i]++;
}

/* Every thread looks at a part of the items: each was done once. */
static void check_done(context *c, int thread) {
    int64_t share = ITEMS / pool_size(c->pool) + 1;
    pool_barrier(c->pool, thread);
    for (int64_t i = thread * share; i < (thread + 1) * share && i < ITEMS; i++) {
        c->wrong[thread] += c->done[i] != 1;
        c->done[i] = 0;
    }
    pool_barrier(c->pool, thread);
}

static void share(void *argument, int thread) {
    context *c = argument;
    for (int round = 0; round < ROUNDS; round++) {
        int64_t first, end;
        while (pool_take(&c->taken[round], ITEMS, c->step, &first, &end)) {
            c->wrong[thread] += end - first > c->step;
            mark(c, thread, first, end);
        }
        check_done(c, thread);
    }
}

/* Two rounds without a meeting between them: a thread may be in the second while others are in the
 * first, and some come late, so that all they have is taken by others. */
static void share_own(void *argument, int thread) {
    context *c = argument;
    for (int round = 0; round < ROUNDS; round++) {
        int64_t half = ITEMS / 2, from[] = {0, half}, n[] = {half, ITEMS - half};
        if (thread == round % (2 * pool_size(c->pool)) && round % 8 == 0)
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
        for (int i = 0; i < 2; i++) {
            unsigned number = pool_round(c->pool, thread);
            pool_part p = {0};
            int64_t last = -1;
            while (pool_take_part(c->pool, thread, number, n[i], c->step, false, &p)) {
                c->wrong[thread] += p.first < p.own_first || p.end > p.own_end || p.first <= last;
                last = p.first;
                mark(c, thread, from[i] + p.first, from[i] + p.end);
            }
            while (pool_take_part(c->pool, thread, number, n[i], c->step, true, &p))
                mark(c, thread, from[i] + p.first, from[i] + p.end);
        }
        check_done(c, thread);
    }
}

static void check_take(pool *p) {
    static const int64_t steps[] = {1, 7, 64, ITEMS, 3 * ITEMS};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        context c = {.pool = p, .step = steps[i]};
        pool_run(p, share, &c);
        pool_run(p, share_own, &c);
        for (int t = 0; t < pool_size(p); t++) assert_int_equal(c.wrong[t], 0);
    }
}

static void test_take(void **state) {
    (void)state;
    on_each_size(check_take);
    atomic_long counter = 0;
    int64_t first = 0, end = 0;
    assert_false(pool_take(&counter, 0, 4, &first, &end));
}

/* Of 100 items thread 1 of two has 50 to 99; the other never comes. */
static void take_alone(void *argument, int thread) {
    static const int64_t own[][2] = {{50, 75}, {75, 87}, {87, 97}, {97, 100}};
    static const int64_t others[][2] = {{38, 50}, {28, 38}, {18, 28}, {8, 18}, {0, 8}};
    context *c = argument;
    pool_part p;
    unsigned number = pool_round(c->pool, thread);
    if (!thread) return;
    for (int i = 0; i < 4; i++)
        c->wrong[1] += !pool_take_part(c->pool, 1, number, 100, 10, false, &p) || p.first != own[i][0] ||
                       p.end != own[i][1] || p.own_first != 50 || p.own_end != 100;
    c->wrong[1] += pool_take_part(c->pool, 1, number, 100, 10, false, &p);
    for (int i = 0; i < 5; i++)
        c->wrong[1] += !pool_take_part(c->pool, 1, number, 100, 10, true, &p) || p.first != others[i][0] ||
                       p.end != others[i][1] || p.own_first != 0 || p.own_end != 50;
    c->wrong[1] += pool_take_part(c->pool, 1, number, 100, 10, true, &p);
    c->runs[1]++;
}

static void test_parts(void **state) {
    (void)state;
    pool *p = pool_new(2, true, NULL, 0);
    context c = {.pool = p};
    pool_run(p, take_alone, &c);
    assert_true(c.runs[1] == 1 && c.wrong[1] == 0);
    pool_free(p);
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
        cmocka_unit_test(test_runs),     cmocka_unit_test(test_sleep), cmocka_unit_test(test_barrier),
        cmocka_unit_test(test_take),     cmocka_unit_test(test_parts), cmocka_unit_test(test_lifetime),
        cmocka_unit_test(test_affinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
