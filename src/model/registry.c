/* registry.c - the known architectures, and the calls every model answers.
 * Adding an architecture: a function that describes it, and one line here. */
#include "model/decoder.h"

#include <stdlib.h>

/* mlx-lm utils.py: MODEL_REMAPPING has the names that are others' classes. */
static const architecture architectures[] = {
    {"llama", "Llama 2 and 3, SmolLM2, Yi", .describe = describe_llama, .layer = layer_llama},
    {"mistral", "Mistral 7B, Mistral Nemo", .describe = describe_llama, .layer = layer_llama},
    {"qwen2", "Qwen2, Qwen2.5", .describe = describe_qwen2},
    {"qwen3", "Qwen3", .describe = describe_qwen3},
    {"qwen3_moe", "Qwen3-30B-A3B, Qwen3-Coder", .describe = describe_qwen3_moe, .layer = layer_qwen3_moe},
    {"gemma3_text", "Gemma 3 1B, 270M", .describe = describe_gemma3, .layer = layer_gemma3},
};
enum { N_ARCHITECTURES = sizeof architectures / sizeof *architectures };

struct model {
    engine *engine;
    arena *arena; /* everything below lives in it */
    model_info info;
    decoder decoder;
};

const char *model_type_name(int i) {
    return i >= 0 && i < N_ARCHITECTURES ? architectures[i].model_type : NULL;
}

static const architecture *find_architecture(const json *config, const char *name) {
    const char *type = NULL;
    if (json_get_string(config, name, "model_type", true, &type)) return NULL;
    for (int i = 0; i < N_ARCHITECTURES; i++)
        if (!strcmp(type, architectures[i].model_type)) return &architectures[i];
    str known = {0};
    for (int i = 0; i < N_ARCHITECTURES; i++)
        str_printf(&known, "%s%s", i ? ", " : "", architectures[i].model_type);
    fail("%s: model_type \"%s\" is not known; known: %s", name, type, known.data ? known.data : "");
    str_free(&known);
    return NULL;
}

static int load(model *m, checkpoint *c, const architecture *a) {
    loader l = {.checkpoint = c,
                .engine = m->engine,
                .arena = m->arena,
                .config = checkpoint_config(c),
                .name = checkpoint_config_name(c)};
    if (checkpoint_ignore(c, "self_attn.rotary_emb.inv_freq")) return -1;
    decoder_load(&l, a, &m->decoder);
    if (l.failed) return -1;
    const desc *d = &m->decoder.d;
    const attention_desc *all = &d->layer.attention;
    m->info = (model_info){.model_type = a->model_type,
                           .n_layers = d->n_layers,
                           .hidden_size = d->hidden,
                           .vocab_size = d->vocab,
                           .n_heads = all->n_heads,
                           .n_kv_heads = all->n_kv_heads,
                           .head_dim = all->head_dim,
                           .own_caches = d->own_caches};
    if (d->tied && checkpoint_ignore(c, "lm_head.")) return -1;
    return checkpoint_check_all_used(c);
}

model *model_load(checkpoint *c, engine *e) {
    const architecture *a = find_architecture(checkpoint_config(c), checkpoint_config_name(c));
    model *m = a ? mem_new(1, sizeof *m, "a model") : NULL;
    if (!m) return NULL;
    m->engine = e;
    m->arena = arena_new();
    if (!m->arena || load(m, c, a)) {
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

static cache_spec cache_of_layer(const model *m, int64_t i, const cache_options *o) {
    const layer *of = &m->decoder.layers[i];
    const attention_desc *a = &of->attention.d;
    cache_spec spec = {.n_kv_heads = (int)a->n_kv_heads,
                       .head_dim = (int)a->head_dim,
                       .v_head_dim = (int)a->head_dim,
                       .dtype = of->kv_dtype};
    if (m->info.own_caches) {
        spec.max_size = a->window;
    } else if (o->max_kv_size) {
        spec.max_size = o->max_kv_size;
        spec.keep = 4;
    }
    return spec;
}

int model_caches(const model *m, const cache_options *o, cache_spec out[], int max) {
    int n = (int)m->info.n_layers;
    for (int i = 0; i < n && i < max; i++) out[i] = cache_of_layer(m, i, o);
    return n;
}

tensor model_forward(const model *m, graph *g, tensor ids, cache *const caches[]) {
    return decoder_forward(&m->decoder, g, ids, caches);
}
