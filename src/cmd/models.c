/* models.c - `mlxbench models`: what can be measured here.
 * Presets and families are this program's own; the rest is what the Hub's cache and LM Studio
 * hold. */
#include "cmd/cmd.h"
#include "cmd/engines.h"
#include "hub/hub.h"
#include "model/model.h"
#include "sys/sys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A number of config, 0 when it has none. */
static double number(const json *config, const char *key) {
    return json_number(json_get(config, key));
}

static int put_preset(void *out, const char *name, const json *config) {
    const char *type = json_string(json_get(config, "model_type"));
    model_weights weights = {0};
    str path = {0};
    str_printf(&path, "synthetic:%s", name);
    checkpoint *c = path.failed ? NULL : checkpoint_open(path.data, 0);
    int status = c ? model_weigh(c, &weights) : -1;
    str_printf(out, "  %-32s %-16s ", path.data ? path.data : "", type ? type : "?");
    if (status)
        str_printf(out, "does not run here: %s\n", error_message());
    else
        str_printf(out, "%8.2f billion parameters\n", (double)weights.parameters / 1e9);
    error_clear();
    checkpoint_close(c);
    str_free(&path);
    return 0;
}

/* As many names a line as fit. */
static void put_types(str *out) {
    model_kind kind;
    size_t line = 100;
    str_puts(out, "\nArchitectures (model_type in config.json):");
    for (int i = 0; model_kind_get(i, &kind); i++) {
        bool wrap = line + strlen(kind.model_type) > 90;
        line = (wrap ? 2 : line + 2) + strlen(kind.model_type);
        str_printf(out, "%s%s%s", i ? "," : "", wrap ? "\n  " : " ", kind.model_type);
    }
    str_puts(out, "\n");
}

/* The table of docs/models.md. */
static void put_markdown(str *out) {
    model_kind kind;
    str_puts(out, "| model_type | well-known checkpoints | tested |\n|---|---|---|\n");
    for (int i = 0; model_kind_get(i, &kind); i++) {
        str_printf(out, "| `%s` | %s | ", kind.model_type, kind.known);
        if (kind.like)
            str_printf(out, "the architecture of `%s` |\n", kind.like);
        else
            str_printf(out, "%s |\n", kind.tested ? kind.tested : "ids and logits are mlx-lm's");
    }
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
        str_put_printable(out, type ? type : "?");
}

/* What is known of a model here, for people. */
typedef struct findings {
    str type, quantization, verdict;
} findings;

/* Loads a model as a run does, into an engine that computes nothing: that maps its files and checks
 * everything about them. The bytes that its weights will take; -1 with a message when it does not
 * load. */
static int64_t try_to_load(checkpoint *c) {
    checkpoint_skip_values(c);
    engine *fake = engine_open("fake", &(engine_options){.threads = 1});
    model *m = fake ? model_load(c, fake) : NULL;
    int64_t bytes = m ? checkpoint_bytes(c) : -1;
    model_free(m);
    engine_close(fake);
    return bytes;
}

static void look_at(const hub_entry *entry, findings *f) {
    int64_t available = sys_available_memory();
    checkpoint *c = checkpoint_open(entry->folder, 0);
    int64_t bytes = c ? try_to_load(c) : -1;
    if (bytes < 0)
        str_printf(&f->verdict, "does not run here: %s", error_message());
    else if (available && bytes > available)
        str_printf(&f->verdict, "larger than the %.1f GB of memory that are free", (double)available / 1e9);
    else
        str_puts(&f->verdict, "runs here");
    if (c && checkpoint_is_gguf(c)) {
        const char *type = json_string(json_get(checkpoint_config(c), "model_type"));
        str_put_printable(&f->type, type ? type : "?");
        str_printf(&f->quantization, "GGUF %s", bytes < 0 ? "" : checkpoint_quantization(c));
    }
    checkpoint_close(c);
    error_clear();
}

/* What a folder's config.json says, whether or not all of the model is there. */
static void read_config(const hub_entry *entry, findings *f) {
    str path = {0};
    str_printf(&path, "%s/config.json", entry->folder);
    json *config = !path.failed && file_exists(path.data) ? json_parse_file(path.data) : NULL;
    const char *type = json_string(json_get(config, "model_type"));
    str_put_printable(&f->type, type ? type : "?");
    if (config) put_quantization(&f->quantization, config);
    json_free(config);
    str_free(&path);
    error_clear();
}

static void put_last_use(str *out, int64_t seconds) {
    time_t when = (time_t)seconds;
    struct tm day;
    char text[16] = "";
    if (when && localtime_r(&when, &day)) strftime(text, sizeof text, "%Y-%m-%d", &day);
    str_printf(out, "  %-10s  ", text);
}

static int put_found(void *context, const hub_entry *entry) {
    str *out = context;
    findings f = {0};
    if (!file_exists(entry->folder)) read_config(entry, &f);
    if (entry->missing)
        str_printf(&f.verdict, "incomplete: %s; mlxbench pull %s", entry->missing, entry->name);
    else
        look_at(entry, &f);
    if (!f.type.length) str_puts(&f.type, "?");
    if (!f.quantization.length) str_puts(&f.quantization, file_exists(entry->folder) ? "GGUF" : "?");
    bool failed = f.type.failed || f.quantization.failed || f.verdict.failed;
    if (!failed) {
        str_printf(out, "  %-50s %-16s %8.2f GB  %-14s", entry->name, f.type.data, (double)entry->bytes / 1e9,
                   f.quantization.data);
        put_last_use(out, entry->last_used);
        str_printf(out, "%s%s\n", f.verdict.data, strcmp(entry->place, "LM Studio") ? "" : " (LM Studio)");
    }
    str_free(&f.type);
    str_free(&f.quantization);
    str_free(&f.verdict);
    return failed ? -1 : 0;
}

static int write_models(str *out) {
    str_puts(out,
             "Presets, random weights of a model's shapes (4 bits; or with -8bit or -bf16 at the end):\n");
    if (checkpoint_presets(put_preset, out)) return -1;
    put_types(out);
    put_engines(out);
    str_puts(out, "\nModels on this machine (kind, size, quantization, last use):\n");
    size_t before = out->length;
    if (hub_list(put_found, out)) return -1;
    if (out->length == before) str_puts(out, "  none\n");
    return out->failed ? -1 : 0;
}

/* A yes on the terminal. */
static int ask(const char *name, const char *folder, int64_t bytes) {
    char answer[8] = "";
    if (!isatty(STDIN_FILENO))
        return fail_usage(
            "models --remove: standard input is no terminal, so nobody can be asked; add --yes");
    fprintf(stderr, "remove %s, %.2f GB in %s? [y/N] ", name, (double)bytes / 1e9, folder);
    bool yes = fgets(answer, sizeof answer, stdin) && (*answer == 'y' || *answer == 'Y');
    if (interrupted()) return fail_interrupted();
    return yes ? 0 : fail("nothing was removed");
}

static int remove_model(const char *name, bool yes) {
    str folder = {0};
    hub_size size = {0};
    int status = hub_cached(name, &folder, &size);
    if (!status && !yes) status = ask(name, folder.data, size.own);
    if (!status) status = hub_remove(folder.data);
    if (!status) fprintf(stderr, "mlxbench: removed %s (%.2f GB)\n", name, (double)size.own / 1e9);
    if (!status && size.shared)
        fprintf(
            stderr,
            "mlxbench: %.2f GB stay, which other models may use; what none does goes with: hf cache prune\n",
            (double)size.shared / 1e9);
    str_free(&folder);
    return status;
}

int cmd_models(int argc, char **argv) {
    const char *remove = NULL;
    bool yes = false, markdown = false;
    const option options[] = {
        {.name = "markdown",
         .kind = OPTION_FLAG,
         .value = &markdown,
         .help = "only the architectures, as a table in Markdown"},
        {.name = "remove",
         .metavar = "NAME",
         .kind = OPTION_TEXT,
         .value = &remove,
         .help = "remove a model from the Hugging Face cache, with all its revisions; asks first"},
        {.name = "yes", .kind = OPTION_FLAG, .value = &yes, .help = "with --remove: do not ask"},
    };
    const option_usage usage = {
        .synopsis = "mlxbench models [--markdown | --remove NAME]",
        .about =
            "Lists what --model can name: presets of random weights, the architectures whose\n"
            "checkpoints can be read, and the models in the Hugging Face cache and in LM Studio's folders.",
        .example = "mlxbench models",
    };
    int status = options_parse(options, sizeof options / sizeof *options, &usage, argc, argv);
    if (status) return status < 0 ? -1 : 0;
    if (remove) return remove_model(remove, yes);
    str out = {0};
    if (markdown)
        put_markdown(&out);
    else
        status = write_models(&out);
    if (out.failed) status = -1;
    if (!status && (fwrite(out.data, 1, out.length, stdout) != out.length || fflush(stdout)))
        status = fail("cannot write to standard output: %s", strerror(errno));
    str_free(&out);
    return status;
}
