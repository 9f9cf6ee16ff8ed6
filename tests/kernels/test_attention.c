/* test_attention.c: paged attention of every table against ref, bit for bit, and ref against the
 * mathematics. */
#include "base/base.h"
#include "cases.h"
#include "engine/file/half.h"
#include "engine/kernels/kv_block.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MAX_TABLES = 8, MAX_POS = 640, N_BLOCKS = MAX_POS / KRN_KV_BLOCK };

/* Two sequences over one pool whose block ids are scrambled; both are filled up to MAX_POS. */
struct pool {
    struct krn_kv kv;
    size_t bytes; /* of each plane */
    int32_t table[2][N_BLOCKS];
    float *k, *v; /* sequence 0's rows as they were before storing: [MAX_POS][n_kv][dim] */
};

static void fill(struct pool *p, struct rnd *r, int32_t seq, float *k, float *v)
{
    int32_t pos[MAX_POS];
    const int32_t *tables[MAX_POS];
    for (int32_t i = 0; i < MAX_POS; i++) {
        pos[i] = i;
        tables[i] = p->table[seq];
    }
    int64_t n = (int64_t)MAX_POS * p->kv.n_kv * p->kv.head_dim;
    for (int64_t i = 0; i < n; i++) {
        k[i] = rnd_normal(r);
        v[i] = rnd_normal(r);
    }
    struct krn_kv_append a = {
        .kv = &p->kv, .k = k, .v = v, .pos = pos, .table = tables, .t0 = 0, .t1 = MAX_POS};
    krn_ref.kv_append(&a);
}

/* v_dim > 0: values lie among the keys. */
static struct pool pool_latent(struct rnd *r, int32_t n_kv, int32_t dim, int32_t v_dim, enum kv_type type)
{
    struct pool p = {.kv = {.type = type, .n_kv = n_kv, .head_dim = dim, .v_dim = v_dim}};
    int32_t ids[2 * N_BLOCKS];
    for (int32_t i = 0; i < 2 * N_BLOCKS; i++) {
        int32_t j = rnd_below(r, i + 1);
        ids[i] = ids[j];
        ids[j] = i;
    }
    memcpy(p.table, ids, sizeof ids);
    p.bytes = (size_t)(2 * N_BLOCKS * KRN_KV_BLOCK * n_kv * kv_row_bytes(type, dim));
    p.kv.k = case_alloc(p.bytes);
    memset(p.kv.k, 0, p.bytes);
    if (!v_dim) p.kv.v = case_alloc(p.bytes);
    if (!v_dim) memset(p.kv.v, 0, p.bytes);
    size_t rows = (size_t)(MAX_POS * n_kv * dim) * sizeof(float);
    p.k = xmalloc(rows);
    p.v = xmalloc(rows);
    fill(&p, r, 1, p.k, p.v);
    fill(&p, r, 0, p.k, p.v);
    return p;
}

static struct pool pool_make(struct rnd *r, int32_t n_kv, int32_t dim, enum kv_type type) { return pool_latent(r, n_kv, dim, 0, type); }

static void pool_free(struct pool *p)
{
    free(p->kv.k);
    free(p->kv.v);
    free(p->k);
    free(p->v);
}

/* Queries of a batch: token t stands at pos[t] of sequence seq[t]. */
struct batch {
    struct krn_attention a;
    const int32_t *tables[64];
    int32_t pos[64];
    int64_t n_out, n_q;
};

static void batch_make(struct batch *b, struct rnd *r, const struct pool *p, const int32_t pos[],
                       int32_t n_tok, int32_t group)
{
    int32_t n_head = p->kv.n_kv * group;
    *b = (struct batch){.n_out = (int64_t)n_tok * n_head * krn_kv_values(&p->kv), .n_q = (int64_t)n_tok * n_head * p->kv.head_dim};
    for (int32_t t = 0; t < n_tok; t++) {
        b->pos[t] = pos[t];
        b->tables[t] = p->table[rnd_below(r, 2)];
    }
    b->a = (struct krn_attention){
        .kv = &p->kv, .pos = b->pos, .table = b->tables, .n_tok = n_tok, .n_head = n_head};
    b->a.scale = 1.0f / sqrtf((float)p->kv.head_dim);
    b->a.q = case_floats(r, b->n_q, CASE_NORMAL);
    b->a.out = case_alloc((size_t)b->n_out * sizeof(float));
    b->a.scratch = case_alloc((size_t)krn_attention_scratch(n_head, p->kv.n_kv, p->kv.head_dim) *
                              sizeof(float));
    b->a.i1 = n_tok * p->kv.n_kv;
}

static void batch_free(struct batch *b)
{
    free((void *)b->a.q);
    free(b->a.out);
    free(b->a.scratch);
}

/* ---- ref against the mathematics ------------------------------------------------------------- */

static void ref_is_softmax_times_values(void **state)
{
    (void)state;
    struct rnd r = {.key = 21};
    int32_t pos = 599, dim = 64, n_kv = 2;
    struct pool p = pool_make(&r, n_kv, dim, KV_F32);
    struct batch b;
    batch_make(&b, &r, &p, &pos, 1, 2);
    b.tables[0] = p.table[0];
    krn_ref.attention(&b.a);
    for (int32_t h = 0; h < 4; h++) {
        double weight[MAX_POS], total = 0, most = -1e30;
        const float *q = b.a.q + h * dim;
        for (int32_t j = 0; j <= pos; j++) {
            weight[j] = 0;
            for (int32_t d = 0; d < dim; d++)
                weight[j] += (double)q[d] / 8 * (double)p.k[(j * n_kv + h / 2) * dim + d];
            most = MAX(most, weight[j]);
        }
        for (int32_t j = 0; j <= pos; j++) total += weight[j] = exp(weight[j] - most);
        for (int32_t d = 0; d < dim; d++) {
            double o = 0;
            for (int32_t j = 0; j <= pos; j++)
                o += weight[j] / total * (double)p.v[(j * n_kv + h / 2) * dim + d];
            assert_true(fabs(o - (double)b.a.out[h * dim + d]) < 1e-5);
        }
    }
    batch_free(&b);
    pool_free(&p);
}

/* A window (or a chunk), a soft cap and a sink, over two borders of splits, by the textbook. */
static void ref_windows_caps_and_sinks(void **state)
{
    (void)state;
    static const int32_t windows[] = {1, 7, 100, 256, 300, 599, 600, 2000};
    struct rnd r = {.key = 27};
    int32_t pos = 599, dim = 32;
    struct pool p = pool_make(&r, 1, dim, KV_F32);
    for (size_t w = 0; w < 2 * COUNT_OF(windows); w++) {
        struct batch b;
        int32_t window = windows[w / 2];
        float sinks[2] = {0.5f, -1.0f};
        batch_make(&b, &r, &p, &pos, 1, 2);
        b.tables[0] = p.table[0];
        b.a.window = window, b.a.chunked = w % 2, b.a.softcap = 2.0f, b.a.sinks = sinks;
        krn_ref.attention(&b.a);
        for (int32_t h = 0; h < 2; h++) {
            double weight[MAX_POS], total = exp((double)sinks[h]);
            int32_t first = w % 2 ? pos / window * window : MAX(pos - window + 1, 0);
            for (int32_t j = first; j <= pos; j++) {
                double score = 0;
                for (int32_t d = 0; d < dim; d++)
                    score += (double)b.a.q[h * dim + d] * (double)b.a.scale * (double)p.k[j * dim + d];
                total += weight[j] = exp(2 * tanh(score / 2));
            }
            for (int32_t d = 0; d < dim; d++) {
                double o = 0;
                for (int32_t j = first; j <= pos; j++) o += weight[j] / total * (double)p.v[j * dim + d];
                assert_true(fabs(o - (double)b.a.out[h * dim + d]) < 1e-5);
            }
        }
        batch_free(&b);
    }
    pool_free(&p);
}

/* What is stored of a row x[dim] is near it: within a rounding of the type (q8_0: half a step of the unit's largest, and the scale's own
 * rounding), also where f16 has no scale large enough. */
static void stored_rows_are_near_what_was_given(void **state)
{
    (void)state;
    static const double part[KV_TYPES] = {[KV_F16] = 0x1p-11, [KV_F32] = 0, [KV_Q8_0] = 0.5 / 127 + 0x1p-11, [KV_BF16] = 0x1p-8, [KV_FP8] = 0x1p-4};
    static const int32_t dims[] = {64, 80, 20};
    struct rnd r = {.key = 27};
    for (enum kv_type type = 0; type < KV_TYPES; type++)
        for (size_t i = 0; i < COUNT_OF(dims); i++) {
            int32_t dim = dims[i], pos = 37;
            struct pool p = pool_make(&r, 1, dim, type);
            const uint8_t *k = krn_kv_block_at(p.kv.k, &p.kv, p.table[0][pos / KRN_KV_BLOCK], 0),
                          *v = krn_kv_block_at(p.kv.v, &p.kv, p.table[0][pos / KRN_KV_BLOCK], 0);
            const float *rows[2] = {p.k + pos * dim, p.v + pos * dim};
            for (int32_t d = 0; d < dim; d++)
                for (int32_t w = 0; w < 2; w++) {
                    double most = fabs((double)rows[w][d]);
                    for (int32_t e = d / KV_UNIT * KV_UNIT; type == KV_Q8_0 && e < MIN(dim, (d / KV_UNIT + 1) * KV_UNIT); e++)
                        most = fmax(most, fabs((double)rows[w][e]));
                    float is = w ? krn_kv_value(type, v, dim, d, pos % KRN_KV_BLOCK) : krn_kv_key(type, k, dim, d, pos % KRN_KV_BLOCK);
                    assert_true(fabs((double)is - (double)rows[w][d]) <= part[type] * most + (type == KV_FP8 ? 0x1p-10 : 1e-7));
                }
            pool_free(&p);
        }
    float inv;
    assert_int_equal(krn_kv_scale(1e30f, &inv), 0x7bff);
    assert_int_equal(krn_kv_scale(0.0f, &inv), 0);
    assert_true(inv == 0.0f);
}

/* ---- tables against ref ---------------------------------------------------------------------- */

/* The tables of this processor, ref first, but for those that share an earlier one's attention. */
static int32_t tables_here(const struct krn_table *out[MAX_TABLES])
{
    const struct krn_table *all[MAX_TABLES];
    int32_t n_all = krn_table_all(all, MAX_TABLES), n = 0;
    for (int32_t i = 0; i < n_all; i++) {
        bool known = false;
        for (int32_t k = 0; k < n; k++)
            known |= out[k]->attention == all[i]->attention && out[k]->kv_append == all[i]->kv_append;
        if (!known) out[n++] = all[i];
    }
    return n;
}

static void check_table(const struct krn_table *table, const struct batch *b, const float *want,
                        const char *what)
{
    if (memcmp(want, b->a.out, (size_t)b->n_out * sizeof *want) == 0) return;
    fail_msg("%s of %s: head_dim %d, %d heads over %d, %s KV differs from ref", what, table->name,
             b->a.kv->head_dim, b->a.n_head, b->a.kv->n_kv, kv_type_name(b->a.kv->type));
}

/* Splits as items of their own, in two calls, then merged. */
static void check_splits(const struct krn_table *table, struct batch *b, const float *want)
{
    struct krn_attention a = b->a;
    int32_t group = a.n_head / a.kv->n_kv, n_items = a.i1;
    for (int32_t t = 0; t < a.n_tok; t++)
        a.n_split = MAX(a.n_split, a.pos[t] / KRN_ATTN_SPLIT + 1);
    a.partial = case_alloc((size_t)krn_attention_partial(n_items, a.n_split, group,
                                                         krn_kv_values(a.kv)) * sizeof(float));
    memset(b->a.out, 0xa5, (size_t)b->n_out * sizeof(float));
    int32_t all = n_items * a.n_split;
    a.i0 = all / 3, a.i1 = all;
    table->attention(&a);
    a.i0 = 0, a.i1 = all / 3;
    table->attention(&a);
    a.i0 = 0, a.i1 = n_items;
    table->attention_merge(&a);
    check_table(table, b, want, "attention by splits");
    free(a.partial);
}

/* Every table, whole, by splits, item by item in reverse, and one token at a time. */
static void check_batch(struct batch *b)
{
    const struct krn_table *tables[MAX_TABLES];
    int32_t n_tables = tables_here(tables), n_items = b->a.i1, n_tok = b->a.n_tok;
    size_t bytes = (size_t)b->n_out * sizeof(float);
    float *want = xmalloc(bytes);
    krn_ref.attention(&b->a);
    memcpy(want, b->a.out, bytes);
    for (int32_t i = 0; i < n_tables; i++) {
        memset(b->a.out, 0xa5, bytes);
        tables[i]->attention(&b->a);
        check_table(tables[i], b, want, "attention");
        check_splits(tables[i], b, want);
        if (i == 0) continue;
        memset(b->a.out, 0xa5, bytes);
        struct krn_attention one = b->a;
        for (int32_t item = n_items - 1; item >= 0; item--) {
            one.i0 = item;
            one.i1 = item + 1;
            tables[i]->attention(&one);
        }
        check_table(tables[i], b, want, "attention by items");
        memset(b->a.out, 0xa5, bytes);
        int64_t row = b->n_out / n_tok;
        for (int32_t t = 0; t < n_tok; t++) {
            one = b->a;
            one.q += t * (b->n_q / n_tok);
            one.out += t * row;
            one.pos += t;
            one.table += t;
            one.n_tok = 1;
            one.i1 = b->a.kv->n_kv;
            tables[i]->attention(&one);
        }
        check_table(tables[i], b, want, "attention by tokens");
        if (b->a.kv->n_kv > 1) continue;
        memset(b->a.out, 0xa5, bytes);
        for (int32_t h = 0, n; h < b->a.n_head; h += n) { /* some of the heads at a time */
            n = MIN(h + 2, b->a.n_head) - h;
            one = b->a;
            one.q = krn_attention_q(&b->a, 0, h), one.q_stride = b->n_q / n_tok;
            one.out = krn_attention_out(&b->a, 0, h), one.out_stride = row;
            one.n_head = n;
            if (one.sinks) one.sinks += h;
            tables[i]->attention(&one);
        }
        check_table(tables[i], b, want, "attention by heads");
    }
    free(want);
}

/* The same batch through windows of several sizes, now and then with a cap and sinks. */
static void check_extras(struct batch *b, struct rnd *r)
{
    static const int32_t windows[] = {1, 3, 16, 17, 40, 129, 256, 260, 1000};
    float *sinks = case_floats(r, b->a.n_head, CASE_NORMAL);
    for (int32_t i = 0; i < 3; i++) {
        b->a.window = windows[rnd_below(r, COUNT_OF(windows))];
        b->a.chunked = rnd_below(r, 2);
        b->a.softcap = rnd_below(r, 2) ? 5.0f : 0.0f;
        b->a.sinks = rnd_below(r, 2) ? sinks : NULL;
        check_batch(b);
    }
    b->a.sinks = NULL;
    free(sinks);
}

static void every_table_equals_ref(void **state)
{
    (void)state;
    static const int32_t dims[] = {8, 32, 64, 80, 128, 20, 100}, groups[] = {1, 2, 4, 8, 3, 7};
    static const int32_t pos[] = {0, 1, 14, 15, 16, 17, 100, 254, 255, 256, 257, 511, 512, 600};
    struct rnd r = {.key = 22};
    printf("seed %llu\n", (unsigned long long)r.key);
    for (size_t i = 0; i < COUNT_OF(dims); i++)
        for (enum kv_type type = 0; type < KV_TYPES; type++) {
            struct pool p = pool_make(&r, rnd_between(&r, 1, 2), dims[i], type);
            for (size_t g = 0; g < COUNT_OF(groups); g++) {
                struct batch b;
                int32_t first = rnd_below(&r, 9), n = dims[i] > 64 || groups[g] > 4 ? 3 : 6;
                batch_make(&b, &r, &p, pos + first, n, groups[g]);
                check_batch(&b);
                if (g % 2) check_extras(&b, &r);
                batch_free(&b);
            }
            pool_free(&p);
        }
}

/* Chunks of a prompt: tokens that follow each other share tiles, over borders of splits, and may be
 * interrupted by other sequences. */
static void chunks_equal_ref(void **state)
{
    (void)state;
    static const int32_t dims[] = {64, 32, 128, 20}, groups[] = {4, 1, 8, 3, 7};
    static const int32_t firsts[] = {0, 3, 225, 240, 256, 490};
    struct rnd r = {.key = 26};
    printf("seed %llu\n", (unsigned long long)r.key);
    for (size_t i = 0; i < COUNT_OF(dims); i++)
        for (size_t g = 0; g < COUNT_OF(groups); g++) {
            struct pool p = pool_make(&r, 1 + (int32_t)(g % 2), dims[i], (enum kv_type)((i + g) % KV_TYPES));
            struct batch b;
            int32_t pos[40], n = 40, first = firsts[rnd_below(&r, COUNT_OF(firsts))];
            int32_t jump = rnd_between(&r, 1, 2 * n);
            for (int32_t t = 0; t < n; t++) pos[t] = first + t + (t >= jump ? 50 : 0);
            batch_make(&b, &r, &p, pos, n, groups[g]);
            for (int32_t t = 0; t < n; t++) b.tables[t] = p.table[t >= 33];
            check_batch(&b);
            check_extras(&b, &r);
            batch_free(&b);
            pool_free(&p);
        }
}

/* Keys of which the first values are the values too, over borders of splits and stripes. */
static void latent_tables_equal_ref(void **state)
{
    (void)state;
    static const struct { int32_t dim, v_dim; } dims[] = {{40, 32}, {96, 64}, {52, 36}, {20, 7}, {100, 100}, {576, 512}};
    static const int32_t groups[] = {4, 1, 8, 3, 16, 40}, firsts[] = {0, 3, 225, 240, 256, 490};
    struct rnd r = {.key = 28};
    printf("seed %llu\n", (unsigned long long)r.key);
    for (size_t i = 0; i < COUNT_OF(dims); i++)
        for (enum kv_type type = 0; type < KV_TYPES; type++) {
            struct pool p = pool_latent(&r, 1 + (int32_t)(i == 1), dims[i].dim, dims[i].v_dim, type);
            for (size_t g = 0; g < (dims[i].dim > 200 ? 1 : COUNT_OF(groups)); g++) {
                struct batch b;
                int32_t pos[20], n = groups[g] > 8 || dims[i].dim > 200 ? 5 : 20, first = firsts[rnd_below(&r, COUNT_OF(firsts))];
                for (int32_t t = 0; t < n; t++) pos[t] = first + t + (t >= 13 ? 50 : 0);
                batch_make(&b, &r, &p, pos, n, groups[g]);
                for (int32_t t = 0; t < n; t++) b.tables[t] = p.table[t >= 16];
                check_batch(&b);
                if (g % 2) check_extras(&b, &r);
                batch_free(&b);
            }
            pool_free(&p);
        }
}

/* A latent head is one whose values are stored a second time, in a plane of their own. */
static void latent_is_values_from_the_keys(void **state)
{
    (void)state;
    struct rnd r = {.key = 29};
    for (enum kv_type type = 0; type < KV_TYPES; type++) {
        enum { DIM = 64, VALUES = 32, POS = 599 };
        int32_t pos = POS;
        struct pool p = pool_latent(&r, 1, DIM, VALUES, type);
        struct batch b;
        batch_make(&b, &r, &p, &pos, 1, 2);
        b.tables[0] = p.table[0];
        krn_ref.attention(&b.a);
        struct krn_kv twice = {.k = p.kv.k, .v = case_alloc(p.bytes), .type = type, .n_kv = 1, .head_dim = DIM};
        int32_t all[POS + 1];
        const int32_t *tables[POS + 1];
        for (int32_t i = 0; i <= POS; i++) all[i] = i, tables[i] = p.table[0];
        krn_ref.kv_append(&(struct krn_kv_append){.kv = &twice, .k = p.k, .v = p.k, .pos = all, .table = tables, .t1 = POS + 1});
        float out[2 * DIM];
        struct krn_attention a = b.a;
        a.kv = &twice, a.out = out;
        krn_ref.attention(&a);
        for (int32_t h = 0; h < 2; h++) assert_memory_equal(b.a.out + h * VALUES, out + h * DIM, VALUES * sizeof(float));
        free(twice.v);
        batch_free(&b);
        pool_free(&p);
    }
}

static void extreme_scores_agree(void **state)
{
    (void)state;
    static const int32_t pos[] = {599, 600, 20};
    struct rnd r = {.key = 23};
    struct pool p = pool_make(&r, 1, 32, KV_Q8_0);
    struct batch b;
    batch_make(&b, &r, &p, pos, 3, 2);
    b.a.scale = 40.0f; /* most weights underflow to zero */
    check_batch(&b);
    b.a.scale = 0.0f;
    check_batch(&b);
    b.a.scale = 1e-30f;
    check_batch(&b);
    batch_free(&b);
    pool_free(&p);
}

static void stale_keys_past_the_query_do_not_matter(void **state)
{
    (void)state;
    static const int32_t pos[] = {5, 258};
    const struct krn_table *tables[MAX_TABLES];
    int32_t n_tables = tables_here(tables);
    struct rnd r = {.key = 24};
    struct pool p = pool_make(&r, 2, 32, KV_F16);
    struct batch b;
    batch_make(&b, &r, &p, pos, 2, 2);
    b.tables[0] = b.tables[1] = p.table[0];
    float *want = xmalloc((size_t)b.n_out * sizeof *want);
    krn_ref.attention(&b.a);
    memcpy(want, b.a.out, (size_t)b.n_out * sizeof *want);
    for (int32_t t = 1; t >= 0; t--) { /* the rest of the last block becomes infinity */
        struct batch one;
        batch_make(&one, &r, &p, pos + t, 1, 2);
        one.tables[0] = p.table[0];
        int64_t row = b.n_out / 2;
        memcpy((void *)one.a.q, b.a.q + t * row, (size_t)row * sizeof(float));
        int64_t block = p.table[0][pos[t] / KRN_KV_BLOCK];
        for (int32_t h = 0; h < 2; h++)
            for (int32_t d = 0; d < 32; d++)
                for (int32_t s = pos[t] % KRN_KV_BLOCK + 1; s < KRN_KV_BLOCK; s++) {
                    int64_t base = (block * 2 + h) * 32 * KRN_KV_BLOCK;
                    ((uint16_t *)p.kv.k)[base + d * KRN_KV_BLOCK + s] = 0x7c00;
                    ((uint16_t *)p.kv.v)[base + s * 32 + d] = 0x7c00;
                }
        for (int32_t i = 0; i < n_tables; i++) {
            tables[i]->attention(&one.a);
            assert_memory_equal(one.a.out, want + t * row, (size_t)row * sizeof(float));
        }
        batch_free(&one);
    }
    free(want);
    batch_free(&b);
    pool_free(&p);
}

/* ---- appending ------------------------------------------------------------------------------- */

static void every_table_appends_the_same_bytes(void **state)
{
    (void)state;
    static const int32_t dims[] = {8, 32, 80, 128, 20};
    const struct krn_table *tables[MAX_TABLES];
    int32_t n_tables = tables_here(tables);
    struct rnd r = {.key = 25};
    for (size_t i = 0; i < COUNT_OF(dims); i++)
        for (enum kv_type type = 0; type < KV_TYPES; type++) {
            int32_t n_kv = 3, n_tok = 7, pos[7];
            bool latent = i % 2;
            struct pool a = pool_latent(&r, n_kv, dims[i], latent ? dims[i] / 2 : 0, type);
            const int32_t *table[7];
            for (int32_t t = 0; t < n_tok; t++) {
                pos[t] = 90 * t + t;
                table[t] = a.table[t % 2];
            }
            float *k = case_floats(&r, (int64_t)n_tok * n_kv * dims[i], CASE_TINY);
            float *v = case_floats(&r, (int64_t)n_tok * n_kv * dims[i], CASE_LARGE);
            uint8_t *before = xmalloc(2 * a.bytes), *want = xmalloc(2 * a.bytes);
            memcpy(before, a.kv.k, a.bytes);
            if (!latent) memcpy(before + a.bytes, a.kv.v, a.bytes);
            struct krn_kv_append call = {
                .kv = &a.kv, .k = k, .v = latent ? NULL : v, .pos = pos, .table = table, .t0 = 1, .t1 = 6};
            for (int32_t n = 0; n < n_tables; n++) {
                memcpy(a.kv.k, before, a.bytes);
                if (!latent) memcpy(a.kv.v, before + a.bytes, a.bytes);
                tables[n]->kv_append(&call);
                if (n == 0) {
                    memcpy(want, a.kv.k, a.bytes);
                    if (!latent) memcpy(want + a.bytes, a.kv.v, a.bytes);
                }
                assert_memory_equal(a.kv.k, want, a.bytes);
                if (!latent) assert_memory_equal(a.kv.v, want + a.bytes, a.bytes);
            }
            free(before);
            free(want);
            free(k);
            free(v);
            pool_free(&a);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ref_is_softmax_times_values),
        cmocka_unit_test(ref_windows_caps_and_sinks),
        cmocka_unit_test(stored_rows_are_near_what_was_given),
        cmocka_unit_test(every_table_equals_ref),
        cmocka_unit_test(chunks_equal_ref),
        cmocka_unit_test(latent_tables_equal_ref),
        cmocka_unit_test(latent_is_values_from_the_keys),
        cmocka_unit_test(extreme_scores_agree),
        cmocka_unit_test(stale_keys_past_the_query_do_not_matter),
        cmocka_unit_test(every_table_appends_the_same_bytes),
    };
    return cmocka_run_group_tests_name("attention", tests, NULL, NULL);
}
