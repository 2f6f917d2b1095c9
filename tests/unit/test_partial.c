/* test_partial.c - what a download leaves on the disk, and the hashes that judge it.
 * Digests of "abc": FIPS 180-4's examples. */
#include "base/base.h"
#include "folder.h"
#include "hub/partial.h"

#include <fcntl.h>

/* What happens to a file at its end, one letter each: s synced, r renamed. These take the C
 * library's place.
 */
static char events[8];

static void event(char what) {
    size_t n = strlen(events);
    if (n + 1 < sizeof events) events[n] = what;
}

int fsync(int fd) {
    event('s');
    return fdatasync(fd);
}

int rename(const char *from, const char *to) {
    event('r');
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

enum { SIZE = 2 * PIECE_BYTES + 100 };

static void put(partial *p, int64_t at, const char *text) {
    uint32_t have;
    assert_int_equal(partial_write(p, at, text, strlen(text), &have), strlen(text));
    p->have[at / PIECE_BYTES] = have;
}

static void open_it(partial *p) {
    assert_int_equal(partial_open(p, in_folder("x.incomplete"), SIZE), 0);
}

static void test_continued(void **state) {
    (void)state;
    partial p;
    open_it(&p);
    assert_false(p.continued);
    assert_int_equal(p.n_pieces, 3);
    assert_int_equal(partial_piece_size(&p, 2), 100);
    put(&p, 0, "hello");
    put(&p, PIECE_BYTES, "middle");
    partial_close(&p);
    open_it(&p);
    assert_true(p.continued);
    assert_int_equal(p.have[0], 5);
    assert_int_equal(p.have[1], 6);
    assert_int_equal(p.have[2], 0);
    assert_int_equal(partial_have(&p), 11);
    uint32_t have;
    assert_int_equal(partial_write(&p, 2, "XXXXX", 5, &have), 3); /* what is there stays */
    assert_int_equal(have, 5);
    assert_int_equal(partial_write(&p, SIZE - 100, "end of the file and more", 24, &have), 24);
    assert_int_equal(have, 24);
    assert_int_equal(partial_reset(&p), 0);
    partial_close(&p);
    open_it(&p);
    assert_int_equal(partial_have(&p), 0);
    partial_close(&p);
}

static void test_finish(void **state) {
    (void)state;
    partial p;
    struct stat info;
    char path[1100], name[1100];
    snprintf(path, sizeof path, "%s", in_folder("x.incomplete"));
    snprintf(name, sizeof name, "%s", in_folder("x"));
    open_it(&p);
    memset(events, 0, sizeof events);
    assert_int_equal(partial_finish(&p, path, name), 0);
    assert_string_equal(events, "sr");
    partial_close(&p);
    assert_false(file_exists(path));
    assert_int_equal(stat(name, &info), 0);
    assert_int_equal(info.st_size, SIZE);
}

/* Files of the right length and of others, and tables that claim too much. */
static void test_foreign(void **state) {
    (void)state;
    partial p;
    write_text("x.incomplete", "");
    open_it(&p);
    assert_false(p.continued);
    p.have[2] = 101;
    partial_close(&p);
    open_it(&p);
    assert_false(p.continued);
    partial_close(&p);
    assert_int_equal(truncate(in_folder("x.incomplete"), SIZE), 0); /* killed between the last two steps */
    open_it(&p);
    assert_true(p.continued);
    assert_int_equal(partial_have(&p), SIZE);
    partial_close(&p);
    assert_int_equal(partial_open(&p, in_folder("no/such/folder"), SIZE), -1);
    assert_message("cannot write");
    partial_close(&p);
    assert_int_equal(symlink("x.incomplete", in_folder("link")), 0);
    assert_int_equal(partial_open(&p, in_folder("link"), SIZE), -1);
    partial_close(&p);
}

/* A file without a table is the beginning of one, as huggingface_hub leaves it, up to its first
 * hole. */
static void test_beginning(void **state) {
    (void)state;
    partial p;
    char start[] = "the beginning";
    enum { END = PIECE_BYTES + 5 };
    write_text("x.incomplete", start);
    open_it(&p);
    assert_true(p.continued);
    assert_int_equal(partial_have(&p), sizeof start - 1);
    partial_close(&p);
    open_it(&p); /* now it has a table */
    assert_int_equal(partial_have(&p), sizeof start - 1);
    partial_close(&p);
    char *bytes = calloc(END, 1);
    FILE *file = fopen(in_folder("x.incomplete"), "w");
    assert_int_equal(fwrite(bytes, 1, END, file), END);
    fclose(file);
    open_it(&p);
    assert_int_equal(p.have[0], PIECE_BYTES);
    assert_int_equal(p.have[1], 5);
    partial_close(&p);
    write_text("x.incomplete", start);
    assert_int_equal(truncate(in_folder("x.incomplete"), SIZE - 1), 0);
    open_it(&p);
    assert_true(partial_have(&p) < PIECE_BYTES); /* zeros nobody wrote are no bytes of the file */
    partial_close(&p);
    free(bytes);
}

static void test_hash(void **state) {
    (void)state;
    char hex[65];
    assert_int_equal(hash_open(), 0);
    hasher *h = hash_new(true);
    hash_add(h, "a", 1);
    hash_add(h, "bc", 2);
    hash_end(h, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    h = hash_new(false);
    hash_add(h, "abc", 3);
    hash_end(h, hex);
    assert_string_equal(hex, "a9993e364706816aba3e25717850c26c9cd0d89d");
    hash_free(hash_new(true));
    hash_free(NULL);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, new_folder, drop_folder)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_continued), TEST(test_finish), TEST(test_foreign),
                                       TEST(test_beginning), TEST(test_hash)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
