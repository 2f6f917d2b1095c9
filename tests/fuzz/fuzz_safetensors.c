/* fuzz_safetensors.c - any bytes as a model's folder: config.json, a zero byte, then
 * model.safetensors. A fault is a crash, a hang or a read outside a file; an error message is
 * not. */
#include "fuzz.h"

#include "checkpoint/checkpoint.h"

static const slice_rule slices[] = {{.from = ".e", .to = ".gate.weight", .rows = ROWS_FIRST_HALF},
                                    {.from = ".e", .to = ".up.weight", .rows = ROWS_ODD},
                                    {.from = NULL}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    size_t second = fuzz_split(data, n), config = second && !data[second - 1] ? second - 1 : second;
    fuzz_write("config.json", data, config);
    fuzz_write("model.safetensors", data + second, n - second);
    error_clear();
    checkpoint *c = checkpoint_open(fuzz_folder, 0);
    if (!c) return 0;
    int32_t eos[4];
    matrix m;
    checkpoint_eos_ids(c, eos, 4);
    checkpoint_quantization(c);
    checkpoint_parameters(c);
    checkpoint_plain(c, "a.weight", 1, (int64_t[]){4}, &m);
    checkpoint_matrix(c, "b", 2, (int64_t[]){2, 32}, &m);
    checkpoint_matrix(c, "c", 2, (int64_t[]){8, 32}, &m); /* large enough for AutoAWQ's words */
    if (!checkpoint_slice(c, slices)) {
        checkpoint_matrix(c, "d.gate", 3, (int64_t[]){2, 4, 32}, &m);
        checkpoint_matrix(c, "d.up", 3, (int64_t[]){2, 4, 32}, &m);
    }
    checkpoint_check_all_used(c);
    checkpoint_close(c);
    return 0;
}
