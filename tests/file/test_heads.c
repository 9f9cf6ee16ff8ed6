/* Matrices of heads over a latent that a file has in one: taken apart they hold the file's values, however they are read and whatever they are made of. */
#include "engine/file/dequant.h"
#include "engine/file/model_file.h"
#include "engine/model/spec.h"
#include "tests/support/hf_write.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { HEADS = 3, KEYS = 32, RANK = 64, ROPE = 8 };

static struct random_model model_of(enum dtype type, bool whole)
{
    return (struct random_model){.arch = "deepseek2", .n_layer = 1, .d_model = 64, .n_head = HEADS, .n_kv_head = 1, .head_dim = KEYS, .latent = RANK,
                                 .rope_part = ROPE, .latent_whole = whole, .d_ffn = 64, .vocab = 300, .type = type, .embd_type = DTYPE_F16, .seed = 9};
}

static const struct model_tensor *find(const struct eng_model_file *f, const char *name)
{
    const struct model_tensor *t = eng_model_file_tensor_find(f, name);
    if (!t) fail_msg("%s is not there", name);
    return t;
}

/* All values of a tensor, read in pieces of so many bytes. */
static float *values_of(const struct eng_model_file *f, const struct model_tensor *t, int64_t piece)
{
    int64_t rows = t->dims[1] * t->dims[2], row = dtype_bytes(t->type, t->dims[0]);
    uint8_t *raw = xmalloc((size_t)t->bytes);
    float *x = xmalloc((size_t)(rows * t->dims[0]) * sizeof *x);
    for (int64_t at = 0; at < t->bytes; at += piece)
        if (eng_model_file_read(f, t, at, MIN(piece, t->bytes - at), raw + at)) fail_msg("%s", err_text());
    for (int64_t r = 0; r < rows; r++) eng_dequant_row(t->type, raw + r * row, x + r * t->dims[0], t->dims[0]);
    free(raw);
    return x;
}

/* The whole's row r of head h is column r of the keys' matrix, or, behind the keys, a row of the values'. */
static void check_parts(const struct eng_model_file *f, const struct model_tensor *whole, const char *layer, int32_t heads, int32_t keys, int32_t values,
                        int64_t piece)
{
    char name[64];
    snprintf(name, sizeof name, "%s.attn_k_b.weight", layer);
    const struct model_tensor *k = find(f, name);
    snprintf(name, sizeof name, "%s.attn_v_b.weight", layer);
    const struct model_tensor *v = find(f, name);
    int64_t rank = whole->dims[0];
    assert_true(k->dims[0] == keys && k->dims[1] == rank && k->dims[2] == heads && k->n_dims == 3);
    assert_true(v->dims[0] == rank && v->dims[1] == values && v->dims[2] == heads && v->type == whole->type);
    float *x = values_of(f, whole, whole->bytes), *kx = values_of(f, k, piece), *vx = values_of(f, v, piece);
    for (int64_t h = 0; h < heads; h++)
        for (int64_t r = 0; r < keys + values; r++)
            for (int64_t c = 0; c < rank; c++) {
                float is = r < keys ? kx[(h * rank + c) * keys + r] : vx[(h * values + r - keys) * rank + c];
                assert_memory_equal(&is, &x[(h * (keys + values) + r) * rank + c], sizeof is);
            }
    free(x), free(kx), free(vx);
}

static void heads_of_an_older_file_are_taken_apart(void **state)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        struct eng_model_file *f;
        struct random_model m = model_of(types[i], true);
        const char *path = scratch_path("older.gguf");
        if (random_model_write(&m, path) || eng_model_file_open(&f, path)) fail_msg("%s", err_text());
        const struct model_tensor *whole = find(f, "blk.0.attn_kv_b.weight"), *k = find(f, "blk.0.attn_k_b.weight");
        assert_int_equal(k->type, dtype_block(types[i]) > 1 ? DTYPE_F32 : types[i]);
        assert_true(k->part_of && !whole->part_of);
        static const int64_t pieces[] = {1 << 20, 4096, 96};
        for (size_t p = 0; p < COUNT_OF(pieces); p++) check_parts(f, whole, "blk.0", HEADS, KEYS, KEYS, pieces[p]);
        eng_model_file_close(f);
    }
}

/* What stands twice in the list is counted once. */
static void parts_weigh_nothing_beside_the_whole(void **state)
{
    (void)state;
    int64_t params[2];
    for (int i = 0; i < 2; i++) {
        struct eng_model_file *f = NULL;
        struct eng_spec s;
        struct model_info info;
        struct random_model m = model_of(DTYPE_F16, i);
        const char *path = scratch_path("counted.gguf");
        if (random_model_write(&m, path) || eng_model_file_open(&f, path) || eng_spec_read(&s, f)) fail_msg("%s", err_text());
        eng_spec_info(&s, f, &info);
        params[i] = info.n_params;
        assert_true(info.weight_bytes < eng_model_file_bytes(f));
        assert_true(s.mla.kv_rank == RANK && s.mla.key == KEYS + ROPE && s.head_dim == KEYS && s.n_kv_heads == 1);
        eng_model_file_close(f);
    }
    assert_int_equal(params[0], params[1]);
}

/* A header that does not fit the matrix opens, and is refused by name when the model is to run. */
static void a_matrix_that_does_not_fit_is_left_alone(void **state)
{
    (void)state;
    static const char key[] = "deepseek2.attention.value_length";
    struct buf file = {0};
    struct eng_model_file *f;
    struct random_model m = model_of(DTYPE_F16, true);
    const char *path = scratch_path("unfit.gguf");
    if (random_model_write(&m, path)) fail_msg("%s", err_text());
    assert_true(scratch_read(path, &file));
    uint8_t *at = memmem(file.data, file.len, key, strlen(key));
    assert_non_null(at);
    at[strlen(key) + 4] = 40; /* behind the value's type */
    scratch_write(path, file.data, file.len);
    buf_free(&file);
    if (eng_model_file_open(&f, path)) fail_msg("%s", err_text());
    assert_null(eng_model_file_tensor_find(f, "blk.0.attn_k_b.weight"));
    eng_model_file_close(f);
}

/* ---- a checkpoint ---- */

enum { HF_HEADS = 3, HF_KEYS = 20, HF_VALUES = 16, HF_ROWS = HF_HEADS * (HF_KEYS + HF_VALUES), HF_RANK = 40 };

static void put(struct buf *head, struct buf *data, const char *name, const char *dtype, int rows, int cols, const void *from, size_t n)
{
    buf_printf(head, "%s\"model.layers.%s\":{\"dtype\":\"%s\",\"shape\":[%d,%d],\"data_offsets\":[%zu,%zu]}", head->len ? "," : "{", name, dtype, rows, cols,
               data->len, data->len + n);
    buf_put(data, from, n);
}

/* FP8 in blocks, whose rows are made 32 at a time, where heads begin at no multiple of that; a second tensor of the same codes says what they are.
 * The layer behind the last is left out. */
static void heads_of_fp8_are_taken_apart(void **state)
{
    (void)state;
    static const char config[] =
        "{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"hidden_size\":40,\"num_attention_heads\":3,\"num_hidden_layers\":1,\"intermediate_size\":8,"
        "\"torch_dtype\":\"bfloat16\",\"max_position_embeddings\":64,\"vocab_size\":3,\"kv_lora_rank\":40,\"q_lora_rank\":40,"
        "\"qk_nope_head_dim\":20,\"qk_rope_head_dim\":16,"
        "\"v_head_dim\":16,\"n_routed_experts\":null,\"num_nextn_predict_layers\":1,\"quantization_config\":{\"quant_method\":\"fp8\","
        "\"activation_scheme\":\"dynamic\",\"weight_block_size\":[32,16]}}";
    uint8_t codes[HF_ROWS * HF_RANK];
    float scales[4 * 3];
    struct buf head = {0}, data = {0}, all = {0};
    for (size_t i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)((i * 37 + i / 91) % 120 + (i % 3 == 0 ? 128 : 0));
    for (size_t i = 0; i < COUNT_OF(scales); i++) scales[i] = 0.01f * (float)(i + 1);
    static const char *const twins[] = {"0.self_attn.kv_b_proj", "0.self_attn.q_b_proj", "1.self_attn.kv_b_proj"};
    for (size_t i = 0; i < COUNT_OF(twins); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.weight", twins[i]);
        put(&head, &data, name, "F8_E4M3", HF_ROWS, HF_RANK, codes, sizeof codes);
        snprintf(name, sizeof name, "%s.weight_scale_inv", twins[i]);
        put(&head, &data, name, "F32", 4, 3, scales, sizeof scales);
    }
    buf_putc(&head, '}');
    const char *files[] = {"config.json", config, NULL}, *dir = hf_write_dir(files);
    char *path = xasprintf("%s/model.safetensors", dir);
    buf_u64(&all, head.len);
    buf_put(&all, head.data, head.len);
    buf_put(&all, data.data, data.len);
    scratch_write(path, all.data, all.len);
    struct eng_model_file *f;
    if (eng_model_file_open(&f, dir)) fail_msg("%s", err_text());
    assert_int_equal(eng_model_file_n_tensors(f), 3); /* attn_k_b, attn_v_b, attn_q_b */
    assert_null(eng_model_file_tensor_find(f, "blk.0.attn_kv_b.weight"));
    const struct model_tensor *twin = find(f, "blk.0.attn_q_b.weight");
    assert_int_equal(twin->type, DTYPE_BF16);
    static const int64_t pieces[] = {1 << 20, 640, 40};
    for (size_t p = 0; p < COUNT_OF(pieces); p++) check_parts(f, twin, "blk.0", HF_HEADS, HF_KEYS, HF_VALUES, pieces[p]);
    eng_model_file_close(f);
    buf_free(&head);
    buf_free(&data);
    buf_free(&all);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_of_an_older_file_are_taken_apart),
        cmocka_unit_test(parts_weigh_nothing_beside_the_whole),
        cmocka_unit_test(a_matrix_that_does_not_fit_is_left_alone),
        cmocka_unit_test(heads_of_fp8_are_taken_apart),
    };
    return cmocka_run_group_tests_name("heads", tests, NULL, NULL);
}
