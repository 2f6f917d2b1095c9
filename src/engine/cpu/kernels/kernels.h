/* kernels.h - the inner loops of engine/cpu, one table per instruction set, chosen at run time.
 * Everything else of the engine is portable C over these; sums are F32. */
#ifndef ENGINE_CPU_KERNELS_KERNELS_H
#define ENGINE_CPU_KERNELS_KERNELS_H

#include "base/base.h"
#include "engine/engine.h"

/* A weight matrix [rows, n] (one expert's, if there are several) as the kernels read it, in the
 * checkpoint's layout. */
typedef struct rows {
    matrix_kind kind;
    int64_t n;            /* columns: the input width */
    const void *values;   /* plain: rows of n; else rows of n * bits / 32 words */
    const void *scales;   /* unless plain: rows of n / group_size */
    const void *biases;   /* affine: as scales */
    dtype dtype;          /* of the values when plain, of scales and biases when affine */
    int bits, group_size; /* 0, 0 when plain */
} rows;

/* Bytes of one scale. */
static inline size_t scale_size(const rows *w) {
    return w->kind == MATRIX_AFFINE ? dtype_size(w->dtype) : 1;
}

/* Bytes of a row's values. */
static inline int64_t row_bytes_of(const rows *w) {
    return w->bits ? w->n * w->bits / 8 : w->n * (int64_t)dtype_size(w->dtype);
}

/* The integer 2 * x + 12 of each E2M1 number x, for products of unsigned bytes: the scale is
 * halved, and -12 times that half is the bias. */
#define E2M1_BYTES 12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0

/* The largest activation in fixed point; that of 16 bits is 256 * high + low with two signed
 * bytes. */
enum { MOST_INT8 = 127, MOST_INT16 = 256 * 127 + 127 };

/* Rows k * apart + i, first <= i < end, for k < RUNS: memory is read fastest in several streams at
 * once. apart 0: one run. */
enum { LOG2_RUNS = 2, RUNS = 1 << LOG2_RUNS };
typedef struct runs {
    int64_t first, end, apart;
} runs;

static inline int count_runs(runs rs) {
    return rs.apart ? RUNS : 1;
}

/* Run k alone: rows [first, end). */
static inline runs one_run(runs rs, int k) {
    return (runs){k * rs.apart + rs.first, k * rs.apart + rs.end, 0};
}

/* A way to multiply with activations that are rounded first. Memory of prepared tokens and panels
 * belongs to the caller and is aligned to 64 bytes. */
typedef struct products {
    /* Few tokens: each row of w is read once, straight from the checkpoint. A token is prepared
     * once. */
    size_t (*prepared_bytes)(const rows *w); /* a multiple of 64 */
    void (*prepare)(void *prepared, const rows *w, const float *x);
    /* y[r] = dot(row r of w, x) for all rows r of the runs. */
    void (*matvec)(float *y, const rows *w, runs rs, const void *prepared);

    /* Many tokens: both sides are packed into panels of panel_rows rows or panel_tokens tokens,
     * which lie one after another; the last may hold fewer. */
    int panel_rows, panel_tokens;
    size_t (*row_panel_bytes)(const rows *w), (*token_panel_bytes)(const rows *w); /* multiples of 64 */
    void (*pack_rows)(void *panel, const rows *w, int64_t first, int64_t n_rows);
    void (*pack_tokens)(void *panel, const rows *w, const float *x, int64_t x_stride, int64_t n_tokens);
    /* out[t * out_stride + r] = dot(token t, row r) for t < n_tokens, r < n_rows. */
    void (*multiply)(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens, const void *panels,
                     int64_t n_rows, const rows *w);

    /* The same of up to straight_tokens(w) tokens, with rows of w straight from the checkpoint: for
     * so few, packing rows costs as much as multiplying them. NULL, or 0 tokens: there is none. */
    int64_t (*straight_tokens)(const rows *w);
    void (*multiply_straight)(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens,
                              const rows *w, int64_t n_rows);
} products;

/* Running softmax of one query row over the keys seen so far. */
typedef struct softmax_state {
    float max, sum;
} softmax_state;

typedef struct seen_keys {
    int64_t low, end; /* [low, end) */
} seen_keys;

/* Attention of some query rows to the entries of the KV head they share, over keys [first, end). */
typedef struct attention {
    int64_t n_rows, dim, v_dim;
    const float *q;        /* [n_rows][dim], scaled */
    const seen_keys *seen; /* of each row; low and end never fall from row to row */
    rows keys, values;     /* of dim and v_dim columns, from key 0 on; both plain or both affine */
    int64_t first, end;
    const void *next_keys, *next_values; /* what the thread attends to next, to be fetched; NULL: not known */
    float *out;                          /* [n_rows][v_dim]: sums of exp(score - max) * value */
    softmax_state *state;
} attention;

/* The whole of it, on entries as they are stored. */
typedef struct attention_kernels {
    bool (*fits)(int64_t dim, int64_t v_dim); /* can it be used? */
    size_t (*scratch_bytes)(int64_t n_rows, int64_t dim, int64_t v_dim);
    void (*attend)(const attention *a, void *scratch); /* scratch is aligned to 64 bytes */
} attention_kernels;

/* What is made for one kind of matrices. */
typedef struct matrix_kernels {
    /* y[r] = dot(row r of w, x) for r in [first, end). sums: group_sums of x when w is affine, else
     * unused. The affine form is sum over groups of scale * dot(q, x) + bias * sum(x). */
    void (*matvec)(float *y, const rows *w, int64_t first, int64_t end, const float *x, const float *sums);

    /* Row r of w, dequantized -> out[n]: affine scale * q + bias, each element rounded as F32; of
     * the other kinds exact. */
    void (*unpack)(float *out, const rows *w, int64_t r);

    /* Faster products, each NULL where the processor gains nothing from it.
     * f32: the same sums as matvec and matmul, in another order.
     * bf16: plain BF16 weights and activations rounded to BF16.
     * int16, int8: quantized weights that are integers times a scale and activations in fixed
     * point, 16 or 8 bits, per group of the weights: with largest = max |x| of a group, x is
     * round(x * (m / largest)) * (largest / m), m = MOST_INT16 or MOST_INT8. Affine
     * and mxfp4 always have int8. Products of integers are exact; group sums are those
     * of the rounded activations. A NaN or an infinity makes the result one of these; a group whose
     * largest is below 1e-30 counts as zeros. */
    const products *f32, *bf16, *int16, *int8;
} matrix_kernels;

typedef struct kernels {
    const char *name;        /* "scalar", "avx2": what MLXBENCH_CPU takes */
    bool (*supported)(void); /* can this processor run it? */

    matrix_kernels of[N_MATRIX_KINDS];

    /* sums[g] = sum of x[g * group_size .. ), for n / group_size groups. */
    void (*group_sums)(float *sums, const float *x, int64_t n, int group_size);

    /* out[t * out_stride + r] = dot(x + t * x_stride, w + r * n) for t < n_tokens, r < n_rows: a
     * block of tokens times a tile of rows that stay in cache. */
    void (*matmul)(float *out, int64_t out_stride, const float *x, int64_t x_stride, int64_t n_tokens,
                   const float *w, int64_t n_rows, int64_t n);

    /* out[t * out_stride + c] += sum over r of p[t * p_stride + r] * v[r * n + c], for t <
     * n_tokens, r < n_rows, c < n: probabilities times values. */
    void (*mix)(float *out, int64_t out_stride, const float *p, int64_t p_stride, int64_t n_tokens,
                const float *v, int64_t n_rows, int64_t n);

    /* F32, F16 or BF16 to F32 and back (round to nearest even). */
    void (*to_f32)(float *out, const void *in, dtype type, int64_t n);
    void (*from_f32)(void *out, dtype type, const float *in, int64_t n);

    /* out = x / sqrt(mean(x^2) + eps) * w, w NULL: none. out may be x. */
    void (*rms_norm)(float *out, const float *x, const float *w, int64_t n, float eps);

    /* out = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * w + bias, w and bias NULL: none.
     * Right too where the mean is much larger than the spread. out may be x. */
    void (*layer_norm)(float *out, const float *x, const float *w, const float *bias, int64_t n, float eps);

    /* out = act(gate) * up. out may be either. */
    void (*gated)(float *out, activation act, const float *gate, const float *up, int64_t n);

    float (*max)(const float *x, int64_t n);

    /* x[i] = exp(x[i] - shift); returns their sum. Relative error below 1e-6 over the whole range,
     * exp(-inf) = 0. */
    float (*exp_sum)(float *x, int64_t n, float shift);

    /* A state S [n_rows, n] over one token: S_r = decay S_r + x[r] b, elementwise, and y[r] = S_r .
     * c. */
    void (*scan)(float *y, float *S, int64_t n_rows, int64_t n, const float *decay, const float *x,
                 const float *b, const float *c);

    /* out[i] = bias[i] (NULL: 0) + sum over j < taps of w[j * w_stride + i] * in[j][i], then x
     * sigmoid(x) when silu; i < n. out may be none of in. */
    void (*convolve)(float *out, const float *const in[], const float *w, int64_t w_stride, int taps,
                     const float *bias, bool silu, int64_t n);

    const attention_kernels *attention; /* NULL: entries are converted, then multiplied and mixed */

    /* The table that has what this one lacks, except int16 of a kind where this one has f32. NULL:
     * it lacks only what kernels_scalar has of some kind of matrices. */
    const struct kernels *base;
} kernels;

/* The table to use: the one MLXBENCH_CPU names (-> NULL and a usage error naming the known ones
 * when there is no such table or the processor cannot run it), else the best that the processor
 * supports. */
const kernels *kernels_choose(void);

/* t, completed by its base, its base's base, ... and the scalar matrix kernels. */
kernels kernels_complete(const kernels *t);

extern const kernels kernels_scalar;

/* scalar_fp.c: matvec and unpack of mxfp4, mxfp8 and nvfp4. */
void scalar_matvec_fp(float *y, const rows *w, int64_t first, int64_t end, const float *x, const float *sums);
void scalar_unpack_fp(float *out, const rows *w, int64_t r);

#if defined(__x86_64__)
extern const kernels kernels_avx2, kernels_avx512, kernels_avx512vnni, kernels_avx512amx;
extern const attention_kernels attention_avx2, attention_avx512;
#elif defined(__aarch64__)
extern const kernels kernels_neon, kernels_neon_dotprod, kernels_neon_i8mm;
#endif

#endif
