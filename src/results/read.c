/* read.c - rows from files: which format it is, and what follows from the runs, which is computed
 * again. Summaries are not read: they are what the same code makes of the same runs.
 */
#include "results/internal.h"
#include "results/sqlite.h"

#include <stdio.h>
#include <stdlib.h>

int reader_fail(const reader *r, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (r->line) return fail("%s, line %lld: %s", r->name, (long long)r->line, text);
    return fail("%s: %s", r->name, text);
}

row *reader_add(reader *r) {
    results *to = r->results;
    if (to->n == r->capacity) {
        int64_t capacity = r->capacity ? 2 * r->capacity : 16;
        if (mem_resize((void **)&to->runs, (size_t)capacity, sizeof *to->runs, "the rows")) return NULL;
        r->capacity = capacity;
    }
    row *added = &to->runs[to->n++];
    *added = (row){.kind = ROW_RUN};
    return added;
}

/* ---- what follows from the runs ---- */

static int64_t configuration(const row *r) {
    return r->cells[COLUMN_configuration].number;
}

static int compare_runs(const void *a, const void *b) {
    const row *x = *(const row *const *)a, *y = *(const row *const *)b;
    int64_t c = configuration(x), d = configuration(y);
    if (c != d) return c < d ? -1 : 1;
    return (x > y) - (x < y);
}

/* Pointers to the runs, those of one configuration side by side, in order. NULL when out of
 * memory. */
static const row **group(const results *r) {
    const row **runs = mem_new((size_t)r->n, sizeof *runs, "the rows");
    for (int64_t i = 0; runs && i < r->n; i++) runs[i] = &r->runs[i];
    if (runs) qsort(runs, (size_t)r->n, sizeof *runs, compare_runs);
    return runs;
}

static int find_sweep(results *r) {
    const row **runs = group(r);
    int64_t n = 0;
    if (!runs) return -1;
    for (int64_t i = 0; i < r->n; i++) {
        n = i && configuration(runs[i]) == configuration(runs[i - 1]) ? n + 1 : 1;
        if (n > r->sweep.repeats) r->sweep.repeats = n;
        value batch = runs[i]->cells[COLUMN_batch];
        if (batch.kind == VALUE_NUMBER && batch.number > r->sweep.batch) r->sweep.batch = batch.number;
        bool failed = r->runs[i].cells[COLUMN_error].kind == VALUE_TEXT;
        for (int c = 0; c < N_COLUMNS; c++)
            if (!failed || c < COLUMN_FIRST_METRIC)
                sweep_add(&r->sweep, c, r->runs[0].cells[c], r->runs[i].cells[c]);
    }
    free(runs);
    return 0;
}

/* The summary of the configuration whose runs begin at runs[*start]; moves *start to the next
 * one's. */
static int hand_on_summary(const results *r, const row **runs, int64_t *start, summary *s,
                           int (*on_row)(void *context, const row *r), void *context) {
    int64_t number = configuration(runs[*start]);
    row whole;
    summary_clear(s);
    for (; *start < r->n && configuration(runs[*start]) == number; ++*start)
        if (summary_add(s, runs[*start])) return -1;
    return summary_row(s, &whole) ? 0 : on_row(context, &whole);
}

int results_each(const results *r, int (*on_row)(void *context, const row *r), void *context) {
    const row **runs = group(r);
    bool *seen = mem_new((size_t)r->n, sizeof *seen, "the rows");
    summary *s = summary_new();
    int stopped = runs && seen && s ? 0 : -1;
    for (int64_t i = 0, shown = 0, ready = 0; !stopped && i < r->n; i++) {
        seen[i] = true;
        stopped = on_row(context, &r->runs[i]);
        while (ready < r->n && seen[runs[ready] - r->runs]) ready++; /* these are all there */
        while (!stopped && shown < ready) {
            int64_t last = shown;
            while (last + 1 < r->n && configuration(runs[last + 1]) == configuration(runs[shown])) last++;
            if (last >= ready) break;
            stopped = hand_on_summary(r, runs, &shown, s, on_row, context);
        }
    }
    summary_free(s);
    free(seen);
    free(runs);
    return stopped;
}

/* ---- files ---- */

static int begin(reader *to, results *r, const char *name) {
    *r = (results){.memory = arena_new()};
    *to = (reader){.results = r, .name = name};
    return r->memory ? 0 : -1;
}

/* What has been read must be runs of this program. */
static int complete(reader *to) {
    results *r = to->results;
    to->line = 0;
    for (int64_t i = 0; i < r->n; i++)
        if (r->runs[i].cells[COLUMN_configuration].kind != VALUE_NUMBER)
            return reader_fail(to, "row %lld has no configuration, so it is no result of this program",
                               (long long)i + 1);
    return r->n ? find_sweep(r) : fail("%s: there are no results in it", to->name);
}

int results_parse(results *r, const char *text, size_t n, const char *name) {
    reader to;
    size_t start = 0;
    if (begin(&to, r, name)) return -1;
    while (start < n && strchr(" \t\r\n", text[start])) start++;
    if (n && memchr(text, '\0', n)) return fail("%s: not a result file: it has zero bytes", name);
    if (start == n) return fail("%s: there are no results in it", name);
    int llama = read_llama_bench(&to, text, n);
    bool object = text[start] == '{', lines = n - start >= 7 && !strncmp(text + start, "{\"kind\"", 7);
    int failed = llama                          ? llama < 0
                 : lines                        ? read_jsonl(&to, text, n)
                 : object || text[start] == '[' ? read_json(&to, text, n)
                 : is_sql(text, n)              ? read_sql(&to, text, n)
                                                : read_csv(&to, text, n);
    return failed ? -1 : complete(&to);
}

int results_add(results *r, const row *run) {
    bool full = !(r->n & (r->n - 1)); /* room for powers of two */
    if (!r->memory && !(r->memory = arena_new())) return -1;
    if (full && mem_resize((void **)&r->runs, r->n ? 2 * (size_t)r->n : 1, sizeof *r->runs, "the rows"))
        return -1;
    row *to = &r->runs[r->n];
    *to = *run;
    to->raw = NULL;
    for (int c = 0; c < N_COLUMNS; c++) {
        value *v = &to->cells[c];
        if (v->kind == VALUE_TEXT && !(v->text = arena_string(r->memory, v->text))) return -1;
    }
    r->n++;
    return 0;
}

int results_complete(results *r) {
    return r->n ? find_sweep(r) : 0;
}

void results_last(const results *r, int64_t *run, int64_t *number_of_configuration) {
    for (int64_t i = 0; i < r->n; i++) {
        value v = r->runs[i].cells[COLUMN_run], c = r->runs[i].cells[COLUMN_configuration];
        if (v.kind == VALUE_NUMBER && v.number > *run) *run = v.number;
        if (c.kind == VALUE_NUMBER && c.number > *number_of_configuration)
            *number_of_configuration = c.number;
    }
}

int results_read(results *r, const char *path) {
    file_map map;
    reader to;
    *r = (results){0};
    if (file_map_open(&map, path)) return -1;
    bool database = is_sqlite(map.data, map.size);
    int failed = database ? 0 : results_parse(r, map.data, map.size, path);
    file_map_close(&map);
    if (database) failed = begin(&to, r, path) || read_database(&to) || complete(&to) ? -1 : 0;
    return failed;
}

void results_free(results *r) {
    free(r->runs);
    arena_free(r->memory);
    *r = (results){0};
}
