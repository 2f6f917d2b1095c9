/* gemma4.c - what Gemma 4's layers have that no other architecture has: an input of their own from
 * an embedding of all layers, and an MLP beside the experts. mlx-lm models/gemma4_text.py:
 * DecoderLayer, Router, _get_per_layer_inputs, _project_per_layer_inputs. */
#include "model/decoder.h"

#include <math.h>

/* ---- an MLP and experts beside each other ---- */

void load_both(loader *l, const desc *d, const layer_desc *in, layer *out) {
    float root = (float)pow((double)d->hidden, -0.5);
    out->router_norm = load_scaled_vector(l, d->hidden, root, "router.scale");
    out->ffn.d.moe.route.expert_scale = load_vector(l, in->ffn.moe.n, "router.per_expert_scale");
    out->mlp_post = load_norm(l, d->hidden, 0, "post_feedforward_layernorm_1");
    out->experts_pre = load_norm(l, d->hidden, 0, "pre_feedforward_layernorm_2");
    out->experts_post = load_norm(l, d->hidden, 0, "post_feedforward_layernorm_2");
}

tensor run_both(graph *g, const layer *l, tensor h) {
    const ffn *f = &l->ffn;
    float eps = l->eps;
    tensor dense = run_mlp(g, &f->mlp, f->d.act, rms_norm(g, h, l->ffn_pre, eps));
    tensor logits = linear(g, rms_norm(g, h, l->router_norm, eps), f->router);
    tensor routing = route(g, logits, &f->d.moe.route);
    tensor x = rms_norm(g, h, l->experts_pre, eps);
    tensor sparse = experts(g, x, routing, f->d.act, f->gate, f->up, f->down);
    return add(g, rms_norm(g, dense, l->mlp_post, eps), rms_norm(g, sparse, l->experts_post, eps));
}

/* ---- the layers' own inputs ---- */

void load_layer_inputs(loader *l, decoder *m) {
    const desc *d = &m->d;
    int64_t all = d->n_layers * d->layer_inputs;
    linear_shape rows = {d->layer_inputs_vocab, all, false}, wide = {all, d->hidden, false};
    m->layer_embed = load_linear(l, rows, "model.embed_tokens_per_layer");
    m->layer_projection = load_linear(l, wide, "model.per_layer_model_projection");
    m->layer_norm = load_norm(l, d->layer_inputs, 0, "model.per_layer_projection_norm");
}

void load_layer_input(loader *l, const desc *d, layer *out) {
    int64_t n = d->layer_inputs;
    out->input_gate = load_linear(l, (linear_shape){n, d->hidden, false}, "per_layer_input_gate");
    out->input_projection = load_linear(l, (linear_shape){d->hidden, n, false}, "per_layer_projection");
    out->input_norm = load_norm(l, d->hidden, 0, "post_per_layer_input_norm");
}

/* x: the embedding, scaled. */
tensor layer_inputs(graph *g, const decoder *m, tensor ids, tensor x) {
    const desc *d = &m->d;
    tensor own = d->altup.n ? embed_or_first(g, ids, m->layer_embed) : embed(g, ids, m->layer_embed);
    own = scale(g, own, (float)sqrt((double)d->layer_inputs));
    tensor projected = scale(g, linear(g, x, m->layer_projection), (float)pow((double)d->hidden, -0.5));
    projected = flatten(g, rms_norm(g, heads(g, projected, (int)d->n_layers), m->layer_norm, d->eps));
    return scale(g, add(g, projected, own), (float)sqrt(0.5));
}

tensor layer_input(graph *g, const layer *l, tensor h, tensor input) {
    tensor gate = product(g, activate(g, ACT_GELU_TANH, linear(g, h, l->input_gate)), input);
    return rms_norm(g, linear(g, gate, l->input_projection), l->input_norm, l->eps);
}

/* ---- the description ---- */

/* Windows in most layers; the others have larger heads, and part of them is rotated. The last
 * layers read the keys and values of earlier ones. Norms on both sides weigh with w; each layer's
 * result has a factor of its own. */
void describe_gemma4(loader *l, desc *d) {
    static const decoder_defaults defaults = {1536, 35, 262144, 8, 1, 256, 6144, 1e-6};
    read_decoder_or(l, d, &defaults);
    attention_desc *a = &d->layer.attention;
    moe_desc *e = &d->layer.ffn.moe;
    a->scale = 1;
    a->qk_norm = QK_HEADS;
    a->v_norm = true;
    d->layer.places = PLACES_SANDWICH;
    d->names.ffn_pre = "pre_feedforward_layernorm";
    d->layer.ffn.act = ACT_GELU_TANH;
    d->layer.scalar = true;
    d->layer_inputs = config_int_or(l, "hidden_size_per_layer_input", 0, MAX_DIM, 256);
    d->layer_inputs_vocab = config_int_or(l, "vocab_size_per_layer_input", 1, MAX_VOCAB, 262144);
    d->embed_scale = sqrt((double)d->hidden);
    d->logit_cap = config_float_or(l, "final_logit_softcapping", 30);
    d->tied = config_bool_or(l, "tie_word_embeddings", true);
    d->own_caches = true;
    if (!config_bool_or(l, "enable_moe_block", false)) return;
    d->layer.ffn.kind = FFN_BOTH;
    e->n = config_int(l, "num_experts", 1, 65536);
    e->width = config_int(l, "moe_intermediate_size", 1, MAX_DIM);
    e->route = (route_spec){.k = (int)config_int(l, "top_k_experts", 1, 65536),
                            .score = SCORE_TOP_SOFTMAX,
                            .imprecise = true,
                            .last = true};
    if (e->route.k > e->n) config_refuse(l, "top_k_experts", "is more than num_experts");
    d->names.router = "router.proj";
    d->names.experts = "experts.switch_glu";
}

static bool slides(loader *l, const desc *d, int64_t i) {
    int64_t pattern = config_int_or(l, "sliding_window_pattern", 1, MAX_LAYERS, 5);
    return is_sliding(l, d, i, !l->failed && (i + 1) % pattern != 0);
}

int64_t find_keys(loader *l, const desc *d, int64_t i, int64_t first) {
    bool sliding = slides(l, d, i);
    for (int64_t j = first - 1; j >= 0; j--)
        if (slides(l, d, j) == sliding) return j + 1;
    config_refuse(l, "num_kv_shared_layers", "leaves no layer whose keys could be read");
    return 0;
}

void layer_gemma4(loader *l, const desc *d, int64_t i, layer_desc *out) {
    attention_desc *a = &out->attention;
    bool sliding = slides(l, d, i);
    int64_t first = d->n_layers - config_int_or(l, "num_kv_shared_layers", 0, MAX_LAYERS, 20);
    if (sliding) {
        a->window = config_int_or(l, "sliding_window", 2, INT32_MAX, 512);
    } else {
        a->head_dim = config_int_or(l, "global_head_dim", 2, MAX_DIM, 512);
        a->k_is_v = config_bool_or(l, "attention_k_eq_v", false);
        if (a->k_is_v)
            a->n_kv_heads = config_int_or(l, "num_global_key_value_heads", 1, MAX_HEADS, a->n_kv_heads);
    }
    if (l->failed) return;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta_key = "",
                                        .theta = sliding ? 10000 : 1000000,
                                        .layer_type = sliding ? "sliding_attention" : "full_attention",
                                        .traditional = config_bool_or(l, "rope_traditional", false),
                                        .proportional = sliding ? 0 : 0.25});
    if (first <= 0 || i < first) return;
    a->reads = find_keys(l, d, i, first);
    if (config_bool_or(l, "use_double_wide_mlp", true)) out->ffn.width *= 2;
}
