/* texts.h - reads whole files and compares whole texts, for tests of what is written.
 * Both end the test when something is wrong. */
#ifndef TESTS_TEXTS_H
#define TESTS_TEXTS_H

#include "folder.h"

static inline char *read_file(const char *path) {
    file_map map;
    assert_int_equal(file_map_open(&map, path), 0);
    char *text = malloc(map.size + 1);
    assert_non_null(text);
    memcpy(text, map.data, map.size);
    text[map.size] = '\0';
    file_map_close(&map);
    return text;
}

static inline void check_text(char *text, const char *wanted) {
    assert_string_equal(text, wanted);
    free(text);
}

#endif
