/* cuda.hpp - what the CUDA kernels have in common (private to engine/mlx): how their source is put together.
 * MLX compiles a kernel at run time; sizes are constants in its source, so there is a kernel per shape. */
#ifndef ENGINE_MLX_CUDA_HPP
#define ENGINE_MLX_CUDA_HPP

#include "engine/mlx/mlx.hpp"

enum { WARP = 32 };

using cuda_kernel = mx::fast::CustomKernelFunction;
using cuda_kernel_key = std::array<int, 16>; /* all that a kernel's source depends on; [0]: which kernel */

/* The kernel for a key, made by make() at the first call. */
template <typename F> const cuda_kernel &cuda_kernel_for(const cuda_kernel_key &key, const F &make) {
    static std::map<cuda_kernel_key, cuda_kernel> made;
    auto found = made.find(key);
    if (found == made.end()) found = made.emplace(key, make()).first;
    return found->second;
}

/* A kernel with the functions of cuda.cpp and `functions` before it. */
cuda_kernel cuda_compile(const char *name, const std::vector<std::string> &inputs,
                         const std::vector<std::string> &outputs, const char *functions,
                         const std::string &body);

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

#endif
