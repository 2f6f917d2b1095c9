/* limits.c - what the machine gives a program that does nothing else: THREADS -> a JSON line.
 * Bytes read per second from memory by all threads together, and multiply-adds per second of each
 * kind that the processor has. Compiled by bench.py for this machine; the best of some short
 * runs. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

enum {
    MAX_THREADS = 256,
    RUNS = 5,
    SUMS = 12,
    STEPS = 1000000,
    PART = 400 << 20
}; /* PART: beyond all caches */

typedef struct job {
    void (*work)(struct job *j);
    pthread_barrier_t *barrier;
    const uint64_t *memory;
    volatile float keep; /* so that the work is not left out */
    double seconds;
} job;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Four streams side by side: the processor fetches ahead in each of them. */
static void read_memory(job *j) {
    enum { STREAMS = 4, LINE = 8, LENGTH = PART / STREAMS / sizeof(uint64_t) };
    uint64_t sums[STREAMS][LINE] = {0};
    for (size_t i = 0; i < LENGTH; i += LINE)
        for (int s = 0; s < STREAMS; s++) {
            const uint64_t *line = j->memory + s * LENGTH + i;
            __builtin_prefetch(line + 512);
            for (int k = 0; k < LINE; k++) sums[s][k] += line[k];
        }
    for (int s = 0; s < STREAMS; s++)
        for (int k = 0; k < LINE; k++) j->keep += (float)sums[s][k];
}

/* SUMS sums that do not wait for each other; `step` adds one product to a sum. The first lane is
 * kept. */
#define LOOP(type, zero, step)                                                                               \
    type sums[SUMS], total = zero;                                                                           \
    for (int k = 0; k < SUMS; k++) sums[k] = zero;                                                           \
    for (int i = 0; i < STEPS; i++)                                                                          \
        for (int k = 0; k < SUMS; k++) sums[k] = step;                                                       \
    for (int k = 0; k < SUMS; k++) total = total + sums[k];                                                  \
    float first;                                                                                             \
    memcpy(&first, &total, sizeof first);                                                                    \
    j->keep = first;

#if defined(__AVX512F__)
#define F32_LANES 16
static void multiply_f32(job *j) {
    __m512 a = _mm512_set1_ps(j->keep), b = _mm512_set1_ps(.5f);
    LOOP(__m512, a, _mm512_fmadd_ps(a, b, sums[k]))
}
#elif defined(__AVX2__)
#define F32_LANES 8
static void multiply_f32(job *j) {
    __m256 a = _mm256_set1_ps(j->keep), b = _mm256_set1_ps(.5f);
    LOOP(__m256, a, _mm256_fmadd_ps(a, b, sums[k]))
}
#else /* GCC's and clang's vectors */
#define F32_LANES 4
typedef float four __attribute__((vector_size(16)));
static void multiply_f32(job *j) {
    four a = {j->keep}, b = {.5f};
    LOOP(four, a, sums[k] + a * b)
}
#endif

#if defined(__AVX512BF16__)
static void multiply_bf16(job *j) {
    __m512bh a = (__m512bh)_mm512_set1_ps(j->keep), b = (__m512bh)_mm512_set1_ps(.5f);
    LOOP(__m512, _mm512_setzero_ps(), _mm512_dpbf16_ps(sums[k], a, b))
}
#endif

#if defined(__AVX512VNNI__)
static void multiply_int16(job *j) {
    __m512i a = _mm512_set1_epi32((int)j->keep), b = _mm512_set1_epi16(3);
    LOOP(__m512i, a, _mm512_dpwssd_epi32(sums[k], a, b))
}

static void multiply_int8(job *j) {
    __m512i a = _mm512_set1_epi32((int)j->keep), b = _mm512_set1_epi8(3);
    LOOP(__m512i, a, _mm512_dpbusd_epi32(sums[k], a, b))
}
#elif defined(__AVX2__)
/* A product and an addition each. As assembly, since the compiler would take products of constants
 * out of the loop. */
static inline __m256i add_int16(__m256i sum, __m256i a, __m256i b) {
    __m256i product;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(a), "x"(b));
    return sum;
}

static inline __m256i add_int8(__m256i sum, __m256i a, __m256i b) {
    __m256i product;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(a), "x"(b));
    return sum;
}

static void multiply_int16(job *j) {
    __m256i a = _mm256_set1_epi32((int)j->keep), b = _mm256_set1_epi16(3);
    LOOP(__m256i, a, add_int16(sums[k], a, b))
}

static void multiply_int8(job *j) {
    __m256i a = _mm256_set1_epi32((int)j->keep), b = _mm256_set1_epi8(3);
    LOOP(__m256i, a, add_int8(sums[k], a, b))
}
#endif

static void *run(void *argument) {
    job *j = argument;
    pthread_barrier_wait(j->barrier);
    double start = now();
    j->work(j);
    j->seconds = now() - start;
    return NULL;
}

/* Seconds that the slowest thread takes, in the best run. */
static double measure(void (*work)(job *j), int threads, const uint64_t *memory) {
    double best = 1e30;
    for (int r = 0; r < RUNS; r++) {
        static job jobs[MAX_THREADS];
        pthread_t ids[MAX_THREADS];
        pthread_barrier_t barrier;
        pthread_barrier_init(&barrier, NULL, (unsigned)threads);
        double slowest = 0;
        for (int i = 0; i < threads; i++) {
            jobs[i] = (job){.work = work, .barrier = &barrier, .memory = memory};
            if (memory) jobs[i].memory += (size_t)i * (PART / sizeof *memory);
            pthread_create(&ids[i], NULL, run, &jobs[i]);
        }
        for (int i = 0; i < threads; i++) {
            pthread_join(ids[i], NULL);
            if (jobs[i].seconds > slowest) slowest = jobs[i].seconds;
        }
        pthread_barrier_destroy(&barrier);
        if (slowest < best) best = slowest;
    }
    return best;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (threads < 1 || threads > MAX_THREADS) return 2;
    size_t words = (size_t)threads * (PART / sizeof(uint64_t));
    uint64_t *memory = aligned_alloc(64, words * sizeof *memory);
    if (!memory) return 1;
    for (size_t i = 0; i < words; i++) memory[i] = i; /* pages of zeros would be one page */
    double products = (double)threads * SUMS * STEPS * 1e-9;
    printf("{\"read\": %.2f", (double)words * sizeof *memory * 1e-9 / measure(read_memory, threads, memory));
    printf(", \"f32\": %.1f", products * F32_LANES / measure(multiply_f32, threads, NULL));
#if defined(__AVX512BF16__)
    printf(", \"bf16\": %.1f", products * 32 / measure(multiply_bf16, threads, NULL));
#endif
#if defined(__AVX512VNNI__)
    printf(", \"int16\": %.1f", products * 32 / measure(multiply_int16, threads, NULL));
    printf(", \"int8\": %.1f", products * 64 / measure(multiply_int8, threads, NULL));
#elif defined(__AVX2__)
    printf(", \"int16\": %.1f", products * 16 / measure(multiply_int16, threads, NULL));
    printf(", \"int8\": %.1f", products * 32 / measure(multiply_int8, threads, NULL));
#endif
    printf("}\n");
    free(memory);
    return 0;
}
