/* test_engines_agree_attention.c - positions and attention on engine/cpu and engine/mlx.
 * What is compared, and how closely, is in engines_agree.h. */
#include "engines_agree.h"

static tensor of_rope(graph *g, const side *s, cache *c, tensor x) {
    (void)s;
    return rope(g, heads(g, x, HEADS), &ropes[0], c);
}
static tensor of_traditional_rope(graph *g, const side *s, cache *c, tensor x) {
    (void)s;
    return rope(g, heads(g, x, HEADS), &ropes[1], c);
}
static tensor of_scaled_rope(graph *g, const side *s, cache *c, tensor x) {
    (void)s;
    return rope(g, heads(g, x, HEADS), &ropes[2], c);
}
static tensor of_scale_positions(graph *g, const side *s, cache *c, tensor x) {
    (void)s;
    return scale_positions(g, heads(g, x, HEADS), (position_scale){.beta = 0.3f, .shift = 1, .n = 4}, c);
}
static tensor of_scale_positions_f32(graph *g, const side *s, cache *c, tensor x) {
    (void)s;
    return scale_positions(g, heads(g, x, HEADS),
                           (position_scale){.beta = 0.3f, .shift = 1, .n = 4, .f32 = true}, c);
}
static tensor of_sinks(graph *g, const side *s, cache *c, tensor x) {
    tensor k = rope(g, heads(g, linear(g, x, s->keys), KV_HEADS), &ropes[0], c);
    return attend(g, c, heads(g, x, HEADS), k, heads(g, linear(g, x, s->keys), KV_HEADS),
                  &(attend_spec){.scale = 0.2f, .sinks = s->router_bias}); /* as many as heads */
}
static tensor of_softcap(graph *g, const side *s, cache *c, tensor x) {
    tensor k = rope(g, heads(g, linear(g, x, s->keys), KV_HEADS), &ropes[0], c);
    return attend(g, c, heads(g, x, HEADS), k, heads(g, linear(g, x, s->keys), KV_HEADS),
                  &(attend_spec){.scale = 0.2f, .softcap = 0.1f});
}
static tensor of_f32_queries(graph *g, const side *s, cache *c, tensor x) {
    tensor k = rope(g, heads(g, linear(g, x, s->keys), KV_HEADS), &ropes[0], c);
    return attend(g, c, heads(g, x, HEADS), k, heads(g, linear(g, x, s->keys), KV_HEADS),
                  &(attend_spec){.scale = 0.2f, .f32 = true});
}
static tensor of_shared(graph *g, const side *s, cache *c, tensor x) {
    tensor y = of_attend(g, s, c, x);
    return add(g, y, attend_shared(g, c, heads(g, y, HEADS), &(attend_spec){.scale = 0.5f}));
}

static const agreement operations[] = {
    {.name = "scale_positions", .build = of_scale_positions},
    {.name = "scale_positions in F32", .build = of_scale_positions_f32},
    {.name = "rope", .build = of_rope},
    {.name = "traditional rope", .build = of_traditional_rope},
    {.name = "scaled rope", .build = of_scaled_rope},
    {.name = "attend", .build = of_attend},
    {.name = "attend, rotating cache", .build = of_attend, .max_size = 24},
    {.name = "attend, 8-bit cache", .build = of_attend, .kv_bits = 8},
    {.name = "attend, sinks", .build = of_sinks},
    {.name = "attend, sinks and rotating cache", .build = of_sinks, .max_size = 24},
    {.name = "attend, soft cap", .build = of_softcap},
    {.name = "attend, queries in F32", .build = of_f32_queries},
    {.name = "attend_shared", .build = of_shared},
    {.name = "attend, window", .build = of_attend, .window = 6},
    {.name = "attend, rotating cache and wider window", .build = of_attend, .max_size = 24, .window = 25},
    {.name = "attend, chunks", .build = of_attend, .chunk = 4},
    {.name = "attend, a chunk that goes on", .build = of_attend, .chunk = 40},
    {.name = "attend, window and 8-bit cache", .build = of_attend, .window = 6, .kv_bits = 8},
};

static void test_operations(void **state) {
    (void)state;
    check_agreements(operations, COUNT(operations));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_operations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
