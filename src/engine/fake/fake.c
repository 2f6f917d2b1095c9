/* fake.c - an engine that computes nothing: for tests of all that stands on the operation set.
 * Its ids follow from the position alone, its numbers are zero, its memory is what the shapes
 * imply, and its times what a script says, if there is one. */
#include "engine/fake/script.h"
#include "engine/graph.h"

#include <stdlib.h>

typedef struct fake_weight {
    weight base;
    struct fake_weight *next;
    int64_t bytes;
} fake_weight;

typedef struct fake_cache {
    cache base;
    int64_t bytes;
} fake_cache;

typedef struct fake_result {
    result base;
    int32_t data[]; /* ids, or zeros, which F32 zeros are, too */
} fake_result;

typedef struct fake {
    engine base;
    int threads;
    bool mlx_lm_graph, int8_activations, on_cores;
    engine_memory memory;
    fake_weight *weights;
    script script;
} fake;

static void note_peak(fake *e) {
    int64_t total = e->memory.weights + e->memory.kv + e->memory.scratch;
    if (total > e->memory.peak) e->memory.peak = total;
}

static int configure(engine *base, const engine_options *options) {
    fake *e = (fake *)base;
    e->threads = options->threads;
    e->mlx_lm_graph = engine_asks(options, "graph", "mlx-lm");
    e->int8_activations = engine_asks(options, "activations", "int8");
    e->on_cores = engine_asks(options, "affinity", "cores");
    return 0;
}

static engine *open_fake(const engine_options *options) {
    fake *e = mem_new(1, sizeof *e, "the fake engine");
    if (!e || script_open(&e->script)) {
        free(e);
        return NULL;
    }
    configure(&e->base, options);
    return &e->base;
}

static void drop_weights(engine *base) {
    fake *e = (fake *)base;
    for (fake_weight *w = e->weights, *next; w; w = next) {
        next = w->next;
        free(w);
    }
    e->weights = NULL;
    e->memory.weights = 0;
}

static void close_fake(engine *base) {
    drop_weights(base);
    script_close(&((fake *)base)->script);
    free(base);
}

static engine_info describe(const engine *base) {
    return (engine_info){.name = "fake",
                         .version = MLXBENCH_VERSION,
                         .device = "none",
                         .threads = ((const fake *)base)->threads};
}

static const char *setting(const engine *base, const char *name) {
    const fake *e = (const fake *)base;
    if (!strcmp(name, "graph")) return e->mlx_lm_graph ? "mlx-lm" : "fused";
    if (!strcmp(name, "activations")) return e->int8_activations ? "int8" : "exact";
    if (!strcmp(name, "affinity")) return e->on_cores ? "cores" : "none";
    return NULL;
}

static engine_memory memory_used(const engine *base) {
    return ((const fake *)base)->memory;
}

static void reset_peak(engine *base) {
    fake *e = (fake *)base;
    e->memory.scratch = e->memory.peak = 0;
    note_peak(e);
    script_next(&e->script);
}

static weight *new_weight(engine *base, const weight_source *source) {
    fake *e = (fake *)base;
    fake_weight *w = mem_new(1, sizeof *w, source->name);
    if (!w) return NULL;
    w->bytes = (int64_t)(matrix_bytes(&source->m) + (source->bias ? matrix_bytes(source->bias) : 0));
    w->next = e->weights;
    e->weights = w;
    e->memory.weights += w->bytes;
    note_peak(e);
    return &w->base;
}

/* ---- caches: only their size ---- */

static cache *new_cache(engine *base, const cache_spec *spec) {
    (void)base;
    (void)spec;
    fake_cache *c = mem_new(1, sizeof *c, "a KV cache");
    return (cache *)c;
}

/* Of one sequence. */
static int64_t state_bytes(const cache_spec *s) {
    int64_t n = 0;
    for (int i = 0; i < s->n_states; i++)
        n += s->states[i].rows * s->states[i].cols * (int64_t)dtype_size(s->states[i].dtype);
    return n;
}

/* Sets the size to n entries. bits: 0 while not quantized. */
static void resize_cache(fake *e, fake_cache *c, int64_t n, int bits, int group_size) {
    const cache_spec *s = &c->base.spec;
    int64_t dims = (int64_t)s->n_kv_heads * (s->head_dim + s->v_head_dim),
            number = (int64_t)dtype_size(s->dtype);
    if (s->max_size && n > s->max_size) n = s->max_size;
    if (s->chunk && n > s->chunk) n = s->chunk;
    int64_t entry = bits ? dims * bits / 8 + dims / group_size * 2 * number : dims * number;
    int64_t bytes = n > 0 ? n * entry + state_bytes(s) : 0;
    if (s->aside) return;
    e->memory.kv += bytes * s->n_sequences - c->bytes;
    c->bytes = bytes * s->n_sequences;
    note_peak(e);
}

static void free_cache(engine *base, cache *c) {
    resize_cache((fake *)base, (fake_cache *)c, 0, 0, 0);
    free(c);
}

static int copy_cache(engine *base, cache *to, const cache *from) {
    resize_cache((fake *)base, (fake_cache *)to, from->offset, from->bits, from->group_size);
    return 0;
}

static int quantize_cache(engine *base, cache *c, int bits, int group_size) {
    resize_cache((fake *)base, (fake_cache *)c, c->offset, bits, group_size);
    return 0;
}

/* ---- graphs ---- */

/* A row of an arg-max is (7 p + 3 + s) mod V at position p of sequence s; everything else is
 * zero. */
static result *make_result(fake *e, tensor x, int64_t position, int n_sequences) {
    int64_t count = tensor_count(x);
    fake_result *r = NULL;
    if (count <= INT32_MAX) r = mem_new(1, sizeof *r + (size_t)count * sizeof *r->data, "a result");
    if (!r) return NULL;
    r->base = (result){.engine = &e->base, .dtype = x->dtype, .count = count};
    int64_t n = count / n_sequences;
    for (int64_t i = 0; x->op == OP_ARGMAX && i < count; i++)
        r->data[i] = (int32_t)(((position + i % n) * 7 + 3 + i / n) % tensor_last(x->in[0]));
    return &r->base;
}

static void free_result(result *r) {
    free(r);
}

static int run(engine *base, graph *g, int n, const tensor outputs[], result *results[]) {
    fake *e = (fake *)base;
    int64_t position = 0, rows = 1;
    for (int i = 0; i < g->n_nodes; i++) {
        node *x = graph_node(g, i);
        if (!x->live) continue;
        int64_t bytes = tensor_count(x) * (int64_t)sizeof(float);
        if (bytes > e->memory.scratch) e->memory.scratch = bytes;
        if (!(op_flags[x->op] & EFFECT)) continue;
        position = x->position;
        rows = rows_per_sequence(g, x);
        resize_cache(e, (fake_cache *)x->cache, position + rows, x->cache->bits, x->cache->group_size);
    }
    note_peak(e);
    if (script_step(&e->script, rows, position)) return -1;
    if (interrupted()) return fail_interrupted();
    for (int i = 0; i < n; i++) {
        results[i] = make_result(e, outputs[i], position, g->n_sequences);
        if (results[i]) continue;
        while (i > 0) free_result(results[--i]);
        return -1;
    }
    return 0;
}

static int read_result(result *r, void *out) {
    memcpy(out, ((fake_result *)r)->data, (size_t)r->count * sizeof(int32_t));
    return 0;
}

const engine_class fake_engine = {.name = "fake",
                                  .open = open_fake,
                                  .close = close_fake,
                                  .configure = configure,
                                  .describe = describe,
                                  .setting = setting,
                                  .memory_used = memory_used,
                                  .reset_peak = reset_peak,
                                  .new_weight = new_weight,
                                  .drop_weights = drop_weights,
                                  .cache_new = new_cache,
                                  .cache_free = free_cache,
                                  .cache_copy = copy_cache,
                                  .cache_quantize = quantize_cache,
                                  .run = run,
                                  .result_read = read_result,
                                  .result_free = free_result};
