/* generate.h - a session: prefill in chunks, then one token of each sequence at a time, greedily.
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
} generate_options;

/* Can any model run with these options? -1 with a usage error and its reason. */
int generate_check_options(const generate_options *o);

/* Can this model run with them? -1 with a usage error and its reason, where mlx-lm refuses too. */
int generate_check(const model *m, const generate_options *o);

/* Whether kv_bits changes any of its caches. mlx-lm leaves states as they are, and caches that are
 * lists of others. */
bool generate_quantizes(const model *m, const generate_options *o);

/* How a token is chosen from its logits; greedy is mlx-lm's temp 0, and what a benchmark can
 * repeat. */
typedef enum sampler { SAMPLER_GREEDY } sampler;

typedef struct session_spec {
    generate_options options;
    sampler sampler;
    int n_sequences;  /* in lockstep: all have tokens of the same number; 0 means 1 */
    int64_t capacity; /* tokens that each sequence will have in the end */
    int64_t marked;   /* tokens of each that session_mark will keep */
    bool keep_logits; /* of all steps, until session_keep_logits says otherwise */
} session_spec;

typedef struct session session;

/* A session with empty caches. NULL on error. session_free(NULL) does nothing. */
session *session_new(model *m, engine *e, const session_spec *spec);
void session_free(session *s);

/* Puts n ids of each sequence, [n_sequences][n], into the caches, in chunks. -1 on error or
 * interrupt, as all functions below: then the session may only be freed. */
int session_fill(session *s, const int32_t *ids, int64_t n);

/* The same, but for the last id of each, which the next step begins with. Fill and prefill may be
 * called again after steps: the text goes on behind the last token that was chosen. */
int session_prefill(session *s, const int32_t *ids, int64_t n);

/* Chooses the next token of each sequence: ids [n_sequences]. They are set when they are known to
 * the host, which is the moment to take their timestamp. After a prefill only. */
int session_step(session *s, int32_t *ids);

/* Ids [n_sequences][n], copied, which the steps to come go on with in place of the tokens that were
 * chosen: before the first of these steps. */
int session_force(session *s, const int32_t *ids, int64_t n);

/* Mark keeps where the session is, after any of the functions above; a second one replaces the
 * first. Return goes back there as often as wanted, and undoes what was prefilled, forced, chosen
 * and queued since. Both first wait for a queued step. */
int session_mark(session *s);
int session_return(session *s);

/* Prompt tokens prefilled so far, for progress: called after each chunk. */
void session_on_prefill(session *s, void (*report)(void *context, int64_t done, int64_t total),
                        void *context);

/* Whether the steps that run, or are queued, from now on keep their logits. -1 without memory for
 * them. */
int session_keep_logits(session *s, bool keep);

/* What is prefilled from now on, and the n next tokens, note which experts they run
 * (graph_note_experts); what is queued beyond those tokens does not. */
void session_note_experts(session *s, int64_t n);

/* The [n_sequences][vocab_size] logits that the last tokens were chosen from, valid until the next
 * call; NULL when that step did not keep them. */
const float *session_logits(const session *s);

/* -1 with an error when one of these logits is not finite; 0 where they are, and where that step
 * kept none. `token` is for the message: the first, the second, ... A broken checkpoint, or an
 * overflow in F16, gives such logits at full speed. */
int session_check_logits(const session *s, int64_t token);

/* The tokenizer that belongs to a checkpoint: its folder's tokenizer.json, or a GGUF file's own
 * vocabulary. *out is NULL, and 0 returned, when it has none; -1 when it has one that cannot be
 * used. */
int open_tokenizer(const checkpoint *c, tokenizer **out);

/* The specifications of the model's caches, *n of them; free with free(). NULL when out of
 * memory. */
cache_spec *generate_caches(const model *m, const generate_options *o, int *n);

/* Bytes that the caches of such a session will need at the end, with what is marked. */
int64_t session_bytes(const model *m, const session_spec *spec);

/* -1 with a message when c's weights are more than `available` bytes (0: unknown): to be asked
 * before they are loaded. On a GPU the engine itself says what does not fit. */
int generate_check_weights(const checkpoint *c, const engine *e, int64_t available);

/* -1 with a message when they are more than `available` bytes (0: unknown): to be asked before a
 * session is made, so that a context beyond memory is refused before the system starts to swap, or
 * to kill. */
int session_check_memory(const model *m, const session_spec *spec, int64_t available);

#endif
