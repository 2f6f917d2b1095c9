/* prometheus.c - Prometheus' text exposition format: gauges of each configuration, with its
 * parameters as labels, in base units (seconds, bytes). For node_exporter's textfile collector and
 * the like. All samples of a name stand together, as the format asks for, so each name has a part
 * of the output.
 */
#include "report/format.h"

#include <math.h>

typedef struct family {
    const char *name; /* without "mlxbench_" */
    int column;       /* -1: none */
    double scale;     /* from the column's unit */
    const char *quantile;
    const char *help;
} family;

static const family families[] = {
    {"configuration_info", -1, 1, NULL, "What was measured, and where; always 1."},
    {"configuration_failed", -1, 1, NULL, "1: the configuration was not measured; error says why."},
    {"runs", -1, 1, NULL, "Measured runs."},
    {"prompt_tokens_per_second", COLUMN_prompt_tps, 1, NULL, "Speed of the prompt, first token included."},
    {"generation_tokens_per_second", COLUMN_generation_tps, 1, NULL,
     "Speed of generation, of all sequences."},
    {"time_to_first_token_seconds", COLUMN_ttft_ms, 1e-3, NULL, "From the prompt to the first token."},
    {"inter_token_latency_seconds", COLUMN_itl_p50_ms, 1e-3, "0.5", "Time between two tokens."},
    {"inter_token_latency_seconds", COLUMN_itl_p90_ms, 1e-3, "0.9", NULL},
    {"inter_token_latency_seconds", COLUMN_itl_p99_ms, 1e-3, "0.99", NULL},
    {"inter_token_latency_seconds", COLUMN_itl_max_ms, 1e-3, "1", NULL},
    {"run_duration_seconds", COLUMN_total_s, 1, NULL, "From the prompt to the last token."},
    {"model_load_seconds", COLUMN_load_s, 1, NULL, "Opening the checkpoint and loading the model."},
    {"peak_memory_bytes", COLUMN_peak_memory_gb, 1e9, NULL,
     "Highest memory in use by the engine during a run."},
    {"weights_bytes", COLUMN_weights_gb, 1e9, NULL, "Weights in use."},
    {"kv_cache_bytes", COLUMN_kv_gb, 1e9, NULL, "KV caches after the last token."},
    {"peak_resident_memory_bytes", COLUMN_peak_rss_gb, 1e9, NULL, "Peak resident memory of the process."},
};
enum { N_FAMILIES = sizeof families / sizeof *families, INFO = 0, FAILED = 1, RUNS = 2 };

static void put_label(str *out, const char *name, const char *text) {
    str line = {0};
    str_put_printable(&line, text);
    str_printf(out, "%s%s=\"", out->length && out->data[out->length - 1] == '{' ? "" : ",", name);
    for (size_t i = 0; i < line.length; i++)
        str_printf(out, strchr("\\\"", line.data[i]) ? "\\%c" : "%c", line.data[i]);
    str_puts(out, "\"");
    out->failed |= line.failed;
    str_free(&line);
}

static void put_cell_label(str *out, const row *r, int which) {
    str text = {0};
    if (r->cells[which].kind == VALUE_NONE) return;
    value_put(&text, r->cells[which], 9, "");
    put_label(out, column_table[which].name, text.data ? text.data : "");
    out->failed |= text.failed;
    str_free(&text);
}

/* The name of a series and its first labels: the parameters. */
static void put_series(str *out, const family *f, const row *r) {
    str_printf(out, "mlxbench_%s{", f->name);
    for (int c = COLUMN_FIRST_PARAM; c < COLUMN_FIRST_METRIC; c++) put_cell_label(out, r, c);
}

static void put_gauge(str *out, const family *f, const row *r, const char *statistic, double x) {
    if (!isfinite(x)) return;
    put_series(out, f, r);
    if (f->quantile) put_label(out, "quantile", f->quantile);
    if (statistic) put_label(out, "statistic", statistic);
    str_printf(out, "} %.9g\n", x * f->scale);
}

static void put_info(str *out, const row *r) {
    static const int told[] = {COLUMN_model_type, COLUMN_quantization,     COLUMN_parameters,
                               COLUMN_synthetic,  COLUMN_device,           COLUMN_engine_version,
                               COLUMN_mlx_env,    COLUMN_hw_model,         COLUMN_chip,
                               COLUMN_os,         COLUMN_mlxbench_version, COLUMN_quality};
    put_series(out, &families[INFO], r);
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) put_cell_label(out, r, told[i]);
    str_puts(out, "} 1\n");
}

static void put_metric(str *out, const family *f, const row *r) {
    value v = r->cells[f->column];
    const spread *s = &r->spreads[f->column - COLUMN_FIRST_METRIC];
    bool spreads = column_table[f->column].summing == MEDIAN;
    put_gauge(out, f, r, spreads ? "median" : NULL, v.real);
    if (!spreads) return;
    put_gauge(out, f, r, "low", s->low);
    put_gauge(out, f, r, "high", s->high);
}

/* The text of a family, which begins with its head. Families of one name are one. */
static str *part_of(output *o, int which) {
    _Static_assert((int)N_FAMILIES <= (int)MAX_PARTS, "a part for each family");
    while (which && !strcmp(families[which].name, families[which - 1].name)) which--;
    str *part = &o->parts[which];
    const char *name = families[which].name;
    if (!part->length)
        str_printf(part, "# HELP mlxbench_%s %s\n# TYPE mlxbench_%s gauge\n", name, families[which].help,
                   name);
    return part;
}

static void put_row(output *o, const row *r) {
    if (r->kind != ROW_SUMMARY) return;
    if (r->cells[COLUMN_error].kind == VALUE_TEXT) {
        str *failed = part_of(o, FAILED);
        put_series(failed, &families[FAILED], r);
        put_cell_label(failed, r, COLUMN_error);
        str_puts(failed, "} 1\n");
    }
    if (!r->spreads[METRIC_prompt_tps].n) return;
    put_info(part_of(o, INFO), r);
    put_gauge(part_of(o, RUNS), &families[RUNS], r, NULL, (double)r->spreads[METRIC_prompt_tps].n);
    for (int i = RUNS + 1; i < N_FAMILIES; i++)
        if (r->cells[families[i].column].kind == VALUE_REAL) put_metric(part_of(o, i), &families[i], r);
}

const format format_prometheus = {.row = put_row};
