/* report.c - opens the outputs, has each format make its text, writes and flushes it.
 * A row is safe on its way out before the next one is measured. */
#include "report/format.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static const struct {
    const char *name;
    const format *format;
} formats[] = {
#define FORMAT(name) {#name, &format_##name},
    FORMATS(FORMAT)
#undef FORMAT
};
enum { N_FORMATS = sizeof formats / sizeof *formats, MAX_DECIMALS = 9 };

typedef struct report {
    const format *format;
    const char *path; /* NULL: standard output */
    FILE *file;       /* NULL once writing has failed */
    output output;
} report;

struct reports {
    int n;
    report items[OPTION_MAX_TEXTS];
};

void report_formats(str *out) {
    for (int i = 0; i < N_FORMATS; i++) str_printf(out, "%s%s", i ? ", " : "", formats[i].name);
}

void put_value(str *out, value v, int decimals, const char *none) {
    switch (v.kind) {
    case VALUE_NONE:
        str_puts(out, none);
        break;
    case VALUE_TEXT:
        str_puts(out, v.text);
        break;
    case VALUE_NUMBER:
        str_printf(out, "%lld", (long long)v.number);
        break;
    case VALUE_REAL:
        str_printf(out, "%.*f", v.decimals < decimals ? v.decimals : decimals, v.real);
        break;
    case VALUE_BOOL:
        str_puts(out, v.number ? "true" : "false");
        break;
    }
}

/* ---- writing ---- */

/* The first error is the one to print: a closed pipe after Ctrl-C is no news. */
static int fail_write(report *r) {
    int why = errno;
    r->file = NULL;
    if (error_exit_code() != EXIT_OK) return -1;
    return fail("cannot write %s: %s", r->path ? r->path : "standard output", strerror(why));
}

/* Writes the text that the format just made. */
static int write_text(report *r) {
    str *text = &r->output.text;
    if (text->failed || r->output.tail.failed) return -1;
    if (!r->file) return -1;
    size_t n = text->length;
    bool done = fwrite(text->data ? text->data : "", 1, n, r->file) == n && !fflush(r->file);
    str_clear(text);
    return done ? 0 : fail_write(r);
}

/* ---- opening ---- */

static const format *find_format(const char *name, size_t length) {
    for (int i = 0; i < N_FORMATS; i++)
        if (strlen(formats[i].name) == length && !strncmp(formats[i].name, name, length))
            return formats[i].format;
    str known = {0};
    report_formats(&known);
    fail_usage("--output: unknown format \"%.*s\"; known: %s", (int)length, name,
               known.data ? known.data : "");
    str_free(&known);
    return NULL;
}

/* Understands one FORMAT[:FILE], without opening it. */
static int parse_spec(reports *all, const char *spec) {
    const char *colon = strchr(spec, ':');
    report *r = &all->items[all->n];
    *r = (report){.path = colon ? colon + 1 : NULL,
                  .format = find_format(spec, colon ? (size_t)(colon - spec) : strlen(spec))};
    if (!r->format) return -1;
    if (r->path && !*r->path) return fail_usage("--output %s: the file's name is missing", spec);
    for (int i = 0; i < all->n; i++) {
        const char *other = all->items[i].path;
        if (!r->path && !other) return fail_usage("--output: only one format can go to standard output");
        if (r->path && other && !strcmp(r->path, other))
            return fail_usage("--output: %s is named twice", other);
    }
    all->n++;
    return 0;
}

static int open_report(report *r, const plan *p) {
    r->output.plan = p;
    r->file = r->path ? fopen(r->path, "w") : stdout;
    if (!r->file) return fail_write(r);
    r->format->begin(&r->output);
    return write_text(r);
}

reports *reports_open(const option_texts *specs, const plan *p) {
    reports *all = mem_new(1, sizeof *all, "the outputs");
    if (!all) return NULL;
    int failed = 0;
    if (!specs->n) failed = parse_spec(all, isatty(STDOUT_FILENO) ? "md" : "csv");
    for (int i = 0; i < specs->n && !failed; i++) failed = parse_spec(all, specs->items[i]);
    for (int i = 0; i < all->n && !failed; i++) failed = open_report(&all->items[i], p);
    if (!failed) return all;
    reports_close(all);
    return NULL;
}

/* ---- rows ---- */

int reports_row(reports *all, const record *row) {
    int failed = 0;
    for (int i = 0; i < all->n; i++) {
        report *r = &all->items[i];
        r->format->row(&r->output, row);
        failed |= write_text(r);
        r->output.n_rows++;
    }
    return failed;
}

static int close_report(report *r) {
    int failed = 0;
    if (r->file) {
        r->format->end(&r->output);
        failed = write_text(r);
    }
    if (r->file && r->path && fclose(r->file)) failed = fail_write(r);
    str_free(&r->output.text);
    str_free(&r->output.tail);
    return failed;
}

int reports_close(reports *all) {
    int failed = 0;
    for (int i = 0; all && i < all->n; i++) failed |= close_report(&all->items[i]);
    free(all);
    return failed;
}
