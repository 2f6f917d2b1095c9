/* trace.c - records what a program asks of CUDA and what the GPU does, kernel by kernel, through
 * CUPTI. A library that CUDA itself loads into any program:
 *
 *   cc -O2 -shared -fPIC -I$CUDA/include trace.c -o trace.so -L$CUDA/lib -lcupti
 *   CUDA_INJECTION64_PATH=trace.so TRACE=out.txt PROGRAM...
 *
 * Each line: "kernel START END NAME" or "call START END ID", times in ns. trace.py makes a table of
 * it. */
#include <cupti.h>

#include <stdio.h>
#include <stdlib.h>

enum { BUFFER_BYTES = 8 << 20 };
static FILE *out;

static void give_buffer(uint8_t **buffer, size_t *size, size_t *max_records) {
    *buffer = aligned_alloc(8, BUFFER_BYTES);
    *size = *buffer ? BUFFER_BYTES : 0;
    *max_records = 0;
}

static void write_record(const CUpti_Activity *record) {
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
        const CUpti_ActivityKernel9 *k = (const CUpti_ActivityKernel9 *)record;
        fprintf(out, "kernel %llu %llu %s\n", (unsigned long long)k->start, (unsigned long long)k->end,
                k->name);
    } else if (record->kind == CUPTI_ACTIVITY_KIND_RUNTIME || record->kind == CUPTI_ACTIVITY_KIND_DRIVER) {
        const CUpti_ActivityAPI *call = (const CUpti_ActivityAPI *)record;
        const char *name = NULL;
        cuptiGetCallbackName(record->kind == CUPTI_ACTIVITY_KIND_RUNTIME ? CUPTI_CB_DOMAIN_RUNTIME_API
                                                                         : CUPTI_CB_DOMAIN_DRIVER_API,
                             call->cbid, &name);
        fprintf(out, "call %llu %llu %s\n", (unsigned long long)call->start, (unsigned long long)call->end,
                name ? name : "?");
    }
}

static void take_buffer(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid) {
    CUpti_Activity *record = NULL;
    (void)context, (void)stream, (void)size;
    while (out && cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) write_record(record);
    free(buffer);
}

static void finish(void) {
    cuptiActivityFlushAll(1);
    fclose(out);
    out = NULL;
}

/* CUDA calls this once, before the program's first call. */
int InitializeInjection(void);
int InitializeInjection(void) {
    const char *path = getenv("TRACE");
    out = path ? fopen(path, "w") : NULL;
    if (!out) return 0;
    cuptiActivityRegisterCallbacks(give_buffer, take_buffer);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
    if (getenv("TRACE_CALLS")) {
        cuptiActivityEnable(CUPTI_ACTIVITY_KIND_RUNTIME);
        cuptiActivityEnable(CUPTI_ACTIVITY_KIND_DRIVER);
    }
    atexit(finish);
    return 1;
}
