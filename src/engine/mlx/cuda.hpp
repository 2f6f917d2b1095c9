/* cuda.hpp - what the CUDA kernels have in common (private to engine/mlx): how their source is put
 * together, and how they are started. MLX compiles a kernel at run time; sizes are constants in its
 * source, so there is a kernel per shape. */
#ifndef ENGINE_MLX_CUDA_HPP
#define ENGINE_MLX_CUDA_HPP

#include "engine/mlx/mlx.hpp"

#include <functional>

enum { WARP = 32, THREADS = 256 }; /* of a block that multiplies */

using cuda_kernel = mx::fast::CustomKernelFunction;
/* All that a kernel's source depends on; [0]: which kernel. The last CUDA_START_KEYS are
 * cuda_start's. */
using cuda_kernel_key = std::array<int, 16>;
enum { CUDA_START_KEYS = 3 };

/* What a kernel is started with: outputs have the first input's dtype. */
struct cuda_launch {
    std::vector<mx::array> inputs;
    std::vector<mx::Shape> shapes; /* of the outputs */
    int blocks, blocks_y = 1, n_threads = THREADS;
};

/* Starts the kernel for a key, made by make() at the first start. */
std::vector<mx::array> cuda_start(cuda_kernel_key key, const cuda_launch &launch,
                                  const std::function<cuda_kernel()> &make);

/* A kernel with the functions of cuda.cpp and `functions` before it, and the constants before its
 * body. The constants have what MLX must see of the source: the shapes of inputs. */
cuda_kernel cuda_compile(const char *name, const std::vector<std::string> &inputs,
                         const std::vector<std::string> &outputs, const std::string &functions,
                         const std::string &constants, const char *body);

/* The constants that a kernel begins with. */
class cuda_constants {
    std::string text;

  public:
    cuda_constants &type(mx::Dtype x); /* T */
    cuda_constants &number(const std::string &name, int64_t value);
    cuda_constants &real(const char *name, float value);
    cuda_constants &line(const std::string &x);
    const std::string &source() const {
        return text;
    }
};

int bits_of(float x); /* for a key */

/* ---- cuda_matvec.cpp: what kernels that multiply matrices with a vector share ---- */

/* Device functions: matrix, stage, loads, multiply, gated. */
extern const char *const cuda_matvec_code;

/* Whether rows of w can be multiplied, with n_inputs vectors of a row's length in shared memory. */
bool cuda_multiplies(const mlx_weight &w, int n_inputs);
int64_t cuda_chunks(const mlx_weight &w); /* 16-byte loads of a row */
int cuda_blocks(int64_t warps);           /* how many blocks are started when there is work for that many */

/* The constants T, K, THREADS, BITS and GROUP. */
cuda_constants cuda_matvec_constants(const mlx_weight &w, mx::Dtype type);
/* Makes w known to a kernel as matrix m<id>; out: what its products are written to, or
 * "nullptr". */
void cuda_add_matrix(cuda_constants &text, std::vector<std::string> &inputs, const std::string &id,
                     const mlx_weight &w, const std::string &out);
void cuda_add_arrays(std::vector<mx::array> &inputs, const mlx_weight &w); /* the inputs of that matrix */
/* An input that is a null pointer in kernels that are not given it. */
void cuda_add_optional(cuda_constants &text, std::vector<std::string> &inputs, const std::string &name,
                       bool given);

#endif
