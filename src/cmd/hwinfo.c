/* hwinfo.c - mlxbench hwinfo: what machine this is.
 * The first line is the one benchmark results are labelled with; below it are all facts it was made
 * from. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/engines.h"
#include "sys/sys.h"

/* What the program will find now, besides the hardware and the engines. */
typedef struct report {
    hardware hardware;
    int usable_cores;
    int64_t available_memory;
    char line[2048], id[2048];
} report;

/* --- text --- */

static void text_fact(str *out, const char *name, const char *value) {
    if (*value) str_printf(out, "%-20s %s\n", name, value);
}

static void number_fact(str *out, const char *name, int value) {
    if (value) str_printf(out, "%-20s %d\n", name, value);
}

static void memory_fact(str *out, const char *name, int64_t bytes) {
    if (bytes)
        str_printf(out, "%-20s %.1f GiB (%lld bytes)\n", name, (double)bytes / (1 << 30), (long long)bytes);
}

static void cache_fact(str *out, const cache_facts *c) {
    char name[32];
    const char *kind = !strcmp(c->type, "Data") ? "d" : !strcmp(c->type, "Instruction") ? "i" : "";
    bool large = c->bytes >= 1 << 20;
    snprintf(name, sizeof name, "L%d%s cache:", c->level, kind);
    str_printf(out, "%-20s %g %s x %d\n", name, (double)c->bytes / (large ? 1 << 20 : 1 << 10),
               large ? "MiB" : "KiB", c->instances);
}

static void gpu_fact(str *out, const gpu_facts *gpu, int i) {
    char name[32];
    snprintf(name, sizeof name, "GPU %d:", i);
    str_printf(out, "%-20s %s", name, *gpu->name ? gpu->name : "unnamed");
    if (gpu->cores) str_printf(out, ", %d cores", gpu->cores);
    if (gpu->memory_bytes) str_printf(out, ", %.1f GiB", (double)gpu->memory_bytes / (1 << 30));
    if (*gpu->driver) str_printf(out, ", driver %s", gpu->driver);
    str_puts(out, "\n");
}

static void engine_text(str *out) {
    engine_facts e;
    for (int i = 0; engine_facts_get(i, &e); i++) {
        char name[48];
        snprintf(name, sizeof name, "engine %s:", e.name);
        if (*e.missing)
            str_printf(out, "%-20s not usable: %s\n", name, e.missing);
        else
            str_printf(out, "%-20s %s, %s\n", name, e.version, e.device);
    }
}

static void write_text(str *out, const report *r) {
    const hardware *h = &r->hardware;
    str_printf(out, "%s\n", r->line);
    text_fact(out, "id:", r->id);
    text_fact(out, "chip:", h->chip);
    number_fact(out, "physical cores:", h->physical_cores);
    number_fact(out, "logical cores:", h->logical_cores);
    number_fact(out, "performance cores:", h->performance_cores);
    number_fact(out, "efficiency cores:", h->efficiency_cores);
    number_fact(out, "usable cores:", r->usable_cores);
    number_fact(out, "NUMA nodes:", h->numa_nodes);
    text_fact(out, "SIMD:", h->simd);
    for (int i = 0; i < h->n_caches; i++) cache_fact(out, &h->caches[i]);
    memory_fact(out, "memory:", h->memory_bytes);
    memory_fact(out, "available memory:", r->available_memory);
    for (int i = 0; i < h->n_gpus; i++) gpu_fact(out, &h->gpus[i], i);
    text_fact(out, "OS:", h->os);
    text_fact(out, "kernel:", h->kernel);
    text_fact(out, "architecture:", h->architecture);
    engine_text(out);
}

/* --- JSON --- */

/* A member; first says that no comma comes before it. */
static void json_text(str *out, const char *key, const char *value, bool first) {
    str_printf(out, "%s\"%s\": ", first ? "" : ", ", key);
    json_quote(out, value);
}

static void json_integer(str *out, const char *key, int64_t value, bool first) {
    str_printf(out, "%s\"%s\": %lld", first ? "" : ", ", key, (long long)value);
}

static void json_lists(str *out, const hardware *h) {
    char words[sizeof h->simd], *rest = words;
    memcpy(words, h->simd, sizeof words);
    str_puts(out, ", \"simd\": [");
    for (char *word, *comma = ""; (word = strsep(&rest, " ")) && *word; comma = ", ") {
        str_puts(out, comma);
        json_quote(out, word);
    }
    str_puts(out, "], \"caches\": [");
    for (int i = 0; i < h->n_caches; i++) {
        str_puts(out, i ? ", {" : "{");
        json_integer(out, "level", h->caches[i].level, true);
        json_text(out, "type", h->caches[i].type, false);
        json_integer(out, "bytes", h->caches[i].bytes, false);
        json_integer(out, "instances", h->caches[i].instances, false);
        str_puts(out, "}");
    }
    str_puts(out, "], \"gpus\": [");
    for (int i = 0; i < h->n_gpus; i++) {
        str_puts(out, i ? ", {" : "{");
        json_text(out, "name", h->gpus[i].name, true);
        json_integer(out, "cores", h->gpus[i].cores, false);
        json_integer(out, "memory_bytes", h->gpus[i].memory_bytes, false);
        json_text(out, "driver", h->gpus[i].driver, false);
        str_puts(out, "}");
    }
    str_puts(out, "]");
}

static void json_engines(str *out) {
    engine_facts e;
    str_puts(out, ", \"engines\": [");
    for (int i = 0; engine_facts_get(i, &e); i++) {
        str_puts(out, i ? ", {" : "{");
        json_text(out, "name", e.name, true);
        json_text(out, "version", e.version, false);
        json_text(out, "device", e.device, false);
        if (*e.missing) json_text(out, "missing", e.missing, false);
        str_puts(out, "}");
    }
    str_puts(out, "]");
}

static void write_json(str *out, const report *r) {
    const hardware *h = &r->hardware;
    str_puts(out, "{");
    json_text(out, "line", r->line, true);
    json_text(out, "id", r->id, false);
    json_text(out, "chip", h->chip, false);
    json_integer(out, "physical_cores", h->physical_cores, false);
    json_integer(out, "logical_cores", h->logical_cores, false);
    json_integer(out, "performance_cores", h->performance_cores, false);
    json_integer(out, "efficiency_cores", h->efficiency_cores, false);
    json_integer(out, "usable_cores", r->usable_cores, false);
    json_integer(out, "numa_nodes", h->numa_nodes, false);
    json_integer(out, "memory_bytes", h->memory_bytes, false);
    json_integer(out, "available_memory_bytes", r->available_memory, false);
    json_lists(out, h);
    json_text(out, "os", h->os, false);
    json_text(out, "kernel", h->kernel, false);
    json_text(out, "architecture", h->architecture, false);
    json_engines(out);
    str_puts(out, "}\n");
}

int cmd_hwinfo(int argc, char **argv) {
    bool as_json = false;
    const option options[] = {
        {.name = "json", .help = "one JSON object with all facts", .kind = OPTION_FLAG, .value = &as_json},
    };
    const option_usage usage = {
        .synopsis = "mlxbench hwinfo [--json]",
        .about = "Shows the machine: chip, cores, caches, instruction sets, memory, GPUs, system, and the "
                 "engines.\n"
                 "Unknown facts are left out; in JSON they are 0 or \"\".",
        .example = "mlxbench hwinfo --json | python3 -m json.tool",
    };
    int status = options_parse(options, 1, &usage, argc, argv);
    if (status) return status < 0 ? -1 : 0;

    report r = {.usable_cores = sys_usable_cores(), .available_memory = sys_available_memory()};
    sys_hardware(&r.hardware);
    sys_hardware_line(r.line, sizeof r.line, &r.hardware);
    sys_hardware_id(r.id, sizeof r.id, &r.hardware);
    str out = {0};
    (as_json ? write_json : write_text)(&out, &r);
    status = out.failed ? -1 : 0;
    if (!status && (fwrite(out.data, 1, out.length, stdout) != out.length || fflush(stdout)))
        status = fail("cannot write to standard output: %s", strerror(errno));
    str_free(&out);
    return status;
}
