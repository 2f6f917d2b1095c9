/* fake_mac.h - a Mac played from a text file: what sysctl, IOKit, CoreFoundation and Mach answer.
 * A file has lines "KEY TYPE VALUE": TYPE int32, int64 or text; comments begin with #. Keys are
 * sysctl's names, "AGXAccelerator" (any value: the GPU's driver is there), its properties, and
 * "mach.free_count", "mach.inactive_count", "mach.footprint_peak", "mach.swapins", "mach.swapouts",
 * "notify.thermal" (the pressure's level), "power.low" (Low Power Mode), "power.providing" ("AC
 * Power", "Battery Power"). Wrong use of a call - another
 * argument than macOS takes, an object after its release - ends the test. */
#ifndef FAKE_MAC_H
#define FAKE_MAC_H

#include <stdbool.h>

enum { FAKE_MOST = 128 };

typedef struct fake_entry {
    char key[64], type[8], value[128];
} fake_entry;

/* The machine that answers; tests change it freely. */
typedef struct fake_mac {
    int n;
    fake_entry entries[FAKE_MOST];
    const char *missing_symbol;    /* one that dlsym does not find */
    const char *missing_framework; /* a part of the path of one that dlopen does not find */
    bool no_strings;               /* CoreFoundation is out of memory */
    bool mach_fails;
    bool foundation;    /* was opened last */
    int objects, ports; /* alive, or not given back, at this moment: 0 after each call of macos.c */
} fake_mac;

extern fake_mac fake;

/* Reads a machine; false where there is no such file, or a line that is none. */
bool fake_load(const char *path);

/* The entry of a key, NULL without one. */
fake_entry *fake_find(const char *key);

#endif
