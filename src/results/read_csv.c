/* read_csv.c - runs from CSV (RFC 4180) with our columns in any order; columns of others are left
 * out. A last line that a killed program left unfinished is left out, too.
 */
#include "results/internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

int csv_next(csv *c) {
    str_clear(&c->field);
    str_append(&c->field, "", 0);
    bool quoted = c->at < c->end && *c->at == '"';
    c->at += quoted;
    for (; c->at < c->end; c->at++) {
        if (quoted && *c->at == '"') {
            if (c->at + 1 == c->end || c->at[1] != '"') break;
            c->at++;
        } else if (!quoted && strchr(",\r\n", *c->at)) {
            break;
        }
        str_append(&c->field, c->at, 1);
    }
    if (quoted && c->at++ == c->end) return -1;
    if (c->at + 1 < c->end && c->at[0] == '\r' && c->at[1] == '\n') c->at++;
    bool comma = c->at < c->end && *c->at == ',';
    c->whole = c->at < c->end && *c->at == '\n';
    c->line_ended = !comma;
    if (!comma && !c->whole && c->at < c->end) return -1; /* text after a closing quote */
    if (c->at < c->end) c->at++;
    return c->field.failed ? -1 : 0;
}

static int fail_cell(const reader *r, int c, const char *text, const char *what) {
    return reader_fail(r, "column %s: \"%.40s\" is not %s", column_table[c].name, text, what);
}

int read_text_cell(reader *r, int c, const char *text, value *out) {
    char *end;
    if (!*text) return 0;
    errno = 0;
    switch (column_table[c].kind) {
    case VALUE_TEXT:
        *out = (value){.kind = VALUE_TEXT, .text = arena_string(r->results->memory, text)};
        return out->text ? 0 : -1;
    case VALUE_NUMBER:
        *out = (value){.kind = VALUE_NUMBER, .number = strtoll(text, &end, 10)};
        return *end || errno ? fail_cell(r, c, text, "a whole number") : 0;
    case VALUE_REAL:
        *out = value_of_real(strtod(text, &end), column_table[c].decimals);
        return *end || out->kind == VALUE_NONE ? fail_cell(r, c, text, "a number") : 0;
    case VALUE_BOOL:
        *out = (value){.kind = VALUE_BOOL, .number = !strcmp(text, "true")};
        return out->number || !strcmp(text, "false") ? 0 : fail_cell(r, c, text, "true or false");
    case VALUE_NONE:
        break;
    }
    return 0;
}

/* Which column each field belongs to; -1: none of ours. Returns how many fields there are; -1 on
 * error. */
static int read_header(reader *r, csv *c, int *columns, int max) {
    bool taken[N_COLUMNS] = {0};
    int n = 0;
    do {
        if (csv_next(c) || n == max)
            return reader_fail(r, "not a result file: its first line names no columns");
        columns[n] = column_find(c->field.data);
        if (columns[n] >= 0 && taken[columns[n]])
            return reader_fail(r, "column %s is there twice", c->field.data);
        if (columns[n] >= 0) taken[columns[n]] = true;
        if (columns[n] < 0) r->results->other_columns = true;
        n++;
    } while (!c->line_ended);
    if (!taken[COLUMN_run] || !taken[COLUMN_configuration])
        return reader_fail(r, "not a result file: its first line lacks the columns run and configuration");
    for (int i = 0; i < N_COLUMNS; i++) r->results->other_columns |= !taken[i];
    return n;
}

static int read_lines(reader *r, csv *c) {
    enum { MAX_FIELDS = 4 * N_COLUMNS };
    int columns[MAX_FIELDS], n = read_header(r, c, columns, MAX_FIELDS);
    if (n < 0) return -1;
    while (c->at < c->end) {
        row *to = reader_add(r);
        int i = 0, failed = 0;
        r->line++;
        if (!to) return -1;
        do {
            failed = csv_next(c) ? reader_fail(r, "a quoted field has no end") : 0;
            if (!failed && i < n && columns[i] >= 0)
                failed = read_text_cell(r, columns[i], c->field.data, &to->cells[columns[i]]);
            i++;
        } while (!failed && !c->line_ended);
        if (!failed && i != n) failed = reader_fail(r, "%d fields, where the first line has %d", i, n);
        if (!failed) continue;
        if (c->at < c->end || c->whole) return -1;
        error_clear(); /* the last line, cut off */
        r->results->n--;
    }
    return 0;
}

int read_csv(reader *r, const char *text, size_t n) {
    csv c = {.at = text, .end = text + n};
    r->line = 1;
    int failed = read_lines(r, &c);
    failed |= c.field.failed;
    str_free(&c.field);
    return failed ? -1 : 0;
}
