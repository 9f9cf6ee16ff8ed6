/* test_matmul.c: every table's matmul against ref, bit for bit; ref against its definition; and the
 * cut that does not show.
 *
 * Run with --bench for GB/s and GFLOP/s of every kernel (bench.c). */
#include "base/base.h"
#include "bench.h"
#include "cases.h"
#include "engine/file/dequant.h"
#include "engine/kernels/pack.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const enum dtype types[] = {
    DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K,
    DTYPE_Q4_1, DTYPE_Q5_0, DTYPE_Q5_1, DTYPE_Q2_K, DTYPE_Q3_K, DTYPE_IQ4_NL, DTYPE_IQ4_XS,
    DTYPE_MXFP4, DTYPE_IQ3_XXS, DTYPE_IQ3_S, DTYPE_IQ2_XXS, DTYPE_IQ2_XS, DTYPE_IQ2_S, DTYPE_IQ1_S,
    DTYPE_IQ1_M, DTYPE_TQ1_0, DTYPE_TQ2_0,
};
enum { MAX_TABLES = 8, PAD = 5 };

/* One product with its output, laid out [tok][node][rows] with a few words of padding that nobody
 * may touch. */
struct product {
    struct krn_matmul a;
    int64_t n_y;
};

static struct product product_make(const struct krn_mat *w, const struct krn_act *x,
                                   const struct krn_leaves *l)
{
    struct product p = {.a = {.w = w, .x = x, .leaves = l, .row0 = 0, .row1 = w->rows}};
    p.a.node_stride = w->rows + PAD;
    p.a.y_stride = p.a.node_stride * l->n_nodes;
    p.n_y = p.a.y_stride * x->n_tok;
    p.a.y = case_alloc((size_t)p.n_y * sizeof(float));
    memset(p.a.y, 0xa5, (size_t)p.n_y * sizeof(float));
    return p;
}

static void assert_same(const struct product *p, const struct product *q,
                        const struct krn_table *table, const char *what)
{
    if (memcmp(p->a.y, q->a.y, (size_t)p->n_y * sizeof(float)) == 0) return;
    int64_t i = 0;
    while (memcmp(&p->a.y[i], &q->a.y[i], sizeof(float)) == 0) i++;
    fail_msg("%s of %s, %s, %s, %d x %d, %d tokens, %d leaves: output %lld is %a, not %a", what,
             table->name, dtype_name(p->a.w->type), p->a.x->q ? "int8" : "f32", p->a.w->rows,
             p->a.w->cols, p->a.x->n_tok, p->a.leaves->n_leaf, (long long)i, (double)q->a.y[i],
             (double)p->a.y[i]);
}

/* ---- ref against the definition -------------------------------------------------------------- */

/* The definition over the file's own values: a chain per leaf, leaves in the tree. */
static float defined(const float *w, const float *x, const int32_t *bound, int32_t a, int32_t b)
{
    if (b - a > 1) {
        float left = defined(w, x, bound, a, tree_split(a, b));
        return left + defined(w, x, bound, tree_split(a, b), b);
    }
    float acc = 0.0f;
    for (int32_t k = bound[a]; k < bound[b]; k++) acc = fmaf(w[k], x[k], acc);
    return acc;
}

static void ref_is_the_definition_in_f32(void **state)
{
    (void)state;
    struct rnd r = {.key = 11};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        int32_t cols = 512, rows = 21, bound[8];
        struct case_file f = case_file_make(&r, types[i], rows, cols);
        struct krn_mat w = case_pack(&f, 0, cols);
        struct krn_act x = case_act(&r, 2, cols, false, CASE_NORMAL);
        struct krn_leaves l;
        case_bounds(&r, 7, cols, KRN_UNIT, bound);
        case_leaves(bound, 7, 0, 7, &l);
        struct product p = product_make(&w, &x, &l);
        krn_ref.matmul(&p.a);
        float value[512];
        for (int32_t row = 0; row < rows; row++) {
            eng_dequant_row(f.type, f.bytes + row * f.row_bytes, value, cols);
            for (int32_t t = 0; t < 2; t++)
                assert_true(p.a.y[t * p.a.y_stride + row] ==
                            defined(value, x.x + t * cols, bound, 0, 7));
        }
        free(p.a.y);
        free((void *)w.data);
        case_act_free(&x);
        case_file_free(&f);
    }
}

static void ref_in_int8_is_the_product_of_the_quantised(void **state)
{
    (void)state;
    struct rnd r = {.key = 12};
    for (size_t i = 3; i < COUNT_OF(types); i++) {
        int32_t cols = 768, rows = 33;
        static const int32_t bound[2] = {0, 768};
        struct case_file f = case_file_make(&r, types[i], rows, cols);
        struct krn_mat w = case_pack(&f, 0, cols);
        struct krn_act x = case_act(&r, 1, cols, true, CASE_NORMAL);
        struct krn_leaves l;
        case_leaves(bound, 1, 0, 1, &l);
        struct product p = product_make(&w, &x, &l);
        krn_ref.matmul(&p.a);
        float value[768];
        for (int32_t row = 0; row < rows; row++) {
            double sum = 0, size = 0;
            eng_dequant_row(f.type, f.bytes + row * f.row_bytes, value, cols);
            for (int32_t k = 0; k < cols; k++) {
                struct case_unit u = case_unit_at(&x, 0, k / KRN_UNIT);
                double term = (double)value[k] * (double)u.d * u.q[k % KRN_UNIT];
                sum += term;
                size += fabs(term);
            }
            assert_true(fabs((double)p.a.y[row] - sum) <= 1e-6 * size);
        }
        free(p.a.y);
        free((void *)w.data);
        case_act_free(&x);
        case_file_free(&f);
    }
}

/* ---- tables against ref ---------------------------------------------------------------------- */

struct shape {
    int32_t rows, cols, k0, n_tok, n_leaf;
    bool quantise;
    int32_t kind;
};

static struct shape random_shape(struct rnd *r, enum dtype type)
{
    static const int32_t n_toks[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 33};
    static const int32_t n_leaves[] = {1, 1, 3, 5, 16, 56};
    struct shape s = {.rows = rnd_between(r, 1, 70),
                      .n_tok = n_toks[rnd_below(r, COUNT_OF(n_toks))]};
    s.kind = rnd_below(r, 3) ? CASE_NORMAL : rnd_between(r, 0, CASE_KINDS - 1);
    bool quant = krn_pack_is_quant(type);
    int32_t grain = quant ? KRN_UNIT : rnd_below(r, 2) ? 8 : 1;
    do s.n_leaf = n_leaves[rnd_below(r, COUNT_OF(n_leaves))];
    while (s.n_leaf > 16 && s.rows > 35);
    s.cols = grain * rnd_between(r, s.n_leaf, MAX(s.n_leaf, quant ? 20 : 90));
    s.k0 = grain * rnd_below(r, 9);
    s.quantise = quant && rnd_below(r, 2);
    return s;
}

static void check_shape(struct rnd *r, enum dtype type, const struct shape *s)
{
    const struct krn_table *tables[MAX_TABLES];
    int32_t n_tables = krn_table_all(tables, MAX_TABLES), bound[TREE_MAX_LEAF + 1];
    int32_t whole = ROUND_UP(s->k0 + s->cols, dtype_block(type));
    struct case_file f = case_file_make(r, type, s->rows, whole);
    struct krn_mat w = case_pack(&f, s->k0, s->cols);
    struct krn_act x = case_act(r, s->n_tok, s->cols, s->quantise, s->kind);
    struct krn_leaves l;
    case_bounds(r, s->n_leaf, s->cols, krn_pack_is_quant(type) ? KRN_UNIT : 1, bound);
    case_leaves(bound, s->n_leaf, 0, s->n_leaf, &l);

    struct product want = product_make(&w, &x, &l);
    krn_ref.matmul(&want.a);
    for (int32_t i = 1; i < n_tables; i++) {
        struct product got = product_make(&w, &x, &l);
        tables[i]->matmul(&got.a);
        assert_same(&want, &got, tables[i], "matmul");
        /* the same in two calls, as two threads would share it */
        memset(got.a.y, 0xa5, (size_t)got.n_y * sizeof(float));
        int32_t middle = rnd_below(r, s->rows / KRN_TILE + 1) * KRN_TILE;
        got.a.row0 = middle;
        tables[i]->matmul(&got.a);
        got.a.row0 = 0;
        got.a.row1 = middle;
        tables[i]->matmul(&got.a);
        assert_same(&want, &got, tables[i], "matmul in two row ranges");
        /* rows of f32 instead of panels */
        struct krn_act rows = x;
        rows.xt = NULL;
        got.a.x = &rows;
        got.a.row0 = 0;
        got.a.row1 = s->rows;
        memset(got.a.y, 0xa5, (size_t)got.n_y * sizeof(float));
        tables[i]->matmul(&got.a);
        assert_same(&want, &got, tables[i], "matmul without panels");
        free(got.a.y);
    }
    free(want.a.y);
    free((void *)w.data);
    case_act_free(&x);
    case_file_free(&f);
}

static void every_table_equals_ref(void **state)
{
    (void)state;
    struct rnd r = {.key = 13};
    printf("seed %llu\n", (unsigned long long)r.key);
    for (size_t i = 0; i < COUNT_OF(types); i++)
        for (int32_t n = 0; n < 40; n++) {
            struct shape s = random_shape(&r, types[i]);
            check_shape(&r, types[i], &s);
        }
    struct shape long_chunk = {
        .rows = 150, .cols = 2080, .n_tok = 70, .n_leaf = 3, .quantise = true};
    check_shape(&r, DTYPE_Q4_0, &long_chunk);
    long_chunk.quantise = false;
    check_shape(&r, DTYPE_BF16, &long_chunk);
    struct shape many = {.rows = 20, .cols = 1040, .n_tok = 3, .n_leaf = 1000};
    check_shape(&r, DTYPE_F16, &many);
}

/* Blocks whose codes are all ones or all zeros (Q8_0: also -128), against activations of +-127:
 * where a sum in 16 bits would saturate. */
static void the_largest_codes_do_not_saturate(void **state)
{
    (void)state;
    struct rnd r = {.key = 16};
    const struct krn_table *tables[MAX_TABLES];
    static const uint8_t fills[] = {0xff, 0x00, 0x80, 0x7f};
    int32_t n_tables = krn_table_all(tables, MAX_TABLES), bound[2] = {0, 256};
    struct krn_leaves l;
    case_leaves(bound, 1, 0, 1, &l);
    for (size_t i = 3; i < COUNT_OF(types); i++)
        for (size_t n = 0; n < 2 * COUNT_OF(fills); n++) {
            struct case_file f = case_file_make(&r, types[i], 16, 256);
            for (int64_t at = 0; at < f.row_bytes * 16; at += dtype_block_bytes(f.type)) {
                memset(f.bytes + at, fills[n / 2], (size_t)dtype_block_bytes(f.type));
                eng_block_put_size(f.type, f.bytes + at, rnd_normal(&r));
            }
            struct krn_mat w = case_pack(&f, 0, 256);
            struct krn_act x = case_act(&r, 7, 256, true, CASE_NORMAL);
            for (int32_t k = 0; k < 7 * 256; k++) ((float *)x.x)[k] = n % 2 ? -2.5f : 2.5f;
            krn_ref.quantize(&x, 0, 7, 0, 256 / KRN_UNIT);
            assert_int_equal(case_unit_at(&x, 6, 0).q[0], n % 2 ? -127 : 127);
            struct product want = product_make(&w, &x, &l);
            krn_ref.matmul(&want.a);
            for (int32_t k = 1; k < n_tables; k++) {
                struct product got = product_make(&w, &x, &l);
                tables[k]->matmul(&got.a);
                assert_same(&want, &got, tables[k], "matmul of extreme codes");
                free(got.a.y);
            }
            free(want.a.y);
            free((void *)w.data);
            case_act_free(&x);
            case_file_free(&f);
        }
}

/* ---- batches and cuts ------------------------------------------------------------------------ */

static void a_token_does_not_see_its_batch(void **state)
{
    (void)state;
    struct rnd r = {.key = 14};
    const struct krn_table *tables[MAX_TABLES];
    int32_t n_tables = krn_table_all(tables, MAX_TABLES), bound[2] = {0, 256};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        struct case_file f = case_file_make(&r, types[i], 40, 256);
        struct krn_mat w = case_pack(&f, 0, 256);
        struct krn_act x = case_act(&r, 23, 256, krn_pack_is_quant(types[i]), CASE_NORMAL);
        struct krn_leaves l;
        case_leaves(bound, 1, 0, 1, &l);
        for (int32_t k = 0; k < n_tables; k++) {
            struct product all = product_make(&w, &x, &l);
            tables[k]->matmul(&all.a);
            for (int32_t t = 0; t < x.n_tok; t++) {
                struct krn_act rows = {.n_tok = 1, .cols = 256, .x = x.x + t * 256, .q = x.q};
                struct krn_act one = case_act_slice(&rows, 0, 256);
                struct product p = product_make(&w, &one, &l);
                tables[k]->matmul(&p.a);
                assert_memory_equal(p.a.y, all.a.y + t * all.a.y_stride, 40 * sizeof(float));
                free(p.a.y);
                case_act_free(&one);
            }
            free(all.a.y);
        }
        free((void *)w.data);
        case_act_free(&x);
        case_file_free(&f);
    }
}

enum { MAX_RANKS = 4 };

/* What the ranks of a cut hold, to be added as the all-reduce adds. */
struct cut {
    int32_t n_ranks;
    struct krn_leaves leaves[MAX_RANKS];
    struct product part[MAX_RANKS];
};

static float reduced(const struct cut *c, int32_t t, int32_t row, int32_t a, int32_t b)
{
    for (int32_t i = 0; i < c->n_ranks; i++)
        for (int32_t n = 0; n < c->leaves[i].n_nodes; n++)
            if (c->leaves[i].nodes[n].a == a && c->leaves[i].nodes[n].b == b)
                return c->part[i]
                    .a.y[t * c->part[i].a.y_stride + n * c->part[i].a.node_stride + row];
    float left = reduced(c, t, row, a, tree_split(a, b));
    return left + reduced(c, t, row, tree_split(a, b), b);
}

static void check_cut(struct rnd *r, const struct krn_table *table, enum dtype type, int32_t n_leaf,
                      int32_t n_ranks, bool quantise)
{
    int32_t grain = krn_pack_is_quant(type) ? KRN_UNIT : 4,
            cols = ROUND_UP(n_leaf * grain * 2, 256), bound[64];
    struct case_file f = case_file_make(r, type, 18, cols);
    struct krn_mat whole = case_pack(&f, 0, cols), slice[MAX_RANKS];
    struct krn_act x = case_act(r, 3, cols, quantise, CASE_NORMAL), part_x[MAX_RANKS];
    struct krn_leaves l;
    struct cut c = {.n_ranks = n_ranks};
    case_bounds(r, n_leaf, cols, grain, bound);
    case_leaves(bound, n_leaf, 0, n_leaf, &l);
    struct product want = product_make(&whole, &x, &l);
    table->matmul(&want.a);

    int32_t lo = 0;
    for (int32_t i = 0; i < n_ranks; i++) {
        int32_t hi = i == n_ranks - 1 ? n_leaf : rnd_between(r, lo + 1, n_leaf - (n_ranks - 1 - i));
        int32_t width = bound[hi] - bound[lo];
        case_leaves(bound, n_leaf, lo, hi, &c.leaves[i]);
        slice[i] = case_pack(&f, bound[lo], width);
        part_x[i] = case_act_slice(&x, bound[lo], width);
        c.part[i] = product_make(&slice[i], &part_x[i], &c.leaves[i]);
        table->matmul(&c.part[i].a);
        lo = hi;
    }
    for (int32_t t = 0; t < x.n_tok; t++)
        for (int32_t row = 0; row < f.rows; row++) {
            float sum = reduced(&c, t, row, 0, n_leaf);
            assert_memory_equal(&sum, &want.a.y[t * want.a.y_stride + row], sizeof sum);
        }
    for (int32_t i = 0; i < n_ranks; i++) {
        free(c.part[i].a.y);
        free((void *)slice[i].data);
        case_act_free(&part_x[i]);
    }
    free(want.a.y);
    free((void *)whole.data);
    case_act_free(&x);
    case_file_free(&f);
}

static void the_cut_does_not_show(void **state)
{
    (void)state;
    struct rnd r = {.key = 15};
    const struct krn_table *tables[MAX_TABLES];
    static const int32_t n_leaves[] = {5, 16, 56};
    int32_t n_tables = krn_table_all(tables, MAX_TABLES);
    printf("seed %llu\n", (unsigned long long)r.key);
    for (int32_t k = 0; k < n_tables; k++)
        for (size_t i = 0; i < COUNT_OF(types); i++)
            for (int32_t n_ranks = 2; n_ranks <= MAX_RANKS; n_ranks++)
                for (size_t n = 0; n < COUNT_OF(n_leaves); n++) {
                    if (n_leaves[n] == 56 && k == 0 && n_ranks > 2)
                        continue; /* ref takes its time */
                    check_cut(&r, tables[k], types[i], n_leaves[n], n_ranks,
                              krn_pack_is_quant(types[i]) && n != 1);
                }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ref_is_the_definition_in_f32),
        cmocka_unit_test(ref_in_int8_is_the_product_of_the_quantised),
        cmocka_unit_test(every_table_equals_ref),
        cmocka_unit_test(the_largest_codes_do_not_saturate),
        cmocka_unit_test(a_token_does_not_see_its_batch),
        cmocka_unit_test(the_cut_does_not_show),
    };
    if (argc > 1 && strcmp(argv[1], "--bench") == 0)
        return kernels_bench(argc > 2 ? argv[2] : NULL, argc > 3 ? argv[3] : NULL);
    return cmocka_run_group_tests_name("matmul", tests, NULL, NULL);
}
