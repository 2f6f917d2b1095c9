/* finite.c - logits that are no numbers: an overflow in F16, or a broken checkpoint.
 * Such a model decodes at full speed, so its rows would look like any other's. */
#include "bench/internal.h"

#include <stdlib.h>

static bool all_finite(const float *x, int64_t n) {
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * 0; /* not 0 for an infinity or a NaN */
    return sum == 0;
}

int check_logits(const session *s, const model *m, int64_t n_sequences, int64_t token) {
    const float *logits = session_logits(s);
    if (!logits || all_finite(logits, n_sequences * model_describe(m)->vocab_size)) return 0;
    fail("logits are not finite from token %lld", (long long)token);
    return 1;
}

int check_next_logits(session *s, const model *m, int64_t n_sequences, int64_t token) {
    int32_t *ids = mem_new((size_t)n_sequences, sizeof *ids, "the generated ids");
    int failed = !ids || session_keep_logits(s, true);
    do {
        failed = failed || session_step(s, ids); /* one that was queued before has none */
    } while (!failed && !session_logits(s));
    free(ids);
    return failed ? -1 : check_logits(s, m, n_sequences, token);
}
