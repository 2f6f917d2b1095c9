/* touched.c - which experts steps ran, layer by layer: how much of a mixture of experts a text
 * uses. Engines say what a router chose; here it is kept from step to step. */
#include "engine/graph.h"

#include <stdlib.h>

/* A layer is known by its experts' last matrix. */
typedef struct touched_layer {
    const weight *down;
    unsigned char
        *experts; /* [choices] of its router: more than there are experts, where some have no matrices */
} touched_layer;

void graph_note_experts(graph *g) {
    g->notes_experts = true;
}

void graph_forget_touched(graph *g) {
    for (int i = 0; i < g->n_touched; i++) free(g->touched[i].experts);
    free(g->touched);
    g->touched = NULL;
    g->n_touched = 0;
}

/* That of the experts x; NULL when out of memory. */
static unsigned char *touched_by(graph *g, const node *x) {
    for (int i = 0; i < g->n_touched; i++)
        if (g->touched[i].down == x->w[2]) return g->touched[i].experts;
    void *layers = g->touched;
    if (mem_resize(&layers, (size_t)g->n_touched + 1, sizeof *g->touched, "the experts touched")) return NULL;
    g->touched = layers;
    unsigned char *experts = mem_new((size_t)x->in[1]->in[0]->shape[1], 1, "the experts touched");
    if (experts) g->touched[g->n_touched++] = (touched_layer){x->w[2], experts};
    return experts;
}

int graph_make_touched(graph *g) {
    for (int i = 0; i < g->n_nodes; i++) {
        const node *x = graph_node(g, i);
        if (!x->live || x->op != OP_EXPERTS) continue;
        unsigned char *experts = touched_by(g, x);
        if (!experts) return -1;
        graph_node(g, x->in[1]->index)->touched = experts;
    }
    return 0;
}

double engine_experts_touched(engine *e) {
    graph *g = &e->graph;
    int64_t n = 0, layers = 0;
    for (int i = 0; i < g->n_touched; i++) {
        int64_t before = n;
        for (int64_t k = 0; k < g->touched[i].down->shape[0]; k++) n += g->touched[i].experts[k];
        layers += n > before;
    }
    graph_forget_touched(g);
    return layers ? (double)n / (double)layers : 0;
}
