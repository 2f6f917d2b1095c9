/* mlx_knobs.c - MLX's own settings as parameters: environment variables, which MLX reads once per process.
 * What a row shows is read back from there, so that it is right for variables set by the user, too. */
#include "bench/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
    int param;
    const char *variable;
} knobs[] = {
    {PARAM_mlx_ops_per_buffer, "MLX_MAX_OPS_PER_BUFFER"},
    {PARAM_mlx_mb_per_buffer, "MLX_MAX_MB_PER_BUFFER"},
    {PARAM_mlx_cuda_graphs, "MLX_USE_CUDA_GRAPHS"},
    {PARAM_mlx_cuda_graph_cache, "MLX_CUDA_GRAPH_CACHE_SIZE"},
    {PARAM_mlx_cudnn_attention, "MLX_CUDA_USE_CUDNN_SDPA"},
    {PARAM_mlx_tf32, "MLX_ENABLE_TF32"},
    {PARAM_mlx_bfs_width, "MLX_BFS_MAX_WIDTH"},
};
enum { N_KNOBS = sizeof knobs / sizeof *knobs };

int mlx_knobs_set(const plan *p) {
    for (int i = 0; i < N_KNOBS; i++) {
        const param *about = &param_table[knobs[i].param];
        const param_value *given = p->values[knobs[i].param];
        char text[24] = "";
        if (p->n_values[knobs[i].param] > 1)
            return fail_usage("--%s: one value only, since MLX reads it once per process; run mlxbench again "
                              "for another",
                              about->option);
        if (about->kind == KIND_OPTIONAL && given->number)
            snprintf(text, sizeof text, "%lld", (long long)given->number);
        if (about->kind == KIND_TEXT && strcmp(given->text, "default"))
            snprintf(text, sizeof text, "%d", !strcmp(given->text, "on"));
        if (*text && setenv(knobs[i].variable, text, 1))
            return fail("--%s: cannot set %s: %s", about->option, knobs[i].variable, strerror(errno));
    }
    return 0;
}

void mlx_knobs_show(params *p, bool used) {
    for (int i = 0; i < N_KNOBS; i++) {
        const param *about = &param_table[knobs[i].param];
        const char *text = used ? getenv(knobs[i].variable) : NULL, *state = NULL;
        int64_t number = text ? atoll(text) : 0;
        if (text) state = number ? "on" : "off";
        if (about->kind == KIND_TEXT)
            memcpy((char *)p + about->offset, &state, sizeof state);
        else
            memcpy((char *)p + about->offset, &number, sizeof number);
    }
}
