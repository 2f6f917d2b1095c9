/* read_sql.c - runs from the statements that the format sql writes, each INSERT with the names of
 * its columns. Nothing is executed: other statements are passed over, other forms are an error.
 */
#include "results/internal.h"

typedef struct sql {
    const char *at, *end;
    str word;
} sql;

static void skip_blanks(sql *q) {
    while (q->at < q->end && strchr(" \t\r\n", *q->at)) q->at++;
}

/* Takes the text if it comes next, in any case of letters. */
static bool take(sql *q, const char *text) {
    size_t n = strlen(text);
    skip_blanks(q);
    if ((size_t)(q->end - q->at) < n || strncasecmp(q->at, text, n)) return false;
    q->at += n;
    return true;
}

/* What stands between two quotes, of which a doubled one is one. */
static int take_quoted(sql *q, char quote) {
    str_clear(&q->word);
    str_append(&q->word, "", 0);
    for (q->at++; q->at < q->end; q->at++) {
        if (*q->at == quote && (q->at + 1 == q->end || q->at[1] != quote)) {
            q->at++;
            return q->word.failed ? -1 : 0;
        }
        q->at += *q->at == quote;
        str_append(&q->word, q->at, 1);
    }
    return -1;
}

/* A name, a number, a text, TRUE, FALSE or NULL (an empty word). -1 when there is none. */
static int take_word(sql *q, char quote) {
    skip_blanks(q);
    if (q->at < q->end && *q->at == quote) return take_quoted(q, quote);
    const char *from = q->at;
    while (q->at < q->end && !strchr(" \t\r\n,();'\"", *q->at)) q->at++;
    str_clear(&q->word);
    str_append(&q->word, from, (size_t)(q->at - from));
    if (q->word.length == 4 && !strcasecmp(q->word.data, "NULL")) str_clear(&q->word);
    return q->at == from || q->word.failed ? -1 : 0;
}

static int read_names(reader *r, sql *q, int *columns, int most) {
    bool taken[N_COLUMNS] = {0};
    int n = 0;
    do {
        if (n == most || take_word(q, '"'))
            return reader_fail(r, "an INSERT without the names of its columns");
        int c = columns[n++] = column_find(q->word.data);
        if (c >= 0 && taken[c]) return reader_fail(r, "column %s is there twice", q->word.data);
        if (c >= 0) taken[c] = true;
        r->results->other_columns |= c < 0;
    } while (take(q, ","));
    for (int c = 0; c < N_COLUMNS; c++) r->results->other_columns |= !taken[c];
    return n;
}

/* Behind INSERT INTO "runs". */
static int read_insert(reader *r, sql *q) {
    enum { MAX_COLUMNS = 4 * N_COLUMNS };
    int columns[MAX_COLUMNS], n = -1, i = 0;
    row *to = reader_add(r);
    if (!to) return -1;
    if (take(q, "(")) n = read_names(r, q, columns, MAX_COLUMNS);
    if (n < 0 || !take(q, ")") || !take(q, "VALUES") || !take(q, "("))
        return *error_message() ? -1 : reader_fail(r, "an INSERT that is not (columns) VALUES (values)");
    do {
        if (i == n || take_word(q, '\'')) return reader_fail(r, "an INSERT with a value that can't be read");
        int c = columns[i++];
        if (c >= 0 && column_table[c].kind == VALUE_BOOL)
            for (char *p = q->word.data; p && *p; p++) *p |= 0x20; /* TRUE */
        if (c >= 0 && read_text_cell(r, c, q->word.data ? q->word.data : "", &to->cells[c])) return -1;
    } while (take(q, ","));
    if (i != n || !take(q, ")") || !take(q, ";"))
        return reader_fail(r, "an INSERT with %d values for %d columns", i, n);
    return 0;
}

/* To behind the next semicolon that is in no quotes; false when there is none. */
static bool skip_statement(sql *q) {
    for (; q->at < q->end; q->at++) {
        if (*q->at == ';') return q->at++, true;
        if (*q->at != '"' && *q->at != '\'') continue;
        if (take_quoted(q, *q->at)) return false;
        q->at--;
    }
    return false;
}

int read_sql(reader *r, const char *text, size_t n) {
    sql q = {.at = text, .end = text + n};
    int failed = 0;
    for (r->line = 1; !failed; r->line++) { /* of statements: they are a line each */
        skip_blanks(&q);
        const char *start = q.at;
        if (q.at == q.end) break;
        bool whole = skip_statement(&q);
        if (!whole) break; /* the last one, cut off */
        q.at = start;
        if (take(&q, "INSERT INTO") && !take_word(&q, '"') && !strcasecmp(q.word.data, "runs"))
            failed = read_insert(r, &q);
        else
            skip_statement(&q);
    }
    failed |= q.word.failed;
    str_free(&q.word);
    return failed ? -1 : 0;
}

bool is_sql(const char *text, size_t n) {
    sql q = {.at = text, .end = text + n};
    return take(&q, "CREATE TABLE") || take(&q, "INSERT INTO") || take(&q, "BEGIN");
}
