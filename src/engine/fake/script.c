/* script.c - reads the script of the fake engine and moves the clock by it.
 * A line that is no line of a script is ignored, like the end: the times before stay in force. */
#include "engine/fake/script.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int script_open(script *s) {
    const char *path = getenv("MLXBENCH_FAKE_SCRIPT");
    *s = (script){0};
    if (!path || !*path) return 0;
    s->file = fopen(path, "re");
    if (!s->file) return fail("MLXBENCH_FAKE_SCRIPT: cannot open %s: %s", path, strerror(errno));
    clock_pass(0);
    return 0;
}

void script_close(script *s) {
    if (s->file) fclose(s->file);
    s->file = NULL;
}

void script_next(script *s) {
    char line[256], word[16] = "";
    long long ns[3] = {0};
    if (!s->file || !fgets(line, sizeof line, s->file)) return;
    int n_times = sscanf(line, "%lld %lld %lld", &ns[0], &ns[1], &ns[2]);
    if (n_times < 2) return;
    s->prompt_ns = ns[0];
    s->token_ns = ns[1];
    s->position_ns = ns[2];
    size_t at = strcspn(line, "abcdefghijklmnopqrstuvwxyz");
    long long n = 0;
    sscanf(line + at, "%15[a-z]:%lld", word, &n);
    memcpy(s->word, word, sizeof word);
    s->word_tokens = n;
}

int script_step(const script *s, int64_t n, int64_t position) {
    if (!s->file) return 0;
    const char *word = s->word_tokens && s->word_tokens != n ? "" : s->word;
    if (!strcmp(word, "fail")) return fail("fake: this run fails, as its script says");
    if (!strcmp(word, "memory")) return fail_memory("fake: out of memory, as its script says");
    if (!strcmp(word, "crash")) abort();
    if (!strcmp(word, "kill")) raise(SIGKILL);
    while (!strcmp(word, "hang") && !interrupted()) sleep(1);
    clock_pass(n > 1 ? n * s->prompt_ns : s->token_ns + position * s->position_ns);
    return 0;
}
