/* pool.h - a pool of threads that run one function together and meet at barriers.
 * Made for many short steps: a barrier spins briefly, then sleeps; idle threads sleep. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#ifdef __cplusplus /* engine/mlx: only the types are needed there */
#include <atomic>
using std::atomic_long;
#else
#include <stdatomic.h>
#endif
#include <stdbool.h>
#include <stdint.h>

typedef struct pool pool;

/* n threads in all, the caller included (n >= 1). spin: wait busily for some microseconds before sleeping,
 * for when there is a core for each. cpus: thread i stays on CPU cpus[i % n_cpus], the caller until
 * pool_free; NULL: the system decides. NULL with a recorded error. */
pool *pool_new(int n, bool spin, const int *cpus, int n_cpus);
void pool_free(pool *p);
int pool_size(const pool *p);

/* Runs work(context, thread) on every thread, thread = 0 .. n-1 (0 is the caller), and returns when all are
 * done. */
void pool_run(pool *p, void (*work)(void *context, int thread), void *context);

/* Inside work: returns when all threads of the pool have called it; what each wrote before is visible to all.
 */
void pool_barrier(pool *p, int thread);

/* Work sharing between two barriers: the next piece of up to `step` items of [0, n) from a counter that
 * starts at zero. False when none is left. Threads of one machine are not equally fast, so pieces are small.
 */
#ifndef __cplusplus
static inline _Bool pool_take(atomic_long *counter, int64_t n, int64_t step, int64_t *first, int64_t *end) {
    int64_t at = atomic_fetch_add_explicit(counter, (long)step, memory_order_relaxed);
    if (at >= n) return 0;
    *first = at;
    *end = at + step < n ? at + step : n;
    return 1;
}

/* The size of the next piece where pieces shrink: one of `shares` of what is left, in multiples of `least`,
 * but at least that. The first one is the largest. */
static inline int64_t pool_piece(int64_t left, int64_t least, int64_t shares) {
    int64_t size = left / shares / least * least;
    return size > least ? size : least;
}

/* As pool_take, with pieces that shrink: memory is read fastest in long runs, and the last pieces are small,
 * so that threads end together. (Polychronopoulos and Kuck, Guided self-scheduling, 1987.) */
static inline _Bool pool_take_guided(atomic_long *counter, int64_t n, int64_t least, int64_t shares,
                                     int64_t *first, int64_t *end) {
    long at = atomic_load_explicit(counter, memory_order_relaxed), next;
    do {
        if (at >= n) return 0;
        next = at + (long)pool_piece(n - at, least, shares);
    } while (!atomic_compare_exchange_weak_explicit(counter, &at, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    *first = at;
    *end = next < n ? next : n;
    return 1;
}
#endif

#endif
