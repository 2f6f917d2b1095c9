/* script.h - the times of the fake engine's runs, for tests of what follows from them (private to
 * fake/). With a script the clock moves only as it says: a benchmark of hours takes milliseconds,
 * and repeats exactly.
 */
#ifndef ENGINE_FAKE_SCRIPT_H
#define ENGINE_FAKE_SCRIPT_H

#include "base/base.h"

/* A line per run, the last one for all that follow: PROMPT_NS TOKEN_NS [POSITION_NS] [WORD] -
 * nanoseconds per token of a prompt, per token alone, and more for each entry in the cache before
 * it. WORD: `fail` is an error of the engine, `memory` one for lack of memory, `crash` ends the
 * program by a signal, `kill` by SIGKILL, `hang` never returns. WORD:N is that in a step of N
 * tokens only. */
typedef struct script {
    FILE *file; /* NULL: no script, the clock is real */
    int64_t prompt_ns, token_ns, position_ns;
    char word[16];
    int64_t word_tokens; /* 0: of any step */
} script;

/* Opens the file $MLXBENCH_FAKE_SCRIPT names, if it is set. */
int script_open(script *s);
void script_close(script *s);

/* A run begins: the next line is in force. */
void script_next(script *s);

/* n tokens of each sequence at a position: lets their time pass, or does what the word says. */
int script_step(const script *s, int64_t n, int64_t position);

#endif
