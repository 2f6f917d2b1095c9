/* cuda.cpp - what the CUDA kernels have in common: device functions, putting a kernel's source
 * together, and starting it. Only MLX's interface for custom kernels is used. */
#include "engine/mlx/cuda.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <unistd.h>

/* ---- device code ---- */

/* Device code that all kernels use. The rounding points are those of MLX's own kernels: every value
 * that mlx-lm's operations would store is rounded to T. */
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

/* ---- compiling ---- */

namespace {
/* A file that has no name, and is there while the program runs. */
class unnamed_file {
    std::unique_ptr<FILE, int (*)(FILE *)> file{std::tmpfile(), fclose};

  public:
    explicit unnamed_file(const std::string &text) {
        if (!file || fputs(text.c_str(), file.get()) < 0 || fflush(file.get()))
            throw std::runtime_error(std::string("cannot write a temporary file: ") + strerror(errno));
    }
    std::string path() const {
        return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fileno(file.get()));
    }
};
} // namespace

/* The text as a line that includes it. MLX hashes the source of a kernel at every start: what is
 * included costs nothing there, and a step of a 1B model starts 81 kernels of 12 kB. */
static std::string included(const std::string &text) {
    static std::map<std::string, unnamed_file> files;
    return "#include \"" + files.try_emplace(text, text).first->second.path() + "\"\n";
}

/* The name carries a hash of all that is included: MLX tells kernels apart by their names and
 * sources. */
cuda_kernel cuda_compile(const char *name, const std::vector<std::string> &inputs,
                         const std::vector<std::string> &outputs, const std::string &functions,
                         const std::string &constants, const char *body) {
    std::string before = common + functions;
    size_t hash = std::hash<std::string>()(before + constants + body);
    return mx::fast::cuda_kernel(std::string("mlxbench_") + name + "_" + std::to_string(hash), inputs,
                                 outputs, constants + included(body), included(before), false);
}

/* ---- starting ---- */

/* MLX's function for a kernel puts the source together at every call. What comes out, a primitive
 * that knows kernel, grid and stream, is used for all later starts: arrays of one kernel may share
 * it. */
std::vector<mx::array> cuda_start(cuda_kernel_key key, const cuda_launch &l,
                                  const std::function<cuda_kernel()> &make) {
    static std::map<cuda_kernel_key, std::shared_ptr<mx::Primitive>> known;
    std::vector<mx::Dtype> types(l.shapes.size(), l.inputs[0].dtype());
    std::array<int, CUDA_START_KEYS> own = {l.blocks, l.blocks_y,
                                            mx::default_stream(mx::default_device()).index};
    std::copy(own.begin(), own.end(), key.end() - CUDA_START_KEYS);
    auto found = known.find(key);
    if (found != known.end()) return mx::array::make_arrays(l.shapes, types, found->second, l.inputs);
    std::vector<mx::array> out = make()(l.inputs, l.shapes, types, {l.blocks * l.n_threads, l.blocks_y, 1},
                                        {l.n_threads, 1, 1}, {}, std::nullopt, false, {});
    known.emplace(key, out[0].primitive_ptr());
    return out;
}

/* ---- constants ---- */

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
