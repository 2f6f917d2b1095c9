/* md.c - a Markdown table that is aligned, so that it reads well on a terminal as it grows.
 * Shows the model, the parameters that vary and the main metrics; what is common to all rows stands below. */
#include "report/format.h"

enum { MIN_WIDTH = 8, DECIMALS = 3 };

static const int metrics[] = {COLUMN_prompt_tokens,  COLUMN_prompt_tps, COLUMN_generation_tokens,
                              COLUMN_generation_tps, COLUMN_ttft_ms,    COLUMN_peak_memory_gb};
enum { N_METRICS = sizeof metrics / sizeof *metrics };

/* Characters, for alignment: bytes that begin one in UTF-8. */
static int text_width(const char *text) {
    int n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void put_cell(str *out, const char *text, int width, bool right) {
    int space = width - text_width(text);
    str_printf(out, "| %*s", right && space > 0 ? space : 0, "");
    for (; *text; text++) str_printf(out, *text == '|' ? "\\%c" : "%c", *text);
    str_printf(out, "%*s ", !right && space > 0 ? space : 0, "");
}

/* The parameters shown: all that vary, and the model. Prompt and generated tokens are metrics anyway. */
static bool is_shown(const plan *p, int i) {
    if (i == PARAM_n_prompt || i == PARAM_n_generate) return false;
    return i == PARAM_model || p->n_values[i] > 1;
}

static int param_width(const plan *p, int i) {
    int width = text_width(param_table[i].name);
    if (param_table[i].kind != KIND_TEXT) return width > MIN_WIDTH ? width : MIN_WIDTH;
    for (int k = 0; k < p->n_values[i]; k++) {
        int w = text_width(p->values[i][k].text);
        if (w > width) width = w;
    }
    return width;
}

typedef enum line { LINE_NAMES, LINE_RULE, LINE_VALUES } line;

static void put_column(str *out, int column, int width, bool right, line kind, const record *r) {
    str text = {0};
    if (kind == LINE_NAMES) str_puts(&text, column_name(column));
    if (kind == LINE_VALUES) put_value(&text, record_value(r, column), DECIMALS, "");
    if (kind == LINE_RULE) {
        for (int i = 0; i < width - 1; i++) str_puts(&text, "-");
        str_puts(&text, right ? ":" : "-");
    }
    put_cell(out, text.data ? text.data : "", width, right);
    out->failed |= text.failed;
    str_free(&text);
}

static void put_line(output *o, line kind, const record *r) {
    for (int i = 0; i < N_PARAMS; i++)
        if (is_shown(o->plan, i))
            put_column(&o->text, COLUMN_FIRST_PARAM + i, param_width(o->plan, i),
                       param_table[i].kind != KIND_TEXT, kind, r);
    for (int i = 0; i < N_METRICS; i++) {
        int width = text_width(column_name(metrics[i]));
        put_column(&o->text, metrics[i], width > MIN_WIDTH ? width : MIN_WIDTH, true, kind, r);
    }
    str_puts(&o->text, "|\n");
}

static void begin(output *o) {
    put_line(o, LINE_NAMES, NULL);
    put_line(o, LINE_RULE, NULL);
}

static void row(output *o, const record *r) {
    const facts *f = &r->facts;
    put_line(o, LINE_VALUES, r);
    if (f->error) return; /* it has no part in what all rows have in common */
    str_clear(&o->tail);
    str_printf(&o->tail, "\nmlxbench %s, engine %s (%s)", f->mlxbench_version, r->params.engine, f->device);
    if (r->params.threads) str_printf(&o->tail, ", %lld threads", (long long)r->params.threads);
    str_printf(&o->tail, ", %s prompt%s; %s; %s\n", r->params.prompt_source,
               f->synthetic > 0 ? ", random weights" : "", f->chip, f->os);
}

static void end(output *o) {
    if (o->tail.data) str_puts(&o->text, o->tail.data);
}

const format format_md = {begin, row, end};
