/* graph_experts.c - recording routing, and the experts it chose.
 * The operations are described in engine.h; what is asked here, no engine needs to ask. */
#include "engine/graph_record.h"

tensor route(graph *g, tensor logits, const route_spec *spec) {
    int64_t n = logits->rank == 2 ? logits->shape[1] : 0;
    if (spec->k < 1 || spec->k > n) return refuse(g, "route", logits, "has fewer experts than k");
    if (spec->bias && (spec->bias->rank != 1 || spec->bias->shape[0] != n))
        return refuse(g, "route", logits, "has another number of experts than the bias");
    if (spec->expert_scale && (spec->expert_scale->rank != 1 || spec->expert_scale->shape[0] != n))
        return refuse(g, "route", logits, "has another number of experts than their scales");
    if (spec->n_group > 1 && (n % spec->n_group || spec->topk_group < 1 || spec->topk_group > spec->n_group))
        return refuse(g, "route", logits, "does not fall into these groups");
    if (spec->on_input && spec->k != 1)
        return refuse(g, "route", logits, "more than one expert weighs the input");
    node *x = add_node(g, OP_ROUTE, DTYPE_OTHER);
    if (!x) return &nothing;
    x->in[0] = logits;
    x->w[0] = spec->bias;
    x->w[1] = spec->expert_scale;
    x->route = *spec;
    set_shape(x, 2, logits->shape[0], spec->k, 0);
    return x;
}

tensor experts(graph *g, tensor in, tensor routing, activation act, const weight *gate, const weight *up,
               const weight *down) {
    if (!gate && has_two_inputs(act)) return refuse(g, "experts", in, "this activation has two inputs");
    bool fits = in->rank == 2 && up->rank == 3 && down->rank == 3 && up->shape[2] == in->shape[1] &&
                down->shape[1] == in->shape[1] && up->shape[1] == down->shape[2];
    if (gate)
        fits = fits && gate->rank == 3 && gate->shape[2] == in->shape[1] && gate->shape[1] == up->shape[1];
    int64_t choices = up->shape[0] + (routing->op == OP_ROUTE ? routing->route.identities : 0);
    if (!fits || routing->op != OP_ROUTE || routing->in[0]->shape[1] != choices)
        return refuse(g, "experts", in, "input, routing and weights do not fit together");
    node *x = add_node(g, OP_EXPERTS, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    x->in[1] = routing;
    x->act = act;
    x->w[0] = gate ? gate : up;
    x->w[1] = gate ? up : NULL;
    x->w[2] = down;
    copy_shape(x, in);
    return x;
}
