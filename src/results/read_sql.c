/* read_sql.c - runs from the statements that the format sql writes, each INSERT with the names of
 * its columns. Other forms of an INSERT are an error.
 */
#include "results/internal.h"

static int read_names(reader *r, sql_text *q, int *columns, int most) {
    bool taken[N_COLUMNS] = {0};
    int n = 0;
    do {
        if (n == most || sql_word(q, '"'))
            return reader_fail(r, "an INSERT without the names of its columns");
        int c = columns[n++] = column_find(q->word.data);
        if (c >= 0 && taken[c]) return reader_fail(r, "column %s is there twice", q->word.data);
        if (c >= 0) taken[c] = true;
        r->results->other_columns |= c < 0;
    } while (sql_take(q, ","));
    for (int c = 0; c < N_COLUMNS; c++) r->results->other_columns |= !taken[c];
    return n;
}

/* Behind INSERT INTO "runs". */
static int read_insert(reader *r, sql_text *q) {
    enum { MAX_COLUMNS = 4 * N_COLUMNS };
    int columns[MAX_COLUMNS], n = -1, i = 0;
    row *to = reader_add(r);
    if (!to) return -1;
    if (sql_take(q, "(")) n = read_names(r, q, columns, MAX_COLUMNS);
    if (n < 0 || !sql_take(q, ")") || !sql_take(q, "VALUES") || !sql_take(q, "("))
        return *error_message() ? -1 : reader_fail(r, "an INSERT that is not (columns) VALUES (values)");
    do {
        if (i == n || sql_word(q, '\'')) return reader_fail(r, "an INSERT with a value that can't be read");
        int c = columns[i++];
        if (c >= 0 && column_table[c].kind == VALUE_BOOL)
            for (char *p = q->word.data; p && *p; p++) *p |= 0x20; /* TRUE */
        if (c >= 0 && read_text_cell(r, c, q->word.data ? q->word.data : "", &to->cells[c])) return -1;
    } while (sql_take(q, ","));
    if (i != n || !sql_take(q, ")") || !sql_take(q, ";"))
        return reader_fail(r, "an INSERT with %d values for %d columns", i, n);
    return 0;
}

static int read_statement(reader *r, sql_text *q, void *context) {
    (void)context;
    if (!sql_take(q, "INSERT INTO") || sql_word(q, '"') || strcasecmp(q->word.data, "runs")) return 0;
    return read_insert(r, q);
}

int read_sql(reader *r, const char *text, size_t n) {
    return sql_each(r, text, n, read_statement, NULL);
}
