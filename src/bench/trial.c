/* trial.c - a turn of a configuration: its unmeasured and measured runs, a timestamp per token.
 * Nothing is computed from the timestamps here; between start_ns and the last token only the
 * session runs.
 */
#include "bench/child.h"

#include <stdlib.h>

/* ---- one run ---- */

/* Which tokens' logits a run looks at: measured runs at none. BUT_LAST leaves a last step that is
 * like those of measured runs, for what an engine prepares for such steps. AFTER: at those of a
 * token after the last one. */
typedef enum look { LOOK_NEVER, LOOK_BUT_LAST, LOOK_ALWAYS, LOOK_AFTER } look;

static int time_tokens(bench *b, session *s, const int32_t *prompt, sample *out, int64_t n_generate,
                       look how) {
    out->start_ns = clock_ns();
    if (session_prefill(s, prompt, out->n_prompt)) return -1;
    while (out->n_tokens < n_generate) {
        bool looks = how == LOOK_ALWAYS || (how == LOOK_BUT_LAST && out->n_tokens + 1 < n_generate);
        if (session_keep_logits(s, looks) || session_step(s, &out->ids[out->n_tokens * out->n_sequences]))
            return -1;
        int64_t now = clock_ns();
        out->token_ns[out->n_tokens++] = now;
        progress_token(&b->progress, out->n_tokens, now);
        if (looks && session_check_logits(s, out->n_tokens)) {
            b->not_finite = true;
            return -1;
        }
    }
    return 0;
}

/* The depth is filled once, and given back for each run. */
static int begin(bench *b, const params *p, beginning *out) {
    loaded *l = &b->loaded;
    const token_ids *text = loaded_text(l, p);
    if (!text) return -1;
    prompt_source from = {
        .text = text, .vocab_size = model_describe(l->model)->vocab_size, .seed = b->options->seed};
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

static session *start_run(bench *b, const params *p, const beginning *from, sample *out) {
    session_spec spec = params_session(p);
    session *s = from->filled;
    if (s && session_return(s)) return NULL;
    engine_reset_peak(b->loaded.engine);
    if (!s) s = session_new(b->loaded.model, b->loaded.engine, &spec);
    if (s) session_on_prefill(s, progress_prefill, &b->progress);
    out->n_sequences = p->batch;
    out->depth = p->depth;
    out->n_prompt = p->n_prompt;
    out->n_tokens = 0;
    return s;
}

static void end_run(const beginning *from, session *s) {
    if (!from->filled) session_free(s);
}

/* What comes next wakes the machine. The run is judged without what happened before. */
static int idle(bench *b, const params *p) {
    if (!p->idle_s) return 0;
    b->watching = false;
    return clock_wait(p->idle_s * 1000000000);
}

/* Fills *out; its arrays have room for p->n_generate tokens. */
static int run_once(bench *b, const series *of, const beginning *from, sample *out, look how) {
    loaded *l = &b->loaded;
    const params *p = &of->params;
    if (interrupted()) return fail_interrupted();
    if (b->options->delay_ns && clock_wait(b->options->delay_ns)) return -1;
    progress_run(&b->progress, of);
    session *s = start_run(b, p, from, out);
    if (!s) return -1;
    out->load_ns = l->load_ns;
    int failed = of->warm ? idle(b, p) : 0;
    if (!of->warm && !of->n_warm) session_note_experts(s, p->n_generate);
    watch_begin(b);
    if (!failed) failed = time_tokens(b, s, from->prompt, out, p->n_generate, how);
    watch_end(b, of);
    engine_memory used = engine_memory_used(l->engine);
    out->memory.weights = used.weights;
    out->memory.kv = used.kv;
    out->memory.scratch = used.scratch;
    out->memory.peak = used.peak;
    out->peak_rss = sys_peak_rss();
    out->experts_touched = engine_experts_touched(l->engine);
    if (!failed && how == LOOK_AFTER) {
        failed = check_next_logits(s, p->batch, p->n_generate + 1);
        b->not_finite = failed == 1;
    }
    end_run(from, s);
    if (failed) return -1;
    progress_run_done(&b->progress, out);
    return 0;
}

/* Logits were not finite after a run that looked at none of its own: says from which token on. */
static void find_first(bench *b, const params *p, const beginning *from, sample *out) {
    session *s = start_run(b, p, from, out);
    if (s) time_tokens(b, s, from->prompt, out, p->n_generate, LOOK_ALWAYS);
    end_run(from, s);
}

/* The first run of a configuration looks at logits. */
static int run_first(bench *b, const series *s, const beginning *from, sample *out) {
    look how = s->warm || s->params.n_generate == 1 ? LOOK_AFTER : LOOK_BUT_LAST;
    if (!run_once(b, s, from, out, how)) return 0;
    if (b->not_finite && how == LOOK_AFTER) find_first(b, &s->params, from, out);
    return -1;
}

/* ---- a turn ---- */

/* The text that was generated, of each sequence, after the run so that printing it costs no
 * measured time. */
int show_text(const loaded *l, const sample *s) {
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

static int check(const bench *b, const params *p) {
    session_spec spec = params_session(p);
    if (generate_check(b->loaded.model, &spec.options)) return -1;
    return session_check_memory(b->loaded.model, &spec, sys_available_memory());
}

static void note_oddities(bench *b, const params *p) {
    str notes = {0};
    loaded_model m = {b->loaded.checkpoint, b->loaded.engine, b->loaded.model};
    params_notes(p, &m, p->depth + p->n_prompt + p->n_generate, &notes);
    if (notes.length) progress_notes(&b->progress, notes.data);
    str_free(&notes);
}

/* The arrays a run's tokens go to. free_sample is harmless on what is zero. */
static int new_sample(const params *p, sample *s) {
    s->token_ns = mem_new((size_t)p->n_generate, sizeof *s->token_ns, "the timestamps");
    s->ids = mem_new((size_t)(p->n_generate * p->batch), sizeof *s->ids, "the generated ids");
    return s->token_ns && s->ids ? 0 : -1;
}

static void free_sample(sample *s) {
    free(s->ids);
    free(s->token_ns);
}

static int configure(bench *b, const params *p) {
    engine_options how = params_engine(p);
    return check(b, p) || engine_configure(b->loaded.engine, &how) ? -1 : 0;
}

int turn_begin(bench *b, const series *s, turn *t) {
    const params *p = &s->params;
    *t = (turn){0};
    if (load_here(b, p) || configure(b, p)) return -1;
    note_oddities(b, p);
    return new_sample(p, &t->sample) || begin(b, p, &t->from) ? -1 : 0;
}

int turn_run(bench *b, const series *s, turn *t) {
    int64_t before = clock_ns();
    bool first = !s->n_warm && !s->n;
    int failed =
        first ? run_first(b, s, &t->from, &t->sample) : run_once(b, s, &t->from, &t->sample, LOOK_NEVER);
    b->engine_failed = failed && !b->not_finite;
    if (failed) return -1;
    t->ns = clock_ns() - before;
    rows_of_run(b, s, &t->sample, &t->row);
    return 0;
}

void turn_end(turn *t) {
    end(&t->from);
    free_sample(&t->sample);
}

/* ---- wherever it takes place ---- */

static int begin_turn(bench *b, const series *s, turn *t) {
    *t = (turn){0};
    return b->n_places ? place_begin(b, s) : turn_begin(b, s, t);
}

static int run_turn(bench *b, const series *s, turn *t) {
    return b->n_places ? place_run(b, s, t) : turn_run(b, s, t);
}

static int end_turn(bench *b, const series *s, turn *t, int failed) {
    if (b->n_places && !failed) failed = place_end(b, s);
    turn_end(t);
    return failed ? -1 : 0;
}

int wait_for_quality(bench *b, series *s, const row *r, int64_t start) {
    const int64_t shortest = 1000000000, longest = 30 * shortest;
    int64_t pause = s->refused_ns < shortest ? shortest : s->refused_ns < longest ? s->refused_ns : longest;
    int64_t limit = b->options->time_limit_ns;
    value reasons = r->cells[COLUMN_quality_reasons];
    if (s->refused_ns + pause > limit)
        return fail_gate(
            "no run has the quality that --require-quality %c asks for, within %lld s (--time-limit); "
            "the last one has %c: %s",
            b->options->require_quality, (long long)(limit / 1000000000), *r->cells[COLUMN_quality].text,
            reasons.kind == VALUE_TEXT ? reasons.text : "unknown");
    progress_expect(&b->progress, &s->params, 1);
    if (clock_wait(pause)) return -1;
    s->refused_ns += clock_ns() - start;
    b->watching = false;
    return 0;
}

bool is_too_bad(const bench *b, const row *r) {
    value grade = r->cells[COLUMN_quality];
    char least = b->options->require_quality;
    return least && grade.kind == VALUE_TEXT && quality_is_below(*grade.text, least);
}

/* Noted in the first unmeasured run, they are those of all that follow: the same tokens. */
static void keep_experts_touched(series *s, row *r) {
    value *now = &r->cells[COLUMN_experts_touched];
    if (now->kind == VALUE_REAL)
        s->experts_touched = *now;
    else
        *now = s->experts_touched;
}

static int measure(bench *b, series *s, turn *t) {
    const bench_options *o = b->options;
    bool counts = s->warm;
    int64_t before = clock_ns();
    if (run_turn(b, s, t)) return -1;
    keep_experts_touched(s, &t->row);
    if (counts && is_too_bad(b, &t->row)) return wait_for_quality(b, s, &t->row, before);
    if (series_add(s, o, t->row.raw, t->ns)) return -1;
    int64_t left = series_runs_left(s, o);
    progress_expect(&b->progress, &s->params, left - (s->expected - 1));
    s->expected = left;
    if (!counts) return 0;
    b->n_measured++;
    if (rows_run(b, s, &t->row)) return -1;
    return o->verbose && !b->n_places ? show_text(&b->loaded, &t->sample) : 0;
}

int trial_turn(bench *b, series *s, int64_t max_runs) {
    turn t;
    if (s->by_program) return program_turn(b, s, max_runs);
    int failed = begin_turn(b, s, &t);
    for (int64_t last = s->n + max_runs; !failed && !s->done && s->n < last;) failed = measure(b, s, &t);
    return end_turn(b, s, &t, failed);
}

int trial_again(bench *b, const series *s, int64_t n, double *out) {
    static const bench_options all = {.repeats = INT64_MAX};
    series again = {.params = s->params, .warm = true};
    turn t;
    progress_expect(&b->progress, &s->params, n);
    int failed = begin_turn(b, s, &t);
    while (!failed && again.n < n) failed = run_turn(b, s, &t) || series_add(&again, &all, t.row.raw, 0);
    failed = end_turn(b, s, &t, failed);
    for (int i = 0; i < N_SPEEDS && !failed; i++)
        memcpy(out + i * n, again.speeds[i], (size_t)n * sizeof *out);
    series_free(&again);
    return failed;
}
