/* mlx.cpp - the MLX engine as an engine: opening, weights, results, memory, and running a graph.
 * The module's border: no MLX type and no exception leaves it. All work of an engine is on one
 * stream of its own. */
#include "engine/mlx/mlx.hpp"

#include <cstring>
#include <unistd.h>

#define TEXT_OF(x)    #x
#define TEXT(x)       TEXT_OF(x)
#define BUILT_AGAINST TEXT(MLX_VERSION_MAJOR) "." TEXT(MLX_VERSION_MINOR) "." TEXT(MLX_VERSION_PATCH)

/* MLX says it in words alone: "[malloc] Unable to allocate", "[metal::malloc] Attempting to
 * allocate", CUDA's "out of memory". */
static bool is_about_memory(const char *what) {
    return strstr(what, "allocate") || strstr(what, "out of memory");
}

/* Runs work with the engine's stream as the default one. What is thrown becomes the recorded error,
 * and false. */
template <typename F> static bool guarded(const mlx_engine *e, const F &work) noexcept {
    try {
        mx::StreamContext context(e->stream);
        work();
        return true;
    } catch (const std::exception &error) {
        (is_about_memory(error.what()) ? fail_memory : fail)("mlx: %s", error.what());
    } catch (...) {
        fail("mlx: an unknown error");
    }
    return false;
}

static mlx_engine *engine_of(engine *e) {
    return reinterpret_cast<mlx_engine *>(e);
}

static const mlx_engine *engine_of(const engine *e) {
    return reinterpret_cast<const mlx_engine *>(e);
}

/* ---- opening ---- */

/* "cpu", or the kind of GPU and its name. */
static std::string device_name(const mx::Device &device) {
    if (device == mx::Device::cpu) return "cpu";
    std::string name = mx::metal::is_available() ? "metal" : "cuda";
    const auto &info = mx::device_info(device);
    auto found = info.find("device_name");
    if (found != info.end()) name += ": " + std::get<std::string>(found->second);
    return name;
}

/* Bytes that arrays can have in all: the GPU's own memory, or the system's. */
static double memory_of(const mx::Device &device) {
    const auto &info = mx::device_info(device);
    for (const char *key : {"total_memory", "memory_size"}) {
        auto found = info.find(key);
        if (device == mx::Device::gpu && found != info.end())
            return static_cast<double>(std::get<size_t>(found->second));
    }
    return static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

/* Bytes that Metal advises to keep resident at most; no other device reports this size: 0. */
static int64_t wired_limit_of(const mx::Device &device) {
    const auto &info = mx::device_info(device);
    auto found = info.find("max_recommended_working_set_size");
    return found == info.end() ? 0 : static_cast<int64_t>(std::get<size_t>(found->second));
}

static engine *open_mlx(const engine_options *options) {
    if (strcmp(mx::version(), BUILT_AGAINST) != 0) {
        fail("mlx: this engine was built against MLX %s and found MLX %s; build it again", BUILT_AGAINST,
             mx::version());
        return nullptr;
    }
    try {
        mx::Device device = mx::default_device();
        auto *e = new mlx_engine{.base = {},
                                 .stream = mx::new_stream(device),
                                 .device = device_name(device),
                                 .total_memory = memory_of(device),
                                 .wired_limit = wired_limit_of(device),
                                 .mlx_lm_graph = engine_asks(options, "graph", "mlx-lm"),
                                 .has_kernels = device == mx::Device::gpu && mx::cu::is_available()};
        return &e->base;
    } catch (const std::exception &error) {
        fail("mlx: cannot be used here: %s", error.what());
    } catch (...) {
        fail("mlx: cannot be used here");
    }
    return nullptr;
}

static int configure(engine *base, const engine_options *options) {
    engine_of(base)->mlx_lm_graph = engine_asks(options, "graph", "mlx-lm");
    return 0;
}

static void drop_weights(engine *base) {
    mlx_engine *e = engine_of(base);
    guarded(e, [&] {
        mx::synchronize(e->stream);
        e->freqs.clear();
        e->fused.inverse_freqs.clear();
        e->fused.scratch.reset();
        e->weights.clear();
        mx::clear_cache();
    });
}

static engine_info describe(const engine *base) {
    engine_info info = {};
    info.name = "mlx";
    info.version = mx::version();
    info.device = engine_of(base)->device.c_str();
    info.lookahead = true;
    info.wired_limit = engine_of(base)->wired_limit;
    return info;
}

static const char *setting(const engine *base, const char *name) {
    if (std::strcmp(name, "graph") != 0) return nullptr;
    return fuses(*engine_of(base)) ? "fused" : "mlx-lm";
}

/* ---- memory ---- */

static engine_memory memory_used(const engine *base) {
    const mlx_engine *e = engine_of(base);
    engine_memory m = {};
    guarded(e, [&] {
        for (const auto &w : e->weights)
            for (const optional_array &x : {optional_array(w->values), w->scales, w->biases, w->bias})
                if (x) m.weights += static_cast<int64_t>(x->nbytes());
        int64_t aside = 0;
        for (const mlx_cache *c : e->caches) (c->base.spec.aside ? aside : m.kv) += mlx_cache_bytes(*c);
        int64_t active = static_cast<int64_t>(mx::get_active_memory()) - aside;
        m.scratch = std::max<int64_t>(active - m.weights - m.kv, 0);
        m.peak = std::max<int64_t>(active, static_cast<int64_t>(mx::get_peak_memory()) - aside);
    });
    return m;
}

/* What an earlier run still has under way must not be in the next one's time and peak. */
static void reset_peak(engine *base) {
    mlx_engine *e = engine_of(base);
    guarded(e, [&] {
        mx::synchronize(e->stream);
        mx::reset_peak_memory();
    });
}

/* Throws unless `bytes` more fit into the device's memory: MLX's CPU backend ends the program when
 * they don't. */
static void check_memory(const mlx_engine &e, double bytes, const char *what) {
    double left = e.total_memory - static_cast<double>(mx::get_active_memory());
    if (bytes <= left) return;
    char text[200];
    snprintf(text, sizeof text, "out of memory: %.3f GB for %s, %.3f GB left", bytes / 1e9, what, left / 1e9);
    throw std::runtime_error(text);
}

/* ---- weights ---- */

mx::Dtype mlx_dtype(dtype type) {
    switch (type) {
    case DTYPE_F32:
        return mx::float32;
    case DTYPE_F16:
        return mx::float16;
    case DTYPE_BF16:
        return mx::bfloat16;
    case DTYPE_U32:
        return mx::uint32;
    case DTYPE_I32:
        return mx::int32;
    case DTYPE_U8:
        return mx::uint8;
    case DTYPE_OTHER:
        break;
    }
    throw std::invalid_argument("a weight of a type that cannot be computed with");
}

/* Of memory from MLX's allocator: a buffer, or since MLX 0.32.4 its owner. */
template <typename Memory> static void *address_of(Memory &memory) {
    if constexpr (requires { memory.raw_ptr(); }) {
        return memory.raw_ptr();
    } else {
        auto buffer = memory.buffer();
        return buffer.raw_ptr();
    }
}

/* A copy in MLX's memory, from any address; the pages of the original are given back. */
static mx::array copy_of(const mlx_engine &e, const array &a, const char *name) {
    size_t bytes = array_bytes(&a);
    check_memory(e, static_cast<double>(bytes), name);
    mx::Shape shape;
    for (int i = 0; i < a.rank; i++) {
        if (a.shape[i] > INT32_MAX) throw std::invalid_argument(std::string(name) + " is too large for MLX");
        shape.push_back(static_cast<int>(a.shape[i]));
    }
    auto memory = mx::allocator::malloc(bytes);
    void *data = address_of(memory);
    if (!data) throw std::bad_alloc();
    memcpy(data, a.data, bytes);
    file_map_release(a.data, bytes);
    mx::array x(std::move(memory), shape, mlx_dtype(a.dtype));
    /* Metal's memory is the system's, and this is where its kernels read: a copy would be a second
     * one for a moment. No copy at all - MLX takes pages of a mapped file as they are - is not had:
     * Metal asks for whole pages, and a checkpoint's tensors begin anywhere. */
    if (e.stream.device == mx::Device::cpu || mx::metal::is_available()) return x;
    x = mx::copy(x); /* into memory of the GPU's own */
    mx::eval(x);
    return x;
}

static weight *new_weight(engine *base, const weight_source *source) {
    mlx_engine *e = engine_of(base);
    const matrix &m = source->m;
    weight *made = nullptr;
    guarded(e, [&] {
        mx::array values = copy_of(*e, m.values, source->name);
        if (source->offset != 0) {
            values = mx::add(constant(source->offset, values), values);
            mx::eval(values);
        }
        if (source->factor != 0) {
            values = mx::multiply(values, constant(source->factor, values));
            mx::eval(values);
        }
        auto w = std::make_unique<mlx_weight>(
            mlx_weight{.base = {}, .values = values, .bits = m.bits, .group_size = m.group_size});
        if (m.kind != MATRIX_PLAIN) w->scales = copy_of(*e, m.scales, source->name);
        if (m.kind == MATRIX_AFFINE) w->biases = copy_of(*e, m.biases, source->name);
        if (source->bias) w->bias = copy_of(*e, source->bias->values, source->name);
        made = &w->base;
        e->weights.push_back(std::move(w));
    });
    return made;
}

/* ---- KV caches ---- */

/* mlx-lm generate.py: wired_limit. Metal keeps a model resident while it is in use, which is while
 * there are caches: every way out of a run frees them. */
static void raise_wired_limit(mlx_engine &e) {
    if (e.wired_limit && !e.wired_before)
        e.wired_before = mx::set_wired_limit(static_cast<size_t>(e.wired_limit));
}

static void restore_wired_limit(mlx_engine &e) {
    if (!e.wired_before) return;
    mx::synchronize(e.stream);
    mx::set_wired_limit(*e.wired_before);
    e.wired_before.reset();
}

static void close_mlx(engine *base) {
    mlx_engine *e = engine_of(base);
    guarded(e,
            [&] { restore_wired_limit(*e); }); /* raised, and then there was no memory for the first cache */
    drop_weights(base);
    delete e;
}

static cache *new_cache(engine *base, const cache_spec *) {
    mlx_engine *e = engine_of(base);
    mlx_cache *c = nullptr;
    guarded(e, [&] {
        if (e->caches.empty()) raise_wired_limit(*e);
        auto owned = std::make_unique<mlx_cache>();
        e->caches.push_back(owned.get());
        c = owned.release();
        e->steps = 0;
    });
    return c ? &c->base : nullptr;
}

static void free_cache(engine *base, cache *c) {
    mlx_engine *e = engine_of(base);
    auto *freed = reinterpret_cast<mlx_cache *>(c);
    guarded(e, [&] {
        std::erase(e->caches, freed);
        delete freed;
        if (e->caches.empty()) restore_wired_limit(*e);
    });
}

static int copy_cache(engine *base, cache *to, const cache *from) {
    mlx_engine *e = engine_of(base);
    bool done = guarded(e, [&] {
        mlx_cache_copy(*reinterpret_cast<mlx_cache *>(to), *reinterpret_cast<const mlx_cache *>(from));
        e->steps = 0;
    });
    return done ? 0 : -1;
}

static int quantize_cache(engine *base, cache *plain, int bits, int group_size) {
    mlx_engine *e = engine_of(base);
    auto *c = reinterpret_cast<mlx_cache *>(plain);
    bool done = guarded(e, [&] {
        mlx_cache_quantize(*c, bits, group_size);
        std::vector<mx::array> states = c->keys;
        states.insert(states.end(), c->values.begin(), c->values.end());
        mx::async_eval(states);
    });
    return done ? 0 : -1;
}

/* ---- running a graph ---- */

/* What a node's result may take, or its largest intermediate: attention's scores, which MLX's CPU
 * backend stores. */
static double bytes_of(const node *x) {
    double bytes = static_cast<double>(tensor_count(x)) * 4;
    if (x->op == OP_EXPERTS)
        bytes = static_cast<double>(x->in[1]->shape[0] * x->in[1]->shape[1]) *
                static_cast<double>(x->w[0]->shape[1] + x->shape[1]) * 4;
    if (x->op == OP_ATTEND)
        bytes += static_cast<double>(x->in[0]->shape[0] * x->in[0]->shape[1]) *
                 static_cast<double>(x->position + x->shape[0]) * 4;
    if (x->op == OP_ATTEND_LATENT) /* scores, keys and values of all heads */
        bytes += static_cast<double>(x->shape[1] * (x->position + x->shape[0])) *
                 static_cast<double>(x->shape[0] + x->in[0]->shape[2] + x->shape[2]) * 4;
    return bytes;
}

static void record(mlx_engine *e, const graph *g, int n_outputs) {
    double largest = 0;
    e->values.assign(static_cast<size_t>(g->n_nodes), value{});
    for (int i = 0; i < g->n_nodes; i++)
        if (graph_node(g, i)->live) largest = std::max(largest, bytes_of(graph_node(g, i)));
    check_memory(*e, largest, "a step");
    fusion_begin(*e, g, n_outputs);
    for (int i = 0; i < g->n_nodes; i++) {
        const node *x = graph_node(g, i);
        if (x->live && !fusion_record(*e, g, x)) mlx_record(*e, g, x);
    }
    fusion_end(*e);
    e->last_mask = {};
}

/* The choices of routers whose experts are noted. */
static std::vector<std::pair<const node *, mx::array>> noted_choices(const mlx_engine *e, const graph *g) {
    std::vector<std::pair<const node *, mx::array>> noted;
    for (int i = 0; i < g->n_nodes && g->notes_experts; i++) {
        const node *x = graph_node(g, i);
        if (x->live && x->touched) noted.emplace_back(x, mx::contiguous(*e->values[i].first));
    }
    return noted;
}

/* Waits for the step. */
static void note_choices(std::vector<std::pair<const node *, mx::array>> &noted) {
    for (auto &[routing, choices] : noted) {
        choices.eval();
        for (size_t i = 0; i < choices.size(); i++) touch_expert(routing, choices.data<uint32_t>()[i]);
    }
}

/* Layers whose cache states are evaluated together, where prefills are bounded. */
enum { PREFILL_LAYERS = 2 };

/* What every cache holds that the graph writes, n_layers caches together: all that a prefill
 * chunk evaluates. */
static std::vector<std::vector<mx::array>> cache_states(const graph *g, int n_layers) {
    std::vector<std::vector<mx::array>> groups;
    int n_caches = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const node *x = graph_node(g, i);
        if (!(op_flags[x->op] & EFFECT)) continue;
        if (n_caches++ % n_layers == 0) groups.emplace_back();
        mlx_cache_state(*reinterpret_cast<const mlx_cache *>(x->cache), groups.back());
    }
    return groups;
}

/* MLX reuses a buffer in place only when nobody else holds it: our handles go before anything is
 * evaluated. On CUDA it keeps what kernels read until the work they were submitted with is done,
 * and lets the host be ten submissions of up to a hundred kernels ahead: in one evaluation nearly
 * all intermediate values of a chunk are there at a time. So a few layers are queued while a few
 * others run, but no more. mlx-lm evaluates all at once. */
static void prefill(mlx_engine *e, const graph *g) {
    e->values.clear();
    auto groups = cache_states(g, fuses(*e) && g->n_sequences == 1 ? PREFILL_LAYERS : g->n_nodes);
    for (size_t i = 0; i < groups.size(); i++) {
        if (i + 1 < groups.size())
            mx::async_eval(groups[i]);
        else
            mx::eval(groups[i]);
        if (i) mx::eval(groups[i - 1]); /* waits for it */
    }
    e->clear_next = true;
    e->steps = 0;
}

/* An output as result_read gives it: row by row, F32 unless ids. */
static mx::array output_of(const mlx_engine &e, tensor x) {
    const value &v = e.values[x->index];
    mx::array out = v.heads_first ? mx::contiguous(mx::transpose(*v.first, {0, 2, 1, 3})) : *v.first;
    return x->dtype == DTYPE_I32 ? out : mx::astype(out, mx::float32);
}

/* Queues a decode step. mlx-lm evaluates the log-probabilities, too: they are what its caller
 * gets. */
static void decode(mlx_engine *e, const graph *g, int n, const tensor outputs[], result *results[]) {
    std::vector<mx::array> wanted;
    for (int i = 0; i < n; i++) wanted.push_back(output_of(*e, outputs[i]));
    for (int i = 0; i < g->n_nodes; i++)
        if (graph_node(g, i)->live && graph_node(g, i)->op == OP_LOGPROBS)
            wanted.push_back(*e->values[i].first);
    e->values.clear();
    mx::async_eval(wanted);
    for (int i = 0; i < n; i++)
        results[i] =
            &(new mlx_result{{&e->base, outputs[i]->dtype, tensor_count(outputs[i])}, wanted[i]})->base;
    e->steps++;
}

/* mlx-lm gives unused memory back between chunks, and after token 0, 256, 512, ... was read, when
 * one more step is under way. */
static bool clears_now(mlx_engine *e) {
    bool clear = e->clear_next || (e->steps >= 2 && (e->steps - 2) % 256 == 0);
    e->clear_next = false;
    return clear;
}

static int run(engine *base, graph *g, int n, const tensor outputs[], result *results[]) {
    mlx_engine *e = engine_of(base);
    bool done = guarded(e, [&] {
        if (clears_now(e)) mx::clear_cache();
        record(e, g, n);
        auto noted = noted_choices(e, g);
        if (n)
            decode(e, g, n, outputs, results);
        else
            prefill(e, g);
        note_choices(noted);
    });
    if (!done) {
        e->values.clear();
        e->last_mask = {};
        fusion_end(*e);
    }
    return done ? 0 : -1;
}

static int read_result(result *r, void *out) {
    auto *from = reinterpret_cast<mlx_result *>(r);
    bool done = guarded(engine_of(r->engine), [&] {
        from->data.eval();
        memcpy(out, from->data.data<char>(), static_cast<size_t>(r->count) * 4);
    });
    return done ? 0 : -1;
}

static void free_result(result *r) {
    guarded(engine_of(r->engine), [&] { delete reinterpret_cast<mlx_result *>(r); });
}

/* ---- the module ---- */

static const engine_class mlx_class = {
    .name = "mlx",
    .open = open_mlx,
    .close = close_mlx,
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
    .result_free = free_result,
};

extern "C" __attribute__((visibility("default"))) const engine_module *mlxbench_engine_module(void) {
    static const engine_module module = {
        .abi = ENGINE_ABI, .built = "MLX " BUILT_AGAINST, .type = &mlx_class};
    return &module;
}
