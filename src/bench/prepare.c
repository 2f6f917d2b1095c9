/* prepare.c - what must be known of a configuration before its first turn: its model is loaded, and
 * asked what it can do. In this process, or in the one where the model runs.
 */
#include "bench/child.h"

int load_here(bench *b, const params *p) {
    bool from_text = false;
    if (b->load_failures) {
        b->load_failures++;
        return fail("%s", b->error);
    }
    for (int i = 0; i < b->plan->n_values[PARAM_prompt_source]; i++)
        from_text |= strcmp(b->plan->values[PARAM_prompt_source][i].text, "random") != 0;
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

/* For the model just loaded: -1 when it can run none of its configurations; one alone finds that
 * again. */
static int check_all(bench *b, int64_t first) {
    const params p = plan_params(b->plan, first);
    bool limited = false, from_text = false, possible = false;
    for (int64_t i = first; i < b->plan->n; i++) {
        params other = plan_params(b->plan, i);
        generate_options how = params_generate(&other);
        if (!same_model(&p, &other)) break;
        possible |= !generate_check(b->loaded.model, &how);
        limited |= how.max_kv_size > 0;
        from_text |= strcmp(other.prompt_source, "random") && !is_from_file(other.prompt_source);
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

static bool is_equal(const bench *b, const params *p) {
    const model *m = b->loaded.model;
    return m && model_describe(m)->own_caches &&
           p->max_kv_size != b->plan->values[PARAM_max_kv_size][0].number;
}

int prepare_here(bench *b, const series *s, bool first, prepared *out) {
    *out = (prepared){0};
    if (load_here(b, &s->params) || (first && check_all(b, s->index))) return -1;
    out->equal = is_equal(b, &s->params);
    if (out->equal || (!b->options->earlier && !b->progress.channel)) return 0;
    engine_options how = params_engine(&s->params);
    if (engine_configure(b->loaded.engine, &how)) return -1;
    rows_what_runs(b, s, &out->what);
    return 0;
}

int prepare(bench *b, const series *s, bool first, prepared *out) {
    return b->n_places ? place_prepare(b, s, first, out) : prepare_here(b, s, first, out);
}
