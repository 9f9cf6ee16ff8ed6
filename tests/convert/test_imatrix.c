/* test_imatrix.c: importance matrices: both formats say the same, lies are refused, and what the engine measures is the sum of squares. */
#include "engine/convert/imatrix.h"
#include "engine/convert/measure.h"

#include "base/base.h"
#include "base/buf.h"
#include "tests/support/gguf_write.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct eng_imatrix *make(void)
{
    struct eng_imatrix *m = eng_imatrix_open();
    m->chunks = 4;
    m->chunk_size = 128;
    m->dataset = xstrdup("text.txt");
    struct eng_imatrix_entry *e = eng_imatrix_entry(m, "blk.0.attn_q.weight", 32, 1);
    for (int i = 0; i < 32; i++) e->sums[i] = (float)(i * i) + 0.5f;
    e->counts[0] = 512;
    e = eng_imatrix_entry(m, "blk.0.ffn_down_exps.weight", 16, 3);
    for (int i = 0; i < 48; i++) e->sums[i] = i < 32 ? (float)i * 0.25f : 0;
    e->counts[0] = 100;
    e->counts[1] = 28;
    return m;
}

static void both_formats_say_the_same(void **state)
{
    static const char *const names[] = {"m.gguf", "m.dat"};
    (void)state;
    struct eng_imatrix *want = make();
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct eng_imatrix *got = NULL;
        const char *path = scratch_path(names[i]);
        assert_int_equal(eng_imatrix_write(want, path), OK);
        if (eng_imatrix_read(&got, path)) fail_msg("%s", err_text());
        assert_int_equal(got->n, 2);
        assert_int_equal(got->chunks, 4);
        float a[48], b[48];
        const struct eng_imatrix_entry *e = eng_imatrix_find(got, "blk.0.attn_q.weight");
        assert_true(eng_imatrix_means(&want->at[0], 0, a) && eng_imatrix_means(e, 0, b));
        for (int k = 0; k < 32; k++) assert_true(fabsf(a[k] - b[k]) <= 1e-6f * a[k]);
        e = eng_imatrix_find(got, "blk.0.ffn_down_exps.weight");
        assert_int_equal(e->cols * e->n_mat, 48);
        if (i == 0) { /* .dat has one row of them all, and no way to say that an expert was not seen */
            assert_int_equal(e->n_mat, 3);
            assert_false(eng_imatrix_means(e, 2, b));
        }
        assert_true(eng_imatrix_means(&want->at[1], 1, a) && eng_imatrix_means(e, i == 0, b));
        for (int k = 0; k < 16; k++) assert_true(fabsf(a[k] - b[k + (i ? 16 : 0)]) <= 1e-6f * a[k]);
        eng_imatrix_close(got);
    }
    eng_imatrix_close(want);
}

static void truncation_is_an_error_everywhere(void **state)
{
    (void)state;
    struct eng_imatrix *m = make(), *got = NULL;
    struct buf b = {0};
    const char *path = scratch_path("cut.dat");
    assert_int_equal(eng_imatrix_write(m, path), OK);
    assert_true(scratch_read(path, &b));
    size_t tail = 4 + 4 + strlen("text.txt"); /* chunks and the text's name may be missing: older files have neither */
    for (size_t n = 0; n < b.len - tail; n++) {
        assert_int_not_equal(eng_imatrix_read(&got, scratch_bytes(b.data, n)), OK);
        assert_true(*err_text());
    }
    assert_int_equal(eng_imatrix_read(&got, scratch_bytes(b.data, b.len - tail)), OK);
    eng_imatrix_close(got);
    buf_free(&b);
    eng_imatrix_close(m);
}

static void lies_are_refused(void **state)
{
    (void)state;
    struct eng_imatrix *got = NULL;
    static const int32_t lies[][6] = {{-1}, {0}, {1 << 30}, {1, -5}, {1, 300}, {1, 1, 'a', -1, 1}};
    for (size_t i = 0; i < COUNT_OF(lies); i++) assert_int_equal(eng_imatrix_read(&got, scratch_bytes(lies[i], sizeof lies[i])), ERR_BAD_FILE);
    struct eng_imatrix *m = make();
    m->at[0].sums[3] = NAN;
    assert_int_equal(eng_imatrix_write(m, scratch_path("nan.dat")), OK);
    assert_int_equal(eng_imatrix_read(&got, scratch_path("nan.dat")), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "blk.0.attn_q.weight, column 3"));
    m->at[0].sums[3] = -1;
    assert_int_equal(eng_imatrix_write(m, scratch_path("below.gguf")), OK);
    assert_int_equal(eng_imatrix_read(&got, scratch_path("below.gguf")), ERR_BAD_FILE);
    eng_imatrix_close(m);
    struct gguf_write *w = gguf_write_open();
    float v[64] = {0};
    gguf_write_tensor(w, "a.in_sum2", DTYPE_F32, 2, (const int64_t[]){32, 2}, v);
    gguf_write_tensor(w, "a.counts", DTYPE_F32, 2, (const int64_t[]){1, 3}, v);
    assert_int_equal(gguf_write_save(w, scratch_path("counts.gguf")), OK);
    gguf_write_close(w);
    assert_int_equal(eng_imatrix_read(&got, scratch_path("counts.gguf")), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "a.in_sum2"));
    w = gguf_write_open();
    gguf_write_tensor(w, "b", DTYPE_F32, 1, (const int64_t[]){32}, v);
    assert_int_equal(gguf_write_save(w, scratch_path("model.gguf")), OK);
    gguf_write_close(w);
    assert_int_equal(eng_imatrix_read(&got, scratch_path("model.gguf")), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "no importance matrix"));
    assert_int_equal(eng_imatrix_read(&got, scratch_path("nowhere.gguf")), ERR_IO);
}

/* Of the first layer's q the inputs are known: normed embeddings, rows of the table scaled to a mean square of one times the norm's weights. */
static void the_engine_sums_squares_of_inputs(void **state)
{
    (void)state;
    enum { N = 70, CHUNK = 32, VOCAB = 300 };
    struct random_model model = {.arch = "qwen3", .n_layer = 2, .d_model = 64, .n_head = 4, .n_kv_head = 2, .head_dim = 32, .d_ffn = 96, .vocab = VOCAB,
                                 .type = DTYPE_F32, .embd_type = DTYPE_F32, .seed = 31};
    const char *path = scratch_path("measured.gguf");
    if (random_model_write(&model, path)) fail_msg("%s", err_text());
    int32_t ids[N];
    for (int i = 0; i < N; i++) ids[i] = i * 7 % VOCAB;
    struct eng_measure_conf c = {.path = path, .ids = ids, .n_ids = N, .chunk = CHUNK, .n_threads = 2};
    struct eng_imatrix *m = NULL;
    if (eng_measure(&c, &m)) fail_msg("%s", err_text());
    assert_int_equal(m->chunks, N / CHUNK);
    assert_int_equal(m->n, 2 * 7);
    struct eng_model_file *f = NULL;
    assert_int_equal(eng_model_file_open(&f, path), OK);
    const struct model_tensor *embd = eng_model_file_tensor_find(f, "token_embd.weight"), *norm = eng_model_file_tensor_find(f, "blk.0.attn_norm.weight");
    float x[64], w[64], means[64];
    double want[64] = {0};
    assert_int_equal(eng_model_file_read(f, norm, 0, sizeof w, w), OK);
    for (int i = 0; i < N / CHUNK * CHUNK; i++) {
        double squares = 0;
        assert_int_equal(eng_model_file_read(f, embd, ids[i] * (int64_t)sizeof x, sizeof x, x), OK);
        for (int k = 0; k < 64; k++) squares += (double)x[k] * (double)x[k];
        for (int k = 0; k < 64; k++) want[k] += pow((double)x[k] / sqrt(squares / 64 + 1e-6) * (double)w[k], 2);
    }
    const struct eng_imatrix_entry *q = eng_imatrix_find(m, "blk.0.attn_q.weight"), *v = eng_imatrix_find(m, "blk.0.attn_v.weight");
    assert_true(q && v && eng_imatrix_means(q, 0, means));
    assert_memory_equal(q->sums, v->sums, sizeof means);
    assert_true(q->counts[0] == (float)(N / CHUNK * CHUNK));
    for (int k = 0; k < 64; k++) assert_true(fabs((double)means[k] * q->counts[0] / want[k] - 1) < 1e-3);
    eng_model_file_close(f);
    eng_imatrix_close(m);
}

/* Each token comes to so many experts, and every matrix of a layer's experts counts the same tokens. */
static void experts_count_the_tokens_that_come_to_them(void **state)
{
    (void)state;
    enum { N = 96 };
    struct random_model model = {.arch = "qwen2moe", .n_layer = 1, .d_model = 64, .n_head = 4, .n_kv_head = 2, .head_dim = 32, .d_ffn = 96,
                                 .n_expert = 6, .n_used = 2,
                                 .d_expert = 64, .d_shared = 96, .vocab = 300, .type = DTYPE_F32, .embd_type = DTYPE_F32, .seed = 33};
    const char *path = scratch_path("moe.gguf");
    if (random_model_write(&model, path)) fail_msg("%s", err_text());
    int32_t ids[N];
    for (int i = 0; i < N; i++) ids[i] = i * 11 % 300;
    struct eng_measure_conf c = {.path = path, .ids = ids, .n_ids = N, .chunk = 48, .n_threads = 2};
    struct eng_imatrix *m = NULL;
    if (eng_measure(&c, &m)) fail_msg("%s", err_text());
    static const char *const names[] = {"blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight", "blk.0.ffn_down_exps.weight"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const struct eng_imatrix_entry *e = eng_imatrix_find(m, names[i]);
        float sum = 0;
        assert_non_null(e);
        assert_int_equal(e->n_mat, 6);
        for (int k = 0; k < 6; k++) sum += e->counts[k];
        assert_true(sum == 2 * N);
    }
    const struct eng_imatrix_entry *shared = eng_imatrix_find(m, "blk.0.ffn_down_shexp.weight");
    assert_true(shared && shared->counts[0] == (float)N && shared->cols == 96);
    eng_imatrix_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_formats_say_the_same),
        cmocka_unit_test(truncation_is_an_error_everywhere),
        cmocka_unit_test(lies_are_refused),
        cmocka_unit_test(the_engine_sums_squares_of_inputs),
        cmocka_unit_test(experts_count_the_tokens_that_come_to_them),
    };
    return cmocka_run_group_tests_name("imatrix", tests, NULL, NULL);
}
