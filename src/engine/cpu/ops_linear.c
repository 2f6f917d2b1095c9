/* ops_linear.c - embedding and matrix products.
 * Few tokens: each row is read once, straight from the checkpoint. Many: a tile of rows is unpacked
 * and stays in cache while all tokens pass. Either in F32, or with one of the table's faster
 * products (kernels.h). */
#include "engine/cpu/cpu.h"

enum {
    TILE_BYTES = 256 * 1024, /* of unpacked rows: about half of a small L2 cache */
    MIN_TILE_ROWS = 8,
    MAX_TILE_ROWS = 64,
    ROWS_UNIT = 32, /* pieces of work: whole pairs of row panels */
};

void cpu_embed(cpu *e, const node *x, int thread) {
    const cpu_weight *w = cpu_weight_of(x, 0);
    const int32_t *ids = state_of(e, x->in[0])->data;
    piece p = {0};
    while (cpu_take(e, x, x->shape[0], 1, &p)) {
        int32_t id = x->or_first && ids[p.first] >= x->w[0]->shape[0] ? 0 : ids[p.first];
        e->kernels->of[w->rows.kind].unpack(floats_of(e, x, thread) + p.first * x->shape[1], &w->rows, id);
    }
}

rows cpu_rows_from(const rows *w, int64_t first) {
    rows r = *w;
    size_t at = (size_t)(first * w->n);
    r.values = (const char *)w->values + first * row_bytes_of(w);
    if (w->kind == MATRIX_PLAIN) return r;
    size_t scales = at / (size_t)w->group_size * scale_size(w);
    r.scales = (const char *)w->scales + scales;
    if (w->kind == MATRIX_AFFINE) r.biases = (const char *)w->biases + scales;
    return r;
}

const products *cpu_products(const cpu *e, const rows *w, enum dtype activations, bool sensitive) {
    const matrix_kernels *k = &e->kernels->of[w->kind];
    const products *faster = NULL;
    if (w->kind == MATRIX_PLAIN && w->dtype == DTYPE_BF16 && activations == DTYPE_BF16) faster = k->bf16;
    if (w->kind == MATRIX_AFFINE && w->dtype != DTYPE_F32) faster = k->int16;
    if (w->kind > MATRIX_AFFINE && activations != DTYPE_F32) faster = k->int16;
    if (e->int8_activations && !sensitive && k->int8) faster = k->int8;
    return faster ? faster : k->f32;
}

static bool is_straight(const products *p, const rows *w, int64_t n_tokens) {
    return p && p->straight_tokens && n_tokens <= p->straight_tokens(w);
}

/* ---- few tokens ---- */

bool cpu_are_few(const products *p, const rows *w, int64_t n_tokens) {
    return n_tokens <= (is_straight(p, w, n_tokens) ? FEW_FOR_STRAIGHT : FEW_TOKENS);
}

size_t cpu_prepared_bytes(const products *p, const rows *w) {
    size_t sums = w->kind == MATRIX_AFFINE ? (size_t)(w->n / w->group_size) * sizeof(float) : 0;
    return p ? p->prepared_bytes(w) : (sums + 63) / 64 * 64;
}

void cpu_prepare(const cpu *e, const products *p, void *prepared, const rows *w, const float *x) {
    if (p)
        p->prepare(prepared, w, x);
    else if (w->kind == MATRIX_AFFINE)
        e->kernels->group_sums(prepared, x, w->n, w->group_size);
}

void cpu_matvec(const cpu *e, const products *p, float *y, const rows *w, runs rs, const float *x,
                const void *prepared) {
    if (p) {
        p->matvec(y, w, rs, prepared);
        return;
    }
    for (int k = 0; k < count_runs(rs); k++)
        e->kernels->of[w->kind].matvec(y, w, one_run(rs, k).first, one_run(rs, k).end, x, prepared);
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
                  int64_t n_rows, const float *x, int64_t n_tokens, const char *panels, void *tile) {
    const kernels *k = e->kernels;
    bool in_place =
        w->kind == MATRIX_PLAIN && w->dtype == DTYPE_F32 && (uintptr_t)w->values % sizeof(float) == 0;
    float *floats = tile;
    if (is_straight(p, w, n_tokens)) {
        p->multiply_straight(out, out_stride, panels, n_tokens, w, n_rows);
        return;
    }
    for (int64_t r = 0, n, step = tile_rows(p, w); r < n_rows; r += n) {
        n = n_rows - r < step ? n_rows - r : step;
        if (p) {
            multiply_tile(p, out, out_stride, w, r, n, n_tokens, panels, tile);
            continue;
        }
        const float *unpacked = in_place ? (const float *)w->values + r * w->n : floats;
        for (int64_t i = 0; i < n && !in_place; i++) k->of[w->kind].unpack(floats + i * w->n, w, r + i);
        k->matmul(out + r, out_stride, x, w->n, n_tokens, unpacked, n, w->n);
    }
}

int64_t cpu_rows_per_piece(const cpu *e, const products *p, const rows *w, int64_t n_rows, int64_t n_tokens) {
    bool tiles = !cpu_are_few(p, w, n_tokens) && !is_straight(p, w, n_tokens);
    int64_t n = n_rows / ((int64_t)e->threads * 8), most = tiles ? MAX_TILE_ROWS : 256;
    if (e->threads == 1) return n_rows; /* nobody to share with */
    n = (n + ROWS_UNIT - 1) / ROWS_UNIT * ROWS_UNIT;
    return n < ROWS_UNIT ? ROWS_UNIT : n > most ? most : n;
}

/* ---- the operation ---- */

/* Rounding to 8 bits costs most where few numbers of a group are far larger than the others, as in
 * what leaves a gated activation (Dettmers et al. 2022, LLM.int8), and in the logits themselves. */
static const products *products_of(const cpu *e, const node *x) {
    bool logits = !x->reader || x->reader->op == OP_LOGPROBS;
    return cpu_products(e, &cpu_weight_of(x, 0)->rows, x->in[0]->dtype, logits || x->in[0]->op == OP_GATED);
}

bool cpu_has_few_tokens(const cpu *e, const node *x) {
    return cpu_are_few(products_of(e, x), &cpu_weight_of(x, 0)->rows, x->shape[0]);
}

bool cpu_same_products(const cpu *e, const node *a, const node *b) {
    const rows *w = &cpu_weight_of(a, 0)->rows, *v = &cpu_weight_of(b, 0)->rows;
    return products_of(e, a) == products_of(e, b) && w->kind == v->kind && w->bits == v->bits &&
           w->group_size == v->group_size && w->dtype == v->dtype;
}

/* A linear and those computed with it, under way. */
typedef struct group {
    const cpu *e;
    const node *x;
    const products *p;
    int thread;
    int64_t n_tokens;
    bool few;
    int64_t n_rows, step;              /* many tokens: rows to share out, of gate and up each; of a piece */
    const float *in;                   /* the tokens, */
    char *prepared;                    /* prepared, if they are few, or as panels; */
    size_t prepared_bytes, tile_bytes; /* of one prepared token; of this thread's tile */
    char *tile;
    float *gate, *up; /* a piece of them: [n_tokens][rows] */
} group;

static bool is_gated(const cpu *e, const node *x) {
    const node *ending = state_of(e, x)->ending;
    return ending && ending->op == OP_GATED;
}

/* Linear i of those computed with x; NULL: there are no more. Gate and up are one. */
static const node *linear_of(const cpu *e, const node *x, int i) {
    int n = is_gated(e, x) ? 0 : state_of(e, x)->n_joined;
    return i <= n ? graph_node(e->running, x->index + i) : NULL;
}

static group make_group(const cpu *e, const node *x, int thread) {
    const rows *w = &cpu_weight_of(x, 0)->rows;
    group g = {.e = e, .x = x, .p = products_of(e, x), .thread = thread, .n_tokens = x->shape[0]};
    g.few = cpu_are_few(g.p, w, g.n_tokens);
    for (int i = 0; linear_of(e, x, i); i++) g.n_rows += linear_of(e, x, i)->shape[1];
    if (g.few) {
        g.prepared_bytes = cpu_prepared_bytes(g.p, w);
    } else {
        g.step = cpu_rows_per_piece(e, g.p, w, g.n_rows, g.n_tokens);
        if (is_gated(e, x) && g.step > MAX_TILE_ROWS && !is_straight(g.p, w, g.n_tokens))
            g.step = MAX_TILE_ROWS;
        g.tile_bytes = cpu_tile_bytes(g.p, w);
    }
    return g;
}

/* Sets g's pointers into this thread's memory (NULL: only the size is wanted); returns the bytes it
 * takes. */
static size_t place(group *g, char *scratch) {
    uintptr_t start = (uintptr_t)scratch; /* a number: offsets from NULL are not defined */
    size_t pieces = is_gated(g->e, g->x) ? (size_t)(g->n_tokens * g->step) * sizeof(float) : 0;
    size_t few = g->few ? (size_t)g->n_tokens * g->prepared_bytes : 0;
    size_t tile = (g->tile_bytes + 63) / 64 * 64;
    g->prepared = few ? (char *)start : state_of(g->e, g->x)->workspace;
    g->tile = (char *)(start + few);
    g->gate = (float *)(void *)(start + few + tile);
    g->up = (float *)(void *)(start + few + tile + pieces);
    return few + tile + 2 * pieces;
}

size_t cpu_linear_workspace(const cpu *e, const node *x) {
    const products *p = products_of(e, x);
    if (!p || cpu_has_few_tokens(e, x)) return 0;
    return (size_t)cpu_token_panels(p, x->shape[0]) * p->token_panel_bytes(&cpu_weight_of(x, 0)->rows);
}

size_t cpu_linear_scratch(const cpu *e, const node *x) {
    group g = make_group(e, x, 0);
    return place(&g, NULL);
}

/* Few tokens: each thread prepares them for itself. Many: together. */
static void prepare(const group *g) {
    const rows *w = &cpu_weight_of(g->x, 0)->rows;
    int64_t i, end;
    for (int64_t t = 0; t < g->n_tokens && g->few; t++)
        cpu_prepare(g->e, g->p, g->prepared + (size_t)t * g->prepared_bytes, w, g->in + t * w->n);
    if (g->few || !g->p) return;
    while (pool_take(&state_of(g->e, g->x)->taken[0], cpu_token_panels(g->p, g->n_tokens), 1, &i, &end))
        cpu_pack_tokens(g->p, g->prepared, w, i, g->in, g->n_tokens);
    pool_barrier(g->e->pool, g->thread);
}

/* out[t * stride + r] = row base + r of linear x for token t, for the rows of the part; one run if
 * they are many. */
static void multiply_rows(const group *g, const node *x, float *out, int64_t stride, const row_part *part) {
    const cpu_weight *w = cpu_weight_of(x, 0);
    rows r = cpu_rows_from(&w->rows, part->base);
    runs rs = part->rows;
    for (int64_t t = 0; t < g->n_tokens && g->few; t++)
        cpu_matvec(g->e, g->p, out + t * stride, &r, rs, g->in + t * r.n,
                   g->prepared + (size_t)t * g->prepared_bytes);
    if (!g->few) cpu_multiply(g->e, g->p, out, stride, &r, rs.end, g->in, g->n_tokens, g->prepared, g->tile);
    for (int64_t t = 0; t < g->n_tokens && w->bias; t++)
        for (int k = 0; k < count_runs(rs); k++) {
            runs run = one_run(rs, k);
            for (int64_t i = run.first; i < run.end; i++) out[t * stride + i] += w->bias[part->base + i];
        }
}

/* Of many tokens. */
static void multiply_gated(const group *g, const row_part *part) {
    const node *both = state_of(g->e, g->x)->ending;
    int64_t n = part->rows.end;
    float *out = (float *)state_of(g->e, both)->data + part->base;
    multiply_rows(g, g->x, g->gate, n, part);
    multiply_rows(g, graph_node(g->e->running, g->x->index + 1), g->up, n, part);
    for (int64_t t = 0; t < g->n_tokens; t++)
        cpu_gate(g->e, both->act, out + t * both->shape[1], g->gate + t * n, g->up + t * n, n);
}

static void multiply_sum(const group *g, const row_part *part) {
    const node *sum = state_of(g->e, g->x)->ending;
    const float *other = floats_of(g->e, sum->in[0] == g->x ? sum->in[1] : sum->in[0], g->thread);
    int64_t stride = sum->shape[1];
    float *out = state_of(g->e, sum)->data;
    runs rs = part->rows;
    multiply_rows(g, g->x, out + part->base, stride, part);
    for (int64_t t = 0; t < g->n_tokens; t++)
        for (int k = 0; k < count_runs(rs); k++) {
            runs run = one_run(rs, k);
            int64_t at = t * stride + part->base;
            for (int64_t i = at + run.first; i < at + run.end; i++) out[i] += other[i];
        }
}

static void multiply_part(const group *g, const node *x, const row_part *part) {
    if (is_gated(g->e, x))
        multiply_gated(g, part);
    else if (state_of(g->e, x)->ending)
        multiply_sum(g, part);
    else
        multiply_rows(g, x, (float *)state_of(g->e, x)->data + part->base, x->shape[1], part);
}

/* Rows [first, end) of all linears, one after another. */
static void multiply_all(const group *g, int64_t first, int64_t end) {
    const node *x;
    for (int i = 0; (x = linear_of(g->e, g->x, i)); i++) {
        int64_t n = x->shape[1], from = first > 0 ? first : 0, to = end < n ? end : n;
        row_part part = {.base = from, .rows = {0, to - from, 0}};
        if (from < to) multiply_part(g, x, &part);
        first -= n;
        end -= n;
    }
}

static void multiply_many(const group *g) {
    int64_t first, end;
    while (pool_take(&state_of(g->e, g->x)->taken[1], g->n_rows, g->step, &first, &end))
        multiply_all(g, first, end);
}

static void multiply_few(const group *g) {
    int64_t n_rows[1 + CPU_MAX_JOINED];
    row_part part;
    int n = 0;
    for (; linear_of(g->e, g->x, n); n++) n_rows[n] = linear_of(g->e, g->x, n)->shape[1];
    row_share s = cpu_share(g->e, g->thread, &cpu_weight_of(g->x, 0)->rows, n_rows, n);
    while (cpu_take_rows(g->e, g->thread, &s, &part))
        multiply_part(g, linear_of(g->e, g->x, part.matrix), &part);
}

void cpu_linear(cpu *e, const node *x, int thread) {
    group g = make_group(e, x, thread);
    place(&g, e->thread_scratch[thread]);
    g.in = floats_of(e, x->in[0], thread);
    prepare(&g);
    if (g.few)
        multiply_few(&g);
    else
        multiply_many(&g);
}
