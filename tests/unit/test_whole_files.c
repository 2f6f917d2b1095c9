/* test_whole_files.c - a file of results is whole at every moment: its writer is stopped after each
 * byte that it writes, and before and after each change of a name. The calls that change files are
 * replaced by ones that stop working when their time is up, as if the program had been killed
 * there.
 */
#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int64_t steps_left, bytes_written; /* a byte is a step, and each other call */
static bool no_links, no_new_files,
    is_mounted; /* as on some file systems, in others' folders, in containers */

static bool step(void) {
    if (steps_left > 0) steps_left--;
    errno = EIO;
    return steps_left > 0;
}

static ssize_t cut_pwrite(int fd, const void *data, size_t n, off_t at) {
    if (!steps_left) return step() - 1;
    if ((int64_t)n > steps_left) n = (size_t)steps_left;
    steps_left -= (int64_t)n;
    bytes_written += (int64_t)n;
    return pwrite(fd, data, n, at);
}

static int cut_rename(const char *from, const char *to) {
    if (!is_mounted) return step() ? rename(from, to) : -1;
    errno = EBUSY;
    return -1;
}

static int cut_link(const char *from, const char *to) {
    if (!no_links) return step() ? link(from, to) : -1;
    errno = EPERM;
    return -1;
}

static int cut_unlink(const char *path) {
    return step() ? unlink(path) : -1;
}

static int cut_ftruncate(int fd, off_t n) {
    return step() ? ftruncate(fd, n) : -1;
}

static int cut_open(const char *path, int how, ...) {
    if (!no_new_files || !(how & O_CREAT)) return step() ? open(path, how, 0666) : -1;
    errno = EACCES;
    return -1;
}

#define pwrite    cut_pwrite
#define rename    cut_rename
#define link      cut_link
#define unlink    cut_unlink
#define ftruncate cut_ftruncate
#define open      cut_open
#include "report/copy.c"
#include "report/file.c"
#undef pwrite
#undef rename
#undef link
#undef unlink
#undef ftruncate
#undef open

#include "texts.h"

static char path[600]; /* of the file that is written */

enum { N_ROWS = 9 };

static const int64_t no_end = INT64_MAX;

static const str opening = {.data = "{\"runs\": [", .length = 10};
static const str closing = {.data = "\n]}\n", .length = 4};

typedef struct lists {
    out_file file;
    str text, parts[MAX_PARTS]; /* a list, and two that grow behind it */
    int n_written;              /* rows that the file said it has */
} lists;

/* Row number i of the first list, and of the others sometimes. */
static void make_row(lists *l, int i) {
    str_clear(&l->text);
    str_printf(&l->text, "%s\n%d", i ? "," : "", i + 1);
    if (!i) str_puts(&l->parts[0], "\n], \"seconds\": [");
    if (!i) str_puts(&l->parts[1], "\n], \"thirds\": [0");
    if (i % 2) str_printf(&l->parts[0], "%s\n\"a text, %d\"", i > 1 ? "," : "", i + 1);
    if (i % 3 == 2) str_printf(&l->parts[1], ",\n[\"a longer text, longer than the others\", %d]", i + 1);
}

static bool begin(lists *l, bool emptied) {
    static const out_tail nothing;
    *l = (lists){0};
    if (out_file_find(&l->file, path)) return false;
    return !out_file_open(&l->file, emptied) && !out_file_write(&l->file, &opening, &nothing);
}

static bool add_row(lists *l, int i) {
    out_tail tail = {.parts = l->parts, .closing = closing};
    make_row(l, i);
    if (out_file_write(&l->file, &l->text, &tail) || out_file_keep(&l->file, false)) return false;
    l->n_written++;
    return true;
}

static bool end(lists *l) {
    out_tail tail = {.parts = l->parts, .closing = closing, .last = true};
    str_clear(&l->text);
    return !out_file_write(&l->file, &l->text, &tail);
}

static void drop(lists *l) {
    out_file_close(&l->file);
    for (int i = 0; i < MAX_PARTS; i++) str_free(&l->parts[i]);
    str_free(&l->text);
}

/* Writes a file, until the steps end. Returns how many rows it is known to have. */
static int write_lists(void) {
    lists l;
    bool fine = begin(&l, false);
    for (int i = 0; i < N_ROWS && fine; i++) fine = add_row(&l, i);
    if (fine) end(&l);
    drop(&l);
    return l.n_written;
}

/* How many rows the file has; 0: it is not there. */
static int rows_in(const char *file) {
    if (!file_exists(file)) return 0;
    json *root = json_parse_file(file);
    if (!root) fail_msg("%s", error_message());
    int n = json_length(json_get(root, "runs"));
    assert_int_equal(json_length(json_get(root, "seconds")), n / 2);
    assert_int_equal(json_length(json_get(root, "thirds")), 1 + n / 3);
    json_free(root);
    return n;
}

static int64_t steps_of_all(void) {
    steps_left = no_end;
    assert_int_equal(write_lists(), N_ROWS);
    assert_int_equal(rows_in(path), N_ROWS);
    return no_end - steps_left;
}

static void empty_folder(void) {
    drop_folder(NULL);
    assert_int_equal(mkdir(folder, 0700), 0);
    error_clear();
}

static void check_every_step(void) {
    int64_t n = steps_of_all();
    assert_true(n > 1000);
    for (int64_t i = 0; i < n; i++) {
        empty_folder();
        steps_left = i;
        int written = write_lists(), found = rows_in(path);
        if (found < written || found > written + 1)
            fail_msg("step %lld: %d rows are there of %d", (long long)i, found, written);
    }
}

static void test_stopped_anywhere(void **state) {
    (void)state;
    check_every_step();
}

static void test_without_links(void **state) {
    (void)state;
    no_links = true;
    check_every_step();
}

/* What is there stays until there is a row to replace it with. */
static void test_earlier_file_when_stopped(void **state) {
    (void)state;
    for (int64_t i = 0; i < 200; i++) {
        empty_folder();
        write_text("rows", "{\"runs\": [], \"seconds\": [], \"thirds\": [0]}");
        steps_left = i;
        int written = write_lists(), found = rows_in(path);
        assert_in_range(found, written, written + 1);
    }
}

static const char all_of_it[] =
    "{\"runs\": [\n1,\n2,\n3\n], \"seconds\": [\n\"a text, 2\"\n], \"thirds\": [0,\n"
    "[\"a longer text, longer than the others\", 3]\n]}\n";

/* No gaps in the end, nothing beside it, and the rights that the file had. */
static void check_three_rows(bool emptied) {
    lists l;
    struct stat info;
    assert_true(begin(&l, emptied));
    for (int i = 0; i < 3; i++) assert_true(add_row(&l, i));
    assert_true(end(&l));
    drop(&l);
    check_text(read_file(path), all_of_it);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(info.st_nlink, 1);
}

static void test_rights_and_links_stay(void **state) {
    (void)state;
    struct stat info;
    write_text("there", "");
    assert_int_equal(chmod(in_folder("there"), 0600), 0);
    assert_int_equal(symlink(in_folder("there"), path), 0);
    check_three_rows(false);
    assert_int_equal(lstat(path, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(n_files(), 2);
}

/* A file that can be written, in a folder where no other one can be made. */
static void test_in_place(void **state) {
    (void)state;
    lists l;
    write_text("rows", "earlier\n");
    assert_int_equal(chmod(path, 0600), 0);
    no_new_files = true;
    assert_false(begin(&l, false));
    assert_message("cannot write ");
    drop(&l);
    check_text(read_file(path), "earlier\n");
    error_clear();
    check_three_rows(true);
    assert_int_equal(n_files(), 1);
}

static void test_mounted_file(void **state) {
    (void)state;
    struct stat before, after;
    write_text("rows", "");
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(stat(path, &before), 0);
    is_mounted = true;
    check_three_rows(false);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(n_files(), 1);
}

static void test_removed_meanwhile(void **state) {
    (void)state;
    lists l;
    assert_true(begin(&l, false));
    assert_true(add_row(&l, 0) && add_row(&l, 1));
    assert_int_equal(remove(path), 0);
    for (int i = 2; i < 5; i++) {
        assert_true(add_row(&l, i));
        assert_int_equal(rows_in(path), i + 1);
    }
    drop(&l);
    assert_int_equal(n_files(), 1);
}

/* Neither another program's file nor our rows are lost. */
static void test_replaced_meanwhile(void **state) {
    (void)state;
    lists l;
    assert_true(begin(&l, false));
    assert_true(add_row(&l, 0));
    write_text("other", "theirs");
    assert_int_equal(rename(in_folder("other"), path), 0);
    assert_false(add_row(&l, 1));
    assert_message("was written by someone else meanwhile; the rows are in ");
    drop(&l);
    check_text(read_file(path), "theirs");
    const char *kept = strstr(error_message(), "the rows are in ") + strlen("the rows are in ");
    assert_int_equal(rows_in(kept), 2);
    assert_int_equal(n_files(), 2);
}

/* n rows cost n rows' work, however long the lists behind the first one are. */
static void test_work_is_linear(void **state) {
    (void)state;
    lists l;
    int64_t per_row[2];
    for (int k = 0; k < 2; k++) {
        int n = k ? 4000 : 1000;
        bytes_written = 0;
        assert_true(begin(&l, false));
        for (int i = 0; i < n; i++) assert_true(add_row(&l, i));
        assert_true(end(&l));
        drop(&l);
        assert_int_equal(rows_in(path), n);
        per_row[k] = bytes_written / n;
    }
    if (per_row[1] > per_row[0] * 3 / 2)
        fail_msg("a row costs %lld bytes of 1,000 rows, and %lld of 4,000", (long long)per_row[0],
                 (long long)per_row[1]);
}

static int set_up(void **state) {
    steps_left = no_end;
    no_links = no_new_files = is_mounted = false;
    if (!access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 0); /* thousands of files: not on a disk */
    if (new_folder(state)) return -1;
    snprintf(path, sizeof path, "%s/rows", folder);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, drop_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_stopped_anywhere),      TEST(test_without_links),      TEST(test_earlier_file_when_stopped),
        TEST(test_rights_and_links_stay), TEST(test_in_place),           TEST(test_mounted_file),
        TEST(test_removed_meanwhile),     TEST(test_replaced_meanwhile), TEST(test_work_is_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
