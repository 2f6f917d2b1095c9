/* pool.c - worker threads, where they run, and the barrier they meet at.
 * A barrier spins for some microseconds, since steps of a token are that short, and then sleeps, so
 * that an oversubscribed machine is not held up by threads that wait. With more threads than cores
 * it never spins: the one that is waited for may need the core. */
#include "base/base.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum {
    SPINS = 4000, /* 50 us at 13 ns for an instruction that waits */
    LEAST_SPINS = 125,
    YIELDS = 100,
};

typedef struct worker {
    pool *pool;
    int thread;
    pthread_t id;
    unsigned rounds;    /* of work sharing that it has begun in this pool_run */
    atomic_ullong left; /* of its own items, see `take` */
    char apart[128];    /* no two threads' `left` in one cache line, which has 128 bytes on Apple's chips */
} worker;

struct pool {
    int n;
    worker *workers; /* 1 .. n-1 run threads; 0 is the caller */
    void (*work)(void *context, int thread);
    void *context;

    atomic_int arrived;     /* of the barrier's current round */
    atomic_uint round;      /* counts completed rounds */
    atomic_int sleepers;    /* threads inside pthread_cond_wait, or about to be */
    atomic_uint generation; /* counts pool_run calls; workers wait for the next */
    bool stop;
    int spins;
#ifdef __linux__
    bool pinned; /* the caller is, and was allowed to run on `before` */
    cpu_set_t before;
#endif
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    /* `yield` is over in a cycle on processors without threads per core; `isb` takes about as long
     * as x86's `pause`. */
    __asm__ volatile("isb" ::: "memory");
#endif
}

static bool changed(atomic_uint *counter, unsigned old) {
    return atomic_load_explicit(counter, memory_order_acquire) != old;
}

/* Spins until *counter is no longer `old`; false when that takes long. Where spinning was in vain -
 * the one waited for is not running, perhaps for want of this very core - less is spent on the next
 * attempt. */
static bool spin_until(const pool *p, atomic_uint *counter, unsigned old) {
    static _Thread_local int patience = SPINS;
    int most = patience < p->spins ? patience : p->spins;
    for (int i = 0; i < most; i++) {
        if (changed(counter, old)) {
            if (i && patience < SPINS) patience *= 2;
            return true;
        }
        cpu_relax();
    }
    if (patience > LEAST_SPINS) patience /= 2;
    return false;
}

/* Waits until *counter is no longer `old`: spins, then offers its core to others, then sleeps. A
 * thread that sleeps is often woken on its waker's core, and two that share one sleep at every
 * barrier from then on; while they yield, the system sees two busy threads and moves one. */
static void wait_change(pool *p, atomic_uint *counter, unsigned old) {
    if (spin_until(p, counter, old)) return;
    for (int i = 0; i < YIELDS; i++) {
        if (changed(counter, old)) return;
        sched_yield();
    }
    atomic_fetch_add(&p->sleepers, 1);
    pthread_mutex_lock(&p->lock);
    while (atomic_load(counter) == old) pthread_cond_wait(&p->wake, &p->lock);
    pthread_mutex_unlock(&p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
}

/* Changes *counter and wakes whoever sleeps on it. Sequentially consistent on both sides: either
 * the waker sees the sleeper, or the sleeper sees the change. */
static void announce(pool *p, atomic_uint *counter) {
    atomic_fetch_add(counter, 1);
    if (!atomic_load(&p->sleepers)) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void pool_barrier(pool *p, int thread) {
    (void)thread;
    if (p->n == 1) return;
    unsigned round = atomic_load_explicit(&p->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) == p->n - 1) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        announce(p, &p->round);
    } else {
        wait_change(p, &p->round, round);
    }
}

static void *worker_main(void *argument) {
    worker *w = argument;
    pool *p = w->pool;
    for (unsigned seen = 0;; seen++) {
        wait_change(p, &p->generation, seen);
        if (p->stop) return NULL;
        p->work(p->context, w->thread);
        pool_barrier(p, w->thread);
    }
}

/* What is left of a thread's own items: 24 bits of the round's number, and 20 bits each of the
 * first and of the end, counted from its own first. A number only grows: where it is less than that
 * of a round, nothing of that round is taken yet; where it is more, nothing is left. */
static unsigned long long pack_left(unsigned round, int64_t first, int64_t end) {
    return (unsigned long long)round << 40 | (unsigned long long)first << 20 | (unsigned long long)end;
}

/* Half of what is left from the front for its owner, a quarter of it from the end for others. */
static bool take(pool *p, int owner, unsigned round, int64_t n, int64_t least, bool others, pool_part *part) {
    int64_t own_first = n * owner / p->n, own_end = n * (owner + 1) / p->n, first, end, size;
    atomic_ullong *left = &p->workers[owner].left;
    unsigned long long old = atomic_load_explicit(left, memory_order_relaxed), next;
    do {
        unsigned now = (unsigned)(old >> 40);
        first = now == round ? (int64_t)(old >> 20 & POOL_MOST) : 0;
        end = now == round ? (int64_t)(old & POOL_MOST) : own_end - own_first;
        if (now > round || first >= end) return false;
        size = p->n == 1 ? end : (end - first) / (others ? 4 : 2);
        size = size < least ? least : size;
        size = size < end - first ? size : end - first;
        next = others ? pack_left(round, first, end - size) : pack_left(round, first + size, end);
    } while (
        !atomic_compare_exchange_weak_explicit(left, &old, next, memory_order_relaxed, memory_order_relaxed));
    if (others) first = end - size;
    *part = (pool_part){own_first + first, own_first + first + size, own_first, own_end};
    return true;
}

unsigned pool_round(pool *p, int thread) {
    return ++p->workers[thread].rounds;
}

bool pool_take_part(pool *p, int thread, unsigned round, int64_t n, int64_t least, bool others,
                    pool_part *part) {
    if (!others) return take(p, thread, round, n, least, false, part);
    for (int i = 1; i < p->n; i++)
        if (take(p, (thread + i) % p->n, round, n, least, true, part)) return true;
    return false;
}

void pool_run(pool *p, void (*work)(void *context, int thread), void *context) {
    p->work = work;
    p->context = context;
    for (int i = 0; i < p->n; i++) {
        p->workers[i].rounds = 0;
        atomic_store_explicit(&p->workers[i].left, 0, memory_order_relaxed);
    }
    if (p->n > 1) announce(p, &p->generation);
    work(context, 0);
    pool_barrier(p, 0);
}

/* Thread 0 is the caller. */
static int pin(pool *p, int thread, int cpu) {
#ifdef __linux__
    cpu_set_t set;
    CPU_ZERO(&set);
    if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(cpu, &set);
    pthread_t id = thread ? p->workers[thread].id : pthread_self();
    if (!thread) p->pinned = !pthread_getaffinity_np(id, sizeof p->before, &p->before);
    int error = pthread_setaffinity_np(id, sizeof set, &set);
    return error ? fail("cannot keep thread %d on CPU %d: %s", thread + 1, cpu, strerror(error)) : 0;
#else
    (void)p, (void)thread, (void)cpu;
    return fail("threads cannot be kept on cores here: only Linux lets a program choose");
#endif
}

pool *pool_new(int n, bool spin, const int *cpus, int n_cpus) {
    pool *p = mem_new(1, sizeof *p, "a thread pool");
    if (!p) return NULL;
    p->n = 1;
    p->spins = spin ? SPINS : 0;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->workers = mem_new((size_t)n, sizeof *p->workers, "a thread pool");
    if (!p->workers) {
        pool_free(p);
        return NULL;
    }
    for (int i = 1; i < n; i++) {
        p->workers[i] = (worker){.pool = p, .thread = i};
        if (pthread_create(&p->workers[i].id, NULL, worker_main, &p->workers[i])) {
            pool_free(p);
            return fail_null("cannot start thread %d of %d; use fewer --threads", i + 1, n);
        }
        p->n = i + 1;
    }
    for (int i = 0; i < n && cpus; i++)
        if (pin(p, i, cpus[i % n_cpus])) {
            pool_free(p);
            return NULL;
        }
    return p;
}

void pool_free(pool *p) {
    if (!p) return;
    p->stop = true;
    announce(p, &p->generation);
    for (int i = 1; i < p->n; i++) pthread_join(p->workers[i].id, NULL);
#ifdef __linux__
    if (p->pinned) pthread_setaffinity_np(pthread_self(), sizeof p->before, &p->before);
#endif
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p->workers);
    free(p);
}

int pool_size(const pool *p) {
    return p->n;
}
