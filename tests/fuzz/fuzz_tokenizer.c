/* fuzz_tokenizer.c - a tokenizer.json, a NUL, and a text: whatever they are, ids come out that
 * decode, or an error. What libFuzzer calls with its changes to the files in
 * tests/fuzz/tokenizer. */
#include "text/pipeline.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *bytes = (const char *)data;
    const char *end = size ? memchr(bytes, 0, size) : NULL;
    size_t n = end ? (size_t)(end - bytes) : size, n_text = end ? size - n - 1 : 0;
    tokenizer *t = tokenizer_parse(bytes, n, "tokenizer.json");
    token_ids ids = {0};
    str text = {0};
    if (t && !tokenizer_encode(t, end ? end + 1 : "", n_text, true, &ids)) {
        for (int64_t i = 0; i < ids.n; i++)
            if (ids.items[i] < 0 || ids.items[i] >= tokenizer_size(t)) abort();
        tokenizer_decode(t, ids.items, ids.n, false, &text);
    }
    str_free(&text);
    free(ids.items);
    tokenizer_free(t);
    return 0;
}
