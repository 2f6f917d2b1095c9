/* arch_mamba.c - architectures with state spaces: what each changes.
 * mlx-lm: models/, the file of that name. */
#include "model/decoder.h"

#include <math.h>
#include <stdio.h>

/* time_step_limit, which config.json may leave out. */
static void read_limits(loader *l, ssm_desc *s, float least, float most) {
    const json *limits = json_get(l->config, "time_step_limit");
    s->dt_min = least;
    s->dt_max = most;
    if (!limits) return;
    const json *low = json_first(limits), *high = low ? json_next(low) : NULL;
    if (!json_is_array(limits) || !json_is_number(low) || !high || !json_is_number(high)) {
        config_refuse(l, "time_step_limit", "is no list of two numbers");
        return;
    }
    s->dt_min = (float)json_number(low);
    s->dt_max = (float)json_number(high);
}

static void check_groups(loader *l, const ssm_desc *s, const char *key) {
    if (!l->failed && s->n_heads % s->n_groups) config_refuse(l, key, "does not divide the number of heads");
}

/* The Mamba 2 papers' models: nothing but state spaces. */
static void name_backbone(desc *d) {
    d->names.embed = "backbone.embeddings";
    d->names.norm = "backbone.norm_f";
    d->names.layers = "backbone.layers";
    d->names.pre = d->names.ffn_pre = "norm";
}

static void read_no_attention(loader *l, desc *d, const char *eps, double eps_otherwise) {
    static const decoder_defaults none = {.n_heads = 1, .n_kv_heads = 1, .head_dim = 2};
    decoder_defaults defaults = none;
    defaults.eps = eps_otherwise;
    read_decoder_keys(l, d, &(decoder_keys){.n_heads = "", .n_kv_heads = "", .eps = eps}, &defaults);
    d->layer.attention = (attention_desc){0};
    d->layer.ffn.kind = FFN_NONE;
    d->own_caches = true;
    name_backbone(d);
}

void describe_mamba2(loader *l, desc *d) {
    read_no_attention(l, d, "layer_norm_epsilon", 0);
    ssm_desc *s = &d->layer.ssm;
    *s = (ssm_desc){.module = "mixer",
                    .n_heads = config_int(l, "num_heads", 1, MAX_HEADS),
                    .head_dim = config_int(l, "head_dim", 1, MAX_DIM),
                    .n_groups = config_int(l, "n_groups", 1, MAX_HEADS),
                    .kernel = config_int(l, "conv_kernel", 2, 16),
                    .conv_bias = config_bool(l, "use_conv_bias"),
                    .norm = SSM_GATED_NORM,
                    .eps = d->eps};
    const char *size = json_get(l->config, "ssm_state_size") ? "ssm_state_size" : "state_size";
    s->state_dim = config_int(l, size, 1, MAX_DIM);
    s->in_bias = s->out_bias = config_bool(l, "use_bias");
    read_limits(l, s, 0, INFINITY);
    check_groups(l, s, "n_groups");
    d->layer.eps = 1e-5f; /* of nn.RMSNorm; the mixer's and the last norm's are config.json's */
    d->tied = config_bool(l, "tie_word_embeddings");
}

/* A number, or "auto": a sixteenth of hidden_size. */
static int64_t read_rank(loader *l, const desc *d, const char *key) {
    const char *text = json_string(json_get(l->config, key));
    if (text && !strcmp(text, "auto")) return (d->hidden + 15) / 16;
    return config_int(l, key, 1, MAX_DIM);
}

/* Mamba-1, and Falcon Mamba, whose B, C and dt are divided by their sizes. */
void describe_mamba(loader *l, desc *d) {
    const char *type = json_string(json_get(l->config, "model_type"));
    bool falcon = type && !strcmp(type, "falcon_mamba");
    read_no_attention(l, d, "", 1e-5);
    ssm_desc *s = &d->layer.ssm;
    *s = (ssm_desc){.module = "mixer",
                    .n_heads = config_int(l, "intermediate_size", 1, MAX_DIM),
                    .head_dim = 1,
                    .n_groups = 1,
                    .state_dim = config_int(l, "state_size", 1, MAX_DIM),
                    .kernel = config_int(l, "conv_kernel", 2, 16),
                    .dt_rank = read_rank(l, d, "time_step_rank"),
                    .conv_bias = config_bool(l, "use_conv_bias"),
                    .dt_max = INFINITY,
                    .part_norms = falcon || config_bool_or(l, "use_bcdt_rms", false),
                    .weightless_norms = true,
                    .eps = (float)config_float_or(l, "mixer_rms_eps", 1e-6)};
    s->in_bias = s->out_bias = config_bool(l, "use_bias");
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
}

/* Mamba-1 with norms, attention without positions in some layers, experts in some. */
void describe_jamba(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    ssm_desc *s = &d->layer.ssm;
    bool ranked = json_get(l->config, "mamba_dt_rank");
    *s = (ssm_desc){.module = "mamba",
                    .n_heads = config_int(l, "mamba_expand", 1, 64) * d->hidden,
                    .head_dim = 1,
                    .n_groups = 1,
                    .state_dim = config_int(l, "mamba_d_state", 1, MAX_DIM),
                    .kernel = config_int(l, "mamba_d_conv", 2, 16),
                    .dt_rank = ranked ? read_rank(l, d, "mamba_dt_rank") : (d->hidden + 15) / 16,
                    .conv_bias = config_bool_or(l, "mamba_conv_bias", true),
                    .dt_max = INFINITY,
                    .part_norms = true,
                    .eps = d->eps};
    s->in_bias = s->out_bias = config_bool_or(l, "mamba_proj_bias", false);
    e->n = config_int(l, "num_experts", 0, 65536);
    e->width = d->layer.ffn.width;
    e->route =
        (route_spec){.k = (int)config_int(l, "num_experts_per_tok", 1, 65536), .score = SCORE_TOP_SOFTMAX};
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
    d->own_caches = true;
    d->names.norm = "model.final_layernorm";
    d->names.ffn_pre = "pre_ff_layernorm";
    d->names.gate = "feed_forward.gate_proj";
    d->names.up = "feed_forward.up_proj";
    d->names.down = "feed_forward.down_proj";
    d->names.router = "feed_forward.router";
    d->names.experts = "feed_forward.switch_mlp";
}

void layer_jamba(loader *l, const desc *d, int64_t i, layer_desc *out) {
    const char *type = json_string(config_per_layer(l, "layers_block_type", i, d->n_layers));
    bool attends = type && !strcmp(type, "attention");
    if (!type) {
        int64_t period = config_int(l, "attn_layer_period", 1, MAX_LAYERS);
        int64_t offset = config_int(l, "attn_layer_offset", 0, MAX_LAYERS);
        attends = !l->failed && i % period == offset;
    }
    if (attends) out->ssm.n_heads = 0;
    if (out->ffn.moe.n < 2) return;
    int64_t period = config_int(l, "expert_layer_period", 1, MAX_LAYERS);
    int64_t offset = config_int(l, "expert_layer_offset", 0, MAX_LAYERS);
    if (l->failed || (i + offset) % period) return;
    out->ffn.kind = FFN_EXPERTS;
    if (out->ffn.moe.route.k > out->ffn.moe.n)
        config_refuse(l, "num_experts_per_tok", "is more than num_experts");
}

/* PLaMo 2: state spaces and attention in turn, norms on all sides with offsets of their own. */
void describe_plamo2(loader *l, desc *d) {
    static const decoder_defaults defaults = {4096, 32, 32000, 32, 4, 0, 13312, 1e-6};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    a->head_dim = config_int_or(l, "hidden_size_per_head", 2, MAX_DIM, 128);
    a->packing = PACKING_ROWS;
    a->qk_norm = QK_ALL_HEADS;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 10000, .theta_key = "", .plain = true});
    d->layer.ffn.fused = true;
    d->layer.places = PLACES_SANDWICH;
    d->norm_offset = 1;
    d->post_offset = 1.0 / 5;
    d->ffn_post_offset = 1.0 / pow(5, 1.5);
    d->layer.ssm = (ssm_desc){.module = "mixer",
                              .n_heads = config_int_or(l, "mamba_num_heads", 1, MAX_HEADS, 64),
                              .head_dim = a->head_dim,
                              .n_groups = 1,
                              .state_dim = config_int_or(l, "mamba_d_state", 1, MAX_DIM, 64),
                              .kernel = config_int_or(l, "mamba_d_conv", 2, 16, 4),
                              .by_head = true,
                              .dt_rank = d->hidden / 16 > 64 ? d->hidden / 16 : 64,
                              .dt_min = 0.001f,
                              .dt_max = 100,
                              .part_norms = true,
                              .eps = d->eps};
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
    d->own_caches = true;
    d->never_quantized = "attention reads plain caches alone";
    d->names.layers = "model.layers.layers";
    d->names.qkv = "mixer.qkv_proj";
    d->names.o = "mixer.o_proj";
    d->names.q_norm = "mixer.q_weight";
    d->names.k_norm = "mixer.k_weight";
    d->names.pre = "pre_mixer_norm";
    d->names.post = "post_mixer_norm";
    d->names.ffn_pre = "pre_mlp_norm";
    d->names.ffn_post = "post_mlp_norm";
}

void layer_plamo2(loader *l, const desc *d, int64_t i, layer_desc *out) {
    int64_t step = config_int_or(l, "mamba_step", 2, MAX_LAYERS, 2);
    bool attends = d->n_layers <= step / 2 ? i == d->n_layers - 1 : !l->failed && i % step == step / 2;
    if (attends || !config_bool_or(l, "mamba_enabled", true)) out->ssm.n_heads = 0;
}

/* ---- Nemotron: a layer is a state space, attention, an MLP or experts, each alone with its norm
 * ---- */

/* What the list of types calls layers, and its sign in the pattern. */
static char sign_of(const char *type) {
    static const struct {
        const char *type;
        char sign;
    } signs[] = {{"full_attention", '*'},
                 {"attention", '*'},
                 {"linear_attention", 'M'},
                 {"mamba", 'M'},
                 {"conv", 'M'},
                 {"moe", 'E'},
                 {"mlp", '-'}};
    for (size_t i = 0; type && i < sizeof signs / sizeof *signs; i++)
        if (!strcmp(type, signs[i].type)) return signs[i].sign;
    return type && strlen(type) == 1 ? *type : 0;
}

static const json *pattern_of(const loader *l) {
    static const char *const keys[] = {"hybrid_override_pattern", "layers_block_type", "layer_types"};
    for (int i = 0; i < 3; i++)
        if (json_get(l->config, keys[i])) return json_get(l->config, keys[i]);
    return NULL;
}

/* The sign of layer i; 0 when there is none. */
static char layer_sign(const loader *l, int64_t i) {
    const json *pattern = pattern_of(l);
    const char *text = json_string(pattern);
    if (text) return i < (int64_t)strlen(text) ? text[i] : 0;
    const json *item = json_first(pattern);
    while (item && i-- > 0) item = json_next(item);
    return item ? sign_of(json_string(item)) : 0;
}

static void read_nemotron_experts(loader *l, desc *d) {
    ffn_desc *f = &d->layer.ffn;
    moe_desc *e = &f->moe;
    e->n = config_int(l, "n_routed_experts", 1, 65536);
    e->width = config_int(l, "moe_intermediate_size", 1, MAX_DIM);
    e->latent = config_int_or(l, "moe_latent_size", 1, MAX_DIM, 0);
    if (json_get(l->config, "n_shared_experts"))
        e->shared = config_int_or(l, "moe_shared_expert_intermediate_size", 1, MAX_DIM, f->width);
    e->ungated = e->bias = true;
    e->route = (route_spec){.k = (int)config_int(l, "num_experts_per_tok", 1, 65536),
                            .score = SCORE_SIGMOID,
                            .n_group = (int)config_int(l, "n_group", 1, 65536),
                            .topk_group = (int)config_int(l, "topk_group", 1, 65536),
                            .eps = 1e-20f,
                            .scale = (float)config_float(l, "routed_scaling_factor")};
    e->route.renormalize = config_bool_or(l, "norm_topk_prob", false) && e->route.k > 1;
    if (e->route.k > e->n) config_refuse(l, "num_experts_per_tok", "is more than n_routed_experts");
}

void describe_nemotron_h(loader *l, desc *d) {
    static const decoder_defaults defaults = {.n_layers = 1};
    read_decoder_keys(l, d, &(decoder_keys){.eps = "layer_norm_epsilon"}, &defaults);
    const json *pattern = pattern_of(l);
    const char *text = json_string(pattern);
    if (!pattern) config_refuse(l, "hybrid_override_pattern", "is missing, and so is layers_block_type");
    d->n_layers = text ? (int64_t)strlen(text) : json_length(pattern);
    if (d->n_layers > MAX_LAYERS) config_refuse(l, "hybrid_override_pattern", "is too long");
    d->layer.attention.qkv_bias = d->layer.attention.o_bias = config_bool(l, "attention_bias");
    ssm_desc *s = &d->layer.ssm;
    *s = (ssm_desc){.module = "mixer",
                    .n_heads = config_int(l, "mamba_num_heads", 1, MAX_HEADS),
                    .head_dim = config_int(l, "mamba_head_dim", 1, MAX_DIM),
                    .n_groups = config_int(l, "n_groups", 1, MAX_HEADS),
                    .state_dim = config_int(l, "ssm_state_size", 1, MAX_DIM),
                    .kernel = config_int(l, "conv_kernel", 2, 16),
                    .conv_bias = config_bool(l, "use_conv_bias"),
                    .norm = SSM_GATED_GROUPS,
                    .narrow_D = true,
                    .eps = d->eps};
    s->in_bias = s->out_bias = config_bool(l, "mamba_proj_bias");
    read_limits(l, s, 0, INFINITY);
    check_groups(l, s, "n_groups");
    d->layer.ffn.act = ACT_RELU2;
    d->layer.ffn.bias = config_bool(l, "mlp_bias");
    for (int64_t i = 0; i < d->n_layers && !d->layer.ffn.moe.n && !l->failed; i++)
        if (layer_sign(l, i) == 'E') read_nemotron_experts(l, d);
    d->own_caches = true;
    name_backbone(d);
    d->names.q = "mixer.q_proj";
    d->names.k = "mixer.k_proj";
    d->names.v = "mixer.v_proj";
    d->names.o = "mixer.o_proj";
    d->names.up = "mixer.up_proj";
    d->names.down = "mixer.down_proj";
    d->names.router = "mixer.gate";
    d->names.router_bias = "mixer.gate.e_score_correction_bias";
    d->names.experts = "mixer.switch_mlp";
    d->names.shared = "mixer.shared_experts";
    d->names.latent_in = "mixer.fc1_latent_proj";
    d->names.latent_out = "mixer.fc2_latent_proj";
}

void layer_nemotron_h(loader *l, const desc *d, int64_t i, layer_desc *out) {
    (void)d;
    char sign = layer_sign(l, i);
    if (!sign || !strchr("M*-E", sign))
        config_refuse(l, "hybrid_override_pattern", "has a layer that is none of M, *, - and E");
    if (sign != 'M') out->ssm.n_heads = 0;
    out->only_ffn = sign == '-' || sign == 'E';
    out->ffn.kind = sign == '-' ? FFN_PLAIN : sign == 'E' ? FFN_EXPERTS : FFN_NONE;
}

/* ---- Granite 4: state spaces in most layers, experts beside an MLP for all tokens, or an MLP
 * ---- */

static void read_granite_ffn(loader *l, desc *d) {
    ffn_desc *f = &d->layer.ffn;
    moe_desc *e = &f->moe;
    e->n = config_int_or(l, "num_local_experts", 0, 65536, 0);
    if (!e->n) {
        f->bias = config_bool_or(l, "mlp_bias", false);
        f->fused = checkpoint_has(l->checkpoint, "model.layers.0.shared_mlp.input_linear.weight");
        if (!f->fused) return;
    } else {
        f->kind = FFN_EXPERTS;
        e->width = f->width;
        e->shared = config_int(l, "shared_intermediate_size", 1, MAX_DIM);
        e->shared_fused = true;
        e->route = (route_spec){.k = (int)config_int(l, "num_experts_per_tok", 1, 65536),
                                .score = SCORE_TOP_SOFTMAX,
                                .last = true};
        if (e->route.k > e->n) config_refuse(l, "num_experts_per_tok", "is more than num_local_experts");
    }
    d->names.gate_up = "shared_mlp.input_linear";
    d->names.down = "shared_mlp.output_linear";
    d->names.router = "block_sparse_moe.router.layer";
    d->names.experts = "block_sparse_moe.switch_mlp";
}

void describe_granitemoehybrid(loader *l, desc *d) {
    describe_granite(l, d);
    const char *positions = json_string(json_get(l->config, "position_embedding_type"));
    const json *parameters = json_get(l->config, "rope_parameters"); /* it wins here */
    attention_desc *a = &d->layer.attention;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 10000,
                                        .theta_key = json_get(parameters, "rope_theta") ? "" : NULL,
                                        .plain = true,
                                        .nested = true});
    if (positions && !strcmp(positions, "nope")) a->rope = NULL;
    d->layer.ffn.bias = false;
    read_granite_ffn(l, d);
    d->own_caches = true;
}

void layer_granitemoehybrid(loader *l, const desc *d, int64_t i, layer_desc *out) {
    const char *type = json_string(config_per_layer(l, "layer_types", i, d->n_layers));
    if (!type || (strcmp(type, "mamba") && strcmp(type, "attention")))
        config_refuse(l, "layer_types", "has a layer that is neither mamba nor attention");
    if (l->failed || !strcmp(type, "attention")) return;
    ssm_desc *s = &out->ssm;
    *s = (ssm_desc){.module = "mamba",
                    .n_heads = config_int(l, "mamba_n_heads", 1, MAX_HEADS),
                    .head_dim = config_int(l, "mamba_d_head", 1, MAX_DIM),
                    .n_groups = config_int(l, "mamba_n_groups", 1, MAX_HEADS),
                    .state_dim = config_int(l, "mamba_d_state", 1, MAX_DIM),
                    .kernel = config_int(l, "mamba_d_conv", 2, 16),
                    .conv_bias = config_bool_or(l, "mamba_conv_bias", false),
                    .norm = SSM_GATED_NORM,
                    .narrow_D = true,
                    .eps = d->eps};
    s->in_bias = s->out_bias = config_bool_or(l, "mamba_proj_bias", false);
    read_limits(l, s, 0.001f, 100);
    check_groups(l, s, "mamba_n_groups");
}

/* ---- Falcon-H1: attention and a state space beside each other in every layer ---- */

static double number_at(loader *l, const char *key, int i, double otherwise) {
    const json *list = json_get(l->config, key), *item = json_first(list);
    while (item && i-- > 0) item = json_next(item);
    if (list && !json_is_number(item)) config_refuse(l, key, "is a list with too few numbers");
    return list ? json_number(item) : otherwise;
}

static void multiply(loader *l, const char *prefix, const char *name, const row_factor *factors, int n) {
    char path[128];
    snprintf(path, sizeof path, "%s%s.weight", prefix, name);
    if (!l->failed) l->failed = checkpoint_multiply_rows(l->checkpoint, path, factors, n) < 0;
}

/* The gate, x, B, C and dt have factors of their own. */
static void multiply_in(loader *l, const desc *d, const char *prefix) {
    static const double otherwise[] = {0.3535533905932738, 0.25, 0.3535533905932738, 0.5, 0.3535533905932738};
    const ssm_desc *s = &d->layer.ssm;
    int64_t width = s->n_heads * s->head_dim, n = s->n_groups * s->state_dim;
    int64_t rows[] = {width, width, n, n, s->n_heads};
    row_factor factors[5];
    for (int i = 0; i < 5; i++)
        factors[i] = (row_factor){rows[i], config_float_or(l, "ssm_in_multiplier", 1.25),
                                  number_at(l, "ssm_multipliers", i, otherwise[i])};
    multiply(l, prefix, "mamba.in_proj", factors, 5);
}

/* A published checkpoint, whose convolutions lie the other way, has none of the factors in its
 * matrices. */
static void fold_factors(loader *l, const desc *d) {
    const attention_desc *a = &d->layer.attention;
    const ssm_desc *s = &d->layer.ssm;
    int64_t q = a->n_heads * a->head_dim, k = a->n_kv_heads * a->head_dim, width = d->layer.ffn.width;
    const int64_t published[] = {s->n_heads * s->head_dim + 2 * s->n_groups * s->state_dim, 1, s->kernel};
    if (l->failed || !checkpoint_has_shape(l->checkpoint, "model.layers.0.mamba.conv1d.weight", 3, published))
        return;
    double in = config_float_or(l, "attention_in_multiplier", 1);
    double embed = config_float_or(l, "embedding_multiplier", 5.656854249492381);
    double head = config_float_or(l, "lm_head_multiplier", 0.0390625);
    const struct {
        const char *name;
        row_factor by;
    } all[] = {
        {"self_attn.q_proj", {q, in, 1}},
        {"self_attn.k_proj", {k, in, 1}},
        {"self_attn.o_proj", {d->hidden, config_float_or(l, "attention_out_multiplier", 0.9375), 1}},
        {"mamba.out_proj", {d->hidden, config_float_or(l, "ssm_out_multiplier", 0.23570226039551587), 1}},
        {d->names.gate, {width, number_at(l, "mlp_multipliers", 0, 0.8838834764831844), 1}},
        {d->names.down, {d->hidden, number_at(l, "mlp_multipliers", 1, 0.5859375), 1}}};
    multiply(l, "", d->names.embed, &(row_factor){d->vocab, embed, 1}, 1);
    multiply(l, "", d->names.head, &(row_factor){d->vocab, head, 1}, 1);
    for (int64_t i = 0; i < d->n_layers && !l->failed; i++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "%s.%lld.", d->names.layers, (long long)i);
        for (size_t j = 0; j < sizeof all / sizeof *all; j++) multiply(l, prefix, all[j].name, &all[j].by, 1);
        multiply_in(l, d, prefix);
    }
}

void describe_falcon_h1(loader *l, desc *d) {
    static const decoder_defaults defaults = {1024, 36, 32784, 8, 2, 64, 2048, 1e-5};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 1e11,
                                        .traditional = config_bool_or(l, "rope_traditional", false)});
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", false);
    ssm_desc *s = &d->layer.ssm;
    bool normed = config_bool_or(l, "mamba_rms_norm", false);
    bool first = config_bool_or(l, "mamba_norm_before_gate", false);
    *s = (ssm_desc){.module = "mamba",
                    .n_heads = config_int_or(l, "mamba_n_heads", 1, MAX_HEADS, 24),
                    .head_dim = config_int_or(l, "mamba_d_head", 1, MAX_DIM, 64),
                    .n_groups = config_int_or(l, "mamba_n_groups", 1, MAX_HEADS, 1),
                    .state_dim = config_int_or(l, "mamba_d_state", 1, MAX_DIM, 128),
                    .kernel = config_int_or(l, "mamba_d_conv", 2, 16, 4),
                    .in_bias = config_bool_or(l, "mamba_proj_bias", false),
                    .conv_bias = config_bool_or(l, "mamba_conv_bias", true),
                    .out_bias = config_bool_or(l, "projectors_bias", false),
                    .norm = !normed ? SSM_GATED
                            : first ? SSM_NORM_GATED
                                    : SSM_GATED_NORM,
                    .beside = true,
                    .dt_max = INFINITY,
                    .eps = d->eps};
    check_groups(l, s, "mamba_n_groups");
    if (!l->failed && config_int_or(l, "mamba_d_ssm", 1, MAX_DIM, 1536) != s->n_heads * s->head_dim)
        config_refuse(l, "mamba_d_ssm", "is not mamba_n_heads times mamba_d_head");
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
    if (d->tied)
        d->logit_scale = config_float_or(l, "lm_head_multiplier", 0.0390625) /
                         config_float_or(l, "embedding_multiplier", 5.656854249492381);
    d->own_caches = true;
    d->names.norm = "model.final_layernorm";
    d->names.ffn_pre = "pre_ff_layernorm";
    d->names.gate = "feed_forward.gate_proj";
    d->names.up = "feed_forward.up_proj";
    d->names.down = "feed_forward.down_proj";
    fold_factors(l, d);
}
