/* generate.h - a generation session: prefill in chunks, then one token at a time, greedily.
 * The algorithm of mlx-lm's generate_step, on any engine. */
#ifndef GENERATE_GENERATE_H
#define GENERATE_GENERATE_H

#include "model/model.h"
#include "text/text.h"

/* mlx-lm generate.py: generate_step's arguments. */
typedef struct generate_options {
    int64_t prefill_step_size; /* prompt tokens per prefill chunk */
    int64_t max_kv_size;       /* 0: no limit */
    int64_t kv_bits;           /* 0: not quantized */
    int64_t kv_group_size;
    int64_t quantized_kv_start; /* quantize a cache once it holds this many tokens */
    bool keep_logits;           /* session_logits will be asked for */
    const int32_t *follow;      /* what to go on with in place of the chosen tokens; NULL: those. Borrowed */
    int64_t n_follow;           /* no more than n_follow + 1 tokens are produced then */
} generate_options;

/* Can any model run with these options? -1 with a usage error and its reason. */
int generate_check_options(const generate_options *o);

/* Can this model run with them? -1 with a usage error and its reason, where mlx-lm refuses too. */
int generate_check(const model *m, const generate_options *o);

typedef struct session session;

/* A session with empty caches for a prompt of n_prompt tokens (copied) and up to max_tokens new ones. NULL on
 * error: an id outside the vocabulary, no tokens, or a context beyond memory (checked before anything is
 * allocated). */
session *session_new(model *m, engine *e, const generate_options *o, const int32_t *prompt, int64_t n_prompt,
                     int64_t max_tokens);
void session_free(session *s);

/* The next token. The first call prefills: n_prompt - 1 tokens in chunks, then the last one. *id is set when
 * the token is known to the host, which is the moment to take its timestamp. Returns 1; 0 after max_tokens;
 * -1 on error or interrupt. */
int session_next(session *s, int32_t *id);

/* Prompt tokens prefilled so far, for progress: called after each chunk. */
void session_on_prefill(session *s, void (*report)(void *context, int64_t done, int64_t total),
                        void *context);

/* With keep_logits: the vocab_size logits that the last token was chosen from; valid until the next call. */
const float *session_logits(const session *s);

/* The tokenizer that belongs to a checkpoint: its folder's tokenizer.json, or a GGUF file's own vocabulary.
 * *out is NULL, and 0 returned, when it has none; -1 when it has one that cannot be used. */
int open_tokenizer(const checkpoint *c, tokenizer **out);

/* The specifications of the model's caches, *n of them; free with free(). NULL when out of memory. */
cache_spec *generate_caches(const model *m, const generate_options *o, int *n);

/* Bytes that the caches of such a session will need at the end. */
int64_t generate_kv_bytes(const model *m, const generate_options *o, int64_t n_prompt, int64_t max_tokens);

/* -1 with a message when c's weights are more than `available` bytes (0: unknown): to be asked before they
 * are loaded. On a GPU the engine itself says what does not fit. */
int generate_check_weights(const checkpoint *c, const engine *e, int64_t available);

/* -1 with a message when they are more than `available` bytes (0: unknown): to be asked before a session is
 * made, so that a context beyond memory is refused before the system starts to swap, or to kill. */
int generate_check_memory(const model *m, const generate_options *o, int64_t n_prompt, int64_t max_tokens,
                          int64_t available);

#endif
