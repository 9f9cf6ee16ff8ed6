/* test_real_files.c: files made by others open, and their tensors hold numbers. Needs the shared
 * data. */
#include "engine/file/dequant.h"
#include "engine/file/model_file.h"

#include "tests/support/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct real {
    const char *path, *arch; /* arch NULL: not a model */
    int64_t n_tensors, n_tokens;
} files[] = {
    {"weights/llama-2-tiny-random.gguf", "llama", 12, 32000},
    {"weights/stories260K/derived/stories260K-f32.gguf", "llama", 47, 512},
    {"weights/stories260K/derived/stories260K-f16.gguf", "llama", 48, 512},
    {"tokenizers/ggml-vocab/ggml-vocab-llama-spm.gguf", "llama", 0, 32000},
    {"tokenizers/ggml-vocab/ggml-vocab-gpt-2.gguf", "gpt2", 0, 50257},
    {"tokenizers/ggml-vocab/ggml-vocab-starcoder.gguf", "starcoder2", 0, 49152},
    {"tokenizers/ggml-vocab/ggml-vocab-deepseek-llm.gguf", "llama", 0, 102400},
    {"fuzz/gguf_open/valid-small.gguf", NULL, 0, 0},
    {"fuzz/gguf_open/v3-empty.bin", NULL, 0, 0},
};

static struct eng_model_file *open_shared(const char *rel)
{
    struct eng_model_file *f;
    const char *path = scratch_shared(rel);
    if (!path) {
        scratch_skip(rel);
        skip();
    }
    if (eng_model_file_open(&f, path)) fail_msg("%s", err_text());
    return f;
}

static void files_of_others_open(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        char *arch;
        struct eng_model_file *f = open_shared(files[i].path);
        assert_int_equal(eng_model_file_n_tensors(f), files[i].n_tensors);
        assert_int_equal(eng_model_file_string(f, "general.architecture", &arch), OK);
        const struct model_kv *tokens = eng_model_file_find(f, "tokenizer.ggml.tokens");
        if (files[i].arch) {
            assert_string_equal(arch, files[i].arch);
            assert_int_equal(tokens->a.n, files[i].n_tokens);
        }
        free(arch);
        eng_model_file_close(f);
    }
}

static void every_value_of_their_tensors_is_finite(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        struct eng_model_file *f = open_shared(files[i].path);
        for (int64_t k = 0; k < eng_model_file_n_tensors(f); k++) {
            const struct model_tensor *t = eng_model_file_tensor(f, k);
            int64_t n = t->dims[0] * t->dims[1];
            void *raw = xmalloc((size_t)t->bytes);
            float *x = xmalloc((size_t)n * sizeof *x);
            assert_int_equal(eng_model_file_read(f, t, 0, t->bytes, raw), OK);
            eng_dequant_row(t->type, raw, x, n);
            for (int64_t j = 0; j < n; j++) assert_true(isfinite(x[j]) && fabsf(x[j]) < 1000);
            free(raw);
            free(x);
        }
        eng_model_file_close(f);
    }
}

static void broken_files_of_others_are_refused(void **state)
{
    (void)state;
    static const char *const broken[] = {"fuzz/gguf_open/magic-only.bin",
                                         "fuzz/gguf_open/trunc-magic.bin",
                                         "weights/tokenizer32k.bin"};
    for (size_t i = 0; i < COUNT_OF(broken); i++) {
        struct eng_model_file *f = NULL;
        const char *path = scratch_shared(broken[i]);
        if (!path) {
            scratch_skip(broken[i]);
            skip();
        }
        assert_int_not_equal(eng_model_file_open(&f, path), OK);
        assert_non_null(strstr(err_text(), path));
    }
}

int main(void)
{
    if (!scratch_shared(files[0].path)) return scratch_skip(files[0].path);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_of_others_open),
        cmocka_unit_test(every_value_of_their_tensors_is_finite),
        cmocka_unit_test(broken_files_of_others_are_refused),
    };
    return cmocka_run_group_tests_name("real_files", tests, NULL, NULL);
}
