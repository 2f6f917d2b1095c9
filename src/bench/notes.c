/* notes.c - what is possible and probably not meant: said once, and then done.
 * For bench and generate. */
#include "bench/bench.h"
#include "sys/sys.h"

/* max_position_embeddings; 0 when config.json has none. */
static int64_t longest_context(const checkpoint *c) {
    const json *config = checkpoint_config(c), *text = json_get(config, "text_config");
    const json *most = json_get(config, "max_position_embeddings");
    if (!most) most = json_get(text, "max_position_embeddings");
    return (int64_t)json_number(most);
}

void params_notes(const params *p, const loaded_model *m, int64_t n_tokens, str *out) {
    int cores = sys_usable_cores();
    int64_t longest = longest_context(m->checkpoint);
    generate_options how = params_generate(p);
    if (p->threads > cores && engine_describe(m->engine).threads)
        str_printf(out, "%lld threads share %d core%s, which is slower than a thread for each\n",
                   (long long)p->threads, cores, cores == 1 ? "" : "s");
    if (longest && n_tokens > longest)
        str_printf(
            out,
            "%s was made for %lld tokens (max_position_embeddings), not for %lld: the speed is real, the "
            "text may be nonsense\n",
            p->model, (long long)longest, (long long)n_tokens);
    if (p->kv_bits && !generate_quantizes(m->model, &how))
        str_printf(out, "kv_bits has no effect on %s: mlx-lm does not quantize this model's caches, either\n",
                   p->model);
}
