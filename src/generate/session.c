/* session.c - prefill in chunks, then a token of each sequence at a time: mlx-lm's generate_step.
 * On an engine that works ahead, the next step is queued before the host looks at a token. */
#include "generate/generate.h"

#include <stdlib.h>

/* One step's outcome: the chosen ids and, if asked for, the logits they were chosen from. */
typedef struct step {
    result *ids, *logits;
} step;

/* What session_return gives back. Its steps may be the session's, too, until those are done. */
typedef struct mark {
    cache **caches; /* NULL: nothing was marked */
    step current, next;
    int32_t *last;
    bool has_last;
    int64_t n_forced, n_taken;
} mark;

struct session {
    model *model;
    engine *engine;
    session_spec spec;
    cache **caches;
    int n_caches;
    mark mark;
    int32_t *last; /* [n_sequences]: with has_last, ids that the caches do not hold yet */
    bool has_last;
    int32_t *chunk; /* [n_sequences][tokens] of a chunk */
    int64_t chunk_capacity;
    int32_t *forced; /* [n_forced][n_sequences] */
    int64_t n_forced, n_taken;
    int64_t n_noted;    /* tokens to come whose experts are noted */
    step current, next; /* next: queued */
    bool keeps_logits;
    float *logits; /* of the last step, where it kept them */
    void (*report)(void *context, int64_t done, int64_t total);
    void *report_context;
};

static bool same_step(const step *a, const step *b) {
    return a->ids && a->ids == b->ids;
}

static void free_step(step *s) {
    result_free(s->ids);
    result_free(s->logits);
    *s = (step){0};
}

/* The session needs it no more; a mark may. */
static void leave_step(session *s, step *of) {
    if (same_step(of, &s->mark.current) || same_step(of, &s->mark.next))
        *of = (step){0};
    else
        free_step(of);
}

/* The mark needs it no more; the session may. */
static void unmark_step(const session *s, step *marked) {
    if (same_step(marked, &s->current) || same_step(marked, &s->next))
        *marked = (step){0};
    else
        free_step(marked);
}

static void free_caches(session *s, cache **caches) {
    for (int i = 0; i < s->n_caches && caches; i++) cache_free(s->engine, caches[i]);
    free(caches);
}

void session_free(session *s) {
    if (!s) return;
    leave_step(s, &s->current);
    leave_step(s, &s->next);
    free_step(&s->mark.current);
    free_step(&s->mark.next);
    free_caches(s, s->mark.caches);
    free_caches(s, s->caches);
    free(s->mark.last);
    free(s->last);
    free(s->chunk);
    free(s->forced);
    free(s->logits);
    free(s);
}

/* The model's caches, for so many tokens; NULL on error. */
static cache **make_caches(session *s, int64_t capacity, bool aside) {
    cache_spec *specs = generate_caches(s->model, &s->spec.options, &s->n_caches);
    cache **caches = specs ? mem_new((size_t)s->n_caches, sizeof *caches, "caches") : NULL;
    bool failed = !caches;
    for (int i = 0; i < s->n_caches && !failed; i++) {
        specs[i].n_sequences = s->spec.n_sequences;
        specs[i].capacity = capacity;
        specs[i].aside = aside;
        caches[i] = cache_new(s->engine, &specs[i]);
        failed = !caches[i];
    }
    free(specs);
    if (!failed) return caches;
    free_caches(s, caches);
    return NULL;
}

session *session_new(model *m, engine *e, const session_spec *spec) {
    if (generate_check(m, &spec->options)) return NULL;
    if (spec->sampler != SAMPLER_GREEDY) return fail_null("a session chooses tokens greedily only");
    session *s = mem_new(1, sizeof *s, "a session");
    if (!s) return NULL;
    *s = (session){.model = m, .engine = e, .spec = *spec};
    if (!s->spec.n_sequences) s->spec.n_sequences = 1;
    s->last = mem_new((size_t)s->spec.n_sequences, sizeof *s->last, "a session");
    bool made = s->last && !session_keep_logits(s, spec->keep_logits);
    if (made) s->caches = make_caches(s, spec->capacity, false);
    if (made && s->caches) return s;
    session_free(s);
    return NULL;
}

int session_keep_logits(session *s, bool keep) {
    size_t n = (size_t)(s->spec.n_sequences * model_describe(s->model)->vocab_size);
    if (keep && !s->logits) s->logits = mem_new(n, sizeof *s->logits, "logits");
    s->keeps_logits = keep && s->logits;
    return keep && !s->logits ? -1 : 0;
}

void session_note_experts(session *s, int64_t n) {
    s->n_noted = n;
}

void session_on_prefill(session *s, void (*report)(void *context, int64_t done, int64_t total),
                        void *context) {
    s->report = report;
    s->report_context = context;
}

static int check_ids(const session *s, const int32_t *ids, int64_t n) {
    int64_t vocabulary = model_describe(s->model)->vocab_size;
    if (n < 1) return fail_usage("the prompt has no tokens");
    for (int64_t i = 0; i < n * s->spec.n_sequences; i++)
        if (ids[i] < 0 || ids[i] >= vocabulary)
            return fail_usage("token id %d of the prompt is outside the model's vocabulary of %lld", ids[i],
                              (long long)vocabulary);
    return 0;
}

/* Keys and values beside states are a list of caches in mlx-lm, which it leaves as they are. */
static bool stays_plain(const cache *c) {
    return c->spec.n_states && c->spec.n_kv_heads;
}

/* mlx-lm generate.py: maybe_quantize_kv_cache. */
static int quantize_caches(session *s) {
    const generate_options *o = &s->spec.options;
    if (!o->kv_bits || model_describe(s->model)->ignores_kv_bits) return 0;
    for (int i = 0; i < s->n_caches; i++)
        if (s->caches[i]->offset >= o->quantized_kv_start && !stays_plain(s->caches[i]) &&
            cache_quantize(s->engine, s->caches[i], (int)o->kv_bits, (int)o->kv_group_size))
            return -1;
    return 0;
}

/* Ids [n_sequences][n] into the caches; only their states are computed. */
static int run_chunk(session *s, const int32_t *ids, int64_t n) {
    graph *g = graph_begin(s->engine, s->spec.n_sequences);
    if (s->n_noted) graph_note_experts(g);
    model_forward(s->model, g, tokens(g, ids, n * s->spec.n_sequences), s->caches);
    return graph_end(g, 0, NULL, NULL) || quantize_caches(s) ? -1 : 0;
}

/* What was chosen before becomes part of the text: it is in the caches where a step was queued. */
static int end_steps(session *s) {
    if (s->current.ids && !s->next.ids) {
        if (result_read(s->current.ids, s->last, s->spec.n_sequences)) return -1;
        s->has_last = true;
    }
    leave_step(s, &s->current);
    leave_step(s, &s->next);
    if (!s->has_last) return 0;
    s->has_last = false;
    return run_chunk(s, s->last, 1);
}

/* Tokens [first, first + n) of each sequence's total; without a copy where there is one
 * sequence. */
static const int32_t *chunk_of(session *s, const int32_t *ids, int64_t total, int64_t first, int64_t n) {
    int64_t n_sequences = s->spec.n_sequences;
    if (n_sequences == 1) return ids + first;
    if (n > s->chunk_capacity) {
        void *chunk = s->chunk;
        if (mem_resize(&chunk, (size_t)(n * n_sequences), sizeof *s->chunk, "the prompt")) return NULL;
        s->chunk = chunk;
        s->chunk_capacity = n;
    }
    for (int64_t i = 0; i < n_sequences; i++)
        memcpy(s->chunk + i * n, ids + i * total + first, (size_t)n * sizeof *ids);
    return s->chunk;
}

/* The first n of each sequence's total. */
static int run_chunks(session *s, const int32_t *ids, int64_t total, int64_t n) {
    for (int64_t done = 0, size; done < n; done += size) {
        size = n - done < s->spec.options.prefill_step_size ? n - done : s->spec.options.prefill_step_size;
        const int32_t *chunk = chunk_of(s, ids, total, done, size);
        if (!chunk || run_chunk(s, chunk, size)) return -1;
        if (s->report) s->report(s->report_context, done + size, total);
    }
    return 0;
}

int session_fill(session *s, const int32_t *ids, int64_t n) {
    if (check_ids(s, ids, n) || end_steps(s)) return -1;
    return run_chunks(s, ids, n, n);
}

int session_prefill(session *s, const int32_t *ids, int64_t n) {
    if (check_ids(s, ids, n) || end_steps(s) || run_chunks(s, ids, n, n - 1)) return -1;
    for (int64_t i = 0; i < s->spec.n_sequences; i++) s->last[i] = ids[i * n + n - 1];
    s->has_last = true;
    return 0;
}

int session_force(session *s, const int32_t *ids, int64_t n) {
    int64_t n_sequences = s->spec.n_sequences;
    if (check_ids(s, ids, n)) return -1;
    void *forced = s->forced;
    if (mem_resize(&forced, (size_t)((s->n_forced + n) * n_sequences), sizeof *ids, "a text to follow"))
        return -1;
    s->forced = forced;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < n_sequences; k++)
            s->forced[(s->n_forced + i) * n_sequences + k] = ids[k * n + i];
    s->n_forced += n;
    return 0;
}

/* mlx-lm sample_utils.py: make_sampler. */
static tensor choose(graph *g, sampler how, tensor logprobs) {
    (void)how; /* session_new knows no other than the greedy one */
    return argmax(g, logprobs);
}

/* Runs (or queues) the step that follows `from`, or the prefilled prompt when from is NULL. */
static int take_step(session *s, result *from, step *out) {
    int n = s->spec.n_sequences;
    graph *g = graph_begin(s->engine, n);
    tensor ids;
    if (s->n_noted && s->n_noted--) graph_note_experts(g);
    if (!from)
        ids = tokens(g, s->last, n);
    else if (s->n_taken < s->n_forced)
        ids = tokens(g, s->forced + s->n_taken++ * n, n);
    else
        ids = token_result(g, from);
    tensor logits = model_forward(s->model, g, ids, s->caches);
    tensor outputs[2] = {choose(g, s->spec.sampler, logprobs(g, logits)), logits};
    result *results[2] = {NULL, NULL};
    if (graph_end(g, s->keeps_logits ? 2 : 1, outputs, results)) return -1;
    *out = (step){results[0], results[1]};
    return quantize_caches(s);
}

int session_step(session *s, int32_t *ids) {
    bool lookahead = engine_describe(s->engine).lookahead;
    int n = s->spec.n_sequences;
    if (s->has_last) {
        if (take_step(s, NULL, &s->current)) return -1;
        s->has_last = false;
    } else {
        if (!s->current.ids) return fail("a step before anything was prefilled");
        if (!lookahead && take_step(s, s->current.ids, &s->next)) return -1;
        leave_step(s, &s->current);
        s->current = s->next;
        s->next = (step){0};
    }
    if (lookahead && take_step(s, s->current.ids, &s->next)) return -1;
    if (result_read(s->current.ids, ids, n)) return -1;
    if (!s->current.logits) return 0;
    return result_read(s->current.logits, s->logits, n * model_describe(s->model)->vocab_size);
}

/* A queued step has done with the caches once its ids are known. */
static int wait_for_queued(session *s) {
    return s->next.ids ? result_read(s->next.ids, s->last, s->spec.n_sequences) : 0;
}

static int copy_caches(session *s, cache *const *to, cache *const *from) {
    for (int i = 0; i < s->n_caches; i++)
        if (cache_copy(s->engine, to[i], from[i])) return -1;
    return 0;
}

int session_mark(session *s) {
    mark *m = &s->mark;
    size_t n = (size_t)s->spec.n_sequences;
    if (wait_for_queued(s)) return -1;
    if (!m->last && !(m->last = mem_new(n, sizeof *m->last, "a mark"))) return -1;
    if (!m->caches && !(m->caches = make_caches(s, 0, true))) return -1;
    if (copy_caches(s, m->caches, s->caches)) return -1;
    unmark_step(s, &m->current);
    unmark_step(s, &m->next);
    m->current = s->current;
    m->next = s->next;
    memcpy(m->last, s->last, n * sizeof *m->last);
    m->has_last = s->has_last;
    m->n_forced = s->n_forced;
    m->n_taken = s->n_taken;
    return 0;
}

int session_return(session *s) {
    const mark *m = &s->mark;
    if (!m->caches) return fail("a session returns to where it was marked");
    if (wait_for_queued(s) || copy_caches(s, s->caches, m->caches)) return -1;
    leave_step(s, &s->current);
    leave_step(s, &s->next);
    s->current = m->current;
    s->next = m->next;
    memcpy(s->last, m->last, (size_t)s->spec.n_sequences * sizeof *s->last);
    s->has_last = m->has_last;
    s->n_forced = m->n_forced;
    s->n_taken = m->n_taken;
    return 0;
}

const float *session_logits(const session *s) {
    return s->current.logits ? s->logits : NULL;
}

/* By their bits, which a compiler does for many at a time: infinities and NaNs have all bits of the
 * exponent. */
static bool all_finite(const float *x, int64_t n) {
    const uint32_t exponent = 0x7f800000;
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & exponent) == exponent;
    }
    return !bad;
}

int session_check_logits(const session *s, int64_t token) {
    const float *logits = session_logits(s);
    int64_t n = s->spec.n_sequences * model_describe(s->model)->vocab_size;
    if (!logits || all_finite(logits, n)) return 0;
    return fail("logits are not finite from token %lld", (long long)token);
}
