/* run.c - the plan's run: models one after another, configurations in turn, what fails left out
 * with a row that says why, and whether the machine was still the same at the end.
 */
#include "bench/child.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Gives the configuration that failed its row, so that the next one can follow. -1 when none may:
 * after Ctrl-C, without an output, and when the command is one that the only model can't run at
 * all. */
static int leave_out(bench *b, series *s) {
    int code = error_exit_code();
    bool only = b->plan->n_values[PARAM_model] == 1 && b->plan->n_values[PARAM_engine] == 1;
    s->done = true;
    if (b->stopped || code == EXIT_INTERRUPTED || (only && b->model_refused)) return -1;
    snprintf(b->error, sizeof b->error, "%s", error_message());
    larger_note(b, s);
    b->n_failed++;
    b->n_refused += code == EXIT_USAGE;
    b->n_gated += code == EXIT_GATE;
    progress_expect(&b->progress, &s->params, -s->expected);
    if (rows_error(b, s, b->error)) return -1;
    if (b->plan->n > 1 && b->load_failures < 2)
        progress_note(&b->progress, "run %lld failed: %s", (long long)b->n_rows, b->error);
    if (b->engine_failed) loaded_free(&b->loaded); /* an engine in an unknown state */
    b->engine_failed = b->not_finite = false;
    error_clear();
    return 0;
}

/* The error of a plan that was run to its end. */
static int report_failures(const bench *b) {
    long long n = b->plan->n * (b->options->programs ? 2 : 1) - b->n_equal;
    int (*refuse)(const char *format, ...) = b->n_refused == n           ? fail_usage
                                             : b->n_gated == b->n_failed ? fail_gate
                                                                         : fail;
    if (!b->n_failed) return 0;
    if (n == 1) return refuse("%s", b->error);
    if (!b->n_measured) return refuse("nothing was measured: all %lld configurations failed", n);
    return refuse("%lld of %lld configurations failed; column error of their rows says why",
                  (long long)b->n_failed, n);
}

/* ---- configurations in turn ---- */

enum {
    MOST_IN_TURN = 1000, /* configurations; what is known of each takes memory */
    RUNS_WITH_DEPTH = 4, /* in one turn, as each turn fills the caches again */
};

/* Configurations that take turns: from plan[first], all of one model, and of one engine unless
 * engines are compared. */
static int64_t count_in_turn(const bench *b, int64_t first) {
    const params p = plan_params(b->plan, first);
    int64_t n = 1;
    if (bench_in_given_order(b->options)) return 1;
    for (; n < MOST_IN_TURN && first + n < b->plan->n; n++) {
        params other = plan_params(b->plan, first + n);
        if (b->together ? strcmp(p.model, other.model) : !same_model(&p, &other)) break;
    }
    return n;
}

/* Prepares a series and gives it its number: 1 when it is equal to an earlier one, -1 when it can't
 * run. */
static int begin_one(bench *b, series *s) {
    prepared found = {0};
    params before = plan_params(b->plan, s->index ? s->index - 1 : 0);
    bool other_model = s->index == 0 || !same_model(&before, &s->params);
    if (other_model) b->load_failures = b->model_refused = 0;
    int failed = s->by_program ? 0 : prepare(b, s, other_model, &found);
    series_begin(s, b->options);
    if (!failed && found.equal) {
        b->n_equal++;
        progress_expect(&b->progress, &s->params, -s->expected);
        return 1;
    }
    if (!failed) failed = s->by_program ? program_resume(b, s) : resume_series(b, s, &found.what);
    progress_expect(&b->progress, &s->params, series_runs_left(s, b->options) - s->expected);
    s->expected = series_runs_left(s, b->options);
    if (!s->configuration) s->configuration = ++b->configuration;
    b->n_configurations++;
    return failed ? -1 : 0;
}

/* Makes the series of those that are not equal to others; those that can't run have their row
 * already. The model of plan[first - 1] is the one that is loaded. -1 when the plan ends here; *n
 * of all[] are valid then, too. */
static int begin_series(bench *b, int64_t first, int64_t n_planned, series *all, int64_t *n) {
    const bench_programs *programs = b->options->programs;
    int sides = programs ? 2 : 1;
    for (int64_t i = 0; i < n_planned * sides; i++) {
        series *s = &all[*n];
        int64_t index = first + i / sides;
        *s = (series){.params = plan_params(b->plan, index), .index = index, .by_program = programs != NULL};
        if (i % sides) s->program = programs->other_name;
        int status = begin_one(b, s);
        if (status > 0) continue;
        ++*n;
        if (status && leave_out(b, s)) return -1;
    }
    return 0;
}

/* Fisher and Yates' shuffle. */
static void shuffle(bench *b, series **items, int64_t n) {
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t k = (int64_t)(random_next(&b->order) % (uint64_t)(i + 1));
        series *other = items[k];
        items[k] = items[i];
        items[i] = other;
    }
}

/* A turn is short, so that turns alternate often; but what each of them begins with takes time. */
static int64_t runs_in_turn(const bench *b, const series *s, bool alone) {
    int64_t repeats = b->options->repeats ? b->options->repeats : REPEATS_LEAST;
    if (s->by_program) return repeats < 6 ? 1 : repeats < 12 ? 2 : RUNS_WITH_DEPTH;
    return alone ? INT64_MAX - s->n : s->params.depth ? RUNS_WITH_DEPTH : 1;
}

/* A turn of each series that is not done, in random order; alone, it may have all its turns at
 * once. The rows of configurations follow in the plan's order, each when all before it are done. */
static int take_turns(bench *b, series *all, int64_t n) {
    series **waiting = mem_new((size_t)n + 1, sizeof *waiting, "the configurations");
    int stopped = waiting ? 0 : -1;
    for (int64_t shown = 0, left = 1; !stopped && left;) {
        left = 0;
        for (int64_t i = shown; i < n; i++)
            if (!all[i].done) waiting[left++] = &all[i];
        shuffle(b, waiting, left);
        for (int64_t i = 0; i < left && !stopped; i++) {
            series *s = waiting[i];
            if (larger_check(b, s) || trial_turn(b, s, runs_in_turn(b, s, left == 1)))
                stopped = leave_out(b, s);
            for (; !stopped && shown < n && all[shown].done; shown++) stopped = rows_summary(b, &all[shown]);
        }
    }
    free(waiting);
    return stopped;
}

/* What --repeats auto could not reach in its time. */
static void note_imprecise(bench *b, const series *s) {
    static const char *const names[N_SPEEDS] = {"prompt_tps", "generation_tps"};
    for (int i = 0; i < N_SPEEDS && !b->options->repeats && !b->options->duration_ns; i++) {
        double width = series_width(s, i);
        if (width > b->options->precision)
            progress_note(
                &b->progress,
                "configuration %lld: after %lld runs the interval of %s is %.2g %% wide, not %.2g %%; a "
                "longer --time-limit makes it narrower",
                (long long)s->configuration, (long long)s->n, names[i], 100 * width,
                100 * b->options->precision);
    }
}

static int run_in_turn(bench *b, int64_t first, int64_t n_planned, series *first_of_all) {
    series *all = mem_new(2 * (size_t)n_planned, sizeof *all, "the configurations"); /* with two programs */
    int64_t n = 0;
    if (!all) return -1;
    int stopped = begin_series(b, first, n_planned, all, &n);
    if (!stopped) stopped = take_turns(b, all, n);
    for (int64_t i = 0; i < n; i++) {
        stopped = rows_summary(b, &all[i]) || stopped ? -1 : 0;
        if (!stopped) note_imprecise(b, &all[i]);
        if (!first && !i && !stopped) { /* its speeds are needed at the end */
            *first_of_all = all[i];
            all[i] = (series){0};
        }
        series_free(&all[i]);
    }
    free(all);
    return stopped;
}

/* ---- at the end ---- */

enum { RUNS_AGAIN = 3 };

/* Is a speed of the first configuration, measured again, another one than before? Then it lies
 * outside its interval, and that is no chance; what is less than the precision does not matter. */
static void note_drift(bench *b, const series *s, const double *again) {
    static const char *const names[N_SPEEDS] = {"prompt", "generation"};
    for (int i = 0; i < N_SPEEDS; i++) {
        double now[RUNS_AGAIN];
        double *before = mem_new((size_t)s->n, sizeof *before, "the speeds");
        if (!before) return;
        memcpy(now, again + i * RUNS_AGAIN, sizeof now);
        memcpy(before, s->speeds[i], (size_t)s->n * sizeof *before);
        double p = mann_whitney(before, s->n, now, RUNS_AGAIN);
        spread old = spread_of(before, s->n), new = spread_of(now, RUNS_AGAIN);
        free(before);
        double change = fabs(new.median / old.median - 1);
        bool inside = new.median >= old.low &&new.median <= old.high;
        if (!(p < 0.05) || inside || change < b->options->precision) continue;
        progress_note(
            &b->progress,
            "the machine changed meanwhile: the first configuration, measured again at the end, has %.1f %% "
            "%s %s speed than before (%d runs, p = %.3f)",
            100 * change, new.median < old.median ? "less" : "more", names[i], RUNS_AGAIN, p);
    }
}

/* Measures the first configuration again, if there were others and its interval is known. It may
 * fail where it did not before: then that is said, and the results stay. */
static int measure_drift(bench *b, const series *s) {
    double again[N_SPEEDS * RUNS_AGAIN];
    if (s->by_program || s->n < REPEATS_LEAST || b->n_configurations < 2 || !b->n_measured ||
        b->options->duration_ns)
        return 0;
    b->load_failures = 0;
    if (trial_again(b, s, RUNS_AGAIN, again)) {
        if (error_exit_code() == EXIT_INTERRUPTED) return -1;
        progress_note(&b->progress, "the first configuration could not be measured again: %s",
                      error_message());
        error_clear();
        return 0;
    }
    note_drift(b, s, again);
    return 0;
}

int bench_run(const plan *p, const bench_options *o, int (*on_row)(void *context, const row *r),
              void *context) {
    bench b = {.plan = p, .options = o, .on_row = on_row, .context = context, .order = ~o->seed};
    series first = {0};
    int stopped = 0;
    if (o->child) stopped = places_open(&b);
    b.n_rows = o->last_run;
    b.configuration = o->last_configuration;
    sys_hardware(&b.hardware);
    sys_hardware_id(b.hw_model, sizeof b.hw_model, &b.hardware);
    progress_begin(&b.progress, p, o);
    progress_start(&b.progress, p);
    if (!stopped) stopped = resume_runs(&b);
    for (int64_t i = 0, n; i < p->n && !stopped; i += n) {
        n = count_in_turn(&b, i);
        stopped = run_in_turn(&b, i, n, &first);
    }
    if (!stopped) stopped = measure_drift(&b, &first);
    series_free(&first);
    stopped = resume_rest(&b) || stopped;
    progress_end(&b.progress, b.n_measured, b.n_failed);
    places_close(&b);
    loaded_free(&b.loaded);
    str_free(&b.quality.reasons);
    free(b.fastest_mhz);
    free(b.too_large);
    return stopped ? -1 : report_failures(&b);
}
