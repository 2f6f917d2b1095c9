/* engine.c - the list of engines, and the calls that go straight to one.
 * Adding an engine is one line in `engines`. */
#include "engine/graph.h"

#include <stdlib.h>
#include <unistd.h>

/* type NULL: in a module of its own. The last one is not listed: it is for tests. */
static const struct {
    const char *name;
    const engine_class *type;
} engines[] = {{"cpu", &cpu_engine}, {"mlx", NULL}, {"fake", &fake_engine}};
enum { N_ENGINES = sizeof engines / sizeof *engines, N_LISTED = N_ENGINES - 1 };

const char *engine_name(int i) {
    return i >= 0 && i < N_LISTED ? engines[i].name : NULL;
}

/* Is it that engine, or a module given as NAME@PATH? */
static bool is_engine(int i, const char *name) {
    size_t n = strlen(engines[i].name);
    if (strncmp(name, engines[i].name, n)) return false;
    return !name[n] || (!engines[i].type && name[n] == '@' && name[n + 1]);
}

static engine *open_engine(int i, const char *name, const engine_options *options) {
    const engine_class *type = engines[i].type ? engines[i].type : engine_module_load(name);
    engine *e = type ? type->open(options) : NULL;
    if (e) e->type = type;
    return e;
}

/* A cheap sign of a GPU that MLX could use, so that `auto` loads no library where there is none. */
static bool may_have_gpu(void) {
#ifdef __APPLE__
    return true;
#else
    return !access("/dev/nvidiactl", F_OK) || !access("/dev/dxg", F_OK); /* Linux; Linux inside Windows */
#endif
}

/* mlx where it has a GPU, otherwise cpu: on CPUs MLX is the slower one. */
static engine *open_auto(const engine_options *options) {
    engine *e = may_have_gpu() ? engine_open("mlx", options) : NULL;
    if (e && strcmp(engine_describe(e).device, "cpu")) return e;
    engine_close(e);
    error_clear();
    return engine_open("cpu", options);
}

int engine_check_name(const char *name) {
    str known = {0};
    if (!strcmp(name, "auto")) return 0;
    for (int i = 0; i < N_ENGINES; i++)
        if (is_engine(i, name)) return 0;
    for (int i = 0; i < N_LISTED; i++) str_printf(&known, ", %s", engines[i].name);
    fail_usage("unknown engine \"%s\"; known: auto%s, mlx@PATH", name, known.data ? known.data : "");
    str_free(&known);
    return -1;
}

engine *engine_open(const char *name, const engine_options *options) {
    if (engine_check_name(name)) return NULL;
    if (!strcmp(name, "auto")) return open_auto(options);
    for (int i = 0; i < N_ENGINES; i++)
        if (is_engine(i, name)) return open_engine(i, name, options);
    return NULL;
}

void engine_close(engine *e) {
    if (!e) return;
    graph_release(&e->graph);
    e->type->close(e);
}

int engine_configure(engine *e, const engine_options *options) {
    return e->type->configure(e, options);
}

engine_info engine_describe(const engine *e) {
    return e->type->describe(e);
}

bool engine_asks(const engine_options *o, const char *name, const char *value) {
    for (int i = 0; i < o->n_settings; i++)
        if (!strcmp(o->settings[i].name, name))
            return o->settings[i].value && !strcmp(o->settings[i].value, value);
    return false;
}

const char *engine_setting_used(const engine *e, const char *name) {
    return e->type->setting(e, name);
}

engine_memory engine_memory_used(const engine *e) {
    return e->type->memory_used(e);
}

void engine_reset_peak(engine *e) {
    e->type->reset_peak(e);
}

const weight *engine_weight(engine *e, const weight_source *source) {
    weight *w = e->type->new_weight(e, source);
    if (!w) return NULL;
    w->rank = source->m.rank;
    for (int i = 0; i < w->rank; i++) w->shape[i] = source->m.shape[i];
    w->kind = source->m.kind;
    w->dtype = matrix_dtype(&source->m);
    w->has_bias = source->bias != NULL;
    return w;
}

void engine_drop_weights(engine *e) {
    graph_forget_touched(&e->graph); /* layers are known by their weights */
    e->type->drop_weights(e);
}

cache *cache_new(engine *e, const cache_spec *spec) {
    cache_spec s = *spec;
    if (!s.n_sequences) s.n_sequences = 1;
    if (s.max_size && s.window && s.window < s.max_size)
        return fail_null("a cache that rotates, with a window below its size, is not supported yet");
    cache *c = e->type->cache_new(e, &s);
    if (c) c->spec = s;
    return c;
}

void cache_free(engine *e, cache *c) {
    if (c) e->type->cache_free(e, c);
}

int cache_copy(engine *e, cache *to, const cache *from) {
    if (e->type->cache_copy(e, to, from)) return -1;
    to->offset = from->offset;
    to->bits = from->bits;
    to->group_size = from->group_size;
    return 0;
}

int cache_quantize(engine *e, cache *c, int bits, int group_size) {
    const cache_spec *s = &c->spec;
    if (c->bits || !s->n_kv_heads || s->chunk) return 0; /* mlx-lm leaves chunks as they are, too */
    if (s->max_size) return fail_usage("a rotating KV cache cannot be quantized (nor can mlx-lm's)");
    if (s->latent) return fail_usage("a cache of latents cannot be quantized (nor can mlx-lm's)");
    if (group_size < 1 || s->head_dim % group_size || s->v_head_dim % group_size)
        return fail_usage("kv_group_size %d does not divide head_dim %d", group_size, s->head_dim);
    if (e->type->cache_quantize(e, c, bits, group_size)) return -1;
    c->bits = bits;
    c->group_size = group_size;
    return 0;
}

int result_read(result *r, void *out, int64_t count) {
    if (count != r->count)
        return fail("a result has %lld elements, not %lld", (long long)r->count, (long long)count);
    return r->engine->type->result_read(r, out);
}

void result_free(result *r) {
    if (r) r->engine->type->result_free(r);
}
