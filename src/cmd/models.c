/* models.c - `mlxbench models`: what can be measured here.
 * Presets and families are this program's own; the rest is what the Hugging Face cache holds. */
#include "cmd/cmd.h"
#include "cmd/engines.h"
#include "hub/hub.h"
#include "model/model.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

/* A number of config, 0 when it has none. */
static double number(const json *config, const char *key) {
    return json_number(json_get(config, key));
}

/* Parameters in the embeddings, projections and experts; norms and biases are too few to show. */
static double parameters(const json *config) {
    double hidden = number(config, "hidden_size"), heads = number(config, "num_attention_heads"),
           kv_heads = number(config, "num_key_value_heads"), head_dim = number(config, "head_dim"),
           experts = number(config, "num_experts");
    if (!head_dim && heads) head_dim = hidden / heads;
    double attention = 2 * hidden * head_dim * (heads + kv_heads);
    double mlp = experts ? experts * (3 * hidden * number(config, "moe_intermediate_size") + hidden)
                         : 3 * hidden * number(config, "intermediate_size");
    double ends = hidden * number(config, "vocab_size");
    if (!json_true(json_get(config, "tie_word_embeddings"))) ends *= 2;
    return number(config, "num_hidden_layers") * (attention + mlp) + ends;
}

static int put_preset(void *out, const char *name, const json *config) {
    const char *type = json_string(json_get(config, "model_type"));
    str_printf(out, "  synthetic:%-20s %-12s %8.2f billion parameters\n", name, type ? type : "?",
               parameters(config) / 1e9);
    return 0;
}

static void put_families(str *out) {
    str_puts(out, "\nFamilies (model_type in config.json):");
    for (int i = 0; model_type_name(i); i++) str_printf(out, "%s %s", i ? "," : "", model_type_name(i));
    str_puts(out, "\n");
}

static void put_engines(str *out) {
    engine_facts e;
    str_puts(out, "\nEngines, their versions and devices:\n");
    for (int i = 0; engine_facts_get(i, &e); i++)
        if (*e.missing)
            str_printf(out, "  %-6s not usable: %s\n", e.name, e.missing);
        else
            str_printf(out, "  %-6s %-10s %s\n", e.name, e.version, e.device);
}

/* Bytes of the files in a folder; links are followed, as the cache is made of them. */
static double folder_size(const char *folder) {
    double bytes = 0;
    str path = {0};
    DIR *dir = opendir(folder);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        struct stat info;
        str_clear(&path);
        str_printf(&path, "%s/%s", folder, entry->d_name);
        if (!path.failed && !stat(path.data, &info) && S_ISREG(info.st_mode)) bytes += (double)info.st_size;
    }
    if (dir) closedir(dir);
    str_free(&path);
    return bytes;
}

/* "4-bit g64", or the type of plain weights, from config.json. */
static void put_quantization(str *out, const json *config) {
    const json *q = json_get(config, "quantization");
    const char *type = json_string(json_get(config, "torch_dtype"));
    if (!type) type = json_string(json_get(config, "dtype"));
    if (number(q, "bits"))
        str_printf(out, "%.0f-bit g%.0f", number(q, "bits"), number(q, "group_size"));
    else if (json_get(config, "quantization_config"))
        str_puts(out, "not MLX's");
    else
        str_puts(out, type ? type : "?");
}

static int put_cached(void *context, const char *name, const char *folder) {
    str *out = context, path = {0};
    str_printf(&path, "%s/config.json", folder);
    json *config = !path.failed && file_exists(path.data) ? json_parse_file(path.data) : NULL;
    const char *type = json_string(json_get(config, "model_type"));
    str_printf(out, "  %-50s %-12s %8.2f GB  ", name, type ? type : "?", folder_size(folder) / 1e9);
    if (config)
        put_quantization(out, config);
    else
        str_puts(out, "no readable config.json");
    str_puts(out, "\n");
    json_free(config);
    str_free(&path);
    return 0;
}

static int write_models(str *out) {
    str_puts(out, "Presets, random weights of a model's shapes (add -4bit, -8bit or -bf16):\n");
    if (checkpoint_presets(put_preset, out)) return -1;
    put_families(out);
    put_engines(out);
    str_puts(out, "\nModels in the Hugging Face cache:\n");
    size_t before = out->length;
    if (hub_list(put_cached, out)) return -1;
    if (out->length == before) str_puts(out, "  none\n");
    return out->failed ? -1 : 0;
}

int cmd_models(int argc, char **argv) {
    const option_usage usage = {
        .synopsis = "mlxbench models",
        .about = "Lists what --model can name: presets of random weights, the families of models whose\n"
                 "folders can be read, and the models in the Hugging Face cache.",
        .example = "mlxbench models",
    };
    int status = options_parse(NULL, 0, &usage, argc, argv);
    if (status) return status < 0 ? -1 : 0;
    str out = {0};
    status = write_models(&out);
    if (!status && (fwrite(out.data, 1, out.length, stdout) != out.length || fflush(stdout)))
        status = fail("cannot write to standard output: %s", strerror(errno));
    str_free(&out);
    return status;
}
