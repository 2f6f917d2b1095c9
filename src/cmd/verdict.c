/* verdict.c - at the end of a benchmark: its runs against those of a file, or one of its sides
 * against another. The statistics are those of `mlxbench compare`.
 */
#include "cmd/verdict.h"
#include "report/report.h"

#include <stdio.h>

/* A side of the benchmark, by its engine: MLX, in any module. */
static bool is_side(const char *name) {
    return !strncmp(name, "mlx", strlen("mlx")) || !strcmp(name, "auto");
}

static bool compares(const verdict *v) {
    return v->against || v->engines || v->program;
}

int verdict_open(verdict *v, const plan *p, const char *program) {
    v->plan = p;
    v->program = program;
    for (int i = 0; i < p->n_values[PARAM_engine]; i++)
        v->engines |= strchr(p->values[PARAM_engine][i].text, '@') != NULL;
    v->engines &= p->n_values[PARAM_engine] > 1 && !program;
    if (gate_parse(&v->gate)) return -1;
    if (v->gate.fail_slower && !compares(v))
        return fail_usage("--fail-slower needs --against FILE, --ab-program FILE or --engine mlx,mlx@PATH");
    return v->against ? results_read(&v->before, v->against) : 0;
}

int verdict_row(verdict *v, const row *r) {
    return r->kind == ROW_RUN && compares(v) ? results_add(&v->runs, r) : 0;
}

/* On stderr it is an event among the others, where these are JSON. */
static void print(const str *text, FILE *to) {
    str members = {0};
    if (to == stderr && says_json()) {
        str_puts(&members, ", \"text\": ");
        json_quote(&members, text->data);
        say_event("comparison", &members);
    } else {
        fwrite(text->data, 1, text->length, to);
    }
    str_free(&members);
}

static int compare(verdict *v, const results *a, const results *b, const char *const names[2], FILE *to) {
    comparison found = {0};
    str text = {0};
    int failed = results_compare(&found, a, b);
    if (!failed) {
        gate_add(&v->gate, &found);
        str_puts(&text, "\n");
        failed = report_comparison(&text, "text", names[0], names[1], &found, true);
        report_comparison_end(&text, "text");
        if (!failed && !text.failed) print(&text, to);
    }
    failed |= text.failed;
    comparison_free(&found);
    str_free(&text);
    return failed ? -1 : 0;
}

/* Did this engine of the plan make the run? `auto` shows what it became. */
static bool is_of(const row *r, const char *name) {
    value ran = r->cells[COLUMN_engine];
    if (ran.kind != VALUE_TEXT) return false;
    return !strcmp(name, "auto") ? !strchr(ran.text, '@') : !strcmp(name, ran.text);
}

static int take_side(const verdict *v, const char *name, results *out) {
    for (int64_t i = 0; i < v->runs.n; i++)
        if (is_of(&v->runs.runs[i], name) && results_add(out, &v->runs.runs[i])) return -1;
    return results_complete(out);
}

/* The first version of MLX with each other one. */
static int compare_engines(verdict *v, FILE *to) {
    const param_value *engines = v->plan->values[PARAM_engine];
    int n = v->plan->n_values[PARAM_engine], first = 0, failed = 0;
    while (first < n && !is_side(engines[first].text)) first++;
    results a = {0};
    if (first < n) failed = take_side(v, engines[first].text, &a);
    for (int i = first + 1; i < n && !failed; i++) {
        const char *const names[2] = {engines[first].text, engines[i].text};
        results b = {0};
        if (is_side(engines[i].text))
            failed = take_side(v, engines[i].text, &b) || compare(v, &a, &b, names, to);
        results_free(&b);
    }
    results_free(&a);
    return failed ? -1 : 0;
}

/* The other program, and then this one: so a loss is this one's. */
static int compare_programs(verdict *v, FILE *to) {
    const char *const names[2] = {v->program, "this program"};
    results sides[2] = {{0}, {0}};
    int failed = 0;
    for (int64_t i = 0; i < v->runs.n && !failed; i++) {
        value program = v->runs.runs[i].cells[COLUMN_program];
        bool own = program.kind != VALUE_TEXT;
        if (own || !strcmp(program.text, v->program)) /* a resumed file may have runs of a third one */
            failed = results_add(&sides[own], &v->runs.runs[i]);
    }
    failed = failed || results_complete(&sides[0]) || results_complete(&sides[1]) ||
             compare(v, &sides[0], &sides[1], names, to);
    for (int i = 0; i < 2; i++) results_free(&sides[i]);
    return failed ? -1 : 0;
}

int verdict_end(verdict *v, FILE *to) {
    const char *const names[2] = {v->against, "this run"};
    int failed = v->engines ? compare_engines(v, to) : v->program ? compare_programs(v, to) : 0;
    if (!failed && v->against)
        failed = results_complete(&v->runs) || compare(v, &v->before, &v->runs, names, to);
    return failed ? -1 : compares(v) ? gate_result(&v->gate) : 0;
}

void verdict_free(verdict *v) {
    results_free(&v->runs);
    results_free(&v->before);
}
