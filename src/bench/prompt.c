/* prompt.c - prompts of an exact number of tokens: a text repeated and cut, or random ids.
 * The book and random ids matter for mixtures of experts, where a repeated sentence wakes few of
 * them. */
#include "bench/internal.h"

#include <stdlib.h>

int encode_prompt(const tokenizer *t, const bench_options *o, token_ids *out) {
    if (tokenizer_encode(t, o->prompt, o->prompt_length, true, out)) return -1;
    return out->n ? 0 : fail_usage("--prompt: the text gives no token");
}

/* Tokens [first, first + n) of one sequence; seed: of this sequence. */
static void random_ids(int32_t *ids, int64_t vocab_size, uint64_t seed, int64_t first, int64_t n) {
    for (int64_t i = -first; i < n; i++) {
        uint64_t x = random_next(&seed);
        if (i >= 0) ids[i] = (int32_t)(x % (uint64_t)vocab_size);
    }
}

int32_t *make_prompt(const prompt_source *from, prompt_part part) {
    const token_ids *text = from->text;
    int32_t *ids = mem_new((size_t)(part.n_sequences * part.n), sizeof *ids, "the prompt");
    for (int64_t s = 0; ids && s < part.n_sequences; s++) {
        int32_t *out = ids + s * part.n;
        uint64_t seed = from->seed + (uint64_t)s * 0x9e3779b97f4a7c15; /* far from its neighbours' */
        if (!text->n) random_ids(out, from->vocab_size, seed, part.first, part.n);
        for (int64_t i = 0; text->n && i < part.n; i++) out[i] = text->items[(s + part.first + i) % text->n];
    }
    return ids;
}
