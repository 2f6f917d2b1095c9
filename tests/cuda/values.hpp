/* values.hpp - random MLX arrays and weights for the tests of the CUDA kernels, and comparing
 * results. "The same" means the same bits for nearly all values. */
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

/* Of the results compared since the last check: the part that differs, summed, and how many
 * results. */
inline struct {
    double sum = 0;
    int n = 0;
} differing[2]; /* BF16 and F16 */

/* Both round where MLX's operations do, so they are the same bits but where the order of a sum, in
 * F32, takes a value over the border between two: it is a step apart then, and where it is
 * multiplied and rounded again (products: how often) more steps. */
inline void check_same(const mx::array &found, const mx::array &wanted, const std::string &what,
                       float products = 1) {
    std::vector<float> a = floats_in(found), b = floats_in(wanted);
    assert_int_equal(a.size(), b.size());
    float largest = 0, apart = 0;
    size_t different = 0;
    for (size_t i = 0; i < a.size(); i++) {
        largest = std::fmax(largest, std::fabs(b[i]));
        apart = std::isfinite(a[i]) ? std::fmax(apart, std::fabs(a[i] - b[i])) : INFINITY;
        different += a[i] != b[i];
    }
    if (!(largest > 0) || !(apart <= 3 * products * half_ulp(wanted.dtype()) * largest))
        fail_msg("%s: %zu of %zu differ, by up to %g of %g", what.c_str(), different, a.size(),
                 static_cast<double>(apart), static_cast<double>(largest));
    auto &of_type = differing[wanted.dtype() == mx::float16];
    of_type.sum += static_cast<double>(different) / static_cast<double>(a.size());
    of_type.n++;
}

/* Few values are: a single result may be unlucky, but not many of them. Where steps are small, more
 * values are. A rounding at another place is seen here, since it moves a good part of all values by
 * a step. */
inline void check_few_differ(double products = 1) {
    for (int f16 : {0, 1}) {
        auto of_type = differing[f16];
        differing[f16] = {};
        double part = of_type.n ? of_type.sum / of_type.n : 0, most = (f16 ? 0.1 : 0.05) * products;
        if (part > most) fail_msg("%.3f of all %s values differ", part, f16 ? "F16" : "BF16");
    }
}

#endif
