/* test_hub.c - finding models: paths, presets and names in a cache laid out as huggingface_hub does.
 * The cache is built here, so no network and no model is needed. */
#include "folder.h"
#include "hub/hub.h"

/* A cache folder with one model of two snapshots; refs/main names the second. */
static int new_cache(void **state) {
    if (new_folder(state)) return -1;
    make_folders("hub/models--owner--my-model/snapshots/aaa");
    make_folders("hub/models--owner--my-model/snapshots/bbb");
    make_folders("hub/models--owner--my-model/refs");
    write_text("hub/models--owner--my-model/refs/main", "bbb\n");
    write_text("hub/models--owner--my-model/refs/old", "aaa");
    setenv("HF_HUB_CACHE", in_folder("hub"), 1);
    return 0;
}

static void assert_found(const char *model, const char *end) {
    str path = {0};
    if (hub_find(model, &path)) fail_msg("%s: %s", model, error_message());
    size_t n = strlen(end);
    assert_true(path.length >= n);
    assert_string_equal(path.data + path.length - n, end);
    str_free(&path);
}

static void assert_not_found(const char *model, const char *message) {
    str path = {0};
    error_clear();
    assert_int_equal(hub_find(model, &path), -1);
    assert_message(message);
    str_free(&path);
}

static void test_revisions(void **state) {
    (void)state;
    assert_found("owner/my-model", "hub/models--owner--my-model/snapshots/bbb");
    assert_found("owner/my-model@main", "/snapshots/bbb");
    assert_found("owner/my-model@old", "/snapshots/aaa");
    assert_found("owner/my-model@aaa", "/snapshots/aaa");
    assert_not_found("owner/my-model@ccc", "hf download owner/my-model --revision ccc");
}

static void test_paths_win(void **state) {
    (void)state;
    write_text("m.gguf", "GGUF");
    assert_found(folder, folder);
    assert_found(in_folder("m.gguf"), "/m.gguf");
    assert_found("synthetic:anything", "synthetic:anything");
}

static void test_not_there(void **state) {
    (void)state;
    assert_not_found("owner/other", "hf download owner/other ");
    assert_not_found("owner/other", "not in the Hugging Face cache");
    assert_not_found("no-such-folder", "no Hugging Face name (owner/name)");
    assert_not_found("/no/such/folder", "no folder or file");
    assert_not_found("../hub/models", "no folder or file");
    assert_not_found("", "no folder or file");
    assert_not_found("owner/", "no folder or file");
    assert_not_found("owner/my-model@", "no folder or file");
    assert_not_found("owner/my-model@../../refs", "no folder or file");
    assert_not_found("o wner/x", "no folder or file");
}

static void test_places_of_the_cache(void **state) {
    (void)state;
    unsetenv("HF_HUB_CACHE");
    setenv("HF_HOME", folder, 1);
    assert_found("owner/my-model", "/hub/models--owner--my-model/snapshots/bbb");
    unsetenv("HF_HOME");
    make_folders("huggingface");
    char from[1024], to[1024];
    snprintf(from, sizeof from, "%s", in_folder("hub"));
    snprintf(to, sizeof to, "%s", in_folder("huggingface/hub"));
    assert_int_equal(rename(from, to), 0);
    setenv("XDG_CACHE_HOME", folder, 1);
    assert_found("owner/my-model", "/huggingface/hub/models--owner--my-model/snapshots/bbb");
    unsetenv("XDG_CACHE_HOME");
    make_folders(".cache");
    snprintf(from, sizeof from, "%s", in_folder("huggingface"));
    snprintf(to, sizeof to, "%s", in_folder(".cache/huggingface"));
    assert_int_equal(rename(from, to), 0);
    setenv("HOME", folder, 1);
    assert_found("owner/my-model", "/.cache/huggingface/hub/models--owner--my-model/snapshots/bbb");
}

/* ---- listing ---- */

static int append(void *context, const char *name, const char *snapshot) {
    str_printf(context, "%s=%s;", name, strrchr(snapshot, '/') + 1);
    return 0;
}

static int stop(void *context, const char *name, const char *snapshot) {
    (void)name;
    (void)snapshot;
    ++*(int *)context;
    return 1;
}

static void test_list(void **state) {
    (void)state;
    make_folders("hub/models--another--one/snapshots/ccc"); /* no refs */
    make_folders("hub/models--empty--one/snapshots");
    make_folders("hub/datasets--a--b/snapshots/ddd");
    str names = {0};
    assert_int_equal(hub_list(append, &names), 0);
    assert_string_equal(names.data, "another/one=ccc;owner/my-model=bbb;");
    str_free(&names);
    int calls = 0;
    assert_int_equal(hub_list(stop, &calls), 0);
    assert_int_equal(calls, 1);
    setenv("HF_HUB_CACHE", in_folder("none"), 1);
    assert_int_equal(hub_list(stop, &calls), 0);
    assert_int_equal(calls, 1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, new_cache, drop_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_revisions),           TEST(test_paths_win), TEST(test_not_there),
        TEST(test_places_of_the_cache), TEST(test_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
