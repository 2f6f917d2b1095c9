/* vocabulary.h - what a GGUF file says of its tokens, as it stands there.
 * checkpoint/ reads it and text/ makes a tokenizer of it; neither knows the other. */
#ifndef BASE_VOCABULARY_H
#define BASE_VOCABULARY_H

#include <stdbool.h>
#include <stdint.h>

/* Everything is borrowed from whoever read the file. */
typedef struct gguf_vocabulary {
    const char *name;  /* for messages: the file */
    const char *model; /* tokenizer.ggml.model: "gpt2", "llama", ... */
    const char *pre;   /* tokenizer.ggml.pre: "smollm", "llama-bpe", "qwen2", ...; NULL when absent */
    int64_t n_tokens, n_merges;
    const char *const *tokens; /* NUL-terminated, in the file's spelling (byte-level alphabet) */
    const int32_t *types; /* tokenizer.ggml.token_type, NULL when absent: 1 normal, 2 unknown, 3 control, 4
                             user, 6 byte */
    const char *const *merges; /* "left right" */
    int32_t bos_id, eos_id;    /* -1 when absent */
    bool add_bos;
} gguf_vocabulary;

#endif
