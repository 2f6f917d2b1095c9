/* read_llama.c - llama-bench's tests as rows: a test of the prompt has prompt_tps, one of
 * generation has generation_tps. What its forms look like is in read_llama_forms.c and
 * read_llama_sql.c.
 */
#include "results/internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

llama_test *llama_add(llama_tests *t) {
    if (t->n == t->capacity) {
        int64_t capacity = t->capacity ? 2 * t->capacity : 16;
        if (mem_resize((void **)&t->items, (size_t)capacity, sizeof *t->items, "the rows")) return NULL;
        t->capacity = capacity;
    }
    llama_test *added = &t->items[t->n++];
    *added = (llama_test){0};
    return added;
}

int llama_find(const char *name, bool md) {
    for (int i = 0; i < N_LLAMA; i++) {
        const llama_column *c = &llama_table[i];
        if (!strcmp(md && c->short_name ? c->short_name : c->name, name)) return i;
    }
    return -1;
}

/* ---- one test as rows ---- */

/* A whole number of a column, not negative; 0 where it is not there. */
static int get_number(const reader *r, const llama_test *t, int which, int64_t *out) {
    const char *text = t->values[which];
    char *end;
    *out = 0;
    if (!text || !*text) return 0;
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (*end || errno || *out < 0)
        return reader_fail(r, "column %s: \"%.40s\" is not a whole number", llama_table[which].name, text);
    return 0;
}

static void set_text(row *to, int which, const char *text) {
    if (text && *text) to->cells[which] = (value){.kind = VALUE_TEXT, .text = text};
}

/* Sets a number that is no zero. */
static void set_number(row *to, int which, int64_t number) {
    if (!number) return;
    to->cells[which] = column_table[which].kind == VALUE_REAL
                           ? value_of_real((double)number, column_table[which].decimals)
                           : (value){.kind = VALUE_NUMBER, .number = number};
}

/* What tells this test from others of the file, besides what has a column of ours: the backend, and
 * "NAME VALUE" for each setting that varies. */
static const char *engine_of(const reader *r, const llama_test *t, const bool *varies) {
    str text = {0};
    str_puts(&text, t->values[LLAMA_backends] ? t->values[LLAMA_backends] : "");
    for (int i = 0; i < N_LLAMA; i++)
        if (llama_table[i].role == LLAMA_SETTING && varies[i])
            str_printf(&text, "%s%s %s", text.length ? ", " : "", llama_table[i].name,
                       t->values[i] ? t->values[i] : "");
    const char *kept = text.failed ? NULL : arena_string(r->results->memory, text.data);
    str_free(&text);
    return kept;
}

/* The row that all samples of a test share. */
static int fill_row(const reader *r, const llama_test *t, const char *engine, row *out) {
    int64_t n_prompt, n_gen, depth, threads, n_ubatch, size, n_params;
    const char *gpu = t->values[LLAMA_gpu_info], *file = t->values[LLAMA_model_filename];
    if (get_number(r, t, LLAMA_n_prompt, &n_prompt) || get_number(r, t, LLAMA_n_gen, &n_gen) ||
        get_number(r, t, LLAMA_n_depth, &depth) || get_number(r, t, LLAMA_n_threads, &threads) ||
        get_number(r, t, LLAMA_n_ubatch, &n_ubatch) || get_number(r, t, LLAMA_model_size, &size) ||
        get_number(r, t, LLAMA_model_n_params, &n_params))
        return -1;
    if (!n_prompt && !n_gen) return reader_fail(r, "a test has neither n_prompt nor n_gen");
    *out = (row){.kind = ROW_RUN};
    set_text(out, COLUMN_model, file ? file : t->values[LLAMA_model_type]);
    set_text(out, COLUMN_engine, engine);
    set_text(out, COLUMN_model_type, t->values[LLAMA_model_type]);
    set_text(out, COLUMN_engine_version, t->values[LLAMA_build_commit]);
    set_text(out, COLUMN_device, gpu && *gpu ? gpu : NULL);
    set_text(out, COLUMN_chip, t->values[LLAMA_cpu_info]);
    set_text(out, COLUMN_measured_at, t->values[LLAMA_test_time]);
    set_number(out, COLUMN_threads, threads);
    set_number(out, COLUMN_n_prompt, n_prompt);
    set_number(out, COLUMN_n_generate, n_gen);
    set_number(out, COLUMN_prefill_step_size, n_ubatch);
    set_number(out, COLUMN_parameters, n_params);
    set_number(out, COLUMN_prompt_tokens, n_prompt);
    set_number(out, COLUMN_generation_tokens, n_gen);
    out->cells[COLUMN_depth] = (value){.kind = VALUE_NUMBER, .number = depth};
    out->cells[COLUMN_batch] = (value){.kind = VALUE_NUMBER, .number = 1};
    if (size) out->cells[COLUMN_weights_gb] = value_of_real((double)size / 1e9, 6);
    return 0;
}

/* A speed belongs to the prompt or to generation; of both together (-pg) it is the time of all. */
static int set_speed(const reader *r, row *to, double tps) {
    bool prompt = to->cells[COLUMN_n_prompt].kind == VALUE_NUMBER,
         generation = to->cells[COLUMN_n_generate].kind == VALUE_NUMBER;
    if (!isfinite(tps) || tps <= 0) return reader_fail(r, "a test's tokens per second are no such number");
    int which = !generation ? COLUMN_prompt_tps : !prompt ? COLUMN_generation_tps : COLUMN_total_s;
    double tokens = prompt && generation ? (double)to->cells[COLUMN_n_prompt].number +
                                               (double)to->cells[COLUMN_n_generate].number
                                         : 0;
    to->cells[which] =
        value_of_real(which == COLUMN_total_s ? tokens / tps : tps, column_table[which].decimals);
    return 0;
}

static int add_rows(reader *r, const llama_test *t, int64_t number, const bool *varies) {
    row shared;
    const char *engine = engine_of(r, t, varies), *mean = t->values[LLAMA_avg_ts];
    if (!engine || fill_row(r, t, engine, &shared)) return -1;
    char *end = NULL;
    double only = mean ? strtod(mean, &end) : NAN;
    if (!t->n_samples && (!mean || *end))
        return reader_fail(r, "a test has neither samples_ts nor a number avg_ts");
    int64_t n = t->n_samples ? t->n_samples : 1;
    for (int64_t i = 0; i < n; i++) {
        row *to = reader_add(r);
        if (!to) return -1;
        *to = shared;
        to->cells[COLUMN_run] = (value){.kind = VALUE_NUMBER, .number = r->results->n};
        to->cells[COLUMN_configuration] = (value){.kind = VALUE_NUMBER, .number = number};
        to->cells[COLUMN_repeat] = (value){.kind = VALUE_NUMBER, .number = i + 1};
        if (set_speed(r, to, t->n_samples ? t->samples[i] : only)) return -1;
    }
    return 0;
}

/* ---- which form ---- */

typedef int (*form_reader)(reader *r, const char *text, size_t n, llama_tests *out);

static bool has(const char *text, size_t n, const char *word) {
    size_t m = strlen(word);
    for (size_t i = 0; i + m <= n; i++)
        if (!memcmp(text + i, word, m)) return true;
    return false;
}

static bool first_line_has(const char *text, size_t n, const char *word) {
    const char *line_end = memchr(text, '\n', n);
    return has(text, line_end ? (size_t)(line_end - text) : n, word);
}

/* A dump begins with other statements. */
static bool names_their_table(const char *text, size_t n) {
    enum { FAR_ENOUGH = 500 };
    return has(text, n < FAR_ENOUGH ? n : FAR_ENOUGH, "llama_bench");
}

static form_reader form_of(const char *text, size_t n) {
    bool mean = first_line_has(text, n, "avg_ts");
    if (*text == '[') return read_llama_json;
    if (*text == '{') return mean ? read_llama_jsonl : NULL;
    if (*text == '|') return first_line_has(text, n, "t/s") ? read_llama_md : NULL;
    if (is_sql(text, n)) return names_their_table(text, n) ? read_llama_sql : NULL;
    return mean ? read_llama_csv : NULL;
}

int read_llama_bench(reader *r, const char *text, size_t n) {
    size_t start = strspn(text, " \t\r\n"); /* there is something else */
    form_reader form = form_of(text + start, n - start);
    llama_tests tests = {0};
    bool varies[N_LLAMA] = {false};
    if (!form) return 0;
    r->results->other_columns = true;
    int failed = form(r, text, n, &tests);
    r->line = 0;
    for (int64_t i = 1; i < tests.n; i++)
        for (int c = 0; c < N_LLAMA; c++) {
            const char *a = tests.items[0].values[c], *b = tests.items[i].values[c];
            varies[c] |= strcmp(a ? a : "", b ? b : "") != 0;
        }
    for (int64_t i = 0; i < tests.n && !failed; i++) failed = add_rows(r, &tests.items[i], i + 1, varies);
    free(tests.items);
    return failed ? -1 : 1;
}
