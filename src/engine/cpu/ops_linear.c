/* ops_linear.c - embedding and matrix products.
 * Few tokens: each row is read once, straight from the checkpoint. Many: a tile of rows is unpacked and stays
 * in cache while all tokens pass. Either in F32, or with one of the table's faster products (kernels.h). */
#include "engine/cpu/cpu.h"

enum {
    TILE_BYTES = 256 * 1024, /* of unpacked rows: about half of a small L2 cache */
    MIN_TILE_ROWS = 8,
    MAX_TILE_ROWS = 64,
    ROWS_UNIT = 32, /* pieces of work: whole pairs of row panels */
};

void cpu_embed(cpu *e, node *x, int thread) {
    (void)thread;
    const cpu_weight *w = cpu_weight_of(x, 0);
    const int32_t *ids = x->in[0]->data;
    int64_t n = x->shape[1], i, end;
    while (pool_take(&x->taken[0], x->shape[0], 1, &i, &end))
        e->kernels->unpack(floats_of(x) + i * n, &w->rows, ids[i]);
}

const products *cpu_products(const cpu *e, const rows *w, enum dtype activations) {
    const kernels *k = e->kernels;
    const products *faster = NULL;
    if (!w->bits && w->dtype == DTYPE_BF16 && activations == DTYPE_BF16) faster = k->bf16;
    if (w->bits && activations != DTYPE_F32) faster = k->int16;
    if (w->bits && e->int8_activations) faster = k->int8;
    return faster ? faster : k->f32;
}

/* ---- few tokens ---- */

size_t cpu_prepared_bytes(const products *p, const rows *w) {
    size_t sums = w->bits ? (size_t)(w->n / w->group_size) * sizeof(float) : 0;
    return p ? p->prepared_bytes(w) : (sums + 63) / 64 * 64;
}

void cpu_prepare(const cpu *e, const products *p, void *prepared, const rows *w, const float *x) {
    if (p)
        p->prepare(prepared, w, x);
    else if (w->bits)
        e->kernels->group_sums(prepared, x, w->n, w->group_size);
}

void cpu_matvec(const cpu *e, const products *p, float *y, const rows *w, int64_t first, int64_t end,
                const float *x, const void *prepared) {
    if (p)
        p->matvec(y, w, first, end, prepared);
    else
        e->kernels->matvec(y, w, first, end, x, prepared);
}

/* ---- many tokens ---- */

static int64_t tile_rows(const products *p, const rows *w) {
    int64_t unit = p ? p->panel_rows : 1;
    int64_t row = p ? (int64_t)p->row_panel_bytes(w) / unit : w->n * (int64_t)sizeof(float);
    int64_t n = TILE_BYTES / row, least = MIN_TILE_ROWS > 2 * unit ? MIN_TILE_ROWS : 2 * unit;
    return n < least ? least : n > MAX_TILE_ROWS ? MAX_TILE_ROWS : n / least * least;
}

size_t cpu_tile_bytes(const products *p, const rows *w) {
    int64_t n = tile_rows(p, w);
    if (p) return (size_t)((n + p->panel_rows - 1) / p->panel_rows) * p->row_panel_bytes(w);
    return (size_t)(n * w->n) * sizeof(float);
}

int64_t cpu_token_panels(const products *p, int64_t n_tokens) {
    return p ? (n_tokens + p->panel_tokens - 1) / p->panel_tokens : 0;
}

void cpu_pack_tokens(const products *p, char *panels, const rows *w, int64_t i, const float *x,
                     int64_t n_tokens) {
    int64_t first = i * p->panel_tokens, rest = n_tokens - first;
    p->pack_tokens(panels + (size_t)i * p->token_panel_bytes(w), w, x + first * w->n, w->n,
                   rest < p->panel_tokens ? rest : p->panel_tokens);
}

static void multiply_tile(const products *p, float *out, int64_t out_stride, const rows *w, int64_t first,
                          int64_t n_rows, int64_t n_tokens, const char *panels, char *tile) {
    for (int64_t i = 0; i < n_rows; i += p->panel_rows)
        p->pack_rows(tile + (size_t)(i / p->panel_rows) * p->row_panel_bytes(w), w, first + i,
                     n_rows - i < p->panel_rows ? n_rows - i : p->panel_rows);
    p->multiply(out + first, out_stride, panels, n_tokens, tile, n_rows, w);
}

void cpu_multiply(const cpu *e, const products *p, float *out, int64_t out_stride, const rows *w,
                  int64_t first, int64_t end, const float *x, int64_t n_tokens, const char *panels,
                  void *tile) {
    const kernels *k = e->kernels;
    bool in_place = !w->bits && w->dtype == DTYPE_F32 && (uintptr_t)w->values % sizeof(float) == 0;
    float *floats = tile;
    for (int64_t r = first, n, step = tile_rows(p, w); r < end; r += n) {
        n = end - r < step ? end - r : step;
        if (p) {
            multiply_tile(p, out, out_stride, w, r, n, n_tokens, panels, tile);
            continue;
        }
        const float *unpacked = in_place ? (const float *)w->values + r * w->n : floats;
        for (int64_t i = 0; i < n && !in_place; i++) k->unpack(floats + i * w->n, w, r + i);
        k->matmul(out + r, out_stride, x, w->n, n_tokens, unpacked, n, w->n);
    }
}

int64_t cpu_rows_per_piece(const cpu *e, int64_t n_rows, int64_t n_tokens) {
    int64_t n = n_rows / ((int64_t)e->threads * 8), most = n_tokens > FEW_TOKENS ? MAX_TILE_ROWS : 256;
    if (e->threads == 1) return n_rows; /* nobody to share with */
    n = (n + ROWS_UNIT - 1) / ROWS_UNIT * ROWS_UNIT;
    return n < ROWS_UNIT ? ROWS_UNIT : n > most ? most : n;
}

/* ---- the operation ---- */

static const products *products_of(const cpu *e, const node *x) {
    return cpu_products(e, &cpu_weight_of(x, 0)->rows, x->in[0]->dtype);
}

size_t cpu_linear_workspace(const cpu *e, const node *x) {
    const products *p = products_of(e, x);
    if (!p || x->shape[0] <= FEW_TOKENS) return 0;
    return (size_t)cpu_token_panels(p, x->shape[0]) * p->token_panel_bytes(&cpu_weight_of(x, 0)->rows);
}

size_t cpu_linear_scratch(const cpu *e, const node *x) {
    const products *p = products_of(e, x);
    const rows *w = &cpu_weight_of(x, 0)->rows;
    if (x->shape[0] > FEW_TOKENS) return cpu_tile_bytes(p, w);
    return (size_t)x->shape[0] * cpu_prepared_bytes(p, w);
}

static void add_bias(const cpu_weight *w, float *out, int64_t n_tokens, int64_t first, int64_t end) {
    for (int64_t t = 0; t < n_tokens && w->bias; t++)
        for (int64_t r = first; r < end; r++) out[t * w->base.shape[0] + r] += w->bias[r];
}

static void linear_few(cpu *e, node *x, const products *p, char *scratch) {
    const cpu_weight *w = cpu_weight_of(x, 0);
    int64_t n_tokens = x->shape[0], n_rows = x->shape[1], first, end;
    int64_t step = cpu_rows_per_piece(e, n_rows, n_tokens);
    size_t bytes = cpu_prepared_bytes(p, &w->rows);
    const float *in = floats_of(x->in[0]);
    for (int64_t t = 0; t < n_tokens; t++)
        cpu_prepare(e, p, scratch + (size_t)t * bytes, &w->rows, in + t * w->rows.n);
    while (pool_take(&x->taken[0], n_rows, step, &first, &end)) {
        for (int64_t t = 0; t < n_tokens; t++)
            cpu_matvec(e, p, floats_of(x) + t * n_rows, &w->rows, first, end, in + t * w->rows.n,
                       scratch + (size_t)t * bytes);
        add_bias(w, floats_of(x), n_tokens, first, end);
    }
}

static void linear_many(cpu *e, node *x, const products *p, int thread) {
    const cpu_weight *w = cpu_weight_of(x, 0);
    int64_t n_tokens = x->shape[0], n_rows = x->shape[1], first, end;
    const float *in = floats_of(x->in[0]);
    while (p && pool_take(&x->taken[0], cpu_token_panels(p, n_tokens), 1, &first, &end))
        cpu_pack_tokens(p, x->workspace, &w->rows, first, in, n_tokens);
    if (p) pool_barrier(e->pool, thread);
    while (pool_take(&x->taken[1], n_rows, cpu_rows_per_piece(e, n_rows, n_tokens), &first, &end)) {
        cpu_multiply(e, p, floats_of(x), n_rows, &w->rows, first, end, in, n_tokens, x->workspace,
                     e->thread_scratch[thread]);
        add_bias(w, floats_of(x), n_tokens, first, end);
    }
}

void cpu_linear(cpu *e, node *x, int thread) {
    const products *p = products_of(e, x);
    if (x->shape[0] <= FEW_TOKENS)
        linear_few(e, x, p, e->thread_scratch[thread]);
    else
        linear_many(e, x, p, thread);
}
