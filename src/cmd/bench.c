/* bench.c - `mlxbench [bench]`: options to a plan, the plan's runs to reports.
 * The benchmark parameters' options come from results/params.def. */
#include "bench/bench.h"
#include "checkpoint/checkpoint.h"
#include "cmd/cmd.h"
#include "cmd/common.h"
#include "cmd/fetch.h"
#include "cmd/isolation.h"
#include "cmd/kept.h"
#include "cmd/units.h"
#include "cmd/verdict.h"
#include "cmd/windows.h"
#include "report/report.h"

#include <stdio.h>
#include <unistd.h>

typedef struct command {
    str models; /* --model, all times it was given; no data: never */
    const char *lists[N_PARAMS];
    option_texts mlx_env;
    const char *prompt; /* NULL: not given, as those below */
    const char *repeats, *warmup, *precision, *time_limit, *duration, *delay, *order, *quality, *resume,
        *progress;
    const char *isolate, *timeout, *ab_program;
    isolation isolation;
    bench_programs programs;
    const char *program_arguments[8];
    char seed_text[24];
    verdict verdict;
    option_texts outputs;
    report_options report;
    bool offline, history;
    bench_options bench;
    str prompt_text, output_help, kept, given;
    plan plan;
    results resumed;
} command;

static const option_usage usage = {
    .synopsis = "mlxbench [bench] [options]",
    .about =
        "Measures prompt and generation speed. Options with N,... take lists (512-4096*2 is a range, \\, a "
        "comma), --model several times, too: every combination is run, each model loaded once.",
    .example = "mlxbench -m synthetic:llama-3.2-1b-4bit -np 128,1024 -r 3 -o md -o csv:results.csv\n"
               "two prompt lengths, three runs each, a table to read and a file to keep",
    .command = "bench",
};

static int parse_options(command *c, int argc, char **argv) {
    const option other[] = {
        {.name = "prompt",
         .short_name = "p",
         .metavar = "TEXT",
         .kind = OPTION_TEXT,
         .value = &c->prompt,
         .standard = DEFAULT_PROMPT,
         .help = "text that is repeated and cut to n-prompt tokens" PROMPT_HELP},
        {.name = "repeats",
         .short_name = "r",
         .metavar = "N",
         .kind = OPTION_TEXT,
         .value = &c->repeats,
         .standard = "1",
         .help = "measured runs per configuration, or auto: until they agree"},
        {.name = "precision",
         .metavar = "PERCENT",
         .kind = OPTION_TEXT,
         .value = &c->precision,
         .standard = "1%",
         .rare = true,
         .help = "with --repeats auto: the 95 % interval of both median speeds shall not be wider"},
        {.name = "time-limit",
         .metavar = "TIME",
         .kind = OPTION_TEXT,
         .value = &c->time_limit,
         .standard = "2m",
         .rare = true,
         .help =
             "for a configuration: with --repeats auto after at least 6 runs, and with --require-quality"},
        {.name = "duration",
         .metavar = "TIME",
         .kind = OPTION_TEXT,
         .value = &c->duration,
         .rare = true,
         .help = "instead of --repeats: one configuration for so long, speed per tenth of it"},
        {.name = "warmup",
         .metavar = "N",
         .kind = OPTION_TEXT,
         .value = &c->warmup,
         .standard = "auto",
         .rare = true,
         .help = "unmeasured runs before them; auto: until speeds level off, at most 5"},
        {.name = "delay",
         .metavar = "TIME",
         .kind = OPTION_TEXT,
         .value = &c->delay,
         .standard = "0",
         .rare = true,
         .help = "to wait before each run, so that the machine cools down"},
        {.name = "order",
         .metavar = "KIND",
         .kind = OPTION_TEXT,
         .value = &c->order,
         .standard = "random",
         .rare = true,
         .help =
             "random: configurations with several repeats take turns, in an order that follows from --seed; "
             "given: one after another"},
        {.name = "require-quality",
         .metavar = "GRADE",
         .kind = OPTION_TEXT,
         .value = &c->quality,
         .rare = true,
         .help = "A to D: wait and measure again when a run's quality is worse, for --time-limit"},
        {.name = "isolate",
         .metavar = "WHAT",
         .kind = OPTION_TEXT,
         .value = &c->isolate,
         .rare = true,
         .help = "models: each runs in a process of its own, so that a crash ends nothing else; none "
                 "(models where there are several)"},
        {.name = "timeout",
         .metavar = "TIME",
         .kind = OPTION_TEXT,
         .value = &c->timeout,
         .rare = true,
         .help = "give up a configuration when loading its model or a run of it has no end after TIME; "
                 "implies --isolate models"},
        {.name = "ab-program",
         .metavar = "FILE",
         .kind = OPTION_TEXT,
         .value = &c->ab_program,
         .rare = true,
         .help = "another mlxbench, such as an older release: it and this one measure in turn, each turn a "
                 "process of its own, and are compared at the end"},
        {.name = "seed",
         .metavar = "N",
         .kind = OPTION_NUMBER,
         .value = &c->bench.seed,
         .max = ((int64_t)1 << 53) - 1, /* what a JSON number can say exactly */
         .standard = "0",
         .rare = true,
         .help = "for random prompts, synthetic weights and the random order"},
        mlx_env_option(&c->mlx_env),
        {.name = "output",
         .short_name = "o",
         .metavar = "FORMAT[:FILE]",
         .kind = OPTION_TEXTS,
         .value = &c->outputs,
         .help = c->output_help.data},
        {.name = "force",
         .kind = OPTION_FLAG,
         .value = &c->report.force,
         .rare = true,
         .help = "replace result files that are there, instead of adding to them"},
        {.name = "history",
         .kind = OPTION_FLAG,
         .value = &c->history,
         .rare = true,
         .help = "keep the runs, too, for mlxbench history (-o sqlite:FILE keeps them elsewhere)"},
        {.name = "resume",
         .metavar = "FILE",
         .kind = OPTION_TEXT,
         .value = &c->resume,
         .rare = true,
         .help = "measure what this result file lacks; -o may name it, too"},
        {.name = "against",
         .metavar = "FILE",
         .kind = OPTION_TEXT,
         .value = &c->verdict.against,
         .rare = true,
         .help = "compare with this result file at the end, as mlxbench compare does"},
        {.name = "fail-slower",
         .metavar = "PERCENT",
         .kind = OPTION_TEXT,
         .value = &c->verdict.gate.fail_slower,
         .rare = true,
         .help = "where speeds are compared: " FAIL_SLOWER_HELP},
        {.name = "progress",
         .metavar = "KIND",
         .kind = OPTION_TEXT,
         .value = &c->progress,
         .standard = "auto",
         .rare = true,
         .help = "auto: a line on a terminal; none; json: a line of JSON on stderr for each event"},
        {.name = "offline", .kind = OPTION_FLAG, .value = &c->offline, .rare = true, .help = OFFLINE_HELP},
        {.name = "verbose",
         .short_name = "v",
         .kind = OPTION_FLAG,
         .value = &c->bench.verbose,
         .rare = true,
         .help = "print the generated text to stderr"},
    };
    enum { N_OTHER = sizeof other / sizeof *other };
    option options[N_PARAMS + N_OTHER];
    for (int i = 0; i < N_PARAMS; i++) {
        options[i] = param_option(i);
        options[i].kind = i == PARAM_model ? OPTION_LIST : OPTION_TEXT;
        options[i].metavar = param_table[i].list_metavar;
        options[i].value = i == PARAM_model ? (void *)&c->models : (void *)&c->lists[i];
        options[i].standard = c->lists[i] = param_table[i].default_list;
    }
    memcpy(options + N_PARAMS, other, sizeof other);
    int status = options_parse(options, N_PARAMS + N_OTHER, &usage, argc, argv);
    if (c->models.data) c->lists[PARAM_model] = c->models.data;
    return status;
}

static int get_repeats(command *c) {
    bench_options *o = &c->bench;
    const char *order = c->order ? c->order : "random";
    o->given_order = !strcmp(order, "given");
    if (!o->given_order && strcmp(order, "random"))
        return fail_usage("--order: \"%s\" is not one of random,given", order);
    if (parse_auto(c->repeats, "--repeats", (auto_range){1, 1000000, 0}, &o->repeats) ||
        parse_auto(c->warmup, "--warmup", (auto_range){0, 1000, -1}, &o->warmup))
        return -1;
    if (c->quality && (strlen(c->quality) != 1 || !strchr("ABCD", *c->quality)))
        return fail_usage("--require-quality: \"%s\" is not one of A,B,C,D", c->quality);
    o->require_quality = c->quality ? *c->quality : '\0';
    if (parse_duration(c->duration, "--duration", &o->duration_ns)) return -1;
    if (c->duration && !o->duration_ns) return fail_usage("--duration: 0 is too short");
    if (c->duration && (c->repeats || c->quality || c->ab_program))
        return fail_usage(
            "--duration takes no %s: it measures one configuration for its time, whatever comes",
            c->repeats   ? "--repeats"
            : c->quality ? "--require-quality"
                         : "--ab-program");
    return parse_percent(c->precision, "--precision", &o->precision) ||
                   parse_duration(c->time_limit, "--time-limit", &o->time_limit_ns) ||
                   parse_duration(c->delay, "--delay", &o->delay_ns)
               ? -1
               : 0;
}

/* First of all, so that whatever goes wrong is told in the form that was asked for. */
static int get_progress(command *c) {
    const char *kind = c->progress ? c->progress : "auto";
    if (!strcmp(kind, "json")) {
        say_as_json();
        c->bench.progress = PROGRESS_JSON;
        return c->bench.verbose ? fail_usage("--progress json and --verbose: both write to stderr") : 0;
    }
    if (!strcmp(kind, "none"))
        c->bench.progress = PROGRESS_NONE;
    else if (strcmp(kind, "auto"))
        return fail_usage("--progress: \"%s\" is not one of auto,none,json", kind);
    return 0;
}

static int get_prompt(command *c) {
    c->bench.prompt_given = c->prompt != NULL;
    if (read_prompt_text(c->prompt ? c->prompt : DEFAULT_PROMPT, &c->prompt_text)) return -1;
    c->bench.prompt = c->prompt_text.data;
    c->bench.prompt_length = c->prompt_text.length;
    return 0;
}

/* The other program may know less: it gets what was asked for, and no more. */
static int get_programs(command *c) {
    bench_programs *out = &c->programs;
    const char *const others[][2] = {{"--prompt", c->prompt},
                                     {"--warmup", c->warmup},
                                     {"--delay", c->delay},
                                     {"--seed", c->bench.seed ? c->seed_text : NULL}};
    if (c->prompt && !strcmp(c->prompt, "-"))
        return fail_usage("--ab-program: the prompt cannot come from standard input; use --prompt @FILE");
    snprintf(c->seed_text, sizeof c->seed_text, "%lld", (long long)c->bench.seed);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (!others[i][1]) continue;
        c->program_arguments[out->n++] = others[i][0];
        c->program_arguments[out->n++] = others[i][1];
    }
    out->arguments = c->program_arguments;
    for (int i = 0; i < N_PARAMS; i++)
        out->given[i] = i == PARAM_model || c->lists[i] != param_table[i].default_list;
    c->bench.programs = out;
    return programs_get(&c->isolation, c->ab_program, c->timeout, out);
}

static int get_isolation(command *c) {
    if (c->ab_program) return get_programs(c);
    const plan *p = &c->plan;
    isolation_choice how = {.isolate = c->isolate,
                            .timeout = c->timeout,
                            .several = p->n_values[PARAM_model] > 1,
                            .prompt_given = c->prompt != NULL};
    for (int i = 0; i < p->n_values[PARAM_engine]; i++)
        how.modules |= strchr(p->values[PARAM_engine][i].text, '@') != NULL;
    return isolation_get(&c->isolation, how, &c->bench.child);
}

/* In a process that bench has started for a model. */
static int serve(command *c) {
    if (get_progress(c) || get_repeats(c) || plan_parse(&c->plan, c->lists) || mlx_env_set(&c->mlx_env) ||
        get_prompt(c))
        return -1;
    return bench_serve(&c->plan, &c->bench);
}

/* A preset that does not exist, and its like: wrong whatever else is given. What is wrong with a
 * model's files is an error of its configurations. */
static int check_synthetic(const char *path) {
    if (strncmp(path, "synthetic:", strlen("synthetic:"))) return 0;
    checkpoint *c = checkpoint_open(path, 0);
    if (!c && error_exit_code() == EXIT_USAGE) return -1;
    error_clear();
    checkpoint_close(c);
    return 0;
}

/* An engine that cannot be used here is an error of its configurations. Where models have processes
 * of their own, no engine is opened in this one. */
static int check_engines(const command *c) {
    const plan *p = &c->plan;
    for (int i = 0; i < p->n_values[PARAM_engine]; i++) {
        if (c->bench.child || c->bench.programs) {
            if (engine_check_name(p->values[PARAM_engine][i].text)) return -1;
            continue;
        }
        engine *e = engine_open(p->values[PARAM_engine][i].text, &(engine_options){.threads = 1});
        if (!e && error_exit_code() == EXIT_USAGE) return -1;
        error_clear();
        engine_close(e);
    }
    return 0;
}

/* Fetches what is not here before the first model is measured. *inputs gets the models' paths. A
 * model that is not there among others is an error of its configurations. */
static int find_models(const command *c, const char **inputs) {
    const plan *p = &c->plan;
    int n = p->n_values[PARAM_model], n_missing = 0;
    for (int i = 0; i < n; i++) {
        const char *name = p->values[PARAM_model][i].text;
        str path = {0};
        int missing = fetch_model(name, HUB_MODEL, c->offline, &path) || check_synthetic(path.data);
        inputs[i] = arena_string(p->memory, missing ? name : path.data);
        str_free(&path);
        if (!inputs[i] || error_exit_code() == EXIT_INTERRUPTED) return -1;
        n_missing += missing;
        if (missing && n_missing < n) error_clear(); /* loading it finds that again */
    }
    return n_missing == n ? -1 : 0;
}

/* What the rows go to, and the line about the fastest configuration so far. */
typedef struct writer {
    reports *outputs;
    str line;
    double fastest; /* tokens per second: generated ones, of the prompt where nothing was */
    int n;          /* configurations */
    verdict *verdict;
    windows windows;
} writer;

static int write_row(void *context, const row *r) {
    writer *w = context;
    value speed = r->cells[COLUMN_generation_tps];
    if (speed.kind != VALUE_REAL) speed = r->cells[COLUMN_prompt_tps];
    if (r->kind == ROW_SUMMARY && speed.kind == VALUE_REAL && (!w->n++ || speed.real > w->fastest)) {
        w->fastest = speed.real;
        str_clear(&w->line);
        report_line(&w->line, r);
    }
    if (windows_add(&w->windows, r) || verdict_row(w->verdict, r)) return -1;
    return reports_row(w->outputs, r);
}

/* The last line on a terminal: one to paste. */
static void print_line(const writer *w) {
    if (!w->n || w->line.failed || says_json() || !isatty(STDERR_FILENO)) return;
    if (w->n > 1) fprintf(stderr, "fastest of %d: ", w->n);
    fprintf(stderr, "%s\n", w->line.data);
}

static bool is_empty(const char *path) {
    file_map map;
    bool empty = !file_map_open(&map, path) && !map.size;
    file_map_close(&map);
    return empty;
}

/* A file that is not there yet has nothing: so the same command begins and resumes. So has a
 * database whose first row a killed program did not finish. */
static int read_resumed(command *c) {
    bench_options *o = &c->bench;
    c->report.append = true;
    if (!c->resume || !file_exists(c->resume)) return 0;
    if (results_read(&c->resumed, c->resume)) {
        if (!is_empty(c->resume)) return -1;
        results_free(&c->resumed);
        error_clear();
        return 0;
    }
    c->report.resumed = c->resume;
    c->report.resumed_rows = o->earlier = &c->resumed;
    results_last(&c->resumed, &o->last_run, &o->last_configuration);
    return 0;
}

/* The history is an output like others, beside what was asked for or the usual one. */
static int add_history(command *c) {
    option_texts *o = &c->outputs;
    if (!c->history) return 0;
    if (o->n + 2 > OPTION_MAX_TEXTS) return fail_usage("--history: there are too many outputs");
    if (!o->n) o->items[o->n++] = report_usual_output();
    str_puts(&c->kept, "sqlite:");
    if (kept_path(&c->kept) || kept_make_folder(c->kept.data + strlen("sqlite:"))) return -1;
    o->items[o->n++] = c->kept.data;
    c->report.kept = c->kept.data + strlen("sqlite:");
    return 0;
}

static int run(command *c) {
    if (get_progress(c) || get_repeats(c) || plan_parse(&c->plan, c->lists) || plan_check(&c->plan) ||
        mlx_env_set(&c->mlx_env))
        return -1;
    int n_models = c->plan.n_values[PARAM_model];
    const char **inputs = arena_alloc(c->plan.memory, (size_t)n_models * sizeof *inputs);
    if (!inputs || get_isolation(c) || get_prompt(c) || check_engines(c) || find_models(c, inputs)) return -1;
    c->report.inputs = inputs;
    c->report.n_inputs = n_models;
    if (read_resumed(c) || verdict_open(&c->verdict, &c->plan, c->ab_program) || add_history(c)) return -1;
    bool once = c->bench.repeats && !c->bench.duration_ns;
    sweep s = plan_sweep(&c->plan, once ? c->bench.repeats : REPEATS_LEAST);
    if (c->ab_program)
        sweep_add(&s, COLUMN_program, (value){.kind = VALUE_NONE},
                  (value){.kind = VALUE_TEXT, .text = c->ab_program});
    writer w = {.outputs = reports_open(&c->outputs, &c->report, &s), .verdict = &c->verdict};
    if (!w.outputs) return -1;
    reports_last(w.outputs, &c->bench.last_run, &c->bench.last_configuration);
    int failed = bench_run(&c->plan, &c->bench, write_row, &w);
    FILE *to = reports_own_stdout(w.outputs) ? stderr : stdout;
    failed |= reports_close(w.outputs);
    windows_print(&w.windows, to);
    windows_free(&w.windows);
    if (!failed) failed = verdict_end(&c->verdict, to);
    print_line(&w);
    str_free(&w.line);
    return failed ? -1 : 0;
}

int cmd_bench(int argc, char **argv) {
    command c = {.bench = {.repeats = 1,
                           .warmup = -1,
                           .precision = 0.01,
                           .time_limit_ns = 120000000000,
                           .find_model = fetch_found,
                           .put_row = report_json_line}};
    bool child = !strcmp(argv[0], BENCH_CHILD);
    c.isolation.n = argc - 1;
    c.isolation.given = argv + 1;
    report_output_help(&c.output_help);
    int done = c.output_help.failed ? -1 : parse_options(&c, argc, argv);
    put_command(&c.given, argc, argv);
    c.bench.command = c.given.data;
    if (!done) done = c.given.failed ? -1 : child ? serve(&c) : run(&c);
    isolation_free(&c.isolation);
    plan_free(&c.plan);
    results_free(&c.resumed);
    verdict_free(&c.verdict);
    str_free(&c.models);
    str_free(&c.prompt_text);
    str_free(&c.output_help);
    str_free(&c.kept);
    str_free(&c.given);
    return done < 0 ? -1 : 0;
}
