/* read_llama_sql.c - llama-bench's tests from SQL: what `llama-bench -o sql` writes, and what
 * sqlite3's .dump makes of that. Only INSERT INTO llama_bench counts; CREATE TABLE names the
 * columns of those that name none.
 */
#include "results/internal.h"

enum { MAX_NAMES = 4 * N_LLAMA };

typedef struct table {
    llama_tests *tests;
    int names[MAX_NAMES], n_names; /* llama-bench's columns in the table's order; -1: another one */
} table;

static bool takes_table(sql_text *q) {
    return !sql_word(q, '"') && !strcasecmp(q->word.data, "llama_bench");
}

/* "(a TEXT, b INTEGER)" or "(a, b)". */
static int read_names(reader *r, sql_text *q, table *t) {
    t->n_names = 0;
    if (!sql_take(q, "(")) return reader_fail(r, "a table without the names of its columns");
    do {
        if (t->n_names == MAX_NAMES || sql_word(q, '"'))
            return reader_fail(r, "a table without the names of its columns");
        t->names[t->n_names++] = llama_find(q->word.data, false);
        while (q->at < q->end && !strchr(",);", *q->at)) q->at++; /* the type */
    } while (sql_take(q, ","));
    return sql_take(q, ")") ? 0 : reader_fail(r, "a table's columns have no end");
}

/* "('a', 2, NULL)" */
static int read_values(reader *r, sql_text *q, const table *t) {
    llama_test *to = llama_add(t->tests);
    int i = 0;
    if (!to) return -1;
    if (!sql_take(q, "(")) return reader_fail(r, "an INSERT that has no VALUES (values)");
    do {
        if (i == t->n_names || sql_word(q, '\''))
            return reader_fail(r, "an INSERT with a value that can't be read, behind %d of %d", i,
                               t->n_names);
        int c = t->names[i++];
        const char *text = q->word.data ? q->word.data : "";
        if (c >= 0 && !(to->values[c] = arena_string(r->results->memory, text))) return -1;
    } while (sql_take(q, ","));
    if (i != t->n_names || !sql_take(q, ")"))
        return reader_fail(r, "an INSERT with %d values for %d columns", i, t->n_names);
    return 0;
}

static int read_statement(reader *r, sql_text *q, void *context) {
    table *t = context;
    if (sql_take(q, "CREATE TABLE")) {
        sql_take(q, "IF NOT EXISTS");
        return takes_table(q) ? read_names(r, q, t) : 0;
    }
    if (!sql_take(q, "INSERT INTO") || !takes_table(q)) return 0;
    bool named = !sql_take(q, "VALUES");
    if (named && read_names(r, q, t)) return -1;
    if (named && !sql_take(q, "VALUES")) return reader_fail(r, "an INSERT that has no VALUES (values)");
    do {
        if (read_values(r, q, t)) return -1;
    } while (sql_take(q, ","));
    return sql_take(q, ";") ? 0 : reader_fail(r, "an INSERT with more than VALUES (values)");
}

int read_llama_sql(reader *r, const char *text, size_t n, llama_tests *out) {
    table t = {.tests = out};
    return sql_each(r, text, n, read_statement, &t);
}
