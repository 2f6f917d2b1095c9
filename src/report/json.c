/* json.c - one object: {"schema", "machine", "runs", "summaries"}; a row's members are its columns,
 * unset ones null. Each row is out as soon as it is measured. In a file the lists are closed after
 * every row, elsewhere at the end.
 */
#include "report/format.h"

#include <math.h>

void put_json_columns(str *out, const row *r, int first, int last) {
    for (int c = first; c <= last; c++) {
        value v = r->cells[c];
        str_printf(out, "%s\"%s\": ", c > first ? ", " : "", column_table[c].name);
        if (v.kind == VALUE_TEXT)
            json_quote(out, v.text);
        else
            value_put(out, v, v.decimals, "null");
    }
}

static void put_number(str *out, const char *name, double number, int decimals) {
    str_printf(out, isfinite(number) ? ", \"%s\": %.*f" : ", \"%s\": null", name, decimals, number);
}

/* With more decimals than the metric has, since a mean lies between its values. */
void put_json_spreads(str *out, const row *r) {
    const char *before = "";
    str_puts(out, ", \"spreads\": {");
    for (int i = 0; i < N_METRICS; i++) {
        const column *about = &column_table[COLUMN_FIRST_METRIC + i];
        const spread *s = &r->spreads[i];
        int decimals = about->decimals + 3;
        if (about->summing != MEDIAN) continue;
        str_printf(out, "%s\"%s\": {\"n\": %lld", before, about->name, (long long)s->n);
        put_number(out, "median", s->median, decimals);
        put_number(out, "low", s->low, decimals);
        put_number(out, "high", s->high, decimals);
        put_number(out, "mean", s->mean, decimals);
        put_number(out, "sd", s->sd, decimals);
        put_number(out, "min", s->min, decimals);
        put_number(out, "max", s->max, decimals);
        str_printf(out, ", \"outliers\": %lld}", (long long)s->outliers);
        before = ", ";
    }
    str_puts(out, "}");
}

static void begin(output *o) {
    str_printf(&o->text, "{\"schema\": %d,\n", RESULTS_SCHEMA);
}

/* What stands before and between the two lists. */
static void open_lists(output *o, const row *first) {
    str_puts(&o->text, "\"machine\": {");
    put_json_columns(&o->text, first, COLUMN_hw_model, COLUMN_os);
    str_puts(&o->text, "},\n\"runs\": [");
    str_puts(&o->parts[0], "\n],\n\"summaries\": [");
}

static void put_row(output *o, const row *r) {
    bool run = r->kind == ROW_RUN;
    str *to = run ? &o->text : &o->parts[0];
    if (!o->n_runs && !o->n_summaries) open_lists(o, r);
    str_puts(to, (run ? o->n_runs : o->n_summaries) ? ",\n{" : "\n{");
    put_json_columns(to, r, 0, N_COLUMNS - 1);
    if (!run) put_json_spreads(to, r);
    str_puts(to, "}");
}

static void end(output *o) {
    bool rows = o->n_runs || o->n_summaries;
    str_puts(&o->text, rows ? "\n]}\n" : "\"machine\": null, \"runs\": [], \"summaries\": []}\n");
}

const format format_json = {.readable = true, .begin = begin, .row = put_row, .end = end};
