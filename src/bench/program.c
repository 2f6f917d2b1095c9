/* program.c - a turn of another process that is a whole mlxbench, this one or an older release: it
 * is started with the configuration as options, and its rows are read. Each turn loads and warms up
 * anew, since an older program cannot be told to wait between two runs; so both sides do.
 */
#include "bench/child.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- what it is started with ---- */

/* The value of parameter i, as an element of its option's list. */
static const char *value_text(arena *memory, const params *p, int i) {
    const char *member = (const char *)p + param_table[i].offset, *text;
    char number[32];
    int64_t n;
    if (param_is_text(&param_table[i])) {
        memcpy(&text, member, sizeof text);
        char *escaped = arena_alloc(memory, 2 * strlen(text) + 1), *to = escaped;
        for (; escaped && *text; text++) {
            if (*text == ',') *to++ = '\\';
            *to++ = *text;
        }
        return escaped;
    }
    memcpy(&n, member, sizeof n);
    snprintf(number, sizeof number, "%lld", (long long)n);
    return arena_string(memory, param_table[i].kind == KIND_OPTIONAL && !n ? "none" : number);
}

/* NULL when out of memory. */
static const char **arguments_of(arena *memory, const bench *b, const params *p, const bool given[N_PARAMS],
                                 int64_t n_runs) {
    const bench_programs *how = b->options->programs;
    const char **out = arena_alloc(memory, (size_t)(2 * N_PARAMS + how->n + 8) * sizeof *out);
    char number[32], name[64];
    int n = 0;
    if (!out) return NULL;
    snprintf(number, sizeof number, "%lld", (long long)n_runs);
    out[n++] = "mlxbench";
    for (int i = 0; i < N_PARAMS; i++) {
        if (!given[i]) continue;
        snprintf(name, sizeof name, "--%s", param_table[i].option);
        out[n++] = arena_string(memory, name);
        out[n++] = value_text(memory, p, i);
        if (!out[n - 2] || !out[n - 1]) return NULL;
    }
    for (int i = 0; i < how->n; i++) out[n++] = how->arguments[i];
    out[n++] = "--repeats";
    out[n++] = arena_string(memory, number);
    out[n++] = "--output";
    out[n++] = "jsonl";
    return out[n - 3] ? out : NULL;
}

/* ---- running it ---- */

static int read_back(int fd, str *out) {
    char chunk[1 << 16];
    ssize_t n;
    lseek(fd, 0, SEEK_SET);
    while ((n = read(fd, chunk, sizeof chunk)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0) str_append(out, chunk, (size_t)n);
    return out->failed || n < 0 ? -1 : 0;
}

/* Waits for its end. -1 after Ctrl-C and when its time is up; then it was stopped. */
static int wait_for(const bench *b, pid_t pid, int *status) {
    const int64_t slice = 200000000, limit = b->options->programs->timeout_ns, start = clock_ns();
    while (!process_ended(pid, slice, status)) {
        bool late = limit && clock_ns() - start >= limit;
        if (!late && !interrupted()) continue;
        process_kill(pid);
        return interrupted()
                   ? fail_interrupted()
                   : fail("no end after %.3g s (--timeout); the process was stopped", (double)limit / 1e9);
    }
    return 0;
}

/* What it wrote to standard output and standard error goes to *out and *err. */
static int run_program(const bench *b, const char *const *arguments, bool other, str *out, str *err,
                       int *status) {
    int files[2] = {process_file("", 0), process_file("", 0)};
    int failed = files[0] < 0 || files[1] < 0;
    if (!failed) {
        process_spec spec = {.program = other ? b->options->programs->other : b->options->programs->own,
                             .arguments = arguments,
                             .in = -1,
                             .out = files[0],
                             .err = files[1],
                             .channel = -1};
        pid_t pid = process_start(&spec);
        failed = pid < 0 || wait_for(b, pid, status) || read_back(files[0], out) || read_back(files[1], err);
    }
    for (int i = 0; i < 2; i++)
        if (files[i] >= 0) close(files[i]);
    return failed ? -1 : 0;
}

/* ---- what it measured ---- */

/* Without rows: its last line says why, or how it ended does. */
static int fail_without_rows(const str *err, int status, int64_t memory_kills) {
    static const char own[] = "mlxbench: ";
    size_t n = err->length;
    while (n && err->data[n - 1] == '\n') n--;
    size_t start = n;
    while (start && err->data[start - 1] != '\n') start--;
    if (n == start || !WIFEXITED(status)) return fail_process(status, memory_kills);
    if (n - start > strlen(own) && !strncmp(err->data + start, own, strlen(own))) start += strlen(own);
    return fail("%.*s", (int)(n - start), err->data + start);
}

static double real_of(const row *r, int c) {
    return r->cells[c].kind == VALUE_REAL ? r->cells[c].real : NAN;
}

static int take_row(bench *b, series *s, row *r) {
    const double speeds[N_SPEEDS] = {real_of(r, COLUMN_prompt_tps), real_of(r, COLUMN_generation_tps)};
    double seconds = real_of(r, COLUMN_total_s);
    int64_t ns = isfinite(seconds) ? (int64_t)(1e9 * seconds) : 0;
    value error = r->cells[COLUMN_error];
    if (error.kind == VALUE_TEXT) return fail("%s", error.text);
    if (is_too_bad(b, r)) return wait_for_quality(b, s, r, clock_ns());
    if (s->program) r->cells[COLUMN_program] = (value){.kind = VALUE_TEXT, .text = s->program};
    if (series_add_earlier(s, b->options, speeds, ns)) return -1;
    if (r->raw && r->raw->n_tokens) progress_run_done(&b->progress, r->raw);
    int64_t left = series_runs_left(s, b->options);
    progress_expect(&b->progress, &s->params, left - (s->expected - 1));
    s->expected = left;
    b->n_measured++;
    return rows_run(b, s, r);
}

static int take_rows(bench *b, series *s, const str *out) {
    results found = {0};
    int failed = results_parse(&found, out->data, out->length, s->program ? s->program : "this program");
    for (int64_t i = 0; i < found.n && !failed; i++) failed = take_row(b, s, &found.runs[i]);
    results_free(&found);
    return failed ? -1 : 0;
}

int program_turn(bench *b, series *s, int64_t max_runs) {
    str out = {0}, err = {0};
    int status = 0;
    s->warm = s->settled = true; /* it sees to that itself */
    int64_t n = series_runs_left(s, b->options), memory_kills = sys_memory_kills();
    arena *memory = arena_new();
    const char **arguments =
        memory ? arguments_of(memory, b, &s->params, b->options->programs->given, n < max_runs ? n : max_runs)
               : NULL;
    progress_run(&b->progress, s);
    int failed = !arguments || run_program(b, arguments, s->program != NULL, &out, &err, &status);
    if (!failed) failed = out.length ? take_rows(b, s, &out) : fail_without_rows(&err, status, memory_kills);
    str_free(&out);
    str_free(&err);
    arena_free(memory);
    return failed ? -1 : 0;
}

/* ---- what it would measure ---- */

/* Parameters that decide how long a run takes, and not how it is made. */
static const int sizes[] = {PARAM_n_prompt, PARAM_n_generate, PARAM_depth, PARAM_idle_s};

/* Might an earlier run be one of s? */
static bool may_resume(const results *earlier, const series *s) {
    for (int64_t i = 0; i < earlier->n; i++) {
        const value *of = earlier->runs[i].cells, program = of[COLUMN_program];
        bool own = program.kind != VALUE_TEXT;
        bool same = s->program ? !own && !strcmp(program.text, s->program) : own;
        if (same && of[COLUMN_n_prompt].number == s->params.n_prompt &&
            of[COLUMN_n_generate].number == s->params.n_generate)
            return true;
    }
    return false;
}

/* The row of s's program for the shortest run there is, with the sizes of s. Without rows, or with
 * an error there, -1. */
static int row_to_come(const bench *b, const series *s, results *found, row *out) {
    const bench_programs *how = b->options->programs;
    params shortest = s->params;
    bool given[N_PARAMS];
    str text = {0}, err = {0};
    int status = 0;
    memcpy(given, how->given, sizeof given);
    given[PARAM_n_prompt] = given[PARAM_n_generate] = true;
    shortest.n_prompt = shortest.n_generate = 1;
    shortest.depth = shortest.idle_s = 0;
    int64_t memory_kills = sys_memory_kills();
    arena *memory = arena_new();
    const char **arguments = memory ? arguments_of(memory, b, &shortest, given, 1) : NULL;
    int failed = !arguments || run_program(b, arguments, s->program != NULL, &text, &err, &status);
    if (!failed && !text.length) failed = fail_without_rows(&err, status, memory_kills);
    if (!failed)
        failed = results_parse(found, text.data, text.length, s->program ? s->program : "this program");
    if (!failed && !found->n) failed = fail_process(status, memory_kills);
    str_free(&text);
    str_free(&err);
    arena_free(memory);
    if (failed) return -1;
    *out = found->runs[0];
    value error = out->cells[COLUMN_error];
    if (error.kind == VALUE_TEXT) return fail("%s", error.text);
    if (s->program) out->cells[COLUMN_program] = (value){.kind = VALUE_TEXT, .text = s->program};
    row asked;
    row_of_run(&asked, (run_number){0}, &s->params, NULL, &(facts){.model_type = NULL});
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) /* an older program may not know some */
        if (given[sizes[i]])
            out->cells[COLUMN_FIRST_PARAM + sizes[i]] = asked.cells[COLUMN_FIRST_PARAM + sizes[i]];
    return 0;
}

int program_resume(bench *b, series *s) {
    results found = {0};
    row now;
    if (!b->options->earlier || !may_resume(b->options->earlier, s)) return 0;
    int failed = row_to_come(b, s, &found, &now) || resume_series(b, s, &now);
    results_free(&found);
    return failed ? -1 : 0;
}
