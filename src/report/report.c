/* report.c - checks and opens the outputs, has each format make its text, and writes it.
 * A row is safe on its way out before the next one is measured. */
#include "report/file.h"
#include "report/format.h"

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
enum { N_FORMATS = sizeof formats / sizeof *formats };

typedef struct report {
    const format *format;
    out_file file;
    output output;
    results earlier;  /* what is in the file already */
    run_table *table; /* of the format sqlite: rows go there, and the file is only looked at */
    bool resumed;     /* it has the rows that come first */
    bool complete; /* it was written after a row: a run of which the format shows nothing changes nothing */
} report;

/* It is made at the end, of all rows. */
static bool is_at_end(const report *r) {
    return r->format == &format_share;
}

static bool is_database(const report *r) {
    return r->format == &format_sqlite;
}

struct reports {
    bool force, at_end;
    int64_t n_held, n_runs; /* a file takes its name with run n_held, before which are only earlier ones */
    int n;
    report items[OPTION_MAX_TEXTS];
};

/* A format's name as users write it. */
static void put_name(str *out, const char *name) {
    for (; *name; name++) str_append(out, *name == '_' ? "-" : name, 1);
}

/* "csv, md, llama-bench[-csv|-json]": a format's other forms, which have its name and more, are in
 * brackets. */
static void put_formats(str *out) {
    const char *first = NULL;
    size_t n = 0;
    bool open = false;
    for (int i = 0; i < N_FORMATS; i++) {
        const char *name = formats[i].name;
        bool form = first && !strncmp(name, first, n) && name[n] == '_';
        if (open && !form) str_puts(out, "]");
        str_puts(out, form ? open ? "|" : "[" : i ? ", " : "");
        put_name(out, form ? name + n : name);
        open = form;
        if (form) continue;
        first = name;
        n = strlen(name);
    }
    if (open) str_puts(out, "]");
}

void report_output_help(str *out) {
    str_puts(out,
             "write to FILE or standard output (md on a terminal, else csv), several times if given so: ");
    put_formats(out);
}

/* ---- writing ---- */

typedef enum written { TEXT_ONLY, COMPLETE, COMPLETE_AND_LAST } written;

/* Writes the text that the format just made, and what completes it until the next text. */
static int write_text(report *r, written how) {
    output closing = r->output;
    closing.text = (str){0};
    if (how != TEXT_ONLY && !r->file.direct && r->format->end) r->format->end(&closing);
    out_tail tail = {.closing = closing.text, .last = how == COMPLETE_AND_LAST};
    if (how != TEXT_ONLY) tail.parts = r->output.parts;
    int failed = out_file_write(&r->file, &r->output.text, &tail);
    str_clear(&r->output.text);
    str_free(&closing.text);
    return failed ? -1 : 0;
}

/* ---- opening ---- */

static const format *find_format(const char *name, size_t length) {
    str known = {0};
    const format *found = NULL;
    for (int i = 0; i < N_FORMATS && !found; i++) {
        str_clear(&known);
        put_name(&known, formats[i].name);
        if (known.length == length && !strncmp(known.data, name, length)) found = formats[i].format;
    }
    str_clear(&known);
    if (found) {
        str_free(&known);
        return found;
    }
    put_formats(&known);
    fail_usage("--output: unknown format \"%.*s\"; known: %s", (int)length, name,
               known.data ? known.data : "");
    str_free(&known);
    return NULL;
}

/* What becomes of a file that is there. */
static int look_into(report *r, const report_options *o) {
    const char *path = r->file.path;
    bool resumed = r->resumed = o->resumed && out_file_is_of(&r->file, o->resumed);
    if (is_database(r) && r->file.direct)
        return fail_usage("--output: sqlite makes a database, which needs a file: sqlite:FILE");
    if (o->force || !out_file_has_content(&r->file)) return 0;
    if (!r->format->readable || !(o->append || resumed))
        return fail_usage("--output: %s is there already; choose another name, or replace it with --force",
                          path);
    if (is_database(r)) return 0; /* it is not read: rows go beside those that are there */
    if (!resumed && results_read(&r->earlier, path))
        return fail_usage(
            "--output: no rows can be added to a file that is no result file: %s; choose another name, or "
            "replace it with --force",
            error_message());
    if ((resumed ? o->resumed_rows : &r->earlier)->other_columns)
        return fail_usage(
            "--output: %s has other columns than this version of mlxbench writes; choose another name, or "
            "replace it with --force",
            path);
    return 0;
}

/* Understands one FORMAT[:FILE] and looks at its file, without opening it. */
static int find_output(reports *all, const char *spec, const report_options *o, const sweep *s) {
    const char *colon = strchr(spec, ':');
    report *r = &all->items[all->n];
    r->format = find_format(spec, colon ? (size_t)(colon - spec) : strlen(spec));
    if (!r->format) return -1;
    if (r->format->one_sequence && s->batch > 1)
        return fail_usage("--output %s: this format has no place for several sequences (--batch)", spec);
    if (colon && !colon[1]) return fail_usage("--output %s: the file's name is missing", spec);
    all->n++;
    if (out_file_find(&r->file, colon ? colon + 1 : NULL)) return -1;
    for (const report *other = all->items; other < r; other++) {
        if (!colon && !other->file.path)
            return fail_usage("--output: only one format can go to standard output");
        if (out_file_same(&r->file, &other->file))
            return fail_usage("--output: %s and %s are the same file",
                              other->file.path ? other->file.path : "standard output",
                              colon ? colon + 1 : "standard output");
    }
    for (int i = 0; i < o->n_inputs; i++)
        if (out_file_is_of(&r->file, o->inputs[i]))
            return fail_usage("--output: %s is read from %s, so it cannot be written",
                              colon ? colon + 1 : "standard output", o->inputs[i]);
    return look_into(r, o);
}

static void make_text(report *r, const row *next) {
    r->format->row(&r->output, next);
    *(next->kind == ROW_RUN ? &r->output.n_runs : &r->output.n_summaries) += 1;
}

static int write_earlier(void *context, const row *r) {
    make_text(context, r);
    return write_text(context, TEXT_ONLY);
}

static int open_database(report *r, const report_options *o) {
    bool kept = o->kept && !strcmp(o->kept, r->file.path);
    table_options how = {.replace = o->force && !r->resumed && !kept};
    int64_t run = 0;
    if (r->resumed) results_last(o->resumed_rows, &run, &how.last_configuration);
    r->table = table_open(r->file.path, &how);
    return r->table ? 0 : -1;
}

static int open_report(report *r, const report_options *o, const sweep *s) {
    r->output.sweep = s;
    if (is_database(r)) return open_database(r, o);
    bool keeps = r->earlier.n || (r->resumed && o->resumed_rows->n);
    if (out_file_open(&r->file, !keeps)) return -1;
    if (r->format->begin) r->format->begin(&r->output);
    if (write_text(r, TEXT_ONLY)) return -1;
    return r->earlier.n ? results_each(&r->earlier, write_earlier, r) : 0;
}

const char *report_usual_output(void) {
    return isatty(STDOUT_FILENO) ? "md" : "csv";
}

reports *reports_open(const option_texts *specs, const report_options *o, const sweep *s) {
    reports *all = mem_new(1, sizeof *all, "the outputs");
    if (!all) return NULL;
    int failed = 0;
    all->force = o->force;
    all->at_end = o->at_end;
    if (o->resumed) all->n_held = o->resumed_rows->n;
    if (!specs->n) failed = find_output(all, report_usual_output(), o, s);
    for (int i = 0; i < specs->n && !failed; i++) failed = find_output(all, specs->items[i], o, s);
    for (int i = 0; i < all->n && !failed; i++) failed = open_report(&all->items[i], o, s);
    if (!failed) return all;
    reports_close(all);
    return NULL;
}

/* ---- rows ---- */

/* Those of a resumed database are in it already. */
static int add_to_table(const reports *all, report *r, const row *next) {
    if (next->kind != ROW_RUN || (r->resumed && all->n_runs <= all->n_held)) return 0;
    return table_add(r->table, next);
}

int reports_row(reports *all, const row *next) {
    int failed = 0;
    all->n_runs += next->kind == ROW_RUN;
    for (int i = 0; i < all->n; i++) {
        report *r = &all->items[i];
        if (r->table) {
            failed |= add_to_table(all, r, next);
            continue;
        }
        make_text(r, next);
        if (is_at_end(r)) continue;
        bool nothing_new = r->complete && next->kind == ROW_RUN && !r->output.text.length;
        if (!nothing_new) failed |= write_text(r, all->at_end ? TEXT_ONLY : COMPLETE) != 0;
        r->complete = true;
        if (!failed && !all->at_end && all->n_runs >= all->n_held)
            failed = out_file_keep(&r->file, all->force);
    }
    return failed ? -1 : 0;
}

bool reports_own_stdout(const reports *r) {
    for (int i = 0; i < r->n; i++)
        if (!r->items[i].file.path && r->items[i].format != &format_md) return true;
    return false;
}

void reports_last(const reports *r, int64_t *run, int64_t *number_of_configuration) {
    for (int i = 0; i < r->n; i++) results_last(&r->items[i].earlier, run, number_of_configuration);
}

/* Nothing is written where there is no run. */
static int write_at_end(report *r, bool force) {
    if (!r->output.n_runs) return 0;
    r->format->end(&r->output);
    return write_text(r, TEXT_ONLY) || out_file_keep(&r->file, force) ? -1 : 0;
}

/* What is written directly has all that stands behind its text at the end. */
static int write_behind(report *r) {
    output *o = &r->output;
    for (int i = 0; i < MAX_PARTS; i++) str_append(&o->text, o->parts[i].data, o->parts[i].length);
    if (r->format->end) r->format->end(o);
    return write_text(r, TEXT_ONLY);
}

static int complete(report *r, const reports *all) {
    if (!out_file_is_open(&r->file)) return 0;
    if (is_at_end(r)) return write_at_end(r, all->force);
    if (r->file.direct) return write_behind(r);
    if (write_text(r, COMPLETE_AND_LAST)) return -1;
    return all->at_end && r->complete ? out_file_keep(&r->file, all->force) : 0;
}

static int close_report(report *r, const reports *all) {
    output *o = &r->output;
    int failed = complete(r, all);
    failed |= out_file_close(&r->file);
    table_close(r->table);
    results_free(&r->earlier);
    str_free(&o->text);
    str_free(&o->remark);
    str_free(&o->kept);
    for (int i = 0; i < MAX_PARTS; i++) str_free(&o->parts[i]);
    summary_free(o->shared);
    return failed;
}

int reports_close(reports *all) {
    int failed = 0;
    for (int i = 0; all && i < all->n; i++) failed |= close_report(&all->items[i], all);
    free(all);
    return failed;
}
