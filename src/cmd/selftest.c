/* selftest.c - `mlxbench selftest`: can this machine tell small differences, and what keeps it from
 * that? The clock, what the program itself costs per token, the same thing measured twice, and the
 * machine's set-up.
 */
#include "bench/bench.h"
#include "cmd/cmd.h"
#include "cmd/fetch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const option_usage usage = {
    .synopsis = "mlxbench selftest [options]",
    .about = "Measures how well this machine can measure: the clock, what mlxbench costs per token, and the "
             "noise floor - "
             "one configuration measured as if it were two, in turn. Below it, no difference can be seen. "
             "What in the "
             "machine's set-up disturbs is named, with what to do.",
    .example = "mlxbench selftest -m mlx-community/Qwen3-4B-4bit\nthe noise floor with a model of one's own",
};

enum { SIDES = 2, MOST_RUNS = 1000 };

static const int compared[] = {COLUMN_prompt_tps, COLUMN_generation_tps, COLUMN_ttft_ms};
enum { N_COMPARED_HERE = sizeof compared / sizeof *compared };

/* The numbers of a plan's rows: of each metric and configuration. */
typedef struct collected {
    int64_t n[SIDES];
    double x[N_COMPARED_HERE][SIDES][MOST_RUNS];
    double itl_p50_ms; /* of the last run */
    char engine[64];
} collected;

static int collect(void *context, const row *r) {
    collected *c = context;
    int64_t side = r->cells[COLUMN_configuration].number - 1;
    if (r->kind != ROW_RUN || r->cells[COLUMN_error].kind == VALUE_TEXT) return 0;
    if (side < 0 || side >= SIDES || c->n[side] >= MOST_RUNS) return 0;
    for (int i = 0; i < N_COMPARED_HERE; i++) {
        value v = r->cells[compared[i]];
        c->x[i][side][c->n[side]] = v.kind == VALUE_REAL ? v.real : NAN;
    }
    value name = r->cells[COLUMN_engine], device = r->cells[COLUMN_device];
    snprintf(c->engine, sizeof c->engine, "%.20s (%.30s)", name.kind == VALUE_TEXT ? name.text : "",
             device.kind == VALUE_TEXT ? device.text : "");
    if (r->cells[COLUMN_itl_p50_ms].kind == VALUE_REAL) c->itl_p50_ms = r->cells[COLUMN_itl_p50_ms].real;
    c->n[side]++;
    return 0;
}

/* What is measured. */
typedef struct work {
    const char *model, *engine;
    int64_t n_prompt, n_generate, repeats;
    int sides; /* equal configurations */
} work;

static int measure(const work *w, collected *out) {
    const char *lists[N_PARAMS];
    char n_prompt[64], n_generate[32];
    plan p;
    long long n = w->n_prompt;
    snprintf(n_prompt, sizeof n_prompt, w->sides > 1 ? "%lld,%lld" : "%lld", n, n);
    snprintf(n_generate, sizeof n_generate, "%lld", (long long)w->n_generate);
    for (int i = 0; i < N_PARAMS; i++) lists[i] = param_table[i].default_list;
    lists[PARAM_model] = w->model;
    lists[PARAM_engine] = w->engine;
    lists[PARAM_n_prompt] = n_prompt;
    lists[PARAM_n_generate] = n_generate;
    lists[PARAM_prompt_source] = "random";
    bench_options o = {.repeats = w->repeats, .warmup = -1, .precision = 1, .find_model = fetch_found};
    int failed = plan_parse(&p, lists) || plan_check(&p) || bench_run(&p, &o, collect, out);
    plan_free(&p);
    return failed ? -1 : 0;
}

/* ---- the parts ---- */

/* The smallest step that the clock makes, and what a look at it costs. */
static void test_clock(void) {
    enum { LOOKS = 100000 };
    int64_t start = clock_ns(), before = start, step = INT64_MAX;
    for (int i = 0; i < LOOKS; i++) {
        int64_t now = clock_ns();
        if (now > before && now - before < step) step = now - before;
        before = now;
    }
    printf("clock: a look takes %.0f ns", (double)(before - start) / LOOKS);
    if (step < INT64_MAX) printf(", the smallest step is %lld ns", (long long)step);
    puts("");
}

/* On an engine that computes nothing, all time is the program's own. */
static int test_cost(collected *c) {
    const work w = {"synthetic:tiny-llama-13m-4bit", "fake", 16, 500, 1, 1};
    if (measure(&w, c)) return -1;
    printf("mlxbench: %.1f us per token of a model with 6 layers, on an engine that computes nothing\n",
           1000 * c->itl_p50_ms);
    return 0;
}

/* How large a difference is likely between two sides that are the same: the farther end of its 95 %
 * interval.
 */
static void put_floor(const collected *c, int i) {
    double x[SIDES][MOST_RUNS];
    for (int s = 0; s < SIDES; s++)
        for (int64_t k = 0; k < c->n[s]; k++) x[s][k] = log(c->x[i][s][k]);
    shift apart = shift_of(x[0], c->n[0], x[1], c->n[1]);
    double p = mann_whitney(x[0], c->n[0], x[1], c->n[1]);
    spread all = spread_of(x[0], c->n[0]);
    double floor = 100 * fmax(expm1(fabs(apart.low)), expm1(fabs(apart.high)));
    printf("  %-15s %12.3f  A/A %+.2f %%, p = %.2f; ", column_table[compared[i]].name, exp(all.median),
           100 * expm1(apart.estimate), p);
    if (isfinite(floor))
        printf("a difference below %.2f %% is noise\n", floor);
    else
        puts("too few runs for a noise floor");
}

static int test_noise(const work *w, collected *c) {
    if (measure(w, c)) return -1;
    printf("noise: %s on %s, %lld prompt tokens, %lld generated, %lld + %lld runs in turn\n", w->model,
           c->engine, (long long)w->n_prompt, (long long)w->n_generate, (long long)c->n[0],
           (long long)c->n[1]);
    for (int i = 0; i < N_COMPARED_HERE; i++) put_floor(c, i);
    return 0;
}

/* A line for each reason: they are separated by "; ". */
static void put_quality(const sys_state *before) {
    sys_state now;
    quality q = {0};
    sys_watch(&now, true);
    quality_judge(&q, before, &now, (circumstances){.unoptimized = quality_is_unoptimized()});
    printf("machine: quality %c\n", q.grade);
    for (const char *reason = q.reasons.data; reason && *reason;) {
        const char *end = strstr(reason, "; ");
        printf("  %.*s\n", end ? (int)(end - reason) : (int)strlen(reason), reason);
        reason = end ? end + 2 : NULL;
    }
    str_free(&q.reasons);
}

static int run(const work *w, bool offline) {
    sys_state before;
    collected *c = mem_new(1, sizeof *c, "the runs");
    str path = {0};
    int failed = !c || fetch_model(w->model, HUB_MODEL, offline, &path);
    str_free(&path);
    sys_watch(&before, true);
    if (!failed) test_clock();
    if (!failed) failed = test_cost(c);
    if (!failed) memset(c, 0, sizeof *c);
    if (!failed) failed = test_noise(w, c);
    if (!failed) put_quality(&before);
    free(c);
    return failed ? -1 : 0;
}

int cmd_selftest(int argc, char **argv) {
    bool offline = false;
    work w = {"synthetic:tiny-llama-13m-4bit", "auto", 64, 64, 10, SIDES};
    const option options[] = {
        {.name = "model",
         .short_name = "m",
         .metavar = "NAME",
         .kind = OPTION_TEXT,
         .value = &w.model,
         .standard = w.model,
         .help = "what is measured twice"},
        {.name = "engine",
         .metavar = "NAME",
         .kind = OPTION_TEXT,
         .value = &w.engine,
         .standard = w.engine,
         .help = "what computes"},
        {.name = "n-prompt",
         .short_name = "np",
         .metavar = "N",
         .kind = OPTION_NUMBER,
         .value = &w.n_prompt,
         .min = 1,
         .max = 1000000,
         .standard = "64",
         .help = "tokens of the prompt"},
        {.name = "n-generate",
         .short_name = "n",
         .metavar = "N",
         .kind = OPTION_NUMBER,
         .value = &w.n_generate,
         .min = 1,
         .max = 1000000,
         .standard = "64",
         .help = "tokens to generate"},
        {.name = "repeats",
         .short_name = "r",
         .metavar = "N",
         .kind = OPTION_NUMBER,
         .value = &w.repeats,
         .min = 4,
         .max = MOST_RUNS,
         .standard = "10",
         .help = "runs of each side"},
        {.name = "offline", .kind = OPTION_FLAG, .value = &offline, .help = OFFLINE_HELP},
    };
    int done = options_parse(options, sizeof options / sizeof *options, &usage, argc, argv);
    if (!done) done = run(&w, offline);
    return done < 0 ? -1 : 0;
}
