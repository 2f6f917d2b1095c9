/* gguf_blocks.c - from GGUF's blocks and llama.cpp's row order to what mlx-lm has.
 * Most store 32 values with one scale; MLX keeps scales and biases apart, and packs values in
 * order. The numbers stay the same to the bit (MLX: io/gguf_quants.cpp). Q4_K's and Q5_K's scales
 * are products of an F16 and 6 bits, which are rounded to F16, as all scales here are. Q6_K's
 * groups of 16 have no form in MLX: its numbers are rounded to F16. Source of the blocks: ggml's
 * ggml-common.h and gguf-py's quants.py. */
#include "checkpoint/internal.h"

#include <string.h>

enum { GROUP = 32 };

/* One matrix's destination. */
typedef struct repack {
    uint8_t *values;
    uint16_t *scales, *biases;
    uint8_t *exponents; /* mxfp4's scales */
} repack;

/* The row of the file that holds row r. llama.cpp interleaves the two halves of each head's rows,
 * for its way of computing RoPE; mlx-lm, like Hugging Face, has one half after the other. */
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

/* 32 values of 5 bits, each in a byte, to 20 bytes. */
static void pack_five(uint8_t *out, const uint8_t *q) {
    for (int i = 0; i < 32; i += 8, out += 5) {
        uint64_t eight = 0;
        for (int k = 0; k < 8; k++) eight |= (uint64_t)q[i + k] << (5 * k);
        memcpy(out, &eight, 5);
    }
}

/* 16 bytes as in Q4_0 and a word with the fifth bits. */
static void repack_five(repack *to, const uint8_t *high, const uint8_t *low) {
    uint8_t q[32];
    uint32_t fifth;
    memcpy(&fifth, high, sizeof fifth);
    for (int i = 0; i < 32; i++)
        q[i] = (uint8_t)((i < 16 ? low[i] & 15 : low[i - 16] >> 4) | (fifth >> i & 1) << 4);
    pack_five(to->values, q);
    to->values += 20;
}

static void repack_q5_0(repack *to, const uint8_t *block, int64_t n) {
    for (; n--; block += 22) {
        uint16_t scale;
        memcpy(&scale, block, sizeof scale);
        repack_five(to, block + 2, block + 6);
        *to->scales++ = scale;
        *to->biases++ = times_minus(4, scale);
    }
}

static void repack_q5_1(repack *to, const uint8_t *block, int64_t n) {
    for (; n--; block += 24) {
        memcpy(to->scales++, block, sizeof *to->scales);
        memcpy(to->biases++, block + 2, sizeof *to->biases);
        repack_five(to, block + 4, block + 8);
    }
}

static float half_at(const uint8_t *p) {
    uint16_t half;
    memcpy(&half, p, sizeof half);
    return f16_to_f32(half);
}

/* The scales and minima of Q4_K's and Q5_K's 8 groups: two factors, then 6 bits for each scale and
 * minimum.
 */
static void repack_k_scales(repack *to, const uint8_t *block) {
    float scale = half_at(block), least = half_at(block + 2);
    const uint8_t *six = block + 4;
    for (int g = 0; g < 8; g++) {
        int of_scale = six[g] & 63, of_least = six[g + 4] & 63;
        if (g >= 4) {
            of_scale = (six[g + 4] & 15) | six[g - 4] >> 6 << 4;
            of_least = six[g + 4] >> 4 | six[g] >> 6 << 4;
        }
        *to->scales++ = f32_to_f16(scale * (float)of_scale);
        *to->biases++ = f32_to_f16(-least * (float)of_least);
    }
}

/* Two groups share 32 bytes: the low halves are the first's. */
static void repack_q4_k(repack *to, const uint8_t *block, int64_t n) {
    for (; n--; block += 144) {
        repack_k_scales(to, block);
        for (int g = 0; g < 8; g++)
            for (int i = 0; i < 32; i += 8, to->values += 4) {
                uint64_t bytes;
                memcpy(&bytes, block + 16 + g / 2 * 32 + i, sizeof bytes);
                uint32_t packed = low_nibbles(g % 2 ? bytes >> 4 : bytes);
                memcpy(to->values, &packed, sizeof packed);
            }
    }
}

/* The same, and 32 bytes in which bit g has group g's fifth bits. */
static void repack_q5_k(repack *to, const uint8_t *block, int64_t n) {
    for (; n--; block += 176) {
        const uint8_t *high = block + 16, *low = block + 48;
        repack_k_scales(to, block);
        for (int g = 0; g < 8; g++, to->values += 20) {
            uint8_t q[32];
            for (int i = 0; i < 32; i++)
                q[i] = (uint8_t)((low[g / 2 * 32 + i] >> g % 2 * 4 & 15) | (high[i] >> g & 1) << 4);
            pack_five(to->values, q);
        }
    }
}

/* 128 values at a time: the low halves of 64 bytes, then the high ones, and two bits each of 32
 * bytes. */
static void repack_q6_k(repack *to, const uint8_t *block, int64_t n) {
    for (; n--; block += 210)
        for (int i = 0; i < 256; i++, to->values += 2) {
            int at = i % 128, half = i / 128;
            int low = block[half * 64 + at % 64] >> at / 64 * 4 & 15;
            int high = block[128 + half * 32 + at % 32] >> at / 32 * 2 & 3;
            float scale = half_at(block + 208) * (float)(int8_t)block[192 + i / 16];
            uint16_t number = f32_to_f16(scale * (float)((low | high << 4) - 32));
            memcpy(to->values, &number, sizeof number);
        }
}

static void repack_mxfp4(repack *to, const uint8_t *block, int64_t n) {
    for (; n--; block += 17, to->values += 16) {
        *to->exponents++ = *block;
        unpack_nibbles(to->values, block + 1);
    }
}

/* What each format becomes: per_block values of that kind and width. */
static const struct {
    void (*row)(repack *to, const uint8_t *blocks, int64_t n);
    matrix_kind kind;
    int bits, per_block;
} formats[] = {
    [BLOCK_Q8_0] = {repack_q8_0, MATRIX_AFFINE, 8, 32},  [BLOCK_Q4_0] = {repack_q4_0, MATRIX_AFFINE, 4, 32},
    [BLOCK_Q4_1] = {repack_q4_1, MATRIX_AFFINE, 4, 32},  [BLOCK_Q5_0] = {repack_q5_0, MATRIX_AFFINE, 5, 32},
    [BLOCK_Q5_1] = {repack_q5_1, MATRIX_AFFINE, 5, 32},  [BLOCK_Q4_K] = {repack_q4_k, MATRIX_AFFINE, 4, 256},
    [BLOCK_Q5_K] = {repack_q5_k, MATRIX_AFFINE, 5, 256}, [BLOCK_Q6_K] = {repack_q6_k, MATRIX_PLAIN, 16, 256},
    [BLOCK_MXFP4] = {repack_mxfp4, MATRIX_MXFP4, 4, 32},
};

/* The array for one part of out, with cols elements in the last dimension, in memory of ours. */
static int new_part(checkpoint *c, array *a, const matrix *m, dtype type, int64_t cols, const char *name) {
    *a = (array){.dtype = type, .rank = m->rank};
    memcpy(a->shape, m->shape, sizeof a->shape);
    a->shape[m->rank - 1] = cols;
    a->data = own_memory(c, array_bytes(a), name);
    return a->data ? 0 : -1;
}

/* Memory for what t's blocks become: out's parts and, the same, to. */
static int new_parts(checkpoint *c, const stored *t, matrix *out, repack *to) {
    int64_t in = out->shape[out->rank - 1], n = in * formats[t->blocks].bits;
    matrix_kind kind = formats[t->blocks].kind;
    bool plain = kind == MATRIX_PLAIN;
    out->kind = kind;
    out->bits = plain ? 0 : formats[t->blocks].bits;
    out->group_size = plain ? 0 : GROUP;
    if (new_part(c, &out->values, out, plain ? DTYPE_F16 : DTYPE_U32, n / (plain ? 16 : 32), t->name))
        return -1;
    if (!plain &&
        new_part(c, &out->scales, out, kind == MATRIX_AFFINE ? DTYPE_F16 : DTYPE_U8, in / GROUP, t->name))
        return -1;
    if (kind == MATRIX_AFFINE && new_part(c, &out->biases, out, DTYPE_F16, in / GROUP, t->name)) return -1;
    *to = (repack){(void *)out->values.data, (void *)out->scales.data, (void *)out->biases.data,
                   (void *)out->scales.data};
    return 0;
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
        repack to;
        if (new_parts(c, t, out, &to)) return -1;
        for (int64_t r = 0; r < rows && !c->sizes_only; r++) {
            const char *row = data + (size_t)source_row(t, rows, r) * stride;
            formats[t->blocks].row(&to, (const uint8_t *)row, in / formats[t->blocks].per_block);
        }
    } else {
        if (new_part(c, &out->values, out, t->data.dtype, out->shape[last], t->name)) return -1;
        char *to = (void *)out->values.data;
        for (int64_t r = 0; r < rows && !c->sizes_only; r++)
            memcpy(to + (size_t)r * stride, data + (size_t)source_row(t, rows, r) * stride, stride);
    }
    file_map_release(data, t->bytes);
    return 0;
}
