/* quantize.h - affine quantization of one row, and back, with MLX's own roundings.
 * For quantized caches, and for weights that are taken apart when they are loaded. */
#ifndef BASE_QUANTIZE_H
#define BASE_QUANTIZE_H

#include "base/array.h"

/* mx.quantize of one row in affine mode, bit for bit in F32: n values in groups -> words [n * bits
 * / 32], scales and biases [n / group_size] stored as `type`. Source: MLX
 * backend/cpu/quantized.cpp. */
void quantize_row(uint32_t *words, void *scales, void *biases, enum dtype type, const float *x, int64_t n,
                  int bits, int group_size);

/* mx.dequantize of row r of a matrix [rows, n] in affine mode -> out[n], in the scales' dtype: the
 * product with the scale is rounded to it, then the sum with the bias. Source: MLX ops.cpp,
 * dequantize. */
void dequantize_row(float *out, const matrix *m, int64_t r);

#endif
