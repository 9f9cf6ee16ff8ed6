/* test_random_model.c: random models have the keys, names and shapes of their family, and the same
 * spec the same bytes. */
#include "tests/support/quantize.h"
#include "tests/support/random_model.h"

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

static const struct random_model small = {
    .arch = "llama",
    .n_layer = 2,
    .d_model = 256,
    .n_head = 8,
    .n_kv_head = 4,
    .head_dim = 32,
    .d_ffn = 512,
    .vocab = 320,
    .type = DTYPE_Q8_0,
    .embd_type = DTYPE_F16,
    .seed = 3,
};

static struct eng_model_file *make(const struct random_model *m, const char *name)
{
    struct eng_model_file *f = NULL;
    if (random_model_write(m, scratch_path(name)) || eng_model_file_open(&f, scratch_path(name)))
        fail_msg("%s", err_text());
    return f;
}

static void expect_shape(const struct eng_model_file *f, const char *name, enum dtype type,
                         int64_t k, int64_t n)
{
    const struct model_tensor *t = eng_model_file_tensor_find(f, name);
    if (!t) fail_msg("no tensor %s", name);
    if (t->type != type || t->dims[0] != k || t->dims[1] != n)
        fail_msg("%s is %s [%lld, %lld]", name, dtype_name(t->type), (long long)t->dims[0],
                 (long long)t->dims[1]);
}

static void a_family_has_its_tensors(void **state)
{
    (void)state;
    struct random_model m = small;
    struct eng_model_file *f = make(&m, "llama");
    expect_shape(f, "token_embd.weight", DTYPE_F16, 256, 320);
    expect_shape(f, "output.weight", DTYPE_F16, 256, 320);
    expect_shape(f, "output_norm.weight", DTYPE_F32, 256, 1);
    expect_shape(f, "blk.1.attn_q.weight", DTYPE_Q8_0, 256, 256);
    expect_shape(f, "blk.1.attn_k.weight", DTYPE_Q8_0, 256, 128);
    expect_shape(f, "blk.0.ffn_down.weight", DTYPE_Q8_0, 512, 256);
    assert_int_equal(eng_model_file_n_tensors(f), 3 + 2 * 9);
    eng_model_file_close(f);

    m.arch = "qwen2";
    m.tied = true;
    f = make(&m, "qwen2");
    assert_null(eng_model_file_tensor_find(f, "output.weight"));
    expect_shape(f, "blk.1.attn_v.bias", DTYPE_F32, 128, 1);
    assert_int_equal(eng_model_file_n_tensors(f), 2 + 2 * 12);
    eng_model_file_close(f);

    m.arch = "qwen3";
    m.head_dim = 64;
    f = make(&m, "qwen3");
    expect_shape(f, "blk.0.attn_q_norm.weight", DTYPE_F32, 64, 1);
    expect_shape(f, "blk.0.attn_output.weight", DTYPE_Q8_0, 512, 256);
    eng_model_file_close(f);
}

static void metadata_says_what_the_spec_says(void **state)
{
    (void)state;
    struct random_model m = small;
    m.rope = RANDOM_ROPE_YARN;
    m.rope_theta = 1e6;
    m.rope_factor = 4;
    struct eng_model_file *f = make(&m, "yarn");
    int64_t v;
    double d;
    char *s;
    static const struct { const char *key; int64_t v;
    } ints[] = {
        {"llama.block_count", 2},
        {"llama.embedding_length", 256},
        {"llama.attention.head_count", 8},
        {"llama.attention.head_count_kv", 4},
        {"llama.attention.key_length", 32},
        {"llama.feed_forward_length", 512},
        {"llama.vocab_size", 320},
        {"llama.context_length", 2048},
        {"llama.rope.scaling.original_context_length", 512},
    };
    for (size_t i = 0; i < COUNT_OF(ints); i++) {
        assert_int_equal(eng_model_file_int(f, ints[i].key, -1, 0, INT64_MAX, &v), OK);
        assert_int_equal(v, ints[i].v);
    }
    assert_int_equal(eng_model_file_float(f, "llama.rope.freq_base", 0, &d), OK);
    assert_true(d == 1e6);
    assert_int_equal(eng_model_file_string(f, "llama.rope.scaling.type", &s), OK);
    assert_string_equal(s, "yarn");
    free(s);
    eng_model_file_close(f);
}

static void llama3_rope_factors_go_from_one_to_the_factor(void **state)
{
    (void)state;
    struct random_model m = small;
    float x[16];
    m.rope = RANDOM_ROPE_LLAMA3;
    m.rope_theta = 500000;
    struct eng_model_file *f = make(&m, "llama3");
    expect_shape(f, "rope_freqs.weight", DTYPE_F32, 16, 1);
    assert_int_equal(
        eng_model_file_read(f, eng_model_file_tensor_find(f, "rope_freqs.weight"), 0, sizeof x, x),
        OK);
    assert_true(x[0] == 1 && x[15] == 8);
    for (int i = 1; i < 16; i++) assert_true(x[i] >= x[i - 1]);
    eng_model_file_close(f);
}

static void vocabularies_are_consistent(void **state)
{
    (void)state;
    struct random_model m = small;
    m.vocab = 259 + 26 * 26 + 40;
    struct eng_model_file *f = make(&m, "bpe");
    const struct model_kv *tokens = eng_model_file_find(f, "tokenizer.ggml.tokens");
    const struct model_kv *merges = eng_model_file_find(f, "tokenizer.ggml.merges");
    assert_int_equal(tokens->a.n, m.vocab);
    assert_int_equal(merges->a.n, m.vocab - 259);
    for (uint64_t i = 0; i < merges->a.n; i++) { /* "left right" makes the token */
        struct model_str g = eng_model_file_array_str(merges, i),
                         t = eng_model_file_array_str(tokens, 259 + i);
        assert_true(g.n == t.n + 1 && g.p[g.n - 2] == ' ');
        assert_true(!memcmp(g.p, t.p, t.n - 1) && g.p[g.n - 1] == t.p[t.n - 1]);
    }
    assert_memory_equal(eng_model_file_array_str(tokens, 'A').p, "A", 1);
    eng_model_file_close(f);

    m.vocab_kind = RANDOM_VOCAB_SPM;
    f = make(&m, "spm");
    tokens = eng_model_file_find(f, "tokenizer.ggml.tokens");
    assert_int_equal(eng_model_file_find(f, "tokenizer.ggml.scores")->a.n, m.vocab);
    assert_memory_equal(eng_model_file_array_str(tokens, 3 + 0x41).p, "<0x41>", 6);
    assert_memory_equal(eng_model_file_array_str(tokens, 259).p, "\xe2\x96\x81", 3);
    assert_memory_equal(eng_model_file_array_str(tokens, 260).p, "a", 1);
    assert_int_equal(
        eng_model_file_array_int(eng_model_file_find(f, "tokenizer.ggml.token_type"), 3), 6);
    eng_model_file_close(f);
}

static void every_type_holds_the_same_weights(void **state)
{
    (void)state;
    float *want = xmalloc(512 * 256 * sizeof *want), *got = xmalloc(512 * 256 * sizeof *got);
    uint8_t *raw = xmalloc(512 * 256 * 4);
    for (int type = 0; type < DTYPE_COUNT; type++) {
        if (!quantize_is_near((enum dtype)type)) continue;
        struct random_model m = small;
        m.type = m.embd_type = (enum dtype)type;
        struct eng_model_file *f = make(&m, "typed");
        const struct model_tensor *t = eng_model_file_tensor_find(f, "blk.1.ffn_down.weight");
        float *x = type == DTYPE_F32 ? want : got;
        assert_int_equal(eng_model_file_read(f, t, 0, t->bytes, raw), OK);
        eng_dequant_row(t->type, raw, x, 512 * 256);
        double err = 0, norm = 0;
        for (int i = 0; i < 512 * 256; i++) {
            err += pow((double)x[i] - (double)want[i], 2);
            norm += pow((double)want[i], 2);
        }
        print_message("%-4s relative error %.5f\n", dtype_name((enum dtype)type), sqrt(err / norm));
        assert_true(sqrt(err / norm) < 0.11);
        assert_true(fabs(norm / 256 - 1) < 0.05); /* deviation 1/sqrt(K) */
        eng_model_file_close(f);
    }
    free(want);
    free(got);
    free(raw);
}

static void the_same_spec_gives_the_same_bytes(void **state)
{
    (void)state;
    struct random_model m = small;
    struct buf a = {0}, b = {0};
    eng_model_file_close(make(&m, "same"));
    assert_true(scratch_read(scratch_path("same"), &a));
    eng_model_file_close(make(&m, "same"));
    assert_true(scratch_read(scratch_path("same"), &b));
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    m.seed++;
    eng_model_file_close(make(&m, "same"));
    assert_true(scratch_read(scratch_path("same"), &b));
    assert_int_equal(a.len, b.len);
    assert_int_not_equal(memcmp(a.data, b.data, a.len), 0);
    buf_free(&a);
    buf_free(&b);
}

static void shapes_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    const char *path = scratch_path("never");
    struct random_model m = small;
    m.type = DTYPE_Q4_K;
    m.d_ffn = 384;
    assert_int_equal(random_model_write(&m, path), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "384"));
    m = small;
    m.n_kv_head = 3;
    assert_int_equal(random_model_write(&m, path), ERR_BAD_CONFIG);
    m = small;
    m.vocab = 100;
    assert_int_equal(random_model_write(&m, path), ERR_BAD_CONFIG);
    m = small;
    m.arch = "gpt9";
    assert_int_equal(random_model_write(&m, path), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "gpt9"));
    m = small;
    assert_int_equal(random_model_write(&m, "/nowhere/at/all"), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_family_has_its_tensors),
        cmocka_unit_test(metadata_says_what_the_spec_says),
        cmocka_unit_test(llama3_rope_factors_go_from_one_to_the_factor),
        cmocka_unit_test(vocabularies_are_consistent),
        cmocka_unit_test(every_type_holds_the_same_weights),
        cmocka_unit_test(the_same_spec_gives_the_same_bytes),
        cmocka_unit_test(shapes_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests_name("random_model", tests, NULL, NULL);
}
