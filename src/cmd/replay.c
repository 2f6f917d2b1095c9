/* replay.c - `mlxbench replay FILE`: runs kept results again, from what their rows say of them, and
 * compares: are the same tokens generated, and at which speed?
 */
#include "bench/bench.h"
#include "cmd/cmd.h"
#include "cmd/common.h"
#include "cmd/fetch.h"
#include "cmd/gate.h"
#include "report/report.h"

#include <stdio.h>

static const option_usage usage = {
    .synopsis = "mlxbench replay FILE [options]",
    .about =
        "Runs the configurations of a result file again: with the parameters, the seed, the prompt and the "
        "settings of MLX that its rows have. Says which versions differ, whether the prompt and the "
        "generated "
        "tokens are the same, and compares the speeds as mlxbench compare does. Ends with exit code 3 "
        "when the same prompt gives other tokens.",
    .example = "mlxbench replay result.json\nis what someone measured the same here?",
};

typedef struct command {
    option_texts files, outputs;
    const char *model; /* another place of it; NULL: as in the file */
    int64_t repeats, only;
    bool offline;
    report_options report;
    gate gate;
    results before, after;
    reports *to;
    int64_t configuration; /* at hand */
    int n_other;           /* configurations that gave other tokens */
    str said, given;       /* about versions and tokens; the command */
} command;

/* ---- what to run ---- */

static int64_t number_of(const row *r) {
    return r->cells[COLUMN_configuration].number;
}

static bool succeeded(const row *r) {
    return r->cells[COLUMN_error].kind != VALUE_TEXT;
}

/* Leaves the runs that are to be replayed. */
static int choose(command *c) {
    results *r = &c->before;
    int64_t n = 0;
    for (int64_t i = 0; i < r->n; i++)
        if (succeeded(&r->runs[i]) && (!c->only || number_of(&r->runs[i]) == c->only))
            r->runs[n++] = r->runs[i];
    r->n = n;
    r->sweep = (sweep){0};
    return n ? results_complete(r) : fail("%s has no configuration to replay", c->files.items[0]);
}

/* Is this the first run of its configuration? */
static bool is_first(const command *c, int64_t i) {
    for (int64_t k = 0; k < i; k++)
        if (number_of(&c->before.runs[k]) == number_of(&c->before.runs[i])) return false;
    return true;
}

static int64_t count_runs(const command *c, const row *of) {
    int64_t n = 0;
    for (int64_t i = 0; i < c->before.n; i++) n += number_of(&c->before.runs[i]) == number_of(of);
    return n;
}

/* A value as an element of an option's list. */
static const char *as_list(arena *memory, int i, value v) {
    str text = {0};
    if (v.kind == VALUE_NONE)
        return param_table[i].kind == KIND_OPTIONAL ? "none" : param_table[i].default_list;
    if (v.kind == VALUE_TEXT)
        for (const char *c = v.text; *c; c++) str_printf(&text, *c == ',' ? "\\%c" : "%c", *c);
    else
        value_put(&text, v, 0, "");
    const char *kept = text.failed ? NULL : arena_string(memory, text.data ? text.data : "");
    str_free(&text);
    return kept;
}

static int make_plan(const command *c, const row *r, arena *memory, plan *out) {
    const char *lists[N_PARAMS];
    for (int i = 0; i < N_PARAMS; i++) {
        value v = r->cells[COLUMN_FIRST_PARAM + i];
        if (i == PARAM_model && c->model) v = (value){.kind = VALUE_TEXT, .text = c->model};
        if (!(lists[i] = as_list(memory, i, v))) return -1;
    }
    return plan_parse(out, lists) || plan_check(out) ? -1 : 0;
}

/* The variables of MLX, which it reads once: they must be the same in all rows. */
static int set_mlx_env(const command *c, arena *memory) {
    const row *first = &c->before.runs[0];
    option_texts given = {0};
    for (int64_t i = 0; i < c->before.n; i++) {
        if (!value_equal(first->cells[COLUMN_mlx_env], c->before.runs[i].cells[COLUMN_mlx_env]))
            return fail_usage(
                "the configurations have several mlx_env, which MLX reads once: replay one at a time "
                "(--configuration)");
    }
    value v = first->cells[COLUMN_mlx_env];
    char *text = v.kind == VALUE_TEXT ? arena_string(memory, v.text) : NULL, *rest = NULL;
    for (char *word = text ? strtok_r(text, " ", &rest) : NULL; word && given.n < OPTION_MAX_TEXTS;
         word = strtok_r(NULL, " ", &rest))
        given.items[given.n++] = word;
    return mlx_env_set(&given);
}

/* ---- running ---- */

static int write_row(void *context, const row *r) {
    command *c = context;
    row numbered = *r;
    numbered.cells[COLUMN_configuration].number = c->configuration;
    if (r->kind == ROW_RUN && results_add(&c->after, &numbered)) return -1;
    return c->to ? reports_row(c->to, &numbered) : 0;
}

static int run_again(command *c, const row *r) {
    value prompt = r->cells[COLUMN_prompt_text], seed = r->cells[COLUMN_seed];
    const char *text = prompt.kind == VALUE_TEXT ? prompt.text : DEFAULT_PROMPT;
    bench_options o = {.command = c->given.data,
                       .prompt = text,
                       .prompt_length = strlen(text),
                       .prompt_given = prompt.kind == VALUE_TEXT,
                       .repeats = c->repeats ? c->repeats : count_runs(c, r),
                       .warmup = -1,
                       .precision = 0.01,
                       .time_limit_ns = 120000000000,
                       .given_order = true,
                       .seed = seed.kind == VALUE_NUMBER ? (uint64_t)seed.number : 0,
                       .last_run = c->after.n,
                       .find_model = fetch_found};
    plan p = {0};
    str path = {0};
    arena *memory = arena_new();
    c->configuration = number_of(r);
    int failed = !memory || make_plan(c, r, memory, &p) ||
                 fetch_model(p.values[PARAM_model][0].text, HUB_MODEL, c->offline, &path) ||
                 bench_run(&p, &o, write_row, c);
    str_free(&path);
    plan_free(&p);
    arena_free(memory);
    return failed ? -1 : 0;
}

/* ---- comparing ---- */

static const int what_may_differ[] = {
    COLUMN_mlxbench_version, COLUMN_engine_version, COLUMN_device, COLUMN_hw_model, COLUMN_os,
    COLUMN_quantization};

static void compare_tokens(command *c, const row *before, const row *after) {
    bool same_prompt = value_equal(before->cells[COLUMN_prompt_hash], after->cells[COLUMN_prompt_hash]),
         same_ids = value_equal(before->cells[COLUMN_ids_hash], after->cells[COLUMN_ids_hash]);
    str_printf(&c->said, "configuration %lld: ", (long long)number_of(before));
    if (!same_prompt)
        str_puts(&c->said, "the prompt is not the same, so tokens can't be compared");
    else
        str_puts(&c->said,
                 same_ids ? "the same prompt gave the same tokens" : "the same prompt gave OTHER tokens");
    c->n_other += same_prompt && !same_ids;
    for (size_t i = 0; i < sizeof what_may_differ / sizeof *what_may_differ; i++) {
        value a = before->cells[what_may_differ[i]], b = after->cells[what_may_differ[i]];
        if (value_equal(a, b)) continue;
        str_printf(&c->said, "; %s: ", column_table[what_may_differ[i]].name);
        value_put(&c->said, a, 0, "unknown");
        str_puts(&c->said, " before, ");
        value_put(&c->said, b, 0, "unknown");
        str_puts(&c->said, " now");
    }
    str_puts(&c->said, "\n");
}

static int compare_all(command *c) {
    comparison found = {0};
    for (int64_t i = 0; i < c->before.n; i++)
        for (int64_t k = 0; is_first(c, i) && k < c->after.n; k++)
            if (succeeded(&c->after.runs[k]) &&
                number_of(&c->after.runs[k]) == number_of(&c->before.runs[i])) {
                compare_tokens(c, &c->before.runs[i], &c->after.runs[k]);
                break;
            }
    int failed = results_complete(&c->after) || results_compare(&found, &c->before, &c->after);
    if (!failed) {
        gate_add(&c->gate, &found);
        failed = report_comparison(&c->said, "text", c->files.items[0], "this run", &found, true);
        report_comparison_end(&c->said, "text");
    }
    comparison_free(&found);
    if (failed || c->said.failed) return -1;
    bool taken = c->to && reports_own_stdout(c->to);
    fwrite(c->said.data, 1, c->said.length, taken ? stderr : stdout);
    if (c->n_other)
        return fail_gate("%d configuration%s gave other tokens than in %s", c->n_other,
                         c->n_other > 1 ? "s" : "", c->files.items[0]);
    return gate_result(&c->gate);
}

static int replay(command *c) {
    arena *memory = arena_new();
    if (c->files.n != 1) return fail_usage("replay needs one result file; see mlxbench replay --help");
    c->report.inputs = c->files.items;
    c->report.n_inputs = 1;
    int failed = !memory || gate_parse(&c->gate) || results_read(&c->before, c->files.items[0]) ||
                 choose(c) || set_mlx_env(c, memory);
    if (!failed && c->outputs.n) failed = !(c->to = reports_open(&c->outputs, &c->report, &c->before.sweep));
    for (int64_t i = 0; i < c->before.n && !failed; i++)
        if (is_first(c, i)) failed = run_again(c, &c->before.runs[i]);
    if (!failed) failed = compare_all(c);
    if (c->to && reports_close(c->to)) failed = -1;
    arena_free(memory);
    return failed ? -1 : 0;
}

int cmd_replay(int argc, char **argv) {
    command c = {0};
    str help = {0};
    report_output_help(&help);
    const option options[] = {
        {.metavar = "FILE",
         .kind = OPTION_TEXTS,
         .value = &c.files,
         .help = "a result file: share, csv, json, jsonl, sql or sqlite"},
        {.name = "configuration",
         .metavar = "N",
         .kind = OPTION_NUMBER,
         .value = &c.only,
         .min = 1,
         .max = INT64_MAX,
         .help = "only the configuration with this number"},
        {.name = "repeats",
         .short_name = "r",
         .metavar = "N",
         .kind = OPTION_NUMBER,
         .value = &c.repeats,
         .min = 1,
         .max = 1000000,
         .help = "measured runs of each (as many as FILE has)"},
        {.name = "model",
         .short_name = "m",
         .metavar = "NAME",
         .kind = OPTION_TEXT,
         .value = &c.model,
         .help = "where the model is here, if not where FILE says"},
        {.name = "fail-slower",
         .metavar = "PERCENT",
         .kind = OPTION_TEXT,
         .value = &c.gate.fail_slower,
         .help = FAIL_SLOWER_HELP},
        {.name = "output",
         .short_name = "o",
         .metavar = "FORMAT[:FILE]",
         .kind = OPTION_TEXTS,
         .value = &c.outputs,
         .help = "write the new rows, too, as bench does"},
        {.name = "force",
         .kind = OPTION_FLAG,
         .value = &c.report.force,
         .help = "replace result files that are there"},
        {.name = "offline", .kind = OPTION_FLAG, .value = &c.offline, .help = OFFLINE_HELP},
    };
    int done =
        help.failed ? -1 : options_parse(options, sizeof options / sizeof *options, &usage, argc, argv);
    put_command(&c.given, argc, argv);
    if (!done) done = c.given.failed ? -1 : replay(&c);
    results_free(&c.before);
    results_free(&c.after);
    str_free(&c.said);
    str_free(&c.given);
    str_free(&help);
    return done < 0 ? -1 : 0;
}
