/* registry.c - the known architectures, and the calls every model answers.
 * architectures.def lists them. */
#include "model/decoder.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- wrappers: mlx-lm's ModelArgs of the same names ---- */

static const wrapper gemma3_wrapper = {.forced = "{\"vocab_size\": 262208}",
                                       .top = "vocab_size",
                                       .defaults =
                                           "{\"num_attention_heads\": 8, \"num_key_value_heads\": 4}"},
                     pixtral_wrapper = {.forced = "{\"tie_word_embeddings\": false}",
                                        .defaults = "{\"num_attention_heads\": 32}"},
                     gemma4_wrapper = {.forced = "{\"vocab_size\": 262144}",
                                       .top = "vocab_size",
                                       .defaults =
                                           "{\"num_attention_heads\": 8, \"num_key_value_heads\": 1}"},
                     mistral3_wrapper = {.defaults = "{\"tie_word_embeddings\": false}"},
                     plain_wrapper = {.forced = NULL};

static const name_rule mtp_rules[] = {{NAME_DROP_PART, "mtp.", NULL}, {NAME_END, NULL, NULL}};
static const name_rule mimo_rules[] = {{NAME_DROP, "model.mtp_layers.", NULL}, {NAME_END, NULL, NULL}};
static const name_rule mimo_v2_rules[] = {{NAME_DROP, "model.mtp", NULL}, {NAME_END, NULL, NULL}};
static const name_rule spark_rules[] = {{NAME_START, "model.embed_tokens.", "model.embedding."},
                                        {NAME_END, NULL, NULL}};
static const name_rule muse_rules[] = {
    {NAME_DROP, "vision_tower", NULL},      {NAME_DROP, "vision_adapter", NULL},
    {NAME_DROP, "vision_projection", NULL}, {NAME_START, "model.language_model.", "model."},
    {NAME_START, "language_model.", ""},    {NAME_END, NULL, NULL}};
static const name_rule laguna_rules[] = {
    {NAME_START, "language_model.", ""},
    {NAME_PART, "mlp.gate.weight", "mlp.gate.proj.weight"},
    {NAME_PART, "mlp.experts.e_score_correction_bias", "mlp.gate.e_score_correction_bias"},
    {NAME_END, NULL, NULL}};
static const name_rule step_rules[] = {{NAME_DROP_PART, ".mtp", NULL}, {NAME_END, NULL, NULL}};
static const name_rule lille_rules[] = {{NAME_DROP_PART, "rotary_emb", NULL}, {NAME_END, NULL, NULL}};
static const name_rule talkie_rules[] = {{NAME_DROP_PART, "rotary", NULL},
                                         {NAME_DROP_END, "cos", NULL},
                                         {NAME_DROP_END, "sin", NULL},
                                         {NAME_START, "lm_head_gain.", "head_gain."},
                                         {NAME_START, "lm_head", "lm_head.weight"},
                                         {NAME_END, NULL, NULL}};
static const name_rule longcat_rules[] = {{NAME_DROP, "model.mtp", NULL}, {NAME_END, NULL, NULL}};
static const name_rule internlm_rules[] = {{NAME_DROP_PART, "attention.rope.inv_freq", NULL},
                                           {NAME_END, NULL, NULL}};

static const name_rule mixtral_rules[] = {{NAME_PART, ".w1.", ".gate_proj."},
                                          {NAME_PART, ".w2.", ".down_proj."},
                                          {NAME_PART, ".w3.", ".up_proj."},
                                          {NAME_END, NULL, NULL}};
static const name_rule lfm2_moe_rules[] = {{NAME_PART, "w1.weight", "gate_proj.weight"},
                                           {NAME_PART, "w2.weight", "down_proj.weight"},
                                           {NAME_PART, "w3.weight", "up_proj.weight"},
                                           {NAME_END, NULL, NULL}};
static const name_rule ernie_rules[] = {{NAME_DROP_PART, "mtp_block.", NULL},
                                        {NAME_DROP_PART, "mtp_linear_proj.", NULL},
                                        {NAME_DROP_PART, "mtp_hidden_norm.", NULL},
                                        {NAME_DROP_PART, "mtp_emb_norm.", NULL},
                                        {NAME_DROP_PART, "e_score_correction_bias", NULL},
                                        {NAME_END, NULL, NULL}};
static const name_rule bailing_rules[] = {{NAME_PART, "mlp.gate.weight", "mlp.gate.gate_proj.weight"},
                                          {NAME_PART, "mlp.gate.bias", "mlp.gate.gate_proj.bias"},
                                          {NAME_END, NULL, NULL}};
static const name_rule exaone_moe_rules[] = {
    {NAME_DROP, "mtp.", NULL},
    {NAME_PART, "mlp.e_score_correction_bias", "mlp.gate.e_score_correction_bias"},
    {NAME_END, NULL, NULL}};
static const name_rule nemotron_h_rules[] = {{NAME_DROP, "mtp.", NULL},
                                             {NAME_PART, ".experts.*.up_proj.", ".experts.*.fc1."},
                                             {NAME_PART, ".experts.*.down_proj.", ".experts.*.fc2."},
                                             {NAME_END, NULL, NULL}};

static const name_rule gpt_neox_rules[] = {{NAME_DROP_PART, ".attention.bias", NULL},
                                           {NAME_DROP_PART, ".attention.masked_bias", NULL},
                                           {NAME_DROP_PART, ".attention.rotary_emb.inv_freq", NULL},
                                           {NAME_START, "gpt_neox.layers.", "model.h."},
                                           {NAME_START, "gpt_neox.", "model."},
                                           {NAME_START, "embed_out.", "model.embed_out."},
                                           {NAME_END, NULL, NULL}};
static const name_rule dbrx_rules[] = {{NAME_PART, ".experts.*.w1.", ".experts.*.gate_proj."},
                                       {NAME_PART, ".experts.*.v1.", ".experts.*.up_proj."},
                                       {NAME_PART, ".experts.*.w2.", ".experts.*.down_proj."},
                                       {NAME_END, NULL, NULL}};
static const name_rule phixtral_rules[] = {{NAME_PART, ".moe.mlp.*.", ".moe.experts.*."},
                                           {NAME_END, NULL, NULL}};
static const name_rule kimi_linear_rules[] = {
    {NAME_DROP, "model.mtp", NULL},
    {NAME_PART, ".block_sparse_moe.experts.*.w1.", ".mlp.experts.*.gate_proj."},
    {NAME_PART, ".block_sparse_moe.experts.*.w2.", ".mlp.experts.*.down_proj."},
    {NAME_PART, ".block_sparse_moe.experts.*.w3.", ".mlp.experts.*.up_proj."},
    {NAME_PART, ".block_sparse_moe.gate.e_score", ".mlp.e_score"},
    {NAME_PART, ".block_sparse_moe.", ".mlp."},
    {NAME_PART, "q_conv1d.", "q_conv.conv."},
    {NAME_PART, "k_conv1d.", "k_conv.conv."},
    {NAME_PART, "v_conv1d.", "v_conv.conv."},
    {NAME_END, NULL, NULL}};
static const name_rule gptj_rules[] = {{NAME_DROP_PART, ".attn.bias", NULL},
                                       {NAME_DROP_PART, ".attn.masked_bias", NULL},
                                       {NAME_START, "transformer.", "model."},
                                       {NAME_END, NULL, NULL}};

static const architecture architectures[] = {
#define ARCHITECTURE(type, how, each, ...)                                                                   \
    {type, __VA_ARGS__, .describe = describe_##how, .layer = layer_##each},
#include "model/architectures.def"
#undef ARCHITECTURE
};
enum { N_ARCHITECTURES = sizeof architectures / sizeof *architectures };

struct model {
    engine *engine;
    arena *arena; /* everything below lives in it */
    model_info info;
    decoder decoder;
};

bool model_kind_get(int i, model_kind *out) {
    if (i < 0 || i >= N_ARCHITECTURES) return false;
    const architecture *a = &architectures[i];
    *out = (model_kind){.model_type = a->model_type, .known = a->known, .like = a->like, .tested = a->tested};
    return true;
}

/* mlx-lm utils.py: MODEL_ARCHITECTURE_REMAPPING */
static bool is_by_class(const architecture *a, const json *config, const char *type) {
    const json *classes = json_get(config, "architectures");
    if (!a->also || strcmp(a->also, type)) return false;
    const char *one = json_string(classes);
    if (one) return !strcmp(one, a->class);
    for (const json *item = json_first(classes); item; item = json_next(item))
        if (json_string(item) && !strcmp(json_string(item), a->class)) return true;
    return false;
}

static const architecture *find_architecture(const json *config, const char *name) {
    const char *type = NULL;
    if (json_get_string(config, name, "model_type", true, &type)) return NULL;
    for (int i = 0; i < N_ARCHITECTURES; i++)
        if (is_by_class(&architectures[i], config, type)) return &architectures[i];
    for (int i = 0; i < N_ARCHITECTURES; i++)
        if (!strcmp(type, architectures[i].model_type)) return &architectures[i];
    str known = {0};
    for (int i = 0; i < N_ARCHITECTURES; i++)
        str_printf(&known, "%s%s", i ? ", " : "", architectures[i].model_type);
    fail("%s: model_type \"%s\" is not known; known: %s", name, type, known.data ? known.data : "");
    str_free(&known);
    return NULL;
}

static json *parse(const char *text) {
    return json_parse(text, strlen(text), "the registry");
}

/* A copy of config.json, or of the text model's part of it as mlx-lm's wrapper class hands it
 * on. */
static json *unwrapped(const json *config, const wrapper *w) {
    const json *text = w ? json_get(config, "text_config") : NULL;
    const json *top = text && w->top ? json_get(config, w->top) : NULL;
    char number[96];
    if (top) snprintf(number, sizeof number, "{\"%s\": %.0f}", w->top, json_number(top));
    json *forced = parse(top ? number : text && w->forced ? w->forced : "{}");
    json *defaults = parse(text && w->defaults ? w->defaults : "{}");
    json *first = forced ? json_merged(forced, text ? text : config) : NULL;
    json *all = first && defaults ? json_merged(first, defaults) : NULL;
    json_free(forced), json_free(defaults), json_free(first);
    return all;
}

/* What a layer that reads another's keys and values may have of its own. */
static int ignore_keys(checkpoint *c, const desc *d, int64_t i) {
    const char *const parts[] = {d->names.k, d->names.v, d->names.k_norm};
    char path[160];
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
        snprintf(path, sizeof path, "%s.%lld.%s.", d->names.layers, (long long)i, parts[k]);
        if (checkpoint_ignore(c, path)) return -1;
    }
    return 0;
}

enum { MOST_FURTHER = 8 }; /* layers that predict further tokens */

static int load_from(model *m, checkpoint *c, const architecture *a, const json *config) {
    loader l = {.checkpoint = c,
                .engine = m->engine,
                .arena = m->arena,
                .config = config,
                .name = checkpoint_config_name(c)};
    if (checkpoint_ignore(c, "self_attn.rotary_emb.inv_freq")) return -1;
    if (a->rules && checkpoint_rename(c, a->rules)) return -1;
    if (a->slices && checkpoint_slice(c, a->slices)) return -1;
    decoder_load(&l, a, &m->decoder);
    if (l.failed) return -1;
    for (int64_t i = 0; i < m->decoder.d.n_layers; i++) /* mlx-lm drops these, too */
        if (m->decoder.layers[i].attention.d.reads && ignore_keys(c, &m->decoder.d, i)) return -1;
    const desc *d = &m->decoder.d;
    bool latents = d->layer.latent.kv_rank && !d->layer.latent.expanded;
    const attention_desc *all = &d->layer.attention;
    m->info = (model_info){.model_type = a->model_type,
                           .n_layers = d->halves ? d->n_layers / d->halves : d->n_layers,
                           .hidden_size = d->hidden,
                           .vocab_size = d->vocab,
                           .n_heads = all->n_heads,
                           .n_kv_heads = all->n_kv_heads,
                           .head_dim = all->head_dim,
                           .never_quantized = all->softcap != 0
                                                  ? "attention with soft caps reads plain caches alone"
                                              : latents ? "latent attention reads plain caches alone"
                                                        : NULL,
                           .ignores_kv_bits = d->ignores_kv_bits,
                           .own_caches = d->own_caches};
    if (d->never_quantized) m->info.never_quantized = d->never_quantized;
    for (int64_t i = 0; d->predicts_more && i < MOST_FURTHER; i++) {
        char more[64];
        snprintf(more, sizeof more, "%s.%lld.", d->names.layers, (long long)(d->n_layers + i));
        if (checkpoint_ignore(c, more)) return -1;
    }
    if (d->tied && checkpoint_ignore(c, "lm_head.")) return -1;
    return checkpoint_check_all_used(c);
}

static int load(model *m, checkpoint *c, const architecture *a) {
    json *config = unwrapped(checkpoint_config(c), a->wrapper);
    int status = config ? load_from(m, c, a, config) : -1;
    json_free(config);
    return status;
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

static cache_spec delta_cache(const delta_desc *d, dtype type) {
    if (d->separate) {
        int64_t k = d->n_k_heads * d->k_dim, v = d->n_v_heads * d->v_dim;
        return (cache_spec){.n_states = 4,
                            .states = {{d->kernel - 1, k, type},
                                       {d->kernel - 1, k, type},
                                       {d->kernel - 1, v, type},
                                       {v, d->k_dim, DTYPE_F32}}};
    }
    int64_t features = 2 * d->n_k_heads * d->k_dim + d->n_v_heads * d->v_dim;
    return (cache_spec){
        .n_states = 2,
        .states = {{d->kernel - 1, features, type}, {d->n_v_heads * d->v_dim, d->k_dim, DTYPE_F32}}};
}

/* which: of a layer's caches. i counts the layers of all loops. */
static cache_spec cache_of_layer(const model *m, int64_t i, int which, const cache_options *o) {
    int64_t loop = i / m->decoder.d.n_layers;
    const layer *of = &m->decoder.layers[i % m->decoder.d.n_layers];
    const attention_desc *a = &of->attention.d;
    cache_spec spec = {.n_kv_heads = (int)a->n_kv_heads,
                       .head_dim = (int)a->head_dim,
                       .v_head_dim = (int)a->v_head_dim,
                       .dtype = of->kv_dtype};
    if (of->latent.o) latent_cache(&of->latent.d, which > 0, &spec);
    if (of->ssm.out) {
        if (!of->ssm.d.beside) spec = (cache_spec){0};
        ssm_cache(&of->ssm.d, of->kv_dtype, &spec);
        return spec;
    }
    if (of->lightning.o) {
        const lightning_desc *in = &of->lightning.d;
        return (cache_spec){
            .n_states = 1,
            .states = {{in->n_heads * in->head_dim, in->head_dim, in->f32 ? DTYPE_F32 : of->kv_dtype}}};
    }
    if (of->delta.out) return delta_cache(&of->delta.d, of->kv_dtype);
    if (of->conv.conv) {
        struct cache_state rows = {of->conv.d.kernel - 1, m->info.hidden_size, of->kv_dtype};
        return (cache_spec){.n_states = 1, .states = {rows}};
    }
    if (!m->info.own_caches) spec.window = a->window; /* it masks what a plain cache keeps */
    if (a->chunk) {
        spec.chunk = a->chunk;
    } else if (m->info.own_caches) {
        spec.max_size = loop && m->decoder.d.loop_window ? m->decoder.d.loop_window : a->window;
        if (a->one_more) spec.window = a->window + 1;
    } else if (o->max_kv_size) {
        spec.max_size = o->max_kv_size;
        spec.keep = 4;
    }
    return spec;
}

int model_caches(const model *m, const cache_options *o, cache_spec out[], int max) {
    const decoder *d = &m->decoder;
    int64_t loops = d->d.loops ? d->d.loops : 1;
    int n = 0;
    for (int64_t i = 0; i < loops * d->d.n_layers; i++) {
        if (!d->layers[i % d->d.n_layers].owns_cache) continue;
        int each = d->layers[i % d->d.n_layers].latent.d.topk ? 2 : 1;
        for (int which = 0; which < each; which++, n++)
            if (n < max) out[n] = cache_of_layer(m, i, which, o);
    }
    return n;
}

tensor model_forward(const model *m, graph *g, tensor ids, cache *const caches[]) {
    return decoder_forward(&m->decoder, g, ids, caches);
}
