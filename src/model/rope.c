/* rope.c - the frequencies of every rope variant that config.json can ask for.
 * mlx-lm rope_utils.py; frequencies are kept as periods (freqs[i] = base^(2i / dims)), as
 * mx.fast.rope takes them. Those of a variant are computed in F32, step by step as mlx-lm does, so
 * that they are the same to the bit. */
#include "model/load.h"

#include <math.h>

static double field(loader *l, const json *scaling, const char *key, bool required, double otherwise) {
    if (!l->failed) l->failed = json_get_float(scaling, l->name, key, required, &otherwise) < 0;
    return l->failed ? 1 : otherwise;
}

/* Llama3RoPE: long wavelengths are slowed down by factor, short ones left, those between
 * interpolated. */
static void scale_llama3(loader *l, const json *scaling, float *freqs, int n) {
    float factor = (float)field(l, scaling, "factor", true, 0);
    double low = field(l, scaling, "low_freq_factor", false, 1),
           high = field(l, scaling, "high_freq_factor", false, 4);
    double context = field(l, scaling, "original_max_position_embeddings", false, 8192);
    float longest = (float)(context / low), shortest = (float)(context / high);
    for (int i = 0; i < n; i++) {
        float wavelength = (float)(2 * M_PI) * freqs[i];
        float smooth = ((float)context / wavelength - (float)low) / (float)(high - low);
        if (wavelength > longest)
            freqs[i] *= factor;
        else if (wavelength > shortest && wavelength < longest)
            freqs[i] /= (1 - smooth) / factor + smooth;
    }
}

static double yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

/* YarnRoPE: dimensions that turn often keep their frequency, those that turn rarely are slowed
 * down, with a ramp. */
static void scale_yarn(loader *l, const json *scaling, double base, rope_spec *spec, float *freqs, int n) {
    double factor = field(l, scaling, "factor", true, 0);
    double context = field(l, scaling, "original_max_position_embeddings", false, 4096);
    double fast = field(l, scaling, "beta_fast", false, 32), slow = field(l, scaling, "beta_slow", false, 1);
    double mscale = field(l, scaling, "mscale", false, 1),
           all = field(l, scaling, "mscale_all_dim", false, 0);
    int dims = 2 * n;
    double low = floor(dims * log(context / (fast * 2 * M_PI)) / (2 * log(base)));
    double high = ceil(dims * log(context / (slow * 2 * M_PI)) / (2 * log(base)));
    low = fmax(low, 0);
    high = fmin(high, dims - 1);
    if (low == high) high += 0.001;
    for (int i = 0; i < n; i++) {
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1 - fminf(fmaxf(ramp, 0), 1), plain = freqs[i], slowed = (float)factor * plain;
        freqs[i] = slowed * plain / (slowed * keep + plain * (1 - keep));
    }
    spec->mscale = (float)(yarn_mscale(factor, mscale) / yarn_mscale(factor, all));
}

/* SuScaledRoPE: every frequency has a factor of its own from long_factor, which is a list or one
 * number. */
static void scale_longrope(loader *l, const rope_wish *wish, const json *scaling, rope_spec *spec,
                           float *freqs, int n) {
    const char *key = "original_max_position_embeddings";
    double context = wish->phi3 ? config_float_or(l, key, 4096) : field(l, scaling, key, !wish->type, 4096);
    double longest = config_float_or(l, "max_position_embeddings", wish->phi3 ? 131072 : context);
    double factor = longest / context;
    const json *factors = json_get(scaling, "long_factor");
    bool all_one = wish->type && !factors;
    if (json_is_array(factors) ? json_length(factors) != n : !all_one && !json_is_number(factors))
        config_refuse(l, "rope_scaling",
                      "long_factor is neither a number nor a list of head_dim / 2 numbers");
    if (l->failed) return;
    const json *item = json_is_array(factors) ? json_first(factors) : NULL;
    for (int i = 0; i < n && !all_one; i++, item = item ? json_next(item) : NULL)
        freqs[i] *= (float)json_number(item ? item : factors);
    double own = wish->own_mscale ? field(l, scaling, "long_mscale", true, 0) : 0;
    spec->mscale = own != 0 ? (float)own : factor <= 1 ? 1 : (float)sqrt(1 + log(factor) / log(context));
}

/* A GGUF file carries the finished factors in a tensor. */
static void scale_by_tensor(loader *l, float *freqs, int n) {
    matrix factors;
    if (l->failed || checkpoint_plain(l->checkpoint, "rope_freqs.weight", 1, (int64_t[]){n}, &factors)) {
        l->failed = true;
        return;
    }
    float *values = load_alloc(l, (size_t)n, sizeof *values);
    if (!values) return;
    floats_from(values, factors.values.data, factors.values.dtype, n);
    for (int i = 0; i < n; i++) freqs[i] *= values[i];
}

/* ProportionalRoPE: the first features turn as if all did, the others not at all. */
static void scale_proportional(loader *l, const json *scaling, double part, rope_spec *spec, float *freqs) {
    part = field(l, scaling, "partial_rotary_factor", false, part);
    float factor = (float)field(l, scaling, "factor", false, 1);
    int rotated = (int)(spec->dims * part) / 2;
    if (!(part > 0 && part <= 1)) config_refuse(l, "rope_parameters", "partial_rotary_factor is no part");
    for (int i = 0; i < spec->dims / 2; i++) freqs[i] = i < rotated ? factor * freqs[i] : INFINITY;
}

/* The periods and factors of a variant; *plain is left for those that have none. */
static void scale_variant(loader *l, const rope_wish *wish, const char *type, const json *scaling,
                          double base, rope_spec *spec, float *freqs) {
    int n = spec->dims / 2;
    if (!strcmp(type, "llama3"))
        scale_llama3(l, scaling, freqs, n);
    else if (!strcmp(type, "yarn") || !strcmp(type, "deepseek_yarn") || !strcmp(type, "telechat3-yarn"))
        scale_yarn(l, scaling, base, spec, freqs, n);
    else if (!strcmp(type, "longrope") || (wish->phi3 && !strcmp(type, "su")))
        scale_longrope(l, wish, scaling, spec, freqs, n);
    else if (!strcmp(type, "proportional"))
        scale_proportional(l, scaling, scaling ? 1 : wish->proportional, spec, freqs);
    else if (!strcmp(type, "alpha"))
        ; /* the base says it all */
    else if (!strcmp(type, "gguf_factors"))
        scale_by_tensor(l, freqs, n);
    else
        config_refuse(l, "rope_scaling",
                      "its type is not known; known: linear, dynamic, llama3, yarn, longrope");
}

/* rope_scaling names its type in one of two ways. */
static const char *scaling_type(const json *scaling) {
    const char *type = json_string(json_get(scaling, "type"));
    if (!type) type = json_string(json_get(scaling, "rope_type"));
    return type ? type : "default";
}

static const rope_spec *make_rope(loader *l, const rope_wish *wish, double base, const json *scaling) {
    int dims = (int)wish->dims, n = dims / 2;
    const char *type = wish->alpha ? "alpha" : scaling_type(wish->plain ? NULL : scaling);
    if (wish->type) type = wish->type;
    if (wish->proportional > 0 && !scaling) type = "proportional";
    if (wish->only_linear && strcmp(type, "linear")) type = "default";
    if (wish->alpha) base *= pow(field(l, scaling, "alpha", false, 1), dims / (dims - 2.0));
    if (!(base > 0)) config_refuse(l, "rope_theta", "is not positive");
    rope_spec *spec = load_alloc(l, 1, sizeof *spec);
    float *freqs = load_alloc(l, (size_t)n + 1, sizeof *freqs);
    if (!spec || !freqs) return NULL;
    *spec =
        (rope_spec){.dims = dims, .traditional = wish->traditional, .scale = 1, .mscale = 1, .freqs = freqs};
    bool dynamic = !strcmp(type, "dynamic"); /* plain up to max_position_embeddings */
    if (dynamic) spec->limit = config_int(l, "max_position_embeddings", 1, INT32_MAX);
    bool plain = dynamic || !strcmp(type, "default") || !strcmp(type, "mrope"),
         linear = !strcmp(type, "linear");
    for (int i = 0; i < n; i++)
        freqs[i] = plain || linear ? (float)pow(base, 2.0 * i / dims)
                                   : powf((float)base, (float)(2 * i) / (float)dims);
    if (linear) spec->scale = (float)(1 / field(l, scaling, "factor", true, 0));
    if (wish->negative)
        for (int i = 0; i < n; i++)
            freqs[i] = wish->powers ? -powf((float)base, (float)(2 * i) / (float)dims)
                                    : -expf((float)i * (float)(log(base) / n));
    else if (plain || linear)
        spec->base = (float)base;
    else
        scale_variant(l, wish, type, scaling, base, spec, freqs);
    for (int i = 0; i < n && !l->failed; i++)
        if ((!isfinite(freqs[i]) && strcmp(type, "proportional")) || freqs[i] == 0 || !isfinite(spec->scale))
            config_refuse(l, "rope_scaling", "its numbers give no finite frequencies");
    return spec;
}

/* ---- equal ones are made once, so that engines share what they compute from them ---- */

struct made_rope {
    struct made_rope *next;
    const rope_spec *spec;
};

static bool same_rope(const rope_spec *a, const rope_spec *b) {
    return a->dims == b->dims && a->traditional == b->traditional && a->scale == b->scale &&
           a->base == b->base && a->limit == b->limit && a->mscale == b->mscale &&
           !memcmp(a->freqs, b->freqs, (size_t)a->dims / 2 * sizeof *a->freqs);
}

static const rope_spec *shared_rope(loader *l, const rope_spec *spec) {
    for (struct made_rope *m = l->ropes; m && !l->failed; m = m->next)
        if (same_rope(m->spec, spec)) return m->spec;
    struct made_rope *made = load_alloc(l, 1, sizeof *made);
    if (!made) return NULL;
    *made = (struct made_rope){l->ropes, spec};
    l->ropes = made;
    return spec;
}

/* mlx-lm 0.32.2 would silently take defaults there. */
static void note_parameters(loader *l, const rope_wish *wish) {
    if (wish->nested || wish->layer_type || l->noted_rope || l->failed) return;
    l->noted_rope = true;
    l->failed = checkpoint_add_note(l->checkpoint, "rope_parameters was read, which mlx-lm ignores for this "
                                                   "model_type: its answers may differ") < 0;
}

const rope_spec *read_rope(loader *l, const rope_wish *wish) {
    const char *key = wish->theta_key ? wish->theta_key : "rope_theta";
    const json *parameters = json_get(l->config, "rope_parameters");
    const json *own = wish->layer_type ? json_get(parameters, wish->layer_type) : NULL;
    if (own) parameters = own;
    if (l->failed) return NULL;
    double base = wish->theta;
    const json *from = json_get(l->config, key) ? l->config : parameters;
    if (from != l->config) key = "rope_theta";
    if (json_get_float(from ? from : l->config, l->name, key, base == 0, &base)) {
        l->failed = true;
        return NULL;
    }
    const json *scaling = json_get(l->config, "rope_scaling");
    if (parameters && (from == parameters || (!scaling && !wish->plain))) note_parameters(l, wish);
    if (!scaling) scaling = parameters;
    const rope_spec *spec = make_rope(l, wish, base, scaling);
    return l->failed ? NULL : shared_rope(l, spec);
}
