/* gemma3n.c - Gemma 3n: four streams of the text go through the layers, of which each computes on
 * one and predicts and corrects the others (AltUp); beside attention stands a small learned detour
 * (Laurel); gates below a cutoff count as nothing. mlx-lm models/gemma3n.py. */
#include "model/decoder.h"

#include <math.h>
#include <stdio.h>

enum { MOST_STREAMS = 64 };

/* ---- loading ---- */

void load_streams(loader *l, decoder *m) {
    const desc *d = &m->d;
    linear_shape square = {d->hidden, d->hidden, false};
    char name[64];
    size_t n = (size_t)d->altup.n - 1;
    m->stream_in = load_alloc(l, n, sizeof *m->stream_in);
    m->stream_out = load_alloc(l, n, sizeof *m->stream_out);
    for (size_t i = 0; i < n && !l->failed; i++) {
        snprintf(name, sizeof name, "model.altup_projections.%zu", i);
        m->stream_in[i] = load_linear(l, square, name);
        snprintf(name, sizeof name, "model.altup_unembed_projections.%zu", i);
        m->stream_out[i] = load_linear(l, square, name);
    }
}

void load_altup(loader *l, const desc *d, altup *out) {
    const altup_desc *a = &d->altup;
    out->d = *a;
    out->router_norm = load_norm(l, d->hidden, 0, "altup.router_norm");
    out->router = load_linear(l, (linear_shape){a->n, d->hidden, false}, "altup.modality_router");
    out->predict =
        load_clipped(l, (linear_shape){a->n * a->n, a->n, false}, a->coef_clip, "altup.prediction_coefs");
    out->correct = load_clipped(l, (linear_shape){a->n, a->n, false}, a->coef_clip, "altup.correction_coefs");
    out->scale = load_vector(l, d->hidden, "altup.correct_output_scale");
    out->left = load_linear(l, (linear_shape){a->laurel_rank, d->hidden, false}, "laurel.linear_left");
    out->right = load_linear(l, (linear_shape){d->hidden, a->laurel_rank, false}, "laurel.linear_right");
    out->laurel_norm = load_norm(l, d->hidden, 0, "laurel.post_laurel_norm");
}

/* ---- running ---- */

static tensor stream(graph *g, const altup_desc *d, tensor x, int64_t i) {
    int64_t width = tensor_dim(x, 1) / d->n;
    return part(g, x, i * width, width);
}

tensor begin_streams(graph *g, const decoder *m, tensor x) {
    tensor all = x;
    for (int64_t i = 1; i < m->d.altup.n; i++)
        all = concat(g, all, rescale(g, linear(g, x, m->stream_in[i - 1]), x));
    return all;
}

/* The mean of all streams. */
tensor end_streams(graph *g, const decoder *m, tensor x) {
    const altup_desc *d = &m->d.altup;
    tensor first = stream(g, d, x, 0), all = first;
    for (int64_t i = 1; i < d->n; i++)
        all = concat(g, all, rescale(g, linear(g, stream(g, d, x, i), m->stream_out[i - 1]), first));
    return mean_of_streams(g, all, (int)d->n);
}

/* What x says of how much the streams have to do with each other. */
static tensor coefficients(graph *g, const layer *l, tensor x, const weight *w) {
    const altup *a = &l->altup;
    tensor in = scale(g, rms_norm(g, x, a->router_norm, l->eps), 1 / (float)tensor_dim(x, 1));
    return linear(g, activate(g, ACT_TANH, as_f32(g, linear(g, in, a->router))), w);
}

static tensor run_sparse_mlp(graph *g, const ffn *f, tensor x) {
    const mlp *m = &f->mlp;
    tensor gate, up;
    if (!f->d.sparse) return run_ffn(g, f, x);
    linears(g, x, 2, (const weight *const[]){m->gate, m->up}, (tensor *const[]){&gate, &up});
    return linear(g, product(g, gelu_above(g, gate, f->d.deviations), up), m->down);
}

tensor run_altup_layer(graph *g, const layer *l, tensor x, tensor input, cache *c) {
    const altup *a = &l->altup;
    int64_t active = a->d.active;
    tensor projected[2];
    tensor predicted = predict_streams(g, x, coefficients(g, l, stream(g, &a->d, x, active), a->predict));
    tensor h = stream(g, &a->d, predicted, active);
    tensor in = rms_norm(g, h, l->pre, l->eps);
    tensor detour = linear(g, linear(g, in, a->left), a->right);
    detour = add(g, in, rms_norm(g, detour, a->laurel_norm, l->eps));
    tensor attended = run_attention(g, &l->attention, in, l->eps, c, projected);
    h = add(g, h, rms_norm(g, attended, l->post, l->eps));
    h = scale(g, add(g, h, detour), (float)sqrt(0.5));
    tensor fed = run_sparse_mlp(g, &l->ffn, rms_norm(g, h, l->ffn_pre, l->eps));
    h = add(g, h, rms_norm(g, fed, l->ffn_post, l->eps));
    x = correct_streams(g, predicted, h, coefficients(g, l, h, a->correct), (int)active);
    tensor first = stream(g, &a->d, x, active);
    if (a->d.correct_scale) first = product_weight(g, first, a->scale);
    return add_to_streams(g, x, layer_input(g, l, first, input));
}

/* ---- the description ---- */

/* Attention and norms are Gemma 4's, and so are the layers' own inputs. */
void describe_gemma3n(loader *l, desc *d) {
    static const decoder_keys keys = {.width = ""}; /* a number, or one for each layer */
    read_decoder_keys(l, d, &keys, &(decoder_defaults){.width = 1});
    attention_desc *a = &d->layer.attention;
    a->scale = 1;
    a->qk_norm = QK_HEADS;
    a->v_norm = true;
    d->layer.places = PLACES_SANDWICH;
    d->names.ffn_pre = "pre_feedforward_layernorm";
    d->layer.ffn.act = ACT_GELU_TANH;
    d->layer_inputs = config_int(l, "hidden_size_per_layer_input", 1, MAX_DIM);
    d->layer_inputs_vocab = config_int(l, "vocab_size_per_layer_input", 1, MAX_VOCAB);
    d->altup = (altup_desc){.n = config_int(l, "altup_num_inputs", 2, MOST_STREAMS),
                            .active = config_int(l, "altup_active_idx", 0, MOST_STREAMS - 1),
                            .coef_clip = config_float_or(l, "altup_coef_clip", 0),
                            .correct_scale = config_bool(l, "altup_correct_scale"),
                            .laurel_rank = config_int(l, "laurel_rank", 1, MAX_DIM)};
    if (d->altup.active >= d->altup.n) config_refuse(l, "altup_active_idx", "is not below altup_num_inputs");
    if (!json_get(l->config, "layer_types")) config_refuse(l, "layer_types", "is missing");
    d->embed_scale = sqrt((double)d->hidden);
    d->logit_cap = config_float_or(l, "final_logit_softcapping", 0);
    d->tied = d->own_caches = true;
}

/* The number that as much of a normal distribution lies below. */
static double quantile(double part) {
    double low = -10, high = 10;
    for (int i = 0; i < 80; i++) {
        double middle = (low + high) / 2;
        *(erf(middle * M_SQRT1_2) < 2 * part - 1 ? &low : &high) = middle;
    }
    return (low + high) / 2;
}

static void read_width(loader *l, const desc *d, int64_t i, ffn_desc *out) {
    const char *key = "intermediate_size";
    if (!json_is_array(json_get(l->config, key))) {
        out->width = config_int(l, key, 1, MAX_DIM);
        return;
    }
    double width = json_number(config_per_layer(l, key, i, d->n_layers));
    if (!(width >= 1 && width <= MAX_DIM)) config_refuse(l, key, "has no such number for every layer");
    out->width = l->failed ? 1 : (int64_t)width;
}

void layer_gemma3n(loader *l, const desc *d, int64_t i, layer_desc *out) {
    attention_desc *a = &out->attention;
    bool sliding = is_sliding(l, d, i, false);
    int64_t first = d->n_layers - config_int(l, "num_kv_shared_layers", 0, MAX_LAYERS);
    const char *key = "activation_sparsity_pattern";
    double sparsity = json_number(config_per_layer(l, key, i, d->n_layers));
    read_width(l, d, i, &out->ffn);
    if (sparsity >= 1) config_refuse(l, key, "is not below 1");
    out->ffn.sparse = sparsity > 0;
    if (out->ffn.sparse) out->ffn.deviations = (float)quantile(sparsity);
    if (sliding) a->window = config_int(l, "sliding_window", 2, INT32_MAX);
    if (l->failed) return;
    a->rope = read_rope(l, &(rope_wish){.dims = a->head_dim,
                                        .theta_key = sliding ? "rope_local_base_freq" : "rope_theta",
                                        .layer_type = sliding ? "sliding_attention" : "full_attention",
                                        .plain = true});
    if (i >= first) a->reads = find_keys(l, d, i, first);
}
