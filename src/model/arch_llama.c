/* arch_llama.c - architectures that are Llama with little else: what each changes.
 * h = x + attention(norm(x)); out = h + mlp(norm(h)). mlx-lm: models/, the file of that name. */
#include "model/decoder.h"

/* Biases if asked for; some layers may see a window. */
void describe_llama(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = a->o_bias = config_bool_or(l, "attention_bias", false);
    d->layer.ffn.bias = config_bool_or(l, "mlp_bias", false);
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 10000,
                                        .traditional = config_bool_or(l, "rope_traditional", false)});
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
    d->own_caches = true;
}

void layer_llama(loader *l, const desc *d, int64_t i, layer_desc *out) {
    if (is_sliding(l, d, i, false)) out->attention.window = config_int(l, "sliding_window", 2, INT32_MAX);
}

/* Biases on query, key and value; head_dim is always hidden_size / heads. */
void describe_qwen2(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->qkv_bias = true;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 1000000,
                                        .traditional = config_bool_or(l, "rope_traditional", false)});
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
}

/* A norm on each query and key head. */
void describe_qwen3(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qk_norm = QK_HEADS;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .nested = true});
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
}

/* Two fields for the biases. */
void describe_seed_oss(loader *l, desc *d) {
    describe_llama(l, d);
    d->layer.attention.o_bias = config_bool_or(l, "attention_out_bias", false);
    d->own_caches = false;
}

void layer_mistral3(loader *l, const desc *d, int64_t i, layer_desc *out) {
    (d->layer.latent.kv_rank ? layer_deepseek : layer_llama)(l, d, i, out);
}

/* Biases on query, key and value; layers that only predict further tokens are left out. */
void describe_mimo(loader *l, desc *d) {
    describe_qwen2(l, d);
    attention_desc *a = &d->layer.attention;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 10000,
                                        .traditional = config_bool_or(l, "rope_traditional", false)});
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
}

/* Neighbouring features are rotated together; one field for all biases. */
void describe_ernie4_5(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    a->qkv_bias = a->o_bias = d->layer.ffn.bias = config_bool(l, "use_bias");
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .traditional = true, .plain = true});
    d->tied = config_bool(l, "tie_word_embeddings");
}

/* Neighbouring features are rotated together; no bias on the output; head_dim is always hidden_size
 * / heads.
 */
void describe_helium(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->qkv_bias = config_bool(l, "attention_bias");
    d->layer.ffn.bias = config_bool(l, "mlp_bias");
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .traditional = true, .plain = true});
    d->tied = config_bool(l, "tie_word_embeddings");
}

/* Biases by other names. */
void describe_internlm3(loader *l, desc *d) {
    read_decoder(l, d);
    attention_desc *a = &d->layer.attention;
    if (!l->failed) a->head_dim = d->hidden / a->n_heads;
    a->qkv_bias = a->o_bias = config_bool_or(l, "qkv_bias", false);
    d->layer.ffn.bias = config_bool_or(l, "bias", false);
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta = 10000,
                                        .traditional = config_bool_or(l, "rope_traditional", false)});
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
}

void describe_telechat3(loader *l, desc *d) {
    describe_llama(l, d);
    attention_desc *a = &d->layer.attention;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim});
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    d->own_caches = false;
}

/* Every fourth layer has no positions. mlx-lm's class lacks make_cache, so a window would mask a
 * plain cache.
 */
void describe_smollm3(loader *l, desc *d) {
    describe_llama(l, d);
    d->own_caches = false;
}

void layer_smollm3(loader *l, const desc *d, int64_t i, layer_desc *out) {
    const json *use_rope = config_per_layer(l, "no_rope_layers", i, d->n_layers);
    int64_t interval = config_int_or(l, "no_rope_layer_interval", 1, MAX_LAYERS, 4);
    if (l->failed) return;
    if (use_rope ? json_number(use_rope) == 0 : (i + 1) % interval == 0) out->attention.rope = NULL;
    layer_llama(l, d, i, out);
}

/* All layers run several times over, each time with caches of their own. */
void describe_nanbeige(loader *l, desc *d) {
    static const char *const refused[] = {"enable_double_loop_split", "loop_share_kv",
                                          "enable_depth_attention"};
    describe_llama(l, d);
    attention_desc *a = &d->layer.attention;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .theta = 10000});
    const json *weights = json_get(l->config, "loop_loss_weights");
    d->loops = json_length(weights) ? json_length(weights) + 1 : config_int_or(l, "num_loops", 1, 64, 1);
    d->loop_norm = !config_bool_or(l, "skip_loop_final_norm", false);
    d->tied = config_bool_or(l, "tie_word_embeddings", false);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (config_bool_or(l, refused[i], false)) config_refuse(l, refused[i], "is not supported");
}

/* Llama without caches of its own. */
void describe_pixtral(loader *l, desc *d) {
    describe_llama(l, d);
    d->own_caches = false;
}

/* Llama with a squared ReLU, and norms before what leaves attention and MLP. */
void describe_bitnet(loader *l, desc *d) {
    describe_llama(l, d);
    d->layer.attention.out_norm = d->layer.ffn.out_norm = true;
    d->layer.ffn.act = ACT_RELU2;
    d->own_caches = false;
}

/* Published weights are E4M3 numbers, whose codes mlx-lm multiplies with the scales as if they were
 * numbers.
 */
static void note_fp8(loader *l) {
    if (l->failed || !checkpoint_has(l->checkpoint, "model.layers.0.self_attn.q_proj.weight_scale_inv"))
        return;
    l->failed =
        checkpoint_add_note(l->checkpoint, "fp8 weights are read as the numbers that they are; mlx-lm 0.32.2 "
                                           "takes their codes for numbers in this architecture") < 0;
}

/* Llama whose queries grow with the position; rope_parameters has all that rope needs. */
void describe_ministral3(loader *l, desc *d) {
    read_decoder(l, d);
    note_fp8(l);
    attention_desc *a = &d->layer.attention;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim, .nested = true});
    a->temperature = (position_scale){
        .beta = (float)config_float_in(l, "rope_parameters", "llama_4_scaling_beta"),
        .n = (float)config_float_in(l, "rope_parameters", "original_max_position_embeddings")};
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
    d->own_caches = true;
}

/* A wrapper of several text models, without make_cache: a window would mask a plain cache. */
void describe_mistral3(loader *l, desc *d) {
    const char *type = json_string(json_get(l->config, "model_type"));
    if (type && !strcmp(type, "mistral4"))
        describe_mistral4(l, d);
    else if (type && !strcmp(type, "ministral3"))
        describe_ministral3(l, d);
    else
        describe_llama(l, d);
    d->own_caches = false;
}
