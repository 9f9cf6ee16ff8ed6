/* test_ops.c: the small operations of every table against ref, bit for bit, over tails, alignments
 * and special values; and the choice of a table. */
#include "base/base.h"
#include "cases.h"
#include "engine/kernels/math.h"
#include "engine/kernels/panel.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MAX_TABLES = 8 };
static const struct krn_table *tables[MAX_TABLES];
static int32_t n_tables;

static int find_tables(void **state)
{
    (void)state;
    n_tables = krn_table_all(tables, MAX_TABLES);
    printf("tables:");
    for (int32_t i = 0; i < n_tables; i++) printf(" %s", tables[i]->name);
    printf("\n");
    return 0;
}

static void assert_bits(const void *want, const void *got, int64_t n, const struct krn_table *t,
                        const char *what, int64_t size)
{
    if (memcmp(want, got, (size_t)n * sizeof(float)) != 0)
        fail_msg("%s of %s differs from ref at size %lld", what, t->name, (long long)size);
}

/* n values from a generous buffer, off alignment by `shift` floats. */
struct pair {
    float *base, *x;
};
static struct pair values(struct rnd *r, int64_t n, int32_t kind)
{
    int32_t shift = rnd_below(r, 16);
    struct pair p = {.base = case_floats(r, n + 16, kind)};
    p.x = p.base + shift;
    return p;
}

/* Every unit within half a step of its values, and the sums those of the codes. */
static void check_units(const struct krn_act *x)
{
    for (int32_t t = 0; t < x->n_tok; t++)
        for (int32_t u = 0; u < x->cols / KRN_UNIT; u++) {
            struct case_unit unit = case_unit_at(x, t, u);
            const float *v = x->x + (int64_t)t * x->cols + u * KRN_UNIT;
            int32_t s = 0;
            for (int32_t i = 0; i < KRN_UNIT; i++) {
                assert_true(unit.q[i] >= -127);
                float error = fabsf((float)unit.q[i] * unit.d - v[i]);
                assert_true(error <= unit.d * 0.5001f || unit.d < 0x1p-120f);
                s += unit.q[i];
            }
            assert_int_equal(s, unit.s);
        }
}

/* In four pieces, as threads would share it. */
static void quantize_in_pieces(const struct krn_table *k, const struct krn_act *y, int32_t t0,
                               int32_t u0)
{
    int32_t units = y->cols / KRN_UNIT;
    k->quantize(y, t0, y->n_tok, u0, units);
    k->quantize(y, 0, t0, u0, units);
    k->quantize(y, t0, y->n_tok, 0, u0);
    k->quantize(y, 0, t0, 0, u0);
}

static void quantize_agrees(void **state)
{
    (void)state;
    struct rnd r = {.key = 31};
    for (int32_t n = 0; n < 300; n++) {
        int32_t cols = KRN_UNIT * rnd_between(&r, 1, 9), n_tok = rnd_between(&r, 1, n % 9 ? 5 : 40);
        struct krn_act x = case_act(&r, n_tok, cols, true, n % CASE_KINDS);
        if (n % 5 == 0) memset((float *)x.x, 0, KRN_UNIT * sizeof(float));
        if (n % 5 == 1)
            ((float *)x.x)[0] = 0x1p-149f; /* alone among zeros its inverse would overflow */
        if (n % 5 == 1) memset((float *)x.x + 1, 0, (KRN_UNIT - 1) * sizeof(float));
        krn_ref.quantize(&x, 0, n_tok, 0, cols / KRN_UNIT);
        check_units(&x);
        for (int32_t i = 0; i < n_tables; i++) {
            struct krn_act y = case_act_copy(&x);
            size_t bytes = (size_t)krn_act_q_bytes(n_tok, cols);
            memset(y.q, 0x55, bytes);
            quantize_in_pieces(tables[i], &y, rnd_below(&r, n_tok), rnd_below(&r, cols / KRN_UNIT));
            assert_memory_equal(x.q, y.q, bytes);
            case_act_free(&y);
        }
        case_act_free(&x);
    }
}

static void halves_round_to_even(void **state)
{
    (void)state;
    float x[KRN_UNIT] = {127.0f, 0.5f,  1.5f,   2.5f,    -0.5f,
                         -1.5f,  -2.5f, 126.5f, -126.5f, 0.49999997f};
    static const int8_t want[10] = {127, 0, 2, 2, 0, -2, -2, 126, -126, 0};
    for (int32_t i = 0; i < n_tables; i++) {
        struct krn_act a = {.n_tok = 1, .cols = KRN_UNIT, .x = x};
        a.q = case_alloc((size_t)krn_act_q_bytes(1, KRN_UNIT));
        tables[i]->quantize(&a, 0, 1, 0, 1);
        struct case_unit u = case_unit_at(&a, 0, 0);
        assert_memory_equal(u.q, want, sizeof want);
        assert_true(u.d == 1.0f && u.s == 127);
        free(a.q);
    }
}

static void interleaved_rows_are_the_rows(void **state)
{
    (void)state;
    struct rnd r = {.key = 36};
    for (int32_t n = 0; n < 60; n++) {
        int32_t cols = rnd_between(&r, 1, 70), n_tok = rnd_between(&r, 1, 40),
                k = rnd_below(&r, cols);
        struct krn_act x = case_act(&r, n_tok, cols, false, CASE_NORMAL);
        for (int32_t t = 0; t < n_tok; t++) {
            int32_t t0 = t / KRN_GROUP * KRN_GROUP, width = krn_group_width(n_tok, t0);
            assert_true(x.xt[t0 * cols + k * width + t - t0] == x.x[t * cols + k]);
        }
        for (int32_t i = 0; i < n_tables; i++) {
            struct krn_act y = case_act_copy(&x);
            int32_t t0 = rnd_below(&r, n_tok);
            tables[i]->interleave(&y, 0, t0, 0, cols);
            tables[i]->interleave(&y, t0, n_tok, k, cols);
            tables[i]->interleave(&y, t0, n_tok, 0, k);
            assert_bits(x.xt, y.xt, (int32_t)krn_act_xt_floats(n_tok, cols), tables[i],
                        "interleave", cols);
            case_act_free(&y);
        }
        case_act_free(&x);
    }
}

static void rmsnorm_agrees(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1,  7,  8,  15,  16,  17,  31,   63,
                                    64, 65, 80, 128, 172, 288, 1000, 2048};
    struct rnd r = {.key = 32};
    for (size_t k = 0; k < COUNT_OF(sizes); k++)
        for (int32_t kind = 0; kind < CASE_KINDS; kind++) {
            int32_t d = sizes[k];
            struct pair x = values(&r, 3 * d, kind == CASE_LARGE ? CASE_NORMAL : kind),
                        w = values(&r, d, kind);
            float *want = case_alloc((size_t)(3 * d) * 4), *got = case_alloc((size_t)(3 * d) * 4);
            krn_ref.rmsnorm(want, x.x, w.x, d, 1e-5f, 0, 3);
            for (int32_t i = 1; i < n_tables; i++) {
                tables[i]->rmsnorm(got, x.x, w.x, d, 1e-5f, 2, 3);
                tables[i]->rmsnorm(got, x.x, w.x, d, 1e-5f, 0, 2);
                assert_bits(want, got, 3 * d, tables[i], "rmsnorm", d);
                memcpy(got, x.x, (size_t)(3 * d) * sizeof *got);
                tables[i]->rmsnorm(got, got, w.x, d, 1e-5f, 0, 3);
                assert_bits(want, got, 3 * d, tables[i], "rmsnorm in place", d);
            }
            free(x.base);
            free(w.base);
            free(want);
            free(got);
        }
}

static void rope_agrees(void **state)
{
    (void)state;
    static const int32_t dims[] = {8, 16, 20, 32, 64, 80, 128};
    struct rnd r = {.key = 33};
    for (size_t k = 0; k < COUNT_OF(dims); k++)
        for (int32_t part = 0; part < 2; part++)
            for (int32_t interleaved = 0; interleaved < 2; interleaved++) {
                int32_t dim = dims[k], rot = part ? dim / 4 * 2 : dim, n = 3 * 2 * dim;
                struct pair x = values(&r, n, CASE_NORMAL), c0 = values(&r, rot, CASE_NORMAL),
                            c1 = values(&r, rot, CASE_TINY);
                const float *cs[3] = {c0.x, c1.x, c0.x};
                float *want = case_alloc((size_t)n * 4), *got = case_alloc((size_t)n * 4);
                memcpy(want, x.x, (size_t)n * 4);
                krn_ref.rope(want, 2, dim, rot, interleaved, cs, 0, 3);
                assert_memory_not_equal(want, x.x, (size_t)n * 4);
                for (int32_t i = 1; i < n_tables; i++) {
                    memcpy(got, x.x, (size_t)n * 4);
                    tables[i]->rope(got, 2, dim, rot, interleaved, cs, 1, 3);
                    assert_memory_equal(got, x.x, (size_t)(2 * dim) * 4);
                    tables[i]->rope(got, 2, dim, rot, interleaved, cs, 0, 1);
                    assert_bits(want, got, n, tables[i], interleaved ? "interleaved rope" : "rope",
                                dim);
                }
                free(x.base);
                free(c0.base);
                free(c1.base);
                free(want);
                free(got);
            }
}

static void rope_turns_by_the_angle(void **state)
{
    (void)state;
    float cs[2] = {cosf(0.3f), sinf(0.3f)}, a[2] = {1, 0}, b[4] = {1, 7, 0, 7};
    const float *table = cs;
    krn_ref.rope(a, 1, 2, 2, true, &table, 0, 1);
    assert_true(a[0] == cs[0] && a[1] == cs[1]);
    float two[4] = {cs[0], cs[1], 1, 0};
    table = two;
    krn_ref.rope(b, 1, 4, 4, false, &table, 0, 1); /* pairs (0,2) and (1,3) */
    assert_true(b[0] == cs[0] && b[2] == cs[1] && b[1] == 7 && b[3] == 7);
}

static void elementwise_agrees(void **state)
{
    (void)state;
    struct rnd r = {.key = 34};
    for (int64_t n = 1; n < 200; n += n < 40 ? 1 : 13)
        for (int32_t kind = 0; kind < CASE_KINDS; kind++) {
            struct pair g = values(&r, n, kind), u = values(&r, n, CASE_NORMAL);
            for (int64_t i = 0; i < n; i += 5) g.x[i] *= 60.0f; /* past both ends of e^x too */
            float *want = case_alloc((size_t)n * 4), *got = case_alloc((size_t)n * 4 + 64);
            krn_ref.silu_mul(want, g.x, u.x, n);
            for (int32_t i = 1; i < n_tables; i++) {
                memset(got, 0xa5, (size_t)n * 4 + 64);
                tables[i]->silu_mul(got, g.x, u.x, n);
                assert_bits(want, got, n, tables[i], "silu_mul", n);
                for (int64_t k = n * 4; k < n * 4 + 64; k++)
                    assert_int_equal(((uint8_t *)got)[k], 0xa5);
                memcpy(got, g.x, (size_t)n * 4);
                tables[i]->silu_mul(got, got, u.x, n);
                assert_bits(want, got, n, tables[i], "silu_mul in place", n);
            }
            memcpy(want, g.x, (size_t)n * 4);
            krn_ref.add(want, u.x, n);
            for (int32_t i = 1; i < n_tables; i++) {
                memcpy(got, g.x, (size_t)n * 4);
                tables[i]->add(got, u.x, n);
                assert_bits(want, got, n, tables[i], "add", n);
            }
            free(g.base);
            free(u.base);
            free(want);
            free(got);
        }
}

static void gates_agree(void **state)
{
    (void)state;
    struct rnd r = {.key = 37};
    for (int64_t n = 1; n < 200; n += n < 40 ? 1 : 13)
        for (int32_t kind = 0; kind < CASE_KINDS; kind++)
            for (int32_t gate = KRN_GELU_TANH; gate <= KRN_SWIGLU_CLAMPED; gate++) {
                struct pair g = values(&r, n, kind), u = values(&r, n, CASE_NORMAL);
                for (int64_t i = 0; i < n; i += 5) g.x[i] *= 60.0f, u.x[i] *= 9.0f;
                const float *with = gate == KRN_SWIGLU_CLAMPED || n % 2 ? u.x : NULL;
                float *want = case_alloc((size_t)n * 4), *got = case_alloc((size_t)n * 4 + 64);
                krn_ref.gate(gate, want, g.x, with, n);
                for (int32_t i = 1; i < n_tables; i++) {
                    memset(got, 0xa5, (size_t)n * 4 + 64);
                    tables[i]->gate(gate, got, g.x, with, n);
                    assert_bits(want, got, n, tables[i], "gate", n);
                    for (int64_t k = n * 4; k < n * 4 + 64; k++) assert_int_equal(((uint8_t *)got)[k], 0xa5);
                    memcpy(got, g.x, (size_t)n * 4);
                    tables[i]->gate(gate, got, got, with, n);
                    assert_bits(want, got, n, tables[i], "gate in place", n);
                }
                free(g.base);
                free(u.base);
                free(want);
                free(got);
            }
}

static void gates_are_the_functions(void **state)
{
    (void)state;
    for (float x = -12.0f; x < 12.0f; x += 0.0137f) {
        float got[4], u = 1.5f - x, cap = x * 4;
        double g = (double)x, gc = fmin(g, 7), uc = fmin(fmax((double)u, -7), 7);
        krn_ref.gate(KRN_GELU_TANH, &got[0], &x, NULL, 1);
        krn_ref.gate(KRN_GELU_ERF, &got[1], &x, &u, 1);
        krn_ref.gate(KRN_SWIGLU_CLAMPED, &got[2], &x, &u, 1);
        krn_ref.softcap(&cap, 30.0f, 1);
        double want[] = {0.5 * g * (1 + tanh(0.7978845608028654 * (g + 0.044715 * g * g * g))),
                         0.5 * g * (1 + erf(g * 0.7071067811865476)) * (double)u, (uc + 1) * gc / (1 + exp(-1.702 * gc)),
                         30 * tanh((double)(x * 4) / 30)};
        got[3] = cap;
        for (int32_t i = 0; i < 4; i++)
            if (fabs(want[i] - (double)got[i]) > 4e-6 + 1e-6 * fabs(want[i])) fail_msg("function %d of %g is %g, not %g", i, g, (double)got[i], want[i]);
    }
}

/* Two rows of a third of x each, the second into the first of y. */
static void axpy(const struct krn_table *t, float *y, const float *x, int64_t n)
{
    int64_t each = n / 3;
    if (each) t->axpy_rows(y, each, (const int32_t[]){1, 0}, (const float[]){-1.7f, 0.3f}, x, each + 1, 2, (int32_t)each);
}

static void more_elementwise_agrees(void **state)
{
    (void)state;
    struct rnd r = {.key = 38};
    for (int64_t n = 1; n < 120; n++)
        for (int32_t kind = 0; kind < CASE_KINDS; kind++) {
            struct pair x = values(&r, n, kind), y = values(&r, n, CASE_NORMAL);
            float *want = case_alloc((size_t)n * 4), *got = case_alloc((size_t)n * 4);
            for (int32_t op = 0; op < 5; op++)
                for (int32_t i = 0; i < n_tables; i++) {
                    float *z = i ? got : want;
                    const struct krn_table *t = tables[i];
                    memcpy(z, x.x, (size_t)n * 4);
                    if (op == 0) t->mul(z, y.x, n);
                    if (op == 1) t->scale(z, 0.3f, n);
                    if (op == 2) axpy(t, z, y.x, n);
                    if (op == 3) t->softcap(z, 50.0f, n);
                    if (op == 4) t->axpy(z, -1.7f, y.x, n);
                    if (i) assert_bits(want, got, n, t, (const char *[]){"mul", "scale", "axpy_rows", "softcap", "axpy"}[op], n);
                }
            free(x.base);
            free(y.base);
            free(want);
            free(got);
        }
}

static void layernorm_agrees(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 7, 8, 15, 16, 17, 31, 63, 64, 65, 80, 128, 172, 288, 1000, 2048};
    struct rnd r = {.key = 39};
    for (size_t k = 0; k < COUNT_OF(sizes); k++)
        for (int32_t bias = 0; bias < 2; bias++) {
            int32_t d = sizes[k];
            struct pair x = values(&r, 3 * d, CASE_NORMAL), w = values(&r, d, CASE_TINY), b = values(&r, d, CASE_NORMAL);
            float *want = case_alloc((size_t)(3 * d) * 4), *got = case_alloc((size_t)(3 * d) * 4);
            krn_ref.layernorm(want, x.x, w.x, bias ? b.x : NULL, d, 1e-5f, 0, 3);
            for (int32_t i = 1; i < n_tables; i++) {
                tables[i]->layernorm(got, x.x, w.x, bias ? b.x : NULL, d, 1e-5f, 2, 3);
                tables[i]->layernorm(got, x.x, w.x, bias ? b.x : NULL, d, 1e-5f, 0, 2);
                assert_bits(want, got, 3 * d, tables[i], "layernorm", d);
                float a = krn_ref.sum_squares(x.x, d), c = tables[i]->sum_squares(x.x, d);
                assert_bits(&a, &c, 1, tables[i], "sum_squares", d);
            }
            double mean = 0, var = 0;
            for (int32_t i = 0; i < d; i++) mean += (double)x.x[i] / d;
            for (int32_t i = 0; i < d; i++) var += ((double)x.x[i] - mean) * ((double)x.x[i] - mean) / d;
            for (int32_t i = 0; i < d; i++) {
                double y = ((double)x.x[i] - mean) / sqrt(var + 1e-5) * (double)w.x[i] + (bias ? (double)b.x[i] : 0);
                assert_true(fabs(y - (double)want[i]) <= 1e-5 * (1 + fabs(y)));
            }
            free(x.base);
            free(w.base);
            free(b.base);
            free(want);
            free(got);
        }
}

static void every_lane_computes_the_scalar_exp(void **state)
{
    (void)state;
    /* sum_exp of one value is that value's e^x: the vectors' polynomial against the scalar one,
     * densely */
    for (int32_t i = 1; i < n_tables; i++)
        for (float x = -90.0f; x < 90.0f; x += 0.0137f) {
            float want = krn_exp(x), got = tables[i]->sum_exp(&x, 1, 0.0f);
            assert_memory_equal(&want, &got, sizeof want);
        }
}

static void sum_exp_agrees(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1,    15,   16,   17,    100,   1023,  1024, 1025,
                                    2048, 5000, 7000, 11111, 13000, 31000, 50257};
    struct rnd r = {.key = 35};
    for (size_t k = 0; k < COUNT_OF(sizes); k++) {
        struct pair x = values(&r, sizes[k], CASE_NORMAL);
        for (int32_t i = 0; i < sizes[k]; i++)
            x.x[i] = rnd_below(&r, 10) ? x.x[i] * 5.0f - 20.0f : -INFINITY; /* masked */
        float want = krn_ref.sum_exp(x.x, sizes[k], 1.5f);
        double exact = 0;
        for (int32_t i = 0; i < sizes[k]; i++) exact += exp((double)x.x[i] - 1.5);
        assert_true(fabs((double)want - exact) <= 2e-6 * exact);
        for (int32_t i = 1; i < n_tables; i++) {
            float got = tables[i]->sum_exp(x.x, sizes[k], 1.5f);
            assert_bits(&want, &got, 1, tables[i], "sum_exp", sizes[k]);
        }
        free(x.base);
    }
}

static void argmax_finds_the_first_of_the_largest(void **state)
{
    (void)state;
    struct rnd r = {.key = 36};
    for (int32_t n = 1; n < 400; n++) {
        struct pair x = values(&r, n, n % CASE_KINDS);
        int32_t at = rnd_below(&r, n), again = rnd_below(&r, n);
        x.x[at] = x.x[again] = 0x1p+70f;
        for (int32_t i = 0; i < n_tables; i++)
            assert_int_equal(tables[i]->argmax(x.x, n), MIN(at, again));
        for (int32_t i = 0; i < n; i++) x.x[i] = rnd_below(&r, 2) ? NAN : n % 3 ? -INFINITY : -1.0f;
        x.x[at] = n % 3 ? -INFINITY : -1.0f;
        int32_t want = 0;
        while (isnan(x.x[want])) want++;
        for (int32_t i = 0; i < n_tables; i++) assert_int_equal(tables[i]->argmax(x.x, n), want);
        for (int32_t i = 0; i < n; i++) x.x[i] = NAN;
        for (int32_t i = 0; i < n_tables; i++) assert_int_equal(tables[i]->argmax(x.x, n), 0);
        free(x.base);
    }
}

/* ---- candidates ------------------------------------------------------------------------------ */

/* A row of logits as they come: spread as asked, some barred, some alike, now and then no number. */
static struct pair logits(struct rnd *r, int32_t n, float spread)
{
    struct pair p = values(r, n, CASE_NORMAL);
    for (int32_t i = 0; i < n; i++) {
        p.x[i] *= spread;
        if (rnd_below(r, 20) == 0) p.x[i] = -INFINITY;
        if (rnd_below(r, 20) == 0) p.x[i] = -2.0f;
        if (rnd_below(r, 200) == 0) p.x[i] = NAN;
    }
    return p;
}

static void temper_agrees(void **state)
{
    (void)state;
    struct rnd r = {.key = 41};
    for (int32_t n = 0; n < 200; n++) {
        struct pair x = values(&r, n + 1, n % CASE_KINDS);
        float m = rnd_normal(&r), t = fabsf(rnd_normal(&r)) + 1e-3f, *want = xmalloc((size_t)(n + 1) * sizeof *want);
        float *got = xmalloc((size_t)(n + 1) * sizeof *got);
        memcpy(want, x.x, (size_t)(n + 1) * sizeof *want);
        krn_ref.temper(want, m, t, n);
        for (int32_t i = 0; i < n_tables; i++) {
            memcpy(got, x.x, (size_t)(n + 1) * sizeof *got);
            tables[i]->temper(got, m, t, n);
            assert_bits(want, got, n + 1, tables[i], "temper", n); /* the one behind untouched */
        }
        free(want);
        free(got);
        free(x.base);
    }
}

static void at_least_agrees(void **state)
{
    (void)state;
    static const float least[] = {-INFINITY, -3.0f, -2.0f, 0.0f, 2.5f, 1e6f};
    struct rnd r = {.key = 42};
    for (int32_t n = 0; n < 300; n++) {
        struct pair x = logits(&r, n, 1.5f);
        struct krn_pick *want = xcalloc((size_t)n + 1, sizeof *want), *got = xcalloc((size_t)n + 1, sizeof *got);
        float at = least[rnd_below(&r, COUNT_OF(least))];
        int32_t k = krn_ref.at_least(x.x, n, at, want);
        for (int32_t i = 0; i < n_tables; i++) {
            assert_int_equal(tables[i]->at_least(x.x, n, at, got), k);
            assert_memory_equal(want, got, (size_t)k * sizeof *want);
        }
        free(want);
        free(got);
        free(x.base);
    }
}

static void draw_agrees(void **state)
{
    (void)state;
    static const float spreads[] = {0.0f, 0.3f, 1.0f, 4.0f, 15.0f, 60.0f};
    struct rnd r = {.key = 43};
    for (int32_t n = 0; n < 3000; n++) {
        int32_t size = n % 10 ? n % 150 : rnd_below(&r, 4000), id0 = rnd_below(&r, 2) ? 0 : rnd_below(&r, 200000);
        struct pair x = logits(&r, size, spreads[rnd_below(&r, COUNT_OF(spreads))]);
        uint64_t key = rnd_bits(&r);
        float least = rnd_below(&r, 3) ? -25.0f : -1.0f;
        struct krn_pick want = krn_ref.draw(x.x, size, least, key, id0);
        for (int32_t i = 0; i < n_tables; i++) {
            struct krn_pick got = tables[i]->draw(x.x, size, least, key, id0);
            if (memcmp(&want, &got, sizeof want))
                fail_msg("draw of %s among %d: %a of %d, not %a of %d", tables[i]->name, size, (double)got.z, got.id, (double)want.z, want.id);
        }
        free(x.base);
    }
}

/* What `draw` leaves out could not have won. */
static void noise_beyond_its_reach_loses(void **state)
{
    (void)state;
    struct rnd r = {.key = 44};
    int32_t n_out = 0, n_near = 0;
    for (int32_t n = 0; n < 2000000; n++) {
        float z = -12.0f * fabsf(rnd_normal(&r)), top = rnd_normal(&r) * 8.0f;
        uint64_t bits = rnd_bits(&r);
        float reach = krn_gumbel_reach(z, top);
        if (n % 2 && reach < 0x1p32f) bits = ((uint64_t)reach + 1 + rnd_bits(&r) % 64) << 32 | (bits >> 32); /* just beyond */
        if ((float)(uint32_t)(bits >> 32) <= reach) continue;
        float v = z + krn_math_gumbel(bits);
        assert_true(v < top);
        n_out++;
        n_near += v > top - 0.1f;
    }
    assert_true(n_out > 1000000 && n_near > 100000);
}

static void a_table_is_picked_by_name_or_the_best(void **state)
{
    (void)state;
    const struct krn_table *t = NULL;
    assert_int_equal(krn_table_pick("auto", &t), OK);
    assert_ptr_equal(t, tables[n_tables - 1]);
    assert_int_equal(krn_table_pick(NULL, &t), OK);
    assert_ptr_equal(t, tables[n_tables - 1]);
    assert_int_equal(krn_table_pick("ref", &t), OK);
    assert_ptr_equal(t, &krn_ref);
    assert_int_equal(krn_table_pick("sse9", &t), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "sse9"));
    assert_non_null(strstr(err_text(), "ref"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantize_agrees),
        cmocka_unit_test(interleaved_rows_are_the_rows),
        cmocka_unit_test(halves_round_to_even),
        cmocka_unit_test(rmsnorm_agrees),
        cmocka_unit_test(rope_agrees),
        cmocka_unit_test(rope_turns_by_the_angle),
        cmocka_unit_test(elementwise_agrees),
        cmocka_unit_test(more_elementwise_agrees),
        cmocka_unit_test(gates_agree),
        cmocka_unit_test(gates_are_the_functions),
        cmocka_unit_test(layernorm_agrees),
        cmocka_unit_test(every_lane_computes_the_scalar_exp),
        cmocka_unit_test(sum_exp_agrees),
        cmocka_unit_test(argmax_finds_the_first_of_the_largest),
        cmocka_unit_test(temper_agrees),
        cmocka_unit_test(at_least_agrees),
        cmocka_unit_test(draw_agrees),
        cmocka_unit_test(noise_beyond_its_reach_loses),
        cmocka_unit_test(a_table_is_picked_by_name_or_the_best),
    };
    return cmocka_run_group_tests_name("ops", tests, find_tables, NULL);
}
