/* graph.c - recording: a step begins, nodes are added by graph_*.c, one file a group of operations,
 * and the step ends. After a first error nothing more is recorded; graph_end reports it. */
#include "engine/graph_record.h"

#include <stdlib.h>

const int op_flags[OP_COUNT] = {
#define OP(name, function, flags) [OP_##name] = (flags),
    ENGINE_OPS(OP)
#undef OP
};

const node nothing = {.op = OP_COUNT, .rank = 1};

graph *graph_begin(engine *e, int n_sequences) {
    graph *g = &e->graph;
    g->engine = e;
    g->n_sequences = n_sequences;
    g->step++;
    g->n_nodes = 0;
    g->n_ids = 0;
    g->failed = false;
    g->notes_experts = false;
    return g;
}

void graph_release(graph *g) {
    for (int i = 0; i < g->n_blocks; i++) free(g->blocks[i]);
    free(g->blocks);
    free(g->ids);
    graph_forget_touched(g);
    *g = (graph){0};
}

bool graph_failed(const graph *g) {
    return g->failed;
}

int64_t tensor_dim(tensor x, int i) {
    return x->shape[i];
}

static bool grow(graph *g) {
    void *blocks = g->blocks;
    if (mem_resize(&blocks, (size_t)g->n_blocks + 1, sizeof *g->blocks, "a graph")) return false;
    g->blocks = blocks;
    g->blocks[g->n_blocks] = mem_new(GRAPH_BLOCK, sizeof(node), "a graph");
    if (!g->blocks[g->n_blocks]) return false;
    g->n_blocks++;
    return true;
}

node *add_node(graph *g, op_kind op, dtype type) {
    if (g->failed) return NULL;
    if (g->n_nodes == g->n_blocks * GRAPH_BLOCK && !grow(g)) {
        g->failed = true;
        return NULL;
    }
    node *x = graph_node(g, g->n_nodes);
    *x = (node){.op = op, .dtype = type, .index = g->n_nodes++};
    return x;
}

tensor refuse(graph *g, const char *operation, tensor x, const char *wanted) {
    char shape[64];
    if (!g->failed)
        fail("%s of %s: %s", operation, shape_text(shape, sizeof shape, x->rank, x->shape), wanted);
    g->failed = true;
    return &nothing;
}

void graph_mark_live(graph *g, int n, const tensor outputs[]) {
    for (int i = 0; i < g->n_nodes; i++) {
        node *x = graph_node(g, i);
        x->live = op_flags[x->op] & EFFECT;
        x->readers = 0;
        x->reader = NULL;
    }
    for (int i = 0; i < n; i++) {
        node *x = graph_node(g, outputs[i]->index);
        x->live = true;
        x->readers++;
    }
    for (int i = g->n_nodes - 1; i >= 0; i--) {
        node *x = graph_node(g, i);
        for (int k = 0; k < NODE_MAX_INPUTS && x->live; k++) {
            if (!x->in[k]) continue;
            node *from = graph_node(g, x->in[k]->index);
            from->live = true;
            from->readers++;
            if (!from->reader) from->reader = x;
        }
    }
}

/* Every cache that the step writes goes on by its tokens, before the engine runs it: MLX slices to
 * there. */
static void advance_caches(graph *g) {
    for (int i = 0; i < g->n_nodes; i++) {
        node *x = graph_node(g, i);
        if (op_flags[x->op] & EFFECT) x->cache->offset = x->position + rows_per_sequence(g, x);
    }
}

int graph_end(graph *g, int n, const tensor outputs[], result *results[]) {
    if (g->failed) return -1;
    if (interrupted()) return fail_interrupted();
    graph_mark_live(g, n, outputs);
    if (g->notes_experts && graph_make_touched(g)) return -1;
    advance_caches(g);
    return g->engine->type->run(g->engine, g, n, outputs, results);
}
