/* jsonl.c - one JSON object per line, runs with everything that was measured: every timestamp and
 * token id. Times are nanoseconds of a clock with an arbitrary start; only differences mean
 * something.
 */
#include "report/format.h"

void put_json_raw(str *out, const sample *s) {
    str_printf(out, ", \"load_ns\": %lld, \"start_ns\": %lld, \"token_ns\": [", (long long)s->load_ns,
               (long long)s->start_ns);
    for (int64_t i = 0; i < s->n_tokens; i++)
        str_printf(out, "%s%lld", i ? ", " : "", (long long)s->token_ns[i]);
    str_puts(out, "], \"token_ids\": [");
    for (int64_t i = 0; i < s->n_tokens * s->n_sequences; i++)
        str_printf(out, "%s%d", i ? ", " : "", (int)s->ids[i]);
    str_puts(out, "]");
}

void report_json_line(str *out, const row *r) {
    str_printf(out, "{\"kind\": \"%s\", ", r->kind == ROW_RUN ? "run" : "summary");
    put_json_columns(out, r, 0, N_COLUMNS - 1);
    if (r->spreads) put_json_spreads(out, r);
    if (r->raw) put_json_raw(out, r->raw);
    str_puts(out, "}\n");
}

static void put_row(output *o, const row *r) {
    report_json_line(&o->text, r);
}

const format format_jsonl = {.readable = true, .row = put_row};
