/* rows.c - the row of a run and of a configuration: what ran, with which facts, handed on at once.
 */
#include "bench/child.h"

#include <stdio.h>
#include <time.h>

/* What ran, where the parameters leave it open. Of a configuration that failed, the row shows what
 * was asked for. */
static void set_what_ran(const bench *b, params *p, bool failed) {
    const loaded *l = &b->loaded;
    engine_info info = l->engine ? engine_describe(l->engine) : (engine_info){.name = p->engine};
    if (!strchr(p->engine, '@')) p->engine = info.name; /* mlx@PATH says which module */
    if (l->model && model_describe(l->model)->own_caches) p->max_kv_size = 0;
    generate_options how = params_generate(p);
    if (l->model && p->kv_bits && !generate_quantizes(l->model, &how)) p->kv_bits = 0;
    if (!failed) {
        p->threads = info.threads;
        for (int i = 0; i < N_PARAMS && l->engine; i++) {
            const char *used = engine_setting_used(l->engine, param_table[i].name);
            if (param_table[i].kind == KIND_SETTING)
                memcpy((char *)p + param_table[i].offset, &used, sizeof used);
        }
        if (p->graph && p->batch > 1) p->graph = "mlx-lm"; /* fused kernels are of one sequence */
        if (!l->prompt_text.n && !is_from_file(p->prompt_source)) p->prompt_source = "random";
    }
}

static facts get_facts(bench *b, const series *s) {
    const loaded *l = &b->loaded;
    time_t now = time(NULL);
    struct tm utc;
    strftime(b->measured_at, sizeof b->measured_at, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    facts f = {.synthetic = -1,
               .seed = (int64_t)b->options->seed,
               .warmup = s->n_warm,
               .order = bench_in_given_order(b->options) ? "given" : "random",
               .hw_model = b->hw_model,
               .chip = b->hardware.chip,
               .os = b->hardware.os,
               .mlxbench_version = MLXBENCH_VERSION,
               .program = s->program,
               .measured_at = b->measured_at};
    if (!l->model) return f;
    engine_info info = engine_describe(l->engine);
    f.model_type = model_describe(l->model)->model_type;
    f.quantization = checkpoint_quantization(l->checkpoint);
    f.parameters = checkpoint_parameters(l->checkpoint);
    f.synthetic = checkpoint_is_synthetic(l->checkpoint);
    f.engine_version = info.version;
    f.device = info.device;
    f.mlx_env = strcmp(info.name, "mlx") ? NULL : mlx_env_text();
    return f;
}

int rows_hand_on(bench *b, const row *r) {
    progress_clear(&b->progress);
    b->stopped = b->on_row(b->context, r) != 0;
    return b->stopped ? -1 : 0;
}

void rows_what_runs(bench *b, const series *s, row *out) {
    params p = s->params;
    facts f = get_facts(b, s);
    set_what_ran(b, &p, false);
    row_of_run(out, (run_number){0}, &p, NULL, &f);
}

void rows_of_run(bench *b, const series *s, const sample *run, row *out) {
    params ran = s->params;
    facts f = get_facts(b, s);
    b->grade[0] = b->quality.grade;
    f.quality = b->grade;
    f.quality_reasons = b->quality.reasons.data;
    hash_ids(run->ids, run->n_tokens * run->n_sequences, b->ids_hash);
    f.prompt_hash = b->prompt_hash;
    f.ids_hash = b->ids_hash;
    set_what_ran(b, &ran, false);
    row_of_run(out, (run_number){0}, &ran, run, &f);
}

static value number(int64_t n) {
    return (value){.kind = VALUE_NUMBER, .number = n};
}

/* Unset where there is none. */
static value text_of(const char *text) {
    return text && *text ? (value){.kind = VALUE_TEXT, .text = text} : (value){.kind = VALUE_NONE};
}

enum { LONGEST_TEXT = 4096 };

/* The prompt's text, if it is one that someone gave, and no book. */
static const char *given_text(const bench_options *o, value source) {
    bool given = o->prompt_given && source.kind == VALUE_TEXT && !strcmp(source.text, "text") &&
                 o->prompt_length <= LONGEST_TEXT && strlen(o->prompt) == o->prompt_length;
    return given ? o->prompt : NULL;
}

int rows_run(bench *b, series *s, row *r) {
    r->cells[COLUMN_command] = text_of(b->options->command); /* also of what another process measured */
    r->cells[COLUMN_prompt_text] = text_of(given_text(b->options, r->cells[COLUMN_prompt_source]));
    r->cells[COLUMN_run] = number(++b->n_rows);
    r->cells[COLUMN_configuration] = number(s->configuration);
    r->cells[COLUMN_repeat] = number(++s->n_rows);
    if (s->window) r->cells[COLUMN_window] = number(s->window);
    if (!s->summary) s->summary = summary_new();
    return !s->summary || summary_add(s->summary, r) || rows_hand_on(b, r) ? -1 : 0;
}

int rows_error(bench *b, series *s, const char *error) {
    params asked = s->params;
    facts f = get_facts(b, s);
    row r;
    f.error = error;
    set_what_ran(b, &asked, true);
    row_of_run(&r, (run_number){0}, &asked, NULL, &f);
    place_put_facts(b, s, &r);
    return rows_run(b, s, &r);
}

int rows_summary(bench *b, series *s) {
    row r;
    int failed = 0;
    if (s->summary && !b->stopped && !summary_row(s->summary, &r)) failed = rows_hand_on(b, &r);
    summary_free(s->summary);
    s->summary = NULL;
    return failed;
}
