/* mlx.hpp - what the files of the MLX engine share (private to engine/mlx).
 * The recorded graph becomes MLX arrays, operation by operation as mlx-lm issues them, and is evaluated at
 * the end. */
#ifndef ENGINE_MLX_MLX_HPP
#define ENGINE_MLX_MLX_HPP

#include <mlx/mlx.h>

#include <array>
#include <atomic>
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

/* A value of the graph: [1, L, D] for [L, D]; [1, L, H, hd], or [1, H, L, hd] when heads_first, for [L, H,
 * hd]. second: the routing weights beside the experts' indices; the values beside the keys. */
struct value {
    optional_array first, second;
    bool heads_first = false;
};

/* A matrix as MLX takes it: plain, or packed with scales and biases (bits > 0). */
struct mlx_weight {
    weight base;
    mx::array values;
    optional_array scales{}, biases{}, bias{};
    int bits, group_size;
};

/* Keys or values of a cache: one array, or packed, scales and biases when quantized. */
using cached = std::vector<mx::array>;

struct mlx_kv {
    kv base;
    cached keys, values; /* [1, H, entries, hd]; empty until the first write */
    int64_t index = 0;   /* rotating: where the next entry goes */
};

/* masks depend on sizes alone, so the layers of a step share one */
struct mask {
    int64_t n = 0, offset = 0, window = 0;
    optional_array visible;
};

struct mlx_engine {
    engine base;
    mx::Stream stream;
    std::string device;
    double total_memory; /* bytes */
    int64_t wired_limit; /* bytes, of Metal; else 0 */
    bool mlx_lm_graph;   /* as in engine_options */
    std::vector<std::unique_ptr<mlx_weight>> weights{};
    std::vector<mlx_kv *> caches{};
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

/* A constant in x's dtype, as Python's numbers are: an F32 one would promote 16-bit values. */
inline mx::array constant(double x, const mx::array &like) {
    return mx::array(static_cast<float>(x), like.dtype());
}

/* [1, L, H, hd] as [1, H, L, hd]. */
mx::array heads_first(const value &x);

/* Builds the value of node x from those of its inputs. */
void mlx_record(mlx_engine &e, const graph *g, const node *x);

/* Adds the keys and values of node x to its cache; the result is what attention sees. */
void mlx_kv_write(mlx_engine &e, const node *x);
void mlx_attend(mlx_engine &e, const node *x);
void mlx_kv_quantize(mlx_kv &cache, int bits, int group_size);
int64_t mlx_kv_bytes(const mlx_kv &cache);

#endif
