/* pool.c - worker threads and the barrier they meet at.
 * A barrier spins for some microseconds, since steps of a token are that short, and then sleeps, so that an
 * oversubscribed machine is not held up by threads that wait. */
#include "base/base.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { SPINS = 4000 };

typedef struct worker {
    pool *pool;
    int thread;
    pthread_t id;
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
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits until *counter is no longer `old`: spins, then sleeps. */
static void wait_change(pool *p, atomic_uint *counter, unsigned old) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(counter, memory_order_acquire) != old) return;
        cpu_relax();
    }
    atomic_fetch_add(&p->sleepers, 1);
    pthread_mutex_lock(&p->lock);
    while (atomic_load(counter) == old) pthread_cond_wait(&p->wake, &p->lock);
    pthread_mutex_unlock(&p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
}

/* Changes *counter and wakes whoever sleeps on it. Sequentially consistent on both sides: either the waker
 * sees the sleeper, or the sleeper sees the change. */
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

void pool_run(pool *p, void (*work)(void *context, int thread), void *context) {
    p->work = work;
    p->context = context;
    if (p->n > 1) announce(p, &p->generation);
    work(context, 0);
    pool_barrier(p, 0);
}

pool *pool_new(int n) {
    pool *p = mem_new(1, sizeof *p, "a thread pool");
    if (!p) return NULL;
    p->n = 1;
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
    return p;
}

void pool_free(pool *p) {
    if (!p) return;
    p->stop = true;
    announce(p, &p->generation);
    for (int i = 1; i < p->n; i++) pthread_join(p->workers[i].id, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p->workers);
    free(p);
}

int pool_size(const pool *p) {
    return p->n;
}
