/* emulator.cpp - CUDA's threads as fibers: one runs until it waits at a barrier, then another one
 * does. Every other block runs its threads backwards, so that what needs an order that no barrier
 * gives fails. */
#undef _FORTIFY_SOURCE /* its longjmp refuses to go to another stack */
#include "emulator.hpp"

#include "device.hpp"

#include <mlx/types/half_types.h>

#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <ucontext.h>
#include <vector>

enum { LANES = 32, STACK = 256 * 1024 };

/* All `size` threads pass it together; round counts how often they have. */
struct barrier {
    unsigned size = 0, arrived = 0, round = 0;
};

/* A switch by swapcontext would ask the system for the signal mask each time, which takes twenty
 * times as long: it only starts them. */
struct fiber {
    ucontext_t context;
    jmp_buf state;
    emulated_thread place;
    const barrier *waits_at;
    unsigned round; /* of that barrier, when the fiber came to it */
    bool done;
    unsigned shuffled[2], n_shuffles; /* what the other lanes may read, for even and odd shuffles */
    std::unique_ptr<char[]> stack;
};

static std::vector<fiber> fibers; /* of the running block */
static std::vector<barrier> warps;
static barrier block;
static ucontext_t maker;
static jmp_buf scheduler;
static fiber *running;
static void (*start_kernel)(void **);
static void **kernel_arguments;

const emulated_thread *emulated_now;

/* ---- what threads call ---- */

static void switch_from_to(jmp_buf from, jmp_buf to) {
    if (!_setjmp(from)) _longjmp(to, 1);
}

static void wait_at(barrier &b) {
    unsigned round = b.round;
    if (++b.arrived == b.size) {
        b.arrived = 0;
        b.round++;
        return;
    }
    running->waits_at = &b;
    running->round = round;
    switch_from_to(running->state, scheduler);
}

static barrier &own_warp() {
    return warps[running->place.thread.x / LANES];
}

void __syncthreads() {
    wait_at(block);
}

void __syncwarp() {
    wait_at(own_warp());
}

/* Nobody can be two shuffles ahead of a lane that has not read yet: two places are enough. */
unsigned emulated_shuffle_xor(unsigned mask, unsigned bits, int lanes) {
    if (mask != 0xffffffffu) std::abort(); /* a part of a warp: not emulated */
    unsigned which = running->n_shuffles++ % 2;
    running->shuffled[which] = bits;
    wait_at(own_warp());
    return fibers[running->place.thread.x ^ static_cast<unsigned>(lanes)].shuffled[which];
}

unsigned short emulated_to_bf16(float x) {
    mlx::core::bfloat16_t y(x);
    unsigned short bits;
    memcpy(&bits, &y, sizeof bits);
    return bits;
}

unsigned short emulated_to_half(float x) {
    mlx::core::float16_t y(x);
    unsigned short bits;
    memcpy(&bits, &y, sizeof bits);
    return bits;
}

float emulated_from_half(unsigned short bits) {
    mlx::core::float16_t x;
    memcpy(&x, &bits, sizeof bits);
    return static_cast<float>(x);
}

/* ---- running them ---- */

static void run_fiber() {
    if (!_setjmp(running->state)) swapcontext(&running->context, &maker);
    for (;;) { /* one turn per block */
        start_kernel(kernel_arguments);
        running->done = true;
        switch_from_to(running->state, scheduler);
    }
}

static void make_fibers(unsigned n) {
    if (fibers.size() == n) return;
    if (n % LANES) throw std::runtime_error("a block of threads that are no whole warps");
    fibers = std::vector<fiber>(n);
    for (fiber &f : fibers) {
        f.stack = std::make_unique<char[]>(STACK);
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack.get();
        f.context.uc_stack.ss_size = STACK;
        makecontext(&f.context, run_fiber, 0);
        running = &f;
        swapcontext(&maker, &f.context); /* as far as its first line */
    }
}

static bool may_run(const fiber &f) {
    return !f.done && (!f.waits_at || f.waits_at->round != f.round);
}

static void run_block(bool backwards) {
    size_t n = fibers.size(), n_done = 0;
    while (n_done < n) {
        bool any = false;
        for (size_t i = 0; i < n; i++) {
            fiber &f = fibers[backwards ? n - 1 - i : i];
            if (!may_run(f)) continue;
            any = true;
            f.waits_at = nullptr;
            running = &f;
            emulated_now = &f.place;
            switch_from_to(scheduler, f.state);
            n_done += f.done;
        }
        if (!any) {
            fibers.clear(); /* they are in the middle of something */
            throw std::runtime_error("threads wait for others that have returned");
        }
    }
}

/* With words that are NaN as floats, and in one half as 16-bit numbers, and whose first byte is
 * false. */
static void fill_unwritten(void *memory, size_t bytes) {
    const unsigned nan = 0x7fc00000u;
    for (size_t at = -reinterpret_cast<uintptr_t>(memory) % sizeof nan; at + sizeof nan <= bytes;
         at += sizeof nan)
        memcpy(static_cast<char *>(memory) + at, &nan, sizeof nan);
}

void emulate(void (*start)(void **), void **arguments, grid_size size, void *shared, size_t shared_bytes) {
    make_fibers(size.threads);
    start_kernel = start;
    kernel_arguments = arguments;
    for (unsigned i = 0; i < size.blocks_x * size.blocks_y; i++) {
        unsigned x = i % size.blocks_x, y = i / size.blocks_x;
        block = {size.threads};
        warps.assign(size.threads / LANES, {LANES});
        for (unsigned t = 0; t < size.threads; t++) {
            fiber &f = fibers[t];
            f.place = {{t, 0, 0}, {x, y, 0}, {size.blocks_x, size.blocks_y, 1}};
            f.waits_at = nullptr;
            f.done = false;
            f.n_shuffles = 0;
        }
        fill_unwritten(shared, shared_bytes);
        run_block(i % 2);
    }
}
