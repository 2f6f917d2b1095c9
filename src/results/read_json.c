/* read_json.c - runs from our JSON object, and from JSON lines with everything that was measured.
 * Members that are no columns are left out, so that later versions can add some.
 */
#include "results/internal.h"

#include <math.h>

static const double LARGEST_WHOLE = 9007199254740992.0; /* 2^53: what a JSON number can say exactly */

static bool is_whole(const json *v) {
    double x = json_number(v);
    return json_is_number(v) && x >= -LARGEST_WHOLE && x <= LARGEST_WHOLE && x == floor(x);
}

static int read_cell(reader *r, int c, const json *v, value *out) {
    const column *about = &column_table[c];
    bool good = false;
    switch (about->kind) {
    case VALUE_TEXT:
        good = json_is_string(v);
        if (!good || !*json_string(v)) break;
        *out = (value){.kind = VALUE_TEXT, .text = arena_string(r->results->memory, json_string(v))};
        if (!out->text) return -1;
        break;
    case VALUE_NUMBER:
        good = is_whole(v);
        if (good) *out = (value){.kind = VALUE_NUMBER, .number = (int64_t)json_number(v)};
        break;
    case VALUE_REAL:
        if (json_is_number(v)) *out = value_of_real(json_number(v), about->decimals);
        good = out->kind == VALUE_REAL;
        break;
    case VALUE_BOOL:
        good = json_is_bool(v);
        if (good) *out = (value){.kind = VALUE_BOOL, .number = json_true(v)};
        break;
    case VALUE_NONE:
        break;
    }
    return good ? 0 : reader_fail(r, "%s has a value of a wrong kind", about->name);
}

/* The raw sample of a line, where it has one. */
static int read_raw(reader *r, const json *object, row *to) {
    const json *times = json_get(object, "token_ns"), *ids = json_get(object, "token_ids");
    const json *load = json_get(object, "load_ns"), *start = json_get(object, "start_ns");
    if (!times) return 0;
    value batch = to->cells[COLUMN_batch];
    int n = json_length(times), n_ids = json_length(ids), i = 0;
    int64_t n_sequences = batch.kind == VALUE_NUMBER && batch.number > 0 ? batch.number : 1;
    bool good = json_is_array(times) && json_is_array(ids) && n_ids % n_sequences == 0 &&
                n_ids / n_sequences == n && is_whole(load) && is_whole(start);
    if (!good) return reader_fail(r, "token_ns, token_ids, load_ns and start_ns do not belong together");
    sample *s = arena_alloc(r->results->memory, sizeof *s);
    if (!s) return -1;
    *s = (sample){.n_sequences = n_sequences,
                  .n_tokens = n,
                  .load_ns = (int64_t)json_number(load),
                  .start_ns = (int64_t)json_number(start)};
    value n_prompt = to->cells[COLUMN_prompt_tokens], depth = to->cells[COLUMN_depth];
    if (depth.kind == VALUE_NUMBER) s->depth = depth.number;
    if (n_prompt.kind == VALUE_REAL && fabs(n_prompt.real) < LARGEST_WHOLE)
        s->n_prompt = (int64_t)n_prompt.real;
    s->token_ns = arena_alloc(r->results->memory, (size_t)(n + 1) * sizeof *s->token_ns);
    s->ids = arena_alloc(r->results->memory, (size_t)(n_ids + 1) * sizeof *s->ids);
    if (!s->token_ns || !s->ids) return -1;
    for (const json *t = json_first(times); t; t = json_next(t)) {
        if (!is_whole(t)) return reader_fail(r, "the time of token %d is no whole number", i + 1);
        s->token_ns[i++] = (int64_t)json_number(t);
    }
    i = 0;
    for (const json *id = json_first(ids); id; id = json_next(id)) {
        double number = json_number(id);
        if (!is_whole(id) || fabs(number) > INT32_MAX)
            return reader_fail(r, "the id of token %d is no whole number", i + 1);
        s->ids[i++] = (int32_t)number;
    }
    to->raw = s;
    return 0;
}

/* What a line of jsonl has besides the columns. */
static bool is_raw(const char *name) {
    static const char *const names[] = {"kind", "load_ns", "start_ns", "token_ns", "token_ids"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) return true;
    return false;
}

static int read_run(reader *r, const json *object) {
    if (!json_is_object(object)) return reader_fail(r, "a run is no JSON object");
    row *to = reader_add(r);
    if (!to) return -1;
    bool has[N_COLUMNS] = {false};
    json_each (member, object) {
        int c = column_find(json_key(member));
        if (c >= 0) has[c] = true;
        if (c < 0 && !is_raw(json_key(member))) r->results->other_columns = true;
        if (c >= 0 && json_get(object, json_key(member)) && read_cell(r, c, member, &to->cells[c])) return -1;
    }
    for (int i = 0; i < N_COLUMNS; i++) r->results->other_columns |= !has[i];
    return read_raw(r, object, to);
}

int read_json(reader *r, const char *text, size_t n) {
    json *root = json_parse(text, n, r->name);
    const json *runs = json_get(root, "runs");
    int failed = root ? 0 : -1;
    if (root && json_number(json_get(root, "schema")) != RESULTS_SCHEMA)
        failed = reader_fail(r, "not a result file of schema %d", RESULTS_SCHEMA);
    else if (root && !json_is_array(runs))
        failed = reader_fail(r, "not a result file: it has no list \"runs\"");
    for (const json *run = failed ? NULL : json_first(runs); run && !failed; run = json_next(run))
        failed = read_run(r, run);
    json_free(root);
    return failed;
}

int read_json_lines(reader *r, const char *text, size_t n, read_object *one, void *context) {
    const char *end = text + n;
    int failed = 0;
    while (text < end && !failed) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        bool whole = line_end != NULL;
        if (!whole) line_end = end;
        r->line++;
        json *object = line_end > text ? json_parse(text, (size_t)(line_end - text), r->name) : NULL;
        if (object)
            failed = one(r, object, context);
        else if (line_end > text)
            failed = whole ? reader_fail(r, "not valid JSON") : 0; /* the last line, cut off */
        json_free(object);
        text = line_end + whole;
    }
    if (!failed) error_clear();
    return failed;
}

static int read_line(reader *r, const json *object, void *context) {
    (void)context;
    const char *kind = json_string(json_get(object, "kind"));
    if (kind && !strcmp(kind, "run")) return read_run(r, object);
    if (kind && !strcmp(kind, "summary")) return 0;
    return reader_fail(r, "its \"kind\" is neither \"run\" nor \"summary\"");
}

int read_jsonl(reader *r, const char *text, size_t n) {
    return read_json_lines(r, text, n, read_line, NULL);
}
