/* cmd.h - the commands: one file each, one line each in this list.
 * main.c makes its table from it. */
#ifndef CMD_CMD_H
#define CMD_CMD_H

/* name, what it does (for mlxbench --help). cmd_NAME(argc, argv) gets its own name as argv[0]; it
 * returns 0, or -1 with a recorded error. The first one is the default. */
#define COMMANDS(COMMAND)                                                                                    \
    COMMAND(bench, "measure prompt and generation speed (the default command)")                              \
    COMMAND(compare, "compare result files: what became faster or slower, and what is chance")               \
    COMMAND(generate, "run a model on a prompt and stream what it says")                                     \
    COMMAND(history, "show kept runs over time, and where a speed changed")                                  \
    COMMAND(hwinfo, "show this machine: chip, cores, caches, memory, GPUs")                                  \
    COMMAND(models, "list presets, families, engines and the models on this machine; remove one")            \
    COMMAND(pull, "download a model from the Hugging Face Hub, or complete it")                              \
    COMMAND(replay, "run kept results again, and compare tokens and speeds")                                 \
    COMMAND(report, "show results from a file, in any format")                                               \
    COMMAND(selftest, "how well this machine can measure: noise floor, own cost, what disturbs")             \
    COMMAND(tokenize, "turn text into token ids, or ids into text")                                          \
    COMMAND(verify, "check the seal of a result file, and that it agrees with itself")

/* What bench starts for each model with --isolate: bench with the same options, told what to do by
 * its parent. It is in no list, since nobody else has a use for it. */
#define BENCH_CHILD "bench-child"

#define COMMAND(name, about) int cmd_##name(int argc, char **argv);
COMMANDS(COMMAND)
#undef COMMAND

#endif
