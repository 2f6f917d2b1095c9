/* csv.c - the default format, a line per run: the original mlxbench's first six columns, then every
 * other column. Values with a comma, a quote or a line break are quoted (RFC 4180); an unset value
 * is empty. */
#include "report/format.h"

enum { ALL_DECIMALS = 9 };

static const int first_columns[] = {COLUMN_run,
                                    COLUMN_prompt_tokens,
                                    COLUMN_prompt_tps,
                                    COLUMN_generation_tokens,
                                    COLUMN_generation_tps,
                                    COLUMN_peak_memory_gb};
enum { N_FIRST = sizeof first_columns / sizeof *first_columns };

void put_csv_text(str *out, const char *text) {
    if (!text[strcspn(text, ",\"\r\n")]) {
        str_puts(out, text);
        return;
    }
    str_puts(out, "\"");
    for (; *text; text++) str_printf(out, *text == '"' ? "%c%c" : "%c", *text, *text);
    str_puts(out, "\"");
}

void put_csv(str *out, const row *r, const int *columns, int n, int decimals, const char *none) {
    str field = {0};
    for (int i = 0; i < n; i++) {
        str_clear(&field);
        if (r)
            value_put(&field, r->cells[columns[i]], decimals, none);
        else
            str_puts(&field, column_table[columns[i]].name);
        if (i) str_puts(out, ",");
        put_csv_text(out, field.data ? field.data : "");
    }
    str_puts(out, "\n");
    out->failed |= field.failed;
    str_free(&field);
}

static void put_line(str *out, const row *r) {
    int columns[N_COLUMNS], n = 0;
    bool taken[N_COLUMNS] = {0};
    for (; n < N_FIRST; n++) {
        columns[n] = first_columns[n];
        taken[columns[n]] = true;
    }
    for (int c = 0; c < N_COLUMNS; c++)
        if (!taken[c]) columns[n++] = c;
    put_csv(out, r, columns, n, ALL_DECIMALS, "");
}

static void begin(output *o) {
    put_line(&o->text, NULL);
}

static void put_row(output *o, const row *r) {
    if (r->kind == ROW_RUN) put_line(&o->text, r);
}

const format format_csv = {.readable = true, .begin = begin, .row = put_row};
