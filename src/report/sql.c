/* sql.c - statements that make a table of runs: sqlite3, DuckDB and PostgreSQL read them. And the
 * format sqlite, whose rows results/ puts into a database.
 */
#include "report/format.h"

static void begin(output *o) {
    put_create_table(&o->text);
    str_puts(&o->text, ";\n");
}

static void put_text(str *out, const char *text) {
    str_puts(out, "'");
    for (; *text; text++) str_printf(out, *text == '\'' ? "%c%c" : "%c", *text, *text);
    str_puts(out, "'");
}

static void put_row(output *o, const row *r) {
    if (r->kind != ROW_RUN) return;
    str_puts(&o->text, "INSERT INTO \"runs\" (");
    for (int c = 0; c < N_COLUMNS; c++) str_printf(&o->text, "%s\"%s\"", c ? ", " : "", column_table[c].name);
    str_puts(&o->text, ") VALUES (");
    for (int c = 0; c < N_COLUMNS; c++) {
        value v = r->cells[c];
        str_puts(&o->text, c ? ", " : "");
        if (v.kind == VALUE_TEXT)
            put_text(&o->text, v.text);
        else if (v.kind == VALUE_BOOL)
            str_puts(&o->text, v.number ? "TRUE" : "FALSE");
        else
            value_put(&o->text, v, v.decimals, "NULL");
    }
    str_puts(&o->text, ");\n");
}

const format format_sql = {.readable = true, .begin = begin, .row = put_row};

/* report.c hands its rows to a run_table. */
const format format_sqlite = {.readable = true};
