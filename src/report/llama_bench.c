/* llama_bench.c - llama-bench's rows, for scripts that read them: a test of the prompt (pp) and one
 * of generation (tg) of each configuration, in its forms csv, json, jsonl and sql. Its columns are
 * in results/llama_bench.def. Source: llama.cpp, tools/llama-bench/llama-bench.cpp.
 */
#include "report/llama_bench.h"

#include <math.h>

/* ---- tests ---- */

static int64_t number_in(const row *r, int which) {
    value v = r->cells[which];
    return v.kind == VALUE_NUMBER ? v.number : v.kind == VALUE_REAL ? (int64_t)v.real : 0;
}

double llama_sample_ns(const llama_output *t, int64_t i) {
    return 1e9 * (double)(t->n_prompt + t->n_gen) / t->ts->in_order[i];
}

static void set_times(llama_output *t) {
    double squares = 0;
    int64_t n = t->ts->n;
    t->avg_ns = t->stddev_ns = 0;
    for (int64_t i = 0; i < n; i++) t->avg_ns += llama_sample_ns(t, i) / (double)n;
    for (int64_t i = 0; i < n; i++) squares += pow(llama_sample_ns(t, i) - t->avg_ns, 2);
    if (n > 1) t->stddev_ns = sqrt(squares / (double)(n - 1));
}

int llama_outputs(const row *r, llama_output out[2]) {
    int n = 0;
    int64_t n_prompt = number_in(r, COLUMN_n_prompt), depth = number_in(r, COLUMN_depth);
    if (r->kind != ROW_SUMMARY) return 0;
    if (r->spreads[METRIC_prompt_tps].n)
        out[n++] = (llama_output){
            .of = r, .n_prompt = n_prompt, .n_depth = depth, .ts = &r->spreads[METRIC_prompt_tps]};
    if (r->spreads[METRIC_generation_tps].n) /* the prompt is in the cache when it begins */
        out[n++] = (llama_output){.of = r,
                                  .n_gen = number_in(r, COLUMN_n_generate),
                                  .n_depth = depth + n_prompt,
                                  .ts = &r->spreads[METRIC_generation_tps]};
    for (int i = 0; i < n; i++) set_times(&out[i]);
    return n;
}

/* ---- values ---- */

static void put_cell(str *out, const row *r, int which, const char *none) {
    value_put(out, r->cells[which], 9, none);
}

static bool is_text(const row *r, int which, const char *text) {
    return r->cells[which].kind == VALUE_TEXT && !strcmp(r->cells[which].text, text);
}

bool llama_on_cpu(const row *r) {
    return !is_text(r, COLUMN_engine, "mlx") || is_text(r, COLUMN_device, "cpu");
}

static void put_model_type(str *out, const row *r) {
    put_cell(out, r, COLUMN_model_type, "unknown");
    if (r->cells[COLUMN_quantization].kind != VALUE_NONE) str_puts(out, " ");
    put_cell(out, r, COLUMN_quantization, "");
    if (r->cells[COLUMN_synthetic].kind == VALUE_BOOL && r->cells[COLUMN_synthetic].number)
        str_puts(out, " (random weights)");
}

/* A quantized cache by its bits and group size; others keep the numbers that the model has. */
static void put_cache_type(str *out, const row *r) {
    if (r->cells[COLUMN_kv_bits].kind == VALUE_NONE) {
        str_puts(out, "model");
        return;
    }
    put_cell(out, r, COLUMN_kv_bits, "");
    str_puts(out, "-bit");
    if (r->cells[COLUMN_kv_group_size].kind != VALUE_NONE) str_puts(out, " g");
    put_cell(out, r, COLUMN_kv_group_size, "");
}

static void put_backend(str *out, const row *r) {
    if (is_text(r, COLUMN_engine, "cpu"))
        str_puts(out, "CPU");
    else if (is_text(r, COLUMN_engine, "mlx"))
        str_puts(out, "MLX");
    else
        put_cell(out, r, COLUMN_engine, "");
}

void llama_put(str *out, const llama_output *t, int which) {
    const row *r = t->of;
    double gb = r->cells[COLUMN_weights_gb].kind == VALUE_REAL ? r->cells[COLUMN_weights_gb].real : 0;
    switch (which) {
    case LLAMA_build_commit:
        put_cell(out, r, COLUMN_mlxbench_version,
                 r->cells[COLUMN_engine_version].kind == VALUE_TEXT ? r->cells[COLUMN_engine_version].text
                                                                    : "unknown");
        break;
    case LLAMA_cpu_info:
        put_cell(out, r, COLUMN_chip, "");
        break;
    case LLAMA_gpu_info:
        if (!llama_on_cpu(r)) put_cell(out, r, COLUMN_device, "");
        break;
    case LLAMA_backends:
        put_backend(out, r);
        break;
    case LLAMA_model_filename:
        put_cell(out, r, COLUMN_model, "");
        break;
    case LLAMA_model_type:
        put_model_type(out, r);
        break;
    case LLAMA_model_size:
        str_printf(out, "%.0f", gb * 1e9);
        break;
    case LLAMA_model_n_params:
        put_cell(out, r, COLUMN_parameters, "0");
        break;
    case LLAMA_n_batch:
    case LLAMA_n_ubatch:
        put_cell(out, r, COLUMN_prefill_step_size, "0");
        break;
    case LLAMA_n_threads:
        put_cell(out, r, COLUMN_threads, "0");
        break;
    case LLAMA_cpu_strict:
        str_puts(out, is_text(r, COLUMN_affinity, "cores") ? "1" : "0");
        break;
    case LLAMA_type_k:
    case LLAMA_type_v:
        put_cache_type(out, r);
        break;
    case LLAMA_n_gpu_layers:
        str_puts(out, llama_on_cpu(r) ? "0" : "-1");
        break;
    case LLAMA_n_prompt:
        str_printf(out, "%lld", (long long)t->n_prompt);
        break;
    case LLAMA_n_gen:
        str_printf(out, "%lld", (long long)t->n_gen);
        break;
    case LLAMA_n_depth:
        str_printf(out, "%lld", (long long)t->n_depth);
        break;
    case LLAMA_test_time:
        put_cell(out, r, COLUMN_measured_at, "");
        break;
    case LLAMA_avg_ns:
        str_printf(out, "%.0f", t->avg_ns);
        break;
    case LLAMA_stddev_ns:
        str_printf(out, "%.0f", t->stddev_ns);
        break;
    case LLAMA_avg_ts:
        str_printf(out, "%.6f", t->ts->mean);
        break;
    case LLAMA_stddev_ts:
        str_printf(out, "%.6f", isfinite(t->ts->sd) ? t->ts->sd : 0);
        break;
    default:
        str_puts(out, llama_table[which].standard);
    }
}

/* Calls put for each value that is written, with what stands between two of them. */
typedef void (*put_value)(str *out, int which, const char *text);
static void put_values(str *out, const llama_output *t, const char *between, put_value put) {
    str text = {0};
    for (int i = 0; i < N_LLAMA; i++) {
        if (llama_table[i].old) continue;
        str_clear(&text);
        llama_put(&text, t, i);
        if (i) str_puts(out, between);
        put(out, i, text.data ? text.data : "");
    }
    out->failed |= text.failed;
    str_free(&text);
}

static void put_names(str *out, const char *between) {
    for (int i = 0; i < N_LLAMA; i++)
        if (!llama_table[i].old) str_printf(out, "%s%s", i ? between : "", llama_table[i].name);
}

/* ---- csv ---- */

/* Every field is quoted, as llama-bench has it. */
static void put_csv_value(str *out, int which, const char *text) {
    (void)which;
    str_puts(out, "\"");
    for (; *text; text++) str_append(out, *text == '"' ? "\"\"" : text, *text == '"' ? 2 : 1);
    str_puts(out, "\"");
}

static void begin_csv(output *o) {
    put_names(&o->text, ",");
    str_puts(&o->text, "\n");
}

static void put_csv_row(output *o, const row *r) {
    llama_output tests[2];
    int n = llama_outputs(r, tests);
    for (int i = 0; i < n; i++) {
        put_values(&o->text, &tests[i], ",", put_csv_value);
        str_puts(&o->text, "\n");
    }
}

const format format_llama_bench_csv = {.begin = begin_csv, .row = put_csv_row, .one_sequence = true};

/* ---- json and jsonl ---- */

static void put_json_value(str *out, int which, const char *text) {
    llama_kind kind = llama_table[which].kind;
    str_printf(out, "\"%s\": ", llama_table[which].name);
    if (kind == LLAMA_TEXT)
        json_quote(out, text);
    else
        str_puts(out, kind != LLAMA_BOOL ? text : strcmp(text, "0") ? "true" : "false");
}

static void put_object(str *out, const llama_output *t, const char *between) {
    put_values(out, t, between, put_json_value);
    str_printf(out, "%s\"samples_ns\": [", between);
    for (int64_t i = 0; i < t->ts->n; i++) str_printf(out, "%s%.0f", i ? ", " : "", llama_sample_ns(t, i));
    str_printf(out, "]%s\"samples_ts\": [", between);
    for (int64_t i = 0; i < t->ts->n; i++) str_printf(out, "%s%.3f", i ? ", " : "", t->ts->in_order[i]);
    str_puts(out, "]");
}

static void begin_json(output *o) {
    str_puts(&o->text, "[");
}

static void put_json_row(output *o, const row *r) {
    llama_output tests[2];
    int n = llama_outputs(r, tests);
    for (int i = 0; i < n; i++) {
        str_puts(&o->text, o->n_written++ ? ",\n  {\n    " : "\n  {\n    ");
        put_object(&o->text, &tests[i], ",\n    ");
        str_puts(&o->text, "\n  }");
    }
}

static void end_json(output *o) {
    str_puts(&o->text, "\n]\n");
}

const format format_llama_bench_json = {
    .begin = begin_json, .row = put_json_row, .end = end_json, .one_sequence = true};

static void put_jsonl_row(output *o, const row *r) {
    llama_output tests[2];
    int n = llama_outputs(r, tests);
    for (int i = 0; i < n; i++) {
        str_puts(&o->text, "{");
        put_object(&o->text, &tests[i], ", ");
        str_puts(&o->text, "}\n");
    }
}

const format format_llama_bench_jsonl = {.row = put_jsonl_row, .one_sequence = true};

/* ---- sql ---- */

/* llama-bench forgets to double a quote in a text. */
static void put_sql_value(str *out, int which, const char *text) {
    (void)which;
    str_puts(out, "'");
    for (; *text; text++) str_append(out, *text == '\'' ? "''" : text, *text == '\'' ? 2 : 1);
    str_puts(out, "'");
}

static void begin_sql(output *o) {
    static const char *const types[] = {"TEXT", "INTEGER", "INTEGER", "REAL"};
    str_puts(&o->text, "CREATE TABLE IF NOT EXISTS llama_bench (");
    for (int i = 0; i < N_LLAMA; i++)
        if (!llama_table[i].old)
            str_printf(&o->text, "%s\n  %s %s", i ? "," : "", llama_table[i].name,
                       types[llama_table[i].kind]);
    str_puts(&o->text, "\n);\n\n");
}

static void put_sql_row(output *o, const row *r) {
    llama_output tests[2];
    int n = llama_outputs(r, tests);
    for (int i = 0; i < n; i++) {
        str_puts(&o->text, "INSERT INTO llama_bench (");
        put_names(&o->text, ", ");
        str_puts(&o->text, ") VALUES (");
        put_values(&o->text, &tests[i], ", ", put_sql_value);
        str_puts(&o->text, ");\n");
    }
}

const format format_llama_bench_sql = {.begin = begin_sql, .row = put_sql_row, .one_sequence = true};
