/* names.c - what mlx-lm calls the weights of most decoders; a description changes what is
 * particular. */
#include "model/decoder.h"

const names default_names = {
    .embed = "model.embed_tokens",
    .norm = "model.norm",
    .head = "lm_head",
    .layers = "model.layers",
    .q = "self_attn.q_proj",
    .k = "self_attn.k_proj",
    .v = "self_attn.v_proj",
    .qkv = "self_attn.qkv_proj",
    .o = "self_attn.o_proj",
    .q_norm = "self_attn.q_norm",
    .k_norm = "self_attn.k_norm",
    .out_gate = "self_attn.gate_proj",
    .sinks = "self_attn.sinks",
    .out_norm = "self_attn.attn_sub_norm",
    .linear = "self_attn.linear",
    .ffn_linear = "mlp.linear",
    .pre = "input_layernorm",
    .post = "post_attention_layernorm", /* of PLACES_POST and PLACES_SANDWICH */
    .ffn_pre = "post_attention_layernorm",
    .ffn_post = "post_feedforward_layernorm",
    .gate = "mlp.gate_proj",
    .up = "mlp.up_proj",
    .gate_up = "mlp.gate_up_proj",
    .down = "mlp.down_proj",
    .mlp_norm = "mlp.ffn_sub_norm",
    .xielu = "mlp.act_fn",
    .router = "mlp.gate",
    .router_bias = "mlp.gate.e_score_correction_bias",
    .experts = "mlp.switch_mlp",
    .shared = "mlp.shared_experts",
    .shared_gate = "mlp.shared_expert_gate",
    .coefficients = "mlp.coefficient",
};

#define VISION_RULES                                                                                         \
    {NAME_DROP, "vision_tower.", NULL}, {NAME_DROP, "vision_model.", NULL}, {NAME_DROP, "visual.", NULL},    \
        {NAME_DROP, "multi_modal_projector.", NULL}, {NAME_DROP, "audio_tower.", NULL},                      \
        {NAME_DROP, "embed_vision.", NULL}, {NAME_DROP, "embed_audio.", NULL}, {NAME_DROP, "mtp.", NULL},    \
        {NAME_DROP, "model.vision_tower.", NULL}, {NAME_DROP, "model.vision_model.", NULL},                  \
        {NAME_DROP, "model.visual.", NULL}, {NAME_DROP, "model.multi_modal_projector.", NULL},               \
        {NAME_DROP, "model.audio_tower.", NULL}, {NAME_DROP, "model.embed_vision.", NULL},                   \
        {NAME_DROP, "model.embed_audio.", NULL}, {NAME_START, "model.language_model.model.", "model."},      \
        {NAME_START, "model.language_model.", "model."}, {                                                   \
        NAME_START, "language_model.", ""                                                                    \
    }

/* Kimi's projector, too. */
const name_rule kimi_rules[] = {{NAME_DROP, "mm_projector.", NULL}, VISION_RULES, {NAME_END, NULL, NULL}};

const name_rule vision_rules[] = {VISION_RULES, {NAME_END, NULL, NULL}};

/* Gemma 4 has ranges of quantized activations, too. */
const name_rule gemma4_rules[] = {{NAME_DROP_PART, "self_attn.rotary_emb", NULL},
                                  {NAME_DROP_PART, "input_max", NULL},
                                  {NAME_DROP_PART, "input_min", NULL},
                                  {NAME_DROP_PART, "output_max", NULL},
                                  {NAME_DROP_PART, "output_min", NULL},
                                  {NAME_DROP, "vision_embedder.", NULL},
                                  {NAME_DROP, "model.vision_embedder.", NULL},
                                  VISION_RULES,
                                  {NAME_END, NULL, NULL}};

/* ---- published tensors that hold the gate and the up of all experts ---- */

/* `to` is the module that the experts become. */
#define HALVES(from_, to_, transposed_)                                                                      \
    {.from = from_, .to = to_ ".gate_proj.weight", .rows = ROWS_FIRST_HALF, .transposed = transposed_}, {    \
        .from = from_, .to = to_ ".up_proj.weight", .rows = ROWS_SECOND_HALF, .transposed = transposed_      \
    }
#define WHOLE(from_, to_, transposed_)                                                                       \
    { .from = from_, .to = to_ ".down_proj.weight", .rows = ROWS_ALL, .transposed = transposed_ }
#define NO_MORE                                                                                              \
    { .from = NULL }

const slice_rule gemma4_slices[] = {HALVES(".experts.gate_up_proj", ".experts.switch_glu", false),
                                    WHOLE(".experts.down_proj", ".experts.switch_glu", false), NO_MORE};
const slice_rule qwen3_5_slices[] = {HALVES(".mlp.experts.gate_up_proj", ".mlp.switch_mlp", false),
                                     WHOLE(".mlp.experts.down_proj", ".mlp.switch_mlp", false), NO_MORE};
const slice_rule qwen3_vl_slices[] = {HALVES(".mlp.experts.gate_up_proj", ".mlp.switch_mlp", true),
                                      WHOLE(".mlp.experts.down_proj", ".mlp.switch_mlp", true), NO_MORE};
const slice_rule granite_slices[] = {
    HALVES(".block_sparse_moe.input_linear.weight", ".block_sparse_moe.switch_mlp", false),
    WHOLE(".block_sparse_moe.output_linear.weight", ".block_sparse_moe.switch_mlp", false), NO_MORE};
const slice_rule llama4_slices[] = {
    HALVES(".feed_forward.experts.gate_up_proj", ".feed_forward.experts", true),
    WHOLE(".feed_forward.experts.down_proj", ".feed_forward.experts", true), NO_MORE};

/* Rows of gate and up take turns. */
#define TURNS(from_, to_, packed_)                                                                           \
    {.from = ".experts.gate_up_proj" from_,                                                                  \
     .to = ".experts.gate_proj" to_,                                                                         \
     .rows = ROWS_EVEN,                                                                                      \
     .packed = packed_},                                                                                     \
        {.from = ".experts.gate_up_proj" from_,                                                              \
         .to = ".experts.up_proj" to_,                                                                       \
         .rows = ROWS_ODD,                                                                                   \
         .packed = packed_},                                                                                 \
    {                                                                                                        \
        .from = ".experts.down_proj" from_, .to = ".experts.down_proj" to_, .packed = packed_                \
    }

const slice_rule gpt_oss_slices[] = {TURNS("_blocks", ".weight", true), TURNS("_scales", ".scales", false),
                                     TURNS("_bias", ".bias", false), NO_MORE};
