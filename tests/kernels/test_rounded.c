/* test_rounded.c: products that round (engine/kernels/rounded.h): their definition, written a second time, bit for bit; and how far they are
 * from the exact ones. */
#include "base/base.h"
#include "cases.h"
#include "engine/file/half.h"
#include "engine/kernels/pack.h"
#include "engine/kernels/rounded.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const struct krn_table *table;
static const struct krn_rounded *rounded;

static int find(void **state)
{
    (void)state;
    assert_int_equal(krn_table_pick("auto", &table), OK);
    rounded = krn_rounded_of(table);
    printf("rounded: %s of %s\n", rounded ? rounded->name : "none", table->name);
    return 0;
}

static float bf16(float f) { return half_bf16_to_f32(half_f32_to_bf16(f)); }

/* One leaf, columns [k0,k1). */
static float chain(const float *w, const float *x, int32_t k0, int32_t k1)
{
    float acc = 0.0f;
    for (int32_t k = k0; k < k1; k += 2) {
        if (k + 1 < k1) acc = fmaf(bf16(w[k + 1]), bf16(x[k + 1]), acc);
        acc = fmaf(bf16(w[k]), bf16(x[k]), acc);
    }
    return acc;
}

static float defined(const float *w, const float *x, const int32_t *bound, int32_t a, int32_t b)
{
    if (b - a == 1) return chain(w, x, bound[a], bound[b]);
    float left = defined(w, x, bound, a, tree_split(a, b));
    return left + defined(w, x, bound, tree_split(a, b), b);
}

/* Interleaved in two pieces each way, as threads would. */
static void interleave(struct krn_act *x, struct rnd *r)
{
    int32_t k = rnd_below(r, x->cols / 2 + 1) * 2, t = rnd_below(r, x->n_tok);
    int64_t n = krn_act_xb_words(x->n_tok, x->cols);
    x->xb = case_alloc((size_t)n * sizeof *x->xb);
    memset(x->xb, 0xff, (size_t)n * sizeof *x->xb); /* not numbers: they must not be left */
    rounded->interleave(x, t, x->n_tok, k, x->cols);
    rounded->interleave(x, 0, t, k, x->cols);
    rounded->interleave(x, t, x->n_tok, 0, k);
    rounded->interleave(x, 0, t, 0, k);
}

struct product { struct krn_mat w; struct krn_act x; struct krn_leaves l; int32_t bound[32], n_leaf; float *values, *y; };

static struct product random_product(struct rnd *r, enum dtype type)
{
    static const int32_t n_toks[] = {1, 2, 3, 5, 7, 8, 9, 12, 16, 17, 24, 33}, n_leaves[] = {1, 1, 2, 5, 9};
    struct product p = {.n_leaf = n_leaves[rnd_below(r, COUNT_OF(n_leaves))]};
    int32_t rows = rnd_between(r, 1, 70), cols = 2 * rnd_between(r, p.n_leaf, 90) + rnd_below(r, 2), n_tok = n_toks[rnd_below(r, COUNT_OF(n_toks))];
    struct case_file f = case_file_make(r, type, rows, cols);
    p.w = case_pack(&f, 0, cols);
    case_file_free(&f);
    p.values = case_alloc((size_t)rows * (size_t)cols * sizeof *p.values);
    for (int32_t i = 0; i < rows; i++) krn_unpack_row(&p.w, i, p.values + (int64_t)i * cols);
    p.x = case_act(r, n_tok, cols, false, rnd_below(r, 4) ? CASE_NORMAL : CASE_LARGE);
    interleave(&p.x, r);
    case_bounds(r, p.n_leaf, cols / 2 * 2, 2, p.bound);
    p.bound[p.n_leaf] = cols;
    case_leaves(p.bound, p.n_leaf, 0, p.n_leaf, &p.l);
    p.y = case_alloc((size_t)n_tok * (size_t)rows * sizeof *p.y);
    return p;
}

static void product_free(struct product *p)
{
    free((void *)p->w.data);
    free(p->values);
    free(p->y);
    free(p->x.xb);
    case_act_free(&p->x);
}

/* In two row ranges, as two threads would. */
static void run(struct product *p, struct rnd *r, void (*matmul)(const struct krn_matmul *))
{
    struct krn_matmul a = {.w = &p->w, .x = &p->x, .leaves = &p->l, .y = p->y, .y_stride = p->w.rows};
    a.row1 = rnd_below(r, p->w.rows / KRN_TILE + 1) * KRN_TILE;
    if (a.row1) matmul(&a);
    a.row0 = a.row1;
    a.row1 = p->w.rows;
    if (a.row0 < a.row1) matmul(&a);
}

static void products_are_their_definition(void **state)
{
    (void)state;
    struct rnd r = {.key = 71};
    if (!rounded) skip();
    for (int32_t n = 0; n < 400; n++) {
        struct product p = random_product(&r, n % 2 ? DTYPE_F16 : DTYPE_BF16);
        run(&p, &r, rounded->matmul);
        for (int32_t t = 0; t < p.x.n_tok; t++)
            for (int32_t i = 0; i < p.w.rows; i++) {
                float want = defined(p.values + (int64_t)i * p.w.cols, p.x.x + (int64_t)t * p.w.cols, p.bound, 0, p.n_leaf);
                float got = p.y[(int64_t)t * p.w.rows + i];
                if (memcmp(&want, &got, sizeof want))
                    fail_msg("%s, %d x %d, %d tokens, %d leaves: row %d of token %d is %a, not %a", dtype_name(p.w.type), p.w.rows, p.w.cols,
                             p.x.n_tok, p.n_leaf, i, t, (double)got, (double)want);
            }
        product_free(&p);
    }
}

/* Each factor is off by 2^-8 of itself at most (of BF16 only the activation is), and f32 adds little. */
static void products_are_near_the_exact_ones(void **state)
{
    (void)state;
    struct rnd r = {.key = 72};
    double worst = 0;
    if (!rounded) skip();
    for (int32_t n = 0; n < 200; n++) {
        struct product p = random_product(&r, n % 2 ? DTYPE_F16 : DTYPE_BF16);
        size_t bytes = (size_t)p.x.n_tok * (size_t)p.w.rows * sizeof *p.y;
        float *got = case_alloc(bytes);
        run(&p, &r, rounded->matmul);
        memcpy(got, p.y, bytes);
        run(&p, &r, table->matmul);
        for (int32_t t = 0; t < p.x.n_tok; t++)
            for (int32_t i = 0; i < p.w.rows; i++) {
                double size = 0, bound = n % 2 ? 0x1p-7 : 0x1p-8;
                int64_t at = (int64_t)t * p.w.rows + i;
                for (int32_t k = 0; k < p.w.cols; k++)
                    size += fabs((double)p.values[(int64_t)i * p.w.cols + k] * (double)p.x.x[(int64_t)t * p.w.cols + k]);
                double off = fabs((double)got[at] - (double)p.y[at]);
                assert_true(off <= 1.01 * bound * size);
                worst = MAX(worst, size > 0 ? off / size : 0);
            }
        free(got);
        product_free(&p);
    }
    printf("worst: %.1e of the sum of terms\n", worst);
    assert_true(worst > 1e-5); /* else nothing was rounded */
}

static void only_the_processor_s_own_tables_round(void **state)
{
    (void)state;
    const struct krn_table *t;
    assert_null(krn_rounded_of(&krn_ref));
    if (krn_table_pick("avx2", &t) == OK) assert_null(krn_rounded_of(t));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_their_definition),
        cmocka_unit_test(products_are_near_the_exact_ones),
        cmocka_unit_test(only_the_processor_s_own_tables_round),
    };
    return cmocka_run_group_tests_name("rounded", tests, find, NULL);
}
