/* memory.c - memory for values, KV caches and scratch, counted, in large pages.
 * A layer's cache is often smaller than a large page, and a step reads those of all layers: arrays
 * share pages, so that the processor needs few entries to find them and can fetch ahead through
 * them.
 */
#include "engine/cpu/cpu.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20, SLAB = 4 * HUGE_PAGE };

/* AddressSanitizer sees what is written beyond an array, or read after its release, only if each is
 * allocated and freed for itself. */
#if defined(__has_feature) /* clang, whose older versions do not define what gcc does */
#if __has_feature(address_sanitizer)
#define HAS_ADDRESS_SANITIZER
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define HAS_ADDRESS_SANITIZER
#endif
#ifdef HAS_ADDRESS_SANITIZER
enum { REUSES = 0 };
#else
enum { REUSES = 1 };
#endif

/* Whether an array of n bytes shares its pages, */
static bool is_shared(size_t n) {
    return REUSES && n < HUGE_PAGE;
}

/* or is kept when it is released. */
static bool is_kept(size_t n) {
    return REUSES && n >= HUGE_PAGE;
}

/* The beginning of some large pages, aligned to their size. They are used from the front to the
 * end, and again once none of their arrays is left; they are kept, since the system takes its time
 * to give such pages.
 */
struct slab {
    struct slab *next;
    size_t used, arrays;
};

/* A released array of large pages, kept for the next one of its size: runs repeat, and the system
 * clears the pages that it gives. */
struct spare {
    struct spare *next;
    size_t n;
};

static void free_spares(cpu *e) {
    for (struct spare *s = e->spares, *next; s; s = next) {
        next = s->next;
        free(s);
    }
    e->spares = NULL;
}

/* NULL: there is none of that size, and none of another any more: what is kept is what the last run
 * had. */
static void *take_spare(cpu *e, size_t n) {
    for (struct spare **at = &e->spares; *at; at = &(*at)->next) {
        struct spare *s = *at;
        if (s->n != n) continue;
        *at = s->next;
        return s;
    }
    free_spares(e);
    return NULL;
}

static void *in_large_pages(size_t n, size_t alignment) {
    void *memory =
        n > SIZE_MAX / 2 ? NULL : aligned_alloc(alignment, (n + alignment - 1) / alignment * alignment);
#ifdef MADV_HUGEPAGE
    if (memory && n >= HUGE_PAGE) madvise(memory, n, MADV_HUGEPAGE);
#endif
    return memory;
}

static void *in_slab(cpu *e, size_t n) {
    struct slab *s = e->slabs;
    n = (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    while (s && s->used + n > SLAB) s = s->next;
    if (!s) {
        s = in_large_pages(SLAB, SLAB);
        if (!s) return NULL;
        *s = (struct slab){.next = e->slabs, .used = ALIGNMENT};
        e->slabs = s;
    }
    s->arrays++;
    s->used += n;
    return (char *)s + s->used - n;
}

void *cpu_allocate(cpu *e, size_t n, int64_t *account, const char *what) {
    void *memory = is_shared(n) ? in_slab(e, n) : is_kept(n) ? take_spare(e, n) : NULL;
    if (!memory && !is_shared(n)) memory = in_large_pages(n, n < HUGE_PAGE ? ALIGNMENT : HUGE_PAGE);
    if (!memory) {
        fail_memory("out of memory: %.3f GB for %s", (double)n / 1e9, what);
        return NULL;
    }
    *account += (int64_t)n;
    int64_t total = e->memory.weights + e->memory.kv + e->memory.scratch;
    if (total > e->memory.peak) e->memory.peak = total;
    return memory;
}

void cpu_release(cpu *e, void *memory, size_t n, int64_t *account) {
    if (!memory) return;
    *account -= (int64_t)n;
    if (is_kept(n)) {
        struct spare *s = memory;
        *s = (struct spare){e->spares, n};
        e->spares = s;
        return;
    }
    if (!is_shared(n)) {
        free(memory);
        return;
    }
    struct slab *s = (struct slab *)(void *)((char *)memory - (uintptr_t)memory % SLAB);
    if (!--s->arrays) s->used = ALIGNMENT;
}

void cpu_free_memory(cpu *e) {
    free_spares(e);
    for (struct slab *s = e->slabs, *next; s; s = next) {
        next = s->next;
        free(s);
    }
    e->slabs = NULL;
}
