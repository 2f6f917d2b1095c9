/* fuzz_gguf.c - any bytes as a GGUF file: header, metadata, tensors, repacked, and vocabulary. A
 * fault is a crash, a hang or a read outside the file; an error message is not. */
#include "fuzz.h"

#include "checkpoint/internal.h"
#include "text/text.h"

static void use_vocabulary(const gguf_vocabulary *v) {
    tokenizer *t = tokenizer_from_vocabulary(v);
    token_ids ids = {0};
    if (t) tokenizer_encode(t, "Fuzz it, 7 times.", 17, true, &ids);
    free(ids.items);
    tokenizer_free(t);
}

static void take_matrices(checkpoint *c) {
    for (size_t i = 0; i < c->n_tensors; i++) {
        const stored *t = &c->tensors[i];
        const char *end = strstr(t->name, ".weight");
        char path[256];
        matrix m;
        if (!end || t->data.rank < 2 || t->data.rank > 3 || t->bytes > 1 << 16) continue;
        snprintf(path, sizeof path, "%.*s", (int)(end - t->name), t->name);
        if (!checkpoint_matrix(c, path, t->data.rank, t->data.shape, &m) && matrix_bytes(&m) > 1 << 24)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    fuzz_write("model.gguf", data, n);
    error_clear();
    checkpoint *c = checkpoint_open(fuzz_path("model.gguf"), 0);
    if (!c) return 0;
    int32_t eos[4];
    checkpoint_eos_ids(c, eos, 4);
    checkpoint_quantization(c);
    checkpoint_parameters(c);
    checkpoint_check_all_used(c);
    take_matrices(c);
    if (checkpoint_vocab(c)) use_vocabulary(checkpoint_vocab(c));
    checkpoint_close(c);
    return 0;
}
