/* test_series.c - how many runs a configuration gets: warm until two runs agree, measured until the
 * median is known well enough or its time is over; and what is foreseen meanwhile.
 */
#include "bench/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const bench_options automatic = {.warmup = -1, .precision = 0.01, .time_limit_ns = 120000000000};

/* A run of 10 prompt tokens and 11 generated ones, with so many nanoseconds each. */
static void add_run(series *s, const bench_options *o, int64_t prompt_ns, int64_t token_ns) {
    int64_t times[11];
    for (int i = 0; i < 11; i++) times[i] = 1000 + 10 * prompt_ns + i * token_ns;
    sample run = {.n_sequences = 1, .n_prompt = 10, .n_tokens = 11, .start_ns = 1000, .token_ns = times};
    assert_int_equal(series_add(s, o, &run, 10 * prompt_ns + 10 * token_ns), 0);
}

/* How many unmeasured runs there are before these: nanoseconds per prompt token and per generated
 * one. */
static int64_t warm_runs(const int64_t runs[][2], int n) {
    series s = {0};
    series_begin(&s, &automatic);
    assert_int_equal(s.expected, 2 + REPEATS_LEAST);
    for (int i = 0; i < n && !s.warm; i++) add_run(&s, &automatic, runs[i][0], runs[i][1]);
    assert_true(s.warm && s.settled);
    assert_int_equal(s.n, 0);
    int64_t n_warm = s.n_warm;
    series_free(&s);
    return n_warm;
}

static void test_warm_once_two_runs_agree(void **state) {
    (void)state;
    static const int64_t alike[][2] = {{300, 900}, {301, 901}},
                         faster[][2] = {{300, 900}, {200, 700}, {201, 650}, {199, 651}};
    assert_int_equal(warm_runs(alike, 2), 2);
    assert_int_equal(warm_runs(faster, 4), 4);
}

/* Where runs differ by more than 2 % in both directions, that is noise. */
static void test_warm_on_a_noisy_machine(void **state) {
    (void)state;
    static const int64_t runs[][2] = {{300, 900}, {200, 500}, {210, 490}, {200, 530}};
    assert_int_equal(warm_runs(runs, 4), 4);
}

static void test_never_warm(void **state) {
    (void)state;
    series s = {0};
    series_begin(&s, &automatic);
    for (int i = 0; i < WARMUP_MOST; i++) {
        assert_false(s.warm);
        add_run(&s, &automatic, 1000 << i, 1000);
    }
    assert_true(s.warm);
    series_free(&s);
}

static void test_fixed_numbers(void **state) {
    (void)state;
    bench_options o = {.warmup = 1, .repeats = 2};
    series s = {0};
    series_begin(&s, &o);
    for (int i = 0; i < 3; i++) {
        assert_false(s.done);
        assert_int_equal(series_runs_left(&s, &o), 3 - i);
        add_run(&s, &o, 100 << i, 100);
    }
    assert_true(s.done && s.n == 2 && s.n_warm == 1);
    assert_int_equal(series_runs_left(&s, &o), 0);
    series_free(&s);
    o.warmup = 0;
    series_begin(&s, &o);
    assert_true(s.warm);
    series_free(&s);
}

/* Alternates between two speeds, for as long as asked; how many runs it took. */
static int64_t run_all(const bench_options *o, int64_t one, int64_t other) {
    series s = {.warm = true};
    for (int64_t i = 0; !s.done; i++) {
        if (s.n >= REPEATS_LEAST) assert_true(series_runs_left(&s, o) >= 1);
        add_run(&s, o, 1000000, i % 2 ? one : other);
    }
    int64_t n = s.n;
    series_free(&s);
    return n;
}

static void test_until_precise(void **state) {
    (void)state;
    assert_int_equal(run_all(&automatic, 1000000, 1000000), REPEATS_LEAST);
    assert_int_equal(run_all(&automatic, 1000000, 1005000), REPEATS_LEAST);
    bench_options o = automatic;
    o.time_limit_ns = 1; /* six runs in any case, since fewer have no interval */
    assert_int_equal(run_all(&o, 1000000, 2000000), REPEATS_LEAST);
    o.time_limit_ns = 1000000000; /* 20 to 30 ms a run */
    assert_int_equal(run_all(&o, 1000000, 2000000), 40);
}

/* With an even spread of p % the interval's width falls with the root of n, and so does what is
 * foreseen. */
static void test_runs_left_are_foreseen(void **state) {
    (void)state;
    series s = {.warm = true};
    uint64_t seed = 1;
    while (s.n < 50) add_run(&s, &automatic, 1000000, 1000000 + (int64_t)(random_next(&seed) % 100000));
    int64_t foreseen = s.n + series_runs_left(&s, &automatic);
    while (!s.done) add_run(&s, &automatic, 1000000, 1000000 + (int64_t)(random_next(&seed) % 100000));
    if (s.n < foreseen / 3 || s.n > 3 * foreseen)
        fail_msg("%lld runs where %lld were foreseen", (long long)s.n, (long long)foreseen);
    assert_true(series_width(&s, 1) <= 0.01);
    series_free(&s);
}

/* Run after run until the time is over; each belongs to the tenth in which it began. */
static void test_duration(void **state) {
    (void)state;
    bench_options o = {.duration_ns = 1000, .repeats = 1};
    series s = {.warm = true};
    assert_int_equal(series_runs_left(&s, &o), 1);
    for (int64_t spent = 0; spent < 1000; spent += 70) {
        assert_false(s.done);
        add_run(&s, &o, 3, 4);
        assert_int_equal(s.window, 1 + spent / 101);
    }
    assert_true(s.done);
    assert_int_equal(s.n, 15);
    series_free(&s);
    s = (series){.warm = true};
    add_run(&s, &o, 3, 4);
    assert_int_equal(series_runs_left(&s, &o), 14); /* 930 of 70 each */
    series_free(&s);
    s = (series){.warm = true};
    add_run(&s, &o, 300, 400); /* longer than all the time, and not cut */
    assert_true(s.done && s.window == 1);
    series_free(&s);
}

/* One token has no speed of generation: the prompt's decides alone. */
static void test_one_token(void **state) {
    (void)state;
    series s = {0};
    series_begin(&s, &automatic);
    int64_t time = 2000;
    sample run = {.n_sequences = 1, .n_prompt = 10, .n_tokens = 1, .start_ns = 1000, .token_ns = &time};
    while (!s.done) assert_int_equal(series_add(&s, &automatic, &run, 1000), 0);
    assert_int_equal(s.n_warm, 2);
    assert_int_equal(s.n, REPEATS_LEAST);
    series_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_warm_once_two_runs_agree),
        cmocka_unit_test(test_warm_on_a_noisy_machine),
        cmocka_unit_test(test_never_warm),
        cmocka_unit_test(test_fixed_numbers),
        cmocka_unit_test(test_until_precise),
        cmocka_unit_test(test_runs_left_are_foreseen),
        cmocka_unit_test(test_duration),
        cmocka_unit_test(test_one_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
