/* tokenizer.c - which tokenizer belongs to a checkpoint.
 * text/ knows nothing of checkpoints, and checkpoint/ nothing of text; they meet here. */
#include "generate/generate.h"

static int open_folder(const char *folder, tokenizer **out) {
    str path = {0};
    str_printf(&path, "%s/tokenizer.json", folder);
    int status = path.failed ? -1 : 0;
    if (!status && file_exists(path.data)) {
        *out = tokenizer_open(path.data);
        status = *out ? 0 : -1;
    }
    str_free(&path);
    return status;
}

int open_tokenizer(const checkpoint *c, tokenizer **out) {
    const gguf_vocabulary *v = checkpoint_vocab(c);
    const char *folder = checkpoint_folder(c);
    *out = NULL;
    if (!v) return folder ? open_folder(folder, out) : 0;
    *out = tokenizer_from_vocabulary(v);
    return *out ? 0 : -1;
}
