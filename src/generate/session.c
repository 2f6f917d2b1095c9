/* session.c - prefill in chunks, then a token at a time: mlx-lm's generate_step.
 * On an engine that works ahead, the next step is queued before the host looks at a token. */
#include "generate/generate.h"

#include <stdlib.h>

/* One step's outcome: the chosen id and, if asked for, the logits it was chosen from. */
typedef struct step {
    result *id, *logits;
} step;

struct session {
    model *model;
    engine *engine;
    generate_options options;
    int32_t *prompt;
    int64_t n_prompt, max_tokens, produced;
    int64_t taken; /* steps after the prompt's, so far */
    cache **caches;
    int n_caches;
    step current, next;
    float *logits; /* with keep_logits: of the last token returned */
    void (*report)(void *context, int64_t done, int64_t total);
    void *report_context;
};

static void free_step(step *s) {
    result_free(s->id);
    result_free(s->logits);
    *s = (step){0};
}

void session_free(session *s) {
    if (!s) return;
    free_step(&s->current);
    free_step(&s->next);
    for (int i = 0; i < s->n_caches && s->caches; i++) cache_free(s->engine, s->caches[i]);
    free(s->caches);
    free(s->logits);
    free(s->prompt);
    free(s);
}

static int check_prompt(const model_info *info, const int32_t *prompt, int64_t n) {
    if (n < 1) return fail_usage("the prompt has no tokens");
    for (int64_t i = 0; i < n; i++)
        if (prompt[i] < 0 || prompt[i] >= info->vocab_size)
            return fail_usage("token id %d of the prompt is outside the model's vocabulary of %lld",
                              prompt[i], (long long)info->vocab_size);
    return 0;
}

static int make_caches(session *s) {
    cache_spec *specs = generate_caches(s->model, &s->options, &s->n_caches);
    s->caches = specs ? mem_new((size_t)s->n_caches, sizeof(cache *), "caches") : NULL;
    int failed = !s->caches;
    for (int i = 0; i < s->n_caches && !failed; i++) {
        specs[i].capacity = s->n_prompt + s->max_tokens;
        s->caches[i] = cache_new(s->engine, &specs[i]);
        failed = !s->caches[i];
    }
    free(specs);
    return failed ? -1 : 0;
}

session *session_new(model *m, engine *e, const generate_options *o, const int32_t *prompt, int64_t n_prompt,
                     int64_t max_tokens) {
    const model_info *info = model_describe(m);
    if (generate_check(m, o) || check_prompt(info, prompt, n_prompt)) return NULL;
    if (o->n_follow && check_prompt(info, o->follow, o->n_follow)) return NULL;
    session *s = mem_new(1, sizeof *s, "a session");
    if (!s) return NULL;
    *s = (session){.model = m, .engine = e, .options = *o, .n_prompt = n_prompt, .max_tokens = max_tokens};
    if (o->follow && max_tokens > o->n_follow + 1) s->max_tokens = o->n_follow + 1;
    s->prompt = mem_new((size_t)n_prompt, sizeof *prompt, "the prompt");
    if (o->keep_logits) s->logits = mem_new((size_t)info->vocab_size, sizeof *s->logits, "logits");
    bool failed = !s->prompt || (o->keep_logits && !s->logits);
    if (failed || make_caches(s)) {
        session_free(s);
        return NULL;
    }
    memcpy(s->prompt, prompt, (size_t)n_prompt * sizeof *prompt);
    return s;
}

void session_on_prefill(session *s, void (*report)(void *context, int64_t done, int64_t total),
                        void *context) {
    s->report = report;
    s->report_context = context;
}

/* mlx-lm generate.py: maybe_quantize_kv_cache. */
static int quantize_caches(session *s) {
    if (!s->options.kv_bits) return 0;
    for (int i = 0; i < s->n_caches; i++)
        if (s->caches[i]->offset >= s->options.quantized_kv_start &&
            cache_quantize(s->engine, s->caches[i], (int)s->options.kv_bits, (int)s->options.kv_group_size))
            return -1;
    return 0;
}

/* All but the last prompt token, in chunks; only cache states are computed. */
static int prefill(session *s) {
    for (int64_t done = 0; done < s->n_prompt - 1;) {
        int64_t n = s->n_prompt - 1 - done;
        if (n > s->options.prefill_step_size) n = s->options.prefill_step_size;
        graph *g = graph_begin(s->engine, 1);
        model_forward(s->model, g, tokens(g, s->prompt + done, n), s->caches);
        if (graph_end(g, 0, NULL, NULL) || quantize_caches(s)) return -1;
        done += n;
        if (s->report) s->report(s->report_context, done, s->n_prompt);
    }
    return 0;
}

/* Runs (or queues) the step that follows `from`, or the last prompt token when from is NULL. */
static int take_step(session *s, result *from, step *out) {
    graph *g = graph_begin(s->engine, 1);
    const int32_t *follow = s->options.follow && s->taken < s->options.n_follow ? s->options.follow : NULL;
    tensor ids;
    if (!from)
        ids = tokens(g, s->prompt + s->n_prompt - 1, 1);
    else if (follow)
        ids = tokens(g, follow + s->taken++, 1);
    else
        ids = token_result(g, from);
    tensor logits = model_forward(s->model, g, ids, s->caches);
    tensor outputs[2] = {argmax(g, logprobs(g, logits)), logits};
    result *results[2] = {NULL, NULL};
    if (graph_end(g, s->options.keep_logits ? 2 : 1, outputs, results)) return -1;
    *out = (step){results[0], results[1]};
    return quantize_caches(s);
}

int session_next(session *s, int32_t *id) {
    bool lookahead = engine_describe(s->engine).lookahead;
    if (s->produced == s->max_tokens) return 0;
    if (!s->produced) {
        if (prefill(s) || take_step(s, NULL, &s->current)) return -1;
    } else {
        if (!lookahead && take_step(s, s->current.id, &s->next)) return -1;
        free_step(&s->current);
        s->current = s->next;
        s->next = (step){0};
    }
    if (lookahead && take_step(s, s->current.id, &s->next)) return -1;
    if (result_read(s->current.id, id, 1)) return -1;
    if (s->logits && result_read(s->current.logits, s->logits, model_describe(s->model)->vocab_size))
        return -1;
    s->produced++;
    return 1;
}

const float *session_logits(const session *s) {
    return s->logits;
}
