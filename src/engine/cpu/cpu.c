/* cpu.c - the CPU engine as an engine: opening, weights, results, memory, and running a graph.
 * Threads run the whole graph together and meet only where a value made by one is read by
 * another. */
#include "engine/cpu/cpu.h"

#include <stdlib.h>
#include <unistd.h>

static void release_thread_scratch(cpu *e) {
    for (int i = 0; e->thread_scratch && i < e->threads; i++) {
        cpu_release(e, e->thread_scratch[i], e->thread_scratch_size, &e->memory.scratch);
        e->thread_scratch[i] = NULL;
    }
    e->thread_scratch_size = 0;
}

static void free_thread_scratch(cpu *e) {
    release_thread_scratch(e);
    free(e->thread_scratch);
    e->thread_scratch = NULL;
}

static int configure(engine *base, const engine_options *options) {
    cpu *e = (cpu *)base;
    const int *cpus = engine_asks(options, "affinity", "cores") ? options->cpus : NULL;
    e->int8_activations = engine_asks(options, "activations", "int8");
    int threads = options->threads > 0 ? options->threads : (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (threads < 1) threads = 1;
    if (e->pool && threads == e->threads && cpus == e->cpus) return 0;
    bool spin = !options->cores || threads <= options->cores;
    if (e->cpus) { /* the new pool must not find the caller kept on one core by the old one */
        pool_free(e->pool);
        e->pool = NULL;
        e->cpus = NULL;
    }
    pool *p = pool_new(threads, spin, cpus, options->cores);
    char **scratch = p ? mem_new((size_t)threads, sizeof *scratch, "threads") : NULL;
    if (!scratch) {
        pool_free(p);
        return -1;
    }
    free_thread_scratch(e);
    pool_free(e->pool);
    e->pool = p;
    e->threads = threads;
    e->cpus = cpus;
    e->thread_scratch = scratch;
    return 0;
}

static void drop_weights(engine *base) {
    cpu *e = (cpu *)base;
    for (cpu_weight *w = e->weights, *next; w; w = next) {
        next = w->next;
        e->memory.weights -= w->counted_bytes;
        free(w->floats);
        free(w->bias);
        free(w);
    }
    e->weights = NULL;
}

static void free_scratch(cpu *e) {
    cpu_release(e, e->scratch, e->scratch_size, &e->memory.scratch);
    e->scratch = NULL;
    e->scratch_size = 0;
    cpu_rope_free(e);
}

static void close_cpu(engine *base) {
    cpu *e = (cpu *)base;
    drop_weights(base);
    free_scratch(e);
    free_thread_scratch(e);
    for (cpu_result *r = e->unused, *next; r; r = next) {
        next = r->next;
        free(r->data);
        free(r);
    }
    free(e->free_blocks);
    free(e->states);
    cpu_free_memory(e);
    pool_free(e->pool);
    free(e);
}

static engine *open_cpu(const engine_options *options) {
    const kernels *k = kernels_choose();
    cpu *e = k ? mem_new(1, sizeof *e, "the CPU engine") : NULL;
    if (!e) return NULL;
    e->kernels = k;
    if (configure(&e->base, options)) {
        close_cpu(&e->base);
        return NULL;
    }
    return &e->base;
}

static engine_info describe(const engine *base) {
    const cpu *e = (const cpu *)base;
    return (engine_info){
        .name = "cpu", .version = MLXBENCH_VERSION, .device = e->kernels->name, .threads = e->threads};
}

static const char *setting(const engine *base, const char *name) {
    const cpu *e = (const cpu *)base;
    if (!strcmp(name, "activations")) return e->int8_activations ? "int8" : "exact";
    if (!strcmp(name, "affinity")) return e->cpus ? "cores" : "none";
    return NULL;
}

static engine_memory memory_used(const engine *base) {
    return ((const cpu *)base)->memory;
}

/* Scratch goes, too: the next run's peak must not show what an earlier, larger one needed. */
static void reset_peak(engine *base) {
    cpu *e = (cpu *)base;
    free_scratch(e);
    release_thread_scratch(e);
    e->memory.peak = e->memory.weights + e->memory.kv + e->memory.scratch;
}

/* x [rows, cols] as [cols][rows]. */
static float *transposed(float *x, int64_t n_rows, int64_t cols) {
    float *out = x ? mem_new((size_t)(n_rows * cols), sizeof *x, "a weight") : NULL;
    for (int64_t i = 0; out && i < n_rows * cols; i++) out[i % cols * n_rows + i / cols] = x[i];
    free(x);
    return out;
}

static float rounded(float x, dtype type) {
    if (type == DTYPE_BF16) return bf16_to_f32(f32_to_bf16(x));
    return type == DTYPE_F16 ? f16_to_f32(f32_to_f16(x)) : x;
}

/* A vector as floats of its own: norms and biases are small and read at every token. */
static float *convert(const matrix *m, double offset, float factor) {
    int64_t n = array_count(&m->values);
    float *x = mem_new((size_t)n, sizeof *x, "a weight");
    if (!x) return NULL;
    floats_from(x, m->values.data, m->values.dtype, n);
    float plus = rounded((float)offset, m->values.dtype);
    for (int64_t i = 0; (offset != 0 || factor != 0) && i < n; i++)
        x[i] = rounded(offset != 0 ? x[i] + plus : x[i] * factor, m->values.dtype);
    return x;
}

/* Weights of a short convolution: few columns, and no product's. */
static bool is_convolution(const matrix *m) {
    return m->rank == 2 && !m->bits && m->shape[1] <= CPU_MAX_TAPS;
}

static weight *new_weight(engine *base, const weight_source *source) {
    cpu *e = (cpu *)base;
    const matrix *m = &source->m;
    cpu_weight *w = mem_new(1, sizeof *w, source->name);
    if (!w) return NULL;
    w->rows = (rows){.kind = m->kind,
                     .n = m->shape[m->rank - 1],
                     .values = m->values.data,
                     .scales = m->scales.data,
                     .biases = m->biases.data,
                     .dtype = matrix_dtype(m),
                     .bits = m->bits,
                     .group_size = m->group_size};
    bool floats = m->rank == 1 || is_convolution(m);
    if (floats) w->floats = convert(m, source->offset, source->factor);
    if (floats && m->rank == 2) w->floats = transposed(w->floats, m->shape[0], m->shape[1]);
    if (source->bias) w->bias = convert(source->bias, 0, 0);
    if ((floats && !w->floats) || (source->bias && !w->bias)) {
        free(w->floats);
        free(w->bias);
        free(w);
        return NULL;
    }
    w->counted_bytes = (int64_t)(matrix_bytes(m) + (source->bias ? matrix_bytes(source->bias) : 0));
    e->memory.weights += w->counted_bytes;
    w->next = e->weights;
    e->weights = w;
    return &w->base;
}

static void run_thread(void *context, int thread) {
    cpu *e = context;
    const graph *g = e->running;
    int barriers = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const node *x = graph_node(g, i);
        if (!is_run(e, x)) continue;
        if (state_of(e, x)->barrier) {
            barriers++;
            /* Thread 0 announces the barrier at which all stop, so that no thread waits at one for
             * another that left. */
            if (thread == 0 && interrupted()) atomic_store(&e->stop_at, barriers);
            pool_barrier(e->pool, thread);
            if (atomic_load(&e->stop_at) == barriers) return;
        }
        cpu_ops[x->op].run(e, x, thread);
    }
}

static int run(engine *base, graph *g, int n, const tensor outputs[], result *results[]) {
    cpu *e = (cpu *)base;
    e->running = g;
    if (cpu_rope_prepare(e, g) || cpu_plan(e, g, n, outputs, results)) return -1;
    atomic_store(&e->stop_at, -1);
    pool_run(e->pool, run_thread, e);
    if (atomic_load(&e->stop_at) < 0) {
        cpu_copy_outputs(e, n, outputs, results);
        return 0;
    }
    for (int i = 0; i < n; i++) result_free(results[i]);
    return fail_interrupted();
}

static int read_result(result *r, void *out) {
    memcpy(out, ((cpu_result *)r)->data, (size_t)r->count * 4);
    return 0;
}

/* Kept for the next step: a token costs no allocation. */
static void free_result(result *r) {
    cpu *e = (cpu *)r->engine;
    cpu_result *unused = (cpu_result *)r;
    unused->next = e->unused;
    e->unused = unused;
}

const engine_class cpu_engine = {
    .name = "cpu",
    .open = open_cpu,
    .close = close_cpu,
    .configure = configure,
    .describe = describe,
    .setting = setting,
    .memory_used = memory_used,
    .reset_peak = reset_peak,
    .new_weight = new_weight,
    .drop_weights = drop_weights,
    .cache_new = cpu_cache_new,
    .cache_free = cpu_cache_free,
    .cache_copy = cpu_cache_copy,
    .cache_quantize = cpu_cache_quantize,
    .run = run,
    .result_read = read_result,
    .result_free = free_result,
};

/* Their values are where they were: never called. */
void cpu_tokens(cpu *e, const node *x, int thread) {
    (void)e, (void)x, (void)thread;
}
void cpu_token_result(cpu *e, const node *x, int thread) {
    (void)e, (void)x, (void)thread;
}
void cpu_heads(cpu *e, const node *x, int thread) {
    (void)e, (void)x, (void)thread;
}
void cpu_as_f32(cpu *e, const node *x, int thread) {
    (void)e, (void)x, (void)thread;
}
void cpu_flatten(cpu *e, const node *x, int thread) {
    (void)e, (void)x, (void)thread;
}

const cpu_op cpu_ops[OP_COUNT] = {
#define OP(NAME, function, flags) [OP_##NAME].run = cpu_##function,
    ENGINE_OPS(OP)
#undef OP
        [OP_LINEAR]
            .workspace = cpu_linear_workspace,
    [OP_LINEAR].thread_scratch = cpu_linear_scratch,
    [OP_ATTEND].workspace = cpu_attend_workspace,
    [OP_ATTEND].thread_scratch = cpu_attend_scratch,
    [OP_ROUTE].thread_scratch = cpu_route_scratch,
    [OP_EXPERTS].workspace = cpu_experts_workspace,
    [OP_EXPERTS].thread_scratch = cpu_experts_scratch,
    [OP_LOGPROBS].workspace = cpu_logprobs_workspace,
    [OP_LOGPROBS].thread_scratch = cpu_logprobs_scratch,
    [OP_ARGMAX].workspace = cpu_argmax_workspace,
    [OP_DELTA_RULE].thread_scratch = cpu_delta_rule_scratch,
    [OP_LINEAR_ATTENTION].thread_scratch = cpu_linear_attention_scratch,
    [OP_SSM].thread_scratch = cpu_ssm_scratch,
    [OP_LINEAR_HEADS].thread_scratch = cpu_linear_heads_scratch,
    [OP_SELECT_ENTRIES].workspace = cpu_select_entries_workspace,
    [OP_SELECT_ENTRIES].thread_scratch = cpu_select_entries_scratch,
    [OP_ATTEND_LATENT].workspace = cpu_attend_latent_workspace,
    [OP_ATTEND_LATENT].thread_scratch = cpu_attend_latent_scratch,
};
