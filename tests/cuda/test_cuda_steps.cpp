/* test_cuda_steps.cpp - whole decode steps, fused and as mlx-lm makes them, without a GPU: the same
 * logits. The engine is told that there are kernels for its device; how many ran shows that
 * patterns were found. */
#include "values.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

extern "C" {
#include "model/model.h"
const engine_module *mlxbench_engine_module(void);
}

/* ---- tiny random checkpoints ---- */

enum { HIDDEN = 256, MLP = 192, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 64 };
enum { VOCABULARY = 320, LAYERS = 2, MANY_LAYERS = 9 };

struct family {
    const char *name, *fields = ""; /* config.json's model_type, and what it has that the others have not */
    bool qkv_biases = false, other_biases = false, head_norms = false, gemma = false;
    int experts = 0, per_token = 0, expert_bits = 0; /* bits: others than those of all linears */
    int layers = LAYERS;
};

static const char LLAMA3_ROPE[] = R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0,
    "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},)";
static const char BIASES[] = R"("attention_bias": true, "mlp_bias": true, "rope_traditional": true,
    "rope_scaling": {"type": "linear", "factor": 4.0},)";
static const char WINDOW[] =
    R"("sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"],)";
static const char MOE[] = R"("decoder_sparse_step": 1, "mlp_only_layers": [], "moe_intermediate_size": 192,
    "norm_topk_prob": true,)";
static const char MOE_DENSE_LAYER[] = R"("decoder_sparse_step": 1, "mlp_only_layers": [0],
    "moe_intermediate_size": 192, "norm_topk_prob": false,)";
static const char GEMMA[] = R"("sliding_window": 16, "sliding_window_pattern": 2, "query_pre_attn_scalar": 64,
    "rope_local_base_freq": 10000.0,)";

static const family llama = {.name = "llama", .fields = LLAMA3_ROPE};
static const family llama_biases = {
    .name = "llama", .fields = BIASES, .qkv_biases = true, .other_biases = true};
static const family llama_window = {.name = "llama", .fields = WINDOW};
static const family llama_deep = {.name = "llama", .fields = LLAMA3_ROPE, .layers = MANY_LAYERS};
static const family qwen2 = {.name = "qwen2", .qkv_biases = true};
static const family qwen3 = {.name = "qwen3", .head_norms = true};
static const family moe_all = {
    .name = "qwen3_moe", .fields = MOE, .head_norms = true, .experts = 4, .per_token = 4};
static const family moe = {
    .name = "qwen3_moe", .fields = MOE, .head_norms = true, .experts = 12, .per_token = 3};
static const family moe_dense_layer = {
    .name = "qwen3_moe", .fields = MOE_DENSE_LAYER, .head_norms = true, .experts = 9, .per_token = 6};
static const family moe_3_bits = {
    .name = "qwen3_moe", .fields = MOE, .head_norms = true, .experts = 4, .per_token = 4, .expert_bits = 3};
static const family gemma3 = {.name = "gemma3_text", .fields = GEMMA, .head_norms = true, .gemma = true};

struct format {
    mx::Dtype type;
    int bits;
};

using named_arrays = std::unordered_map<std::string, mx::array>;

class checkpoint_writer {
    named_arrays made{};
    std::string other_bits{}; /* fields of config.json's quantization */
    const family &f;
    format as;

  public:
    checkpoint_writer(const family &f_, format as_) : f(f_), as(as_) {
    }

    void norm(const std::string &name, int n) {
        made.insert_or_assign(name + ".weight", random_values({n}, as.type, 0.2f, f.gemma ? 0 : 1));
    }
    /* spread: of its results, where the inputs have a spread of 1. [rows, columns], or one per
     * expert */
    void linear(const std::string &name, mx::Shape shape, float spread, bool bias = false, int bits = 0) {
        float columns = static_cast<float>(shape.back());
        add(name, random_values(shape, as.type, spread / std::sqrt(columns)), bits);
        if (bias) made.insert_or_assign(name + ".bias", random_values({shape[0]}, as.type, 0.3f));
    }
    void add(const std::string &name, const mx::array &plain, int bits) {
        made.insert_or_assign(name + ".weight", plain);
        if (!as.bits) return;
        std::vector<mx::array> packed = mx::quantize(plain, 64, bits ? bits : as.bits);
        if (bits)
            other_bits += ", \"" + name + R"(": {"group_size": 64, "bits": )" + std::to_string(bits) + "}";
        made.insert_or_assign(name + ".weight", packed[0]);
        made.insert_or_assign(name + ".scales", packed[1]);
        made.insert_or_assign(name + ".biases", packed[2]);
    }
    void attention(const std::string &layer) {
        linear(layer + "self_attn.q_proj", {HEADS * HEAD_DIM, HIDDEN}, 1.5f, f.qkv_biases);
        linear(layer + "self_attn.k_proj", {KV_HEADS * HEAD_DIM, HIDDEN}, 1.5f, f.qkv_biases);
        linear(layer + "self_attn.v_proj", {KV_HEADS * HEAD_DIM, HIDDEN}, 1, f.qkv_biases);
        linear(layer + "self_attn.o_proj", {HIDDEN, HEADS * HEAD_DIM}, 1, f.other_biases);
        if (!f.head_norms) return;
        norm(layer + "self_attn.q_norm", HEAD_DIM);
        norm(layer + "self_attn.k_norm", HEAD_DIM);
    }
    void mlp(const std::string &layer) {
        linear(layer + "mlp.gate_proj", {MLP, HIDDEN}, 1.5f, f.other_biases);
        linear(layer + "mlp.up_proj", {MLP, HIDDEN}, 1.5f, f.other_biases);
        linear(layer + "mlp.down_proj", {HIDDEN, MLP}, 1, f.other_biases);
    }
    /* 8 bits, as in mlx-lm. All experts' rows are multiples of one: their logits are in one order
     * or the other, and rounding does not change it. */
    void router(const std::string &name) {
        std::vector<float> by;
        for (int i = 0; i < f.experts; i++)
            by.push_back(static_cast<float>(i * 7 % f.experts * 2 - f.experts + 1) /
                         static_cast<float>(f.experts));
        mx::array row = random_values({1, HIDDEN}, mx::float32, 3 / std::sqrt(static_cast<float>(HIDDEN)));
        add(name, mx::astype(mx::array(by.data(), {f.experts, 1}) * row, as.type), 8);
    }
    void experts(const std::string &layer) {
        router(layer + "mlp.gate");
        std::string at = layer + "mlp.switch_mlp.";
        linear(at + "gate_proj", {f.experts, MLP, HIDDEN}, 1.5f, false, f.expert_bits);
        linear(at + "up_proj", {f.experts, MLP, HIDDEN}, 1.5f, false, f.expert_bits);
        linear(at + "down_proj", {f.experts, HIDDEN, MLP}, 1, false, f.expert_bits);
    }
    void write(const std::string &folder) {
        linear("model.embed_tokens", {VOCABULARY, HIDDEN}, f.gemma ? 1 : 8);
        linear("lm_head", {VOCABULARY, HIDDEN}, 3);
        norm("model.norm", HIDDEN);
        for (int i = 0; i < f.layers; i++) {
            std::string layer = "model.layers." + std::to_string(i) + ".";
            attention(layer);
            if (f.experts && (i || f.fields != MOE_DENSE_LAYER))
                experts(layer);
            else
                mlp(layer);
            for (const char *name : {"input_layernorm", "post_attention_layernorm"})
                norm(layer + name, HIDDEN);
            if (f.gemma)
                for (const char *name : {"pre_feedforward_layernorm", "post_feedforward_layernorm"})
                    norm(layer + name, HIDDEN);
        }
        std::filesystem::create_directories(folder);
        mx::save_safetensors(folder + "/model.safetensors", made);
        std::string fields = f.fields + (R"("num_hidden_layers": )" + std::to_string(f.layers) + ", ");
        if (as.bits)
            fields += R"("quantization": {"group_size": 64, "bits": )" + std::to_string(as.bits) +
                      other_bits + "}, ";
        if (f.experts)
            fields += R"("num_experts": )" + std::to_string(f.experts) + R"(, "num_experts_per_tok": )" +
                      std::to_string(f.per_token) + ", ";
        std::ofstream(folder + "/config.json")
            << R"({"model_type": ")" << f.name << R"(", )" << fields
            << R"("hidden_size": 256, "intermediate_size": 192, "num_attention_heads": 4,
                  "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 320, "rms_norm_eps": 1e-5,
                  "rope_theta": 10000.0, "tie_word_embeddings": false, "max_position_embeddings": 4096})";
    }
};

/* ---- running one ---- */

struct steps_case {
    const family &f;
    format as;
    int n_prompt = 12, n = 8; /* tokens before; then decode steps */
    int kv_bits = 0, max_kv_size = 0, chunk = 1000;
    int kv_step = 0; /* before which the cache is quantized */
};

static std::string name_of(const steps_case &c) {
    std::string text = c.f.name;
    text += c.as.type == mx::bfloat16 ? " bf16, " : " f16, ";
    text += std::to_string(c.as.bits) + " bits, ";
    if (c.f.experts)
        text += std::to_string(c.f.per_token) + " of " + std::to_string(c.f.experts) + " experts, ";
    return text + std::to_string(c.n_prompt) + " tokens, " + std::to_string(c.n) + " steps, cache of " +
           std::to_string(c.kv_bits) + " bits and " + std::to_string(c.max_kv_size) + " entries";
}

static void must(bool worked) {
    if (!worked) fail_msg("%s", error_message());
}

static engine *open_engine() {
    engine_options options = {};
    const engine_class *type = mlxbench_engine_module()->type;
    engine *e = type->open(&options);
    must(e);
    e->type = type;
    reinterpret_cast<mlx_engine *>(e)->has_kernels = true;
    return e;
}

static int32_t token(int i) {
    return static_cast<int32_t>((i * 7919 + 13) % VOCABULARY);
}

static void set_graph(engine *e, bool fused) {
    engine_options options = {};
    options.n_settings = 1;
    options.settings[0] = {"graph", fused ? "fused" : "mlx-lm"};
    must(!engine_configure(e, &options));
}

/* The logits of n decode steps with given ids, so that each step answers the same question in both
 * ways. The steps may note which experts they run. */
static std::vector<float> logits_of(engine *e, const model *m, const steps_case &c, bool fused_prefill,
                                    bool fused, bool notes_experts = false) {
    set_graph(e, fused_prefill);
    std::vector<cache *> caches;
    cache_options options = {c.max_kv_size};
    std::vector<cache_spec> specs(static_cast<size_t>(model_caches(m, &options, nullptr, 0)));
    model_caches(m, &options, specs.data(), static_cast<int>(specs.size()));
    for (const cache_spec &spec : specs) {
        caches.push_back(cache_new(e, &spec));
        must(caches.back());
    }
    std::vector<int32_t> prompt;
    for (int i = 0; i < c.n_prompt; i++) prompt.push_back(token(i));
    for (int i = 0; i < c.n_prompt; i += c.chunk) {
        graph *g = graph_begin(e, 1);
        model_forward(m, g, tokens(g, prompt.data() + i, std::min(c.chunk, c.n_prompt - i)), caches.data());
        must(!graph_end(g, 0, nullptr, nullptr));
    }
    set_graph(e, fused);
    std::vector<float> logits(static_cast<size_t>(c.n) * VOCABULARY);
    for (int i = 0; i < c.n; i++) {
        for (cache *one : caches)
            if (c.kv_bits && i == c.kv_step) must(!cache_quantize(e, one, c.kv_bits, 64));
        int32_t id = token(c.n_prompt + i);
        graph *g = graph_begin(e, 1);
        if (notes_experts) graph_note_experts(g);
        tensor out = model_forward(m, g, tokens(g, &id, 1), caches.data());
        result *r = nullptr;
        must(!graph_end(g, 1, &out, &r));
        must(!result_read(r, logits.data() + i * VOCABULARY, VOCABULARY));
        result_free(r);
    }
    for (cache *one : caches) cache_free(e, one);
    return logits;
}

/* Both round to 16 bits, in part at other places, and MLX's CPU kernels for packed weights round
 * each unpacked number: so the logits differ, step by step, by some roundings of their typical
 * size. What is wrong differs by a good part of it. */
static void compare(const steps_case &c, const std::vector<float> &found, const std::vector<float> &wanted) {
    double allowed = (c.as.bits ? 40 : 10) * static_cast<double>(half_ulp(c.as.type));
    for (size_t step = 0; step < static_cast<size_t>(c.n); step++) {
        double difference = 0, all = 0;
        for (size_t i = step * VOCABULARY; i < (step + 1) * VOCABULARY; i++) {
            double d = static_cast<double>(found[i]) - static_cast<double>(wanted[i]);
            difference += d * d;
            all += static_cast<double>(wanted[i]) * static_cast<double>(wanted[i]);
        }
        double apart = std::sqrt(difference / all);
        if (!(all > 0) || !(apart <= allowed))
            fail_msg("%s, step %zu: %.4f of the logits' size apart, %.4f allowed", name_of(c).c_str(), step,
                     apart, allowed);
    }
}

/* Of one step, on average. */
struct kernels {
    int matvec, attend, experts = 0;
};

static kernels launched() {
    return {launches_of("matvec"), launches_of("attend"), launches_of("experts")};
}

/* Makes the checkpoint, and calls use(engine, model). */
static void with_model(const steps_case &c, const std::function<void(engine *, const model *)> &use) {
    static int n_folders;
    std::string folder = temporary_folder() + "/checkpoint-" + std::to_string(n_folders++);
    checkpoint_writer(c.f, c.as).write(folder);
    engine *e = open_engine();
    checkpoint *files = checkpoint_open(folder.c_str(), 0);
    must(files);
    model *m = model_load(files, e);
    must(m);
    use(e, m);
    model_free(m);
    checkpoint_close(files);
    engine_close(e);
}

static void check_steps(const steps_case &c, const kernels &k) {
    with_model(c, [&](engine *e, const model *m) {
        int all = launches_of("");
        std::vector<float> wanted = logits_of(e, m, c, false, false);
        assert_int_equal(launches_of(""), all);
        kernels before = launched();
        std::vector<float> found = logits_of(e, m, c, true, true);
        kernels after = launched(),
                ran = {(after.matvec - before.matvec) / c.n, (after.attend - before.attend) / c.n,
                       (after.experts - before.experts) / c.n};
        if (ran.matvec != k.matvec || ran.attend != k.attend || ran.experts != k.experts ||
            launches_of("") - all != c.n * (k.matvec + k.attend + k.experts))
            fail_msg("%s: %d + %d + %d kernels, wants %d + %d + %d", name_of(c).c_str(), ran.matvec,
                     ran.attend, ran.experts, k.matvec, k.attend, k.experts);
        compare(c, found, wanted);
    });
}

/* Kernels that choose experts for themselves run, too, while it is noted which these are. */
static void check_touched(const steps_case &c) {
    with_model(c, [&](engine *e, const model *m) {
        logits_of(e, m, c, false, false, true);
        double wanted = engine_experts_touched(e);
        int before = launches_of("experts");
        logits_of(e, m, c, false, true);
        int kernels = launches_of("experts") - before;
        assert_true(kernels > 0 && engine_experts_touched(e) == 0);
        logits_of(e, m, c, false, true, true);
        assert_int_equal(launches_of("experts") - before, 2 * kernels);
        assert_true(wanted >= c.f.per_token && engine_experts_touched(e) == wanted);
        assert_true(engine_experts_touched(e) == 0); /* it forgot them */
    });
}

/* Evaluated in one go or a few layers at a time, a prefill leaves the same bits. */
static void check_prefill(const steps_case &c) {
    with_model(c, [&](engine *e, const model *m) {
        std::vector<float> wanted = logits_of(e, m, c, false, false), found = logits_of(e, m, c, true, false);
        if (found != wanted) fail_msg("%s: another prefill, other logits", name_of(c).c_str());
    });
}

static const format bf16 = {mx::bfloat16, 0}, f16 = {mx::float16, 0}, bf16_4 = {mx::bfloat16, 4},
                    f16_4 = {mx::float16, 4}, f16_8 = {mx::float16, 8};

/* q, k, v; o; gate, up; down, or the router; logits */
enum { DENSE = 4 * LAYERS + 1, SPARSE = 3 * LAYERS + 1 };

static void test_families(void **) {
    for (const format &as : {bf16, f16_4, f16_8}) {
        int n = as.bits ? 3 : 8;
        for (const family *f : {&llama, &llama_biases, &qwen2, &qwen3})
            check_steps({*f, as, 12, n}, {DENSE, LAYERS});
        check_steps({gemma3, as, 24, n}, {DENSE, LAYERS / 2});
    }
}

/* Two kernels a layer; or none, where they have a width that the kernels do not take. Packed: MLX's
 * CPU backend has no others of 16 bits. */
static void test_experts(void **) {
    for (const format &as : {bf16_4, f16_4, f16_8}) {
        check_steps({moe_all, as, 12, 3}, {SPARSE, LAYERS, 2 * LAYERS});
        check_steps({moe, as, 12, 3}, {SPARSE, LAYERS, 2 * LAYERS});
        check_steps({moe_dense_layer, as, 12, 3}, {SPARSE + 1, LAYERS, 2});
    }
    check_touched({moe, f16_4, 12, 3});
    check_touched({moe_dense_layer, bf16_4, 12, 3});
    check_steps({moe_3_bits, f16_4, 12, 2}, {SPARSE, LAYERS});
}

/* Empty ones, one that grows beyond its first 256 entries, and those that are left to MLX. */
static void test_caches(void **) {
    check_steps({llama, bf16_4, 0, 3}, {DENSE, LAYERS});
    check_steps({qwen3, f16, 252}, {DENSE, LAYERS});
    check_steps({llama, f16, 12, 4, 8}, {DENSE, 0});
    check_steps({llama_window, f16, 6}, {DENSE, LAYERS / 2});
    check_steps({qwen3, f16, 6, 4, 0, 8}, {DENSE, 0});
    steps_case later = {qwen3, f16, 6, 4, 8};
    later.kv_step = 2;
    check_steps(later, {DENSE, LAYERS / 2}); /* in half of the steps all */
}

static void test_prefills(void **) {
    steps_case c = {llama_deep, f16, 40, 2};
    check_prefill(c);
    c.chunk = 17;
    check_prefill(c);
    c.max_kv_size = 12;
    check_prefill(c);
    check_prefill({moe, f16_4, 30, 2});
}

int main() {
    mx::set_default_device(mx::Device::cpu);
    mx::random::seed(1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_families), cmocka_unit_test(test_experts),
                                       cmocka_unit_test(test_prefills), cmocka_unit_test(test_caches)};
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
