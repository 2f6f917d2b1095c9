/* mlx.hpp - what the files of the MLX engine share (private to engine/mlx).
 * The recorded graph becomes MLX arrays, operation by operation as mlx-lm issues them, and is
 * evaluated at the end. */
#ifndef ENGINE_MLX_MLX_HPP
#define ENGINE_MLX_MLX_HPP

#include <mlx/mlx.h>

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

extern "C" {
#include "engine/graph.h"
}

namespace mx = mlx::core;

using optional_array = std::optional<mx::array>;

/* A value of the graph, of B sequences: [B, L, D] for [B * L, D]; [B, L, H, hd], or [B, H, L, hd]
 * when heads_first, for [B * L, H, hd]. second: the routing weights beside the experts' indices;
 * the values beside the keys. */
struct value {
    optional_array first, second;
    bool heads_first = false;
};

/* A matrix as MLX takes it: plain, or packed with scales and, when affine, biases (bits > 0). */
struct mlx_weight {
    weight base;
    mx::array values;
    optional_array scales{}, biases{}, bias{};
    int bits, group_size;
};

/* Keys or values of a cache: one array, or packed, scales and biases when quantized. */
using cached = std::vector<mx::array>;

struct mlx_cache {
    cache base;
    cached keys, values; /* [B, H, entries, hd]; empty until the first write */
    std::array<optional_array, CACHE_MAX_STATES>
        states{};      /* [B, rows, cols]; nothing until the first write */
    int64_t index = 0; /* rotating: where the next entry goes */
    int64_t start = 0; /* of chunks: the position of the first entry */
};

/* masks depend on sizes alone, so the layers of a step share one */
struct mask {
    int64_t n = 0, offset = 0, window = 0, start = 0, chunk = 0;
    optional_array visible;
};

/* What leads from a projection to attention: HEADS, perhaps RMS_NORM, ROPE. */
struct rotated_heads {
    const node *from, *heads, *norm, *rope;
};

/* What attention does with what comes before it. */
struct attention_group {
    rotated_heads q, k;
    const node *v, *write;
};

/* What fused decode steps need (fusion.cpp). */
struct fusion {
    bool running = false;       /* the running graph is a decode step to be fused */
    std::vector<int> readers{}; /* of the running graph, by node: how many values are computed from it */
    std::vector<bool> done{};   /* nothing more to record for it */
    std::map<int, attention_group> attentions{}; /* those found, by node */
    optional_array entries{};                    /* [position + 1] in this step, for all layers */
    optional_array scratch{};                    /* attention's */
    std::map<const rope_spec *, mx::array> inverse_freqs{};
};

struct mlx_engine {
    engine base;
    mx::Stream stream;
    std::string device;
    double total_memory; /* bytes */
    int64_t wired_limit; /* bytes, of Metal; else 0 */
    bool mlx_lm_graph;   /* the setting graph */
    bool has_kernels;    /* there are fused kernels for this device */
    fusion fused{};
    std::vector<std::unique_ptr<mlx_weight>> weights{};
    std::vector<mlx_cache *> caches{};
    std::map<const float *, mx::array> freqs{}; /* rope frequencies by where the model keeps them */
    std::vector<value> values{};                /* of the running graph, by node */
    mask last_mask{};
    int64_t steps = 0;                    /* decode steps since the last prefill */
    bool clear_next = false;              /* give unused memory back before the next step */
    std::optional<size_t> wired_before{}; /* the wired limit to be restored, while there are caches */
};

struct mlx_result {
    result base;
    mx::array data;
};

inline const mlx_weight &weight_of(const weight *w) {
    return *reinterpret_cast<const mlx_weight *>(w);
}

/* A constant in x's dtype, as Python's numbers are: an F32 one would promote 16-bit values. */
inline mx::array constant(double x, const mx::array &like) {
    return mx::array(static_cast<float>(x), like.dtype());
}

mx::Dtype mlx_dtype(dtype type);

/* [B, L, H, hd] as [B, H, L, hd]. */
mx::array heads_first(const value &x);

/* An activation, and one with what it gates; columns first .. end of the last dimension. */
mx::array activated(activation act, const mx::array &x);
mx::array gate_of(const mlx_engine &e, activation act, const mx::array &gate, const mx::array &up);
mx::array last_columns(const mx::array &x, int first, int end);

/* mlx nn.gelu_approx */
mx::array gelu_approx(const mx::array &x);

inline value &value_of(mlx_engine &e, const node *x) {
    return e.values[static_cast<size_t>(x->index)];
}

/* Each operation builds the value of node x from those of its inputs. */
#define OP(NAME, function, flags) void mlx_##function(mlx_engine &e, const graph *g, const node *x);
ENGINE_OPS(OP)
#undef OP
void mlx_record(mlx_engine &e, const graph *g, const node *x);

/* ---- fusion.cpp: decode steps with fewer kernels ---- */

/* Whether decode steps are fused: asked for, and possible on this device. */
inline bool fuses(const mlx_engine &e) {
    return e.has_kernels && !e.mlx_lm_graph;
}

/* Whether the graph is a step that is fused, and what of it can be. */
void fusion_begin(mlx_engine &e, const graph *g, int n_outputs);
/* Records node x together with others; false: x is to be recorded by itself. */
bool fusion_record(mlx_engine &e, const graph *g, const node *x);
void fusion_end(mlx_engine &e);

/* The only one that reads x, if it is an operation of this kind. */
const node *sole_reader(const mlx_engine &e, const node *x, op_kind op);

inline optional_array weight_of_norm(const node *norm) {
    return norm ? optional_array(weight_of(norm->w[0]).values) : std::nullopt;
}

/* ---- fusion_attention.cpp ---- */

/* Keeps what the attention x can do with what comes before it, if the kernel can do that; then
 * records it. */
void find_attention(mlx_engine &e, const node *x);
bool record_attention(mlx_engine &e, const node *x);

/* ---- cuda_matvec.cpp, cuda_experts.cpp, cuda_attend.cpp ---- */

/* y_i = weight_i times the normalized x, for up to three weights of one kind; x is one row. The
 * ending turns them into y_0 + residual, or act(y_0) * y_1. */
enum matvec_ending { MATVEC_PLAIN, MATVEC_ADD, MATVEC_SILU, MATVEC_GELU };
struct cuda_matvec {
    mx::array x; /* [1, 1, K], not normalized */
    optional_array norm{};
    float eps = 0;
    int n = 0;
    const mlx_weight *weights[3] = {};
    matvec_ending ending = MATVEC_PLAIN;
    optional_array residual{};
};
bool cuda_matvec_takes(const mlx_weight &w);
std::vector<mx::array> cuda_matvec_run(const cuda_matvec &m); /* [1, 1, N] each */

/* The k experts with the largest logits, applied to the normalized x, which is one row; weighed,
 * summed, and added to the residual. */
struct cuda_experts {
    mx::array x; /* [1, 1, D], not normalized */
    optional_array norm{};
    float eps = 0;
    mx::array logits; /* [1, 1, experts] */
    int k;
    bool renormalize;
    activation act;
    const mlx_weight *gate, *up, *down;
    optional_array residual{};
};
bool cuda_experts_take(const mlx_weight &gate, const mlx_weight &up, const mlx_weight &down, int k);
mx::array cuda_experts_run(const cuda_experts &e); /* [1, 1, D] */

/* Normalizes (where there are norms) and rotates one token's queries and keys, puts keys and values
 * into the last entry of their caches, which are changed in place, and attends to all entries ->
 * [1, 1, n_heads * head_dim]. */
struct cuda_attend {
    mx::array q, k, v;      /* [1, 1, H * head_dim] */
    mx::array keys, values; /* [1, n_kv_heads, entries, head_dim] */
    mx::array inverse_freqs;
    mx::array entries; /* [position + 1]: a shape is all that is read of it */
    mx::array scratch; /* cuda_attend_scratch floats; it begins with counters, zero before and after */
    const rope_spec *rope;
    int n_heads;
    float scale;
    optional_array q_norm{}, k_norm{};
    float eps = 0;
};
bool cuda_attend_takes(const cache_spec &s, int n_heads);
int cuda_attend_scratch(const cache_spec &s, int n_heads);
mx::array cuda_attend_run(const cuda_attend &a);

/* ---- attention.cpp ---- */

/* Part i of a plain cache (the next one is made) has room for entries of this shape and dtype from
 * `position` on; it grows in steps. */
void mlx_cache_reserve(cached &x, size_t i, const mx::Shape &entries, mx::Dtype type, int64_t position);

void mlx_cache_quantize(mlx_cache &c, int bits, int group_size);
/* The mask of several tokens that attend to x's cache: nothing where it is "causal"; the whole of
 * it. cache.py: make_mask, without and with return_array */
optional_array mlx_attention_mask(mlx_engine &e, const graph *g, const node *x);
mx::array mlx_causal_mask(mlx_engine &e, const graph *g, const node *x);
/* Evaluated arrays of its own that hold what from's hold. */
void mlx_cache_copy(mlx_cache &to, const mlx_cache &from);
int64_t mlx_cache_bytes(const mlx_cache &c);
/* Keys and values as far as they are filled, and states: cache.py: state */
void mlx_cache_state(const mlx_cache &c, std::vector<mx::array> &out);

#endif
