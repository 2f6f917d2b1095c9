/* test_engines_agree.c - operations without a cache on engine/cpu and engine/mlx.
 * What is compared, and how closely, is in engines_agree.h. */
#include "engines_agree.h"

static tensor of_embed(graph *g, const side *s, cache *c, tensor x) {
    (void)g, (void)s, (void)c;
    return x;
}
static tensor of_linear(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return linear(g, x, s->square);
}
static tensor of_bias(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return linear(g, x, s->biased);
}
static tensor of_norm(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return rms_norm(g, x, s->norm, 1e-5f);
}
static tensor of_head_norm(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return rms_norm(g, heads(g, x, HEADS), s->head_norm, 1e-6f);
}
static tensor of_bare_norm(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return rms_norm(g, x, NULL, 1e-5f);
}
static tensor of_silu(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_SILU, x, linear(g, x, s->square));
}
static tensor of_gelu(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_GELU_TANH, x, linear(g, x, s->square));
}
static tensor of_add(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return add(g, x, linear(g, x, s->square));
}
static tensor of_clip(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    tensor large = scale(g, x, 300000);
    return add_clipped(g, large, large);
}
static tensor of_clip_both_ends(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return clip(g, scale(g, x, 3), 1.3f);
}
static tensor of_swap_heads(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return flatten(g, swap_heads(g, heads(g, x, 16), 8));
}
static tensor of_mix(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    tensor a = heads(g, x, EXPERTS), b = heads(g, linear(g, x, s->square), EXPERTS);
    return flatten(g, blend(g, heads(g, linear(g, x, s->router), EXPERTS), a, b));
}
static tensor of_fake_quant(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return fake_quant(g, scale(g, x, 60), s->number[0]);
}
static tensor of_scale(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return scale(g, x, 11.3137f);
}
static tensor of_logprobs(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return logprobs(g, linear(g, x, s->table));
}
/* Ids, read as floats: the tiny ones that small integers look like, which must then be equal. */
static tensor of_argmax(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return argmax(g, x);
}
static tensor of_gelu_erf_gate(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_GELU, x, linear(g, x, s->square));
}
static tensor of_relu_gate(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_RELU, x, linear(g, x, s->square));
}
static tensor of_relu2_gate(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_RELU2, x, linear(g, x, s->square));
}
static tensor of_oai_gate(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_OAI, x, linear(g, x, s->square));
}
static tensor activate_silu(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_SILU, x);
}
static tensor activate_gelu_tanh(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_GELU_TANH, x);
}
static tensor activate_gelu(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_GELU, x);
}
static tensor activate_relu2(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_RELU2, x);
}
static tensor activate_sigmoid_f32(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_SIGMOID_F32, x);
}
static tensor activate_sigmoid(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_SIGMOID, x);
}
static tensor activate_tanh(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_TANH, x);
}
static tensor activate_softplus(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_SOFTPLUS, x);
}
static tensor of_xielu(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    const weight *const *n = s->number;
    return xielu(g, scale(g, x, 4), &(xielu_spec){n[0], n[1], n[2], n[3]});
}
static tensor of_softmax(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return softmax(g, scale(g, x, 8));
}
static tensor of_softmax_of_heads(graph *g, const side *s, cache *c, tensor x) {
    (void)s;
    return flatten(g, softmax(g, rope(g, heads(g, x, HEADS), &ropes[0], c)));
}
static tensor of_divide(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return divide(g, x, 3.1f);
}
static tensor of_soft_cap(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return soft_cap(g, x, 0.3f);
}
static tensor of_product(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return product(g, x, linear(g, x, s->square));
}
static tensor of_product_by_head(graph *g, const side *s, cache *c, tensor x) {
    return flatten(g, product(g, rope(g, heads(g, x, EXPERTS), &ropes[0], c),
                              heads(g, linear(g, x, s->router), EXPERTS)));
}
static tensor of_product_weight(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return product_weight(g, x, s->norm);
}
static tensor of_part(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return scale(g, part(g, x, 32, 64), 1); /* a result that is read is whole */
}
static tensor of_part_of_heads(graph *g, const side *s, cache *c, tensor x) {
    (void)s;
    return flatten(g, part(g, rope(g, heads(g, x, HEADS), &ropes[0], c), 5, 20));
}
static tensor of_concat(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return concat(g, part(g, x, 5, 40), linear(g, x, s->keys));
}
static tensor of_silu_f32(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_SILU_F32, x, linear(g, x, s->square));
}
static tensor of_clamped(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return gated(g, ACT_CLAMPED_7, scale(g, x, 20), scale(g, linear(g, x, s->square), 20));
}
static tensor of_f32(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return activate(g, ACT_TANH, as_f32(g, x));
}
static tensor of_embed_or_first(graph *g, const side *s, cache *c, tensor x) {
    static const int32_t some[] = {5, ROWS - 1, ROWS, ROWS + 1000};
    int32_t ids[70];
    (void)c;
    for (int64_t i = 0; i < tensor_dim(x, 0); i++) ids[i] = some[(i + 2) % COUNT(some)];
    return scale(g, embed_or_first(g, tokens(g, ids, tensor_dim(x, 0)), s->table), 1);
}
static tensor of_predict_streams(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return predict_streams(g, x, as_f32(g, linear(g, x, s->router)));
}
static tensor of_correct_streams(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return correct_streams(g, x, part(g, linear(g, x, s->square), 3, DIM / EXPERTS),
                           as_f32(g, linear(g, x, s->router)), 1);
}
static tensor of_add_to_streams(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return add_to_streams(g, x, part(g, linear(g, x, s->square), 3, DIM / 4));
}
static tensor of_mean_of_streams(graph *g, const side *s, cache *c, tensor x) {
    (void)s, (void)c;
    return mean_of_streams(g, x, 4);
}
static tensor of_embed_positions(graph *g, const side *s, cache *c, tensor x) {
    static const int32_t ids[70];
    return add(g, x, embed_positions(g, tokens(g, ids, tensor_dim(x, 0)), s->table, c));
}
static tensor of_rescale(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    return rescale(g, x, linear(g, x, s->square));
}
static tensor of_gelu_above(graph *g, const side *s, cache *c, tensor x) {
    (void)c;
    tensor y = linear(g, x, s->square); /* the errors are as large as those of y */
    return add(g, gelu_above(g, y, 0.5f), y);
}

static const agreement operations[] = {
    {.name = "embed", .build = of_embed},
    {.name = "linear", .build = of_linear},
    {.name = "linear with bias", .build = of_bias},
    {.name = "rms_norm", .build = of_norm},
    {.name = "rms_norm of heads", .build = of_head_norm},
    {.name = "rms_norm without weight", .build = of_bare_norm},
    {.name = "gated, silu", .build = of_silu},
    {.name = "gated, gelu", .build = of_gelu},
    {.name = "add", .build = of_add},
    {.name = "add_clipped", .build = of_clip},
    {.name = "scale", .build = of_scale},
    {.name = "gated, exact gelu", .build = of_gelu_erf_gate},
    {.name = "gated, relu", .build = of_relu_gate},
    {.name = "gated, relu2", .build = of_relu2_gate},
    {.name = "gated, oai", .build = of_oai_gate},
    {.name = "silu", .build = activate_silu},
    {.name = "gelu, tanh", .build = activate_gelu_tanh},
    {.name = "gelu", .build = activate_gelu},
    {.name = "relu2", .build = activate_relu2},
    {.name = "sigmoid", .build = activate_sigmoid},
    {.name = "sigmoid in F32", .build = activate_sigmoid_f32},
    {.name = "tanh", .build = activate_tanh},
    {.name = "softplus", .build = activate_softplus},
    {.name = "xielu", .build = of_xielu},
    {.name = "softmax", .build = of_softmax},
    {.name = "softmax of heads", .build = of_softmax_of_heads},
    {.name = "divide", .build = of_divide},
    {.name = "soft_cap", .build = of_soft_cap},
    {.name = "clip", .build = of_clip_both_ends},
    {.name = "swap_heads", .build = of_swap_heads},
    {.name = "blend", .build = of_mix},
    {.name = "fake_quant", .build = of_fake_quant, .choosy = true},
    {.name = "embed_positions", .build = of_embed_positions},
    {.name = "product", .build = of_product},
    {.name = "product by head", .build = of_product_by_head},
    {.name = "product_weight", .build = of_product_weight},
    {.name = "part", .build = of_part},
    {.name = "part of heads", .build = of_part_of_heads},
    {.name = "as_f32", .build = of_f32},
    {.name = "concat", .build = of_concat},
    {.name = "gated, silu in F32", .build = of_silu_f32},
    {.name = "gated, clamped", .build = of_clamped},
    {.name = "embed_or_first", .build = of_embed_or_first},
    {.name = "predict_streams", .build = of_predict_streams},
    {.name = "correct_streams", .build = of_correct_streams},
    {.name = "add_to_streams", .build = of_add_to_streams},
    {.name = "mean_of_streams", .build = of_mean_of_streams},
    {.name = "rescale", .build = of_rescale},
    {.name = "gelu_above", .build = of_gelu_above},
    {.name = "logprobs", .build = of_logprobs},
    {.name = "argmax", .build = of_argmax, .choosy = true},
};

static void test_operations(void **state) {
    (void)state;
    check_agreements(operations, COUNT(operations));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_operations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
