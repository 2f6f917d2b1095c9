/* graph_streams.c - recording operations on several streams of one text, side by side (Gemma 3n's).
 * The operations are described in engine.h; what is asked here, no engine needs to ask. */
#include "engine/graph_record.h"

tensor predict_streams(graph *g, tensor in, tensor coefficients) {
    int64_t n = 1;
    while (coefficients->rank == 2 && n * n < coefficients->shape[1]) n++;
    if (in->rank != 2 || coefficients->rank != 2 || coefficients->shape[0] != in->shape[0] ||
        n * n != coefficients->shape[1] || in->shape[1] % n)
        return refuse(g, "predict_streams", in, "there is not a coefficient for each two of them");
    node *x = add_node(g, OP_PREDICT_STREAMS, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    x->in[1] = coefficients;
    x->streams.n = (int)n;
    copy_shape(x, in);
    return x;
}

tensor correct_streams(graph *g, tensor in, tensor y, tensor coefficients, int active) {
    int64_t n = coefficients->rank == 2 ? coefficients->shape[1] : 0;
    if (in->rank != 2 || y->rank != 2 || active < 0 || active >= n || in->shape[1] != n * y->shape[1] ||
        y->shape[0] != in->shape[0] || coefficients->shape[0] != in->shape[0])
        return refuse(g, "correct_streams", in, "there is not a coefficient for each of them");
    node *x = add_node(g, OP_CORRECT_STREAMS, promoted(in->dtype, y->dtype));
    if (!x) return &nothing;
    x->in[0] = in;
    x->in[1] = y;
    x->in[2] = coefficients;
    x->streams.n = (int)n;
    x->streams.active = active;
    copy_shape(x, in);
    return x;
}

tensor add_to_streams(graph *g, tensor in, tensor y) {
    if (in->rank != 2 || y->rank != 2 || in->shape[0] != y->shape[0] || in->shape[1] % y->shape[1])
        return refuse(g, "add_to_streams", in, "what is added has another width");
    node *x = add_node(g, OP_ADD_TO_STREAMS, promoted(in->dtype, y->dtype));
    if (!x) return &nothing;
    x->in[0] = in;
    x->in[1] = y;
    x->streams.n = (int)(in->shape[1] / y->shape[1]);
    copy_shape(x, in);
    return x;
}

tensor mean_of_streams(graph *g, tensor in, int n) {
    if (in->rank != 2 || n < 1 || in->shape[1] % n)
        return refuse(g, "mean_of_streams", in, "the width is no multiple of their number");
    node *x = add_node(g, OP_MEAN_OF_STREAMS, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    x->streams.n = n;
    set_shape(x, 2, in->shape[0], in->shape[1] / n, 0);
    return x;
}

tensor rescale(graph *g, tensor in, tensor like) {
    if (!same_shape(in, like)) return refuse(g, "rescale", like, "the other operand has another shape");
    node *x = add_node(g, OP_RESCALE, promoted(in->dtype, like->dtype));
    if (!x) return &nothing;
    x->in[0] = in;
    x->in[1] = like;
    copy_shape(x, in);
    return x;
}

tensor gelu_above(graph *g, tensor in, float deviations) {
    node *x = add_node(g, OP_GELU_ABOVE, in->dtype);
    if (!x) return &nothing;
    x->in[0] = in;
    x->scale = deviations;
    copy_shape(x, in);
    return x;
}
