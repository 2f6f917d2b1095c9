/* gguf_writer.h - writes GGUF files value by value, so that a test can break any of them.
 * Values, tensor entries and data are collected apart and joined by finish(). */
#ifndef TESTS_GGUF_WRITER_H
#define TESTS_GGUF_WRITER_H

#include "folder.h"

enum { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9, U64 = 10 };
enum {
    TENSOR_F32 = 0,
    TENSOR_F16 = 1,
    TENSOR_Q4_0 = 2,
    TENSOR_Q4_1 = 3,
    TENSOR_Q8_0 = 8,
    TENSOR_Q3_K = 11,
    TENSOR_Q6_K = 14
};

/* A file in the making. */
typedef struct writer {
    str values, tensors, data;
    uint64_t n_values, n_tensors;
} writer;

static inline void put_u32(str *s, uint32_t v) {
    str_append(s, (const char *)&v, sizeof v);
}

static inline void put_u64(str *s, uint64_t v) {
    str_append(s, (const char *)&v, sizeof v);
}

static inline void put_string(str *s, const char *text) {
    put_u64(s, strlen(text));
    str_puts(s, text);
}

static inline void put_key(writer *w, const char *key, uint32_t type) {
    w->n_values++;
    put_string(&w->values, key);
    put_u32(&w->values, type);
}

static inline void put_int(writer *w, const char *key, uint32_t v) {
    put_key(w, key, U32);
    put_u32(&w->values, v);
}

static inline void put_float(writer *w, const char *key, float v) {
    put_key(w, key, F32);
    str_append(&w->values, (const char *)&v, sizeof v);
}

static inline void put_text(writer *w, const char *key, const char *text) {
    put_key(w, key, STRING);
    put_string(&w->values, text);
}

static inline void put_texts(writer *w, const char *key, uint64_t n, const char *const *texts) {
    put_key(w, key, ARRAY);
    put_u32(&w->values, STRING);
    put_u64(&w->values, n);
    for (uint64_t i = 0; i < n; i++) put_string(&w->values, texts[i]);
}

/* A tensor of n bytes, each its own offset; in is the length of a row, out 0 for a vector. */
static inline void put_tensor(writer *w, const char *name, uint32_t type, uint64_t in, uint64_t out,
                              size_t n) {
    w->n_tensors++;
    put_string(&w->tensors, name);
    put_u32(&w->tensors, out ? 2 : 1);
    put_u64(&w->tensors, in);
    if (out) put_u64(&w->tensors, out);
    put_u32(&w->tensors, type);
    put_u64(&w->tensors, w->data.length);
    for (size_t i = 0; i < n; i++) str_append(&w->data, &(char){(char)(i % 251)}, 1);
    while (w->data.length % 32) str_append(&w->data, "", 1);
}

static inline void finish(writer *w) {
    str file = {0};
    str_puts(&file, "GGUF");
    put_u32(&file, 3);
    put_u64(&file, w->n_tensors);
    put_u64(&file, w->n_values);
    str_append(&file, w->values.data, w->values.length);
    if (w->n_tensors) str_append(&file, w->tensors.data, w->tensors.length);
    while (file.length % 32) str_append(&file, "", 1);
    if (w->n_tensors) str_append(&file, w->data.data, w->data.length);
    assert_false(file.failed);
    write_file("m.gguf", file.data, file.length);
    str_free(&file);
    str_free(&w->values);
    str_free(&w->tensors);
    str_free(&w->data);
}

#endif
