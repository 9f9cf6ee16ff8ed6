/* test_facts.c: facts survive their line of JSON, damaged lines are refused, and samples of a model
 * tell copies apart. */
#include "cluster/facts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void write_file(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

static void this_host_has_facts_that_survive_their_line(void **state)
{
    (void)state;
    struct clu_facts a, b;
    struct buf line = {0};
    clu_facts_gather(&a, "/nowhere/model.gguf");
    assert_true(a.host[0] && a.version[0] && a.cores > 0 && a.mem_total > 0 && a.unix_us > 0);
    assert_true(a.nofile_hard > 0 && a.model_bytes == CLU_FACTS_UNKNOWN && a.model_error[0]);
    clu_facts_write(&a, &line);
    assert_true(line.len < CLU_FACTS_LINE);
    assert_null(strchr(buf_str(&line), '\n'));
    assert_int_equal(clu_facts_parse(&b, buf_str(&line)), OK);
    struct buf again = {0};
    clu_facts_write(&b, &again);
    assert_string_equal(buf_str(&line), buf_str(&again));
    buf_free(&line), buf_free(&again);
}

static void the_longest_facts_fit_one_line(void **state)
{
    (void)state;
    struct clu_facts f = {.n_nics = CLU_FACTS_NICS, .mem_limit = CLU_FACTS_UNLIMITED}, back;
    struct buf line = {0};
    memset(f.host, '\1', sizeof f.host - 1); /* six characters each in JSON */
    memset(f.model, '\1', sizeof f.model - 1);
    memset(f.model_error, '\1', sizeof f.model_error - 1);
    memset(f.version, 'v', sizeof f.version - 1);
    for (int i = 0; i < CLU_FACTS_NICS; i++) {
        memset(f.nics[i].name, 'n', sizeof f.nics[i].name - 1);
        memset(f.nics[i].address, 'a', sizeof f.nics[i].address - 1);
    }
    clu_facts_write(&f, &line);
    assert_true(line.len < CLU_FACTS_LINE);
    assert_int_equal(clu_facts_parse(&back, buf_str(&line)), OK);
    assert_true(back.n_nics < CLU_FACTS_NICS); /* the last addresses gave way */
    buf_free(&line);
}

static void damaged_lines_are_refused(void **state)
{
    (void)state;
    struct clu_facts a, b = {.cores = 77};
    struct buf line = {0};
    clu_facts_gather(&a, NULL);
    clu_facts_write(&a, &line);
    char *cut = xstrdup(buf_str(&line));
    for (size_t n = 0; n < line.len; n++) { /* at every byte */
        memcpy(cut, line.data, line.len);
        cut[n] = 0;
        assert_int_equal(clu_facts_parse(&b, cut), ERR_BAD_FILE);
    }
    assert_int_equal(b.cores, 77);
    static const char *const lies[] = {
        "", "[]", "null", "{}", "{\"host\":\"a\"}", "{\"host\":1,\"version\":\"1\"}",
        "{\"host\":\"a\",\"version\":\"1\",\"cores\":\"two\"}",
        "{\"host\":\"a\",\"version\":\"1\",\"nics\":[{\"mtu\":\"x\"}]}",
        "{\"host\":\"a\",\"version\":\"1\",\"nics\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13]}"};
    for (size_t i = 0; i < COUNT_OF(lies); i++)
        assert_int_equal(clu_facts_parse(&b, lies[i]), ERR_BAD_FILE);
    /* another version may know less or more: its version is what counts then */
    assert_int_equal(clu_facts_parse(&b, "{\"host\":\"a\",\"version\":\"9\",\"new\":{}}"), OK);
    assert_string_equal(b.version, "9");
    free(cut);
    buf_free(&line);
}

static bool same(const struct clu_facts *a, const struct clu_facts *b)
{
    return a->model_bytes == b->model_bytes && a->model_files == b->model_files &&
           a->model_head == b->model_head && a->model_places == b->model_places &&
           a->model_tail == b->model_tail;
}

static void samples_tell_copies_apart(void **state)
{
    (void)state;
    char dir[] = "/tmp/tessera-facts-XXXXXX", path[64];
    enum { BYTES = 4 << 20 };
    unsigned char *data = xmalloc(BYTES);
    struct clu_facts a = {0}, b = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    for (int i = 0; i < BYTES; i++) data[i] = (unsigned char)(i * 2654435761u >> 24);
    write_file(path, data, BYTES);
    clu_facts_model(&a, path);
    clu_facts_model(&b, path);
    assert_int_equal(a.model_bytes, BYTES);
    assert_true(same(&a, &b));
    static const int at[] = {0, BYTES - 1, (BYTES - 65536) / 17 + 5};
    for (size_t i = 0; i < COUNT_OF(at); i++) {
        data[at[i]] ^= 1;
        write_file(path, data, BYTES);
        data[at[i]] ^= 1;
        clu_facts_model(&b, path);
        assert_int_equal(a.model_head != b.model_head, i == 0);
        assert_int_equal(a.model_tail != b.model_tail, i == 1);
        assert_int_equal(a.model_places != b.model_places, i == 2);
    }
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, BYTES - 1};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        write_file(path, data, sizes[i]);
        clu_facts_model(&b, path);
        assert_int_equal(b.model_bytes, sizes[i]);
        assert_false(same(&a, &b));
    }
    unlink(path);
    rmdir(dir);
    free(data);
}

static void parts_and_directories_count_as_one_model(void **state)
{
    (void)state;
    char dir[] = "/tmp/tessera-facts-XXXXXX", one[64], two[64];
    struct clu_facts a = {0}, b = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(one, sizeof one, "%s/m-00001-of-00002.gguf", dir);
    snprintf(two, sizeof two, "%s/m-00002-of-00002.gguf", dir);
    write_file(one, "abc", 3);
    clu_facts_model(&a, one);
    assert_int_equal(a.model_bytes, CLU_FACTS_UNKNOWN);
    assert_non_null(strstr(a.model_error, "m-00002-of-00002.gguf"));
    write_file(two, "defg", 4);
    clu_facts_model(&a, one);
    assert_int_equal(a.model_bytes, 7);
    assert_int_equal(a.model_files, 2);
    assert_string_equal(a.model_error, "");
    clu_facts_model(&b, dir);
    assert_int_equal(b.model_bytes, 7);
    write_file(two, "defG", 4);
    clu_facts_model(&a, dir);
    assert_false(same(&a, &b));
    unlink(one);
    unlink(two);
    clu_facts_model(&a, dir);
    assert_non_null(strstr(a.model_error, "empty"));
    clu_facts_model(&a, "/dev/null");
    assert_int_equal(a.model_bytes, CLU_FACTS_UNKNOWN);
    rmdir(dir);
}

/* What clu_facts_cards says where nvidia-smi is this script. */
static struct clu_facts cards_of(const char *script)
{
    char dir[] = "/tmp/tessera-facts-XXXXXX", path[64], *old = xstrdup(getenv("PATH")), search[4096];
    struct clu_facts f = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/nvidia-smi", dir);
    if (script) write_file(path, script, strlen(script)), chmod(path, 0755);
    snprintf(search, sizeof search, "%s:%s", dir, old);
    setenv("PATH", search, 1);
    clu_facts_cards(&f);
    setenv("PATH", old, 1);
    free(old);
    unlink(path);
    rmdir(dir);
    return f;
}

static void cards_are_what_their_tool_lists(void **state)
{
    (void)state;
    struct clu_facts f = cards_of("#!/bin/sh\n"
                                  "case $1 in topo) printf ' \\t\\033[4mGPU0\\tGPU1\\tGPU2\\033[0m\\n GPU0\\tX\\tCNS\\tOK\\n"
                                  " GPU1\\tCNS\\tX\\tNS\\n GPU2\\tOK\\tNS\\tX\\n\\nLegend:\\n\\n  X    = Self\\n';; "
                                  "*) printf 'NVIDIA GeForce RTX 4090\\nNVIDIA GeForce RTX 3090\\nNVIDIA GeForce RTX 4090\\n';; esac\n");
    assert_int_equal(f.n_cards, 3);
    assert_string_equal(f.cards, "2 x NVIDIA GeForce RTX 4090, 1 x NVIDIA GeForce RTX 3090");
    assert_string_equal(f.cards_error, "");
    assert_int_equal(f.card_pairs, 3);
    assert_int_equal(f.card_pairs_apart, 2);
    assert_string_equal(f.card_apart, "cards 0 and 1: CNS");
    f = cards_of("#!/bin/sh\necho NVIDIA H200\n");
    assert_int_equal(f.n_cards, 1);
    assert_int_equal(f.card_pairs, 0);
}

static void a_driver_that_fails_or_hangs_is_told_of(void **state)
{
    (void)state;
    struct clu_facts f = cards_of("#!/bin/sh\necho Failed to initialize NVML: Driver/library version mismatch\nexit 18\n");
    assert_int_equal(f.n_cards, 0);
    assert_non_null(strstr(f.cards_error, "version mismatch"));
    f = cards_of("#!/bin/sh\necho NVIDIA H200; exec sleep 1000\n");
    assert_int_equal(f.n_cards, 0);
    assert_non_null(strstr(f.cards_error, "within 4 s"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(this_host_has_facts_that_survive_their_line),
        cmocka_unit_test(the_longest_facts_fit_one_line),
        cmocka_unit_test(damaged_lines_are_refused),
        cmocka_unit_test(samples_tell_copies_apart),
        cmocka_unit_test(cards_are_what_their_tool_lists),
        cmocka_unit_test(a_driver_that_fails_or_hangs_is_told_of),
        cmocka_unit_test(parts_and_directories_count_as_one_model),
    };
    return cmocka_run_group_tests_name("facts", tests, NULL, NULL);
}
