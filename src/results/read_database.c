/* read_database.c - runs from the table "runs" of an SQLite file, in the order in which they were
 * written. Columns that are not ours are left out.
 */
#include "results/internal.h"
#include "results/sqlite.h"

static int fail_kind(const reader *r, int c) {
    return reader_fail(r, "row %lld, column %s: a value of a wrong kind", (long long)r->results->n,
                       column_table[c].name);
}

static int read_cell(reader *r, sqlite3_stmt *from, int i, int c, value *out) {
    const sqlite *s = sqlite_library();
    int type = s->column_type(from, i);
    if (type == SQLITE_NULL) return 0;
    switch (column_table[c].kind) {
    case VALUE_TEXT: {
        const char *text = type == SQLITE_TEXT ? (const char *)s->column_text(from, i) : NULL;
        if (!text) return fail_kind(r, c);
        if (!*text) return 0;
        *out = (value){.kind = VALUE_TEXT, .text = arena_string(r->results->memory, text)};
        return out->text ? 0 : -1;
    }
    case VALUE_NUMBER:
        *out = (value){.kind = VALUE_NUMBER, .number = s->column_int64(from, i)};
        return type == SQLITE_INTEGER ? 0 : fail_kind(r, c);
    case VALUE_REAL:
        *out = value_of_real(s->column_double(from, i), column_table[c].decimals);
        return type == SQLITE_FLOAT || type == SQLITE_INTEGER ? 0 : fail_kind(r, c);
    case VALUE_BOOL:
        *out = (value){.kind = VALUE_BOOL, .number = s->column_int64(from, i)};
        return type == SQLITE_INTEGER && (out->number | 1) == 1 ? 0 : fail_kind(r, c);
    case VALUE_NONE:
        break;
    }
    return 0;
}

static int read_rows(reader *r, sqlite3 *db, const bool has[N_COLUMNS]) {
    const sqlite *s = sqlite_library();
    sqlite3_stmt *from = NULL;
    int columns[N_COLUMNS], n = 0, failed = 0, status = SQLITE_DONE;
    str sql = {0};
    for (int c = 0; c < N_COLUMNS; c++) {
        if (!has[c]) continue;
        str_printf(&sql, "%s\"%s\"", n ? ", " : "SELECT ", column_table[c].name);
        columns[n++] = c;
    }
    str_puts(&sql, " FROM \"runs\" ORDER BY rowid");
    if (sql.failed || s->prepare_v2(db, sql.data, -1, &from, NULL) != SQLITE_OK)
        failed = sqlite_fail(db, r->name, "read");
    while (!failed && (status = s->step(from)) == SQLITE_ROW) {
        row *to = reader_add(r);
        if (!to) failed = -1;
        for (int i = 0; i < n && !failed; i++)
            failed = read_cell(r, from, i, columns[i], &to->cells[columns[i]]);
    }
    if (!failed && status != SQLITE_DONE) failed = sqlite_fail(db, r->name, "read");
    s->finalize(from);
    str_free(&sql);
    return failed;
}

int read_database(reader *r) {
    bool has[N_COLUMNS], others;
    sqlite3 *db = sqlite_open(r->name, SQLITE_OPEN_READWRITE); /* to undo what a killed program had begun */
    if (!db) return -1;
    int n = table_columns(db, r->name, has, &others), failed = n < 0 ? -1 : 0;
    if (!failed && (!has[COLUMN_run] || !has[COLUMN_configuration]))
        failed = reader_fail(
            r, "not a result file: it has no table \"runs\" with the columns run and configuration");
    r->results->other_columns = others;
    for (int c = 0; c < N_COLUMNS; c++) r->results->other_columns |= !has[c];
    if (!failed) failed = read_rows(r, db, has);
    sqlite_library()->close(db);
    return failed;
}
