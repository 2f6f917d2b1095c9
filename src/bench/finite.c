/* finite.c - logits that are no numbers, of a run that looks at none of its own: such a model
 * decodes at full speed, so its rows would look like any other's. */
#include "bench/internal.h"

#include <stdlib.h>

int check_next_logits(session *s, int64_t n_sequences, int64_t token) {
    int32_t *ids = mem_new((size_t)n_sequences, sizeof *ids, "the generated ids");
    int failed = !ids || session_keep_logits(s, true);
    do {
        failed = failed || session_step(s, ids); /* one that was queued before has none */
    } while (!failed && !session_logits(s));
    free(ids);
    if (failed) return -1;
    return session_check_logits(s, token) ? 1 : 0;
}
