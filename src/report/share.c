/* share.c - one file to attach to a report: all runs with their tokens and times, whether they are
 * fit to be published, and a seal, so that nobody changes them by accident. It is the format json
 * with more members, and is made at the end, of all rows.
 */
#include "report/format.h"

#include <math.h>

enum { LEAST_RUNS = 6 };
static const double WIDEST = 0.05; /* of a median's 95 % interval */

static void begin(output *o) {
    if (hash_open()) o->text.failed = true; /* found before anything is measured */
}

static void add_reason(output *o, const row *r, const char *form, ...) PRINTF_LIKE(3, 4);

/* Why not to publish, a line each. */
static void add_reason(output *o, const row *r, const char *form, ...) {
    char text[1024];
    va_list args;
    va_start(args, form);
    vsnprintf(text, sizeof text, form, args);
    va_end(args);
    if (r && o->sweep->varies[COLUMN_configuration])
        str_printf(&o->remark, "configuration %lld: ", (long long)r->cells[COLUMN_configuration].number);
    str_printf(&o->remark, "%s\n", text);
}

static void judge_speed(output *o, const row *r, int metric) {
    const spread *s = &r->spreads[metric];
    const char *name = column_table[COLUMN_FIRST_METRIC + metric].name;
    double width = (s->high - s->low) / s->median;
    if (isfinite(width) && width > WIDEST)
        add_reason(o, r,
                   "the 95 %% interval of %s is %.1f %% wide, more than %.0f %%: more runs make it narrower",
                   name, 100 * width, 100 * WIDEST);
}

static void judge(output *o, const row *r) {
    value error = r->cells[COLUMN_error], quality = r->cells[COLUMN_quality],
          reasons = r->cells[COLUMN_quality_reasons], engine = r->cells[COLUMN_engine];
    int64_t n = r->spreads[METRIC_prompt_tps].n;
    if (error.kind == VALUE_TEXT) {
        add_reason(o, r, "it failed: %s", error.text);
        return;
    }
    if (engine.kind == VALUE_TEXT && !strcmp(engine.text, "fake"))
        add_reason(o, r, "the engine fake computes nothing");
    if (n < LEAST_RUNS)
        add_reason(o, r, "%lld run%s, and a median's interval needs %d: --repeats %d or auto", (long long)n,
                   n == 1 ? "" : "s", LEAST_RUNS, LEAST_RUNS);
    judge_speed(o, r, METRIC_prompt_tps);
    judge_speed(o, r, METRIC_generation_tps);
    if (r->cells[COLUMN_ids_hash].kind != VALUE_TEXT)
        add_reason(o, r, "its runs did not generate the same tokens");
    if (quality.kind != VALUE_TEXT)
        add_reason(o, r, "its quality is not known");
    else if (*quality.text > 'B')
        add_reason(o, r, "the quality is %s: %s", quality.text,
                   reasons.kind == VALUE_TEXT ? reasons.text : "unknown");
}

/* Runs are kept in one text, summaries in another one, until the end. */
static void put_row(output *o, const row *r) {
    bool run = r->kind == ROW_RUN;
    str *to = run ? &o->kept : &o->parts[0];
    if (run && !o->n_runs) {
        str_puts(to, "\"machine\": {");
        put_json_columns(to, r, COLUMN_hw_model, COLUMN_os);
        str_puts(to, "},\n\"runs\": [");
    }
    str_puts(to, (run ? o->n_runs : o->n_summaries) ? ",\n{" : "\n{");
    put_json_columns(to, r, 0, N_COLUMNS - 1);
    if (r->raw) put_json_raw(to, r->raw);
    if (!run) put_json_spreads(to, r);
    str_puts(to, "}");
    if (!run) judge(o, r);
}

static void put_verdict(output *o) {
    if (error_exit_code() != EXIT_OK)
        add_reason(o, NULL, "the command ended with an error: %s", error_message());
    str_printf(&o->text, ",\n\"publishable\": %s, \"reasons\": [", o->remark.length ? "false" : "true");
    for (char *line = o->remark.data, *end; line && *line; line = end + 1) {
        end = strchr(line, '\n');
        *end = '\0';
        str_puts(&o->text, line == o->remark.data ? "" : ", ");
        json_quote(&o->text, line);
    }
    str_puts(&o->text, "]");
}

static void end(output *o) {
    str object = {0};
    char seal[SEAL_CHARS];
    if (!o->n_runs) return;
    str_printf(&o->text, "{\"schema\": %d,\n%s\n],\n\"summaries\": [%s\n]", RESULTS_SCHEMA, o->kept.data,
               o->parts[0].data ? o->parts[0].data : "");
    o->text.failed |= o->kept.failed || o->parts[0].failed;
    put_verdict(o);
    if (o->text.failed || o->remark.failed) return;
    str_append(&object, o->text.data, o->text.length);
    str_puts(&object, "}");
    json *root = object.failed ? NULL : json_parse(object.data, object.length, "share");
    if (!root || seal_of(root, seal)) o->text.failed = true;
    if (!o->text.failed) str_printf(&o->text, ",\n\"seal\": {\"sha256\": \"%s\"}}\n", seal);
    json_free(root);
    str_free(&object);
}

const format format_share = {.begin = begin, .row = put_row, .end = end};
