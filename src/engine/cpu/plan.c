/* plan.c - where each value of a graph lives, and where threads must meet.
 * A value's memory is used again once all its readers are done, so a prefill chunk needs a few values' worth.
 */
#include "engine/cpu/cpu.h"

#include <stdlib.h>

enum { UNIT = 64 };

typedef struct free_block {
    size_t offset, size;
} free_block;

typedef struct planner {
    cpu *e;
    graph *g;
    size_t size; /* of all scratch so far */
    node *alive; /* values placed and not given back yet */
} planner;

static size_t round_up(size_t n) {
    return (n + UNIT - 1) / UNIT * UNIT;
}

static int reserve_block(cpu *e) {
    if (e->n_free < e->free_capacity) return 0;
    int capacity = e->free_capacity ? 2 * e->free_capacity : 64;
    void *blocks = e->free_blocks;
    if (mem_resize(&blocks, (size_t)capacity, sizeof *e->free_blocks, "a memory plan")) return -1;
    e->free_blocks = blocks;
    e->free_capacity = capacity;
    return 0;
}

/* First fit; grows the scratch when nothing fits. */
static size_t take(planner *p, size_t size) {
    cpu *e = p->e;
    size = round_up(size);
    for (int i = 0; i < e->n_free; i++) {
        free_block *b = &e->free_blocks[i];
        if (b->size < size) continue;
        size_t offset = b->offset;
        b->offset += size;
        b->size -= size;
        if (!b->size) memmove(b, b + 1, (size_t)(--e->n_free - i) * sizeof *b);
        return offset;
    }
    size_t offset = p->size;
    p->size += size;
    return offset;
}

/* Returns a block to the list, sorted by offset and joined with its neighbours. */
static int give(planner *p, size_t offset, size_t size) {
    cpu *e = p->e;
    size = round_up(size);
    int i = 0;
    while (i < e->n_free && e->free_blocks[i].offset < offset) i++;
    free_block *before = i ? &e->free_blocks[i - 1] : NULL;
    if (before && before->offset + before->size == offset) {
        before->size += size;
    } else {
        if (reserve_block(e)) return -1;
        memmove(&e->free_blocks[i + 1], &e->free_blocks[i],
                (size_t)(e->n_free++ - i) * sizeof *e->free_blocks);
        e->free_blocks[i] = (free_block){offset, size};
        before = &e->free_blocks[i++];
    }
    if (i < e->n_free && before->offset + before->size == e->free_blocks[i].offset) {
        before->size += e->free_blocks[i].size;
        memmove(&e->free_blocks[i], &e->free_blocks[i + 1],
                (size_t)(--e->n_free - i) * sizeof *e->free_blocks);
    }
    return 0;
}

static size_t value_bytes(const node *x) {
    size_t element = x->op == OP_ROUTE ? sizeof(routed) : 4;
    return (size_t)tensor_count(x) * element;
}

/* In scratch: of all copies. */
static size_t placed_bytes(const cpu *e, const node *x) {
    return x->own ? x->own * (size_t)e->threads : value_bytes(x);
}

/* Gate and up are never whole, and what ends in a sum is never seen. */
static bool has_memory(const node *x) {
    return cpu_ops[x->op].run && x->op != OP_KV_WRITE && !x->ending &&
           !(x->by && x->by->ending && x->by->ending != x);
}

/* The node whose memory a value is in. */
static node *root(graph *g, tensor x) {
    while (x->op == OP_HEADS) x = x->in[0];
    return graph_node(g, x->index);
}

/* A result to hold an output, from the unused ones if one is large enough. */
static cpu_result *new_result(cpu *e, tensor x) {
    size_t bytes = value_bytes(x);
    cpu_result **at = &e->unused;
    while (*at && (*at)->capacity < bytes) at = &(*at)->next;
    cpu_result *r = *at;
    if (r) {
        *at = r->next;
    } else {
        r = mem_new(1, sizeof *r, "a result");
        if (r) r->data = mem_new(1, bytes, "a result");
        if (!r || !r->data) {
            free(r);
            return NULL;
        }
        r->capacity = bytes;
    }
    r->base = (result){.engine = &e->base, .dtype = x->dtype, .count = tensor_count(x)};
    return r;
}

static int check_ids(const node *x, const graph *g) {
    const node *from = root((graph *)g, x->in[0]);
    const int32_t *ids = from->data;
    int64_t n = x->in[0]->shape[0], vocabulary = x->w[0]->shape[0];
    if (from->op == OP_ARGMAX) { /* not known yet, but their range is */
        if (tensor_last(from->in[0]) <= vocabulary) return 0;
        return fail("token ids below %lld do not all fit a vocabulary of %lld",
                    (long long)tensor_last(from->in[0]), (long long)vocabulary);
    }
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocabulary)
            return fail("token id %d is outside the model's vocabulary of %lld", ids[i],
                        (long long)vocabulary);
    return 0;
}

static void read_at(node *x, int i) {
    if (x->last < i) x->last = i;
}

/* Sets last of every value's root, and data of those that have it already: ids, results, outputs. */
static int prepare(planner *p, int n, const tensor outputs[], result *results[]) {
    graph *g = p->g;
    for (int i = 0; i < g->n_nodes; i++) {
        node *x = graph_node(g, i);
        if (!x->live) continue;
        if (x->own) x->own = round_up(value_bytes(x));
        for (int k = 0; k < NODE_MAX_INPUTS; k++)
            if (x->in[k]) read_at(root(g, x->in[k]), x->by && x->by->index > i ? x->by->index : i);
        if (x->op == OP_TOKENS) x->data = g->ids + x->first_id;
        if (x->op == OP_TOKEN_RESULT) x->data = ((cpu_result *)x->from)->data;
        if (x->op == OP_EMBED && check_ids(x, g)) return -1;
        if (x->op == OP_KV_WRITE && cpu_cache_prepare(p->e, (cpu_cache *)x->cache, x->position, x->shape[0]))
            return -1;
    }
    for (int i = 0; i < n; i++) {
        cpu_result *r = new_result(p->e, outputs[i]);
        if (!r) return -1;
        results[i] = &r->base;
        node *x = root(g, outputs[i]);
        if (!x->data) x->data = r->data; /* else it is copied from there in the end: cpu_copy_outputs */
        x->last = g->n_nodes;            /* never given back */
    }
    return 0;
}

static size_t workspace_bytes(const cpu *e, const node *x) {
    return cpu_ops[x->op].workspace ? cpu_ops[x->op].workspace(e, x) : 0;
}

/* Gives back the memory of values that no node at or after `before` reads. */
static int release_read(planner *p, int before) {
    for (node **at = &p->alive; *at;) {
        node *x = *at;
        if (x->last >= before) {
            at = &x->next;
            continue;
        }
        *at = x->next;
        if (x->placed && give(p, x->offset, placed_bytes(p->e, x))) return -1;
        if (x->workspace_size && give(p, x->workspace_offset, x->workspace_size)) return -1;
    }
    return 0;
}

/* Whether x, computed by node `by`, reads what others may have written since node `first`. */
static bool reads_since(graph *g, const node *x, const node *by, int first) {
    for (int k = 0; k < NODE_MAX_INPUTS; k++) {
        const node *from = x->in[k] ? root(g, x->in[k]) : NULL;
        if (from && cpu_ops[from->op].run && !from->own && from != by && from->by != by &&
            from->index >= first)
            return true;
    }
    return false;
}

static bool needs_barrier(graph *g, const node *x, int first) {
    const node *write = x->op == OP_ATTEND && x->in[1]->by == x ? x->in[1] : NULL;
    return reads_since(g, x, x, first) || (x->ending && reads_since(g, x->ending, x, first)) ||
           (write && reads_since(g, write, x, first));
}

/* Places the values in order, reusing memory only across barriers: before one, other threads may still read
 * it. */
static int place(planner *p) {
    graph *g = p->g;
    int first = 0; /* node after the last barrier */
    for (int i = 0; i < g->n_nodes; i++) {
        node *x = graph_node(g, i);
        if (!x->live || !cpu_ops[x->op].run) continue;
        x->barrier = !x->by && needs_barrier(g, x, first);
        if (x->barrier) {
            first = i;
            if (release_read(p, i)) return -1;
        }
        if (x->last < i) x->last = i;
        x->placed = has_memory(x) && !x->data;
        if (x->placed) x->offset = take(p, placed_bytes(p->e, x));
        x->workspace_size = x->by ? 0 : workspace_bytes(p->e, x);
        if (x->workspace_size) x->workspace_offset = take(p, x->workspace_size);
        if (x->placed || x->workspace_size) {
            x->next = p->alive;
            p->alive = x;
        }
    }
    return 0;
}

static int grow_scratch(planner *p) {
    cpu *e = p->e;
    size_t thread_size = 0;
    for (int i = 0; i < p->g->n_nodes; i++) {
        node *x = graph_node(p->g, i);
        size_t need =
            x->live && !x->by && cpu_ops[x->op].thread_scratch ? cpu_ops[x->op].thread_scratch(e, x) : 0;
        if (need > thread_size) thread_size = need;
    }
    if (p->size > e->scratch_size) {
        cpu_release(e, e->scratch, e->scratch_size, &e->memory.scratch);
        e->scratch_size = 0;
        e->scratch = cpu_allocate(e, p->size, &e->memory.scratch,
                                  "a step's values; use a smaller --prefill-step-size");
        if (!e->scratch) return -1;
        e->scratch_size = p->size;
    }
    if (thread_size <= e->thread_scratch_size) return 0;
    for (int i = 0; i < e->threads; i++) {
        cpu_release(e, e->thread_scratch[i], e->thread_scratch_size, &e->memory.scratch);
        e->thread_scratch[i] = NULL;
    }
    e->thread_scratch_size = 0;
    for (int i = 0; i < e->threads; i++) {
        e->thread_scratch[i] = cpu_allocate(e, thread_size, &e->memory.scratch, "a thread's tiles");
        if (!e->thread_scratch[i]) {
            while (i--) {
                cpu_release(e, e->thread_scratch[i], thread_size, &e->memory.scratch);
                e->thread_scratch[i] = NULL;
            }
            return -1;
        }
    }
    e->thread_scratch_size = thread_size;
    return 0;
}

static void address(planner *p) {
    for (int i = 0; i < p->g->n_nodes; i++) {
        node *x = graph_node(p->g, i);
        if (!x->live) continue;
        if (x->op == OP_HEADS) {
            x->data = x->in[0]->data;
            x->own = x->in[0]->own;
        }
        if (x->placed) x->data = p->e->scratch + x->offset;
        if (x->workspace_size) x->workspace = p->e->scratch + x->workspace_offset;
    }
}

int cpu_plan(cpu *e, graph *g, int n, const tensor outputs[], result *results[]) {
    planner p = {.e = e, .g = g};
    e->n_free = 0;
    for (int i = 0; i < n; i++) results[i] = NULL;
    cpu_join(e, g, n, outputs);
    if (!prepare(&p, n, outputs, results) && !place(&p) && !grow_scratch(&p)) {
        address(&p);
        return 0;
    }
    for (int i = 0; i < n; i++) {
        result_free(results[i]);
        results[i] = NULL;
    }
    return -1;
}

void cpu_copy_outputs(int n, const tensor outputs[], result *const results[]) {
    for (int i = 0; i < n; i++) {
        cpu_result *r = (cpu_result *)results[i];
        if (outputs[i]->data != r->data) memcpy(r->data, outputs[i]->data, (size_t)r->base.count * 4);
    }
}
