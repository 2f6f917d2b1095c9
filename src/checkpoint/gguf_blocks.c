/* gguf_blocks.c - from GGUF's blocks and llama.cpp's row order to what mlx-lm has.
 * Both store 32 values with one scale; MLX keeps scales and biases apart, and packs values in order. The
 * numbers stay the same to the bit (MLX: io/gguf_quants.cpp). */
#include "checkpoint/internal.h"

#include <string.h>

enum { GROUP = 32 };

/* One matrix's destination. */
typedef struct repack {
    uint8_t *values;
    uint16_t *scales, *biases;
} repack;

/* The row of the file that holds row r. llama.cpp interleaves the two halves of each head's rows, for its
 * way of computing RoPE; mlx-lm, like Hugging Face, has one half after the other. */
static int64_t source_row(const stored *t, int64_t rows, int64_t r) {
    if (!t->heads) return r;
    int64_t head_dim = rows / t->heads, head = r / head_dim, at = r % head_dim;
    return head * head_dim + at % (head_dim / 2) * 2 + at / (head_dim / 2);
}

/* The low halves of 8 bytes, side by side. */
static uint32_t low_nibbles(uint64_t x) {
    x &= 0x0f0f0f0f0f0f0f0f;
    x = (x | x >> 4) & 0x00ff00ff00ff00ff;
    x = (x | x >> 8) & 0x0000ffff0000ffff;
    return (uint32_t)(x | x >> 16);
}

/* 16 bytes with value i low and value i + 16 high, to 16 bytes with values in order. */
static void unpack_nibbles(uint8_t *out, const uint8_t *in) {
    uint64_t bytes[2];
    memcpy(bytes, in, sizeof bytes);
    uint32_t words[] = {low_nibbles(bytes[0]), low_nibbles(bytes[1]), low_nibbles(bytes[0] >> 4),
                        low_nibbles(bytes[1] >> 4)};
    memcpy(out, words, sizeof words);
}

/* -2^power times an F16: its exponent grows, unless it is at an end of its range. */
static uint16_t times_minus(int power, uint16_t scale) {
    int exponent = scale >> 10 & 31;
    if (exponent && exponent + power < 31) return (uint16_t)((scale ^ 0x8000) + (power << 10));
    return f32_to_f16((float)-(1 << power) * f16_to_f32(scale));
}

static void repack_q8_0(repack *to, const uint8_t *block, int64_t n) {
    for (; n--; block += 34, to->values += 32) {
        uint16_t scale;
        memcpy(&scale, block, sizeof scale);
        for (int i = 0; i < 32; i++) to->values[i] = block[2 + i] ^ 0x80; /* signed q to q + 128 */
        *to->scales++ = scale;
        *to->biases++ = times_minus(7, scale);
    }
}

static void repack_q4_0(repack *to, const uint8_t *block, int64_t n) {
    for (; n--; block += 18, to->values += 16) {
        uint16_t scale;
        memcpy(&scale, block, sizeof scale);
        unpack_nibbles(to->values, block + 2);
        *to->scales++ = scale;
        *to->biases++ = times_minus(3, scale);
    }
}

static void repack_q4_1(repack *to, const uint8_t *block, int64_t n) {
    for (; n--; block += 20, to->values += 16) {
        memcpy(to->scales++, block, sizeof *to->scales);
        memcpy(to->biases++, block + 2, sizeof *to->biases);
        unpack_nibbles(to->values, block + 4);
    }
}

static const struct {
    void (*row)(repack *to, const uint8_t *blocks, int64_t n);
    int bits;
} formats[] = {
    [BLOCK_Q8_0] = {repack_q8_0, 8}, [BLOCK_Q4_0] = {repack_q4_0, 4}, [BLOCK_Q4_1] = {repack_q4_1, 4}};

/* The array for one part of out, with cols elements in the last dimension, in memory of ours. */
static int new_part(checkpoint *c, array *a, const matrix *m, dtype type, int64_t cols, const char *name) {
    *a = (array){.dtype = type, .rank = m->rank};
    memcpy(a->shape, m->shape, sizeof a->shape);
    a->shape[m->rank - 1] = cols;
    a->data = own_memory(c, array_bytes(a), name);
    return a->data ? 0 : -1;
}

int gguf_take(checkpoint *c, const stored *t, matrix *out) {
    *out = (matrix){.rank = t->data.rank};
    memcpy(out->shape, t->data.shape, sizeof out->shape);
    int last = t->data.rank - 1;
    int64_t in = last ? t->data.shape[last] : 1, count = array_count(&t->data), rows = in ? count / in : 0;
    if (t->heads && (rows % t->heads || rows / t->heads % 2))
        return fail("%s: tensor \"%s\": %lld rows do not make %lld heads", t->file, t->name, (long long)rows,
                    (long long)t->heads);
    const char *data = t->data.data;
    size_t stride = rows ? t->bytes / (size_t)rows : 0;
    if (t->blocks) {
        out->kind = MATRIX_AFFINE;
        out->bits = formats[t->blocks].bits;
        out->group_size = GROUP;
        if (new_part(c, &out->values, out, DTYPE_U32, in * out->bits / 32, t->name) ||
            new_part(c, &out->scales, out, DTYPE_F16, in / GROUP, t->name) ||
            new_part(c, &out->biases, out, DTYPE_F16, in / GROUP, t->name))
            return -1;
        repack to = {(void *)out->values.data, (void *)out->scales.data, (void *)out->biases.data};
        for (int64_t r = 0; r < rows; r++) {
            const char *row = data + (size_t)source_row(t, rows, r) * stride;
            formats[t->blocks].row(&to, (const uint8_t *)row, in / GROUP);
        }
    } else {
        if (new_part(c, &out->values, out, t->data.dtype, out->shape[last], t->name)) return -1;
        char *to = (void *)out->values.data;
        for (int64_t r = 0; r < rows; r++)
            memcpy(to + (size_t)r * stride, data + (size_t)source_row(t, rows, r) * stride, stride);
    }
    file_map_release(data, t->bytes);
    return 0;
}
