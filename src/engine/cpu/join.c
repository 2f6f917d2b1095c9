/* join.c - what is computed together, what by every thread for itself, and what not at all, so that
 * threads meet less often. A step of a small model is short: there, waiting for each other would
 * cost more than the sums themselves.
 */
#include "engine/cpu/cpu.h"

enum { MOST_OWN = 16384 }; /* numbers that a thread computes sooner than it waits for another's */

static bool is_output(const node *x, int n, const tensor outputs[]) {
    for (int i = 0; i < n; i++) {
        tensor out = outputs[i];
        while (op_flags[out->op] & VIEW) out = out->in[0];
        if (out == x) return true;
    }
    return false;
}

/* A single token's small operations. */
static bool is_own(const node *x, int n, const tensor outputs[]) {
    return op_flags[x->op] & SMALL && x->shape[0] == 1 && tensor_count(x) <= MOST_OWN &&
           !is_output(x, n, outputs);
}

/* The node after x, if it alone reads x. */
static const node *sole_reader(const node *x, op_kind op) {
    const node *reader = x->readers == 1 ? x->reader : NULL;
    return reader && reader->op == op && reader->index == x->index + 1 ? reader : NULL;
}

static void join_sum(const cpu *e, const node *x) {
    const node *sum = sole_reader(x, OP_ADD);
    if (!sum || sum->in[0] == sum->in[1]) return;
    state_of(e, x)->ending = sum;
    state_of(e, sum)->by = x;
}

/* Gate and up, two linears, and the activation that alone reads both: of many tokens they need not
 * be whole at any time. */
static void join_gated(const cpu *e, const node *gate, const node *up) {
    const node *both = sole_reader(up, OP_GATED);
    if (!both || both->in[0] != gate || both->in[1] != up || gate->readers != 1) return;
    state_of(e, gate)->ending = both;
    state_of(e, both)->by = gate;
}

/* x and those of its group that follow it. */
static void join_linears(const cpu *e, const graph *g, const node *x) {
    int n = 0;
    for (; n < CPU_MAX_JOINED && x->index + 1 + n < g->n_nodes; n++) {
        const node *other = graph_node(g, x->index + 1 + n);
        if (!other->live || other->op != OP_LINEAR || other->group != x->group ||
            !cpu_same_products(e, x, other))
            break;
        state_of(e, other)->by = x;
    }
    state_of(e, x)->n_joined = n;
    if (n == 1 && !cpu_has_few_tokens(e, x)) join_gated(e, x, graph_node(g, x->index + 1));
    if (n == 0) join_sum(e, x);
}

/* The most likely id is that of the largest logit: log-probabilities that nobody else reads are not
 * computed.
 */
static void skip_logprobs(const cpu *e, const node *argmax) {
    const node *from = argmax->in[0];
    state_of(e, from)->skipped = from->op == OP_LOGPROBS && from->readers == 1;
}

void cpu_join(const cpu *e, const graph *g, int n, const tensor outputs[]) {
    for (int i = 0; i < g->n_nodes; i++) {
        const node *x = graph_node(g, i);
        if (!x->live) continue;
        if (x->op == OP_LINEAR && !state_of(e, x)->by) join_linears(e, g, x);
        if (x->op == OP_EXPERTS) join_sum(e, x);
        if (x->op == OP_ARGMAX) skip_logprobs(e, x);
        /* One token's entry is stored by whoever attends to it. */
        if (x->op == OP_ATTEND && rows_per_sequence(g, x) == 1 && x->in[1]->readers == 1)
            state_of(e, x->in[1])->by = x;
        if (is_own(x, n, outputs) && !state_of(e, x)->by) state_of(e, x)->own = 1; /* plan.c knows the size */
    }
}
