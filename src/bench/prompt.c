/* prompt.c - prompts of an exact number of tokens: a text repeated and cut, or random ids.
 * Random ids matter for mixtures of experts, where a repeated sentence wakes few of them. */
#include "bench/internal.h"

#include <stdlib.h>

int open_tokenizer(const checkpoint *c, tokenizer **out) {
    const char *folder = checkpoint_folder(c);
    const checkpoint_vocabulary *v = checkpoint_vocab(c);
    *out = NULL;
    if (v) {
        *out = tokenizer_from_vocabulary(&(tokenizer_vocabulary){.name = checkpoint_config_name(c),
                                                                 .model = v->model,
                                                                 .pre = v->pre,
                                                                 .n_tokens = v->n_tokens,
                                                                 .n_merges = v->n_merges,
                                                                 .tokens = v->tokens,
                                                                 .types = v->types,
                                                                 .merges = v->merges,
                                                                 .bos_id = v->bos_id,
                                                                 .eos_id = v->eos_id,
                                                                 .add_bos = v->add_bos});
        return *out ? 0 : -1;
    }
    if (!folder) return 0;
    str path = {0};
    str_printf(&path, "%s/tokenizer.json", folder);
    int failed = path.failed ? -1 : 0;
    if (!failed && file_exists(path.data)) {
        *out = tokenizer_open(path.data);
        failed = *out ? 0 : -1;
    }
    str_free(&path);
    return failed;
}

int encode_prompt(const tokenizer *t, const bench_options *o, token_ids *out) {
    if (tokenizer_encode(t, o->prompt, o->prompt_length, true, out)) return -1;
    return out->n ? 0 : fail_usage("--prompt: the text gives no token");
}

/* Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014), SplitMix64. */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int32_t *make_prompt(const token_ids *text, int64_t vocab_size, uint64_t seed, int64_t n) {
    int32_t *ids = mem_new((size_t)n, sizeof *ids, "the prompt");
    for (int64_t i = 0; ids && i < n; i++)
        ids[i] = text->n ? text->items[i % text->n] : (int32_t)(next_random(&seed) % (uint64_t)vocab_size);
    return ids;
}
