/* decoder.c - loads every layer that a description names, and runs them: the formula of a decoder.
 * mlx-lm: the TransformerBlock and Model classes of most models. */
#include "model/decoder.h"

#include <stdio.h>

/* ---- helpers of descriptions ---- */

static int64_t size_field(loader *l, const char *key, int64_t max, int64_t otherwise) {
    return otherwise ? config_int_or(l, key, 1, max, otherwise) : config_int(l, key, 1, max);
}

static const char *key_or(const char *key, const char *otherwise) {
    return key ? key : otherwise;
}

void read_decoder_keys(loader *l, desc *d, const decoder_keys *k, const decoder_defaults * or) {
    attention_desc *a = &d->layer.attention;
    d->hidden = size_field(l, key_or(k->hidden, "hidden_size"), MAX_DIM, or->hidden);
    d->n_layers = size_field(l, key_or(k->n_layers, "num_hidden_layers"), MAX_LAYERS, or->n_layers);
    d->vocab = size_field(l, key_or(k->vocab, "vocab_size"), MAX_VOCAB, or->vocab);
    a->n_heads = size_field(l, key_or(k->n_heads, "num_attention_heads"), MAX_HEADS, or->n_heads);
    a->n_kv_heads = config_int_or(l, key_or(k->n_kv_heads, "num_key_value_heads"), 1, MAX_HEADS,
                                  or->n_kv_heads ? or->n_kv_heads : a->n_heads);
    if (l->failed) return;
    a->head_dim =
        config_int_or(l, "head_dim", 1, MAX_DIM, or->head_dim ? or->head_dim : d->hidden / a->n_heads);
    const char *eps = key_or(k->eps, "rms_norm_eps");
    d->eps = (float)(or->eps > 0 ? config_float_or(l, eps, or->eps) : config_float(l, eps));
    d->layer.ffn.width = size_field(l, key_or(k->width, "intermediate_size"), MAX_DIM, or->width);
    d->names = default_names;
}

void read_decoder_or(loader *l, desc *d, const decoder_defaults *defaults) {
    read_decoder_keys(l, d, &(decoder_keys){0}, defaults);
}

void read_decoder(loader *l, desc *d) {
    read_decoder_or(l, d, &(decoder_defaults){0});
}

int64_t partial_dims(loader *l, const desc *d, double otherwise) {
    const json *parameters = json_get(l->config, "rope_parameters");
    double factor = otherwise;
    const char *key = "partial_rotary_factor";
    const json *from = json_get(l->config, key) || !parameters ? l->config : parameters;
    if (!l->failed) l->failed = json_get_float(from, l->name, key, otherwise <= 0, &factor) < 0;
    if (!l->failed && !(factor > 0 && factor <= 1)) config_refuse(l, key, "is not between 0 and 1");
    return l->failed ? 2 : (int64_t)((double)d->layer.attention.head_dim * factor) / 2 * 2;
}

bool is_sliding(loader *l, const desc *d, int64_t i, bool otherwise) {
    const json *type = config_per_layer(l, "layer_types", i, d->n_layers);
    if (!type) return otherwise;
    const char *text = json_string(type);
    return text && !strcmp(text, "sliding_attention");
}

/* ---- loading ---- */

static bool has_pre(places p) {
    return p != PLACES_POST;
}

static bool has_post(places p) {
    return p == PLACES_POST || p == PLACES_SANDWICH;
}

/* Fields that an engine would otherwise meet as wrong shapes, far from their names. */
static void check(loader *l, const attention_desc *a) {
    if (l->failed) return;
    if (a->n_heads % a->n_kv_heads)
        config_refuse(l, "num_key_value_heads", "does not divide num_attention_heads");
    if (a->head_dim < 2 || a->head_dim % 2) config_refuse(l, "head_dim", "is not an even number");
    if (a->rope && a->rope->dims > a->head_dim) config_refuse(l, "head_dim", "is less than what is rotated");
    if (a->scale < 0 || a->scale != a->scale) config_refuse(l, "query_pre_attn_scalar", "is not positive");
}

static dtype promoted(dtype a, const weight *w) {
    if (!w || w->dtype == a || w->kind > MATRIX_AFFINE) return a; /* scales of one byte promote nothing */
    return DTYPE_F32; /* as MLX does with two different types of floats */
}

/* Keys and values have the type that MLX promotes to on the way to them. `x` is the type of what
 * enters the layer; afterwards of what leaves it. A GGUF file's norms are always F32, which says
 * nothing of what its caches need: llama.cpp's are F16. */
static void find_dtypes(const loader *l, layer *out, dtype *x) {
    bool gguf = checkpoint_is_gguf(l->checkpoint);
    const attention *a = &out->attention;
    dtype type = gguf ? *x : promoted(promoted(*x, out->pre), a->k_norm);
    out->kv_dtype = promoted(promoted(promoted(promoted(type, a->k), a->v), a->qkv), out->conv.in);
    out->kv_dtype =
        promoted(promoted(promoted(out->kv_dtype, out->delta.q), out->delta.qkv), out->delta.qkvz);
    const latent_mixer *m = &out->latent;
    out->kv_dtype = promoted(promoted(promoted(out->kv_dtype, m->kv_a), gguf ? NULL : m->kv_norm), m->kv_b);
    const weight *latent[] = {m->q_a, m->q, m->kv_a, m->o, m->kv_b, m->rule.embed_q, m->rule.unembed_out};
    for (size_t i = 0; i < sizeof latent / sizeof *latent; i++) *x = promoted(*x, latent[i]);
    out->kv_dtype = promoted(promoted(out->kv_dtype, out->ssm.in), out->lightning.qkv);
    const ffn *f = &out->ffn;
    const weight *rest[] = {
        out->delta.conv, out->delta.out, out->conv.conv, out->conv.out, a->q,           a->o,       f->gate,
        f->up,           f->down,        f->mlp.gate,    f->mlp.up,     f->mlp.gate_up, f->mlp.down};
    const weight *space[] = {out->ssm.conv, out->ssm.out, out->linear, out->lightning.norm, out->lightning.o};
    const weight *xielu[] = {f->xielu.alpha_p, f->xielu.alpha_n, f->xielu.beta, f->xielu.eps};
    const weight *norms[] = {out->pre, out->post, out->ffn_pre, out->ffn_post};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) *x = promoted(*x, rest[i]);
    for (size_t i = 0; i < sizeof space / sizeof *space; i++) *x = promoted(*x, space[i]);
    for (size_t i = 0; i < sizeof xielu / sizeof *xielu; i++) *x = promoted(*x, xielu[i]);
    for (size_t i = 0; i < sizeof norms / sizeof *norms && !gguf; i++) *x = promoted(*x, norms[i]);
}

/* What comes before the feed-forward. */
static void load_mixer(loader *l, const desc *d, const layer_desc *in, layer *out) {
    bool attends = !in->delta.n_v_heads && !in->latent.kv_rank && !in->conv.kernel && !in->linear &&
                   !in->lightning.n_heads && (!in->ssm.n_heads || in->ssm.beside);
    if (in->linear)
        out->linear = load_linear(l, (linear_shape){d->hidden, d->hidden, in->linear_bias}, d->names.linear);
    if (in->delta.n_v_heads) load_delta(l, d, &in->delta, &out->delta);
    if (in->latent.kv_rank) load_latent(l, d, &in->latent, &out->latent);
    if (in->lightning.n_heads) load_lightning(l, d, &in->lightning, &out->lightning);
    if (in->conv.kernel) load_conv_mixer(l, d, &in->conv, &out->conv);
    if (in->ssm.n_heads) load_ssm(l, d, &in->ssm, &out->ssm);
    if (!attends) return;
    check(l, &in->attention);
    if (!l->failed) load_attention(l, d, &in->attention, &out->attention);
}

static double offset_or(double offset, const desc *d) {
    return offset != 0 ? offset : d->norm_offset;
}

/* A norm of the width of the model. */
static const weight *load_wide_norm(loader *l, const desc *d, double offset, const char *name) {
    if (d->layer_norm) return load_layer_norm(l, d->hidden, offset, d->norm_bias, name);
    return load_norm(l, d->hidden, offset, name);
}

/* mlx-lm talkie.py: ActGain. */
static void load_gains(loader *l, layer *out) {
    out->gain = load_gain(l, 1, 1, "attn_gain.a_g");
    out->ffn_gain = load_gain(l, 1, 1, "mlp_gain.a_g");
    out->embed_gain = load_gain(l, 1, 1, "embed_skip.a_g");
}

static void load_layer(loader *l, const desc *d, const layer_desc *in, layer *out) {
    const names *n = &d->names;
    bool pre = has_pre(in->places), post = has_post(in->places);
    bool mixes = !in->only_ffn, feeds = in->ffn.kind != FFN_NONE;
    if (l->failed) return;
    out->eps = in->eps > 0 ? in->eps : d->eps;
    out->only_ffn = in->only_ffn;
    out->post_eps = d->post_eps > 0 ? d->post_eps : out->eps;
    out->residual = (float)in->residual;
    out->clip = in->clip;
    out->places = in->places;
    out->x_first = in->x_first;
    out->layer_norm = d->layer_norm;
    if (d->norm_weightless) pre = post = false;
    if (pre && mixes) out->pre = load_wide_norm(l, d, d->norm_offset, n->pre);
    if (mixes) load_mixer(l, d, in, out);
    if (post && mixes) out->post = load_wide_norm(l, d, offset_or(d->post_offset, d), n->post);
    if (pre && feeds && in->places != PLACES_PARALLEL)
        out->ffn_pre = load_wide_norm(l, d, d->norm_offset, n->ffn_pre);
    load_ffn(l, d, &in->ffn, &out->ffn);
    if (in->ffn.kind == FFN_BOTH) load_both(l, d, in, out);
    if (d->layer_inputs) load_layer_input(l, d, out);
    if (d->gains) load_gains(l, out);
    if (d->altup.n) load_altup(l, d, &out->altup);
    if (in->scalar) out->scalar = load_vector(l, 1, "layer_scalar");
    if (post && feeds) out->ffn_post = load_wide_norm(l, d, offset_or(d->ffn_post_offset, d), n->ffn_post);
}

/* A cache of its own, or that of the layer whose keys it reads, or none. */
static void give_cache(decoder *m, int64_t i) {
    layer *l = &m->layers[i];
    if (l->only_ffn || l->linear) return;
    int64_t reads = l->attention.d.reads;
    l->owns_cache = !reads;
    l->cache = reads ? m->layers[reads - 1].cache : m->n_caches++;
    if (l->latent.d.topk) m->n_caches++; /* the second one */
}

void layer_alike(loader *l, const desc *d, int64_t i, layer_desc *out) {
    (void)l, (void)d, (void)i, (void)out;
}

static void normalize_head(loader *l, const desc *d) {
    char name[128];
    snprintf(name, sizeof name, "%s.weight", d->names.head);
    if (!d->tied) l->failed = checkpoint_unit_columns(l->checkpoint, name) < 0;
}

void decoder_load(loader *l, const architecture *a, decoder *out) {
    desc *d = &out->d;
    a->describe(l, d);
    if (!(out->layers = load_alloc(l, (size_t)d->n_layers, sizeof *out->layers))) return;
    out->embed = load_linear(l, (linear_shape){d->vocab, d->hidden, false}, d->names.embed);
    if (d->positions)
        out->positions = load_linear(l, (linear_shape){d->positions, d->hidden, false}, d->names.positions);
    if (!d->norm_weightless)
        out->norm = load_wide_norm(l, d, d->last_norm_plain ? 0 : d->norm_offset, d->names.norm);
    if (d->norm_head && !l->failed) normalize_head(l, d);
    out->head = d->tied ? out->embed
                        : load_linear(l, (linear_shape){d->vocab, d->hidden, d->head_bias}, d->names.head);
    if (d->layer_inputs) load_layer_inputs(l, out);
    if (d->altup.n) load_streams(l, out);
    l->activations = l->failed ? DTYPE_F32 : out->embed->dtype;
    for (int64_t i = 0; i < d->n_layers && !l->failed; i++) {
        layer_desc in = d->layer;
        a->layer(l, d, i, &in);
        desc own = *d;
        if (in.names) own.names = *in.names;
        int64_t n = (d->halves ? i / d->halves : i) - in.first;
        const char *list = own.names.layers ? own.names.layers : d->names.layers;
        snprintf(l->prefix, sizeof l->prefix, "%s.%lld.", list, (long long)n);
        load_layer(l, &own, &in, &out->layers[i]);
        if (d->loop_window) {
            char gate[64];
            snprintf(gate, sizeof gate, "model.gate_projections.%lld", (long long)i);
            const attention_desc *all = &d->layer.attention;
            out->layers[i].attention.loop_gate = load_head_dots(l, all->n_heads, all->head_dim, gate);
        }
        give_cache(out, i);
        if (!l->failed) find_dtypes(l, &out->layers[i], &l->activations);
    }
    l->prefix[0] = '\0';
    if (d->gains) out->head_gain = load_gain(l, 1, 1, "head_gain.w_g");
}

/* ---- running ---- */

static tensor norm(graph *g, bool layer_norms, tensor x, const weight *w, float eps) {
    return layer_norms ? layer_norm(g, x, w, eps) : rms_norm(g, x, w, eps);
}

static tensor residual(graph *g, const layer *l, tensor x, tensor r) {
    if (l->residual != 0) r = scale(g, r, l->residual);
    return l->clip ? add_clipped(g, x, r) : add(g, x, r);
}

/* What layers hand on beside their results. */
typedef struct handed {
    tensor projected[2]; /* keys and values that the last layer with such matrices projected */
    tensor embedding;    /* what entered the first layer */
    cache *first;        /* of loop_window, in the second loop: the layer's cache of the first one */
    tensor shortcut;     /* of FFN_SHORTCUT, for the next layer; NULL: there is none */
} handed;

/* x plus what the layer's first half makes of it; of parallel places the whole layer. */
static tensor run_mixer(graph *g, const layer *l, tensor x, cache *const caches[], handed *other) {
    cache *c = caches[0];
    float eps = l->eps;
    tensor in = has_pre(l->places) ? norm(g, l->layer_norm, x, l->pre, eps) : x, r;
    if (l->ssm.d.beside) x = residual(g, l, x, run_ssm(g, &l->ssm, in, c));
    if (l->linear)
        r = linear(g, in, l->linear);
    else if (l->delta.out)
        r = run_delta(g, &l->delta, in, eps, c);
    else if (l->lightning.o)
        r = run_lightning(g, &l->lightning, in, eps, c);
    else if (l->latent.o)
        r = run_latent(g, &l->latent, in, caches);
    else if (l->conv.conv)
        r = run_conv_mixer(g, &l->conv, in, c);
    else if (l->ssm.out && !l->ssm.d.beside)
        r = run_ssm(g, &l->ssm, in, c);
    else
        r = other->first ? run_second_attention(g, &l->attention, in, eps, c, other->first)
                         : run_attention(g, &l->attention, in, eps, c, other->projected);
    if (l->places >= PLACES_PARALLEL) {
        tensor own = l->places == PLACES_PARALLEL ? in : norm(g, l->layer_norm, x, l->ffn_pre, eps);
        if (l->x_first) return add(g, add(g, x, r), run_ffn(g, &l->ffn, own));
        return add(g, add(g, r, run_ffn(g, &l->ffn, own)), x);
    }
    if (has_post(l->places)) r = norm(g, l->layer_norm, r, l->post, l->post_eps);
    return residual(g, l, x, l->gain ? product_weight(g, r, l->gain) : r);
}

/* x plus what the layer's second half makes of it. */
static tensor run_second_half(graph *g, const layer *l, tensor x, handed *other) {
    tensor shortcut = other->shortcut, r;
    if (l->ffn.d.kind == FFN_BOTH) {
        r = run_both(g, l, x);
    } else {
        tensor in = has_pre(l->places) ? norm(g, l->layer_norm, x, l->ffn_pre, l->eps) : x;
        other->shortcut = l->ffn.d.kind == FFN_SHORTCUT ? run_moe(g, &l->ffn, in) : NULL;
        r = run_ffn(g, &l->ffn, in);
    }
    if (has_post(l->places)) r = norm(g, l->layer_norm, r, l->ffn_post, l->post_eps);
    x = residual(g, l, x, l->ffn_gain ? product_weight(g, r, l->ffn_gain) : r);
    return shortcut ? add(g, x, shortcut) : x;
}

/* input: the layer's own, NULL where there is none. */
static tensor run_layer(graph *g, const layer *l, tensor x, tensor input, cache *const caches[],
                        handed *other) {
    if (l->altup.d.n) return run_altup_layer(g, l, x, input, caches[0]);
    tensor h = l->only_ffn ? x : run_mixer(g, l, x, caches, other);
    if (l->ffn.d.kind == FFN_NONE || l->places >= PLACES_PARALLEL) return h;
    h = run_second_half(g, l, h, other);
    if (l->embed_gain) h = add(g, h, product_weight(g, other->embedding, l->embed_gain));
    if (input) h = add(g, h, layer_input(g, l, h, input));
    return l->scalar ? product_weight(g, h, l->scalar) : h;
}

static tensor run_head(graph *g, const decoder *m, tensor x) {
    const desc *d = &m->d;
    if (d->head_divide != 0) x = divide(g, x, (float)d->head_divide);
    x = linear(g, x, m->head);
    if (m->head_gain) x = product_weight(g, x, m->head_gain);
    if (d->logit_divide != 0) x = divide(g, x, (float)d->logit_divide);
    if (d->logit_scale != 0) x = scale(g, x, (float)d->logit_scale);
    return d->logit_cap != 0 ? soft_cap(g, x, (float)d->logit_cap) : x;
}

tensor decoder_forward(const decoder *m, graph *g, tensor ids, cache *const caches[]) {
    const desc *d = &m->d;
    int64_t loops = d->loops ? d->loops : 1;
    tensor x = embed(g, ids, m->embed);
    if (m->positions) x = add(g, x, embed_positions(g, ids, m->positions, caches[0]));
    if (d->embed_scale != 0) x = scale(g, x, (float)d->embed_scale);
    if (d->embed_norm) x = rms_norm(g, x, NULL, d->eps);
    handed other = {.embedding = x};
    tensor inputs = d->layer_inputs ? layer_inputs(g, m, ids, x) : NULL;
    if (d->altup.n) x = begin_streams(g, m, x);
    for (int64_t loop = 0; loop < loops; loop++) {
        for (int64_t i = 0; i < d->n_layers; i++) {
            const layer *l = &m->layers[i];
            tensor input = inputs ? part(g, inputs, i * d->layer_inputs, d->layer_inputs) : NULL;
            other.first = d->loop_window && loop ? caches[l->cache] : NULL;
            x = run_layer(g, l, x, input, &caches[loop * m->n_caches + l->cache], &other);
        }
        if (d->altup.n) x = end_streams(g, m, x);
        if (d->loop_norm || loop == loops - 1) x = norm(g, d->layer_norm, x, m->norm, d->eps);
    }
    return run_head(g, m, x);
}
