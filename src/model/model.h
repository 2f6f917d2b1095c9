/* model.h - a loaded model: one architecture family on one engine.
 * Families are a function and a line in model/architectures.def; callers see only this. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "checkpoint/checkpoint.h"
#include "engine/engine.h"

typedef struct model model;

/* Builds the model that c's config.json describes, with its weights on e. NULL with a message: an
 * unknown model_type lists the known ones. c and e must outlive it. model_free(NULL) is harmless;
 * it also drops e's weights. */
model *model_load(checkpoint *c, engine *e);
void model_free(model *m);

/* What callers may know of a model. */
typedef struct model_info {
    const char *model_type;
    int64_t n_layers, hidden_size, vocab_size;
    int64_t n_heads, n_kv_heads, head_dim;
    const char *never_quantized; /* why its caches cannot be, as in mlx-lm; NULL: they can */
    bool ignores_kv_bits;        /* mlx-lm leaves its caches as they are, whatever kv_bits says */
    bool own_caches; /* mlx-lm's make_cache: the model chooses its caches, max_kv_size has no effect */
} model_info;
const model_info *model_describe(const model *m);

/* The caches that the model needs, in the order in which model_forward takes them: fills in out[i]
 * for i < max, and returns how many there are. mlx-lm cache.py: make_prompt_cache, make_cache. */
typedef struct cache_options {
    int64_t max_kv_size; /* entries at most, 0: no limit; own_caches say what has no effect on it */
} cache_options;
int model_caches(const model *m, const cache_options *o, cache_spec out[], int max);

/* Logits [L, V] of ids [L]; caches: those of model_caches, which it appends to. mlx-lm:
 * Model.__call__. */
tensor model_forward(const model *m, graph *g, tensor ids, cache *const caches[]);

/* How large the weights of a synthetic checkpoint's model are; they are not made. -1 when it can't
 * be loaded.
 */
typedef struct model_weights {
    int64_t parameters, bytes;
} model_weights;
int model_weigh(const checkpoint *synthetic, model_weights *out);

/* A model_type that can be run, for lists. like: the model_type whose architecture it is; NULL: its
 * own. */
typedef struct model_kind {
    const char *model_type, *known, *like, *tested;
} model_kind;
bool model_kind_get(int i, model_kind *out); /* i = 0, 1, ... until false */

#endif
