/* test_hub.c - finding models: paths, presets and names in a cache laid out as huggingface_hub
 * does. The cache is built here, so no network and no model is needed. */
#include "folder.h"
#include "hub/hub.h"

/* What a run needs, as files without content. */
static void write_model(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", name);
    write_text(path, "{}");
    snprintf(path, sizeof path, "%s/model.safetensors", name);
    write_text(path, "");
}

static const char *const snapshots[] = {"hub/models--owner--my-model/snapshots/aaa",
                                        "hub/models--owner--my-model/snapshots/bbb", NULL};

/* A cache folder with one model of two snapshots; refs/main names the second. */
static int new_cache(void **state) {
    if (new_folder(state)) return -1;
    make_folders("hub/models--owner--my-model/snapshots/aaa");
    make_folders("hub/models--owner--my-model/snapshots/bbb");
    make_folders("hub/models--owner--my-model/refs");
    write_text("hub/models--owner--my-model/refs/main", "bbb\n");
    write_text("hub/models--owner--my-model/refs/old", "aaa");
    setenv("HF_HUB_CACHE", in_folder("hub"), 1);
    setenv("HOME", in_folder("home"), 1);
    for (const char *const *name = snapshots; *name; name++) write_model(*name);
    return 0;
}

static void assert_found(const char *model, const char *end) {
    str path = {0};
    if (hub_find(model, HUB_MODEL, &path)) fail_msg("%s: %s", model, error_message());
    size_t n = strlen(end);
    assert_true(path.length >= n);
    assert_string_equal(path.data + path.length - n, end);
    str_free(&path);
}

static void assert_not_found(const char *model, const char *message) {
    str path = {0};
    error_clear();
    assert_int_not_equal(hub_find(model, HUB_MODEL, &path), 0);
    assert_message(message);
    str_free(&path);
}

static void test_revisions(void **state) {
    (void)state;
    assert_found("owner/my-model", "hub/models--owner--my-model/snapshots/bbb");
    assert_found("owner/my-model@main", "/snapshots/bbb");
    assert_found("owner/my-model@old", "/snapshots/aaa");
    assert_found("owner/my-model@aaa", "/snapshots/aaa");
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
    str path = {0};
    assert_not_found("owner/other", "mlxbench pull owner/other");
    assert_not_found("owner/other", "neither in the Hugging Face cache");
    assert_not_found("owner/my-modle", "did you mean owner/my-model, which is here?");
    assert_not_found("owner/my-model@ccc", "mlxbench pull owner/my-model@ccc");
    assert_int_equal(hub_find("owner/other", HUB_MODEL, &path), HUB_MISSING);
    assert_int_equal(hub_find("no-such-folder", HUB_MODEL, &path), HUB_MISSING);
    const char *const no_names[] = {"no-such-file.gguf",
                                    "model.safetensors",
                                    "/no/such/folder",
                                    "../no/models",
                                    "",
                                    "owner/",
                                    "owner/my-model@",
                                    "owner/my-model@../../refs",
                                    "o wner/x",
                                    "owner/a--b",
                                    "owner/..",
                                    "owner/x/../../y.gguf",
                                    "hf:",
                                    "hf:owner/",
                                    "https://example.com/a/b",
                                    "owner/x/model.safetensors",
                                    "owner/x@refs/../../y"};
    for (size_t i = 0; i < sizeof no_names / sizeof *no_names; i++) {
        assert_int_equal(hub_find(no_names[i], HUB_MODEL, &path), -1);
        assert_message("no folder or file");
    }
    str_free(&path);
}

static void test_forms_of_names(void **state) {
    (void)state;
    write_text("hub/models--owner--my-model/snapshots/bbb/q4.gguf", "GGUF");
    make_folders("hub/models--owner--my-model/snapshots/aaa/sub");
    write_text("hub/models--owner--my-model/snapshots/aaa/sub/q8.gguf", "GGUF");
    assert_found("hf:owner/my-model", "/snapshots/bbb");
    assert_found("hf://owner/my-model@old", "/snapshots/aaa");
    assert_found("https://huggingface.co/owner/my-model", "/snapshots/bbb");
    assert_found("https://huggingface.co/owner/my-model/?library=mlx#files", "/snapshots/bbb");
    assert_found("https://hf.co/owner/my-model/tree/old", "/snapshots/aaa");
    assert_found("owner/my-model/q4.gguf", "/snapshots/bbb/q4.gguf");
    assert_found("owner/my-model/sub/q8.gguf@old", "/snapshots/aaa/sub/q8.gguf");
    assert_found("owner/my-model@old/sub/q8.gguf", "/snapshots/aaa/sub/q8.gguf");
    assert_found("https://huggingface.co/owner/my-model/blob/old/sub/q8.gguf", "/snapshots/aaa/sub/q8.gguf");
    assert_found("https://huggingface.co/owner/my-model/resolve/main/q4.gguf?download=true", "/bbb/q4.gguf");
    assert_not_found("owner/my-model/q5.gguf", "mlxbench pull owner/my-model/q5.gguf");
    setenv("HF_ENDPOINT", "http://localhost:1/", 1);
    assert_found("http://localhost:1/owner/my-model", "/snapshots/bbb");
    unsetenv("HF_ENDPOINT");
}

static void test_names_without_owner(void **state) {
    (void)state;
    make_folders("hub/models--gpt2/snapshots/eee");
    make_folders("hub/models--gpt2/refs");
    write_text("hub/models--gpt2/refs/main", "eee");
    write_model("hub/models--gpt2/snapshots/eee");
    const char *const forms[] = {"gpt2",
                                 "hf:gpt2",
                                 "hf://gpt2@main",
                                 "gpt2@eee",
                                 "https://huggingface.co/gpt2",
                                 "https://hf.co/gpt2/tree/main"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        assert_found(forms[i], "/models--gpt2/snapshots/eee");
    write_text("hub/models--gpt2/snapshots/eee/q4.gguf", "GGUF");
    assert_found("gpt2@main/q4.gguf", "/snapshots/eee/q4.gguf");
    assert_found("https://huggingface.co/gpt2/blob/main/q4.gguf", "/snapshots/eee/q4.gguf");
    assert_not_found("gpt3", "did you mean gpt2, which is here?");
}

static void test_revisions_with_slashes(void **state) {
    (void)state;
    make_folders("hub/models--owner--my-model/refs/refs/pr");
    write_text("hub/models--owner--my-model/refs/refs/pr/1", "aaa");
    write_text("hub/models--owner--my-model/snapshots/aaa/q4.gguf", "GGUF");
    assert_found("owner/my-model@refs/pr/1", "/snapshots/aaa");
    assert_found("owner/my-model@refs/pr/1/q4.gguf", "/snapshots/aaa/q4.gguf");
    assert_found("https://huggingface.co/owner/my-model/tree/refs%2Fpr%2F1", "/snapshots/aaa");
    assert_found("https://huggingface.co/owner/my-model/blob/refs/pr/1/q4.gguf", "/snapshots/aaa/q4.gguf");
}

static void test_one_snapshot_without_ref(void **state) {
    (void)state;
    make_folders("hub/models--owner--one/snapshots/ccc");
    write_model("hub/models--owner--one/snapshots/ccc");
    assert_found("owner/one", "/snapshots/ccc");
    assert_not_found("owner/one@main", "pull");
    make_folders("hub/models--owner--one/snapshots/ddd");
    assert_not_found("owner/one", "mlxbench pull owner/one");
}

/* ---- incomplete ---- */

static void test_index_names_missing_shards(void **state) {
    (void)state;
    write_text("hub/models--owner--my-model/snapshots/bbb/model.safetensors.index.json",
               "{\"weight_map\": {\"a\": \"model-1.safetensors\", \"b\": \"model-2.safetensors\","
               "\"c\": \"../../../../secret\"}}");
    write_text("hub/models--owner--my-model/snapshots/bbb/model-1.safetensors", "");
    assert_not_found("owner/my-model", "in part (missing: model-2.safetensors)");
    str path = {0};
    write_text("hub/models--owner--my-model/snapshots/bbb/tokenizer.json", "{}");
    assert_int_equal(hub_find("owner/my-model", HUB_TOKENIZER, &path), 0);
    str_free(&path);
}

static void test_listing_beside_the_snapshot(void **state) {
    (void)state;
    static const char ours[] =
        "{\"format_version\": 1, \"files\": {"
        "\"config.json\": {\"size\": 2, \"blob_id\": \"0123456789012345678901234567890123456789\"},"
        "\"model.safetensors\": {\"size\": 1, \"blob_id\": \"0123456789012345678901234567890123456789\","
        "\"lfs_sha256\": \"0123456789012345678901234567890123456789012345678901234567890123\","
        "\"lfs_size\": 3000000000}}}";
    make_folders("hub/models--owner--my-model/trees");
    write_text("hub/models--owner--my-model/trees/bbb.json", ours);
    assert_not_found("owner/my-model",
                     "0.0 of 3.0 GB (missing: model.safetensors); get the rest with: mlxbench pull "
                     "owner/my-model");
    write_text("hub/models--owner--my-model/trees/bbb.json", "{");
    assert_found("owner/my-model", "/snapshots/bbb"); /* no list that can be read: the files decide */
    write_text("hub/models--owner--my-model/trees/bbb.mlxbench.json", ours);
    assert_not_found("owner/my-model", "0.0 of 3.0 GB");
}

/* ---- LM Studio ---- */

static void test_lmstudio(void **state) {
    (void)state;
    make_folders("home/.lmstudio/models/org/whole");
    write_model("home/.lmstudio/models/org/whole");
    make_folders("home/.cache/lm-studio/models/org/quantized");
    write_text("home/.cache/lm-studio/models/org/quantized/q4.gguf", "GGUF");
    write_text("home/.cache/lm-studio/models/org/quantized/mmproj-x.gguf", "GGUF");
    make_folders("elsewhere/org/moved");
    write_model("elsewhere/org/moved");
    make_folders("pointed/models/org/there");
    write_model("pointed/models/org/there");
    char text[1200];
    snprintf(text, sizeof text, "{\"downloadsFolder\": \"%s\"}", in_folder("elsewhere"));
    write_text("home/.lmstudio/settings.json", text);
    snprintf(text, sizeof text, "%s\n", in_folder("pointed"));
    write_text("home/.lmstudio-home-pointer", text);
    assert_found("org/whole", "home/.lmstudio/models/org/whole");
    assert_found("org/quantized", "lm-studio/models/org/quantized/q4.gguf");
    assert_found("org/quantized/q4.gguf", "lm-studio/models/org/quantized/q4.gguf");
    assert_found("org/moved", "elsewhere/org/moved");
    assert_found("org/there", "pointed/models/org/there");
    assert_not_found("org/whole@main", "mlxbench pull org/whole@main"); /* nobody knows its revision */
    write_text("home/.cache/lm-studio/models/org/quantized/q8.gguf", "GGUF");
    assert_not_found("org/quantized", "mlxbench pull"); /* which one? */
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
    setenv("XDG_CACHE_HOME", "~/xdg", 1);
    make_folders("home/xdg");
    snprintf(from, sizeof from, "%s", in_folder("huggingface"));
    snprintf(to, sizeof to, "%s", in_folder("home/xdg/huggingface"));
    assert_int_equal(rename(from, to), 0);
    assert_found("owner/my-model", "/home/xdg/huggingface/hub/models--owner--my-model/snapshots/bbb");
    unsetenv("XDG_CACHE_HOME");
    setenv("HF_HUB_CACHE", "${HOME}/xdg/huggingface/$NOT_SET_HERE/../hub", 1);
    make_folders("home/xdg/huggingface/$NOT_SET_HERE");
    assert_found("owner/my-model", "/../hub/models--owner--my-model/snapshots/bbb");
    unsetenv("HF_HUB_CACHE");
    make_folders("home/.cache");
    snprintf(from, sizeof from, "%s", in_folder("home/xdg/huggingface"));
    snprintf(to, sizeof to, "%s", in_folder("home/.cache/huggingface"));
    assert_int_equal(rename(from, to), 0);
    assert_found("owner/my-model", "/.cache/huggingface/hub/models--owner--my-model/snapshots/bbb");
    unsetenv("HOME");
    assert_not_found("owner/my-model", "neither HF_HUB_CACHE, HF_HOME nor HOME is set");
}

/* ---- listing ---- */

static int append(void *context, const hub_entry *e) {
    str_printf(context, "%s=%s%s%s;", e->name, strrchr(e->folder, '/') + 1, e->missing ? " " : "",
               e->missing ? e->missing : "");
    return 0;
}

static int stop(void *context, const hub_entry *e) {
    (void)e;
    ++*(int *)context;
    return 1;
}

static void test_list(void **state) {
    (void)state;
    make_folders("hub/models--another--one/snapshots/ccc"); /* no refs, no files */
    make_folders("hub/models--empty--one/snapshots");
    make_folders("hub/models--evil--\033[31m\302\233/snapshots/ccc");
    make_folders("hub/datasets--a--b/snapshots/ddd");
    make_folders("hub/models--gpt2/snapshots/eee");
    write_model("hub/models--gpt2/snapshots/eee");
    make_folders("home/.lmstudio/models/org/studio");
    write_model("home/.lmstudio/models/org/studio");
    str names = {0};
    assert_int_equal(hub_list(append, &names), 0);
    assert_string_equal(names.data, "another/one=ccc missing: config.json, model*.safetensors;"
                                    "evil/ [31m  =ccc missing: config.json, model*.safetensors;"
                                    "gpt2=eee;"
                                    "owner/my-model=bbb;org/studio=studio;");
    str_free(&names);
    int calls = 0;
    assert_int_equal(hub_list(stop, &calls), 1);
    assert_int_equal(calls, 1);
    setenv("HF_HUB_CACHE", in_folder("none"), 1);
    setenv("HOME", in_folder("none"), 1);
    assert_int_equal(hub_list(stop, &calls), 0);
    assert_int_equal(calls, 1);
}

static void test_remove(void **state) {
    (void)state;
    str path = {0};
    hub_size size;
    write_text("outside", "stays");
    assert_int_equal(
        symlink("../../../../outside", in_folder("hub/models--owner--my-model/snapshots/bbb/link")), 0);
    assert_int_equal(hub_cached("owner/my-modle", &path, &size), -1);
    assert_message("did you mean owner/my-model");
    str_clear(&path);
    assert_int_equal(hub_cached("owner/my-model@main", &path, &size), -1);
    assert_message("with all its revisions");
    str_clear(&path);
    make_folders("home/.lmstudio/models/org/studio");
    write_model("home/.lmstudio/models/org/studio");
    assert_int_equal(hub_cached("org/studio", &path, &size), -1);
    assert_message("/.lmstudio/models/org/studio, which is not removed from here");
    str_clear(&path);
    assert_int_equal(hub_cached("owner/my-model", &path, &size), 0);
    assert_int_equal(hub_remove(path.data), 0);
    assert_false(dir_exists(in_folder("hub/models--owner--my-model")));
    assert_true(file_exists(in_folder("outside")));
    str_free(&path);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, new_cache, drop_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_revisions),
        TEST(test_paths_win),
        TEST(test_not_there),
        TEST(test_forms_of_names),
        TEST(test_names_without_owner),
        TEST(test_revisions_with_slashes),
        TEST(test_one_snapshot_without_ref),
        TEST(test_index_names_missing_shards),
        TEST(test_listing_beside_the_snapshot),
        TEST(test_lmstudio),
        TEST(test_places_of_the_cache),
        TEST(test_list),
        TEST(test_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
