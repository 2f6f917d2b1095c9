/* internal.h - what the files of checkpoint/ share: the table of stored tensors and the memory we
 * own. A container format fills the table when it is opened; weights.c takes from it, whatever the
 * format. */
#ifndef CHECKPOINT_INTERNAL_H
#define CHECKPOINT_INTERNAL_H

#include <stdbool.h>

#include "checkpoint/checkpoint.h"

/* GGUF's block formats that something here can be made of (gguf_blocks.c). */
typedef enum block_format {
    BLOCK_NONE,
    BLOCK_Q8_0,
    BLOCK_Q4_0,
    BLOCK_Q4_1,
    BLOCK_Q5_0,
    BLOCK_Q5_1,
    BLOCK_Q4_K,
    BLOCK_Q5_K,
    BLOCK_Q6_K,
    BLOCK_MXFP4
} block_format;

/* One tensor of a file. */
typedef struct stored {
    const char *name; /* mlx-lm's name */
    const char *file; /* for messages; with the name there when it is another than name */
    const char *type; /* the file's own name of the type: "BF16", "F8_E4M3", "Q4_0" */
    array data;       /* the logical shape; DTYPE_OTHER: not to be computed on as it is */
    size_t bytes;     /* in the file */
    block_format blocks;
    int64_t heads; /* > 0: rows are in llama.cpp's order for this many heads, to be undone */
    const array
        *whole; /* what `rule` cuts data from when it is taken; NULL: it is there already (slices.c) */
    const slice_rule *rule;
    bool used;
} stored;

/* What kinds of matrices were taken: all bit widths and group sizes, and the plain types. */
typedef struct weight_kind {
    matrix_kind kind;
    int bits, group_size; /* 0, 0: plain */
    dtype dtype;          /* of plain ones */
    int64_t bytes;
} weight_kind;
enum { MAX_WEIGHT_KINDS = 7 * 3 + 3 + 3 };

/* What "synthetic:PRESET" asks for. */
typedef struct synthetic_request {
    bool enabled;
    const char *preset; /* what was asked for, without "synthetic:" */
    uint64_t seed;
    int bits, group_size; /* 0: plain */
    dtype dtype;          /* of plain weights, norms, scales and biases */
} synthetic_request;

/* How weights are packed: as MLX does; as AutoAWQ does, columns (packed.c); as compressed-tensors
 * does, integers whose biases follow from the scales (int4.c), or mxfp4; nvfp4, with MLX's names or
 * with others that are refused; ternary numbers as BitNet's are (bitnet.c). */
typedef enum packing {
    PACKED_BY_MLX,
    PACKED_BY_AWQ,
    PACKED_INT4,
    PACKED_MXFP4,
    PACKED_NVFP4,
    PACKED_BITNET
} packing;

struct checkpoint {
    arena *arena;
    json *config;
    const char *config_name, *folder;
    const json *quantization; /* config.json's; NULL when it has none for MLX */
    packing packing;
    bool divides_by_scale; /* PACKED_BITNET */
    struct module_settings {
        const char *path; /* after checkpoint_rename */
        const json *settings;
    } * modules; /* of quantization */
    int n_modules;
    int n_eos_ids;
    const int32_t *eos_ids;
    file_map *files;
    size_t n_files;
    stored *tensors; /* on the heap; sorted by name once all are known */
    size_t n_tensors;
    struct owned_memory *owned;
    uint64_t free_memory; /* of what the system said last, not yet given out by own_memory */
    struct ignored_part *ignored;
    struct checkpoint_note *notes;
    const gguf_vocabulary *vocabulary;
    synthetic_request synthetic;
    bool sizes_only; /* what is converted or made up has memory that is never touched */
    int64_t parameters, bytes;
    weight_kind kinds[MAX_WEIGHT_KINDS];
    int n_kinds;
};

/* ---- checkpoint.c ---- */

/* The tensor of that name; NULL when there is none. */
stored *find_stored(const checkpoint *c, const char *name);

/* Room for n more tensors; NULL on error. The caller adds to n_tensors what it filled in. */
stored *add_stored(checkpoint *c, size_t n);

/* Refuses tensors [first, n_tensors) that share bytes. Reorders them. */
int check_overlaps(checkpoint *c, size_t first);

/* Zeroed memory that lives as long as the checkpoint. It is checked against the free memory first:
 * the system would hand out more than there is and end the program later. NULL on error; what says
 * what it is for. */
void *own_memory(checkpoint *c, size_t bytes, const char *what);

/* Sorts the table by name; a name that is there twice is an error. */
int sort_tensors(checkpoint *c);

/* ---- names.c ---- */

/* config.json's entry for the module, under its name or that which checkpoint_rename makes it; NULL
 * when there is none. */
const json *module_quantization(const checkpoint *c, const char *path);

/* ---- folder.c ---- */

typedef struct file_list {
    const char **names; /* on the heap; the names are the checkpoint's */
    int n;
} file_list;

/* The safetensors files of c->folder that are the model. What else is there is left out and
 * noted. */
int choose_files(checkpoint *c, file_list *out);

/* -1 with a message when the file's content is none of a model: a Git LFS pointer, an HTML page. */
int check_is_model(const char *path, const char *data, size_t size);

/* After a file could not be read: the same error, or a clearer one when it is no such file at all.
 * -1. */
int explain_file(const char *path);

/* ---- safetensors.c, gguf_model.c, synthetic.c: open (fill in config, tensors, ...) ---- */

int safetensors_open(checkpoint *c);
int gguf_open(checkpoint *c, const char *path);
int synthetic_open(checkpoint *c, const char *preset, uint64_t seed);

/* ---- gguf_blocks.c ---- */

/* The tensor in MLX's layout and row order, in memory of ours; the file's pages are released. */
int gguf_take(checkpoint *c, const stored *t, matrix *out);

/* ---- packed.c ---- */

/* Turns module `path` into MLX's affine layout, in memory of ours, if it has tensors as AutoAWQ
 * packs them. 1 done, 0 it has none, -1 error. *again: it had been taken before. */
int packed_take(checkpoint *c, const char *path, int rank, const int64_t *shape, matrix *out, bool *again);

/* A plain tensor of such a checkpoint gets the type that the packed ones' scales have, as in
 * mlx-lm. */
int packed_convert(checkpoint *c, const char *name, matrix *m);

/* ---- slices.c ---- */

/* Copies the slice, if t is one, into memory of ours. */
int slice_take(checkpoint *c, stored *t);

/* ---- foreign.c ---- */

/* q, by quant_method `method`: fills in how weights are packed, and refuses what nothing here
 * reads. */
int foreign_read(checkpoint *c, const json *q, const char *method);

/* Gives the tensors of such a checkpoint the names and types of MLX's, where only these differ. */
int foreign_rename(checkpoint *c);

/* ---- bitnet.c ---- */

/* Turns module `path` into 2-bit affine weights, in memory of ours, if it has ternary ones. 1 done,
 * 0 it has none, -1 error. *again: it had been taken before. */
int bitnet_take(checkpoint *c, const char *path, int rank, const int64_t *shape, matrix *out, bool *again);

/* ---- int4.c ---- */

/* The biases of module `path` with these scales, in memory of ours. */
int int4_biases(checkpoint *c, const char *path, const array *scales, array *biases);

/* ---- fp8.c ---- */

/* Turns t, if it holds E4M3 numbers and there is NAME_scale_inv, into BF16 in memory of ours. -1 on
 * error. */
int fp8_convert(checkpoint *c, stored *t);

/* ---- quantization.c ---- */

/* Finds config.json's quantization and refuses kinds nothing here computes. */
int quantization_read(checkpoint *c);

/* config.json says false for this module: it is plain, whatever tensors there are. */
bool quantization_denied(const checkpoint *c, const char *path);

/* Fills m's kind, bits and group size from the types and shapes of m->values, scales and biases (of
 * type F32 and rank 0 when there are none); the logical shape is set. */
int quantization_infer(const checkpoint *c, const char *path, matrix *m);

/* ---- synthetic.c ---- */

int synthetic_plain(checkpoint *c, const char *name, int rank, const int64_t *shape, matrix *out);
int synthetic_norm(checkpoint *c, const char *name, int64_t n, float center, matrix *out);
int synthetic_matrix(checkpoint *c, const char *path, int rank, const int64_t *shape, int least_bits,
                     matrix *out); /* least_bits: of a quantized one */

#endif
