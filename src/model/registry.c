/* registry.c - the known architectures, and the calls every model answers.
 * Adding an architecture: a function that describes it, and one line here. */
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

/* mlx-lm utils.py: MODEL_REMAPPING has the names that are others' classes. */
static const architecture architectures[] = {
    {"llama", "Llama 2 and 3, SmolLM2, Yi", .describe = describe_llama, .layer = layer_llama},
    {"mistral", "Mistral 7B, Mistral Nemo", "llama", .describe = describe_llama, .layer = layer_llama},
    {"iquestcoder", "IQuest-Coder", "llama", .describe = describe_llama, .layer = layer_llama},
    {"xverse", "XVERSE", "llama", .describe = describe_llama, .layer = layer_llama},
    {"qwen2", "Qwen2, Qwen2.5", .describe = describe_qwen2},
    {"qwen2_vl", "Qwen2-VL", .describe = describe_qwen2, .rules = vision_rules, .wrapper = &plain_wrapper},
    {"qwen2_5_vl", "Qwen2.5-VL", "qwen2_vl", .describe = describe_qwen2, .rules = vision_rules,
     .wrapper = &plain_wrapper},
    {"qwen3", "Qwen3", .describe = describe_qwen3},
    {"qwen3_vl", "Qwen3-VL", .describe = describe_qwen3, .rules = vision_rules, .wrapper = &plain_wrapper},
    {"qwen3_moe", "Qwen3-30B-A3B, Qwen3-Coder", .describe = describe_qwen3_moe, .layer = layer_qwen3_moe},
    {"gemma3_text", "Gemma 3 1B, 270M", .describe = describe_gemma3, .layer = layer_gemma3},
    {"gemma3", "Gemma 3 4B, 12B, 27B", .describe = describe_gemma3, .layer = layer_gemma3,
     .rules = vision_rules, .wrapper = &gemma3_wrapper},
    {"smollm3", "SmolLM3", .describe = describe_smollm3, .layer = layer_smollm3},
    {"olmo2", "OLMo 2", .describe = describe_olmo2},
    {"olmo3", "OLMo 3", .describe = describe_olmo3, .layer = layer_olmo3},
    {"seed_oss", "Seed-OSS", .describe = describe_seed_oss},
    {"ernie4_5", "ERNIE 4.5 0.3B", .describe = describe_ernie4_5},
    {"exaone", "EXAONE 3.5", .describe = describe_exaone},
    {"exaone4", "EXAONE 4.0", .describe = describe_exaone4, .layer = layer_exaone4},
    {"helium", "Helium 1", .describe = describe_helium},
    {"hunyuan_v1_dense", "Hunyuan 0.5B to 7B", .describe = describe_hunyuan_v1_dense},
    {"internlm3", "InternLM3", .describe = describe_internlm3, .rules = internlm_rules},
    {"llama4_text", "MobileLLM-Pro", .describe = describe_llama4_text, .layer = layer_llama4_text},
    {"mellum", "Mellum 2", .describe = describe_mellum, .layer = layer_mellum},
    {"mimo", "MiMo 7B", .describe = describe_mimo, .rules = mimo_rules},
    {"nanbeige", "Nanbeige", .describe = describe_nanbeige},
    {"pixtral", "Pixtral 12B", .describe = describe_pixtral, .layer = layer_llama, .rules = vision_rules,
     .wrapper = &pixtral_wrapper},
    {"phi3", "Phi-3, Phi-3.5, Phi-4", .describe = describe_phi3},
    {"glm", "GLM-4 9B", .describe = describe_glm},
    {"glm4", "GLM-4-0414", .describe = describe_glm4},
    {"glm4_moe", "GLM-4.5, 4.6, 4.7", .describe = describe_glm4_moe, .layer = layer_deepseek},
    {"solar_open", "Solar Open 100B", .describe = describe_glm4_moe, .layer = layer_deepseek},
    {"gemma", "Gemma 2B, 7B", .describe = describe_gemma},
    {"granite", "Granite 3.0 to 3.3", .describe = describe_granite},
    {"granitemoe", "Granite 3.0 1B-A400M, 3B-A800M", .describe = describe_granitemoe,
     .slices = granite_slices},
    {"minicpm", "MiniCPM 2B", .describe = describe_minicpm},
    {"internlm2", "InternLM 2, 2.5", .describe = describe_internlm2, .rules = internlm_rules},
    {"lille-130m", "Lille 130M", .describe = describe_lille, .rules = lille_rules},
    {"qwen", "Qwen 1.8B to 72B", .describe = describe_qwen},
    {"openelm", "OpenELM", .describe = describe_openelm, .layer = layer_openelm},
    {"nanochat", "nanochat d20, d32", .describe = describe_nanochat},
    {"ministral3", "Ministral 3 text", .describe = describe_ministral3, .layer = layer_llama},
    {"mistral3", "Mistral Small 3.1 to 4, Ministral 3", .describe = describe_mistral3,
     .layer = layer_mistral3, .rules = vision_rules, .slices = qwen3_5_slices, .wrapper = &mistral3_wrapper},
    {"llava", "LLaVA on Mistral", "mistral3", .describe = describe_mistral3, .layer = layer_mistral3,
     .rules = vision_rules, .wrapper = &mistral3_wrapper},
    {"mixtral", "Mixtral 8x7B, 8x22B", .describe = describe_mixtral, .rules = mixtral_rules},
    {"qwen2_moe", "Qwen1.5-MoE, Qwen2-57B-A14B", .describe = describe_qwen2_moe},
    {"olmoe", "OLMoE 1B-7B", .describe = describe_olmoe},
    {"deepseek", "DeepSeek-MoE 16B", .describe = describe_deepseek, .layer = layer_deepseek},
    {"dots1", "dots.llm1", .describe = describe_dots1, .layer = layer_deepseek},
    {"exaone_moe", "K-EXAONE", .describe = describe_exaone_moe, .layer = layer_exaone_moe,
     .rules = exaone_moe_rules},
    {"minimax", "MiniMax M2, M2.1", .describe = describe_minimax, .rules = mixtral_rules},
    {"minimax_m2", "MiniMax M2, M2.1", "minimax", .describe = describe_minimax, .rules = mixtral_rules},
    {"gpt_oss", "gpt-oss 20B, 120B", .describe = describe_gpt_oss, .layer = layer_gpt_oss,
     .slices = gpt_oss_slices},
    {"gemma2", "Gemma 2 2B, 9B, 27B", .describe = describe_gemma2},
    {"gemma3n", "Gemma 3n E2B, E4B", .describe = describe_gemma3n, .layer = layer_gemma3n,
     .rules = vision_rules, .wrapper = &plain_wrapper},
    {"gemma4_text", "Gemma 4 text", .describe = describe_gemma4, .layer = layer_gemma4, .rules = gemma4_rules,
     .slices = gemma4_slices},
    {"gemma4", "Gemma 4 E2B, E4B, 26B-A4B, 31B", .describe = describe_gemma4, .layer = layer_gemma4,
     .rules = gemma4_rules, .slices = gemma4_slices, .wrapper = &gemma4_wrapper},
    {"gemma4_unified", "Gemma 4", "gemma4", .describe = describe_gemma4, .layer = layer_gemma4,
     .rules = gemma4_rules, .slices = gemma4_slices, .wrapper = &gemma4_wrapper},
    {"lfm2", "LFM2 350M to 2.6B", .describe = describe_lfm2, .layer = layer_lfm2},
    {"lfm2_moe", "LFM2 8B-A1B", .describe = describe_lfm2_moe, .layer = layer_lfm2_moe,
     .rules = lfm2_moe_rules},
    {"lfm2-vl", "LFM2-VL", .describe = describe_lfm2, .layer = layer_lfm2, .rules = vision_rules,
     .wrapper = &plain_wrapper},
    {"ernie4_5_moe", "ERNIE 4.5 21B-A3B", .describe = describe_ernie4_5_moe, .layer = layer_ernie4_5_moe,
     .rules = ernie_rules},
    {"bailing_moe", "Ling lite, plus, mini 2.0", .describe = describe_bailing_moe, .layer = layer_deepseek,
     .rules = bailing_rules},
    {"afmoe", "Trinity Nano, Mini", .describe = describe_afmoe, .layer = layer_afmoe},
    {"qwen3_vl_moe", "Qwen3-VL-30B-A3B", .describe = describe_qwen3_moe, .layer = layer_qwen3_moe,
     .rules = vision_rules, .slices = qwen3_vl_slices, .wrapper = &plain_wrapper},
    {"qwen3_next", "Qwen3-Next 80B-A3B", .describe = describe_qwen3_next, .layer = layer_qwen3_next,
     .rules = mtp_rules},
    {"qwen3_5", "Qwen3.5", .describe = describe_qwen3_5, .layer = layer_qwen3_5, .rules = vision_rules,
     .wrapper = &plain_wrapper},
    {"qwen3_5_moe", "Qwen3.5-35B-A3B, 122B-A10B", .describe = describe_qwen3_5, .layer = layer_qwen3_5,
     .rules = vision_rules, .slices = qwen3_5_slices, .wrapper = &plain_wrapper},
    {"deepseek_v3", "DeepSeek-V3, R1, V3.1", .describe = describe_deepseek_v3, .layer = layer_deepseek},
    {"kimi_k2", "Kimi K2", "deepseek_v3", .describe = describe_deepseek_v3, .layer = layer_deepseek},
    {"joyai_llm_flash", "JoyAI-LLM Flash", "deepseek_v3", .describe = describe_deepseek_v3,
     .layer = layer_deepseek},
    {"kimi_k25", "Kimi K2.5", .describe = describe_deepseek_v3, .layer = layer_deepseek, .rules = kimi_rules,
     .wrapper = &plain_wrapper},
    {"kimi_vl", "Kimi-VL A3B", .describe = describe_deepseek_v3, .layer = layer_deepseek, .rules = kimi_rules,
     .wrapper = &plain_wrapper},
    {"glm4_moe_lite", "GLM-4.7 Flash", .describe = describe_glm4_moe_lite, .layer = layer_glm4_moe_lite},
    {"deepseek_v2", "DeepSeek-V2, V2-Lite, Coder-V2", .describe = describe_deepseek_v2,
     .layer = layer_deepseek},
    {"mistral4", "Mistral Small 4", .describe = describe_mistral4, .layer = layer_deepseek,
     .slices = qwen3_5_slices},
    {"deepseek_v32", "DeepSeek-V3.2", .describe = describe_deepseek_v32, .layer = layer_deepseek},
    {"glm_moe_dsa", "GLM-5", .describe = describe_glm_moe_dsa, .layer = layer_deepseek},
    {"minicpm3", "MiniCPM3 4B", .describe = describe_minicpm3},
    {"youtu_llm", "Youtu-LLM 2B", .describe = describe_youtu_llm},
    {"olmo_hybrid", "OLMo Hybrid", .describe = describe_olmo_hybrid, .layer = layer_olmo_hybrid},
    {"hunyuan", "Hunyuan A13B, Large", .describe = describe_hunyuan, .layer = layer_hunyuan},
    {"step3p5", "Step 3.5 Flash", .describe = describe_step3p5, .layer = layer_step3p5, .rules = step_rules},
    {"spark2_5", "Spark 2.5", .describe = describe_spark2_5, .layer = layer_spark2_5, .rules = spark_rules},
    {"muse_glimmer", "Muse Glimmer", .describe = describe_muse_glimmer, .layer = layer_muse_glimmer,
     .rules = muse_rules, .wrapper = &plain_wrapper},
    {"laguna", "Laguna XS", .describe = describe_laguna, .layer = layer_laguna, .rules = laguna_rules},
    {"mimo_v2_flash", "MiMo-V2-Flash", .describe = describe_mimo_v2_flash, .layer = layer_mimo_v2_flash,
     .rules = mimo_v2_rules},
    {"longcat_flash", "LongCat-Flash", .describe = describe_longcat_flash, .layer = layer_longcat_flash,
     .rules = longcat_rules},
    {"talkie", "Talkie 13B", .describe = describe_talkie, .rules = talkie_rules},
    {"nemotron_h", "Nemotron-H, Nemotron Nano 2 and 3", .describe = describe_nemotron_h,
     .layer = layer_nemotron_h, .rules = nemotron_h_rules},
    {"granitemoehybrid", "Granite 4.0", .describe = describe_granitemoehybrid,
     .layer = layer_granitemoehybrid, .slices = granite_slices},
    {"falcon_h1", "Falcon-H1", .describe = describe_falcon_h1},
    {"mamba2", "Mamba-2, Codestral Mamba", .describe = describe_mamba2},
    {"mamba", "Mamba 130M to 2.8B", .describe = describe_mamba},
    {"falcon_mamba", "Falcon Mamba 7B", .describe = describe_mamba},
    {"jamba", "Jamba 1.5, Jamba Reasoning 3B", .describe = describe_jamba, .layer = layer_jamba},
    {"plamo2", "PLaMo 2 1B, 8B", .describe = describe_plamo2, .layer = layer_plamo2},
    {"telechat3", "TeleChat3", .describe = describe_telechat3},
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
    *out = (model_kind){.model_type = a->model_type, .known = a->known, .like = a->like};
    return true;
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
    if (a->wrapper && checkpoint_module_prefix(c, "language_model.")) return -1;
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

/* which: of a layer's caches. */
static cache_spec cache_of_layer(const model *m, int64_t i, int which, const cache_options *o) {
    const layer *of = &m->decoder.layers[i];
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
    if (of->delta.out) return delta_cache(&of->delta.d, of->kv_dtype);
    if (of->conv.conv) {
        struct cache_state rows = {of->conv.d.kernel - 1, m->info.hidden_size, of->kv_dtype};
        return (cache_spec){.n_states = 1, .states = {rows}};
    }
    if (!m->info.own_caches) spec.window = a->window; /* it masks what a plain cache keeps */
    if (m->info.own_caches) {
        spec.max_size = a->window;
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
            if (n < max) out[n] = cache_of_layer(m, i % d->d.n_layers, which, o);
    }
    return n;
}

tensor model_forward(const model *m, graph *g, tensor ids, cache *const caches[]) {
    return decoder_forward(&m->decoder, g, ids, caches);
}
