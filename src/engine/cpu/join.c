/* join.c - what is computed together, what by every thread for itself, and what not at all, so that threads
 * meet less often.
 * A step of a small model is short: there, waiting for each other would cost more than the sums themselves.
 */
#include "engine/cpu/cpu.h"

enum { MOST_OWN = 16384 }; /* numbers that a thread computes sooner than it waits for another's */

static bool is_output(const node *x, int n, const tensor outputs[]) {
    for (int i = 0; i < n; i++) {
        tensor out = outputs[i];
        while (out->op == OP_HEADS) out = out->in[0];
        if (out == x) return true;
    }
    return false;
}

/* A single token's small operations. */
static bool is_own(const node *x, int n, const tensor outputs[]) {
    switch (x->op) {
    case OP_EMBED:
    case OP_RMS_NORM:
    case OP_ROPE:
    case OP_GATED:
    case OP_ADD:
    case OP_SCALE:
    case OP_ROUTE:
        return x->shape[0] == 1 && tensor_count(x) <= MOST_OWN && !is_output(x, n, outputs);
    default:
        return false;
    }
}

/* The node after x, if it alone reads x. */
static node *sole_reader(const node *x, op_kind op) {
    node *reader = x->readers == 1 ? x->reader : NULL;
    return reader && reader->op == op && reader->index == x->index + 1 ? reader : NULL;
}

static void join_sum(graph *g, node *x) {
    node *sum = sole_reader(x, OP_ADD);
    if (!sum || sum->in[0] == sum->in[1]) return;
    x->ending = sum;
    sum->by = graph_node(g, x->index);
}

/* Gate and up, two linears, and the activation that alone reads both: of many tokens they need not be whole
 * at any time. */
static void join_gated(node *gate, node *up) {
    node *both = sole_reader(up, OP_GATED);
    if (!both || both->in[0] != gate || both->in[1] != up || gate->readers != 1) return;
    gate->ending = both;
    both->by = gate;
}

/* x and the linears after it that share its input. */
static void join_linears(const cpu *e, graph *g, node *x) {
    int n = 0;
    for (; n < NODE_MAX_JOINED && x->index + 1 + n < g->n_nodes; n++) {
        node *other = graph_node(g, x->index + 1 + n);
        if (!other->live || other->op != OP_LINEAR || other->in[0] != x->in[0] ||
            !cpu_same_products(e, x, other))
            break;
        x->also[n] = other;
        other->by = x;
    }
    if (n == 1 && x->shape[0] > FEW_TOKENS) join_gated(x, x->also[0]);
    if (n == 0) join_sum(g, x);
}

/* The most likely id is that of the largest logit: log-probabilities that nobody else reads are not computed.
 */
static void skip_logprobs(graph *g, node *argmax) {
    node *logprobs = graph_node(g, argmax->in[0]->index);
    if (logprobs->op != OP_LOGPROBS || logprobs->readers != 1) return;
    logprobs->live = false;
    argmax->in[0] = logprobs->in[0];
}

void cpu_join(const cpu *e, graph *g, int n, const tensor outputs[]) {
    for (int i = 0; i < g->n_nodes; i++) {
        node *x = graph_node(g, i);
        if (!x->live) continue;
        if (x->op == OP_LINEAR && !x->by) join_linears(e, g, x);
        if (x->op == OP_EXPERTS) join_sum(g, x);
        if (x->op == OP_ARGMAX) skip_logprobs(g, x);
        /* One token's entry is stored by whoever attends to it. */
        if (x->op == OP_ATTEND && x->shape[0] == 1) graph_node(g, x->in[1]->index)->by = x;
        if (is_own(x, n, outputs) && !x->by) x->own = 1; /* plan.c knows the size */
    }
}
