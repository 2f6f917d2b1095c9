/* kernels/avx512/straight.h - up to 16 tokens in fixed point times rows of 4-bit weights, straight
 * from the checkpoint: a batch's decode. A part of vnni.c; the tokens' panels are panels.h's.
 * Panels of rows would cost as much as they save: here 16 rows are transposed as 32-bit words, and
 * a shift and a mask take their columns out on the way to the product. */

/* 32 rows at a time; a block is 64 bytes of each, and blocks are fetched FETCH_AHEAD bytes ahead.
 * Of a panel's tokens at most MOST_SUMS are multiplied at once. */
enum { STRAIGHT_ROWS = 2 * ROWS, STRAIGHT_TOKENS = 16, BLOCK_BYTES = 64, BLOCK_WORDS = 16 };
enum { FETCH_AHEAD = 320, MOST_SUMS = 8 };

/* Of 32 rows: the words of a block, and of the next; as many of the scales, and of the biases. */
typedef struct straight {
    __m512i words[2][2][BLOCK_WORDS], turning[BLOCK_WORDS];
    __m512i scales[2][BLOCK_WORDS], biases[2][BLOCK_WORDS];
    tile_sums sums[2]; /* of each panel of tokens */
} straight;

/* A block of rows r and on, of which n_rows exist: `rest` bytes of each from `from` on are left. */
typedef struct block {
    const char *from;
    int64_t r, at, rest, n_rows;
} block;

INLINE block block_at(const rows *w, int64_t r, int64_t at, int64_t n_rows) {
    int64_t row_bytes = w->n / 2;
    return (block){(const char *)w->values + r * row_bytes + at, r, at, row_bytes - at, n_rows - r};
}

/* One of BLOCK_WORDS steps from b to the words of its 32 rows, so that they can be taken between
 * products: the processor does both at once, but does not look far ahead. */
INLINE void turn(__m512i words[2][BLOCK_WORDS], __m512i turning[BLOCK_WORDS], const block *b,
                 int64_t row_bytes, int step) {
    int p = step / 8, i = step % 4;
    if (step % 8 >= 4) {
        transpose_lanes(words[p] + i, turning + i);
        return;
    }
    __m512i a[4];
    for (int k = 0; k < 4; k++) {
        int64_t row = p * ROWS + i * 4 + k; /* one that does not exist: any */
        a[k] = load_bytes(b->from + (row < b->n_rows ? row : 0) * row_bytes, b->rest);
    }
    transpose_rows(turning + i * 4, a);
}

/* Scales or biases of 16 rows as words: the 64 bytes from byte `at` of each row. */
INLINE void take_scale_words(__m512i a[BLOCK_WORDS], const void *scales, int64_t row_bytes, int64_t first,
                             int64_t n_rows, int64_t at) {
    for (int64_t i = 0; i < ROWS; i++) {
        int64_t row = first + (i < n_rows ? i : 0); /* one that does not exist: any */
        a[i] = load_bytes((const char *)scales + row * row_bytes + at, row_bytes - at);
    }
    transpose(a);
}

/* Number k of each of 16 words. */
INLINE __m512 number_of(__m512i words, unsigned k, dtype type, form f) {
    if (f.kind != MATRIX_AFFINE) return from_bytes(_mm512_cvtepi32_epi8(_mm512_srli_epi32(words, 8 * k)), f);
    if (type == DTYPE_F32) return _mm512_castsi512_ps(words);
    if (type == DTYPE_F16) return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16 * k)));
    __m512i high = _mm512_and_si512(words, _mm512_set1_epi32((int)0xffff0000));
    return _mm512_castsi512_ps(k ? high : _mm512_slli_epi32(words, 16));
}

/* Scales and biases of group g, from their words; E2M1's as scales_of and biases_of say. */
INLINE row_scales scales_in(const straight *s, const rows *w, int64_t g, form f) {
    int64_t per_word = 4 / (int64_t)scale_size(w), word = g / per_word % BLOCK_WORDS;
    row_scales by;
    for (int p = 0; p < 2; p++) {
        by.scale[p] = number_of(s->scales[p][word], (unsigned)(g % per_word), w->dtype, f);
        by.bias[p] = _mm512_mul_ps(by.scale[p], _mm512_set1_ps(-6));
        if (f.kind == MATRIX_AFFINE)
            by.bias[p] = number_of(s->biases[p][word], (unsigned)(g % per_word), w->dtype, f);
        else
            by.scale[p] = _mm512_mul_ps(by.scale[p], _mm512_set1_ps(0.5f));
    }
    return by;
}

/* A group of a block: `count` words of 8 columns from word `first` on, and its scales. While
 * word i is multiplied, step i is made of the next block, and row i of each panel is fetched. */
typedef struct group_words {
    straight *s;
    row_scales by;
    int now, first, count;
    const block *next; /* NULL: that has been done */
    const char *fetch;
    int64_t row_bytes;
} group_words;

/* Adds one group's part to the sums of T tokens. */
INLINE void multiply_words(float (*sums)[2][ROWS], const char *x, const float *x_scales, group_words g,
                           form f, int T) {
    __m512i dot[MOST_SUMS][2], mask = _mm512_set1_epi32(f.words ? 0x000f000f : 0x0f0f0f0f);
    __m512i low = _mm512_set1_epi32(f.words ? 0x00ff00ff : -1);
    int units = 8 / unit_of(f.words); /* here: a sanitized division in a loop's condition hinders UNROLL */
    UNROLL
    for (int t = 0; t < T; t++) dot[t][0] = dot[t][1] = _mm512_setzero_si512();
    for (int i = g.first; i < g.first + g.count; i++) {
        __m512i a[2] = {g.s->words[g.now][0][i], g.s->words[g.now][1][i]};
        if (g.next) {
            _mm_prefetch(g.fetch + i * g.row_bytes, _MM_HINT_T0);
            _mm_prefetch(g.fetch + (ROWS + i) * g.row_bytes, _MM_HINT_T0);
            turn(g.s->words[!g.now], g.s->turning, g.next, g.row_bytes, i);
        }
        UNROLL
        for (int k = 0; k < units; k++, x += TOKENS * 4) {
            __m512i q[2];
            for (int p = 0; p < 2; p++) {
                q[p] = _mm512_and_si512(k ? _mm512_srli_epi32(a[p], 4u * (unsigned)k) : a[p], mask);
                if (f.kind != MATRIX_AFFINE) q[p] = _mm512_and_si512(integers(q[p], f), low);
            }
            UNROLL
            for (int t = 0; t < T; t++) {
                int32_t unit;
                memcpy(&unit, x + t * 4, sizeof unit);
                __m512i all = _mm512_set1_epi32(unit);
                for (int p = 0; p < 2; p++) dot[t][p] = dot_add(dot[t][p], q[p], all, f.words);
            }
        }
    }
    scale_dots(sums, dot, x_scales, &g.by, T);
}

/* n_tokens of a panel, padded to a number there is code for; x: the panel's group. */
INLINE void multiply_group_words(tile_sums sums, const char *x, group_words g, form f, int64_t n_tokens) {
    const float *scales = (const float *)(const void *)x;
    for (int64_t t = 0; t < n_tokens && t < TOKENS; t += MOST_SUMS, g.next = NULL) {
        const char *values = x + 128 + t * 4;
        if (n_tokens - t > 6 && t == 0)
            multiply_words(sums, values, scales, g, f, MOST_SUMS);
        else if (n_tokens - t > 4 && t == 0)
            multiply_words(sums, values, scales, g, f, 6);
        else
            multiply_words(sums + t, values, scales + t, g, f, 4);
    }
}

/* A share of the scales and biases of the 32 rows from r on: that of `count` groups from g on. */
INLINE void fetch_scales(const rows *w, int64_t r, int64_t g, int64_t count) {
    int64_t size = (int64_t)scale_size(w), first = (r * (w->n / w->group_size) + g * STRAIGHT_ROWS) * size;
    for (int64_t at = first; at < first + count * STRAIGHT_ROWS * size; at += 64) {
        _mm_prefetch((const char *)w->scales + at, _MM_HINT_T0);
        if (w->kind == MATRIX_AFFINE) _mm_prefetch((const char *)w->biases + at, _MM_HINT_T0);
    }
}

/* The words of scales and biases that begin with group g, if that is where words are taken. */
INLINE void take_scales_of_block(straight *s, const rows *w, const block *b, int64_t g, form f) {
    int64_t size = (int64_t)scale_size(w), row_bytes = w->n / w->group_size * size, at = g * size;
    for (int p = 0; p < 2 && at % 64 == 0; p++) {
        int64_t first = b->r + (p * ROWS < b->n_rows ? p * ROWS : 0), n = b->n_rows - p * ROWS;
        take_scale_words(s->scales[p], w->scales, row_bytes, first, n, at);
        if (f.kind == MATRIX_AFFINE) take_scale_words(s->biases[p], w->biases, row_bytes, first, n, at);
    }
}

/* Adds block b, whose words are s->words[now]. */
INLINE void multiply_block(straight *s, int now, const char *tokens, int64_t n_tokens, const rows *w,
                           const block *b, const block *next, form f) {
    int64_t row_bytes = w->n / 2, groups = w->n / w->group_size, g = b->at * 2 / w->group_size;
    int n_words = b->rest < BLOCK_BYTES ? (int)b->rest / 4 : BLOCK_WORDS;
    size_t x_group = panel_group_bytes(w, TOKENS, f.words);
    int64_t ahead = FETCH_AHEAD;
    if (ahead >= b->rest) ahead += (STRAIGHT_ROWS - 1) * row_bytes; /* what the next 32 rows begin with */
    group_words some = {.s = s, .now = now, .count = w->group_size / 8, .next = next};
    some.fetch = b->from + ahead, some.row_bytes = row_bytes;
    fetch_scales(w, b->r + STRAIGHT_ROWS, g, n_words * 8 / w->group_size);
    for (; some.first < n_words; some.first += some.count, g++) {
        take_scales_of_block(s, w, b, g, f);
        some.by = scales_in(s, w, g, f);
        for (int64_t t = 0; t < n_tokens; t += TOKENS, some.next = NULL)
            multiply_group_words(s->sums[t / TOKENS], tokens + (size_t)(t / TOKENS * groups + g) * x_group,
                                 some, f, n_tokens - t);
        some.next = next;
    }
    for (int i = n_words; i < BLOCK_WORDS; i++) turn(s->words[!now], s->turning, next, row_bytes, i);
}

/* out[t * out_stride + r] = dot(token t, row r of w) for t < n_tokens, at most STRAIGHT_TOKENS, and
 * r < n_rows. */
INLINE void multiply_straight(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens,
                              const rows *w, int64_t n_rows, form f) {
    straight s;
    int64_t row_bytes = w->n / 2;
    int now = 0;
    block b = block_at(w, 0, 0, n_rows), next;
    for (int i = 0; i < BLOCK_WORDS; i++) turn(s.words[now], s.turning, &b, row_bytes, i);
    for (; b.r < n_rows; b = next, now = !now) {
        if (b.at == 0) memset(s.sums, 0, sizeof s.sums);
        bool last = b.rest <= BLOCK_BYTES;
        next = block_at(w, last ? b.r + STRAIGHT_ROWS : b.r, last ? 0 : b.at + BLOCK_BYTES, n_rows);
        multiply_block(&s, now, tokens, n_tokens, w, &b, next.r < n_rows ? &next : &b, f);
        for (int64_t t = 0; t < n_tokens && last; t++)
            for (int64_t p = 0; p < 2 && p * ROWS < b.n_rows; p++)
                _mm512_mask_storeu_ps(out + t * out_stride + b.r + p * ROWS, first_lanes(b.n_rows - p * ROWS),
                                      _mm512_load_ps(s.sums[t / TOKENS][t % TOKENS][p]));
    }
}

INLINE void multiply_4_bits(float *out, int64_t out_stride, const void *tokens, int64_t n_tokens,
                            const rows *w, int64_t n_rows, bool words) {
    if (w->kind == MATRIX_MXFP4)
        multiply_straight(out, out_stride, tokens, n_tokens, w, n_rows, (form){MATRIX_MXFP4, 4, words});
    else if (w->kind == MATRIX_NVFP4)
        multiply_straight(out, out_stride, tokens, n_tokens, w, n_rows, (form){MATRIX_NVFP4, 4, words});
    else
        multiply_straight(out, out_stride, tokens, n_tokens, w, n_rows, (form){MATRIX_AFFINE, 4, words});
}
