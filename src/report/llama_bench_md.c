/* llama_bench_md.c - the table that llama-bench prints for people: model, size, parameters,
 * backend, what varies, the test, and tokens per second as mean and standard deviation.
 */
#include "report/llama_bench.h"

#include <math.h>
#include <stdlib.h>

/* Columns of the table: those of llama_table, and two that only the table has. */
enum { TEST = N_LLAMA, SPEED };

/* Negative: to the left. As llama-bench has them. */
static int width_of(int c) {
    switch (c) {
    case LLAMA_model_type:
        return -30;
    case LLAMA_model_size:
    case LLAMA_model_n_params:
        return 10;
    case LLAMA_n_gpu_layers:
        return 3;
    case LLAMA_n_threads:
    case LLAMA_n_batch:
        return 7;
    case LLAMA_type_k:
    case LLAMA_type_v:
        return 6;
    case TEST:
        return 15;
    case SPEED:
        return 20;
    default:
        return -10;
    }
}

/* What varies in a sweep of ours, or is not what it is by default, has a column. first: a row. */
static int lay_out(const sweep *s, const row *first, int out[MAX_OWN_COLUMNS]) {
    int n = 0;
    bool cpu = llama_on_cpu(first);
    bool kv = s->varies[COLUMN_kv_bits] || s->varies[COLUMN_kv_group_size] ||
              first->cells[COLUMN_kv_bits].kind != VALUE_NONE;
    out[n++] = LLAMA_model_type;
    out[n++] = LLAMA_model_size;
    out[n++] = LLAMA_model_n_params;
    out[n++] = LLAMA_backends;
    if (!cpu) out[n++] = LLAMA_n_gpu_layers;
    if (cpu || s->varies[COLUMN_threads] || s->varies[COLUMN_engine]) out[n++] = LLAMA_n_threads;
    if (s->varies[COLUMN_affinity]) out[n++] = LLAMA_cpu_strict;
    if (s->varies[COLUMN_prefill_step_size]) out[n++] = LLAMA_n_batch;
    if (kv) out[n++] = LLAMA_type_k;
    if (kv) out[n++] = LLAMA_type_v;
    out[n++] = TEST;
    out[n++] = SPEED;
    return n;
}

static void put_padded(str *out, int width, const char *text) {
    int space = abs(width) - text_width(text);
    str_printf(out, " %*s", width > 0 && space > 0 ? space : 0, "");
    for (; *text; text++) str_printf(out, *text == '|' ? "\\%c" : "%c", *text);
    str_printf(out, "%*s |", width < 0 && space > 0 ? space : 0, "");
}

static void put_test(str *out, const llama_output *t) {
    if (t->n_prompt) str_printf(out, "pp%lld", (long long)t->n_prompt);
    if (t->n_gen) str_printf(out, "tg%lld", (long long)t->n_gen);
    if (t->n_depth) str_printf(out, " @ d%lld", (long long)t->n_depth);
}

/* "636.18 MiB"; "3.56 GiB" from the unit on. */
static void put_scaled(str *out, double x, double unit, const char *small, const char *large) {
    bool is_large = x >= unit * (unit == 1e6 ? 1e3 : 1024);
    str_printf(out, "%.2f %s", x / unit / (is_large ? (unit == 1e6 ? 1e3 : 1024) : 1),
               is_large ? large : small);
}

static void put_value(str *out, const llama_output *t, int c) {
    str text = {0};
    if (c == TEST) {
        put_test(out, t);
    } else if (c == SPEED) {
        str_printf(out, "%.2f ± %.2f", t->ts->mean, isfinite(t->ts->sd) ? t->ts->sd : 0);
    } else if (c == LLAMA_model_size || c == LLAMA_model_n_params) {
        llama_put(&text, t, c);
        double x = text.data ? strtod(text.data, NULL) : 0;
        if (c == LLAMA_model_size)
            put_scaled(out, x, 1024 * 1024, "MiB", "GiB");
        else
            put_scaled(out, x, 1e6, "M", "B");
    } else {
        llama_put(out, t, c);
    }
    out->failed |= text.failed;
    str_free(&text);
}

static const char *name_of(int c) {
    if (c == TEST) return "test";
    if (c == SPEED) return "t/s";
    return llama_table[c].short_name ? llama_table[c].short_name : llama_table[c].name;
}

static void put_header(str *out, const int *columns, int n) {
    str_puts(out, "|");
    for (int i = 0; i < n; i++) put_padded(out, width_of(columns[i]), name_of(columns[i]));
    str_puts(out, "\n|");
    for (int i = 0; i < n; i++) {
        int width = width_of(columns[i]);
        str_puts(out, " ");
        for (int k = 1; k < abs(width); k++) str_puts(out, "-");
        str_puts(out, width > 0 ? ": |" : "- |");
    }
    str_puts(out, "\n");
}

/* The first test decides on the columns, and its build is named at the end. */
static void begin_table(output *o, const llama_output *first) {
    o->n_columns = lay_out(o->sweep, first->of, o->columns);
    put_header(&o->text, o->columns, o->n_columns);
    llama_put(&o->remark, first, LLAMA_build_commit);
}

static void put_row(output *o, const row *r) {
    llama_output tests[2];
    str text = {0};
    int n = llama_outputs(r, tests);
    for (int i = 0; i < n; i++) {
        if (!o->n_columns) begin_table(o, &tests[i]);
        str_puts(&o->text, "|");
        for (int k = 0; k < o->n_columns; k++) {
            str_clear(&text);
            put_value(&text, &tests[i], o->columns[k]);
            put_padded(&o->text, width_of(o->columns[k]), text.data ? text.data : "");
        }
        str_puts(&o->text, "\n");
    }
    o->text.failed |= text.failed;
    str_free(&text);
}

static void end(output *o) {
    if (o->n_columns) str_printf(&o->text, "\nbuild: %s (0)\n", o->remark.data ? o->remark.data : "");
}

const format format_llama_bench = {.row = put_row, .end = end, .one_sequence = true};
