/* array.h - number types, and read-only arrays and weight matrices as a checkpoint stores them.
 * The common currency between checkpoint/ (which finds them) and engine/ (which computes on them). */
#ifndef BASE_ARRAY_H
#define BASE_ARRAY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_U32,
    DTYPE_I32,
    DTYPE_U8,
    DTYPE_OTHER, /* a type the file may hold but nothing here computes on */
} dtype;

/* Bytes per element (0 for DTYPE_OTHER), and the safetensors name ("F32", "BF16", ...). */
size_t dtype_size(dtype type);
const char *dtype_name(dtype type);

enum { ARRAY_MAX_RANK = 4 };

/* A read-only, row-major array. data is borrowed: it lives as long as the checkpoint it came from. It may be
 * at an odd address: mx.save_safetensors does not pad its header, and copying whole checkpoints for that
 * would double them. */
typedef struct array {
    enum dtype dtype; /* `enum`: C++ (engine/mlx) lets no member hide the name of its own type */
    int rank;
    int64_t shape[ARRAY_MAX_RANK];
    const void *data;
} array;

/* Elements (product of the shape) and bytes. */
int64_t array_count(const array *a);
size_t array_bytes(const array *a);

/* "[4, 576]" into text; returns text. For messages. */
char *shape_text(char *text, size_t size, int rank, const int64_t *shape);

/* A weight as stored: plain, or in MLX affine quantization (bits > 0), where element j of a row is
 * scales[j / group_size] * q[j] + biases[j / group_size], q packed into uint32 words, low bits first, a row's
 * values one after another without padding (3, 5 and 6 bits cross byte borders).
 * Source: MLX, mlx.core.quantize. */
typedef struct matrix {
    int rank;                      /* of the logical shape: 1 vector, 2 [out, in], 3 [experts, out, in] */
    int64_t shape[ARRAY_MAX_RANK]; /* logical shape, in unpacked elements */
    array values;         /* plain: F32, F16 or BF16 of that shape; affine: U32 [..., in * bits / 32] */
    array scales, biases; /* affine only: [..., in / group_size], F32, F16 or BF16 */
    int bits, group_size; /* 0, 0 when plain */
} matrix;

/* Bytes that hold the matrix (values, scales and biases). */
size_t matrix_bytes(const matrix *m);

/* The dtype a computation with this weight has in mlx-lm: the values' when plain, the scales' when quantized.
 */
dtype matrix_dtype(const matrix *m);

static inline float bf16_to_f32(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Round to nearest even; NaN stays NaN. */
static inline uint16_t f32_to_bf16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f); /* round to nearest even, overflow to infinity */

/* n elements of a float dtype (F32, F16, BF16) to float, and back. */
void floats_from(float *out, const void *in, dtype type, int64_t n);
void floats_to(void *out, dtype type, const float *in, int64_t n);

#endif
