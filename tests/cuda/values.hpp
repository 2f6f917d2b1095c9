/* values.hpp - random MLX arrays and weights for the tests of the CUDA kernels, and comparing results.
 * "The same" means the same bits for nearly all values. */
#ifndef TESTS_CUDA_VALUES_HPP
#define TESTS_CUDA_VALUES_HPP

#include "emulator.hpp"
#include "engine/mlx/mlx.hpp"

#include <cmath>
#include <csetjmp>
#include <cstdarg>

extern "C" {
#include <cmocka.h>
}

inline mx::array random_values(const mx::Shape &shape, mx::Dtype type, float spread = 1, float mean = 0) {
    mx::array x = mx::astype(mx::random::normal(shape, mx::float32, mean, spread), type);
    x.eval();
    return x;
}

inline std::vector<float> floats_in(const mx::array &x) {
    mx::array y = mx::contiguous(mx::astype(x, mx::float32));
    y.eval();
    return {y.data<float>(), y.data<float>() + y.size()};
}

inline float half_ulp(mx::Dtype type) { /* of 1 */
    return type == mx::bfloat16 ? 0x1p-8f : 0x1p-11f;
}

/* Both round where MLX's operations do, so they are the same bits but where the order of a sum, in F32, takes
 * a value over the border between two: a few by a step, and more of them where steps are small. */
inline void check_same(const mx::array &found, const mx::array &wanted, const std::string &what) {
    std::vector<float> a = floats_in(found), b = floats_in(wanted);
    assert_int_equal(a.size(), b.size());
    float largest = 0, apart = 0;
    size_t different = 0, few = 1 + a.size() / (wanted.dtype() == mx::bfloat16 ? 10 : 4);
    for (size_t i = 0; i < a.size(); i++) {
        largest = std::fmax(largest, std::fabs(b[i]));
        apart = std::isfinite(a[i]) ? std::fmax(apart, std::fabs(a[i] - b[i])) : INFINITY;
        different += a[i] != b[i];
    }
    if (!(largest > 0) || !(apart <= 3 * half_ulp(wanted.dtype()) * largest) || different > few)
        fail_msg("%s: %zu of %zu differ, by up to %g of %g", what.c_str(), different, a.size(),
                 static_cast<double>(apart), static_cast<double>(largest));
}

#endif
