/* device.hpp - the little CUDA that the MLX engine's kernels use, as ordinary C++: it comes before
 * their source. A CUDA thread is a fiber of emulator.cpp. No standard header is included: kernels
 * compile in a moment. */
#ifndef TESTS_CUDA_DEVICE_HPP
#define TESTS_CUDA_DEVICE_HPP

#define __device__
#define __global__
#define __forceinline__ inline
#define __grid_constant__
#define __shared__    static /* blocks run one after another; emulator.cpp fills it with NaN before each */
#define __CUDA_ARCH__ 900

using size_t = decltype(sizeof 0);
using uint32_t = unsigned int;
using int32_t = int;

struct Shape {
    int size[10];
    int operator[](int i) const {
        return size[i];
    }
};

/* ---- where a thread is ---- */

struct dim3 {
    unsigned int x, y, z;
};
struct emulated_thread {
    dim3 thread, block, grid;
};
extern "C" const emulated_thread *emulated_now;
#define threadIdx (emulated_now->thread)
#define blockIdx  (emulated_now->block)
#define gridDim   (emulated_now->grid)

/* ---- barriers, in emulator.cpp ---- */

extern "C" void __syncthreads();
extern "C" void __syncwarp();
extern "C" unsigned int emulated_shuffle_xor(unsigned int mask, unsigned int bits, int lanes);

inline float __uint_as_float(unsigned int x) {
    return __builtin_bit_cast(float, x);
}
inline float __shfl_xor_sync(unsigned int mask, float x, int lanes) {
    return __uint_as_float(emulated_shuffle_xor(mask, __builtin_bit_cast(unsigned int, x), lanes));
}

inline unsigned int __reduce_max_sync(unsigned int mask, unsigned int x) {
    for (int i = 16; i; i /= 2) {
        unsigned int other = emulated_shuffle_xor(mask, x, i);
        x = other > x ? other : x;
    }
    return x;
}

/* ---- memory ---- */

struct alignas(8) float2 {
    float x, y;
};
struct uint4 { /* CUDA aligns it to 16 bytes; what MLX allocates for the CPU is aligned to 8 */
    unsigned int x, y, z, w;
};
inline float2 make_float2(float x, float y) {
    return {x, y};
}
inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) {
    return {x, y, z, w};
}
template <typename V> V __ldg(const V *x) {
    return *x;
}
template <typename V> V __ldcg(const V *x) {
    return *x;
}
inline void __threadfence() {
}
inline unsigned int atomicInc(unsigned int *x, unsigned int last) {
    unsigned int before = *x;
    *x = before >= last ? 0 : before + 1;
    return before;
}

/* ---- numbers ---- */

extern "C" {
float expf(float) noexcept;
float exp2f(float) noexcept;
float tanhf(float) noexcept;
float fmaxf(float, float) noexcept;
void sincosf(float, float *, float *) noexcept;
unsigned short emulated_to_bf16(float); /* MLX's own conversions, to nearest even */
unsigned short emulated_to_half(float);
float emulated_from_half(unsigned short);
}
inline float rsqrtf(float x) {
    return 1 / __builtin_sqrtf(x);
}
inline unsigned int max(unsigned int a, unsigned int b) {
    return a > b ? a : b;
}
inline int min(int a, int b) {
    return a < b ? a : b;
}
/* Byte i of the result is the one that digit i of `digits` names, of y's and x's eight. */
inline unsigned int __byte_perm(unsigned int x, unsigned int y, unsigned int digits) {
    unsigned long long both = static_cast<unsigned long long>(y) << 32 | x;
    unsigned int made = 0;
    for (int i = 0; i < 4; i++)
        made |= static_cast<unsigned int>(both >> (digits >> 4 * i & 7) * 8 & 255) << 8 * i;
    return made;
}

struct __nv_bfloat16 {
    unsigned short bits;
    __nv_bfloat16() = default;
    explicit __nv_bfloat16(float x) : bits(emulated_to_bf16(x)) {
    }
    explicit operator float() const {
        return __uint_as_float(static_cast<unsigned int>(bits) << 16);
    }
};
struct __half {
    unsigned short bits;
    __half() = default;
    explicit __half(float x) : bits(emulated_to_half(x)) {
    }
    explicit operator float() const {
        return emulated_from_half(bits);
    }
};
struct alignas(4) __half2 {
    __half x, y;
};
inline float2 __half22float2(__half2 x) {
    return {static_cast<float>(x.x), static_cast<float>(x.y)};
}

#endif
