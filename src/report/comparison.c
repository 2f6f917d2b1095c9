/* comparison.c - what results_compare found, as a table for people (text, md) or for programs (csv,
 * json). A change that may be chance is "~", so that nobody takes noise for news.
 */
#include "report/format.h"

#include <math.h>

enum { N_CELLS = 9 };
static const char *const titles[N_CELLS] = {"configuration", "metric", "before", "after",  "change",
                                            "95 % interval", "p",      "n",      "quality"};

void put_configuration(str *out, const comparison *c, const row *r) {
    size_t start = out->length;
    for (int i = COLUMN_FIRST_PARAM; i < N_COLUMNS; i++) {
        if (!c->varies[i] || (i >= COLUMN_FIRST_METRIC && i != COLUMN_program)) continue;
        str_printf(out, "%s%s ", out->length > start ? ", " : "", column_table[i].name);
        value_put(out, r->cells[i], 3, "none");
    }
    if (out->length == start) value_put(out, r->cells[COLUMN_model], 0, "all");
}

static double percent(double ratio) {
    return 100 * (ratio - 1);
}

static const char *verdict(const comparison *c, const difference *d) {
    if (c->only_quiet && difference_is_disturbed(d)) return "not comparable";
    return !difference_is_sure(d) ? "~" : d->ratio > 1 ? "faster" : "slower";
}

static void put_change(str *out, const comparison *c, const difference *d) {
    const char *found = verdict(c, d);
    if (!strcmp(found, "faster") || !strcmp(found, "slower"))
        str_printf(out, "%+.1f %%", percent(d->ratio));
    else
        str_puts(out, found);
}

/* "A, D", of both sides; nothing where neither is known. */
static void put_grades(str *out, const difference *d) {
    if (d->grade_a || d->grade_b)
        str_printf(out, "%c, %c", d->grade_a ? d->grade_a : '?', d->grade_b ? d->grade_b : '?');
}

static void put_cell(str *out, const comparison *c, const difference *d, int cell) {
    int decimals = column_table[d->column].decimals;
    bool interval = isfinite(d->low);
    if (cell == 0) put_configuration(out, c, d->of);
    if (cell == 1) str_puts(out, column_table[d->column].name);
    if (cell == 2) str_printf(out, "%.*f", decimals, d->a.median);
    if (cell == 3) str_printf(out, "%.*f", decimals, d->b.median);
    if (cell == 4) put_change(out, c, d);
    if (cell == 5 && interval) str_printf(out, "%+.1f %% to %+.1f %%", percent(d->low), percent(d->high));
    if (cell == 6) str_printf(out, "%.4f", d->p_holm);
    if (cell == 7) str_printf(out, "%lld + %lld", (long long)d->a.n, (long long)d->b.n);
    if (cell == 8) put_grades(out, d);
}

static void put_mean(str *out, const mean_change *m, int cell) {
    if (cell == 0) str_puts(out, "geometric mean");
    if (cell == 1) str_puts(out, column_table[m->column].name);
    if (cell == 4) str_printf(out, "%+.1f %%", percent(m->ratio));
}

/* ---- for people ---- */

/* Cell of a line: the titles are line -1, differences follow, then means. */
static void put(str *out, const comparison *c, int64_t line, int cell) {
    if (line < 0) str_puts(out, titles[cell]);
    if (line >= 0 && line < c->n) put_cell(out, c, &c->items[line], cell);
    if (line >= c->n) put_mean(out, &c->means[line - c->n], cell);
}

static void put_rule(str *out, const int *widths) {
    for (int cell = 0; cell < N_CELLS; cell++) {
        str_puts(out, "| ");
        for (int i = 0; i < widths[cell] - 1; i++) str_puts(out, "-");
        str_puts(out, cell > 1 ? ": " : "- ");
    }
    str_puts(out, "|\n");
}

static void put_table(str *out, const comparison *c, bool md) {
    int widths[N_CELLS] = {0};
    str text = {0};
    for (int pass = 0; pass < 2; pass++) { /* the first measures */
        for (int64_t line = -1; line < c->n + N_COMPARED; line++) {
            if (line >= c->n && c->means[line - c->n].n < 2) continue;
            for (int cell = 0; cell < N_CELLS; cell++) {
                str_clear(&text);
                str_puts(&text, "");
                put(&text, c, line, cell);
                int width = text.data ? text_width(text.data) : 0, space = widths[cell] - width;
                if (!pass && width > widths[cell]) widths[cell] = width;
                if (!pass) continue;
                str_puts(out, md ? "| " : cell ? "  " : "");
                str_printf(out, "%*s%s", cell > 1 ? space : 0, "", text.data ? text.data : "");
                str_printf(out, "%*s%s", cell > 1 ? 0 : space, "", md ? " " : "");
            }
            if (pass) str_puts(out, md ? "|\n" : "\n");
            if (pass && md && line < 0) put_rule(out, widths);
        }
    }
    out->failed |= text.failed;
    str_free(&text);
}

/* ---- for programs ---- */

static void put_real(str *out, const char *before, double x, const char *none) {
    str_puts(out, before);
    if (isfinite(x))
        str_printf(out, "%.9g", x);
    else
        str_puts(out, none);
}

static void put_csv_lines(str *out, const char *a, const char *b, const comparison *c) {
    for (int64_t i = 0; i < c->n; i++) {
        const difference *d = &c->items[i];
        str label = {0};
        put_configuration(&label, c, d->of);
        put_csv_text(out, a);
        str_puts(out, ",");
        put_csv_text(out, b);
        str_puts(out, ",");
        put_csv_text(out, label.data ? label.data : "");
        str_printf(out, ",%s,%lld,%lld", column_table[d->column].name, (long long)d->a.n, (long long)d->b.n);
        put_real(out, ",", d->a.median, "");
        put_real(out, ",", d->b.median, "");
        put_real(out, ",", d->ratio, "");
        put_real(out, ",", d->low, "");
        put_real(out, ",", d->high, "");
        put_real(out, ",", d->p, "");
        put_real(out, ",", d->p_holm, "");
        str_printf(out, ",%s,%.1s,%.1s\n", verdict(c, d), &d->grade_a, &d->grade_b);
        out->failed |= label.failed;
        str_free(&label);
    }
}

static void put_grade(str *out, const char *name, char grade) {
    str_printf(out, grade ? ", \"%s\": \"%c\"" : ", \"%s\": null", name, grade);
}

static void put_json_lines(str *out, const char *a, const char *b, const comparison *c, bool first) {
    for (int64_t i = 0; i < c->n; i++) {
        const difference *d = &c->items[i];
        str label = {0};
        put_configuration(&label, c, d->of);
        str_puts(out, first && !i ? "\n{\"before\": " : ",\n{\"before\": ");
        json_quote(out, a);
        str_puts(out, ", \"after\": ");
        json_quote(out, b);
        str_puts(out, ", \"configuration\": ");
        json_quote(out, label.data ? label.data : "");
        str_printf(out, ", \"metric\": \"%s\", \"n_before\": %lld, \"n_after\": %lld",
                   column_table[d->column].name, (long long)d->a.n, (long long)d->b.n);
        put_real(out, ", \"median_before\": ", d->a.median, "null");
        put_real(out, ", \"median_after\": ", d->b.median, "null");
        put_real(out, ", \"ratio\": ", d->ratio, "null");
        put_real(out, ", \"low\": ", d->low, "null");
        put_real(out, ", \"high\": ", d->high, "null");
        put_real(out, ", \"p\": ", d->p, "null");
        put_real(out, ", \"p_holm\": ", d->p_holm, "null");
        str_printf(out, ", \"verdict\": \"%s\"", verdict(c, d));
        put_grade(out, "quality_before", d->grade_a);
        put_grade(out, "quality_after", d->grade_b);
        str_puts(out, "}");
        out->failed |= label.failed;
        str_free(&label);
    }
}

int report_comparison(str *out, const char *form, const char *a, const char *b, const comparison *c,
                      bool first) {
    bool md = !strcmp(form, "md");
    if (!strcmp(form, "csv")) {
        if (first)
            str_puts(out, "before,after,configuration,metric,n_before,n_after,median_before,median_after,"
                          "ratio,low,high,p,"
                          "p_holm,verdict,quality_before,quality_after\n");
        put_csv_lines(out, a, b, c);
    } else if (!strcmp(form, "json")) {
        if (first) str_puts(out, "[");
        put_json_lines(out, a, b, c, first);
    } else if (!strcmp(form, "junit")) {
        if (first) str_puts(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
        put_junit(out, a, b, c);
    } else if (!strcmp(form, "annotations")) {
        put_annotations(out, a, b, c);
    } else if (md || !strcmp(form, "text")) {
        str_printf(out, "%sfrom %s to %s\n\n", first ? "" : "\n", a, b);
        put_table(out, c, md);
    } else if (strcmp(form, "benchfmt")) {
        return fail_usage("--format: \"%s\" is not one of text, md, csv, json, junit, annotations, benchfmt",
                          form);
    }
    return out->failed ? -1 : 0;
}

void report_comparison_end(str *out, const char *form) {
    if (!strcmp(form, "json")) str_puts(out, "\n]\n");
    if (!strcmp(form, "junit")) str_puts(out, "</testsuites>\n");
    if (!strcmp(form, "text") || !strcmp(form, "md"))
        str_puts(out, "\nchange: of the median; ~ where it may be chance (Mann-Whitney, Holm, 5 %). "
                      "Interval: Hodges-Lehmann. Quality: of both sides.\n");
}
