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

/* n threads in all, the caller included (n >= 1). spin: wait busily for some microseconds before
 * sleeping, for when there is a core for each. cpus: thread i stays on CPU cpus[i % n_cpus], the
 * caller until pool_free; NULL: the system decides. NULL with a recorded error. */
pool *pool_new(int n, bool spin, const int *cpus, int n_cpus);
void pool_free(pool *p);
int pool_size(const pool *p);

/* Runs work(context, thread) on every thread, thread = 0 .. n-1 (0 is the caller), and returns when
 * all are done. */
void pool_run(pool *p, void (*work)(void *context, int thread), void *context);

/* Inside work: returns when all threads of the pool have called it; what each wrote before is
 * visible to all.
 */
void pool_barrier(pool *p, int thread);

/* Work sharing between two barriers: the next piece of up to `step` items of [0, n) from a counter
 * that starts at zero. False when none is left. Threads of one machine are not equally fast, so
 * pieces are small.
 */
#ifndef __cplusplus
static inline _Bool pool_take(atomic_long *counter, int64_t n, int64_t step, int64_t *first, int64_t *end) {
    int64_t at = atomic_fetch_add_explicit(counter, (long)step, memory_order_relaxed);
    if (at >= n) return 0;
    *first = at;
    *end = at + step < n ? at + step : n;
    return 1;
}
#endif

/* Work sharing where each thread has items of its own, the same ones each time: of [0, n) thread t
 * has [n * t / threads, n * (t + 1) / threads), n at most POOL_MOST * threads. It takes these in
 * order, in parts that shrink, and then what others have left, from their ends, so that threads end
 * together. (Blumofe and Leiserson, Scheduling multithreaded computations by work stealing,
 * 1999.) */
enum { POOL_MOST = (1 << 20) - 1 };
typedef struct pool_part {
    int64_t first, end;         /* the items taken */
    int64_t own_first, own_end; /* all that their owner has */
} pool_part;

/* Begins a round of such sharing and returns its number; every thread calls it, inside work, for
 * each round in the same order. Fewer than 2^24 in one pool_run. */
unsigned pool_round(pool *p, int thread);

/* The next part of a round's items, at least `least` of them if there are so many: of the thread's
 * own, or, others, of somebody else's. False when none is left. With one thread, all of them at
 * once. */
bool pool_take_part(pool *p, int thread, unsigned round, int64_t n, int64_t least, bool others,
                    pool_part *part);

#endif
