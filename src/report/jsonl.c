/* jsonl.c - one JSON object per line, with everything that was measured: every timestamp and token id.
 * Times are nanoseconds of a clock with an arbitrary start; only differences mean something. */
#include "report/format.h"

static void begin(output *o) {
    (void)o;
}

static void row(output *o, const record *r) {
    const sample *s = &r->sample;
    str *out = &o->text;
    put_json_columns(out, r);
    str_printf(out, ", \"load_ns\": %lld, \"start_ns\": %lld, \"token_ns\": [", (long long)s->load_ns,
               (long long)s->start_ns);
    for (int64_t i = 0; i < s->n_tokens; i++)
        str_printf(out, "%s%lld", i ? ", " : "", (long long)s->token_ns[i]);
    str_puts(out, "], \"token_ids\": [");
    for (int64_t i = 0; i < s->n_tokens; i++) str_printf(out, "%s%d", i ? ", " : "", (int)s->ids[i]);
    str_puts(out, "]}\n");
}

static void end(output *o) {
    (void)o;
}

const format format_jsonl = {begin, row, end};
