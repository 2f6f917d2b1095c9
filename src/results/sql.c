/* sql.c - statements of SQL as text: words, texts in quotes, and where a statement ends. Nothing is
 * executed.
 */
#include "results/internal.h"

static void skip_blanks(sql_text *q) {
    while (q->at < q->end && strchr(" \t\r\n", *q->at)) q->at++;
}

bool sql_take(sql_text *q, const char *text) {
    size_t n = strlen(text);
    skip_blanks(q);
    if ((size_t)(q->end - q->at) < n || strncasecmp(q->at, text, n)) return false;
    q->at += n;
    return true;
}

/* What stands between two quotes, of which a doubled one is one. */
static int take_quoted(sql_text *q, char quote) {
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

int sql_word(sql_text *q, char quote) {
    skip_blanks(q);
    if (q->at < q->end && *q->at == quote) return take_quoted(q, quote);
    const char *from = q->at;
    while (q->at < q->end && !strchr(" \t\r\n,();'\"", *q->at)) q->at++;
    str_clear(&q->word);
    str_append(&q->word, from, (size_t)(q->at - from));
    if (q->word.length == 4 && !strcasecmp(q->word.data, "NULL")) str_clear(&q->word);
    return q->at == from || q->word.failed ? -1 : 0;
}

/* To behind the next semicolon that is in no quotes; false when there is none. */
static bool skip_statement(sql_text *q) {
    for (; q->at < q->end; q->at++) {
        if (*q->at == ';') return q->at++, true;
        if (*q->at != '"' && *q->at != '\'') continue;
        if (take_quoted(q, *q->at)) return false;
        q->at--;
    }
    return false;
}

int sql_each(reader *r, const char *text, size_t n, int (*statement)(reader *r, sql_text *q, void *context),
             void *context) {
    sql_text q = {.at = text, .end = text + n};
    int failed = 0;
    r->line = 1;
    for (const char *counted = text; !failed;) {
        skip_blanks(&q);
        for (; counted < q.at; counted++) r->line += *counted == '\n';
        const char *start = q.at;
        if (q.at == q.end || !skip_statement(&q)) break; /* the last one, cut off */
        const char *next = q.at;
        q.at = start;
        failed = statement(r, &q, context);
        q.at = next;
    }
    failed |= q.word.failed;
    str_free(&q.word);
    return failed ? -1 : 0;
}

bool is_sql(const char *text, size_t n) {
    sql_text q = {.at = text, .end = text + n};
    return sql_take(&q, "CREATE TABLE") || sql_take(&q, "INSERT INTO") || sql_take(&q, "BEGIN") ||
           sql_take(&q, "PRAGMA");
}
