/* pool.c - worker threads, where they run, and the barrier they meet at.
 * A barrier spins for some microseconds, since steps of a token are that short, and then sleeps, so that an
 * oversubscribed machine is not held up by threads that wait. With more threads than cores it never spins:
 * the one that is waited for may need the core. */
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
    __asm__ volatile("yield");
#endif
}

static bool changed(atomic_uint *counter, unsigned old) {
    return atomic_load_explicit(counter, memory_order_acquire) != old;
}

/* Spins until *counter is no longer `old`; false when that takes long. Where spinning was in vain - the one
 * waited for is not running, perhaps for want of this very core - less is spent on the next attempt. */
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

/* Waits until *counter is no longer `old`: spins, then offers its core to others, then sleeps. A thread that
 * sleeps is often woken on its waker's core, and two that share one sleep at every barrier from then on;
 * while they yield, the system sees two busy threads and moves one. */
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
