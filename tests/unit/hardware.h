/* hardware.h - assertions on hardware facts, for the tests of each platform.
 * Included by test programs only, after they chose their platform's header. */
#ifndef UNIT_HARDWARE_H
#define UNIT_HARDWARE_H

#include "sys/facts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { KIB = 1 << 10, MIB = 1 << 20 };
static const int64_t GIB = 1 << 30;

static inline const cache_facts *find_cache(const hardware *h, int level, const char *type, int64_t bytes) {
    for (int i = 0; i < h->n_caches; i++)
        if (h->caches[i].level == level && !strcmp(h->caches[i].type, type) && h->caches[i].bytes == bytes)
            return &h->caches[i];
    fail_msg("no L%d %s cache of %lld bytes", level, type, (long long)bytes);
    return NULL;
}

static inline void assert_cache(const hardware *h, int level, const char *type, int64_t bytes,
                                int instances) {
    assert_int_equal(find_cache(h, level, type, bytes)->instances, instances);
}

static inline void assert_names(const hardware *h, const char *line, const char *id) {
    char text[512];
    assert_string_equal(sys_hardware_line(text, sizeof text, h), line);
    assert_string_equal(sys_hardware_id(text, sizeof text, h), id);
}

#endif
