/* test_engines_agree.c - every operation on engine/cpu and on engine/mlx, over dtypes, quantizations and
 * lengths. Both get the same random weights and inputs. cpu keeps values in F32, mlx rounds each to its
 * dtype, so the allowed difference is a few roundings of the largest value. */
#include "engine_values.h"

#include <stdio.h>

enum {
    DIM = 128,
    HEADS = 4,
    KV_HEADS = 2,
    HEAD_DIM = 32,
    WIDTH = 64,
    EXPERTS = 4,
    ROWS = 256,
    BEFORE = 5,
    SEQUENCES = 7
};

typedef struct kind {
    dtype dtype;
    int bits, group_size; /* of matrices; 0: plain */
} kind;

static const kind kinds[] = {{DTYPE_F32, 0, 0},  {DTYPE_F16, 0, 0},  {DTYPE_BF16, 0, 0},
                             {DTYPE_F32, 4, 64}, {DTYPE_F16, 4, 32}, {DTYPE_BF16, 8, 64},
                             {DTYPE_F32, 3, 32}, {DTYPE_BF16, 6, 64}};
static const int64_t lengths[] = {1, 7, 70};

/* One engine with its weights. An engine may give a weight's memory back, so each has its own. */
typedef struct side {
    engine *e;
    const weight *table, *square, *biased, *keys, *norm, *head_norm, *router, *router_bias, *gate, *up, *down,
        *biased_up, *biased_down;
    void *memory[64];
    int n_memory;
} side;

static void *take(side *s, size_t size) {
    assert_true(s->n_memory < 64);
    void *memory = calloc(1, size);
    assert_non_null(memory);
    return s->memory[s->n_memory++] = memory;
}

static array floats(side *s, dtype type, int rank, const int64_t *shape, float scale, float offset) {
    array a = {.dtype = type, .rank = rank};
    memcpy(a.shape, shape, (size_t)rank * sizeof *shape);
    int64_t n = array_count(&a);
    float *values = take(s, (size_t)n * sizeof *values);
    void *data = take(s, (size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++) values[i] = offset + scale * uniform();
    floats_to(data, type, values, n);
    a.data = data;
    return a;
}

/* Packed random numbers, with scales that give them about the spread of plain ones. */
static matrix packed(side *s, kind k, int rank, const int64_t *shape) {
    matrix m = {.kind = MATRIX_AFFINE, .rank = rank, .bits = k.bits, .group_size = k.group_size};
    int64_t words[3], groups[3];
    memcpy(m.shape, shape, (size_t)rank * sizeof *shape);
    memcpy(words, shape, (size_t)rank * sizeof *shape);
    memcpy(groups, shape, (size_t)rank * sizeof *shape);
    words[rank - 1] = shape[rank - 1] * k.bits / 32;
    groups[rank - 1] = shape[rank - 1] / k.group_size;
    m.values = (array){.dtype = DTYPE_U32, .rank = rank};
    memcpy(m.values.shape, words, (size_t)rank * sizeof *words);
    uint32_t *data = take(s, array_bytes(&m.values));
    for (int64_t i = 0; i < array_count(&m.values); i++)
        data[i] = (uint32_t)(uniform() * 32768) << 16 ^ (uint32_t)(uniform() * 65536);
    m.values.data = data;
    m.scales = floats(s, k.dtype, rank, groups, 0.2f / (float)(1 << k.bits), 0.4f / (float)(1 << k.bits));
    m.biases = floats(s, k.dtype, rank, groups, 0.02f, -0.2f);
    return m;
}

static const weight *make(side *s, kind k, int rank, const int64_t *shape, bool bias) {
    weight_source source = {.name = "w"};
    matrix vector = {.rank = rank - 1};
    if (k.bits && rank > 1)
        source.m = packed(s, k, rank, shape);
    else {
        source.m = (matrix){.rank = rank,
                            .values = floats(s, k.dtype, rank, shape, rank > 1 ? 0.2f : 0.5f, rank == 1)};
        memcpy(source.m.shape, shape, (size_t)rank * sizeof *shape);
    }
    if (bias) {
        memcpy(vector.shape, shape, (size_t)(rank - 1) * sizeof *shape);
        vector.values = floats(s, k.dtype, rank - 1, shape, 0.5f, 0);
        source.bias = &vector;
    }
    const weight *w = engine_weight(s->e, &source);
    if (!w) fail_msg("%s", error_message());
    return w;
}

static void load(side *s, kind k) {
    seed = 7;
    s->table = make(s, k, 2, (int64_t[]){ROWS, DIM}, false);
    s->square = make(s, k, 2, (int64_t[]){DIM, DIM}, false);
    s->biased = make(s, k, 2, (int64_t[]){DIM, DIM}, true);
    s->keys = make(s, k, 2, (int64_t[]){KV_HEADS * HEAD_DIM, DIM}, false);
    s->norm = make(s, k, 1, (int64_t[]){DIM}, false);
    s->head_norm = make(s, k, 1, (int64_t[]){HEAD_DIM}, false);
    s->router = make(s, k, 2, (int64_t[]){EXPERTS, DIM}, false);
    s->router_bias = make(s, k, 1, (int64_t[]){EXPERTS}, false);
    s->gate = make(s, k, 3, (int64_t[]){EXPERTS, WIDTH, DIM}, false);
    s->up = make(s, k, 3, (int64_t[]){EXPERTS, WIDTH, DIM}, false);
    s->down = make(s, k, 3, (int64_t[]){EXPERTS, DIM, WIDTH}, false);
    s->biased_up = make(s, k, 3, (int64_t[]){EXPERTS, WIDTH, DIM}, true);
    s->biased_down = make(s, k, 3, (int64_t[]){EXPERTS, DIM, WIDTH}, true);
}

static void unload(side *s) {
    engine_drop_weights(s->e);
    while (s->n_memory) free(s->memory[--s->n_memory]);
}

/* ---- the operations; x is [n, DIM] ---- */

typedef tensor operation(graph *g, const side *s, cache *c, tensor x);

static tensor of_embed(graph *g, const side *s, cache *c, tensor x) {
    (void)g, (void)s, (void)c;
    return x;
}
static tensor of_linear(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return linear(g, x, s->square);
}
static tensor of_bias(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return linear(g, x, s->biased);
}
static tensor of_norm(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return rms_norm(g, x, s->norm, 1e-5f);
}
static tensor of_head_norm(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return rms_norm(g, heads(g, x, HEADS), s->head_norm, 1e-6f);
}
static tensor of_bare_norm(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return rms_norm(g, x, NULL, 1e-5f);
}
static tensor of_silu(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_SILU, x, linear(g, x, s->square));
}
static tensor of_gelu(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_GELU_TANH, x, linear(g, x, s->square));
}
static tensor of_add(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return add(g, x, linear(g, x, s->square));
}
static tensor of_clip(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    tensor large = scale(g, x, 300000);
    return add_clipped(g, large, large);
}
static tensor of_scale(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return scale(g, x, 11.3137f);
}
static tensor of_experts(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return experts(
        g, x,
        route(g, linear(g, x, s->router), &(route_spec){.k = EXPERTS, .renormalize = false, .last = true}),
        ACT_SILU, s->gate, s->up, s->down);
}
static tensor of_best_experts(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return experts(
        g, x, route(g, linear(g, x, s->router), &(route_spec){.k = 2, .renormalize = true, .last = true}),
        ACT_GELU_TANH, s->gate, s->up, s->down);
}
static tensor of_logprobs(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return logprobs(g, linear(g, x, s->table));
}

/* Ids, read as floats: the tiny ones that small integers look like, which must then be equal. */
static tensor of_argmax(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return argmax(g, x);
}

static const float periods[HEAD_DIM / 2] = {1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597};
static const float plain_periods[HEAD_DIM / 2] = {
    1,   1.77827941f, 3.16227766f, 5.62341325f, 10,   17.7827941f, 31.6227766f, 56.2341325f,
    100, 177.827941f, 316.227766f, 562.341325f, 1000, 1778.27941f, 3162.27766f, 5623.41325f};
static const rope_spec ropes[] = {
    {.dims = HEAD_DIM, .scale = 1, .base = 10000, .mscale = 1, .freqs = plain_periods},
    {.dims = HEAD_DIM,
     .traditional = true,
     .scale = 0.25f,
     .base = 10000,
     .mscale = 1,
     .freqs = plain_periods},
    {.dims = HEAD_DIM, .scale = 1, .mscale = 1.25f, .freqs = periods},
};

static tensor of_rope(graph *g, const side *s, cache *c, tensor x) {
    (void)s;
    return rope(g, heads(g, x, HEADS), &ropes[0], c);
}
static tensor of_traditional_rope(graph *g, const side *s, cache *c, tensor x) {
    (void)s;
    return rope(g, heads(g, x, HEADS), &ropes[1], c);
}
static tensor of_scaled_rope(graph *g, const side *s, cache *c, tensor x) {
    (void)s;
    return rope(g, heads(g, x, HEADS), &ropes[2], c);
}
static tensor of_attend(graph *g, const side *s, cache *c, tensor x) {
    tensor k = rope(g, heads(g, linear(g, x, s->keys), KV_HEADS), &ropes[0], c);
    return attend(g, c, heads(g, x, HEADS), k, heads(g, linear(g, x, s->keys), KV_HEADS),
                  &(attend_spec){.scale = 0.2f});
}

static tensor of_gelu_erf_gate(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_GELU, x, linear(g, x, s->square));
}
static tensor of_relu_gate(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_RELU, x, linear(g, x, s->square));
}
static tensor of_relu2_gate(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_RELU2, x, linear(g, x, s->square));
}
static tensor of_oai_gate(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_OAI, x, linear(g, x, s->square));
}
static tensor activate_silu(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_SILU, x);
}
static tensor activate_gelu_tanh(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_GELU_TANH, x);
}
static tensor activate_gelu(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_GELU, x);
}
static tensor activate_relu2(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_RELU2, x);
}
static tensor activate_sigmoid(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_SIGMOID, x);
}
static tensor activate_tanh(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_TANH, x);
}
static tensor activate_softplus(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_SOFTPLUS, x);
}
static tensor of_divide(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return divide(g, x, 3.1f);
}
static tensor of_soft_cap(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return soft_cap(g, x, 0.3f);
}
static tensor of_product(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return product(g, x, linear(g, x, s->square));
}
static tensor of_product_by_head(graph *g, const side *s, cache *c, tensor x) {
    return flatten(g, product(g, rope(g, heads(g, x, EXPERTS), &ropes[0], c),
                              heads(g, linear(g, x, s->router), EXPERTS)));
}
static tensor of_product_weight(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return product_weight(g, x, s->norm);
}
static tensor of_part(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return scale(g, part(g, x, 32, 64), 1); /* a result that is read is whole */
}
static tensor of_part_of_heads(graph *g, const side *s, cache *c, tensor x) {
    (void)s;
    return flatten(g, part(g, rope(g, heads(g, x, HEADS), &ropes[0], c), 5, 20));
}
static tensor of_concat(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return concat(g, part(g, x, 5, 40), linear(g, x, s->keys));
}
static tensor of_silu_f32(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_SILU_F32, x, linear(g, x, s->square));
}
static tensor of_f32(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_TANH, as_f32(g, x));
}
static tensor of_scale_positions(graph *g, const side *s, cache *c, tensor x) {
    (void)s;
    return scale_positions(g, heads(g, x, HEADS), (position_scale){0.3f, 1, 4}, c);
}

static tensor routed_by(graph *g, const side *s, tensor x, route_spec spec) {
    spec.bias = s->router_bias;
    return experts(g, x, route(g, linear(g, x, s->router), &spec), ACT_SILU, s->gate, s->up, s->down);
}
static tensor of_sigmoid_routing(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return routed_by(
        g, s, x,
        (route_spec){.k = 2, .score = SCORE_SIGMOID, .renormalize = true, .eps = 1e-20f, .scale = 2.5f});
}
static tensor of_group_routing(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return routed_by(g, s, x,
                     (route_spec){.k = 2,
                                  .score = SCORE_SIGMOID,
                                  .renormalize = true,
                                  .eps = 2,
                                  .eps_is_floor = true,
                                  .n_group = 2,
                                  .topk_group = 1,
                                  .scale = 0.5f});
}
static tensor of_best_groups(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return routed_by(
        g, s, x,
        (route_spec){
            .k = 1, .n_group = 2, .topk_group = 1, .group_max = true, .mask_inf = true, .last = true});
}
static tensor of_top_softmax(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return routed_by(g, s, x, (route_spec){.k = 3, .score = SCORE_TOP_SOFTMAX});
}

static tensor of_sinks(graph *g, const side *s, cache *c, tensor x) {
    tensor k = rope(g, heads(g, linear(g, x, s->keys), KV_HEADS), &ropes[0], c);
    return attend(g, c, heads(g, x, HEADS), k, heads(g, linear(g, x, s->keys), KV_HEADS),
                  &(attend_spec){.scale = 0.2f, .sinks = s->router_bias}); /* as many as heads */
}
static tensor of_softcap(graph *g, const side *s, cache *c, tensor x) {
    tensor k = rope(g, heads(g, linear(g, x, s->keys), KV_HEADS), &ropes[0], c);
    return attend(g, c, heads(g, x, HEADS), k, heads(g, linear(g, x, s->keys), KV_HEADS),
                  &(attend_spec){.scale = 0.2f, .softcap = 0.1f});
}
static tensor of_shared(graph *g, const side *s, cache *c, tensor x) {
    tensor y = of_attend(g, s, c, x);
    return add(g, y, attend_shared(g, c, heads(g, y, HEADS), &(attend_spec){.scale = 0.5f}));
}
static tensor of_biased_experts(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return experts(g, x, route(g, linear(g, x, s->router), &(route_spec){.k = EXPERTS, .last = true}),
                   ACT_OAI, s->gate, s->biased_up, s->biased_down);
}

/* max_size, kv_bits: of the cache. experts: MLX multiplies plain ones on the CPU in F32 only. choosy:
 * rounding decides what is chosen. */
static const struct {
    const char *name;
    operation *build;
    int64_t max_size, window;
    int kv_bits;
    bool experts, choosy;
} operations[] = {
    {.name = "embed", .build = of_embed},
    {.name = "linear", .build = of_linear},
    {.name = "linear with bias", .build = of_bias},
    {.name = "rms_norm", .build = of_norm},
    {.name = "rms_norm of heads", .build = of_head_norm},
    {.name = "rms_norm without weight", .build = of_bare_norm},
    {.name = "gated, silu", .build = of_silu},
    {.name = "gated, gelu", .build = of_gelu},
    {.name = "add", .build = of_add},
    {.name = "add_clipped", .build = of_clip},
    {.name = "scale", .build = of_scale},
    {.name = "all experts", .build = of_experts, .experts = true},
    {.name = "best experts", .build = of_best_experts, .experts = true, .choosy = true},
    {.name = "gated, exact gelu", .build = of_gelu_erf_gate},
    {.name = "gated, relu", .build = of_relu_gate},
    {.name = "gated, relu2", .build = of_relu2_gate},
    {.name = "gated, oai", .build = of_oai_gate},
    {.name = "silu", .build = activate_silu},
    {.name = "gelu, tanh", .build = activate_gelu_tanh},
    {.name = "gelu", .build = activate_gelu},
    {.name = "relu2", .build = activate_relu2},
    {.name = "sigmoid", .build = activate_sigmoid},
    {.name = "tanh", .build = activate_tanh},
    {.name = "softplus", .build = activate_softplus},
    {.name = "divide", .build = of_divide},
    {.name = "soft_cap", .build = of_soft_cap},
    {.name = "product", .build = of_product},
    {.name = "product by head", .build = of_product_by_head},
    {.name = "product_weight", .build = of_product_weight},
    {.name = "part", .build = of_part},
    {.name = "part of heads", .build = of_part_of_heads},
    {.name = "as_f32", .build = of_f32},
    {.name = "concat", .build = of_concat},
    {.name = "gated, silu in F32", .build = of_silu_f32},
    {.name = "scale_positions", .build = of_scale_positions},
    {.name = "sigmoid routing", .build = of_sigmoid_routing, .experts = true, .choosy = true},
    {.name = "group routing", .build = of_group_routing, .experts = true, .choosy = true},
    {.name = "best groups", .build = of_best_groups, .experts = true, .choosy = true},
    {.name = "top softmax", .build = of_top_softmax, .experts = true, .choosy = true},
    {.name = "logprobs", .build = of_logprobs},
    {.name = "argmax", .build = of_argmax, .choosy = true},
    {.name = "rope", .build = of_rope},
    {.name = "traditional rope", .build = of_traditional_rope},
    {.name = "scaled rope", .build = of_scaled_rope},
    {.name = "attend", .build = of_attend},
    {.name = "attend, rotating cache", .build = of_attend, .max_size = 24},
    {.name = "attend, 8-bit cache", .build = of_attend, .kv_bits = 8},
    {.name = "attend, sinks", .build = of_sinks},
    {.name = "attend, sinks and rotating cache", .build = of_sinks, .max_size = 24},
    {.name = "attend, soft cap", .build = of_softcap},
    {.name = "attend_shared", .build = of_shared},
    {.name = "experts with biases", .build = of_biased_experts, .experts = true},
    {.name = "attend, window", .build = of_attend, .window = 6},
    {.name = "attend, window and 8-bit cache", .build = of_attend, .window = 6, .kv_bits = 8},
};

/* ---- comparing ---- */

/* n rows, of so many sequences. */
static int64_t run_one(const side *s, size_t which, kind k, int64_t n, int n_sequences, float *out) {
    cache_spec spec = {.n_sequences = n_sequences,
                       .n_kv_heads = KV_HEADS,
                       .head_dim = HEAD_DIM,
                       .v_head_dim = HEAD_DIM,
                       .dtype = k.dtype,
                       .max_size = operations[which].max_size,
                       .window = operations[which].window};
    cache *c = cache_new(s->e, &spec);
    assert_non_null(c);
    /* a chunk before, so that positions and caches do not start at zero */
    graph *g = graph_begin(s->e, n_sequences);
    of_attend(g, s, c, rows_of(g, s->table, 100, BEFORE * n_sequences));
    if (graph_end(g, 0, NULL, NULL)) fail_msg("%s", error_message());
    if (operations[which].kv_bits)
        assert_int_equal(cache_quantize(s->e, c, operations[which].kv_bits, 32), 0);
    g = graph_begin(s->e, n_sequences);
    tensor x = operations[which].build(g, s, c, rows_of(g, s->table, 3, n));
    int64_t count = 1;
    for (int i = 0; i < 3 && tensor_dim(x, i); i++) count *= tensor_dim(x, i);
    finish(g, x, out, count);
    cache_free(s->e, c);
    return count;
}

static void compare(const side *cpu, const side *mlx, size_t which, kind k, int64_t n, int n_sequences) {
    static float a[70 * ROWS], b[70 * ROWS];
    int64_t count = run_one(cpu, which, k, n, n_sequences, a);
    assert_int_equal(run_one(mlx, which, k, n, n_sequences, b), count);
    float largest = 0, difference = 0;
    for (int64_t i = 0; i < count; i++) {
        largest = fmaxf(largest, fabsf(a[i]));
        difference = fmaxf(difference, fabsf(a[i] - b[i]));
        if (!isfinite(b[i])) difference = INFINITY;
    }
    float rounding = k.dtype == DTYPE_F32 ? 1e-6f : k.dtype == DTYPE_F16 ? 0x1p-11f : 0x1p-8f;
    /* MLX's CPU kernels for packed weights round each unpacked number, and the sum, to the dtype. */
    float allowed = (k.bits && k.dtype != DTYPE_F32 ? 16 : 4) * rounding;
    if (operations[which].kv_bits) allowed += 0.01f; /* an element on the border of two steps */
    assert_true(largest > 0);
    if (difference > allowed * largest)
        fail_msg("%s, %s, %d bits, %lld rows of %d sequences: %g apart, largest %g", operations[which].name,
                 dtype_name(k.dtype), k.bits, (long long)n, n_sequences, (double)difference, (double)largest);
}

static void test_operations(void **state) {
    (void)state;
    side cpu = {.e = open_cpu(2)}, mlx = {.e = engine_open("mlx", &(engine_options){0})};
    if (!mlx.e) {
        print_message("not run: %s\n", error_message());
        engine_close(cpu.e);
        skip();
    }
    for (size_t k = 0; k < COUNT(kinds); k++) {
        load(&cpu, kinds[k]);
        load(&mlx, kinds[k]);
        for (size_t i = 0; i < COUNT(operations) * COUNT(lengths); i++) {
            size_t which = i / COUNT(lengths);
            if (operations[which].experts && !kinds[k].bits && kinds[k].dtype != DTYPE_F32) continue;
            if (operations[which].choosy && kinds[k].dtype != DTYPE_F32) continue;
            int64_t n = lengths[i % COUNT(lengths)];
            compare(&cpu, &mlx, which, kinds[k], n, 1);
            if (n % SEQUENCES == 0) compare(&cpu, &mlx, which, kinds[k], n, SEQUENCES);
        }
        unload(&cpu);
        unload(&mlx);
    }
    engine_close(cpu.e);
    engine_close(mlx.e);
}

/* What MLX throws is a message, and the engine goes on. */
static void test_mlx_errors(void **state) {
    (void)state;
    side s = {.e = engine_open("mlx", &(engine_options){0})};
    if (!s.e) {
        print_message("not run: %s\n", error_message());
        skip();
    }
    kind plain = {DTYPE_BF16, 0, 0};
    load(&s, plain);
    if (!strcmp(engine_describe(s.e).device, "cpu")) {
        graph *g = graph_begin(s.e, 1);
        tensor x = of_experts(g, &s, NULL, rows_of(g, s.table, 0, 2));
        result *r = NULL;
        float values[2 * DIM];
        int status = graph_end(g, 1, &x, &r);
        if (!status) status = result_read(r, values, 2 * DIM);
        assert_int_equal(status, -1);
        assert_non_null(strstr(error_message(), "mlx: "));
        result_free(r);
    }
    float out[DIM];
    graph *g = graph_begin(s.e, 1);
    finish(g, linear(g, rows_of(g, s.table, 0, 1), s.square), out, DIM);
    unload(&s);
    assert_int_equal(engine_memory_used(s.e).weights, 0);
    engine_close(s.e);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_operations), cmocka_unit_test(test_mlx_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
