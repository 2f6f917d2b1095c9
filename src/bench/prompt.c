/* prompt.c - prompts of an exact number of tokens: a text repeated and cut, or random ids.
 * Random ids matter for mixtures of experts, where a repeated sentence wakes few of them. */
#include "bench/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int encode_prompt(const tokenizer *t, const bench_options *o, token_ids *out) {
    if (tokenizer_encode(t, o->prompt, o->prompt_length, true, out)) return -1;
    return out->n ? 0 : fail_usage("--prompt: the text gives no token");
}

int32_t *make_prompt(const token_ids *text, int64_t vocab_size, uint64_t seed, int64_t n) {
    int32_t *ids = mem_new((size_t)n, sizeof *ids, "the prompt");
    for (int64_t i = 0; ids && i < n; i++)
        ids[i] = text->n ? text->items[i % text->n] : (int32_t)(random_next(&seed) % (uint64_t)vocab_size);
    return ids;
}

void hash_ids(const int32_t *ids, int64_t n, char out[HASH_CHARS]) {
    uint64_t hash = 14695981039346656037u;
    for (int64_t i = 0; i < 4 * n; i++) {
        uint8_t byte = (uint8_t)((uint32_t)ids[i / 4] >> (8 * (i % 4)));
        hash = (hash ^ byte) * 1099511628211u;
    }
    snprintf(out, HASH_CHARS, "%016" PRIx64, hash);
}
