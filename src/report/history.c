/* history.c - kept results over time, as text for people or json for programs: a line for each
 * configuration, or for each time it was measured, and where its speed changed.
 */
#include "report/format.h"

#include <math.h>
#include <stdlib.h>

/* ---- a table of texts ---- */

enum { OWN_CELLS = 5, N_CELLS = OWN_CELLS + 2 * N_COMPARED };

typedef struct table {
    int n_left; /* cells of a line that are aligned on the left */
    int64_t n, capacity;
    str *cells; /* [n] */
} table;

/* The next cell, from left to right and line by line; NULL when out of memory. */
static str *next_cell(table *t) {
    if (t->n == t->capacity) {
        int64_t capacity = t->capacity ? 2 * t->capacity : 64;
        if (mem_resize((void **)&t->cells, (size_t)capacity, sizeof *t->cells, "a table")) return NULL;
        t->capacity = capacity;
    }
    t->cells[t->n] = (str){0};
    str_puts(&t->cells[t->n], "");
    return &t->cells[t->n++];
}

static void put_table(str *out, const table *t) {
    int widths[N_CELLS] = {0};
    for (int64_t i = 0; i < t->n; i++) {
        int cell = (int)(i % N_CELLS), width = t->cells[i].data ? text_width(t->cells[i].data) : 0;
        if (t->cells[i].failed) out->failed = true;
        if (width > widths[cell]) widths[cell] = width;
    }
    for (int64_t i = 0; i < t->n && !out->failed; i++) {
        int cell = (int)(i % N_CELLS), space = widths[cell] - text_width(t->cells[i].data);
        bool left = cell < t->n_left, last = cell + 1 == N_CELLS;
        str_printf(out, "%s%*s%s%*s%s", cell ? "  " : "", left ? 0 : space, "", t->cells[i].data,
                   left && !last ? space : 0, "", last ? "\n" : "");
    }
}

static void free_table(table *t) {
    for (int64_t i = 0; i < t->n; i++) str_free(&t->cells[i]);
    free(t->cells);
}

/* ---- what the lines say ---- */

/* The parameters and facts that tell the trends apart. */
static comparison what_varies(const trends *t) {
    comparison c = {0};
    for (int64_t i = 1; i < t->n; i++)
        for (int k = 0; k < N_COLUMNS; k++)
            c.varies[k] |=
                !value_equal(t->items[0].items->first->cells[k], t->items[i].items->first->cells[k]);
    c.varies[COLUMN_model] = true;
    return c;
}

static void put_speed(table *to, const measurement *m, int k) {
    str *cell = next_cell(to);
    const spread *s = &m->speeds[k];
    if (cell && s->n) str_printf(cell, "%.*f", column_table[compared_column(k)].decimals, s->median);
}

/* From one measurement to the next. */
static void put_change(table *to, const trend *t, int64_t i, int k) {
    str *cell = next_cell(to);
    if (!cell || !i || !t->items[i].speeds[k].n || !t->items[i - 1].speeds[k].n) return;
    double ratio = t->items[i].speeds[k].median / t->items[i - 1].speeds[k].median;
    if (isfinite(ratio)) str_printf(cell, "%+.1f %%", 100 * (ratio - 1));
}

static void put_titles(table *to, const char *const *titles, int n) {
    for (int i = 0; i < n; i++) {
        str *cell = next_cell(to);
        if (cell) str_puts(cell, titles[i]);
    }
    for (int k = 0; k < N_COMPARED; k++) {
        str *name = next_cell(to), *change = next_cell(to);
        if (name) str_puts(name, column_table[compared_column(k)].name);
        if (change) str_puts(change, "change");
    }
}

static void put_value(table *to, value v) {
    str *cell = next_cell(to);
    if (cell) value_put(cell, v, 0, "");
}

static void put_speeds(table *to, const trend *t, int64_t i) {
    for (int k = 0; k < N_COMPARED; k++) {
        put_speed(to, &t->items[i], k);
        put_change(to, t, i, k);
    }
}

static value number(int64_t n) {
    return (value){.kind = VALUE_NUMBER, .number = n};
}

static void put_list(str *out, const trends *all, const comparison *c) {
    static const char *const titles[] = {"", "configuration", "last measured", "times", "runs"};
    table to = {.n_left = 3};
    put_titles(&to, titles, OWN_CELLS);
    for (int64_t i = 0; i < all->n; i++) {
        const trend *t = &all->items[i];
        int64_t runs = 0;
        for (int64_t k = 0; k < t->n; k++) runs += t->items[k].n;
        put_value(&to, number(i + 1));
        str *name = next_cell(&to);
        if (name) put_configuration(name, c, t->items->first);
        put_value(&to, t->items[t->n - 1].last->cells[COLUMN_measured_at]);
        put_value(&to, number(t->n));
        put_value(&to, number(runs));
        put_speeds(&to, t, t->n - 1);
    }
    put_table(out, &to);
    free_table(&to);
}

static void put_measurements(str *out, const trend *t) {
    static const char *const titles[] = {"measured", "mlxbench", "engine", "quality", "runs"};
    table to = {.n_left = 4};
    put_titles(&to, titles, OWN_CELLS);
    for (int64_t i = 0; i < t->n; i++) {
        const measurement *m = &t->items[i];
        const char grade[2] = {m->grade, '\0'};
        put_value(&to, m->first->cells[COLUMN_measured_at]);
        put_value(&to, m->first->cells[COLUMN_mlxbench_version]);
        put_value(&to, m->first->cells[COLUMN_engine_version]);
        put_value(&to, (value){.kind = VALUE_TEXT, .text = grade});
        put_value(&to, number(m->n));
        put_speeds(&to, t, i);
    }
    put_table(out, &to);
    free_table(&to);
}

/* What a change may come from. */
static const int causes[] = {COLUMN_mlxbench_version, COLUMN_engine_version, COLUMN_os};

static void put_changes(str *out, const trend *t, int64_t line) {
    for (int64_t i = 0; i < t->n_changes; i++) {
        const level_change *c = &t->changes[i];
        const row *before = t->items[c->at - 1].last, *after = t->items[c->at].first;
        if (line) str_printf(out, "%lld: ", (long long)line);
        str_printf(out, "%s changed by %+.1f %% at ", column_table[c->column].name, 100 * (c->ratio - 1));
        value_put(out, after->cells[COLUMN_measured_at], 0, "an unknown time");
        str_printf(out, " (p = %.4f)", c->p);
        for (size_t k = 0; k < sizeof causes / sizeof *causes; k++) {
            value a = before->cells[causes[k]], b = after->cells[causes[k]];
            if (value_equal(a, b)) continue;
            str_printf(out, ", %s ", column_table[causes[k]].name);
            value_put(out, a, 0, "unknown");
            str_puts(out, " to ");
            value_put(out, b, 0, "unknown");
        }
        str_puts(out, "\n");
    }
}

static void put_text(str *out, const trends *t, bool each) {
    comparison c = what_varies(t);
    if (!each) {
        put_list(out, t, &c);
        for (int64_t i = 0; i < t->n; i++) put_changes(out, &t->items[i], i + 1);
    }
    for (int64_t i = 0; i < t->n && each; i++) {
        str_puts(out, i ? "\n" : "");
        put_configuration(out, &c, t->items[i].items->first);
        str_puts(out, "\n");
        put_measurements(out, &t->items[i]);
        put_changes(out, &t->items[i], 0);
    }
}

/* ---- for programs ---- */

static void put_number(str *out, const char *name, double x, int decimals) {
    str_printf(out, isfinite(x) ? ", \"%s\": %.*f" : ", \"%s\": null", name, decimals, x);
}

static void put_json_measurement(str *out, const measurement *m) {
    str_puts(out, "{");
    put_json_columns(out, m->first, COLUMN_FIRST_FACT, N_COLUMNS - 1);
    str_printf(out, ", \"runs\": %lld", (long long)m->n);
    for (int k = 0; k < N_COMPARED; k++) {
        const column *about = &column_table[compared_column(k)];
        put_number(out, about->name, m->speeds[k].n ? m->speeds[k].median : NAN, about->decimals);
    }
    str_puts(out, "}");
}

static void put_json(str *out, const trends *all) {
    str_puts(out, "[");
    for (int64_t i = 0; i < all->n; i++) {
        const trend *t = &all->items[i];
        str_puts(out, i ? ",\n{" : "\n{");
        put_json_columns(out, t->items->first, COLUMN_FIRST_PARAM, COLUMN_FIRST_METRIC - 1);
        str_puts(out, ",\n \"measurements\": [");
        for (int64_t k = 0; k < t->n; k++) {
            str_puts(out, k ? ",\n  " : "\n  ");
            put_json_measurement(out, &t->items[k]);
        }
        str_puts(out, "],\n \"changes\": [");
        for (int64_t k = 0; k < t->n_changes; k++) {
            const level_change *c = &t->changes[k];
            str_printf(out, "%s{\"metric\": \"%s\", \"measurement\": %lld, \"ratio\": %.6f, \"p\": %.4f}",
                       k ? ", " : "", column_table[c->column].name, (long long)c->at + 1, c->ratio, c->p);
        }
        str_puts(out, "]}");
    }
    str_puts(out, "\n]\n");
}

int report_history(str *out, const char *form, const trends *t, bool each) {
    if (!strcmp(form, "json"))
        put_json(out, t);
    else if (!strcmp(form, "text"))
        put_text(out, t, each);
    else
        return fail_usage("--format: \"%s\" is not one of text,json", form);
    return out->failed ? -1 : 0;
}
