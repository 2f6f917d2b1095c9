/* graph_record.h - what the files that record operations share (private to graph.c and graph_*.c).
 * Every operation checks its shapes once for all engines, and then adds a node. */
#ifndef ENGINE_GRAPH_RECORD_H
#define ENGINE_GRAPH_RECORD_H

#include "engine/graph.h"

extern const node nothing; /* what a failed operation returns */

/* A new node; NULL once the graph has failed. */
node *add_node(graph *g, op_kind op, dtype type);

/* Marks the graph as failed with an error that names the operation and the shapes it was given;
 * returns &nothing. */
tensor refuse(graph *g, const char *operation, tensor x, const char *wanted);

static inline void set_shape(node *x, int rank, int64_t a, int64_t b, int64_t c) {
    x->rank = rank;
    x->shape[0] = a;
    x->shape[1] = b;
    x->shape[2] = c;
}

static inline void copy_shape(node *x, tensor from) {
    set_shape(x, from->rank, from->shape[0], from->shape[1], from->shape[2]);
}

static inline bool same_shape(tensor a, tensor b) {
    if (a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->shape[i] != b->shape[i]) return false;
    return true;
}

/* MLX promotes: two different types of floats become F32. */
static inline enum dtype promoted(enum dtype a, enum dtype b) {
    return a == b ? a : DTYPE_F32;
}

/* Activations of a gate and what it is multiplied with, not of one number. */
static inline bool has_two_inputs(activation act) {
    return act == ACT_OAI || act == ACT_SILU_F32 || act == ACT_CLAMPED_7 || act == ACT_CLAMPED_16;
}

#endif
