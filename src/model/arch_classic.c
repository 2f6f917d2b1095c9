/* arch_classic.c - architectures with LayerNorm, most of them before Llama: what each changes.
 * mlx-lm: models/, the file of that name. */
#include "model/decoder.h"

#include <math.h>

/* What they share: norms with biases, an MLP without a gate. */
static void read_classic(loader *l, desc *d, const decoder_keys *keys, const decoder_defaults *defaults) {
    read_decoder_keys(l, d, keys, defaults);
    if (!l->failed) d->layer.attention.head_dim = d->hidden / d->layer.attention.n_heads;
    d->layer_norm = d->norm_bias = true;
    d->layer.ffn.kind = FFN_PLAIN;
    d->layer.ffn.bias = true;
}

/* Biases everywhere. */
void describe_starcoder2(loader *l, desc *d) {
    read_classic(l, d, &(decoder_keys){.eps = "norm_epsilon"},
                 &(decoder_defaults){.vocab = 49152, .eps = 1e-5});
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = a->o_bias = true;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 100000, .plain = true});
    d->layer.ffn.act = ACT_GELU;
    d->names.up = "mlp.c_fc";
    d->names.down = "mlp.c_proj";
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
}

/* Norms weigh with 1 + w; half of a head is rotated. */
void describe_nemotron(loader *l, desc *d) {
    read_classic(l, d, &(decoder_keys){.eps = "norm_eps"}, &(decoder_defaults){0});
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = config_int_or(l, "head_dim", 1, MAX_DIM, a->head_dim);
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    a->rope = read_rope(l, &(rope_wish){.dims = partial_dims(l, d, 0.5), .theta = 10000});
    d->layer.ffn.act = ACT_RELU2;
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", false);
    d->norm_offset = 1;
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
}

/* Attention and MLP side by side; queries in F32. */
void describe_phi(loader *l, desc *d) {
    static const decoder_defaults defaults = {2560, 32, 51200, 32, 32, 0, 10240, 1e-5};
    read_classic(l, d, &(decoder_keys){.eps = "layer_norm_eps"}, &defaults);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = a->o_bias = a->f32 = true;
    a->scale = sqrt(1 / (double)a->head_dim);
    a->rope = read_rope(l, &(rope_wish){.dims = partial_dims(l, d, 0.4), .theta = 10000, .plain = true});
    d->layer.places = PLACES_PARALLEL;
    d->layer.ffn.act = ACT_GELU_TANH;
    d->head_bias = true;
    d->never_quantized = "attention reads plain caches alone";
    d->names.norm = "model.final_layernorm";
    d->names.o = "self_attn.dense";
    d->names.up = "mlp.fc1";
    d->names.down = "mlp.fc2";
}

/* Query, key and value of a head side by side; attention and MLP, too, each on a norm's result. */
void describe_gpt_neox(loader *l, desc *d) {
    read_classic(l, d, &(decoder_keys){.eps = "layer_norm_eps"}, &(decoder_defaults){.width = 1});
    attention_desc *a = &d->layer.attention;
    double part = config_float(l, "rotary_pct");
    int64_t dims = part > 0 && part <= 1 ? (int64_t)(part * (double)a->head_dim) : 0;
    if (!l->failed && (dims < 2 || dims % 2 || dims > a->head_dim))
        config_refuse(l, "rotary_pct", "rotates no even number of a head's features");
    a->n_kv_heads = a->n_heads;
    a->packing = PACKING_GROUPS;
    a->qkv_bias = a->o_bias = true;
    a->rope = l->failed
                  ? NULL
                  : read_rope(l, &(rope_wish){.dims = dims, .theta_key = "rotary_emb_base", .plain = true});
    d->layer.places = config_bool_or(l, "use_parallel_residual", true) ? PLACES_PARALLEL_TWO : PLACES_PRE;
    d->layer.ffn.act = ACT_GELU_TANH;
    d->layer.ffn.width = 4 * d->hidden;
    d->names = (names){.embed = "model.embed_in",
                       .norm = "model.final_layer_norm",
                       .head = "model.embed_out",
                       .layers = "model.h",
                       .qkv = "attention.query_key_value",
                       .o = "attention.dense",
                       .pre = "input_layernorm",
                       .ffn_pre = "post_attention_layernorm",
                       .up = "mlp.dense_h_to_4h",
                       .down = "mlp.dense_4h_to_h"};
}

/* Attention and MLP side by side on the result of one norm; neighbouring features are rotated. */
void describe_gptj(loader *l, desc *d) {
    static const decoder_keys keys = {"n_embd", "n_layer", "n_head", NULL, NULL, "layer_norm_epsilon", NULL};
    static const decoder_defaults defaults = {4096, 28, 50400, 16, 0, 0, 1, 1e-5};
    read_classic(l, d, &keys, &defaults);
    attention_desc *a = &d->layer.attention;
    int64_t otherwise = json_is_null(l->config, "rotary_dim") ? 0 : 64; /* 0: the whole head */
    int64_t dims = config_int_or(l, "rotary_dim", 0, MAX_DIM, otherwise);
    if (!l->failed && (dims % 2 || dims > a->head_dim))
        config_refuse(l, "rotary_dim", "is no even number of a head's features");
    a->n_kv_heads = a->n_heads;
    a->rope = read_rope(l, &(rope_wish){.dims = dims ? dims : a->head_dim,
                                        .theta = 10000,
                                        .theta_key = "",
                                        .traditional = true,
                                        .plain = true});
    d->layer.places = PLACES_PARALLEL;
    d->layer.ffn.act = ACT_GELU_TANH;
    d->layer.ffn.width = 4 * d->hidden;
    d->head_bias = true;
    d->names = (names){.embed = "model.wte",
                       .norm = "model.ln_f",
                       .head = "lm_head",
                       .layers = "model.h",
                       .q = "attn.q_proj",
                       .k = "attn.k_proj",
                       .v = "attn.v_proj",
                       .o = "attn.out_proj",
                       .pre = "ln_1",
                       .up = "mlp.fc_in",
                       .down = "mlp.fc_out"};
}

/* ---- Command R: attention and a gated MLP side by side ---- */

static void read_cohere(loader *l, desc *d, const decoder_defaults *defaults) {
    read_decoder_keys(l, d, &(decoder_keys){.eps = "layer_norm_eps"}, defaults);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    d->layer_norm = true;
    d->norm_bias = config_bool_or(l, "layer_norm_bias", false);
    d->layer.places = PLACES_PARALLEL;
    d->logit_scale = config_float_or(l, "logit_scale", 0.0625);
    d->tied = true;
}

void describe_cohere(loader *l, desc *d) {
    static const decoder_defaults defaults = {8192, 40, 256000, 64, 64, 0, 22528, 1e-5};
    read_cohere(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->rope =
        read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 8000000, .traditional = true, .plain = true});
    if (!config_bool_or(l, "use_qk_norm", false)) return;
    a->qk_norm = QK_ALL_HEADS;
    a->qk_layer_norm = true;
    a->qk_eps = d->eps;
    d->names.q_norm = "self_attn.q_norm.weight";
    d->names.k_norm = "self_attn.k_norm.weight";
}

/* Windows in most layers; the others have no positions. */
void describe_cohere2(loader *l, desc *d) {
    static const decoder_defaults defaults = {4096, 32, 256000, 32, 8, 128, 14336, 1e-5};
    read_cohere(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    a->f32_of_f16 = true;
    a->rope =
        read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 50000, .traditional = true, .plain = true});
    d->own_caches = true;
}

void layer_cohere2(loader *l, const desc *d, int64_t i, layer_desc *out) {
    (void)d;
    int64_t pattern = config_int_or(l, "sliding_window_pattern", 1, MAX_LAYERS, 4);
    if (!l->failed && (i + 1) % pattern == 0)
        out->attention.rope = NULL;
    else
        out->attention.window = config_int_or(l, "sliding_window", 2, INT32_MAX, 4096);
}

/* ---- GPT-2 and its like: positions that are learned ---- */

static const decoder_keys gpt2_keys = {"n_embd", "n_layer", "n_head", NULL, "n_inner", "layer_norm_epsilon",
                                       NULL};

static void read_gpt2(loader *l, desc *d, int64_t width) {
    read_classic(l, d, &gpt2_keys, &(decoder_defaults){.width = width});
    attention_desc *a = &d->layer.attention;
    d->positions = config_int(l, "n_positions", 1, INT32_MAX);
    a->packing = PACKING_ROWS;
    a->n_kv_heads = a->n_heads;
}

static const names gpt2_names = {.embed = "model.wte",
                                 .positions = "model.wpe",
                                 .norm = "model.ln_f",
                                 .head = "lm_head",
                                 .layers = "model.h",
                                 .qkv = "attn.c_attn",
                                 .o = "attn.c_proj",
                                 .pre = "ln_1",
                                 .ffn_pre = "ln_2",
                                 .up = "mlp.c_fc",
                                 .down = "mlp.c_proj"};

/* Names as published, of matrices that are stored as columns. mlx-lm's own begin with "model.". */
static void take_columns(loader *l) {
    static const slice_rule columns[] = {
        {.from = ".attn.c_attn.weight", .to = ".attn.c_attn.weight", .transposed = true},
        {.from = ".attn.c_proj.weight", .to = ".attn.c_proj.weight", .transposed = true},
        {.from = ".mlp.c_fc.weight", .to = ".mlp.c_fc.weight", .transposed = true},
        {.from = ".mlp.c_proj.weight", .to = ".mlp.c_proj.weight", .transposed = true},
        {.from = NULL}};
    static const name_rule rules[] = {{NAME_START, "transformer.", ""},
                                      {NAME_DROP_END, ".attn.bias", NULL},
                                      {NAME_DROP_PART, ".attn.masked_bias", NULL},
                                      {NAME_START, "h.", "model.h."},
                                      {NAME_START, "wte.", "model.wte."},
                                      {NAME_START, "wpe.", "model.wpe."},
                                      {NAME_START, "ln_f.", "model.ln_f."},
                                      {NAME_END, NULL, NULL}};
    bool published = checkpoint_has(l->checkpoint, "h.0.attn.c_attn.weight") ||
                     checkpoint_has(l->checkpoint, "transformer.h.0.attn.c_attn.weight");
    if (l->failed || !published) return;
    l->failed = checkpoint_slice(l->checkpoint, columns) || checkpoint_rename(l->checkpoint, rules);
}

void describe_gpt2(loader *l, desc *d) {
    read_gpt2(l, d, 1);
    d->layer.attention.qkv_bias = d->layer.attention.o_bias = true;
    d->layer.ffn.act = ACT_GELU_TANH;
    d->layer.ffn.width = 4 * d->hidden; /* whatever n_inner says, as in mlx-lm */
    d->tied = true;
    d->names = gpt2_names;
    take_columns(l);
}

/* One head of keys and values for all queries. */
void describe_gpt_bigcode(loader *l, desc *d) {
    read_gpt2(l, d, 0);
    attention_desc *a = &d->layer.attention;
    if (config_bool_or(l, "multi_query", true)) a->n_kv_heads = 1;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", true);
    d->layer.ffn.act = ACT_GELU;
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", true);
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
    d->names = gpt2_names;
    d->names.embed = "transformer.wte";
    d->names.positions = "transformer.wpe";
    d->names.norm = "transformer.ln_f";
    d->names.layers = "transformer.h";
}

/* A LayerNorm for every head; queries and keys in F32. */
void describe_stablelm(loader *l, desc *d) {
    read_classic(l, d, &(decoder_keys){.eps = "layer_norm_eps"}, &(decoder_defaults){0});
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = config_bool(l, "use_qkv_bias");
    a->f32 = true;
    a->scale = sqrt(1 / (double)a->head_dim);
    a->rope = read_rope(l, &(rope_wish){.dims = partial_dims(l, d, 0), .plain = true});
    if (config_bool_or(l, "qk_layernorm", false)) {
        a->qk_norm = QK_ALL_HEADS;
        a->qk_layer_norm = a->qk_each = true;
        a->qk_eps = d->eps;
    }
    d->layer.places = config_bool_or(l, "use_parallel_residual", false) ? PLACES_PARALLEL : PLACES_PRE;
    d->layer.x_first = true;
    d->layer.ffn.kind = FFN_GATED;
    d->layer.ffn.bias = false;
    d->never_quantized = "attention reads plain caches alone";
    d->names.q_norm = "self_attn.q_layernorm.norms";
    d->names.k_norm = "self_attn.k_layernorm.norms";
}
