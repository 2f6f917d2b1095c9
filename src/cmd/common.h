/* common.h - what bench and generate share: the options of the benchmark parameters, and --prompt
 * (private to cmd/). */
#ifndef CMD_COMMON_H
#define CMD_COMMON_H

#include "bench/bench.h"

/* The option of parameter i without its value: names, help, whether everyday's help shows it. */
option param_option(int i);

/* --mlx-env, which is given to mlx_env_set. */
option mlx_env_option(option_texts *given);

/* The command line as a shell would take it, appended to out: "mlxbench bench -m 'a model'". */
void put_command(str *out, int argc, char **argv);

#define DEFAULT_PROMPT "The quick brown fox jumps over the lazy dog. "

/* --prompt's text: `given` with \n and \t as a line break and a tab, as in the original; "-" is
 * standard input and "@FILE" a file, as they are. -1 with a recorded error; an empty text is
 * one. */
int read_prompt_text(const char *given, str *out);
#define PROMPT_HELP "; - reads standard input, @FILE a file"

#endif
