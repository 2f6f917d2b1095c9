/* json.c - one array with an object per row; its members are the columns, unset ones null.
 * Each row is out as soon as it is measured. In a file the array is closed after every row, elsewhere at the
 * end. */
#include "report/format.h"

void put_json_columns(str *out, const record *r) {
    for (int c = 0; c < N_COLUMNS; c++) {
        value v = record_value(r, c);
        str_printf(out, "%s\"%s\": ", c ? ", " : "{", column_name(c));
        if (v.kind == VALUE_TEXT)
            json_quote(out, v.text);
        else
            put_value(out, v, v.decimals, "null");
    }
}

static void begin(output *o) {
    str_puts(&o->text, "[");
}

static void row(output *o, const record *r) {
    str_puts(&o->text, o->n_rows ? ",\n" : "\n");
    put_json_columns(&o->text, r);
    str_puts(&o->text, "}");
}

static void end(output *o) {
    str_puts(&o->text, o->n_rows ? "\n]\n" : "]\n");
}

const format format_json = {begin, row, end};
