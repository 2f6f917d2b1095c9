/* kernels/avx2/attention_few.c - attention of few query rows, as in decode, with AVX2: all rows of
 * a KV head share one pass over its entries. A register holds 8 dimensions, and entries are
 * converted where they are multiplied. */
#include "engine/cpu/kernels/avx2/attention.h"

enum {
    KEYS = 32,  /* of a block */
    AT_ONCE = 4 /* rows of the products */
};

#include "engine/cpu/kernels/templates/softmax.h"

/* How entries are multiplied: as floats of `type` (bits 0), or, with 8 or 4 bits, as the integers
 * they are. Other widths are converted to F32, block by block. Constants of inlined functions. */
typedef struct form {
    dtype type;
    int bits;
} form;

/* The keys or the values of a block. */
typedef struct side {
    const char *entries;
    int64_t width, group;         /* numbers of an entry, and of a group of them: floats are one group */
    const float *scales, *biases; /* of integers: [groups][KEYS], zeros after the last entry */
    int64_t ahead;                /* see jump_ahead */
} side;

INLINE int64_t bytes_of(form f, int64_t n) {
    return f.bits == 4 ? n >> 1 : f.bits ? n : n * (int64_t)size_of(f.type);
}

/* 8 numbers as floats, without scale and bias. */
INLINE __m256 numbers8(const char *p, form f) {
    if (!f.bits) return load8(p, f.type);
    if (f.bits == 8) return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)));
    int32_t eight;
    memcpy(&eight, p, sizeof eight);
    __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    __m256i q = _mm256_srlv_epi32(_mm256_set1_epi32(eight), shifts);
    return _mm256_cvtepi32_ps(_mm256_and_si256(q, _mm256_set1_epi32(15)));
}

/* Scales, or biases, of n entries from `first` on. */
INLINE const float *take_scales(float *out, const void *scales, const rows *w, int64_t first, int64_t n,
                                dtype type) {
    int64_t groups = w->n / w->group_size;
    memset(out, 0, (size_t)(groups * KEYS) * sizeof *out);
    for (int64_t g = 0; g < groups; g++) {
        const char *from = at(scales, type, first * groups + g);
        int64_t i = 0;
        for (; groups == 1 && i + LANES <= n; i += LANES)
            _mm256_storeu_ps(out + i, load8(at(from, type, i), type));
        for (; i < n; i++) out[g * KEYS + i] = _mm256_cvtss_f32(spread(at(from, type, i * groups), type));
    }
    return out;
}

static void take_affine(side *s, float *room, const rows *w, int64_t first, int64_t n) {
    float *biases = room + w->n / w->group_size * KEYS;
    s->group = w->group_size;
    if (w->dtype == DTYPE_F32) {
        s->scales = take_scales(room, w->scales, w, first, n, DTYPE_F32);
        s->biases = take_scales(biases, w->biases, w, first, n, DTYPE_F32);
    } else if (w->dtype == DTYPE_F16) {
        s->scales = take_scales(room, w->scales, w, first, n, DTYPE_F16);
        s->biases = take_scales(biases, w->biases, w, first, n, DTYPE_F16);
    } else {
        s->scales = take_scales(room, w->scales, w, first, n, DTYPE_BF16);
        s->biases = take_scales(biases, w->biases, w, first, n, DTYPE_BF16);
    }
}

/* room: for a block's entries in F32. */
INLINE side take_side(float *room, const attention *a, const rows *w, int64_t first, int64_t n, form f,
                      const void *next) {
    side s = {.width = w->n, .group = w->n};
    if (w->bits && !f.bits) {
        s.entries = (const char *)avx2_convert(room, w, first, n);
        return s;
    }
    s.entries = (const char *)w->values + first * row_bytes_of(w);
    s.ahead = jump_ahead(a, w, first, KEYS, next);
    if (f.bits) take_affine(&s, room, w, first, n);
    return s;
}

/* x, which the compiler would else load again for each product, into which it can put one load. */
INLINE __m256 keep(__m256 x) {
    __asm__("" : "+x"(x));
    return x;
}

/* scores[r * KEYS + k] of R rows and K keys, over the numbers of a group. */
INLINE void score_tile(float *scores, const float *q, const char *keys, const side *s, form f, int R, int K) {
    __m256 sum[2 * AT_ONCE];
    for (int i = 0; i < 2 * AT_ONCE; i++) sum[i] = _mm256_setzero_ps();
    for (int64_t d = 0; d < s->group; d += LANES) {
        __m256 key[AT_ONCE];
        for (int k = 0; k < K; k++) key[k] = numbers8(keys + bytes_of(f, k * s->width + d), f);
        for (int r = 0; r < R; r++) {
            __m256 row = keep(_mm256_loadu_ps(q + r * s->width + d));
            for (int k = 0; k < K; k++) sum[r * K + k] = _mm256_fmadd_ps(row, key[k], sum[r * K + k]);
        }
    }
    float folded[2 * AT_ONCE];
    for (int i = 0; i < R * K; i += 4) _mm_storeu_ps(folded + i, sum8x4(sum + i));
    for (int r = 0; r < R; r++)
        for (int k = 0; k < K; k++) scores[r * KEYS + k] = folded[r * K + k];
}

INLINE void score_group(float *scores, const float *q, const side *s, int64_t g, int64_t n, form f, int R) {
    int K = R > 2 ? 2 : 4;
    int64_t k = 0, bytes = bytes_of(f, s->width);
    const char *keys = s->entries + bytes_of(f, g * s->group);
    for (; k + K <= n; k += K, keys += K * bytes) {
        if (!g) fetch(keys + s->ahead, K * bytes);
        score_tile(scores + k, q + g * s->group, keys, s, f, R, K);
    }
    for (; k < n; k++, keys += bytes) score_tile(scores + k, q + g * s->group, keys, s, f, R, 1);
}

/* sums: of the groups of each row of q. raw: room for as many as scores. */
INLINE void score_rows(float *scores, float *raw, const float *q, const float *sums, const side *s, int64_t n,
                       form f, int R) {
    if (!f.bits) {
        score_group(scores, q, s, 0, n, f, R);
        return;
    }
    for (int64_t g = 0, groups = s->width / s->group; g < groups; g++) {
        score_group(raw, q, s, g, n, f, R);
        for (int i = 0; i < R * KEYS; i += LANES) {
            __m256 sum = _mm256_broadcast_ss(sums + i / KEYS * groups + g);
            __m256 bias = _mm256_mul_ps(_mm256_loadu_ps(s->biases + g * KEYS + i % KEYS), sum);
            if (g) bias = _mm256_add_ps(bias, _mm256_loadu_ps(scores + i));
            __m256 scale = _mm256_loadu_ps(s->scales + g * KEYS + i % KEYS);
            _mm256_storeu_ps(scores + i, _mm256_fmadd_ps(scale, _mm256_loadu_ps(raw + i), bias));
        }
    }
}

/* C registers of R rows: out += probabilities times values, and add to all of a row. */
INLINE void mix_tile(float *out, const float *p, const float *add, const char *values, const side *s,
                     int64_t n, form f, int R, int C) {
    __m256 sum[AT_ONCE][8];
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) {
            sum[r][c] = _mm256_loadu_ps(out + r * s->width + c * LANES);
            if (f.bits) sum[r][c] = _mm256_add_ps(sum[r][c], _mm256_broadcast_ss(add + r));
        }
    for (int64_t k = 0; k < n; k++, values += bytes_of(f, s->width)) {
        fetch(values + s->ahead, bytes_of(f, C * LANES));
        __m256 value[8];
        for (int c = 0; c < C; c++) {
            value[c] = numbers8(values + bytes_of(f, c * LANES), f);
            if (R > 1) value[c] = keep(value[c]);
        }
        for (int r = 0; r < R; r++) {
            __m256 share = _mm256_broadcast_ss(p + r * KEYS + k);
            for (int c = 0; c < C; c++) sum[r][c] = _mm256_fmadd_ps(value[c], share, sum[r][c]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) _mm256_storeu_ps(out + r * s->width + c * LANES, sum[r][c]);
}

/* Numbers [d, end) of the entries. */
INLINE void mix_columns(float *out, const float *p, const float *add, const side *s, int64_t d, int64_t end,
                        int64_t n, form f, int R) {
    int C = R == 1 ? 6 : R == 2 ? 4 : f.bits == 4 ? 2 : 3; /* as registers allow */
    for (; d + C * LANES <= end; d += C * LANES)
        mix_tile(out + d, p, add, s->entries + bytes_of(f, d), s, n, f, R, C);
    for (; d + 2 * LANES <= end; d += 2 * LANES)
        mix_tile(out + d, p, add, s->entries + bytes_of(f, d), s, n, f, R, 2);
    if (d < end) mix_tile(out + d, p, add, s->entries + bytes_of(f, d), s, n, f, R, 1);
}

/* shares: room for as many as probabilities. */
INLINE void mix_rows(float *out, const float *p, float *shares, const side *s, int64_t n, form f, int R) {
    for (int64_t g = 0; g < s->width / s->group; g++) {
        float add[AT_ONCE] = {0};
        for (int r = 0; r < R && f.bits; r++) {
            __m256 sum = _mm256_setzero_ps();
            for (int i = 0; i < KEYS; i += LANES) {
                __m256 share = _mm256_loadu_ps(p + r * KEYS + i);
                sum = _mm256_fmadd_ps(share, _mm256_loadu_ps(s->biases + g * KEYS + i), sum);
                __m256 scaled = _mm256_mul_ps(share, _mm256_loadu_ps(s->scales + g * KEYS + i));
                _mm256_storeu_ps(shares + r * KEYS + i, scaled);
            }
            add[r] = sum8(sum);
        }
        mix_columns(out, f.bits ? shares : p, add, s, g * s->group, (g + 1) * s->group, n, f, R);
    }
}

/* A thread's memory for few rows. */
typedef struct room {
    float *scores, *raw;  /* [AT_ONCE][KEYS] */
    float *sums;          /* of the rows' groups */
    float *keys, *values; /* a block's in F32, or its scales and biases */
} room;

size_t avx2_few_floats(int64_t dim, int64_t v_dim) {
    return (size_t)(KEYS * (2 * AT_ONCE + dim + v_dim) + FEW_ROWS * dim / LANES);
}

INLINE void block_few(const attention *a, int64_t r, const room *m, const side *keys, const side *values,
                      int64_t first, int64_t n, form f, int R) {
    float *out = a->out + r * a->v_dim;
    score_rows(m->scores, m->raw, a->q + r * a->dim, m->sums + r * (a->dim / keys->group), keys, n, f, R);
    for (int i = 0; i < R; i++)
        soften_row(m->scores + i * KEYS, &a->state[r + i], out + i * a->v_dim, a->v_dim,
                   a->seen[r + i].low - first, a->seen[r + i].end - first, n);
    mix_rows(out, m->scores, m->raw, values, n, f, R);
}

INLINE void attend_few(const attention *a, float *scratch, form f) {
    room m = {.scores = scratch, .raw = scratch + AT_ONCE * KEYS, .sums = scratch + 2 * AT_ONCE * KEYS};
    m.keys = m.sums + FEW_ROWS * a->dim / LANES;
    m.values = m.keys + KEYS * a->dim;
    if (f.bits) kernels_avx2.group_sums(m.sums, a->q, a->n_rows * a->dim, a->keys.group_size);
    for (int64_t r = 0; r < a->n_rows; r++) a->state[r] = (softmax_state){-INFINITY, 0};
    memset(a->out, 0, (size_t)(a->n_rows * a->v_dim) * sizeof *a->out);
    for (int64_t first = a->first; first < a->end; first += KEYS) {
        int64_t n = at_most(a->end - first, KEYS), r = 0;
        side keys = take_side(m.keys, a, &a->keys, first, n, f, a->next_keys);
        side values = take_side(m.values, a, &a->values, first, n, f, a->next_values);
        for (; r + AT_ONCE <= a->n_rows; r += AT_ONCE)
            block_few(a, r, &m, &keys, &values, first, n, f, AT_ONCE);
        if (a->n_rows - r == 3) block_few(a, r, &m, &keys, &values, first, n, f, 3);
        if (a->n_rows - r == 2) block_few(a, r, &m, &keys, &values, first, n, f, 2);
        if (a->n_rows - r == 1) block_few(a, r, &m, &keys, &values, first, n, f, 1);
    }
}

void avx2_attend_few(const attention *a, float *scratch) {
    dtype type = a->keys.dtype;
    int bits = a->keys.bits;
    if (bits == 8)
        attend_few(a, scratch, (form){DTYPE_F32, 8});
    else if (bits == 4)
        attend_few(a, scratch, (form){DTYPE_F32, 4});
    else if (bits || type == DTYPE_F32)
        attend_few(a, scratch, (form){DTYPE_F32, 0});
    else if (type == DTYPE_F16)
        attend_few(a, scratch, (form){DTYPE_F16, 0});
    else
        attend_few(a, scratch, (form){DTYPE_BF16, 0});
}
