/* facts.c - how hardware is named in one line and in one word, and the facts every POSIX system
 * has. Portable, so that the names of machines none of us has can be tested. */
#include "sys/facts.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>

void facts_copy(char *out, size_t size, const char *text) {
    size_t n = strnlen(text, size - 1);
    memmove(out, text, n);
    out[n] = '\0';
}

void facts_add_word(char *text, size_t size, const char *word) {
    size_t used = strlen(text), n = strlen(word);
    if (used + (used > 0) + n >= size) return;
    if (used) text[used++] = ' ';
    memcpy(text + used, word, n + 1);
}

void facts_add_cache(hardware *h, cache_facts cache) {
    if (cache.bytes <= 0) return;
    for (int i = 0; i < h->n_caches; i++) {
        cache_facts *c = &h->caches[i];
        if (c->level == cache.level && c->bytes == cache.bytes && !strcmp(c->type, cache.type)) {
            c->instances += cache.instances;
            return;
        }
    }
    if (h->n_caches == SYS_MAX_CACHES) return;
    int at = h->n_caches++;
    for (; at > 0; at--) { /* by level, then type, then largest first */
        const cache_facts *before = &h->caches[at - 1];
        int order = before->level - cache.level;
        if (!order) order = strcmp(before->type, cache.type);
        if (order < 0 || (!order && before->bytes > cache.bytes)) break;
        h->caches[at] = *before;
    }
    h->caches[at] = cache;
}

void facts_from_uname(hardware *h) {
    struct utsname name;
    if (uname(&name)) return;
    snprintf(h->kernel, sizeof h->kernel, "%.40s %.80s", name.sysname, name.release);
    facts_copy(h->architecture, sizeof h->architecture, name.machine);
}

static double seconds(struct timeval t) {
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

void facts_own_state(sys_state *s) {
    struct rusage usage;
    struct timespec now;
    *s = (sys_state){.busy_s = -1, .steal_s = -1, .own_s = -1, .waited_s = -1, .quota_s = -1, .memory_s = -1};
    s->gpu_hot_s = s->gpu_power_s = s->quota_cpus = -1;
    s->hot = s->swapped = s->major_faults = -1;
    s->allowed_cpus = s->mhz = s->battery = s->low_power = -1;
    s->heat = s->memory_pressure = s->gpu_others = s->gpu_slowed = -1;
    clock_gettime(CLOCK_MONOTONIC, &now); /* never a script's time: the system's counters follow no script */
    s->at_s = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    if (getrusage(RUSAGE_SELF, &usage)) return;
    s->own_s = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    s->major_faults = usage.ru_majflt;
}

static bool is_one_of(const char *word, const char *const words[]) {
    for (int i = 0; words[i]; i++)
        if (!strcasecmp(word, words[i])) return true;
    return false;
}

static void remove_all(char *text, const char *part) {
    size_t n = strlen(part);
    for (char *c = text; *c;)
        if (!strncasecmp(c, part, n))
            memmove(c, c + n, strlen(c + n) + 1);
        else
            c++;
}

/* "Intel(R) Xeon(R) Platinum 8480C CPU @ 2.00GHz" to "Intel Xeon Platinum 8480C", "Apple M2 Ultra"
 * to "M2 Ultra": what all chips of a maker share, clock rates and built-in graphics tell
 * nothing. */
static void short_chip(char *out, size_t size, const char *chip) {
    static const char *const dull[] = {"CPU", "Processor", "Apple", NULL}, *const ends[] = {"@", "w/", "with",
                                                                                            NULL};
    char text[sizeof((hardware *)0)->chip], *rest = text;
    facts_copy(text, sizeof text, chip);
    remove_all(text, "(R)");
    remove_all(text, "(TM)");
    out[0] = '\0';
    for (char *word; (word = strsep(&rest, " \t")) && !is_one_of(word, ends);)
        if (*word && !is_one_of(word, dull)) facts_add_word(out, size, word);
    if (!*out) facts_copy(out, size, "unknown");
}

/* The GPUs without cores, equal neighbours counted: "2x NVIDIA A100 + NVIDIA T4". */
static void gpu_names(char *out, size_t size, const hardware *h) {
    out[0] = '\0';
    for (int i = 0, same; i < h->n_gpus; i += same) {
        for (same = 1; i + same < h->n_gpus && !strcmp(h->gpus[i].name, h->gpus[i + same].name); same++) {
        }
        char times[16];
        snprintf(times, sizeof times, "%dx", same);
        if (i) facts_add_word(out, size, "+");
        if (same > 1) facts_add_word(out, size, times);
        facts_add_word(out, size, h->gpus[i].name[0] ? h->gpus[i].name : "GPU");
    }
}

/* "76 GPU cores", the GPUs' names, or "12 cores" where there is no GPU. */
static void compute_text(char *out, size_t size, const hardware *h) {
    if (h->n_gpus && h->gpus[0].cores)
        snprintf(out, size, "%d GPU cores", h->gpus[0].cores);
    else if (h->n_gpus)
        gpu_names(out, size, h);
    else
        snprintf(out, size, "%d cores", h->physical_cores);
}

static double gib(int64_t bytes) {
    return (double)bytes / (1 << 30);
}

char *sys_hardware_line(char *text, size_t size, const hardware *h) {
    char chip[sizeof h->chip], compute[1024];
    short_chip(chip, sizeof chip, h->chip);
    compute_text(compute, sizeof compute, h);
    snprintf(text, size, "%s | %.1fGB | %s", chip, gib(h->memory_bytes), compute);
    return text;
}

/* Keeps the letters and digits, in lower case. */
static void squeeze(char *text) {
    char *to = text;
    for (const char *c = text; *c; c++)
        if (isascii((unsigned char)*c) && isalnum((unsigned char)*c))
            *to++ = (char)tolower((unsigned char)*c);
    *to = '\0';
}

char *sys_hardware_id(char *text, size_t size, const hardware *h) {
    char chip[sizeof h->chip], compute[1024];
    short_chip(chip, sizeof chip, h->chip);
    squeeze(chip);
    if (h->n_gpus && h->gpus[0].cores)
        snprintf(compute, sizeof compute, "%dgpu", h->gpus[0].cores);
    else if (h->n_gpus)
        gpu_names(compute, sizeof compute, h);
    else
        snprintf(compute, sizeof compute, "%dcpu", h->physical_cores);
    squeeze(compute);
    snprintf(text, size, "%s_%.0fgb_%s", chip, gib(h->memory_bytes), compute);
    return text;
}
