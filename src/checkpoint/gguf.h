/* gguf.h - the GGUF container (private to checkpoint/): typed key-value pairs, then tensors.
 * Parsing checks every count and length against the file, so that what is handed out can be read
 * freely. */
#ifndef CHECKPOINT_GGUF_H
#define CHECKPOINT_GGUF_H

#include "checkpoint/internal.h"

typedef enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_N_TYPES
} gguf_type;

/* Text in the file: not terminated. */
typedef struct gguf_text {
    const char *data;
    size_t n;
} gguf_text;

typedef struct gguf_value {
    gguf_text key;
    gguf_type type, element; /* element: of an array */
    uint64_t n;              /* elements of an array */
    const char *data;        /* a number, a string's bytes, an array's first element; may be unaligned */
    size_t size;             /* bytes at data */
} gguf_value;

typedef struct gguf {
    const char *path;
    const char *data;
    size_t size;
    gguf_value *values;
    stored *tensors; /* with GGUF's own names; shapes row-major, like everywhere here */
    size_t n_values, n_tensors;
} gguf;

/* Parses g's path, data and size; the rest is filled in. -1 on anything malformed, and on tensor
 * types that are not supported. */
int gguf_parse(checkpoint *c, gguf *g);

/* The value of a key; NULL when there is none. */
const gguf_value *gguf_find(const gguf *g, const char *key);

/* Checked values. Absent: *out is untouched, and an error when required. -1 when of another type or
 * outside [min, max]. */
int gguf_int(const gguf *g, const char *key, bool required, int64_t min, int64_t max, int64_t *out);
int gguf_float(const gguf *g, const char *key, bool required, double *out);
int gguf_bool(const gguf *g, const char *key, bool *out);
int gguf_string(const gguf *g, const char *key, bool required, gguf_text *out);

/* Terminated copies of an array of strings; *out NULL and *n 0 when the key is absent. */
int gguf_strings(checkpoint *c, const gguf *g, const char *key, const char *const **out, int64_t *n);

bool gguf_text_is(gguf_text text, const char *word);

#endif
