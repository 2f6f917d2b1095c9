/* cuda.cpp - what the CUDA kernels have in common: device functions, and putting a kernel's source together.
 * Only MLX's interface for custom kernels is used. */
#include "engine/mlx/cuda.hpp"

#include <cstring>

/* Device code that all kernels use. The rounding points are those of MLX's own kernels: every value that
 * mlx-lm's operations would store is rounded to T. */
static const char *const common = R"cuda(
#include <cuda_bf16.h>
#include <cuda_fp16.h>

__device__ __forceinline__ float2 two(unsigned int x, __nv_bfloat16) {
  return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
}
__device__ __forceinline__ float2 two(unsigned int x, __half) {
  return __half22float2(*reinterpret_cast<__half2*>(&x));
}
template <typename T> __device__ __forceinline__ float rounded(float x) {
  return static_cast<float>(static_cast<T>(x));
}
template <typename T> __device__ __forceinline__ void eight(float (&out)[8], uint4 x) {
  const float2 a = two(x.x, T()), b = two(x.y, T()), c = two(x.z, T()), d = two(x.w, T());
  out[0] = a.x; out[1] = a.y; out[2] = b.x; out[3] = b.y;
  out[4] = c.x; out[5] = c.y; out[6] = d.x; out[7] = d.y;
}
template <typename T> __device__ __forceinline__ unsigned int packed(float x, float y) {
  T pair[2] = {static_cast<T>(x), static_cast<T>(y)};
  return *reinterpret_cast<unsigned int*>(pair);
}
__device__ __forceinline__ float warp_sum(float x) {
  for (int i = 16; i; i /= 2) x += __shfl_xor_sync(0xffffffffu, x, i);
  return x;
}
)cuda";

/* The name carries a hash of the source: MLX keeps what it compiled on disk by name alone. */
cuda_kernel cuda_compile(const char *name, const std::vector<std::string> &inputs,
                         const std::vector<std::string> &outputs, const char *functions,
                         const std::string &body) {
    std::string header = std::string(common) + functions;
    std::string id =
        std::string("mlxbench_") + name + "_" + std::to_string(std::hash<std::string>()(header + body));
    return mx::fast::cuda_kernel(id, inputs, outputs, body, header, false);
}

cuda_constants &cuda_constants::type(mx::Dtype x) {
    return line(x == mx::bfloat16 ? "using T = __nv_bfloat16;" : "using T = __half;");
}

cuda_constants &cuda_constants::number(const std::string &name, int64_t value) {
    return line("constexpr int " + name + " = " + std::to_string(value) + ";");
}

cuda_constants &cuda_constants::real(const char *name, float value) {
    char digits[64];
    snprintf(digits, sizeof digits, "%.9ef;", static_cast<double>(value));
    return line(std::string("constexpr float ") + name + " = " + digits);
}

cuda_constants &cuda_constants::line(const std::string &x) {
    text += "  " + x + "\n";
    return *this;
}

int bits_of(float x) {
    int bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
