/* read_llama_forms.c - llama-bench's tests from its json, jsonl, csv and md.
 * Only json and jsonl have the samples; the others have their mean.
 */
#include "results/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- json, jsonl ---- */

static int keep_samples(const reader *r, llama_test *t, const json *list) {
    int64_t n = json_length(list), i = 0;
    double *samples = arena_alloc(r->results->memory, (size_t)(n + 1) * sizeof *samples);
    if (!samples) return -1;
    for (const json *x = json_first(list); x; x = json_next(x)) {
        if (!json_is_number(x)) return reader_fail(r, "samples_ts has something that is no number");
        samples[i++] = json_number(x);
    }
    t->samples = samples;
    t->n_samples = n;
    return 0;
}

static int keep_value(const reader *r, llama_test *t, int which, const json *v) {
    str text = {0};
    double x = json_number(v);
    if (json_is_string(v)) str_puts(&text, json_string(v));
    if (json_is_bool(v)) str_puts(&text, json_true(v) ? "1" : "0");
    if (json_is_number(v)) str_printf(&text, x == floor(x) && fabs(x) < 1e15 ? "%.0f" : "%.17g", x);
    if (text.length) t->values[which] = arena_string(r->results->memory, text.data);
    int failed = text.failed || (text.length && !t->values[which]);
    str_free(&text);
    return failed ? -1 : 0;
}

static int read_json_test(reader *r, const json *object, void *context) {
    llama_tests *out = context;
    if (!json_is_object(object) || !json_get(object, "avg_ts"))
        return reader_fail(r, "not a result file: an element has no avg_ts, as tests of llama-bench have");
    llama_test *t = llama_add(out);
    if (!t) return -1;
    json_each (member, object) {
        int c = llama_find(json_key(member), false);
        if (c >= 0 && keep_value(r, t, c, member)) return -1;
    }
    const json *samples = json_get(object, "samples_ts");
    return json_is_array(samples) ? keep_samples(r, t, samples) : 0;
}

int read_llama_json(reader *r, const char *text, size_t n, llama_tests *out) {
    json *root = json_parse(text, n, r->name);
    int failed = root ? 0 : -1;
    for (const json *one = json_first(root); one && !failed; one = json_next(one))
        failed = read_json_test(r, one, out);
    json_free(root);
    return failed;
}

int read_llama_jsonl(reader *r, const char *text, size_t n, llama_tests *out) {
    return read_json_lines(r, text, n, read_json_test, out);
}

/* ---- csv ---- */

enum { MAX_FIELDS = 4 * N_LLAMA };

/* The fields of a line go to the test's columns; the header's line names them. -1 where the line
 * has no end, or another number of fields than n. */
static int read_line(reader *r, csv *c, const int *columns, int n, llama_test *t) {
    int i = 0;
    do {
        if (csv_next(c)) return -1;
        if (i < n && columns[i] >= 0 &&
            !(t->values[columns[i]] = arena_string(r->results->memory, c->field.data)))
            return -1;
        i++;
    } while (!c->line_ended);
    return i == n ? 0 : -1;
}

static int read_lines(reader *r, csv *c, llama_tests *out) {
    int columns[MAX_FIELDS], n = 0;
    do {
        if (csv_next(c) || n == MAX_FIELDS)
            return reader_fail(r, "not a result file: its first line names no columns");
        columns[n++] = llama_find(c->field.data, false);
    } while (!c->line_ended);
    while (c->at < c->end) {
        llama_test *t = llama_add(out);
        r->line++;
        if (!t) return -1;
        if (!read_line(r, c, columns, n, t)) continue;
        if (c->at < c->end || c->whole)
            return reader_fail(r, "not as many fields as the first line has, %d", n);
        out->n--; /* the last line, cut off */
    }
    return 0;
}

int read_llama_csv(reader *r, const char *text, size_t n, llama_tests *out) {
    csv c = {.at = text, .end = text + n};
    r->line = 1;
    int failed = read_lines(r, &c, out);
    failed |= c.field.failed;
    str_free(&c.field);
    return failed ? -1 : 0;
}

/* ---- md ---- */

enum { MAX_CELLS = 64, MAX_CELL = 256 };

typedef struct md_line {
    int n;
    char cells[MAX_CELLS][MAX_CELL];
} md_line;

/* The cells between the bars of a line, without the blanks around them. "\|" is a bar. */
static void split_cells(const char *line, const char *end, md_line *out) {
    out->n = 0;
    while (line < end && *line == '|' && out->n < MAX_CELLS) {
        char *to = out->cells[out->n];
        size_t length = 0;
        for (line++; line < end && *line != '|'; line++) {
            line += *line == '\\' && line + 1 < end && line[1] == '|';
            bool space = *line == ' ' || *line == '\r';
            if ((length || !space) && length + 1 < MAX_CELL) to[length++] = *line;
        }
        while (length && to[length - 1] == ' ') length--;
        to[length] = '\0';
        if (line < end) out->n++; /* what is behind the last bar is no cell */
    }
}

/* "4.36 GiB", "7.62 B": the number with its unit; as a whole number in text. */
static const char *whole_number(const reader *r, const char *cell) {
    static const struct {
        const char *name;
        double factor;
    } units[] = {{"GiB", 1073741824.0}, {"MiB", 1048576.0}, {"B", 1e9}, {"M", 1e6}};
    char *unit, text[40];
    double x = strtod(cell, &unit), factor = NAN;
    unit += strspn(unit, " ");
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (!strcmp(unit, units[i].name)) factor = units[i].factor;
    if (!(x * factor >= 0 && x * factor < 1e18)) return NULL;
    snprintf(text, sizeof text, "%.0f", x * factor);
    return arena_string(r->results->memory, text);
}

/* "pp512", "tg128", "pp512+tg128", each with " @ d4096" where there is a depth. Blanks as in older
 * versions: "pp 512". */
static int read_test(const reader *r, llama_test *t, const char *cell) {
    static const struct {
        const char *name;
        int column;
    } parts[] = {{"pp", LLAMA_n_prompt}, {"tg", LLAMA_n_gen}, {"d", LLAMA_n_depth}};
    const char *at = cell;
    while (*at) {
        int which = -1;
        at += strspn(at, " +@");
        for (size_t i = 0; i < sizeof parts / sizeof *parts && which < 0; i++)
            if (!strncmp(at, parts[i].name, strlen(parts[i].name))) {
                which = parts[i].column;
                at += strlen(parts[i].name);
            }
        at += strspn(at, " ");
        size_t n = strspn(at, "0123456789");
        if (which < 0 || !n) return reader_fail(r, "\"%s\" is no test, such as pp512 @ d128", cell);
        if (!(t->values[which] = arena_string_n(r->results->memory, at, n))) return -1;
        at += n;
    }
    return 0;
}

static int read_cells(reader *r, const md_line *names, const md_line *line, llama_test *t) {
    for (int i = 0; i < names->n; i++) {
        const char *name = names->cells[i], *cell = line->cells[i];
        bool speed = !strcmp(name, "t/s"); /* "1.00 ± 0.01" */
        int c = speed ? LLAMA_avg_ts : llama_find(name, true);
        if (!strcmp(name, "test")) {
            if (read_test(r, t, cell)) return -1;
        } else if (c == LLAMA_model_size || c == LLAMA_model_n_params) {
            t->values[c] = whole_number(r, cell);
        } else if (c >= 0) {
            t->values[c] =
                arena_string_n(r->results->memory, cell, speed ? strcspn(cell, " ") : strlen(cell));
            if (!t->values[c]) return -1;
        }
    }
    return 0;
}

static bool is_rule(const md_line *line) {
    return line->n && line->cells[0][0] == '-' && !line->cells[0][strspn(line->cells[0], "-:")];
}

static bool has_cell(const md_line *line, const char *text) {
    for (int i = 0; i < line->n; i++)
        if (!strcmp(line->cells[i], text)) return true;
    return false;
}

/* "build: COMMIT (NUMBER)" below a table is of all its lines. */
static int read_build(const reader *r, const char *line, const char *end, llama_tests *out, int64_t first) {
    static const char word[] = "build: ";
    size_t n = (size_t)(end - line), m = sizeof word - 1;
    if (n <= m || strncmp(line, word, m)) return 0;
    const char *blank = memchr(line + m, ' ', n - m);
    const char *build =
        arena_string_n(r->results->memory, line + m, blank ? (size_t)(blank - line) - m : n - m);
    for (int64_t i = first; i < out->n; i++) out->items[i].values[LLAMA_build_commit] = build;
    return build ? 0 : -1;
}

static int read_tables(reader *r, const char *text, const char *end, llama_tests *out, md_line *lines) {
    md_line *names = &lines[0], *line = &lines[1];
    int64_t first = 0; /* test of the table at hand */
    names->n = 0;
    for (const char *next; text < end; text = next) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        if (!line_end) return 0; /* cut off */
        next = line_end + 1;
        r->line++;
        if (read_build(r, text, line_end, out, first)) return -1;
        split_cells(text, line_end, line);
        if (!line->n || is_rule(line)) continue;
        if (has_cell(line, "test") && has_cell(line, "t/s")) {
            *names = *line;
            first = out->n;
            continue;
        }
        if (line->n != names->n) return reader_fail(r, "%d cells, where the table has %d", line->n, names->n);
        llama_test *t = llama_add(out);
        if (!t || read_cells(r, names, line, t)) return -1;
    }
    return 0;
}

int read_llama_md(reader *r, const char *text, size_t n, llama_tests *out) {
    md_line *lines = mem_new(2, sizeof *lines, "a table");
    int failed = lines ? read_tables(r, text, text + n, out, lines) : -1;
    free(lines);
    return failed;
}
