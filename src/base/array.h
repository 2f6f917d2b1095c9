/* array.h - number types, and read-only arrays and weight matrices as a checkpoint stores them.
 * The common currency between checkpoint/ (which finds them) and engine/ (which computes on
 * them). */
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

/* A read-only, row-major array. data is borrowed: it lives as long as the checkpoint it came from.
 * It may be at an odd address: mx.save_safetensors does not pad its header, and copying whole
 * checkpoints for that would double them. */
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

/* How a weight is stored. Affine: element j of a row is scales[j / group_size] * q[j] + biases[j /
 * group_size], q packed into uint32 words, low bits first, a row's values one after another without
 * padding (3, 5 and 6 bits cross byte borders). The others hold small floating-point numbers,
 * packed likewise, times a scale of one byte per group, and no biases: mxfp4 E2M1 in groups of 32
 * with E8M0 scales, mxfp8 E4M3 likewise, nvfp4 E2M1 in groups of 16 with E4M3 scales. Sources: MLX,
 * mlx.core.quantize; OCP Microscaling Formats (MX) 1.0. */
typedef enum matrix_kind {
    MATRIX_PLAIN,
    MATRIX_AFFINE,
    MATRIX_MXFP4,
    MATRIX_MXFP8,
    MATRIX_NVFP4,
    N_MATRIX_KINDS
} matrix_kind;

/* The kind's name in config.json's "mode" and in MLX: "affine", "mxfp4", ...; "plain". */
const char *matrix_kind_name(matrix_kind kind);

/* The only width and group size that a kind other than plain and affine has; 0, 0 for these two. */
int matrix_kind_bits(matrix_kind kind);
int matrix_kind_group_size(matrix_kind kind);

typedef struct matrix {
    matrix_kind kind;
    int rank;                      /* of the logical shape: 1 vector, 2 [out, in], 3 [experts, out, in] */
    int64_t shape[ARRAY_MAX_RANK]; /* logical shape, in unpacked elements */
    array values;                  /* plain: F32, F16 or BF16 of that shape; else U32 [..., in * bits / 32] */
    array scales;         /* unless plain: [..., in / group_size], affine F32, F16 or BF16, else U8 */
    array biases;         /* affine only: as scales */
    int bits, group_size; /* 0, 0 when plain */
} matrix;

/* Bytes that hold the matrix (values, scales and biases). */
size_t matrix_bytes(const matrix *m);

/* The dtype of the weight's numbers in mlx-lm: the values' when plain, the scales' when affine,
 * else BF16, in which mx.dequantize gives them. */
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
float e8m0_to_f32(uint8_t e); /* 2^(e - 127); 255, a NaN in the standard, is infinity, as in MLX */
float e4m3_to_f32(uint8_t x); /* 0x7f and 0xff are NaN */
float e2m1_to_f32(uint8_t x); /* the low 4 bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6, and the same with a sign */
uint16_t f32_to_f16(float f); /* round to nearest even, overflow to infinity */

/* n elements of a float dtype (F32, F16, BF16) to float, and back. */
void floats_from(float *out, const void *in, dtype type, int64_t n);
void floats_to(void *out, dtype type, const float *in, int64_t n);

#endif
