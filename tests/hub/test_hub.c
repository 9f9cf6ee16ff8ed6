/* Names of models on a hub, and which of its files are taken. What passes between us and a hub is test_pull.py's. */
#include "hub/kept.h"
#include "hub/listing.h"
#include "hub/store.h"

#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static void names_are_one_slash_and_no_more(void **state)
{
    static const char *const good[] = {"org/name", "Qwen/Qwen3-0.6B", "a/b:Q4_K_M", "TheBloke/Llama-2-7B-GGUF:q8_0", "hf.co/org/name"};
    static const char *const bad[] = {"name", "/name", "org/", "org/na/me", "../name", "org/..", "./x", "org/.hidden", "org/name:", "org/name:a/b", "o rg/name",
                                      "org/name:..", "org/na\nme", "-o/name", "models/m.gguf/x", "", "https://huggingface.co/org",
                                      "https://huggingface.co/org/name/tree/main",
                                      "https://example.org/org/name"};
    (void)state;
    struct hub_ref r;
    for (size_t i = 0; i < COUNT_OF(good); i++)
        if (!hub_ref_parse(&r, good[i])) fail_msg("%s", good[i]);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (hub_ref_parse(&r, bad[i])) fail_msg("%s", bad[i]);
    assert_true(hub_ref_parse(&r, "a/b:Q4_K_M"));
    assert_string_equal(r.org, "a");
    assert_string_equal(r.name, "b");
    assert_string_equal(r.quant, "Q4_K_M");
    assert_string_equal(r.revision, "main");
    assert_true(hub_ref_parse(&r, "https://huggingface.co/org/name-GGUF:Q8_0"));
    assert_string_equal(r.org, "org");
    assert_string_equal(r.name, "name-GGUF");
    assert_string_equal(r.quant, "Q8_0");
    char *long_name = xasprintf("org/%0200d", 7);
    assert_false(hub_ref_parse(&r, long_name));
    free(long_name);
}

static void a_quantisation_is_a_whole_word(void **state)
{
    (void)state;
    assert_true(hub_ref_is_quant("model-Q4_K_M.gguf", "q4_k_m"));
    assert_true(hub_ref_is_quant("model.Q8_0.gguf", "Q8_0"));
    assert_true(hub_ref_is_quant("model_Q4_K_M-00001-of-00002.gguf", "Q4_K_M"));
    assert_true(hub_ref_is_quant("UD-Q4_K_XL.gguf", "Q4_K_XL"));
    assert_false(hub_ref_is_quant("model-Q4_K_M.gguf", "Q4_K"));
    assert_false(hub_ref_is_quant("model-IQ4_XS.gguf", "Q4_XS"));
    assert_false(hub_ref_is_quant("model-Q4_K_M.gguf", "4_K_M"));
    assert_false(hub_ref_is_quant("model-BF16.gguf", "F16"));
    assert_false(hub_ref_is_quant("q", "Q4_K_M"));
    assert_false(hub_ref_is_quant("model.gguf", ""));
    int of = 0;
    assert_int_equal(hub_ref_part("m-00002-of-00003.gguf", &of), 2);
    assert_int_equal(of, 3);
    assert_int_equal(hub_ref_part("m.gguf", &of), 0);
    assert_int_equal(hub_ref_part("m-00004-of-00003.gguf", &of), 0);
    assert_int_equal(hub_ref_part("m-00000-of-00003.gguf", &of), 0);
}

static void touch(const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s", dir, name);
    scratch_write(path, "x", 1);
    free(path);
}

static void what_was_pulled_is_found_by_its_name(void **state)
{
    (void)state;
    struct hub_ref r;
    char *path, *dir;
    const char *root = scratch_dir();
    setenv("TESSERA_MODELS", root, 1);
    assert_true(hub_ref_parse(&r, "org/name"));
    assert_int_equal(hub_ref_local(&r, &path), OK);
    assert_null(path);
    dir = xasprintf("%s/org", root);
    mkdir(dir, 0755);
    free(dir);
    dir = xasprintf("%s/org/name", root);
    mkdir(dir, 0755);
    touch(dir, ".m-Q4_K_M.gguf.part");
    assert_int_equal(hub_ref_local(&r, &path), OK);
    assert_null(path); /* what is not whole is not here */
    touch(dir, "m-Q4_K_M.gguf");
    assert_int_equal(hub_ref_local(&r, &path), OK);
    assert_non_null(strstr(path, "m-Q4_K_M.gguf"));
    free(path);
    touch(dir, "m-Q8_0-00001-of-00002.gguf");
    touch(dir, "m-Q8_0-00002-of-00002.gguf");
    assert_int_equal(hub_ref_local(&r, &path), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "2 GGUF models"));
    assert_true(hub_ref_parse(&r, "org/name:Q8_0"));
    assert_int_equal(hub_ref_local(&r, &path), OK);
    assert_non_null(strstr(path, "m-Q8_0-00001-of-00002.gguf"));
    free(path);
    free(dir);
    unsetenv("TESSERA_MODELS");
}

static void a_checkpoint_is_found_as_its_folder(void **state)
{
    (void)state;
    struct hub_ref r;
    char *path, *dir = xasprintf("%s/org/whole", scratch_dir());
    setenv("TESSERA_MODELS", scratch_dir(), 1);
    mkdir(dir, 0755);
    touch(dir, "config.json");
    touch(dir, "model.safetensors");
    assert_true(hub_ref_parse(&r, "org/whole"));
    assert_int_equal(hub_ref_local(&r, &path), OK);
    assert_string_equal(path, dir);
    free(path);
    free(dir);
    unsetenv("TESSERA_MODELS");
}

static void refused(const struct hub_ref *r, const char *sentence)
{
    char *path = NULL;
    assert_int_equal(hub_ref_local(r, &path), ERR_NOT_FOUND);
    assert_string_equal(err_text(), sentence);
    assert_null(path);
}

static void found(const struct hub_ref *r)
{
    char *path = NULL;
    if (hub_ref_local(r, &path)) fail_msg("%s", err_text());
    assert_non_null(path);
    free(path);
}

static void a_pull_in_the_middle_is_no_model(void **state)
{
    (void)state;
    struct hub_ref r, q;
    static const char sentence[] = "the pull of org/half is not finished: tessera pull org/half goes on with it";
    static const char of_q8[] = "the pull of org/half:Q8_0 is not finished: tessera pull org/half:Q8_0 goes on with it";
    char *dir = xasprintf("%s/org/half", scratch_dir());
    setenv("TESSERA_MODELS", scratch_dir(), 1);
    mkdir(dir, 0755);
    assert_true(hub_ref_parse(&r, "org/half"));
    touch(dir, "config.json");
    refused(&r, sentence); /* no weights */
    touch(dir, "model-00001-of-00002.safetensors");
    touch(dir, ".model-00002-of-00002.safetensors.part");
    refused(&r, sentence); /* as an older version left it */
    touch(dir, "model-00002-of-00002.safetensors");
    assert_int_equal(hub_kept_begin(dir, ""), OK);
    refused(&r, sentence);
    assert_int_equal(hub_kept_end(dir, ""), OK);
    found(&r); /* a part of a file that the hub has no more does not matter */

    touch(dir, "m-Q8_0-00001-of-00002.gguf");
    assert_true(hub_ref_parse(&q, "org/half:Q8_0"));
    refused(&q, of_q8);
    touch(dir, "m-Q8_0-00002-of-00002.gguf");
    found(&q);
    assert_int_equal(hub_kept_begin(dir, "m-Q8_0-00001-of-00002.gguf"), OK);
    refused(&q, of_q8);
    assert_int_equal(hub_kept_begin(dir, "m-Q8_0-00001-of-00002.gguf"), OK); /* twice is once */
    assert_int_equal(hub_kept_end(dir, "m-Q8_0-00001-of-00002.gguf"), OK);
    found(&q);
    free(dir);
    unsetenv("TESSERA_MODELS");
}

static void what_is_here_is_known_by_its_record(void **state)
{
    (void)state;
    const char *dir = scratch_dir();
    char sum[HUB_SUM], *lfs_sum = xasprintf("%064d", 1), *other_sum = xasprintf("%064d", 2), *path = xasprintf("%s/words.json", dir);
    char words[] = "words.json";
    struct hub_file f = {.path = words, .size = 1, .oid = "ab12"}, lfs = {.path = words, .size = 1};
    memcpy(lfs.sha256, lfs_sum, sizeof lfs.sha256);
    assert_int_equal(hub_kept_look(dir, &f, false, sum), HERE_NOT);
    touch(dir, "words.json");
    assert_int_equal(hub_kept_look(dir, &f, false, sum), HERE_OTHER); /* nothing says what it is */
    assert_int_equal(hub_kept_look(dir, &lfs, false, sum), HERE_TO_SUM);
    assert_string_equal(sum, lfs_sum);
    assert_int_equal(hub_kept_note(dir, &f, lfs_sum), OK);
    assert_int_equal(hub_kept_look(dir, &f, false, sum), HERE_SAME);
    assert_int_equal(hub_kept_look(dir, &lfs, false, sum), HERE_SAME); /* the same bytes, promised otherwise */
    assert_int_equal(hub_kept_look(dir, &f, true, sum), HERE_TO_SUM);
    memcpy(lfs.sha256, other_sum, sizeof lfs.sha256);
    assert_int_equal(hub_kept_look(dir, &lfs, false, sum), HERE_OTHER);
    strcpy(f.oid, "ab13");
    assert_int_equal(hub_kept_look(dir, &f, false, sum), HERE_OTHER);
    strcpy(f.oid, "ab12");
    const struct timespec old[2] = {{1, 0}, {1, 0}};
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    assert_int_equal(hub_kept_look(dir, &f, false, sum), HERE_TO_SUM); /* somebody wrote it */
    assert_string_equal(sum, lfs_sum);
    hub_kept_forget(dir, "words.json");
    assert_int_equal(hub_kept_look(dir, &f, false, sum), HERE_OTHER);
    char *record = xasprintf("%s/.tessera/words.json.kept", dir);
    scratch_write(record, "1 ab", 4); /* a torn one is none */
    assert_int_equal(hub_kept_look(dir, &f, false, sum), HERE_OTHER);
    free(record);
    free(lfs_sum);
    free(other_sum);
    free(path);
}

static void a_path_says_what_was_pulled(void **state)
{
    (void)state;
    static const struct {
        const char *path, *name, *with_quant;
    } cases[] = {
        {"/m/Qwen/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf", "Qwen/Qwen3-8B-GGUF", "Qwen/Qwen3-8B-GGUF:Q4_K_M"},
        {"/m/a/b/q8_0/m.q8_0-00001-of-00002.gguf", "a/b", "a/b:Q8_0"},
        {"/m/a/b@v2/m-IQ2_XS.gguf", "a/b", "a/b:IQ2_XS"},
        {"/m/a/b/model-large.gguf", "a/b", ""},
        {"/m/a/b/Q4_0.gguf", "a/b", ""}, /* no word before it */
        {"/m/a/b", "a/b", ""},
        {"/m/a", "", ""},
        {"/m/model.gguf", "", ""},
        {"/mm/a/b/x-Q4_0.gguf", "", ""},
        {"x-Q4_0.gguf", "", ""},
    };
    setenv("TESSERA_MODELS", "/m", 1);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char name[HUB_LABEL], with_quant[HUB_LABEL];
        hub_ref_labels(cases[i].path, name, with_quant);
        assert_string_equal(name, cases[i].name);
        assert_string_equal(with_quant, cases[i].with_quant);
    }
    unsetenv("TESSERA_MODELS");
}

static void in_store(const struct hub_store *s, size_t i, const char *name, const char *type, int64_t bytes, bool unfinished)
{
    assert_true(i < s->n);
    assert_string_equal(s->models[i].name, name);
    assert_string_equal(s->models[i].type, type);
    assert_int_equal(s->models[i].bytes, bytes);
    assert_int_equal(s->models[i].unfinished, unfinished);
}

static char *model_dir(const char *root, const char *org, const char *name)
{
    char *dir = xasprintf("%s/%s", root, org);
    mkdir(dir, 0755);
    free(dir);
    dir = xasprintf("%s/%s/%s", root, org, name);
    mkdir(dir, 0755);
    return dir;
}

/* A store of its own: three models of a folder, a checkpoint, another revision of it, half a pull, and what is no model. */
static char *made_store(void)
{
    char *root = xasprintf("%s/store", scratch_dir()), *dir, *sub;
    mkdir(root, 0755);
    setenv("TESSERA_MODELS", root, 1);
    dir = model_dir(root, "a", "many");
    touch(dir, "m-Q4_K_M.gguf");
    touch(dir, "m-F16.gguf");
    sub = xasprintf("%s/Q8_0", dir);
    mkdir(sub, 0755);
    touch(sub, "m-Q8_0-00001-of-00003.gguf");
    touch(sub, "m-Q8_0-00002-of-00003.gguf");
    touch(sub, ".m-Q8_0-00003-of-00003.gguf.part");
    free(sub);
    free(dir);
    for (int i = 0; i < 2; i++) {
        dir = model_dir(root, "b", i ? "whole@v2" : "whole");
        touch(dir, "config.json");
        touch(dir, "model.safetensors");
        free(dir);
    }
    dir = model_dir(root, "c", "half");
    assert_int_equal(hub_kept_begin(dir, ""), OK);
    free(dir);
    dir = model_dir(root, "c", "notes");
    touch(dir, "notes.txt");
    free(dir);
    return root;
}

static void the_store_says_what_is_in_it(void **state)
{
    (void)state;
    struct hub_store s;
    char *root = made_store();
    assert_int_equal(hub_store_list(&s), OK);
    assert_int_equal(s.n, 6);
    in_store(&s, 0, "a/many:F16", "F16", 1, false);
    in_store(&s, 1, "a/many:Q4_K_M", "Q4_K_M", 1, false);
    in_store(&s, 2, "a/many:Q8_0", "Q8_0", 3, true); /* its third part is not whole */
    in_store(&s, 3, "b/whole", "checkpoint", 2, false);
    assert_string_equal(s.models[3].revision, "main");
    in_store(&s, 4, "b/whole", "checkpoint", 2, false);
    assert_string_equal(s.models[4].revision, "v2");
    in_store(&s, 5, "c/half", "checkpoint", 0, true);
    hub_store_close(&s);
    setenv("TESSERA_MODELS", "/no/such/folder", 1);
    assert_int_equal(hub_store_list(&s), OK);
    assert_int_equal(s.n, 0);
    hub_store_close(&s);
    unsetenv("TESSERA_MODELS");
    free(root);
}

static enum err take_away(const char *name, struct hub_removed *gone)
{
    struct hub_ref r;
    assert_true(hub_ref_parse(&r, name));
    *gone = (struct hub_removed){0};
    return hub_store_remove(&r, gone);
}

static bool is_there(const char *root, const char *path)
{
    char *full = xasprintf("%s/%s", root, path);
    bool there = !access(full, F_OK);
    free(full);
    return there;
}

static void one_model_goes_and_its_neighbours_stay(void **state)
{
    (void)state;
    struct hub_removed gone;
    char *root = made_store();
    assert_int_equal(take_away("a/many", &gone), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "holds 3 models"));
    assert_int_equal(take_away("a/many:Q5_0", &gone), ERR_NOT_FOUND);
    assert_int_equal(take_away("a/none", &gone), ERR_NOT_FOUND);
    assert_int_equal(take_away("a/many:q8_0", &gone), OK);
    assert_int_equal(gone.files, 3);
    assert_int_equal(gone.bytes, 3);
    assert_false(is_there(root, "a/many/Q8_0"));
    assert_true(is_there(root, "a/many/m-F16.gguf") && is_there(root, "a/many/m-Q4_K_M.gguf"));
    assert_int_equal(take_away("a/many:F16", &gone), OK);
    assert_int_equal(take_away("a/many", &gone), OK); /* the last one, unsaid, and the folder with it */
    assert_false(is_there(root, "a"));
    assert_int_equal(take_away("b/whole", &gone), OK);
    assert_false(is_there(root, "b/whole"));
    assert_true(is_there(root, "b/whole@v2/config.json"));
    assert_int_equal(take_away("c/notes", &gone), ERR_NOT_FOUND); /* no model: nothing of ours */
    assert_true(is_there(root, "c/notes/notes.txt"));
    unsetenv("TESSERA_MODELS");
    free(root);
}

static void nothing_goes_while_a_pull_is_at_work(void **state)
{
    (void)state;
    struct hub_removed gone;
    char *root = made_store(), *lock = xasprintf("%s/b/whole/.lock", root);
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(take_away("b/whole", &gone), ERR_IO);
    assert_non_null(strstr(err_text(), "a pull is at work"));
    assert_true(is_there(root, "b/whole/config.json"));
    close(fd);
    assert_int_equal(take_away("b/whole", &gone), OK);
    unsetenv("TESSERA_MODELS");
    free(lock);
    free(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_one_slash_and_no_more),
        cmocka_unit_test(a_quantisation_is_a_whole_word),
        cmocka_unit_test(what_was_pulled_is_found_by_its_name),
        cmocka_unit_test(a_checkpoint_is_found_as_its_folder),
        cmocka_unit_test(a_pull_in_the_middle_is_no_model),
        cmocka_unit_test(a_path_says_what_was_pulled),
        cmocka_unit_test(what_is_here_is_known_by_its_record),
        cmocka_unit_test(the_store_says_what_is_in_it),
        cmocka_unit_test(one_model_goes_and_its_neighbours_stay),
        cmocka_unit_test(nothing_goes_while_a_pull_is_at_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
