/* benchfmt.c - Go's benchmark format, which benchstat and its like read: two lines a run, one for
 * the prompt, one for generation, an operation being a token. Source: golang.org/design/14313-
 * benchmark-format, golang.org/x/perf/benchfmt.
 */
#include "report/format.h"

/* Bytes of the blank at `text`, of all that end a field; 0: none stands there. */
static size_t blank_at(const char *text) {
    static const char *const blanks[] = {
        " ",      "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
        "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000",
    };
    for (size_t i = 0; i < sizeof blanks / sizeof *blanks; i++) {
        size_t n = strlen(blanks[i]);
        if (!strncmp(text, blanks[i], n)) return n;
    }
    return 0;
}

/* "key=value" parts of a name are divided by slashes and end at a blank; the whole is UTF-8. */
static void put_part(str *out, const char *name, const row *r, int which) {
    str cell = {0}, text = {0};
    value_put(&cell, r->cells[which], 3, "none");
    str_put_printable(&text, cell.data ? cell.data : "");
    str_printf(out, "/%s=", name);
    for (const char *c = text.data ? text.data : ""; *c;) {
        size_t blank = blank_at(c);
        str_append(out, blank || *c == '/' ? "_" : c, 1);
        c += blank ? blank : 1;
    }
    out->failed |= cell.failed || text.failed;
    str_free(&cell);
    str_free(&text);
}

static void put_line(str *out, const row *r, const bool *varies, const char *name, value tokens, double tps) {
    value batch = r->cells[COLUMN_batch];
    double n = tokens.kind == VALUE_REAL ? tokens.real : 1;
    if (batch.kind == VALUE_NUMBER) n *= (double)batch.number;
    str_printf(out, "Benchmark%s", name);
    for (int c = COLUMN_FIRST_PARAM; c < COLUMN_FIRST_METRIC; c++)
        if (varies[c]) put_part(out, column_table[c].name, r, c);
    str_printf(out, " %.0f %.1f ns/op %.3f tokens/s\n", n, 1e9 / tps, tps);
}

void put_benchfmt(str *out, const row *run, const bool varies[N_COLUMNS]) {
    value prompt = run->cells[COLUMN_prompt_tps], generation = run->cells[COLUMN_generation_tps],
          n = run->cells[COLUMN_generation_tokens];
    if (n.kind == VALUE_REAL) n.real -= 1; /* the first token is the prompt's */
    if (prompt.kind == VALUE_REAL)
        put_line(out, run, varies, "Prompt", run->cells[COLUMN_prompt_tokens], prompt.real);
    if (generation.kind == VALUE_REAL) put_line(out, run, varies, "Generation", n, generation.real);
}

void put_benchfmt_units(str *out) {
    str_puts(out, "Unit tokens/s better=higher\n");
}

static void put_key(str *out, const char *key, const row *r, int which) {
    if (r->cells[which].kind != VALUE_TEXT) return;
    str_printf(out, "%s: ", key);
    str_put_printable(out, r->cells[which].text);
    str_puts(out, "\n");
}

static void begin(output *o) {
    put_benchfmt_units(&o->text);
}

/* Keys as `go test` has them, before the first line. */
static void put_row(output *o, const row *r) {
    if (r->kind != ROW_RUN) return;
    if (!o->n_written++) {
        put_key(&o->text, "os", r, COLUMN_os);
        put_key(&o->text, "cpu", r, COLUMN_chip);
    }
    put_benchfmt(&o->text, r, o->sweep->varies);
}

const format format_benchfmt = {.begin = begin, .row = put_row};

void report_benchfmt(str *out, const char *const *names, const results *files, int n) {
    bool varies[N_COLUMNS] = {false};
    for (int i = 0; i < n; i++)
        for (int c = 0; c < N_COLUMNS; c++) varies[c] |= files[i].sweep.varies[c];
    put_benchfmt_units(out);
    for (int i = 0; i < n; i++) {
        str_puts(out, "results: ");
        str_put_printable(out, names[i]);
        str_puts(out, "\n");
        for (int64_t k = 0; k < files[i].n; k++) put_benchfmt(out, &files[i].runs[k], varies);
    }
}
