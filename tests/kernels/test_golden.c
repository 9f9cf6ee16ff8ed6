/* test_golden.c: the bits of every operation on fixed inputs, as checksums in the tree.
 *
 * The other suites say that all tables agree; this one says that they still say what they said:
 * across commits, compilers and machines. A change here is a change of docs/exactness.md. Run with
 * --print for the present values. */
#include "base/base.h"
#include "cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct golden {
    const char *name;
    uint64_t sum;
};

static uint64_t fnv1a(const void *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)p)[i]) * 0x100000001b3u;
    return h;
}

/* A matrix in 7 leaves against 3 tokens. */
static uint64_t matmul(const struct krn_table *k, enum dtype type, bool quantise)
{
    enum { ROWS = 40, COLS = 512, TOK = 3, LEAVES = 7 };
    struct rnd r = {.key = 51 + type};
    int32_t bound[LEAVES + 1];
    struct krn_leaves l;
    struct case_file f = case_file_make(&r, type, ROWS, COLS);
    struct krn_mat w = case_pack(&f, 0, COLS);
    struct krn_act x = case_act(&r, TOK, COLS, quantise, CASE_NORMAL);
    case_bounds(&r, LEAVES, COLS, KRN_UNIT, bound);
    case_leaves(bound, LEAVES, 0, LEAVES, &l);
    float y[TOK * ROWS];
    k->matmul(&(struct krn_matmul){
        .w = &w, .x = &x, .leaves = &l, .y = y, .y_stride = ROWS, .row1 = ROWS});
    free((void *)w.data);
    case_act_free(&x);
    case_file_free(&f);
    return fnv1a(y, sizeof y);
}

static uint64_t quantize(const struct krn_table *k)
{
    struct rnd r = {.key = 61};
    struct krn_act x = case_act(&r, 5, 640, true, CASE_TINY);
    int8_t q[5 * 640];
    float d[5 * 20];
    int32_t s[5 * 20];
    k->quantize(&x, 0, 5, 0, 20);
    for (int32_t i = 0; i < 5 * 20; i++) {
        struct case_unit u = case_unit_at(&x, i / 20, i % 20);
        memcpy(q + i * KRN_UNIT, u.q, KRN_UNIT);
        d[i] = u.d;
        s[i] = u.s;
    }
    uint64_t sum = fnv1a(q, sizeof q) ^ fnv1a(d, sizeof d) ^ fnv1a(s, sizeof s);
    case_act_free(&x);
    return sum;
}

static uint64_t attention(const struct krn_table *k, enum kv_type type)
{
    enum { N = 300, DIM = 64, KV = 2, HEADS = 6, BLOCKS = 19 };
    struct rnd r = {.key = 62};
    size_t bytes = (size_t)BLOCKS * KV * DIM * KRN_KV_BLOCK * sizeof(float);
    struct krn_kv kv = {
        .k = case_alloc(bytes), .v = case_alloc(bytes), .type = type, .n_kv = KV, .head_dim = DIM};
    memset(kv.k, 0, bytes);
    memset(kv.v, 0, bytes);
    int32_t table[BLOCKS], pos[N];
    const int32_t *tables[N];
    for (int32_t i = 0; i < BLOCKS; i++) table[i] = i * 7 % BLOCKS;
    for (int32_t i = 0; i < N; i++) {
        pos[i] = i;
        tables[i] = table;
    }
    float *rows_k = case_floats(&r, N * KV * DIM, CASE_NORMAL),
          *rows_v = case_floats(&r, N * KV * DIM, CASE_NORMAL);
    float *q = case_floats(&r, 2 * HEADS * DIM, CASE_NORMAL), out[2 * HEADS * DIM];
    float *scratch = case_alloc((size_t)krn_attention_scratch(HEADS, KV, DIM) * sizeof *scratch);
    k->kv_append(&(struct krn_kv_append){
        .kv = &kv, .k = rows_k, .v = rows_v, .pos = pos, .table = tables, .t1 = N});
    k->attention(&(struct krn_attention){.kv = &kv,
                                         .q = q,
                                         .out = out,
                                         .pos = pos + N - 2,
                                         .table = tables,
                                         .n_tok = 2,
                                         .n_head = HEADS,
                                         .scale = 0.125f,
                                         .scratch = scratch,
                                         .i1 = 2 * KV});
    free(kv.k);
    free(kv.v);
    free(rows_k);
    free(rows_v);
    free(q);
    free(scratch);
    return fnv1a(out, sizeof out);
}

static uint64_t rows(const struct krn_table *k)
{
    enum { N = 200 };
    struct rnd r = {.key = 63};
    float *x = case_floats(&r, N, CASE_NORMAL), *w = case_floats(&r, N, CASE_NORMAL), y[4 * N];
    const float *cs = w;
    k->rmsnorm(y, x, w, N, 1e-6f, 0, 1);
    memcpy(y + N, x, N * sizeof *x);
    k->rope(y + N, 1, N, N, true, &cs, 0, 1);
    memcpy(y + 2 * N, x, N * sizeof *x);
    k->rope(y + 2 * N, 1, N, N, false, &cs, 0, 1);
    k->silu_mul(y + 3 * N, x, w, N);
    free(x);
    free(w);
    return fnv1a(y, sizeof y);
}

static uint64_t vocabulary(const struct krn_table *k)
{
    struct rnd r = {.key = 64};
    float *x = case_floats(&r, 50257, CASE_NORMAL), sum = k->sum_exp(x, 50257, 2.0f);
    free(x);
    return fnv1a(&sum, sizeof sum);
}

static uint64_t functions(void)
{
    float y[2000];
    for (int32_t i = 0; i < 1000; i++) {
        y[i] = krn_exp((float)(i - 500) * 0.17f);
        y[1000 + i] = krn_log((float)(i + 1) * 0.0173f);
    }
    return fnv1a(y, sizeof y);
}

static uint64_t compute(const struct krn_table *k, const char *name)
{
    for (int32_t t = 0; t < DTYPE_COUNT; t++) {
        size_t n = strlen(dtype_name((enum dtype)t));
        if (strncmp(name, "matmul ", 7) || strncmp(name + 7, dtype_name((enum dtype)t), n))
            continue;
        if (strcmp(name + 7 + n, " f32") == 0) return matmul(k, (enum dtype)t, false);
        if (strcmp(name + 7 + n, " int8") == 0) return matmul(k, (enum dtype)t, true);
    }
    if (strcmp(name, "quantize") == 0) return quantize(k);
    if (strcmp(name, "attention f16") == 0) return attention(k, KV_F16);
    if (strcmp(name, "attention f32") == 0) return attention(k, KV_F32);
    if (strcmp(name, "attention q8_0") == 0) return attention(k, KV_Q8_0);
    if (strcmp(name, "attention bf16") == 0) return attention(k, KV_BF16);
    if (strcmp(name, "attention fp8") == 0) return attention(k, KV_FP8);
    if (strcmp(name, "rmsnorm rope silu") == 0) return rows(k);
    if (strcmp(name, "sum_exp") == 0) return vocabulary(k);
    ASSERT(strcmp(name, "exp log") == 0);
    return functions();
}

static const struct golden goldens[] = {
    {"matmul F32 f32", 0xdb0a1a149d6f9a24},    {"matmul F16 f32", 0xfd6837b9e4f77e29},
    {"matmul BF16 f32", 0xba6c25b6ed8629b3},   {"matmul Q8_0 f32", 0xd0c1728629429adc},
    {"matmul Q8_0 int8", 0x0a9ec2a00e25d988},  {"matmul Q4_0 f32", 0x625859ae64cb4e39},
    {"matmul Q4_0 int8", 0x5cbabcd9cd5a0549},  {"matmul Q4_K f32", 0x5cbb27a4e28fc00a},
    {"matmul Q4_K int8", 0xe5451e5e9b3aef6a},  {"matmul Q5_K f32", 0x158be01223de1c5c},
    {"matmul Q5_K int8", 0xcff066a80d0baa95},  {"matmul Q6_K f32", 0xecc26fe1dd19a7ea},
    {"matmul Q6_K int8", 0x72e128a78f1802bd},  {"quantize", 0xdd2d663a75a74f3a},
    {"attention f16", 0x691febfbb2cf0f39},     {"attention f32", 0xca6c18526207c5cc},
    {"attention q8_0", 0xb5db23e8dd471193},    {"attention bf16", 0x4a44ab684b00e157},
    {"rmsnorm rope silu", 0xf0dd545691a1a67e}, {"sum_exp", 0xa2b310adbf8830e8},
    {"exp log", 0x9ab24f7378d4520a},           {"attention fp8", 0xc6040b7f0305e793},
    {"matmul Q4_1 f32", 0x1317411c53237938}, {"matmul Q4_1 int8", 0x82479ac21efeb236},
    {"matmul Q5_0 f32", 0xc0d68a9ce0dd2b97}, {"matmul Q5_0 int8", 0x404721a359bd4466},
    {"matmul Q5_1 f32", 0xbcdc7c27e6ea1321}, {"matmul Q5_1 int8", 0x934bd86859206b65},
    {"matmul Q2_K f32", 0xe25978a30f80bc9e}, {"matmul Q2_K int8", 0x136b5fe1f77917d2},
    {"matmul Q3_K f32", 0xf34d96e2241b02cb}, {"matmul Q3_K int8", 0x1b67bffae45de539},
    {"matmul IQ4_NL f32", 0x135e227a0999bbf4}, {"matmul IQ4_NL int8", 0xbcac7f7f8eb308fd},
    {"matmul IQ4_XS f32", 0x6a97cdff32519be6}, {"matmul IQ4_XS int8", 0x294dba5470a5a4dc},
    {"matmul IQ3_S f32", 0x37ea79a7851322dc}, {"matmul IQ3_S int8", 0xd630c9c3d91b1737},
    {"matmul IQ2_S f32", 0xd25b739a2522933e}, {"matmul IQ2_S int8", 0xc2a4298989204764},
    {"matmul IQ1_M f32", 0x721951d208219351}, {"matmul IQ1_M int8", 0x0f0483439a6e30fa},
    {"matmul TQ2_0 f32", 0x530714ad162403cd}, {"matmul TQ2_0 int8", 0xe02298d0bfb75190},
    {"matmul MXFP4 f32", 0xd393e02f4a23607a}, {"matmul MXFP4 int8", 0x769d5ef8ca6d3b7c},
};

static void the_bits_have_not_moved(void **state)
{
    (void)state;
    const struct krn_table *tables[8];
    int32_t n = krn_table_all(tables, 8);
    for (int32_t k = 0; k < n; k++)
        for (size_t i = 0; i < COUNT_OF(goldens); i++) {
            uint64_t sum = compute(tables[k], goldens[i].name);
            if (sum != goldens[i].sum)
                fail_msg("%s of %s: checksum %016llx, not %016llx", goldens[i].name,
                         tables[k]->name, (unsigned long long)sum,
                         (unsigned long long)goldens[i].sum);
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_bits_have_not_moved)};
    if (argc > 1 && strcmp(argv[1], "--print") == 0) {
        for (size_t i = 0; i < COUNT_OF(goldens); i++)
            printf("    {\"%s\", 0x%016llx},\n", goldens[i].name,
                   (unsigned long long)compute(&krn_ref, goldens[i].name));
        return 0;
    }
    return cmocka_run_group_tests_name("golden", tests, NULL, NULL);
}
