/* registry.c - the known architecture families, and the calls every model answers.
 * Adding a family: its file, and one line here. */
#include "model/family.h"

#include <stdlib.h>

static const struct {
    const char *model_type;
    const model_family *family;
} families[] = {
    {"llama", &llama_family},         {"mistral", &llama_family}, /* mlx-lm utils.py: MODEL_REMAPPING */
    {"qwen2", &qwen2_family},         {"qwen3", &qwen3_family},
    {"qwen3_moe", &qwen3_moe_family}, {"gemma3_text", &gemma3_text_family},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

const char *model_family_name(int i) {
    return i >= 0 && i < N_FAMILIES ? families[i].model_type : NULL;
}

static const model_family *find_family(const json *config, const char *name) {
    const char *type = NULL;
    if (json_get_string(config, name, "model_type", true, &type)) return NULL;
    for (int i = 0; i < N_FAMILIES; i++)
        if (!strcmp(type, families[i].model_type)) return families[i].family;
    str known = {0};
    for (int i = 0; i < N_FAMILIES; i++) str_printf(&known, "%s%s", i ? ", " : "", families[i].model_type);
    fail("%s: model_type \"%s\" is not known; known: %s", name, type, known.data ? known.data : "");
    str_free(&known);
    return NULL;
}

model *model_load(checkpoint *c, engine *e) {
    const json *config = checkpoint_config(c);
    const model_family *family = find_family(config, checkpoint_config_name(c));
    model *m = family ? mem_new(1, sizeof *m, "a model") : NULL;
    if (!m) return NULL;
    m->family = family;
    m->engine = e;
    m->arena = arena_new();
    loader l = {.model = m, .checkpoint = c, .config = config, .name = checkpoint_config_name(c)};
    l.failed = !m->arena;
    m->info.model_type = family->model_type;
    m->info.own_caches = family->window != NULL;
    if (!l.failed) family->load(&l);
    if (l.failed || checkpoint_check_all_used(c)) {
        model_free(m);
        return NULL;
    }
    return m;
}

void model_free(model *m) {
    if (!m) return;
    engine_drop_weights(m->engine);
    arena_free(m->arena);
    free(m);
}

const model_info *model_describe(const model *m) {
    return &m->info;
}

static cache_spec cache_of_layer(const model *m, int64_t layer, int64_t max_kv_size) {
    cache_spec spec = {.n_kv_heads = (int)m->info.n_kv_heads,
                       .head_dim = (int)m->info.head_dim,
                       .v_head_dim = (int)m->info.head_dim,
                       .dtype = m->kv_dtype};
    if (m->family->window) {
        spec.max_size = m->family->window(m, layer);
    } else if (max_kv_size) {
        spec.max_size = max_kv_size;
        spec.keep = 4;
    }
    return spec;
}

int model_caches(const model *m, const cache_options *o, cache_spec out[], int max) {
    int n = (int)m->info.n_layers;
    for (int i = 0; i < n && i < max; i++) out[i] = cache_of_layer(m, i, o->max_kv_size);
    return n;
}

tensor model_forward(const model *m, graph *g, tensor ids, cache *const caches[]) {
    return m->family->forward(m, g, ids, caches);
}
