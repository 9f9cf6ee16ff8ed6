/* Quantised checkpoints (quant/make_quant.py): what their codes mean is bit for bit what the format's own code says, however it is read, and
 * what lies about itself is refused by name. That the logits agree is test_golden.c's, that cuts do not show test_exact.c's. */
#include "engine/file/dequant.h"
#include "engine/model/spec.h"
#include "tests/support/env.h"
#include "tests/support/hf_write.h"
#include "tests/support/scratch.h"

#include "base/rng.h"

#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct eng_model_file *open_dir(const char *dir)
{
    struct eng_model_file *f = NULL;
    struct eng_spec s;
    if (eng_model_file_open(&f, dir)) fail_msg("%s", err_text());
    if (eng_spec_read(&s, f)) fail_msg("%s", err_text());
    return f;
}

static struct eng_model_file *open_golden(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "tests/model/quant/%s", name);
    return open_dir(path);
}

/* ---- values ---- */

static uint32_t crc32_of(const void *p, size_t n)
{
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++) {
        c ^= ((const uint8_t *)p)[i];
        for (int k = 0; k < 8; k++) c = c >> 1 ^ (0xedb88320u & (0u - (c & 1)));
    }
    return ~c;
}

static float *values_of(const struct eng_model_file *f, const struct model_tensor *t, int64_t *n)
{
    uint8_t *raw = xmalloc((size_t)t->bytes);
    *n = t->dims[0] * t->dims[1] * t->dims[2];
    float *x = xmalloc((size_t)*n * sizeof *x);
    if (eng_model_file_read(f, t, 0, t->bytes, raw)) fail_msg("%s", err_text());
    eng_dequant_row(t->type, raw, x, *n);
    free(raw);
    return x;
}

/* Each line of NAME.sums. expected: the type that its quantised tensors are held in; DTYPE_COUNT: several. */
static void are_the_references(const char *name, enum dtype expected)
{
    char path[256], tensor[96], shape[64], line[256];
    unsigned sum;
    int n_held = 0;
    struct eng_model_file *f = open_golden(name);
    snprintf(path, sizeof path, "tests/model/quant/%s.sums", name);
    FILE *in = fopen(path, "r");
    if (!in) fail_msg("%s cannot be read", path);
    while (fgets(line, sizeof line, in)) {
        int64_t n;
        assert_int_equal(sscanf(line, "%95s %63s %x", tensor, shape, &sum), 3);
        const struct model_tensor *t = eng_model_file_tensor_find(f, tensor);
        if (!t) fail_msg("%s: no tensor %s", name, tensor);
        float *x = values_of(f, t, &n);
        if (crc32_of(x, (size_t)n * sizeof *x) != sum)
            fail_msg("%s: %s (%s) has other values than the reference; it begins %a %a %a", name, tensor, dtype_name(t->type), (double)x[0],
                     (double)x[1], (double)x[2]);
        free(x);
        if (!eng_model_tensor_made_of(t)) continue;
        if (t->type != expected && expected != DTYPE_COUNT) fail_msg("%s: %s is held as %s, not %s", name, tensor, dtype_name(t->type), dtype_name(expected));
        n_held++;
    }
    fclose(in);
    eng_model_file_close(f);
    assert_true(n_held >= 7);
    printf("%-24s %2d tensors as %s\n", name, n_held, expected == DTYPE_COUNT ? "several types" : dtype_name(expected));
}

struct row { const char *name; enum dtype type; };

static void fp8_means_what_its_publishers_say(void **state)
{
    static const struct row rows[] = {
        {"fp8-block", DTYPE_BF16}, {"fp8-block-bf16-scales", DTYPE_BF16}, {"fp8-block-e8m0-scales", DTYPE_BF16}, {"fp8-tensor", DTYPE_F16},
        {"fp8-rows", DTYPE_BF16},
        {"fp8-e4m3", DTYPE_BF16}, {"fp8-e5m2", DTYPE_BF16},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) are_the_references(rows[i].name, rows[i].type);
}

static void gptq_means_what_its_own_code_says(void **state)
{
    static const struct row rows[] = {
        {"gptq-4", DTYPE_Q4_0}, {"gptq-4-asym", DTYPE_Q5_0}, {"gptq-4-order", DTYPE_F16}, {"gptq-4-order-whole", DTYPE_Q4_0},
        {"gptq-4-v2", DTYPE_Q5_0}, {"gptq-3", DTYPE_Q4_0}, {"gptq-2", DTYPE_Q5_0}, {"gptq-8", DTYPE_Q8_0}, {"gptq-8-asym", DTYPE_F16},
        {"gptq-4-group-16", DTYPE_F16},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) are_the_references(rows[i].name, rows[i].type);
}

static void awq_means_what_its_own_code_says(void **state)
{
    (void)state;
    are_the_references("awq-4", DTYPE_Q5_0);
    are_the_references("awq-4-old", DTYPE_Q5_0);
}

static void mxfp4_means_what_transformers_says(void **state)
{
    (void)state;
    are_the_references("gpt-oss-mxfp4", DTYPE_COUNT); /* experts MXFP4, their biases as they are */
    struct eng_model_file *f = open_golden("gpt-oss-mxfp4");
    assert_int_equal(eng_model_file_tensor_find(f, "blk.1.ffn_up_exps.weight")->type, DTYPE_MXFP4);
    assert_int_equal(eng_model_file_tensor_find(f, "blk.0.ffn_down_exps.weight")->type, DTYPE_MXFP4);
    eng_model_file_close(f);
}

static void compressed_tensors_mean_what_their_own_code_says(void **state)
{
    static const struct row rows[] = {
        {"ct-fp8-tensor", DTYPE_BF16}, {"ct-fp8-channel", DTYPE_BF16}, {"ct-fp8-block", DTYPE_BF16}, {"ct-w4", DTYPE_Q4_0},
        {"ct-w4-asym", DTYPE_Q5_0}, {"ct-w4-channel", DTYPE_Q5_0}, {"ct-w4-order", DTYPE_BF16}, {"ct-w8", DTYPE_Q8_0}, {"ct-mixed", DTYPE_COUNT},
        {"ct-int8", DTYPE_Q8_0}, {"ct-int8-asym", DTYPE_BF16}, {"ct-int8-f32", DTYPE_F32}, {"ct-nvfp4", DTYPE_BF16}, {"ct-mxfp4", DTYPE_MXFP4},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) are_the_references(rows[i].name, rows[i].type);
}

static void bitsandbytes_means_what_its_own_code_says(void **state)
{
    static const struct row rows[] = {{"bnb-nf4", DTYPE_BF16}, {"bnb-nf4-plain", DTYPE_F16}, {"bnb-fp4", DTYPE_BF16}};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) are_the_references(rows[i].name, rows[i].type);
}

static void modelopt_and_quark_mean_what_they_say(void **state)
{
    static const struct row rows[] = {{"modelopt-fp8", DTYPE_BF16}, {"modelopt-nvfp4", DTYPE_BF16}, {"quark-mxfp4", DTYPE_MXFP4}};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) are_the_references(rows[i].name, rows[i].type);
}

/* ---- reading ---- */

static const char *const every[] = {"fp8-block", "ct-fp8-block", "gptq-4", "gptq-3", "gptq-4-order", "awq-4", "ct-w4-asym", "ct-int8-asym",
                                    "gpt-oss-mxfp4", "bnb-nf4", "ct-nvfp4", "../golden/gpt-oss"};

struct reader {
    const struct eng_model_file *f;
    uint64_t seed;
    uint8_t **whole; /* of each tensor */
    int wrong;
};

/* Any range of any tensor reads as that part of the whole. */
static void *read_parts(void *arg)
{
    struct reader *r = arg;
    uint8_t part[4096];
    for (uint64_t i = 0; i < 400; i++) {
        int64_t k = (int64_t)(rng_mix(r->seed + 3 * i) % (uint64_t)eng_model_file_n_tensors(r->f));
        const struct model_tensor *t = eng_model_file_tensor(r->f, k);
        int64_t at = (int64_t)(rng_mix(r->seed + 3 * i + 1) % (uint64_t)t->bytes);
        int64_t n = MIN((int64_t)(rng_mix(r->seed + 3 * i + 2) % sizeof part) + 1, t->bytes - at);
        if (eng_model_file_read(r->f, t, at, n, part) || memcmp(part, r->whole[k] + at, (size_t)n)) r->wrong++;
    }
    return NULL;
}

static void any_part_reads_as_the_whole_from_any_thread(void **state)
{
    enum { THREADS = 4 };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(every); i++) {
        struct eng_model_file *f = open_golden(every[i]);
        int64_t n = eng_model_file_n_tensors(f);
        uint8_t **whole = xcalloc((size_t)n, sizeof *whole);
        uint64_t seed = test_seed();
        pthread_t threads[THREADS];
        struct reader readers[THREADS];
        for (int64_t k = 0; k < n; k++) {
            const struct model_tensor *t = eng_model_file_tensor(f, k);
            whole[k] = xmalloc((size_t)t->bytes);
            if (eng_model_file_read(f, t, 0, t->bytes, whole[k])) fail_msg("%s", err_text());
        }
        eng_model_file_close(f);
        f = open_golden(every[i]); /* nothing is made yet */
        for (int k = 0; k < THREADS; k++) {
            readers[k] = (struct reader){.f = f, .seed = seed + (uint64_t)k * 100000, .whole = whole};
            assert_int_equal(pthread_create(&threads[k], NULL, read_parts, &readers[k]), 0);
        }
        for (int k = 0; k < THREADS; k++) {
            pthread_join(threads[k], NULL);
            assert_int_equal(readers[k].wrong, 0);
        }
        eng_model_file_close(f);
        for (int64_t k = 0; k < n; k++) free(whole[k]);
        free(whole);
    }
}

/* ---- lies ---- */

/* A golden checkpoint with one text of config.json, or of the header (of the same length there), replaced. */
#define QUARK(type, spread) "\"quant_method\": \"quark\", \"global_quant_config\": {\"weight\": {\"dtype\": \"" type "\", \"qscheme\": \"" spread "\"}}"
#define AUTOROUND(packing) "\"quant_method\": \"auto-round\", \"packing_format\": \"" packing "\""

static const struct lie {
    const char *name, *from, *to;
    bool header;
    enum err err; /* of opening or, when that is well, of eng_spec_read */
    const char *says;
} lies[] = {
    {"fp8-block", "\"quant_method\": \"fp8\"", "\"quant_method\": 8", false, ERR_BAD_FILE, "'quant_method' is not a text"},
    {"fp8-block", "\"quant_method\": \"fp8\"", "\"quant_method\": \"secret\"", false, ERR_UNSUPPORTED, "'secret'"},
    {"fp8-block", "\"quant_method\": \"fp8\"", "\"quant_method\": \"torchao\"", false, ERR_UNSUPPORTED, "pickled objects"},
    {"fp8-block", "\"quant_method\": \"fp8\"", "\"quant_method\": \"hqq\"", false, ERR_UNSUPPORTED, "HQQ"},
    {"fp8-tensor", "\"quant_method\": \"fp8\"", "\"quant_method\": \"modelopt\"", false, ERR_UNSUPPORTED, "quant_algo"},
    {"fp8-tensor", "\"quant_method\": \"fp8\"", "\"quant_method\": \"modelopt\", \"quant_algo\": \"FP8\"", false, OK, NULL}, /* the same tensors */
    {"fp8-tensor", "\"quant_method\": \"fp8\"", QUARK("fp8_e4m3", "per_tensor"), false, OK, NULL},
    {"fp8-tensor", "\"quant_method\": \"fp8\"", QUARK("int8", "per_tensor"), false, ERR_UNSUPPORTED, "dtype 'int8'"},
    {"fp8-tensor", "\"quant_method\": \"fp8\"", QUARK("fp4", "per_tensor"), false, ERR_UNSUPPORTED, "qscheme 'per_tensor'"},
    {"gptq-4", "\"quant_method\": \"gptq\"", AUTOROUND("auto_round:auto_gptq"), false, OK, NULL},
    {"gptq-4", "\"quant_method\": \"gptq\"", AUTOROUND("auto_round"), false, ERR_UNSUPPORTED, "packing_format 'auto_round'"},
    {"gptq-4", "\"quant_method\": \"gptq\"", AUTOROUND("auto_round:auto_gptq") ", \"extra_config\": {\"x\": {\"bits\": 8}}", false,
     ERR_UNSUPPORTED, "extra_config"},
    {"gptq-4", "\"quant_method\": \"gptq\"", AUTOROUND("auto_round:auto_gptq") ", \"extra_config\": {\"x\": {\"bits\": 16}}", false, OK, NULL},
    {"awq-4", "\"quant_method\": \"awq\"", AUTOROUND("auto_round:auto_awq"), false, OK, NULL},
    {"bnb-nf4", "\"load_in_4bit\": true", "\"load_in_4bit\": false, \"x\": true", false, ERR_UNSUPPORTED, "load_in_8bit"},
    {"bnb-nf4", "\"nf4\"", "\"nf5\"", false, ERR_UNSUPPORTED, "bnb_4bit_quant_type 'nf5'"},
    {"bnb-nf4", "\"intermediate_size\": 256", "\"intermediate_size\": 254", false, ERR_BAD_FILE, "as many columns as config.json says"},
    {"bnb-nf4", "q_proj.weight.absmax", "q_proj.weight.absma_", true, ERR_BAD_FILE, "q_proj.weight.absmax' is missing"},
    {"bnb-nf4", "q_proj.weight.nested_absmax", "q_proj.weight.nested_absma_", true, ERR_BAD_FILE, "nested_absmax' is missing"},
    {"bnb-nf4", "q_proj.weight.nested_quant_map", "q_proj.weight.nested_quant_ma_", true, ERR_BAD_FILE, "nested_quant_map' is missing"},
    {"bnb-nf4", "q_proj.weight.quant_state.bitsandbytes__nf4", "q_proj.weight.quant_state.bitsandbytes__nf5", true, ERR_BAD_FILE,
     "bitsandbytes__nf4' is missing"},
    {"ct-nvfp4", "q_proj.weight_global_scale", "q_proj.weight_global_scal_", true, ERR_BAD_FILE, "weight_global_scale' is missing"},
    {"ct-nvfp4", "\"group_size\": 16", "\"group_size\": 8", false, ERR_UNSUPPORTED, "num_bits '4'"},
    {"ct-nvfp4", "\"group_size\": 16", "\"group_size\": 32", false, ERR_BAD_FILE, "3] of U8"},
    /* hf_quant_config.json is not there */
    {"modelopt-nvfp4", "q_proj.weight_scale_2", "q_proj.weight_scale_3", true, ERR_BAD_FILE, "a word on what its codes mean"},
    {"fp8-block", "\"quant_method\": \"fp8\"", "\"quant_method\": \"exl3\"", false, ERR_UNSUPPORTED, "exllama"},
    {"fp8-block", "\"e4m3\"", "\"e3m4\"", false, ERR_UNSUPPORTED, "fmt 'e3m4'"},
    {"fp8-block", "   128,", "   -128,", false, ERR_BAD_FILE, "'weight_block_size'"},
    {"fp8-block", "   128,", "   \"x\",", false, ERR_BAD_FILE, "'weight_block_size'"},
    {"fp8-block", "   128,", "   128,128,", false, ERR_BAD_FILE, "'weight_block_size'"},
    {"fp8-block", "   128,", "   64,", false, ERR_BAD_FILE, "needs [3, 2]"},
    {"fp8-block", "q_proj.weight_scale_inv", "q_proj.weight_scale_in_", true, ERR_BAD_FILE, "q_proj.weight_scale"},
    {"fp8-block", "\"dtype\":\"F32\",\"shape\":[1,2]", "\"dtype\":\"I32\",\"shape\":[1,2]", true, ERR_BAD_FILE, "of F32, F16 or BF16"},
    {"fp8-block", "\"dtype\":\"F32\",\"shape\":[1,2]", "\"dtype\":\"F32\",\"shape\":[2,1]", true, ERR_BAD_FILE, "needs [1, 2]"},
    {"fp8-rows", "\"dtype\":\"F32\",\"shape\":[64,1]", "\"dtype\":\"F32\",\"shape\":[1,64]", true, OK, NULL}, /* no lie: a flat list */
    {"fp8-rows", "\"dtype\":\"F32\",\"shape\":[64,1]", "\"dtype\":\"F32\",\"shape\":[32,2]", true, ERR_BAD_FILE, "needs [64, 1]"},
    {"gptq-4", "\"bits\": 4", "\"bits\": 5", false, ERR_UNSUPPORTED, "bits ' 5 '"},
    {"gptq-4", "\"bits\": 4", "\"bits\": 77", false, ERR_BAD_FILE, "'bits' is 77"},
    {"gptq-4", "\"bits\": 4", "\"bits\": 2", false, ERR_BAD_FILE, "qzeros"},
    {"gptq-4", "\"group_size\": 128", "\"group_size\": 64", false, ERR_BAD_FILE, "qzeros"},
    {"gptq-4", "\"group_size\": 128", "\"group_size\": 0", false, ERR_BAD_FILE, "'group_size' is 0"},
    {"gptq-4", "\"group_size\": 128", "\"group_size\": -7", false, ERR_BAD_FILE, "'group_size' is -7"},
    {"gptq-4", "\"checkpoint_format\": \"gptq\"", "\"checkpoint_format\": \"marlin\"", false, ERR_UNSUPPORTED, "checkpoint_format 'marlin'"},
    {"gptq-4", "\"sym\": true", "\"sym\": true, \"is_marlin_format\": true", false, ERR_UNSUPPORTED, "is_marlin_format"},
    {"gptq-4", "\"sym\": true", "\"sym\": true, \"dynamic\": {\"-:.*up.*\": {}}", false, ERR_UNSUPPORTED, "dynamic"},
    {"gptq-4", "\"sym\": true", "\"sym\": 1", false, ERR_BAD_FILE, "'sym' is not true or false"},
    {"gptq-4", "\"quant_method\": \"gptq\"", "\"quant_method\": \"awq\"", false, ERR_BAD_FILE, "qzeros"},
    {"gptq-4", "\"quant_method\": \"gptq\"", "\"quant_method\": \"fp8\"", false, ERR_BAD_FILE, "neither gptq nor awq"},
    {"gptq-4", "q_proj.qzeros", "q_proj.qzero_", true, ERR_BAD_FILE, "q_proj.qzeros' is missing"},
    {"gptq-4", "q_proj.scales", "q_proj.scale_", true, ERR_BAD_FILE, "q_proj.scales' is missing"},
    {"gptq-4-order", "q_proj.g_idx", "q_proj.g_id_", true, ERR_BAD_FILE, "q_proj.g_idx' is missing"},
    {"gptq-4", "q_proj.qweight", "q_proj.qweigh_", true, ERR_UNSUPPORTED, "self_attn.q_proj"},
    {"gptq-4", "\"dtype\":\"I32\",\"shape\":[16,128]", "\"dtype\":\"F32\",\"shape\":[16,128]", true, ERR_UNSUPPORTED, "self_attn"},
    {"awq-4", "\"version\": \"gemm\"", "\"version\": \"gemv_fast\"", false, ERR_UNSUPPORTED, "version 'gemv_fast'"},
    {"awq-4", "\"zero_point\": true", "\"zero_point\": false", false, ERR_UNSUPPORTED, "zero_point 'false'"},
    {"awq-4", "\"bits\": 4", "\"bits\": 3", false, ERR_UNSUPPORTED, "bits ' 3 '"},
    {"ct-w4", "\"num_bits\": 4", "\"num_bits\": 8", false, ERR_BAD_FILE, "weight_scale"},
    {"ct-w4", "\"group_size\": 32", "\"group_size\": 64", false, ERR_BAD_FILE, "weight_scale"},
    {"ct-w4", "\"symmetric\": true", "\"symmetric\": false", false, ERR_BAD_FILE, "weight_zero_point' is missing"},
    {"ct-w4", "\"type\": \"int\"", "\"type\": \"float\"", false, ERR_BAD_FILE, "another type"},
    {"ct-w4", "q_proj.weight_scale", "q_proj.weight_scal_", true, ERR_BAD_FILE, "q_proj.weight_scale' is missing"},
    {"ct-w4-order", "q_proj.weight_g_idx", "q_proj.weight_g_id_", true, ERR_BAD_FILE, "q_proj.weight_g_idx' is missing"},
    {"ct-w4-order", "\"actorder\": \"group\"", "\"actorder\": \"sideways\"", false, ERR_UNSUPPORTED, "actorder 'sideways'"},
    {"gpt-oss-mxfp4", "gate_up_proj_scales", "gate_up_proj_scale_", true, ERR_BAD_FILE, "no scales beside it"},
    {"gpt-oss-mxfp4", "\"dtype\":\"U8\",\"shape\":[4,64,2,16]", "\"dtype\":\"U8\",\"shape\":[4,32,4,16]", true, ERR_BAD_FILE, "but blocks are U8"},
    {"gpt-oss-mxfp4", "\"dtype\":\"U8\",\"shape\":[4,64,2]", "\"dtype\":\"I8\",\"shape\":[4,64,2]", true, ERR_BAD_FILE, "but blocks are U8"},
    {"gpt-oss-mxfp4", "\"swiglu_limit\": 7.0", "\"swiglu_limit\": 9.0", false, ERR_UNSUPPORTED, "swiglu_limit 9"},
    {"ct-int8", "\"num_bits\": 8", "\"num_bits\": 4", false, ERR_BAD_FILE, "another type"},
    {"fp8-e4m3", "\"F8_E4M3\"", "\"F8_E9M9\"", true, ERR_BAD_FILE, "'F8_E9M9'"},
    {"ct-fp8-channel", "\"float-quantized\"", "\"mxfp8-quantized\"", false, ERR_UNSUPPORTED, "mxfp8-quantized"},
    {"ct-fp8-channel", "\"float-quantized\"", "\"marlin-24\"", false, ERR_UNSUPPORTED, "format 'marlin-24'"},
    {"ct-fp8-channel", "\"sparsity_config\": {", "\"sparsity_config\": {\"format\": \"sparse-24-bitmask\"", false, ERR_UNSUPPORTED, "sparse-24"},
    {"ct-fp8-channel", "\"config_groups\": {", "\"transform_config\": {\"config_groups\": {\"r\": {}}}, \"config_groups\": {", false, ERR_UNSUPPORTED,
     "transform_config"},
    {"ct-fp8-channel", "\"num_bits\": 8", "\"num_bits\": 4", false, ERR_UNSUPPORTED, "num_bits"},
    {"ct-fp8-channel", "\"num_bits\": 8", "\"num_bits\": 99", false, ERR_BAD_FILE, "'num_bits' is 99"},
    {"ct-fp8-channel", "\"type\": \"float\"", "\"type\": \"posit\"", false, ERR_UNSUPPORTED, "type 'posit'"},
    {"ct-fp8-channel", "\"type\": \"float\"", "\"type\": \"int\"", false, ERR_BAD_FILE, "needs integers"},
    {"ct-fp8-channel", "\"strategy\": \"channel\"", "\"strategy\": \"attn_head\"", false, ERR_UNSUPPORTED, "'attn_head'"},
    {"ct-fp8-channel", "\"strategy\": \"channel\"", "\"strategy\": \"group\"", false, ERR_BAD_FILE, "'group_size' is missing"},
    {"ct-fp8-channel", "\"strategy\": \"channel\"", "\"strategy\": \"block\"", false, ERR_BAD_FILE, "'block_structure'"},
    {"ct-fp8-channel", "\"group_size\": null", "\"group_size\": 0", false, ERR_BAD_FILE, "'group_size' is 0"},
    {"ct-fp8-channel", "\"lm_head\"", "\"re:.*k_proj\"", false, ERR_BAD_FILE, "k_proj.weight' is quantised, but"},
    {"ct-fp8-channel", "\"lm_head\"", "\"re:(\"", false, ERR_BAD_FILE, "'re:(' is no expression"},
    {"ct-fp8-channel", "\"lm_head\"", "\"re:([a-z._]|[a-p.])*([a-z_.0-9]|.)*[XYZ]\"", false, ERR_BAD_FILE, "takes too long"},
    {"ct-fp8-channel", "\"lm_head\"", "7", false, ERR_BAD_FILE, "'ignore' is not a list of texts"},
    {"ct-fp8-channel", "\"Linear\"", "\"model.layers.0.self_attn.q_proj\"", false, ERR_BAD_FILE, "no config_group"},
    {"ct-fp8-channel", "\"targets\": [", "\"targets\": 3, \"t\": [", false, ERR_BAD_FILE, "'targets' is not a list of texts"},
};

static void replace(struct buf *text, const struct lie *l, struct buf *out)
{
    char *at = memmem(text->data, text->len, l->from, strlen(l->from));
    if (!at) fail_msg("%s has no %s", l->name, l->from);
    size_t before = (size_t)(at - (char *)text->data), n = strlen(l->from);
    if (l->header) assert_int_equal(strlen(l->to), n);
    buf_put(out, text->data, before);
    buf_puts(out, l->to);
    buf_put(out, text->data + before + n, text->len - before - n);
}

static const char *lying(const struct lie *l)
{
    static const char *const files[] = {"config.json", "model.safetensors"};
    const char *none[] = {NULL}, *dir = hf_write_dir(none);
    for (int i = 0; i < 2; i++) {
        struct buf text = {0}, out = {0};
        char *from = xasprintf("tests/model/quant/%s/%s", l->name, files[i]), *to = xasprintf("%s/%s", dir, files[i]);
        assert_true(scratch_read(from, &text));
        if (l->header == (i == 1)) replace(&text, l, &out);
        else buf_put(&out, text.data, text.len);
        scratch_write(to, out.data, out.len);
        buf_free(&text);
        buf_free(&out);
        free(from);
        free(to);
    }
    return dir;
}

static void each_lie_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(lies); i++) {
        const struct lie *l = &lies[i];
        struct eng_model_file *f = NULL;
        struct eng_spec s;
        enum err e = eng_model_file_open(&f, lying(l));
        if (!e) e = eng_spec_read(&s, f);
        if (e != l->err || (e && !strstr(err_text(), l->says)))
            fail_msg("%s with %s: error %d, \"%s\"", l->name, l->to, e, e ? err_text() : "");
        eng_model_file_close(f);
    }
}

/* ---- lies that only the bytes tell ---- */

/* The bytes of a tensor, changed; reading the tensor made of it is refused. */
static const struct untruth {
    const char *name, *raw, *made;
    int64_t at;
    uint8_t bytes[4];
    const char *says;
} untruths[] = {
    {"gptq-4-order", "model.layers.0.mlp.up_proj.g_idx", "blk.0.ffn_up.weight", 12, {2, 0, 0, 0}, "column 3 into group 2 of 2"},
    {"gptq-4-order", "model.layers.0.mlp.up_proj.g_idx", "blk.0.ffn_up.weight", 0, {0xff, 0xff, 0xff, 0xff}, "into group -1 of 2"},
    {"gptq-4-asym", "model.layers.0.mlp.up_proj.g_idx", "blk.0.ffn_up.weight", 0, {1, 0, 0, 0}, "in their order"},
    {"gptq-4", "model.layers.0.mlp.up_proj.qzeros", "blk.0.ffn_up.weight", 4, {0x7a, 0x77, 0x77, 0x77}, "symmetric"},
    {"bnb-nf4", "model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4", "blk.0.ffn_up.weight", 0, {'['}, "quant_state"},
    {"ct-w4", "model.layers.0.mlp.up_proj.weight_shape", "blk.0.ffn_up.weight", 8, {63, 0, 0, 0}, "says [96, 63]"},
    {"ct-w4", "model.layers.0.mlp.up_proj.weight_scale", "blk.0.ffn_up.weight", 0, {0x00, 0x48, 0x00, 0x48}, "which F16 cannot hold"},
};

static int64_t place_of(const struct buf *file, const char *raw)
{
    char *key = xasprintf("\"%s\":{", raw), *at = memmem(file->data, file->len, key, strlen(key));
    if (!at) fail_msg("no %s", raw);
    int64_t n = 0, first = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | file->data[i];
    at = strstr(at, "\"data_offsets\":[");
    assert_int_equal(sscanf(at, "\"data_offsets\":[%" SCNd64, &first), 1);
    free(key);
    return 8 + n + first;
}

static void bytes_that_lie_are_refused_as_they_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(untruths); i++) {
        const struct untruth *u = &untruths[i];
        struct buf config = {0}, file = {0};
        char *from = xasprintf("tests/model/quant/%s/config.json", u->name);
        assert_true(scratch_read(from, &config));
        const char *files[] = {"config.json", buf_str(&config), NULL}, *dir = hf_write_dir(files);
        free(from);
        from = xasprintf("tests/model/quant/%s/model.safetensors", u->name);
        assert_true(scratch_read(from, &file));
        memcpy(file.data + place_of(&file, u->raw) + u->at, u->bytes, sizeof u->bytes);
        char *to = xasprintf("%s/model.safetensors", dir);
        scratch_write(to, file.data, file.len);
        struct eng_model_file *f = open_dir(dir);
        const struct model_tensor *t = eng_model_file_tensor_find(f, u->made);
        uint8_t *x = xmalloc((size_t)t->bytes);
        for (int again = 0; again < 2; again++) { /* what failed once is not kept */
            enum err e = eng_model_file_read(f, t, 0, t->bytes, x);
            if (e != ERR_BAD_FILE || !strstr(err_text(), u->says) || !strstr(err_text(), u->made))
                fail_msg("%s, %s: error %d, \"%s\"", u->name, u->raw, e, e ? err_text() : "");
        }
        eng_model_file_close(f);
        free(x);
        free(from);
        free(to);
        buf_free(&config);
        buf_free(&file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fp8_means_what_its_publishers_say),
        cmocka_unit_test(gptq_means_what_its_own_code_says),
        cmocka_unit_test(awq_means_what_its_own_code_says),
        cmocka_unit_test(mxfp4_means_what_transformers_says),
        cmocka_unit_test(compressed_tensors_mean_what_their_own_code_says),
        cmocka_unit_test(bitsandbytes_means_what_its_own_code_says),
        cmocka_unit_test(modelopt_and_quark_mean_what_they_say),
        cmocka_unit_test(any_part_reads_as_the_whole_from_any_thread),
        cmocka_unit_test(each_lie_is_refused_by_name),
        cmocka_unit_test(bytes_that_lie_are_refused_as_they_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
