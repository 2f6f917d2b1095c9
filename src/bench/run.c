/* run.c - the trials: warm-up and measured runs of every configuration, a timestamp per token.
 * Nothing is computed from the timestamps here; between start_ns and the last token only the session runs.
 * A configuration that fails gives a row that says why, and the next one follows. */
#include "bench/internal.h"
#include "sys/sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct bench {
    const plan *plan;
    const bench_options *options;
    int (*on_row)(void *context, const row *r);
    void *context;
    summary *summary; /* of this configuration's runs */
    loaded loaded;
    progress progress;
    hardware hardware;
    char hw_model[128], measured_at[32], prompt_hash[HASH_CHARS], ids_hash[HASH_CHARS];
    int64_t n_rows, n_measured, n_failed; /* all rows; runs and configurations among them */
    int64_t n_refused;                    /* failed ones that the model cannot run as they were asked for */
    int64_t n_equal;                      /* configurations left out, since another one is the same */
    int64_t configuration, repeat;        /* this one, from 1; its rows so far */
    int64_t runs_left;                    /* of this configuration */
    int64_t load_failures;                /* configurations in turn that found this model not to load */
    bool engine_failed, stopped;          /* during a run; a row could not be written */
    bool model_refused;                   /* no configuration of this model can run */
    char error[2048];                     /* of the last configuration that failed */
} bench;

/* ---- one run ---- */

static int time_tokens(bench *b, session *s, const int32_t *prompt, sample *out, int64_t n_generate) {
    out->start_ns = clock_ns();
    if (session_prefill(s, prompt, out->n_prompt)) return -1;
    while (out->n_tokens < n_generate) {
        if (session_step(s, &out->ids[out->n_tokens * out->n_sequences])) return -1;
        int64_t now = clock_ns();
        out->token_ns[out->n_tokens++] = now;
        progress_token(&b->progress, out->n_tokens, now);
    }
    return 0;
}

/* What the runs of a configuration begin with. */
typedef struct beginning {
    int32_t *depth, *prompt; /* ids [batch][depth], [batch][n_prompt] */
    session *filled;         /* with the depth in its caches; NULL: each run has a session of its own */
} beginning;

/* The depth is filled once, and given back for each run. */
static int begin(bench *b, const params *p, beginning *out) {
    static const token_ids no_text = {0};
    const loaded *l = &b->loaded;
    prompt_source from = {.text = strcmp(p->prompt_source, "random") ? &l->prompt_text : &no_text,
                          .vocab_size = model_describe(l->model)->vocab_size,
                          .seed = b->options->seed};
    int32_t *all = make_prompt(&from, (prompt_part){p->batch, 0, p->depth + p->n_prompt});
    out->prompt = make_prompt(&from, (prompt_part){p->batch, p->depth, p->n_prompt});
    if (all) hash_ids(all, p->batch * (p->depth + p->n_prompt), b->prompt_hash);
    free(all);
    if (!all || !out->prompt) return -1;
    if (!p->depth) return 0;
    session_spec spec = params_session(p);
    out->depth = make_prompt(&from, (prompt_part){p->batch, 0, p->depth});
    if (!out->depth) return -1;
    b->engine_failed = true;
    out->filled = session_new(l->model, l->engine, &spec);
    if (!out->filled || session_fill(out->filled, out->depth, p->depth) || session_mark(out->filled))
        return -1;
    b->engine_failed = false;
    return 0;
}

static void end(beginning *b) {
    session_free(b->filled);
    free(b->depth);
    free(b->prompt);
}

/* Fills *out; its arrays have room for p->n_generate tokens. */
static int run_once(bench *b, const params *p, const beginning *from, sample *out) {
    loaded *l = &b->loaded;
    session_spec spec = params_session(p);
    session *s = from->filled;
    if (interrupted()) return fail_interrupted();
    progress_run(&b->progress, p);
    if (s && session_return(s)) return -1;
    engine_reset_peak(l->engine);
    if (!s) s = session_new(l->model, l->engine, &spec);
    if (!s) return -1;
    session_on_prefill(s, progress_prefill, &b->progress);
    out->n_sequences = p->batch;
    out->n_prompt = p->n_prompt;
    out->n_tokens = 0;
    out->load_ns = l->load_ns;
    int failed = time_tokens(b, s, from->prompt, out, p->n_generate);
    engine_memory used = engine_memory_used(l->engine);
    out->memory.weights = used.weights;
    out->memory.kv = used.kv;
    out->memory.scratch = used.scratch;
    out->memory.peak = used.peak;
    out->peak_rss = sys_peak_rss();
    if (!from->filled) session_free(s);
    if (failed) return -1;
    progress_run_done(&b->progress, out);
    b->runs_left--;
    return 0;
}

/* ---- its row ---- */

/* What ran, where the parameters leave it open. Of a configuration that failed, the row shows what was asked
 * for. */
static void set_what_ran(const bench *b, params *p, bool failed) {
    const loaded *l = &b->loaded;
    engine_info info = l->engine ? engine_describe(l->engine) : (engine_info){.name = p->engine};
    p->engine = info.name;
    if (l->model && model_describe(l->model)->own_caches) p->max_kv_size = 0;
    if (!failed) {
        p->threads = info.threads;
        for (int i = 0; i < N_PARAMS && l->engine; i++) {
            const char *used = engine_setting_used(l->engine, param_table[i].name);
            if (param_table[i].kind == KIND_SETTING)
                memcpy((char *)p + param_table[i].offset, &used, sizeof used);
        }
        if (p->graph && p->batch > 1) p->graph = "mlx-lm"; /* fused kernels are of one sequence */
        if (!l->prompt_text.n) p->prompt_source = "random";
    }
}

static facts get_facts(bench *b) {
    const loaded *l = &b->loaded;
    time_t now = time(NULL);
    struct tm utc;
    strftime(b->measured_at, sizeof b->measured_at, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    facts f = {.synthetic = -1,
               .seed = (int64_t)b->options->seed,
               .warmup = b->options->warmup,
               .hw_model = b->hw_model,
               .chip = b->hardware.chip,
               .os = b->hardware.os,
               .mlxbench_version = MLXBENCH_VERSION,
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

static int hand_on(bench *b, const row *r) {
    progress_clear(&b->progress);
    b->stopped = b->on_row(b->context, r) != 0;
    return b->stopped ? -1 : 0;
}

/* s: NULL with an error that says why there is no sample. */
static int hand_over(bench *b, const params *p, const sample *s, const char *error) {
    params ran = *p;
    facts f = get_facts(b);
    row r;
    f.error = error;
    if (s) {
        hash_ids(s->ids, s->n_tokens * s->n_sequences, b->ids_hash);
        f.prompt_hash = b->prompt_hash;
        f.ids_hash = b->ids_hash;
    }
    set_what_ran(b, &ran, error != NULL);
    row_of_run(&r, (run_number){++b->n_rows, b->configuration, ++b->repeat}, &ran, s, &f);
    return summary_add(b->summary, &r) || hand_on(b, &r) ? -1 : 0;
}

/* The row of a configuration, as far as it was measured: also of one that was interrupted. An error stays. */
static int hand_over_summary(bench *b) {
    row r;
    int failed = 0;
    if (!b->stopped && !summary_row(b->summary, &r)) failed = hand_on(b, &r);
    summary_clear(b->summary);
    return failed;
}

/* The text that was generated, of each sequence, after the run so that printing it costs no measured time. */
static int show_text(const loaded *l, const sample *s) {
    if (!l->tokenizer) return 0;
    int32_t *ids = mem_new((size_t)s->n_tokens, sizeof *ids, "a text");
    int failed = !ids;
    for (int64_t k = 0; k < s->n_sequences && !failed; k++) {
        str text = {0};
        for (int64_t i = 0; i < s->n_tokens; i++) ids[i] = s->ids[i * s->n_sequences + k];
        failed = tokenizer_decode(l->tokenizer, ids, s->n_tokens, false, &text);
        if (!failed && !text.failed) progress_text(text.data ? text.data : "", text.length);
        str_free(&text);
    }
    free(ids);
    return failed;
}

/* ---- one configuration ---- */

static int check(const bench *b, const params *p) {
    session_spec spec = params_session(p);
    if (generate_check(b->loaded.model, &spec.options)) return -1;
    return session_check_memory(b->loaded.model, &spec, sys_available_memory());
}

static void note_oddities(bench *b, const params *p) {
    str notes = {0};
    params_notes(p, b->loaded.checkpoint, b->loaded.engine, p->depth + p->n_prompt + p->n_generate, &notes);
    if (notes.length) progress_notes(&b->progress, notes.data);
    str_free(&notes);
}

static int run_configuration(bench *b, const params *p) {
    const bench_options *o = b->options;
    loaded *l = &b->loaded;
    engine_options how = params_engine(p);
    if (check(b, p) || engine_configure(l->engine, &how)) return -1;
    note_oddities(b, p);
    sample s = {.token_ns = mem_new((size_t)p->n_generate, sizeof *s.token_ns, "the timestamps"),
                .ids = mem_new((size_t)(p->n_generate * p->batch), sizeof *s.ids, "the generated ids")};
    beginning from = {0};
    int failed = !s.token_ns || !s.ids || begin(b, p, &from);
    for (int64_t i = 0; i < o->warmup + o->repeats && !failed; i++) {
        failed = b->engine_failed = run_once(b, p, &from, &s) != 0;
        if (failed || i < o->warmup) continue;
        b->n_measured++;
        failed = hand_over(b, p, &s, NULL);
        if (!failed && o->verbose) failed = show_text(l, &s);
    }
    end(&from);
    free(s.ids);
    free(s.token_ns);
    return failed ? -1 : 0;
}

static bool same_model(const params *a, const params *b) {
    return !strcmp(a->model, b->model) && !strcmp(a->engine, b->engine);
}

/* Opens the model of p on its engine, unless it is there. What failed is not tried again. */
static int load(bench *b, const params *p) {
    bool from_text = false;
    if (b->load_failures) {
        b->load_failures++;
        return fail("%s", b->error);
    }
    for (int i = 0; i < b->plan->n_values[PARAM_prompt_source]; i++)
        from_text |= !strcmp(b->plan->values[PARAM_prompt_source][i].text, "text");
    if (!loaded_open(&b->loaded, p, b->options, from_text || b->options->verbose)) return 0;
    b->load_failures = 1;
    b->model_refused = error_exit_code() == EXIT_USAGE;
    return -1;
}

/* mlx-lm generate.py: wired_limit, which warns of the same models. */
static void note_wired_limit(bench *b, const char *name) {
    int64_t limit = engine_describe(b->loaded.engine).wired_limit,
            weights = engine_memory_used(b->loaded.engine).weights;
    if (limit && (double)weights > 0.9 * (double)limit)
        progress_note(
            &b->progress,
            "the weights of %s take %lld MB, close to the %lld MB the GPU should keep resident, so it "
            "may be slow",
            name, (long long)(weights >> 20), (long long)(limit >> 20));
}

/* For the model just loaded: -1 when it can run none of its configurations; one alone finds that again. */
static int check_all(bench *b, int64_t first) {
    const params p = plan_params(b->plan, first);
    bool limited = false, from_text = false, possible = false;
    for (int64_t i = first; i < b->plan->n; i++) {
        params other = plan_params(b->plan, i);
        generate_options how = params_generate(&other);
        if (!same_model(&p, &other)) break;
        possible |= !generate_check(b->loaded.model, &how);
        limited |= how.max_kv_size > 0;
        from_text |= !strcmp(other.prompt_source, "text");
    }
    b->model_refused = !possible;
    if (!possible) return -1;
    error_clear();
    note_wired_limit(b, p.model);
    for (int i = 0; checkpoint_note(b->loaded.checkpoint, i); i++)
        progress_note(&b->progress, "%s: %s", p.model, checkpoint_note(b->loaded.checkpoint, i));
    if (limited && model_describe(b->loaded.model)->own_caches)
        progress_note(&b->progress, "%s chooses its KV caches itself, so --max-kv-size has no effect",
                      p.model);
    if (from_text && !b->loaded.tokenizer)
        progress_note(&b->progress, "%s has no tokenizer, so the prompt is random tokens", p.model);
    return 0;
}

/* Does an earlier configuration run the same? A model that chooses its caches has one for every max_kv_size.
 */
static bool is_equal(const bench *b, const params *p) {
    const model *m = b->loaded.model;
    return m && model_describe(m)->own_caches &&
           p->max_kv_size != b->plan->values[PARAM_max_kv_size][0].number;
}

/* Gives the configuration that failed its row, so that the next one can follow. -1 when none may: after
 * Ctrl-C, without an output, and when the command is one that the only model can't run at all. */
static int leave_out(bench *b, const params *p) {
    int code = error_exit_code();
    bool only = b->plan->n_values[PARAM_model] == 1 && b->plan->n_values[PARAM_engine] == 1;
    if (b->stopped || code == EXIT_INTERRUPTED || (only && b->model_refused)) return -1;
    snprintf(b->error, sizeof b->error, "%s", error_message());
    b->n_failed++;
    b->n_refused += code == EXIT_USAGE;
    progress_skip(&b->progress, p, b->runs_left);
    if (hand_over(b, p, NULL, b->error)) return -1;
    if (b->plan->n > 1 && b->load_failures < 2)
        progress_note(&b->progress, "run %lld failed: %s", (long long)b->n_rows, b->error);
    if (b->engine_failed) loaded_free(&b->loaded); /* an engine in an unknown state */
    b->engine_failed = false;
    error_clear();
    return 0;
}

/* The error of a plan that was run to its end. */
static int report_failures(const bench *b) {
    long long n = b->plan->n - b->n_equal;
    int (*refuse)(const char *format, ...) = b->n_refused == n ? fail_usage : fail;
    if (!b->n_failed) return 0;
    if (n == 1) return refuse("%s", b->error);
    if (!b->n_measured) return refuse("nothing was measured: all %lld configurations failed", n);
    return fail("%lld of %lld configurations failed; column error of their rows says why",
                (long long)b->n_failed, n);
}

/* One configuration of the plan, with all its rows. -1 when the plan ends with it. */
static int run_planned(bench *b, int64_t i, const params *now, bool other_model) {
    int stopped = 0;
    b->runs_left = b->options->warmup + b->options->repeats;
    if (other_model) b->load_failures = b->model_refused = 0;
    int failed = load(b, now) || (other_model && check_all(b, i));
    if (!failed && is_equal(b, now)) {
        b->n_equal++;
        progress_skip(&b->progress, now, b->runs_left);
        return 0;
    }
    b->configuration++;
    b->repeat = 0;
    if (failed || run_configuration(b, now)) stopped = leave_out(b, now);
    return hand_over_summary(b) || stopped ? -1 : 0;
}

int bench_run(const plan *p, const bench_options *o, int (*on_row)(void *context, const row *r),
              void *context) {
    bench b = {.plan = p, .options = o, .on_row = on_row, .context = context, .summary = summary_new()};
    params before;
    int stopped = b.summary ? 0 : -1;
    sys_hardware(&b.hardware);
    sys_hardware_id(b.hw_model, sizeof b.hw_model, &b.hardware);
    progress_begin(&b.progress, p, o);
    for (int64_t i = 0; i < p->n && !stopped; i++) {
        params now = plan_params(p, i);
        stopped = run_planned(&b, i, &now, i == 0 || !same_model(&before, &now));
        before = now;
    }
    progress_clear(&b.progress);
    loaded_free(&b.loaded);
    summary_free(b.summary);
    return stopped ? -1 : report_failures(&b);
}
