/* check.c - what a model can't do, said before anything runs, and how much memory its caches will
 * take. Refuses what mlx-lm refuses, with the reason. */
#include "generate/generate.h"

#include <stdio.h>
#include <stdlib.h>

enum { KEPT = 4 }; /* entries a rotating cache never drops (mlx-lm cache.py: make_prompt_cache) */

cache_spec *generate_caches(const model *m, const generate_options *o, int *n) {
    cache_options options = {.max_kv_size = o->max_kv_size};
    *n = model_caches(m, &options, NULL, 0);
    cache_spec *specs = mem_new((size_t)*n, sizeof *specs, "caches");
    if (specs) model_caches(m, &options, specs, *n);
    return specs;
}

int generate_check_options(const generate_options *o) {
    bool known = !o->kv_bits || (o->kv_bits >= 2 && o->kv_bits <= 6) || o->kv_bits == 8;
    if (o->prefill_step_size < 1) return fail_usage("prefill_step_size must be at least 1");
    if (o->max_kv_size && o->max_kv_size <= KEPT)
        return fail_usage("max_kv_size %lld is too small: the first %d entries are always kept",
                          (long long)o->max_kv_size, KEPT);
    if (!known)
        return fail_usage("kv_bits %lld is not supported; use 2, 3, 4, 5, 6 or 8", (long long)o->kv_bits);
    if (o->kv_bits && o->kv_group_size != 32 && o->kv_group_size != 64 && o->kv_group_size != 128)
        return fail_usage("kv_group_size %lld is not supported; use 32, 64 or 128",
                          (long long)o->kv_group_size);
    return 0;
}

static int refuse_group(int64_t head_dim, int64_t group_size) {
    int64_t fits = 128;
    while (fits >= 32 && head_dim % fits) fits /= 2;
    if (fits < 32)
        return fail_usage("kv_group_size %lld does not divide this model's head_dim %lld, and no other does",
                          (long long)group_size, (long long)head_dim);
    return fail_usage("kv_group_size %lld does not divide this model's head_dim %lld; group size %lld fits",
                      (long long)group_size, (long long)head_dim, (long long)fits);
}

bool generate_quantizes(const model *m, const generate_options *o) {
    int n;
    cache_spec *specs = generate_caches(m, o, &n);
    bool quantizes = false; /* what has states stays as it is */
    for (int i = 0; specs && i < n; i++) quantizes = quantizes || !specs[i].n_states;
    free(specs);
    return quantizes && !model_describe(m)->ignores_kv_bits;
}

static int check_quantized(const model *m, const generate_options *o) {
    const model_info *info = model_describe(m);
    if (info->never_quantized)
        return fail_usage("kv_bits cannot be used with this model, in mlx-lm neither: %s",
                          info->never_quantized);
    int n;
    cache_spec *specs = generate_caches(m, o, &n);
    bool rotates = false;
    for (int i = 0; specs && i < n; i++) rotates = rotates || specs[i].max_size;
    free(specs);
    if (generate_quantizes(m, o) && info->head_dim % o->kv_group_size)
        return refuse_group(info->head_dim, o->kv_group_size);
    if (rotates)
        return fail_usage(
            "kv_bits cannot be used with a rotating KV cache (%s), which mlx-lm cannot quantize either",
            info->own_caches ? "this model has sliding windows" : "max_kv_size");
    return specs ? 0 : -1;
}

int generate_check(const model *m, const generate_options *o) {
    if (generate_check_options(o)) return -1;
    return o->kv_bits && !model_describe(m)->ignores_kv_bits ? check_quantized(m, o) : 0;
}

/* Of one sequence with that many tokens. */
static double cache_bytes(const cache_spec *s, const generate_options *o, double tokens) {
    double per_number = (double)dtype_size(s->dtype), bytes = 0;
    if (o->kv_bits && !s->n_states && !s->chunk)
        per_number = (double)o->kv_bits / 8 + 2 * per_number / (double)o->kv_group_size;
    double step = (double)o->prefill_step_size, kept = (double)(s->chunk ? s->chunk : s->max_size);
    double most = kept + (step < tokens ? step : tokens);
    if (kept > 0 && tokens > most) tokens = most;
    for (int i = 0; i < s->n_states; i++)
        bytes +=
            (double)s->states[i].rows * (double)s->states[i].cols * (double)dtype_size(s->states[i].dtype);
    return bytes + tokens * s->n_kv_heads * (s->head_dim + s->v_head_dim) * per_number;
}

static int sequences_of(const session_spec *spec) {
    return spec->n_sequences ? spec->n_sequences : 1;
}

int64_t session_bytes(const model *m, const session_spec *spec) {
    int n;
    cache_spec *specs = generate_caches(m, &spec->options, &n);
    double bytes = 0;
    for (int i = 0; specs && i < n; i++) {
        bytes += cache_bytes(&specs[i], &spec->options, (double)spec->capacity);
        if (spec->marked) bytes += cache_bytes(&specs[i], &spec->options, (double)spec->marked);
    }
    free(specs);
    bytes *= sequences_of(spec);
    return bytes < (double)INT64_MAX ? (int64_t)bytes : INT64_MAX;
}

/* What the weights of a synthetic checkpoint will take. 0 when it can't be loaded, for what is
 * wrong shows when it is loaded in earnest. */
static int64_t synthetic_bytes(const checkpoint *of) {
    model_weights weights = {0};
    if (model_weigh(of, &weights)) error_clear();
    return weights.bytes;
}

int generate_check_weights(const checkpoint *c, const engine *e, int64_t available) {
    engine_info info = engine_describe(e);
    bool on_gpu = !strcmp(info.name, "mlx") && strcmp(info.device, "cpu");
    if (on_gpu || !available) return 0;
    int64_t need = checkpoint_is_synthetic(c) ? synthetic_bytes(c) : checkpoint_stored_bytes(c);
    if (need <= available) return 0;
    return fail(
        "%s: its weights take %.2f GB, but %.2f GB of memory are free; a smaller model, or one with fewer "
        "bits per weight, may fit",
        checkpoint_config_name(c), (double)need / 1e9, (double)available / 1e9);
}

int session_check_memory(const model *m, const session_spec *spec, int64_t available) {
    int64_t need = session_bytes(m, spec);
    if (!available || need <= available) return 0;
    char sequences[32] = "";
    if (sequences_of(spec) > 1) snprintf(sequences, sizeof sequences, "%d times ", sequences_of(spec));
    return fail_memory("a KV cache for %s%lld tokens takes %.1f GB, but %.1f GB of memory are available",
                       sequences, (long long)spec->capacity, (double)need / 1e9, (double)available / 1e9);
}
