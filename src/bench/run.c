/* run.c - the trials: warm-up and measured runs of every configuration, a timestamp per token.
 * Nothing is computed from the timestamps here; between start_ns and the last token only the session runs. */
#include "bench/internal.h"
#include "sys/sys.h"

#include <stdlib.h>
#include <time.h>

typedef struct bench {
    const plan *plan;
    const bench_options *options;
    int (*on_row)(void *context, const record *r);
    void *context;
    loaded loaded;
    progress progress;
    hardware hardware;
    char hw_model[128], measured_at[32];
    int64_t n_rows;
} bench;

/* ---- one run ---- */

static int time_tokens(bench *b, session *s, sample *out, int64_t n_generate) {
    out->start_ns = clock_ns();
    while (out->n_tokens < n_generate) {
        int got = session_next(s, &out->ids[out->n_tokens]);
        if (got < 0) return -1;
        if (!got) break;
        int64_t now = clock_ns();
        out->token_ns[out->n_tokens++] = now;
        progress_token(&b->progress, out->n_tokens, now);
    }
    return out->n_tokens ? 0 : fail("the model generated no token");
}

/* Fills *out; its arrays have room for p->n_generate tokens. */
static int run_once(bench *b, const params *p, const int32_t *prompt, sample *out) {
    loaded *l = &b->loaded;
    generate_options how = params_generate(p);
    if (interrupted()) return fail_interrupted();
    progress_run(&b->progress, p);
    engine_reset_peak(l->engine);
    session *s = session_new(l->model, l->engine, &how, prompt, p->n_prompt, p->n_generate);
    if (!s) return -1;
    session_on_prefill(s, progress_prefill, &b->progress);
    out->n_prompt = p->n_prompt;
    out->n_tokens = 0;
    out->load_ns = l->load_ns;
    int failed = time_tokens(b, s, out, p->n_generate);
    out->memory = engine_memory_used(l->engine);
    out->peak_rss = sys_peak_rss();
    session_free(s);
    if (!failed) progress_run_done(&b->progress, out);
    return failed;
}

/* ---- its row ---- */

/* What ran, where the parameters leave it open. */
static void set_what_ran(bench *b, params *p) {
    engine_info info = engine_describe(b->loaded.engine);
    p->engine = info.name;
    p->threads = info.threads;
    p->graph = info.graph;
    p->activations = info.activations;
    mlx_knobs_show(p, !strcmp(info.name, "mlx"));
    if (!b->loaded.prompt_text.n) p->prompt_source = "random";
}

static int hand_over(bench *b, const params *p, const sample *s) {
    loaded *l = &b->loaded;
    engine_info info = engine_describe(l->engine);
    time_t now = time(NULL);
    struct tm utc;
    strftime(b->measured_at, sizeof b->measured_at, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    record r = {.run = ++b->n_rows,
                .params = *p,
                .sample = *s,
                .facts = {.model_type = model_describe(l->model)->model_type,
                          .quantization = checkpoint_quantization(l->checkpoint),
                          .parameters = checkpoint_parameters(l->checkpoint),
                          .synthetic = checkpoint_is_synthetic(l->checkpoint),
                          .engine_version = info.version,
                          .device = info.device,
                          .hw_model = b->hw_model,
                          .chip = b->hardware.chip,
                          .os = b->hardware.os,
                          .mlxbench_version = MLXBENCH_VERSION,
                          .measured_at = b->measured_at}};
    set_what_ran(b, &r.params);
    progress_clear(&b->progress);
    return b->on_row(b->context, &r);
}

/* The text that was generated, after the run so that printing it costs no measured time. */
static int show_text(const loaded *l, const sample *s) {
    str text = {0};
    if (!l->tokenizer) return 0;
    int failed = tokenizer_decode(l->tokenizer, s->ids, s->n_tokens, false, &text);
    if (!failed && !text.failed) progress_text(text.data ? text.data : "", text.length);
    str_free(&text);
    return failed;
}

/* ---- one configuration ---- */

static int check_memory(const bench *b, const params *p) {
    generate_options how = params_generate(p);
    return generate_check_memory(b->loaded.model, &how, p->n_prompt, p->n_generate, sys_available_memory());
}

static int run_configuration(bench *b, const params *p) {
    const bench_options *o = b->options;
    loaded *l = &b->loaded;
    static const token_ids no_text = {0};
    bool random = !strcmp(p->prompt_source, "random");
    engine_options how = params_engine(p);
    if (check_memory(b, p) || engine_configure(l->engine, &how)) return -1;
    sample s = {.token_ns = mem_new((size_t)p->n_generate, sizeof *s.token_ns, "the timestamps"),
                .ids = mem_new((size_t)p->n_generate, sizeof *s.ids, "the generated ids")};
    int32_t *prompt = make_prompt(random ? &no_text : &l->prompt_text, model_describe(l->model)->vocab_size,
                                  o->seed, p->n_prompt);
    int failed = !s.token_ns || !s.ids || !prompt;
    for (int64_t i = 0; i < o->warmup + o->repeats && !failed; i++) {
        failed = run_once(b, p, prompt, &s);
        if (failed || i < o->warmup) continue;
        failed = hand_over(b, p, &s);
        if (!failed && o->verbose) failed = show_text(l, &s);
    }
    free(prompt);
    free(s.ids);
    free(s.token_ns);
    return failed ? -1 : 0;
}

static bool same_model(const params *a, const params *b) {
    return !strcmp(a->model, b->model) && !strcmp(a->engine, b->engine);
}

/* Loads what configuration `first` needs, and checks all that follow with the same model before any is
 * measured. */
static int load_and_check(bench *b, int64_t first) {
    params p = plan_params(b->plan, first);
    bool from_text = false, limited = false;
    for (int i = 0; i < b->plan->n_values[PARAM_prompt_source]; i++)
        from_text |= !strcmp(b->plan->values[PARAM_prompt_source][i].text, "text");
    if (loaded_open(&b->loaded, &p, b->options, from_text || b->options->verbose)) return -1;
    for (int64_t i = first; i < b->plan->n; i++) {
        params other = plan_params(b->plan, i);
        generate_options how = params_generate(&other);
        if (!same_model(&p, &other)) break;
        if (generate_check(b->loaded.model, &how)) return -1;
        limited |= how.max_kv_size > 0;
    }
    if (limited && model_describe(b->loaded.model)->own_caches)
        progress_note(&b->progress, "%s chooses its KV caches itself, so --max-kv-size has no effect",
                      p.model);
    if (from_text && !b->loaded.tokenizer)
        progress_note(&b->progress, "%s has no tokenizer, so the prompt is random tokens", p.model);
    return 0;
}

int bench_run(const plan *p, const bench_options *o, int (*on_row)(void *context, const record *r),
              void *context) {
    bench b = {.plan = p, .options = o, .on_row = on_row, .context = context};
    params before;
    int failed = 0;
    sys_hardware(&b.hardware);
    sys_hardware_id(b.hw_model, sizeof b.hw_model, &b.hardware);
    progress_begin(&b.progress, p, o);
    for (int64_t i = 0; i < p->n && !failed; i++) {
        params now = plan_params(p, i);
        if (i == 0 || !same_model(&before, &now)) failed = load_and_check(&b, i);
        if (!failed) failed = run_configuration(&b, &now);
        before = now;
    }
    progress_clear(&b.progress);
    loaded_free(&b.loaded);
    return failed;
}
