/* md.c - a Markdown table, a line per configuration, aligned, so that it reads well on a terminal
 * as it grows. Shows the model, what varies and the main metrics; what all lines have in common
 * stands below.
 */
#include "report/format.h"

#include <math.h>

enum { MIN_WIDTH = 8, DECIMALS = 3, INTERVAL_WIDTH = 20, FROM_INTERVAL = 6 };

/* What a column of the table shows: a column's value, how it lies, or how many runs there were. */
typedef enum show { SHOW_VALUE, SHOW_SPREAD, SHOW_N } show;

typedef struct shown {
    show show;
    int column;
} shown;

static const shown metrics[] = {
    {SHOW_VALUE, COLUMN_prompt_tokens},  {SHOW_VALUE, COLUMN_prompt_tps},
    {SHOW_SPREAD, COLUMN_prompt_tps},    {SHOW_VALUE, COLUMN_generation_tokens},
    {SHOW_VALUE, COLUMN_generation_tps}, {SHOW_SPREAD, COLUMN_generation_tps},
    {SHOW_N, COLUMN_prompt_tps},         {SHOW_VALUE, COLUMN_quality},
    {SHOW_VALUE, COLUMN_ttft_ms},        {SHOW_VALUE, COLUMN_peak_memory_gb},
};
enum { MAX_SHOWN = N_COLUMNS + (int)(sizeof metrics / sizeof *metrics) };

/* Metrics and facts that are only shown where they vary. */
static const int if_varied[] = {COLUMN_quantization, COLUMN_device, COLUMN_program, COLUMN_kv_gb};

static int lay_out(const sweep *s, shown out[MAX_SHOWN]) {
    int n = 0;
    for (int c = COLUMN_FIRST_PARAM; c < COLUMN_FIRST_METRIC; c++) {
        if (c == COLUMN_n_prompt || c == COLUMN_n_generate) continue; /* metrics say the same */
        if (c == COLUMN_model || s->varies[c]) out[n++] = (shown){SHOW_VALUE, c};
    }
    for (size_t i = 0; i < sizeof if_varied / sizeof *if_varied; i++)
        if (s->varies[if_varied[i]]) out[n++] = (shown){SHOW_VALUE, if_varied[i]};
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++)
        if (metrics[i].show == SHOW_VALUE || s->repeats > 1) out[n++] = metrics[i];
    return n;
}

static void put_cell(str *out, const char *text, int width, bool right) {
    int space = width - text_width(text);
    str_printf(out, "| %*s", right && space > 0 ? space : 0, "");
    for (; *text; text++) str_printf(out, *text == '|' ? "\\%c" : "%c", *text);
    str_printf(out, "%*s ", !right && space > 0 ? space : 0, "");
}

static void put_name(str *out, const sweep *s, shown what) {
    if (what.show == SHOW_VALUE) str_puts(out, column_table[what.column].name);
    if (what.show == SHOW_SPREAD) str_puts(out, s->repeats < FROM_INTERVAL ? "min to max" : "95 % interval");
    if (what.show == SHOW_N) str_puts(out, "n");
}

static void put_shown(str *out, const sweep *s, shown what, const row *r) {
    const spread *lie = what.show == SHOW_VALUE ? NULL : &r->spreads[what.column - COLUMN_FIRST_METRIC];
    if (what.show == SHOW_VALUE) value_put(out, r->cells[what.column], DECIMALS, "");
    if (what.show == SHOW_N) str_printf(out, "%lld", (long long)lie->n);
    if (what.show != SHOW_SPREAD) return;
    double low = s->repeats < FROM_INTERVAL ? lie->min : lie->low,
           high = s->repeats < FROM_INTERVAL ? lie->max : lie->high;
    if (isfinite(low)) str_printf(out, "%.*f to %.*f", DECIMALS, low, DECIMALS, high);
}

typedef enum line { LINE_NAMES, LINE_RULE, LINE_VALUES } line;

static void put_column(str *out, const sweep *s, shown what, line kind, const row *r) {
    str name = {0}, text = {0};
    bool right = column_table[what.column].kind != VALUE_TEXT;
    int least = what.show == SHOW_SPREAD ? INTERVAL_WIDTH : what.show == SHOW_N ? 2 : right ? MIN_WIDTH : 0;
    put_name(&name, s, what);
    int width = name.data ? text_width(name.data) : 0;
    if (width < least) width = least;
    if (what.show == SHOW_VALUE && column_table[what.column].kind == VALUE_TEXT &&
        width < s->width[what.column])
        width = s->width[what.column];
    if (kind == LINE_NAMES && name.data) str_puts(&text, name.data);
    if (kind == LINE_VALUES) put_shown(&text, s, what, r);
    if (kind == LINE_RULE) {
        for (int i = 0; i < width - 1; i++) str_puts(&text, "-");
        str_puts(&text, right ? ":" : "-");
    }
    put_cell(out, text.data ? text.data : "", width, right);
    out->failed |= text.failed || name.failed;
    str_free(&text);
    str_free(&name);
}

static void put_line(output *o, line kind, const row *r) {
    shown columns[MAX_SHOWN];
    int n = lay_out(o->sweep, columns);
    for (int i = 0; i < n; i++) put_column(&o->text, o->sweep, columns[i], kind, r);
    str_puts(&o->text, "|\n");
}

static void begin(output *o) {
    put_line(o, LINE_NAMES, NULL);
    put_line(o, LINE_RULE, NULL);
}

/* The worst quality so far stays in mind: what it is, and what to do about it. */
static void keep_quality(output *o, const row *r) {
    value quality = r->cells[COLUMN_quality], reasons = r->cells[COLUMN_quality_reasons];
    if (quality.kind != VALUE_TEXT || *quality.text <= 'B') return;
    if (o->remark.length && *quality.text <= *o->remark.data) return;
    str_clear(&o->remark);
    str_printf(&o->remark, "%c", *quality.text);
    if (o->sweep->varies[COLUMN_configuration])
        str_printf(&o->remark, " (line %lld)", (long long)r->cells[COLUMN_configuration].number);
    str_printf(&o->remark, ": %s", reasons.kind == VALUE_TEXT ? reasons.text : "unknown");
}

static void put_row(output *o, const row *r) {
    if (r->kind != ROW_SUMMARY) return;
    put_line(o, LINE_VALUES, r);
    keep_quality(o, r);
    if (!o->shared) o->shared = summary_new();
    bool measured =
        r->cells[COLUMN_error].kind != VALUE_TEXT; /* others have no part in what all lines share */
    if (!o->shared || (measured && summary_add(o->shared, r))) o->text.failed = true;
}

/* ---- what all lines share ---- */

/* "PARAMETER VALUE" for each parameter that is not what it is by default, and has no place of its
 * own. */
static void put_params(str *out, const sweep *s, const row *r) {
    for (int i = 0; i < N_PARAMS; i++) {
        value v = r->cells[COLUMN_FIRST_PARAM + i];
        str text = {0};
        bool placed = i == PARAM_model || i == PARAM_engine || i == PARAM_threads ||
                      i == PARAM_prompt_source || i == PARAM_n_prompt || i == PARAM_n_generate;
        value_put(&text, v, 0, "");
        if (!placed && !s->varies[COLUMN_FIRST_PARAM + i] && text.length &&
            strcmp(text.data, param_table[i].default_list))
            str_printf(out, ", %s %s", param_table[i].name, text.data);
        out->failed |= text.failed;
        str_free(&text);
    }
}

/* The value where all lines share it, and it is no column; else NULL. */
static const char *shared_text(const sweep *s, const row *r, int c) {
    return r->cells[c].kind == VALUE_TEXT && !s->varies[c] ? r->cells[c].text : NULL;
}

static void end(output *o) {
    row r;
    if (!o->shared || summary_shared(o->shared, &r)) return;
    const sweep *s = o->sweep;
    const char *version = shared_text(s, &r, COLUMN_mlxbench_version),
               *engine = shared_text(s, &r, COLUMN_engine), *device = shared_text(s, &r, COLUMN_device),
               *source = shared_text(s, &r, COLUMN_prompt_source),
               *weights = shared_text(s, &r, COLUMN_quantization), *chip = shared_text(s, &r, COLUMN_chip),
               *os = shared_text(s, &r, COLUMN_os);
    str_printf(&o->text, "\nmlxbench%s%s", version ? " " : "", version ? version : "");
    if (engine) str_printf(&o->text, ", engine %s", engine);
    if (device) str_printf(&o->text, engine ? " (%s)" : ", %s", device);
    if (r.cells[COLUMN_threads].kind == VALUE_NUMBER && !s->varies[COLUMN_threads])
        str_printf(&o->text, ", %lld threads", (long long)r.cells[COLUMN_threads].number);
    if (weights) str_printf(&o->text, ", weights %s", weights);
    if (r.cells[COLUMN_synthetic].kind == VALUE_BOOL && r.cells[COLUMN_synthetic].number)
        str_puts(&o->text, weights ? " (random)" : ", random weights");
    if (source) str_printf(&o->text, ", %s prompt", source);
    put_params(&o->text, s, &r);
    if (chip) str_printf(&o->text, "; %s", chip);
    if (os) str_printf(&o->text, "; %s", os);
    str_puts(&o->text, "\n");
    if (o->remark.length) str_printf(&o->text, "\nThe quality is %s.\n", o->remark.data);
}

const format format_md = {.begin = begin, .row = put_row, .end = end};
