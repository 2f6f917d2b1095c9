/* arch_dense.c - dense architectures whose norms or names are others than Llama's: what each
 * changes. mlx-lm: models/, the file of that name. */
#include "model/decoder.h"

#include <math.h>

/* Norms only after attention and feed-forward, and over the whole width of query and key. */
void describe_olmo2(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", false);
    a->qk_norm = QK_WIDTH;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 10000,
                                        .traditional = config_bool_or(l, "rope_traditional", false)});
    d->layer.places = PLACES_POST;
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
}

/* Olmo 2's block; three of four layers see a window, and only the others have a scaled rope. */
void describe_olmo3(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = config_bool_or(l, "attention_bias", false);
    a->o_bias = a->qkv_bias;
    a->qk_norm = QK_WIDTH;
    d->layer.places = PLACES_POST;
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    d->own_caches = true;
}

void layer_olmo3(loader *l, const desc *d, int64_t i, layer_desc *out) {
    attention_desc *a = &out->attention;
    bool sliding = is_sliding(l, d, i, (i + 1) % 4 != 0);
    if (sliding) a->window = config_int(l, "sliding_window", 2, INT32_MAX);
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .plain = sliding});
}

/* Llama with the names of GPT-2. */
void describe_exaone(loader *l, desc *d) {
    static const decoder_keys keys = {.n_layers = "num_layers", .eps = "layer_norm_epsilon"};
    read_decoder_keys(l, d, &keys, &(decoder_defaults){0});
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", false);
    a->rope = read_rope(
        l, &(rope_wish){.dims = a->head_dim, .traditional = config_bool_or(l, "rope_traditional", false)});
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
    d->names = (names){.embed = "transformer.wte",
                       .norm = "transformer.ln_f",
                       .head = "lm_head",
                       .layers = "transformer.h",
                       .q = "attn.attention.q_proj",
                       .k = "attn.attention.k_proj",
                       .v = "attn.attention.v_proj",
                       .o = "attn.attention.out_proj",
                       .pre = "ln_1",
                       .ffn_pre = "ln_2",
                       .gate = "mlp.c_fc_0",
                       .up = "mlp.c_fc_1",
                       .down = "mlp.c_proj"};
}

/* Norms after attention and feed-forward; a pattern of local layers, which see a window, and global
 * ones, which have no positions. */
void describe_exaone4(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qk_norm = QK_HEADS;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim});
    d->layer.places = PLACES_POST;
    d->tied = config_bool(l, "tie_word_embeddings");
    d->own_caches = true;
}

void layer_exaone4(loader *l, const desc *d, int64_t i, layer_desc *out) {
    const char *pattern = json_string(json_get(l->config, "sliding_window_pattern"));
    if (!pattern || !*pattern) return; /* all layers see everything, with positions */
    if (is_sliding(l, d, i, pattern[(size_t)i % strlen(pattern)] == 'L'))
        out->attention.window = config_int(l, "sliding_window", 2, INT32_MAX);
    else
        out->attention.rope = NULL;
}

/* Norms on query and key after rope, whose base grows with "alpha". */
void describe_hunyuan_v1_dense(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    a->qk_norm = config_bool_or(l, "use_qk_norm", true) ? QK_AFTER_ROPE : QK_NONE;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 10000, .alpha = true});
    d->names.q_norm = "self_attn.query_layernorm";
    d->names.k_norm = "self_attn.key_layernorm";
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
}

/* One matrix for query, key and value, one for gate and up; part of a head is rotated, and the
 * context that longrope stretches stands beside it. */
void describe_phi3(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->packing = PACKING_ROWS;
    d->layer.ffn.fused = true;
    a->rope = read_rope(l, &(rope_wish){.dims = partial_dims(l, d, 1),
                                        .theta = 10000,
                                        .traditional = config_bool_or(l, "rope_traditional", false),
                                        .phi3 = true});
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
}

/* One matrix for gate and up; neighbouring features are rotated together. */
void describe_glm(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = config_bool_or(l, "attention_bias", false);
    d->layer.ffn.fused = true;
    a->rope =
        read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 10000, .traditional = true, .plain = true});
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
}

/* GLM with norms on both sides; half of a head is rotated. */
void describe_glm4(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = config_bool(l, "attention_bias");
    d->layer.ffn.fused = true;
    a->rope = read_rope(l, &(rope_wish){.dims = partial_dims(l, d, 0),
                                        .traditional = config_bool_or(l, "rope_traditional", true),
                                        .plain = true});
    d->layer.places = PLACES_SANDWICH;
    d->names.post = "post_self_attn_layernorm";
    d->names.ffn_post = "post_mlp_layernorm";
}

/* Llama with four multipliers. */
void describe_granite(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->qkv_bias = a->o_bias = config_bool(l, "attention_bias");
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", false);
    a->scale = config_float(l, "attention_multiplier");
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim});
    d->embed_scale = config_float(l, "embedding_multiplier");
    d->layer.residual = config_float(l, "residual_multiplier");
    d->logit_divide = config_float(l, "logits_scaling");
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
}

/* Llama with scales that depend on its depth and width. mlx-lm does not load it with tied
 * embeddings. */
void describe_minicpm(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 1000000,
                                        .traditional = config_bool_or(l, "rope_traditional", false)});
    d->embed_scale = config_float(l, "scale_emb");
    d->layer.residual = config_float(l, "scale_depth") / sqrt((double)d->n_layers);
    d->head_divide = (double)d->hidden / (double)config_int(l, "dim_model_base", 1, MAX_DIM);
    if (config_bool_or(l, "tie_word_embeddings", false))
        config_refuse(l, "tie_word_embeddings", "tied embeddings are not supported, as in mlx-lm");
    d->tied = !checkpoint_is_synthetic(l->checkpoint) && !checkpoint_has(l->checkpoint, "lm_head.weight");
}

/* Llama with names of its own, and one matrix for query, key and value, by KV head. */
void describe_internlm2(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->packing = PACKING_GROUPS;
    a->qkv_bias = a->o_bias = config_bool_or(l, "bias", true);
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 10000,
                                        .traditional = config_bool_or(l, "rope_traditional", false)});
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    d->names = (names){.embed = "model.tok_embeddings",
                       .norm = "model.norm",
                       .head = "output",
                       .layers = "model.layers",
                       .qkv = "attention.wqkv",
                       .o = "attention.wo",
                       .pre = "attention_norm",
                       .ffn_pre = "ffn_norm",
                       .gate = "feed_forward.w1",
                       .up = "feed_forward.w3",
                       .down = "feed_forward.w2"};
}

/* Llama with the norms inside attention and feed-forward, and a width that follows from
 * hidden_size. */
void describe_lille(loader *l, desc *d) {
    static const decoder_keys keys = {"n_embd", "n_layer", "n_head", "n_kv_heads", .eps = "layer_norm_eps"};
    read_decoder_keys(l, d, &keys, &(decoder_defaults){.width = 1});
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    d->layer.ffn.width = 256 * (int64_t)rint((double)(8 * d->hidden / 3) / 256);
    a->packing = PACKING_ROWS;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .traditional = true, .plain = true});
    d->tied = true;
    d->names = (names){.embed = "transformer.tok_embeddings",
                       .norm = "transformer.norm",
                       .layers = "transformer.layers",
                       .qkv = "attention.qkv_proj",
                       .o = "attention.out_proj",
                       .pre = "attention.norm",
                       .ffn_pre = "feed_forward.norm",
                       .gate = "feed_forward.gate_proj",
                       .up = "feed_forward.up_proj",
                       .down = "feed_forward.down_proj"};
}

/* The first Qwen: one matrix for query, key and value, with a bias; half of intermediate_size. */
void describe_qwen(loader *l, desc *d) {
    static const decoder_keys keys = {.eps = "layer_norm_epsilon"};
    static const decoder_defaults defaults = {2048, 24, 151936, 16, 0, 0, 11008, 1e-6};
    read_decoder_keys(l, d, &keys, &defaults);
    attention_desc *a = &d->layer.attention;
    bool bias = !config_bool_or(l, "no_bias", true);
    if (l->failed) return;
    a->head_dim = config_int_or(l, "kv_channels", 2, MAX_DIM, 128);
    if (a->head_dim * a->n_heads != d->hidden)
        config_refuse(l, "kv_channels", "is not hidden_size / num_attention_heads");
    d->layer.ffn.width /= 2;
    a->n_kv_heads = a->n_heads;
    a->packing = PACKING_ROWS;
    a->qkv_bias = true;
    a->o_bias = d->layer.ffn.bias = d->head_bias = bias;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .theta_key = "", .theta = 10000, .plain = true});
    d->names = (names){.embed = "transformer.wte",
                       .norm = "transformer.ln_f",
                       .head = "lm_head",
                       .layers = "transformer.h",
                       .qkv = "attn.c_attn",
                       .o = "attn.c_proj",
                       .pre = "ln_1",
                       .ffn_pre = "ln_2",
                       .gate = "mlp.w2",
                       .up = "mlp.w1",
                       .down = "mlp.c_proj"};
}

/* Heads and widths of each layer's own; one matrix for query, key and value, one for gate and
 * up. */
void describe_openelm(loader *l, desc *d) {
    d->hidden = config_int(l, "model_dim", 1, MAX_DIM);
    d->n_layers = config_int(l, "num_transformer_layers", 1, MAX_LAYERS);
    d->vocab = config_int(l, "vocab_size", 1, MAX_VOCAB);
    d->eps = (float)config_float_or(l, "rms_norm_eps", 1e-6);
    attention_desc *a = &d->layer.attention;
    a->head_dim = config_int(l, "head_dim", 2, MAX_DIM);
    a->n_heads = a->n_kv_heads = 1; /* layer_openelm has them */
    a->packing = PACKING_ROWS;
    a->qk_norm = config_bool_or(l, "normalize_qk_projections", true) ? QK_HEADS : QK_NONE;
    a->rope = read_rope(
        l,
        &(rope_wish){.dims = a->head_dim, .theta_key = "rope_freq_constant", .theta = 10000, .plain = true});
    d->layer.ffn.fused = true;
    d->tied = config_bool_or(l, "share_input_output_layers", true);
    d->names = (names){.embed = "transformer.token_embeddings",
                       .norm = "transformer.norm",
                       .head = "lm_head",
                       .layers = "transformer.layers",
                       .qkv = "attn.qkv_proj",
                       .o = "attn.out_proj",
                       .q_norm = "attn.q_norm",
                       .k_norm = "attn.k_norm",
                       .pre = "attn_norm",
                       .ffn_pre = "ffn_norm",
                       .gate_up = "ffn.proj_1",
                       .down = "ffn.proj_2"};
}

static double per_layer_number(loader *l, const char *key, int64_t i, int64_t n_layers, double max) {
    const json *item = config_per_layer(l, key, i, n_layers);
    double value = json_number(item);
    if (!l->failed && !(value > 0 && value <= max))
        config_refuse(l, key, "has no such number for every layer");
    return l->failed ? 1 : value;
}

void layer_openelm(loader *l, const desc *d, int64_t i, layer_desc *out) {
    int64_t divisor = config_int(l, "ffn_dim_divisor", 1, MAX_DIM);
    out->attention.n_heads = (int64_t)per_layer_number(l, "num_query_heads", i, d->n_layers, MAX_HEADS);
    out->attention.n_kv_heads = (int64_t)per_layer_number(l, "num_kv_heads", i, d->n_layers, MAX_HEADS);
    double width = per_layer_number(l, "ffn_multipliers", i, d->n_layers, 1024) * (double)d->hidden;
    if (l->failed) return;
    int64_t rounded = (int64_t)(width + (double)divisor / 2) / divisor * divisor; /* make_divisible */
    if (rounded < divisor) rounded = divisor;
    if ((double)rounded < 0.9 * width) rounded += divisor;
    out->ffn.width = rounded;
}

/* Norms without weights everywhere, on the embedding, too; an MLP of relu^2; rope turns the other
 * way. */
void describe_nanochat(loader *l, desc *d) {
    static const decoder_defaults defaults = {1280, 20, 65536, 10, 10, 0, 5120, 1e-5};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    d->eps = 1e-5f;
    d->norm_weightless = d->embed_norm = true;
    a->qk_norm = QK_AFTER_ROPE;
    a->qk_weightless = true;
    a->rope =
        read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 10000, .plain = true, .negative = true});
    d->layer.ffn.kind = FFN_PLAIN;
    d->layer.ffn.act = ACT_RELU2;
    d->logit_cap = 15;
    d->names = (names){.embed = "transformer.wte",
                       .head = "lm_head",
                       .layers = "transformer.h",
                       .q = "attn.c_q",
                       .k = "attn.c_k",
                       .v = "attn.c_v",
                       .o = "attn.c_proj",
                       .up = "mlp.c_fc",
                       .down = "mlp.c_proj"};
}

/* Norms by other names, and an MLP with an activation of its own. */
void describe_apertus(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->qk_norm = QK_HEADS;
    a->rope = read_rope(
        l, &(rope_wish){.dims = a->head_dim, .traditional = config_bool_or(l, "rope_traditional", false)});
    d->layer.ffn.kind = FFN_PLAIN;
    d->layer.ffn.xielu = true;
    d->layer.ffn.bias = config_bool(l, "mlp_bias");
    d->tied = config_bool(l, "tie_word_embeddings");
    d->names.pre = "attention_layernorm";
    d->names.ffn_pre = "feedforward_layernorm";
}

/* PLaMo 2's norms without its state spaces; windows in most layers, with a rope of their own. */
void describe_plamo3(loader *l, desc *d) {
    static const decoder_defaults defaults = {4096, 32, 32000, 32, 4, 128, 13312, 1e-6};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    a->packing = PACKING_ROWS;
    a->qk_norm = QK_HEADS;
    d->layer.ffn.fused = true;
    d->layer.places = PLACES_SANDWICH;
    d->norm_offset = 1;
    d->post_offset = 1.0 / 5;
    d->ffn_post_offset = 1.0 / pow(5, 1.5);
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
    d->own_caches = true;
    d->names.layers = "model.layers.layers";
    d->names.qkv = "mixer.qkv_proj";
    d->names.o = "mixer.o_proj";
    d->names.q_norm = "mixer.q_norm";
    d->names.k_norm = "mixer.k_norm";
    d->names.pre = "pre_mixer_norm";
    d->names.post = "post_mixer_norm";
    d->names.ffn_pre = "pre_mlp_norm";
    d->names.ffn_post = "post_mlp_norm";
}

void layer_plamo3(loader *l, const desc *d, int64_t i, layer_desc *out) {
    (void)d;
    attention_desc *a = &out->attention;
    int64_t pattern = config_int_or(l, "sliding_window_pattern", 1, MAX_LAYERS, 8);
    int64_t window = config_int_or(l, "window_size", 2, INT32_MAX, 2048);
    if (l->failed) return;
    if ((i + 1) % pattern == 0) {
        a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 1000000, .plain = true});
        return;
    }
    a->rope = read_rope(
        l, &(rope_wish){.dims = a->head_dim, .theta_key = "rope_local_theta", .theta = 10000, .plain = true});
    a->window = config_int_or(l, "sliding_window", 2, INT32_MAX, window);
    a->one_more = true;
}
