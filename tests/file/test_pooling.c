/* pooling: what a model's files say about it, in both formats. */
#include "engine/file/pooling.h"
#include "tests/support/gguf_write.h"
#include "tests/support/hf_write.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>

static enum step_pool of(const char *path)
{
    struct eng_model_file *f;
    if (eng_model_file_open(&f, path)) fail_msg("%s", err_text());
    enum step_pool pool = eng_pooling_of(f, "qwen3");
    eng_model_file_close(f);
    return pool;
}

static void a_gguf_says_a_number(void **state)
{
    (void)state;
    static const struct { int type; enum step_pool pool; } rows[] = {
        {-1, POOL_LAST}, {0, POOL_LAST}, {1, POOL_MEAN}, {2, POOL_NONE}, {3, POOL_LAST}, {4, POOL_NONE},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct gguf_write *w = gguf_write_open();
        const char *path = scratch_path("pooling.gguf");
        gguf_write_str(w, "general.architecture", "qwen3");
        if (rows[i].type >= 0) gguf_write_u32(w, "qwen3.pooling_type", (uint32_t)rows[i].type);
        if (gguf_write_save(w, path)) fail_msg("%s", err_text());
        gguf_write_close(w);
        assert_int_equal(of(path), rows[i].pool);
    }
}

static void a_checkpoint_has_a_file_for_it(void **state)
{
    (void)state;
    static const struct { const char *json; enum step_pool pool; } rows[] = {
        {NULL, POOL_LAST},
        {"{\"word_embedding_dimension\": 64, \"pooling_mode_cls_token\": false, \"pooling_mode_mean_tokens\": true}", POOL_MEAN},
        {"{\"pooling_mode_mean_tokens\": false, \"pooling_mode_lasttoken\": true}", POOL_LAST},
        {"{\"pooling_mode_cls_token\": true}", POOL_NONE},
        {"no JSON", POOL_NONE},
    };
    struct random_model m = {.arch = "qwen3", .n_layer = 1, .d_model = 64, .n_head = 2, .n_kv_head = 2, .d_ffn = 64, .vocab = 259,
                             .type = DTYPE_F32, .embd_type = DTYPE_F32, .seed = 1};
    const char *gguf = scratch_path("pooling-model.gguf");
    if (random_model_write(&m, gguf)) fail_msg("%s", err_text());
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const char *dir = hf_write_dir(NULL);
        hf_write_weights(dir, gguf);
        hf_write_config(dir, gguf);
        if (rows[i].json) {
            char *path = xasprintf("%s/1_Pooling", dir), *file = xasprintf("%s/config.json", path);
            assert_int_equal(mkdir(path, 0700), 0);
            FILE *f = fopen(file, "w");
            assert_non_null(f);
            fputs(rows[i].json, f);
            fclose(f);
            free(path);
            free(file);
        }
        assert_int_equal(of(dir), rows[i].pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gguf_says_a_number),
        cmocka_unit_test(a_checkpoint_has_a_file_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
