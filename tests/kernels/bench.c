/* bench.c: one thread, the median of several runs in its own processor time, so that a busy machine
 * costs cache and bandwidth only. GB/s counts weights (or KV, or elements) read
 * once; GFLOP/s counts two operations per weight and token, whatever the arithmetic (int8 or
 * f32). */
#include "bench.h"

#include "base/base.h"
#include "cases.h"
#include "engine/kernels/pack.h"
#include "engine/kernels/rounded.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_TABLES = 8, RUNS = 5 };
#define SAMPLE_S 3e-3

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of one call of fn(arg): the median of RUNS samples of at least SAMPLE_S, after one call
 * to warm up. */
static double seconds(void (*fn)(void *), void *arg)
{
    double t[RUNS];
    fn(arg);
    for (int i = 0; i < RUNS; i++) {
        double start = cpu_seconds(), now = start;
        int64_t calls = 0;
        for (; now - start < SAMPLE_S; now = cpu_seconds(), calls++) fn(arg);
        t[i] = (now - start) / (double)calls;
    }
    qsort(t, RUNS, sizeof *t, compare);
    return t[RUNS / 2];
}

static void line(const char *kernel, const char *what, const struct krn_table *t, double bytes,
                 double flops, double s)
{
    printf("%-10s %-28s %-7s %9.1f us", kernel, what, t->name, s * 1e6);
    if (bytes > 0) printf(" %7.2f GB/s", bytes / s * 1e-9);
    if (flops > 0) printf(" %8.1f GFLOP/s", flops / s * 1e-9);
    printf("\n");
    fflush(stdout);
}

/* ---- matmul ---------------------------------------------------------------------------------- */

struct matmul_run {
    void (*matmul)(const struct krn_matmul *a);
    struct krn_matmul a;
};
static void run_matmul(void *p)
{
    ((struct matmul_run *)p)->matmul(&((struct matmul_run *)p)->a);
}

/* A matrix of about `bytes` packed: one tile's content repeated, which costs the kernels the
 * same. */
static struct krn_mat big_matrix(struct rnd *r, enum dtype type, int32_t cols, int64_t bytes)
{
    struct case_file f = case_file_make(r, type, KRN_TILE, cols);
    struct krn_mat one = case_pack(&f, 0, cols), m = one;
    int64_t n = MAX(bytes / one.tile_bytes, 1);
    uint8_t *data = case_alloc((size_t)(n * one.tile_bytes));
    for (int64_t i = 0; i < n; i++)
        memcpy(data + i * one.tile_bytes, one.data, (size_t)one.tile_bytes);
    m.rows = (int32_t)n * KRN_TILE;
    m.data = data;
    free((void *)one.data);
    case_file_free(&f);
    return m;
}

static void bench_matmul(const struct krn_table *t, enum dtype type, bool quantise, int32_t n_tok,
                         int32_t n_leaf)
{
    enum { COLS = 2048 };
    struct rnd r = {.key = 1};
    bool ref = t == &krn_ref;
    int32_t bound[TREE_MAX_LEAF + 1];
    struct krn_leaves l;
    int64_t size = ref ? 1 << 20 : n_tok <= 32 ? 192 << 20 : 8 << 20;
    struct krn_mat w = big_matrix(&r, type, COLS, size);
    struct krn_act x = case_act(&r, n_tok, COLS, quantise, CASE_NORMAL);
    for (int32_t i = 0; i <= n_leaf; i++) bound[i] = COLS / KRN_UNIT * i / n_leaf * KRN_UNIT;
    case_leaves(bound, n_leaf, 0, n_leaf, &l);
    struct matmul_run run = {
        .matmul = t->matmul, .a = {.w = &w, .x = &x, .leaves = &l, .y_stride = w.rows, .row1 = w.rows}};
    run.a.y = case_alloc((size_t)w.rows * (size_t)n_tok * sizeof(float));
    char what[64];
    snprintf(what, sizeof what, "%s %s %d tok %d leaves", dtype_name(type),
             quantise ? "int8" : "f32", n_tok, n_leaf);
    double s = seconds(run_matmul, &run), bytes = (double)(w.tile_bytes * (w.rows / KRN_TILE));
    line("matmul", what, t, bytes, 2.0 * w.rows * COLS * n_tok, s);
    const struct krn_rounded *rounded = krn_rounded_of(t);
    if (rounded && krn_rounded_takes(type) && n_tok >= KRN_ROUNDED_LEAST) {
        x.xb = case_alloc((size_t)krn_act_xb_words(n_tok, COLS) * sizeof *x.xb);
        rounded->interleave(&x, 0, n_tok, 0, COLS);
        run.matmul = rounded->matmul;
        line("rounded", what, t, bytes, 2.0 * w.rows * COLS * n_tok, seconds(run_matmul, &run));
        free(x.xb);
    }
    free(run.a.y);
    free((void *)w.data);
    case_act_free(&x);
}

/* only: NULL or the name of one type */
static void bench_matmuls(const struct krn_table *t, const char *only)
{
    static const int32_t n_toks[] = {1, 2, 4, 8, 16, 32, 512};
    for (int32_t type = 0; type < DTYPE_COUNT; type++)
        for (size_t n = 0; n < COUNT_OF(n_toks); n++) {
            if (t == &krn_ref && n > 0) continue;
            if (only && strcmp(only, dtype_name((enum dtype)type))) continue;
            bool quant = krn_pack_is_quant((enum dtype)type);
            bench_matmul(t, (enum dtype)type, quant, n_toks[n], 1);
            if (quant && n % 2 == 0) bench_matmul(t, (enum dtype)type, false, n_toks[n], 1);
            if (n == 0) bench_matmul(t, (enum dtype)type, quant, 1, 32);
        }
}

/* ---- attention ------------------------------------------------------------------------------- */

struct attention_run {
    const struct krn_table *t;
    struct krn_attention a;
};
static void run_attention(void *p)
{
    ((struct attention_run *)p)->t->attention(&((struct attention_run *)p)->a);
}

/* n_tok tokens that follow each other; the last one sees `context` keys. `as`: heads and type. */
static void bench_heads(const struct krn_table *t, const struct krn_kv *as, int32_t group, int32_t context, int32_t n_tok)
{
    enum { MAX_BLOCKS = 256, MAX_TOK = 128 };
    int32_t n_kv = as->n_kv, dim = as->head_dim, values = krn_kv_values(as);
    enum kv_type type = as->type;
    struct rnd r = {.key = 2};
    int32_t n_blocks = DIV_UP(context, KRN_KV_BLOCK), table[MAX_BLOCKS], pos[MAX_TOK];
    const int32_t *tables[MAX_TOK];
    double keys = 0;
    size_t n = (size_t)(n_blocks * KRN_KV_BLOCK * n_kv * kv_row_bytes(type, dim));
    struct krn_kv kv = *as;
    kv.k = case_alloc(n), kv.v = case_alloc(n);
    for (size_t i = 0; i < n / 2; i++)
        ((uint16_t *)kv.k)[i] = ((uint16_t *)kv.v)[i] = (uint16_t)(0x3000 + i % 1000);
    for (int32_t i = 0; i < n_blocks; i++) table[i] = (int32_t)((int64_t)i * 37 % n_blocks);
    for (int32_t i = 0; i < n_tok; i++) {
        tables[i] = table;
        pos[i] = context - n_tok + i;
        keys += pos[i] + 1;
    }
    int32_t n_head = n_kv * group;
    struct attention_run run = {
        .t = t,
        .a = {.kv = &kv, .pos = pos, .table = tables, .n_tok = n_tok, .n_head = n_head}};
    run.a.scale = 0.1f;
    run.a.i1 = n_kv * n_tok;
    run.a.q = case_floats(&r, (int64_t)n_head * dim * n_tok, CASE_NORMAL);
    run.a.out = case_alloc((size_t)(n_head * values * n_tok) * sizeof(float));
    run.a.scratch = case_alloc((size_t)krn_attention_scratch(n_head, n_kv, dim) * sizeof(float));
    char what[64];
    snprintf(what, sizeof what, "%dx%d of %d%s %s, %d keys, %d tok", n_kv, group, dim, as->v_dim ? " latent" : "",
             kv_type_name(type), context, n_tok);
    double s = seconds(run_attention, &run);
    line("attention", what, t, (double)n * (as->v_dim ? 1 : 2), 2.0 * keys * (dim + values) * n_head, s);
    free(kv.k);
    free(kv.v);
    free((void *)run.a.q);
    free(run.a.out);
    free(run.a.scratch);
}

static void bench_attention(const struct krn_table *t, int32_t group, int32_t dim, int32_t context, int32_t n_tok, enum kv_type type)
{
    bench_heads(t, &(struct krn_kv){.type = type, .n_kv = 8, .head_dim = dim}, group, context, n_tok);
}

/* As DeepSeek has it: one KV head. */
static void bench_latent(const struct krn_table *t, int32_t heads, int32_t context, int32_t n_tok, enum kv_type type)
{
    bench_heads(t, &(struct krn_kv){.type = type, .n_kv = 1, .head_dim = 576, .v_dim = 512}, heads, context, n_tok);
}

/* ---- rows ------------------------------------------------------------------------------------ */

struct rows_run {
    const struct krn_table *t;
    float *x, *y;
    struct krn_act act;
    volatile float keep;
};
enum { ROW = 4096, N_ROWS = 8, VOCABULARY = 128256 };

static void run_rmsnorm(void *p)
{
    struct rows_run *r = p;
    r->t->rmsnorm(r->y, r->x, r->x, ROW, 1e-5f, 0, N_ROWS);
}
static void run_silu(void *p)
{
    struct rows_run *r = p;
    r->t->silu_mul(r->y, r->x, r->x, ROW * N_ROWS);
}
static void run_quantize(void *p)
{
    struct rows_run *r = p;
    r->t->quantize(&r->act, 0, N_ROWS, 0, ROW / KRN_UNIT);
}
static void run_sum_exp(void *p)
{
    struct rows_run *r = p;
    r->keep = r->t->sum_exp(r->x, VOCABULARY, 4.0f);
}
static void run_argmax(void *p)
{
    struct rows_run *r = p;
    r->keep = (float)r->t->argmax(r->x, VOCABULARY);
}

static void bench_rows(const struct krn_table *t)
{
    struct rnd r = {.key = 3};
    struct rows_run run = {.t = t, .x = case_floats(&r, VOCABULARY, CASE_NORMAL)};
    run.y = case_alloc(VOCABULARY * sizeof(float));
    run.act = case_act(&r, N_ROWS, ROW, true, CASE_NORMAL);
    double row_bytes = 4.0 * ROW * N_ROWS, vocabulary_bytes = 4.0 * VOCABULARY;
    line("rmsnorm", "8 rows of 4096", t, row_bytes, 0, seconds(run_rmsnorm, &run));
    line("silu_mul", "8 rows of 4096", t, row_bytes, 0, seconds(run_silu, &run));
    line("quantize", "8 rows of 4096", t, row_bytes, 0, seconds(run_quantize, &run));
    line("sum_exp", "128256 logits", t, vocabulary_bytes, 0, seconds(run_sum_exp, &run));
    line("argmax", "128256 logits", t, vocabulary_bytes, 0, seconds(run_argmax, &run));
    free(run.x);
    free(run.y);
    case_act_free(&run.act);
}

int kernels_bench(const char *only, const char *type)
{
    const struct krn_table *tables[MAX_TABLES];
    int32_t n = krn_table_all(tables, MAX_TABLES);
    for (int32_t i = 0; i < n; i++) {
        if (!only || !strcmp(only, "rows")) bench_rows(tables[i]);
        if (!only || !strcmp(only, "attention")) {
            bench_attention(tables[i], 1, 128, 2048, 1, KV_F16);
            bench_attention(tables[i], 4, 64, 2048, 1, KV_F16);
            bench_attention(tables[i], 4, 128, 4096, 1, KV_F16);
            bench_attention(tables[i], 4, 64, 2048, 1, KV_Q8_0);
            bench_attention(tables[i], 4, 128, 4096, 1, KV_Q8_0);
            bench_attention(tables[i], 4, 64, 128, 128, KV_F16);
            bench_attention(tables[i], 4, 64, 512, 128, KV_F16);
            bench_attention(tables[i], 4, 64, 2048, 128, KV_F16);
            bench_attention(tables[i], 4, 64, 2048, 128, KV_Q8_0);
            bench_attention(tables[i], 1, 128, 2048, 128, KV_F16);
            bench_latent(tables[i], 16, 2048, 1, KV_F16);
            bench_latent(tables[i], 32, 2048, 1, KV_F16);
            bench_latent(tables[i], 32, 2048, 1, KV_Q8_0);
            bench_latent(tables[i], 16, 2048, 64, KV_F16);
        }
        if (!only || !strcmp(only, "matmul")) bench_matmuls(tables[i], type);
    }
    return 0;
}
