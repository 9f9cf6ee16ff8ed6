/* device_rows.c: a plug-in's operations on rows, and the choices of rows of logits, against `ref`: see test_device.c. */
#include "tests/kernels/device.h"

#include "engine/kernels/cuda/choose.h"
#include "engine/sample/sampler.h"

static void codes_equal_ref(void **state)
{
    (void)state;
    struct rnd r = {.key = 74};
    for (int32_t n = 0; n < 40; n++) {
        int32_t cols = KRN_UNIT * rnd_between(&r, 1, 11), n_tok = rnd_between(&r, 1, n % 9 ? 5 : 40);
        struct krn_act x = case_act(&r, n_tok, cols, true, n % CASE_KINDS);
        if (n % 5 == 0) memset((float *)x.x, 0, KRN_UNIT * sizeof(float));
        if (n % 5 == 1) ((float *)x.x)[0] = 0x1p-149f, memset((float *)x.x + 1, 0, (KRN_UNIT - 1) * sizeof(float));
        krn_ref.quantize(&x, 0, n_tok, 0, cols / KRN_UNIT);
        struct krn_act dx = act_there(&x);
        int64_t bytes = krn_act_q_bytes(n_tok, cols);
        uint8_t *got = case_alloc((size_t)bytes);
        memset(got, 0x55, (size_t)bytes);
        ok(eng_backend_upload(be, dx.q, got, bytes));
        int32_t t0 = rnd_below(&r, n_tok), u0 = rnd_below(&r, cols / KRN_UNIT);
        be->krn->quantize(&dx, t0, n_tok, u0, cols / KRN_UNIT);
        be->krn->quantize(&dx, 0, t0, u0, cols / KRN_UNIT);
        be->krn->quantize(&dx, 0, n_tok, 0, u0);
        here(got, dx.q, bytes);
        assert_memory_equal(x.q, got, (size_t)bytes);
        free(got);
        case_act_free(&x);
        next_device();
    }
}

/* Two dimensions of a grid end at 65535: rows are in none of these. */
static void rows_may_be_more_than_a_grid_is_high(void **state)
{
    enum { ROWS = 65537, D = KRN_UNIT };
    (void)state;
    struct rnd r = {.key = 86};
    struct krn_act x = case_act(&r, ROWS, D, true, CASE_NORMAL);
    int64_t bytes = krn_act_q_bytes(ROWS, D);
    uint8_t *codes = case_alloc((size_t)bytes);
    float *y = case_alloc(ROWS * sizeof *y), bias[2] = {0.5f, 0.25f};
    int32_t *ids = case_alloc(ROWS * sizeof *ids);
    for (int32_t i = 0; i < ROWS; i++) y[i] = x.x[i], ids[i] = i % 3 - 1;
    krn_ref.quantize(&x, 0, ROWS, 0, 1);
    struct krn_act dx = act_there(&x);
    be->krn->quantize(&dx, 0, ROWS, 0, 1);
    here(codes, dx.q, bytes);
    assert_memory_equal(x.q, codes, (size_t)bytes);

    float *dy = there(y, ROWS * 4);
    const float *each[] = {there(bias, 4), there(bias + 1, 4)};
    struct krn_slot_bias b = {.y = dy, .bias = there(each, sizeof each), .ids = there(ids, ROWS * 4), .n_slots = ROWS, .n = 1};
    eng_backend_experts(be)->slot_bias(&b);
    for (int32_t i = 0; i < ROWS; i++)
        if (ids[i] >= 0) y[i] = y[i] + bias[ids[i]];
    assert_floats(y, dy, ROWS, "bias of slots", 1);
    eng_backend_copy_rows(be, dy, 1, (float *)dx.x + 1, D, NULL, NULL, ROWS, 1);
    for (int32_t i = 0; i < ROWS; i++) y[i] = x.x[i * D + 1];
    assert_floats(y, dy, ROWS, "rows copied", 1);
    free(codes), free(y), free(ids);
    case_act_free(&x);
}

/* Codes of rows that are copied are those of copied rows, whatever the rows of a group are and however wide the last one of the source is; a row
 * that takes none stays as it was. */
static void codes_that_are_copied_are_those_of_copied_rows(void **state)
{
    (void)state;
    struct rnd r = {.key = 85};
    for (int32_t k = 0; k < 12; k++) {
        enum { MOST = 4 * KRN_GROUP };
        int32_t cols = KRN_UNIT * rnd_between(&r, 1, 20), n_tok = rnd_between(&r, 1, 40), n = KRN_GROUP * rnd_between(&r, 1, 4), at[MOST];
        struct krn_act x = case_act(&r, n_tok, cols, true, CASE_NORMAL), want = {.n_tok = n, .cols = cols}, old = {.n_tok = n, .cols = cols};
        float *rows = case_alloc((size_t)(n * cols) * 4);
        int64_t bytes = krn_act_q_bytes(n, cols);
        want.x = old.x = rows, want.q = case_alloc((size_t)bytes), old.q = case_alloc((size_t)bytes);
        for (int32_t i = 0; i < n * cols; i++) rows[i] = rnd_normal(&r);
        krn_ref.quantize(&old, 0, n, 0, cols / KRN_UNIT);
        for (int32_t i = 0; i < n; i++) {
            at[i] = rnd_below(&r, n_tok + 1) - 1;
            if (at[i] >= 0) memcpy(rows + i * cols, x.x + at[i] * cols, (size_t)cols * 4);
        }
        krn_ref.quantize(&x, 0, n_tok, 0, cols / KRN_UNIT);
        krn_ref.quantize(&want, 0, n, 0, cols / KRN_UNIT);
        uint8_t *d = there(old.q, bytes);
        eng_backend_copy_codes(be, d, act_there(&x).q, n_tok, cols, there(at, n * 4), n);
        here(old.q, d, bytes);
        assert_memory_equal(want.q, old.q, (size_t)bytes);
        free(rows), free(want.q), free(old.q);
        case_act_free(&x);
        next_device();
    }
}

static void norms_equal_ref(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 7, 63, 64, 65, 80, 128, 257, 1000, 2048};
    struct rnd r = {.key = 75};
    for (size_t k = 0; k < COUNT_OF(sizes); k++)
        for (int32_t kind = 0; kind < CASE_KINDS; kind++) {
            int32_t d = sizes[k];
            float *x = case_floats(&r, 3 * d, kind == CASE_LARGE ? CASE_NORMAL : kind), *w = case_floats(&r, d, kind);
            float *want = case_alloc((size_t)(3 * d) * 4);
            krn_ref.rmsnorm(want, x, w, d, 1e-5f, 0, 3);
            float *dx = there_off(x, 12 * d, 4), *dw = there_off(w, 4 * d, 12);
            be->krn->rmsnorm(dx, dx, dw, d, 1e-5f, 1, 3);
            be->krn->rmsnorm(dx, dx, dw, d, 1e-5f, 0, 1);
            assert_floats(want, dx, 3 * d, "rmsnorm in place", d);
            float s = krn_ref.sum_squares(x, d), ds = be->krn->sum_squares(there(x, 4 * d), d);
            assert_memory_equal(&s, &ds, 4);
            for (int32_t bias = 0; bias < 2; bias++) {
                krn_ref.layernorm(want, x, w, bias ? x + d : NULL, d, 1e-5f, 0, 3);
                float *y = there(x, 12 * d);
                be->krn->layernorm(y, y, dw, bias ? there(x + d, 4 * d) : NULL, d, 1e-5f, 0, 3);
                assert_floats(want, y, 3 * d, "layernorm", d);
            }
            free(x), free(w), free(want);
            next_device();
        }
}

/* Two ranks, of which this is the first: sums of its heads, then its norms with everybody's, a KV head that both have counted once; more heads than
 * a block has threads. */
static void norms_over_heads_equal_ref(void **state)
{
    (void)state;
    enum { T = 3 };
    static const struct { int32_t nq, nkv, q2, kv2, hd; bool shared; } cases[] = {{1, 1, 0, 0, 16, false}, {4, 2, 3, 2, 80, true}, {5, 1, 300, 7, 9, false}};
    struct rnd r = {.key = 79};
    for (size_t c = 0; c < COUNT_OF(cases); c++) {
        int32_t nq = cases[c].nq, nkv = cases[c].nkv, q2 = cases[c].q2, kv2 = cases[c].kv2, hd = cases[c].hd, n = nq + nkv, n2 = q2 + kv2, n_at = 0;
        int32_t nx[2] = {T * nq * hd, T * nkv * hd}, cols[2] = {nq * hd, nkv * hd}, all[2] = {nq + q2, nkv + kv2 - cases[c].shared};
        float *x[2] = {case_floats(&r, nx[0], CASE_NORMAL), case_floats(&r, nx[1], CASE_NORMAL)};
        float *w[2] = {case_floats(&r, cols[0], CASE_NORMAL), case_floats(&r, cols[1], CASE_NORMAL)}, sums[T * 400];
        struct krn_head_at at[400];
        for (int32_t t = 0; t < T; t++)
            for (int32_t h = 0; h < n; h++) sums[t * n + h] = krn_ref.sum_squares(h < nq ? x[0] + (t * nq + h) * hd : x[1] + (t * nkv + h - nq) * hd, hd);
        for (int32_t i = 0; i < T * n2; i++) sums[T * n + i] = 0.5f + (float)(rnd_below(&r, 1 << 20)) * 0x1p-14f;
        for (int32_t h = 0; h < nq + q2; h++) at[n_at++] = h < nq ? (struct krn_head_at){0, n, h} : (struct krn_head_at){n, n2, h - nq};
        for (int32_t h = 0; h < nkv; h++) at[n_at++] = (struct krn_head_at){0, n, nq + h};
        for (int32_t h = cases[c].shared; h < kv2; h++) at[n_at++] = (struct krn_head_at){n, n2, q2 + h};
        float *dx[2] = {there_off(x[0], 4 * nx[0], 4), there_off(x[1], 4 * nx[1], 8)}, *dsums = there(sums, (int64_t)sizeof sums);
        ok(eng_backend_clear(be, dsums, T * n * 4));
        eng_backend_heads(be)->squares(&(struct krn_head_squares){.q = dx[0], .k = dx[1], .n_tok = T, .nq = nq, .nkv = nkv, .head_dim = hd, .out = dsums});
        assert_floats(sums, dsums, T * (n + n2), "squares of heads", hd);
        eng_backend_heads(be)->norm(&(struct krn_head_norm){.q = dx[0], .k = dx[1], .wq = there(w[0], 4 * cols[0]), .wk = there(w[1], 4 * cols[1]), .n_tok = T, .nq = nq,
                                                            .nkv = nkv, .head_dim = hd, .sums = dsums, .at = there(at, (int64_t)sizeof at), .all_q = all[0],
                                                            .all_kv = all[1], .eps = 1e-5f});
        for (int i = 0; i < 2; i++) {
            for (int32_t t = 0; t < T; t++) {
                float s = 0;
                for (int32_t h = 0; h < all[i]; h++) {
                    const struct krn_head_at *a = &at[(i ? all[0] : 0) + h];
                    s += sums[a->before * T + t * a->width + a->at];
                }
                krn_ref.scale(x[i] + t * cols[i], 1.0f / sqrtf(s / (float)(all[i] * hd) + 1e-5f), cols[i]);
                krn_ref.mul(x[i] + t * cols[i], w[i], cols[i]);
            }
            assert_floats(x[i], dx[i], nx[i], i ? "norm over the heads of k" : "norm over the heads of q", hd);
            free(x[i]), free(w[i]);
        }
        next_device();
    }
}

static void ropes_equal_ref(void **state)
{
    (void)state;
    static const int32_t dims[] = {8, 20, 64, 128};
    struct rnd r = {.key = 76};
    for (size_t k = 0; k < COUNT_OF(dims); k++)
        for (int32_t part = 0; part < 2; part++)
            for (int32_t interleaved = 0; interleaved < 2; interleaved++) {
                int32_t dim = dims[k], rot = part ? dim / 4 * 2 : dim, n = 3 * 5 * dim;
                float *x = case_floats(&r, n, CASE_NORMAL), *c0 = case_floats(&r, rot, CASE_NORMAL), *c1 = case_floats(&r, rot, CASE_TINY);
                const float *cs[3] = {c0, c1, c0};
                float *dx = there_off(x, 4 * n, 4);
                const float *dcs[3] = {there(c0, 4 * rot), there(c1, 4 * rot)};
                dcs[2] = dcs[0];
                const float *const *table = there(dcs, sizeof dcs);
                krn_ref.rope(x, 5, dim, rot, interleaved, cs, 0, 3);
                be->krn->rope(dx, 5, dim, rot, interleaved, table, 1, 3);
                be->krn->rope(dx, 5, dim, rot, interleaved, table, 0, 1);
                assert_floats(x, dx, n, "rope", dim);
                free(x), free(c0), free(c1);
                next_device();
            }
}

static void elements_equal_ref(void **state)
{
    (void)state;
    struct rnd r = {.key = 77};
    for (int64_t n = 1; n < 2000; n += n < 40 ? 13 : 511)
        for (int32_t kind = 0; kind < CASE_KINDS; kind++) {
            float *g = case_floats(&r, n, kind), *u = case_floats(&r, n, CASE_NORMAL), *want = case_alloc((size_t)n * 4);
            for (int64_t i = 0; i < n; i += 5) g[i] *= 60.0f; /* past both ends of e^x too */
            float *dg = there_off(g, 4 * n, 4), *du = there(u, 4 * n);
            krn_ref.silu_mul(want, g, u, n);
            be->krn->silu_mul(dg, dg, du, n);
            assert_floats(want, dg, n, "silu_mul", n);
            krn_ref.add(want, u, n);
            be->krn->add(dg, du, n);
            assert_floats(want, dg, n, "add", n);
            krn_ref.mul(want, u, n), be->krn->mul(dg, du, n);
            krn_ref.scale(want, 0.3f, n), be->krn->scale(dg, 0.3f, n);
            krn_ref.axpy(want, -1.7f, u, n), be->krn->axpy(dg, -1.7f, du, n);
            assert_floats(want, dg, n, "mul, scale, axpy", n);
            krn_ref.softcap(want, 30.0f, n), be->krn->softcap(dg, 30.0f, n);
            assert_floats(want, dg, n, "softcap", n);
            float *g2 = there(g, 4 * n);
            for (int32_t form = 0; form < 5; form++) {
                enum krn_gate which = form < 2 ? KRN_GELU_TANH : form < 4 ? KRN_GELU_ERF : KRN_SWIGLU_CLAMPED;
                krn_ref.gate(which, want, g, form % 2 ? NULL : u, n);
                be->krn->gate(which, dg, g2, form % 2 ? NULL : du, n);
                assert_floats(want, dg, n, "gate", n);
            }
            free(g), free(u), free(want);
            next_device();
        }
}

static void reductions_equal_ref(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 15, 17, 1023, 1024, 1025, 7000, 50257};
    struct rnd r = {.key = 78};
    for (size_t k = 0; k < COUNT_OF(sizes); k++) {
        int32_t n = sizes[k], at = rnd_below(&r, n), again = rnd_below(&r, n);
        float *x = case_floats(&r, n, CASE_NORMAL);
        for (int32_t i = 0; i < n; i++) x[i] = rnd_below(&r, 10) ? x[i] * 5.0f - 20.0f : -INFINITY; /* masked */
        float want = krn_ref.sum_exp(x, n, 1.5f), got = be->krn->sum_exp(there(x, 4 * n), n, 1.5f);
        assert_memory_equal(&want, &got, 4);
        x[at] = x[again] = 0x1p+70f;
        assert_int_equal(be->krn->argmax(there(x, 4 * n), n), MIN(at, again));
        for (int32_t i = 0; i < n; i++) x[i] = NAN;
        assert_int_equal(be->krn->argmax(there(x, 4 * n), n), 0);
        x[at] = -INFINITY;
        assert_int_equal(be->krn->argmax(there(x, 4 * n), n), at);
        free(x);
        next_device();
    }
}

/* Rows of logits with masked ids, ties and rows without any candidate: the largest, and what noise prefers at several temperatures. */
static void choices_equal_ref(void **state)
{
    (void)state;
    enum { ROWS = 5 };
    static const int32_t sizes[] = {1, 31, 1024, 1025, 5003, 300007};
    struct rnd r = {.key = 79};
    for (size_t k = 0; k < COUNT_OF(sizes); k++) {
        int32_t n = sizes[k], id0 = 7 * (int32_t)k;
        float *x = case_floats(&r, ROWS * n, CASE_NORMAL), *z = malloc((size_t)n * sizeof *z);
        struct krn_noise how[ROWS] = {{.t = 1.0f, .least = -INFINITY, .key = 1}, {.t = 0.7f, .least = -3.0f, .key = 2}, {0},
                                      {.t = 2.0f, .least = -INFINITY, .key = 3}, {.t = 0.01f, .least = -INFINITY, .key = 4}};
        struct krn_pick best[ROWS], drawn[ROWS], mark = {42.0f, 42};
        for (int32_t i = 0; i < ROWS * n; i++) x[i] = rnd_below(&r, 10) ? x[i] * 3.0f : -INFINITY;
        for (int32_t i = 0; i < n; i++) x[3 * n + i] = -INFINITY;
        for (int32_t i = 0; i < n; i += 3) x[2 * n + i] = 50.0f;
        for (int32_t i = 0; i < ROWS; i++) drawn[i] = mark;
        float *dx = there(x, 4 * (int64_t)ROWS * n);
        struct krn_pick *dbest = there(best, sizeof best), *ddrawn = there(drawn, sizeof drawn);
        eng_backend_best(be, dx, ROWS, n, id0, dbest);
        eng_backend_draw(be, dx, ROWS, n, id0, there(how, sizeof how), dbest, ddrawn);
        here(best, dbest, sizeof best);
        here(drawn, ddrawn, sizeof drawn);
        for (int32_t i = 0; i < ROWS; i++) {
            int32_t at = krn_ref.argmax(x + i * n, n);
            assert_int_equal(best[i].id, id0 + at);
            assert_memory_equal(&best[i].z, &x[i * n + at], sizeof(float));
            memcpy(z, x + i * n, (size_t)n * sizeof *z);
            if (how[i].t > 0) krn_ref.temper(z, best[i].z, how[i].t, n);
            struct krn_pick want = how[i].t > 0 ? krn_ref.draw(z, n, how[i].least, how[i].key, id0) : mark;
            assert_memory_equal(&drawn[i], &want, sizeof want);
        }
        free(x);
        free(z);
        next_device();
    }
}

static int by_value(const void *a, const void *b)
{
    const struct krn_pick *x = a, *y = b;
    return x->z != y->z ? (x->z > y->z ? -1 : 1) : (x->id > y->id) - (x->id < y->id);
}

/* The best of each row, in their order: ties, masked ids, fewer than are wanted, none at all; rows that want none stay as they were. */
static void the_best_of_rows_equal_a_sort(void **state)
{
    (void)state;
    enum { ROWS = 5 };
    static const int32_t sizes[] = {1, 31, 1025, 5003, 140001};
    struct rnd r = {.key = 80};
    for (size_t k = 0; k < COUNT_OF(sizes); k++) {
        int32_t n = sizes[k], id0 = 9 * (int32_t)k;
        float *x = case_floats(&r, ROWS * n, CASE_NORMAL);
        struct krn_noise how[ROWS] = {{.t = 1.0f, .key = 1, .top = KRN_TOP}, {.t = 0.7f, .key = 2}, {.t = 2.0f, .key = 3, .top = 40},
                                      {.t = 0.5f, .key = 4, .top = 1}, {.t = 0.01f, .key = 5, .top = 20}};
        struct krn_pick best[ROWS], mark = {42.0f, 42};
        static struct krn_pick top[ROWS][KRN_TOP], scratch[ROWS][KRN_CHOOSE_PIECES][KRN_TOP];
        for (int32_t i = 0; i < ROWS * n; i++) x[i] = rnd_below(&r, 10) ? x[i] * 3.0f : -INFINITY;
        for (int32_t i = 0; i < n; i += 3) x[2 * n + i] = 4.0f; /* as many as there are, and more than are wanted */
        for (int32_t i = 0; i < n; i++) x[3 * n + i] = -INFINITY;
        for (int32_t i = 0; i < ROWS; i++)
            for (int32_t t = 0; t < KRN_TOP; t++) top[i][t] = mark;
        float *dx = there(x, 4 * (int64_t)ROWS * n);
        struct krn_pick *dbest = there(best, sizeof best), *dtop = there(top, sizeof top);
        eng_backend_best(be, dx, ROWS, n, id0, dbest);
        eng_backend_top(be, dx, ROWS, n, id0, there(how, sizeof how), dbest, there(scratch, sizeof scratch), dtop);
        here(best, dbest, sizeof best);
        here(top, dtop, sizeof top);
        struct krn_pick *want = xmalloc((size_t)(n + KRN_TOP) * sizeof *want);
        for (int32_t i = 0; i < ROWS; i++) {
            int32_t m = 0;
            float *z = x + i * n;
            if (how[i].top) krn_ref.temper(z, best[i].z, how[i].t, n);
            for (int32_t j = 0; j < n; j++)
                if (z[j] > -INFINITY) want[m++] = (struct krn_pick){z[j], id0 + j};
            qsort(want, (size_t)m, sizeof *want, by_value);
            for (int32_t t = 0; t < KRN_TOP; t++, m++) want[m] = (struct krn_pick){-INFINITY, -1};
            assert_memory_equal(top[i], want, (size_t)how[i].top * sizeof *want);
            for (int32_t t = how[i].top; t < KRN_TOP; t++) assert_memory_equal(&top[i][t], &mark, sizeof mark);
        }
        free(want);
        free(x);
        next_device();
    }
}

/* A draw among the best of rows, narrowed in every way, is the host's; of none nothing is drawn. */
static void draws_among_a_few_equal_the_hosts(void **state)
{
    (void)state;
    enum { ROWS = KRN_CHOOSE_ROWS };
    struct rnd r = {.key = 81};
    struct eng_sampler *s = eng_sampler_open(&krn_ref, 1000);
    for (int32_t round = 0; round < 40; round++) {
        static struct krn_pick top[ROWS][KRN_TOP];
        struct sampling p[ROWS];
        struct krn_noise how[ROWS] = {{0}};
        struct krn_pick drawn[ROWS], mark = {42.0f, 42};
        for (int32_t i = 0; i < ROWS; i++) {
            p[i] = sampling_default();
            p[i].temperature = 1, p[i].seed = (uint64_t)(round * ROWS + i), p[i].top_k = rnd_between(&r, 1, KRN_TOP);
            p[i].top_p = rnd_below(&r, 2) ? 1 : 0.05f + 0.01f * (float)rnd_below(&r, 95);
            p[i].typical_p = rnd_below(&r, 2) ? 1 : 0.05f + 0.01f * (float)rnd_below(&r, 95);
            p[i].min_p = rnd_below(&r, 2) ? 0 : 0.01f * (float)rnd_below(&r, 60);
            p[i].xtc_probability = rnd_below(&r, 2) ? 0 : 0.8f, p[i].xtc_threshold = 0.01f * (float)rnd_below(&r, 30);
            if (i % 5 < 4) how[i] = eng_sampler_noise(&p[i], 7); /* the others are no such draws */
            int32_t n = i % 7 == 6 ? rnd_below(&r, 3) : KRN_TOP;
            float step = 0.01f * (float)rnd_below(&r, 40); /* 0: all are equal */
            for (int32_t k = 0; k < KRN_TOP; k++)
                top[i][k] = k < n ? (struct krn_pick){k ? -step * (float)rnd_below(&r, 40) : 0, 13 * (KRN_TOP - k) + rnd_below(&r, 13)}
                                  : (struct krn_pick){-INFINITY, -1};
            qsort(top[i], (size_t)n, sizeof **top, by_value);
            drawn[i] = mark;
        }
        struct krn_pick *d = there(drawn, sizeof drawn);
        eng_backend_among(be, ROWS, there(how, sizeof how), there(top, sizeof top), d);
        here(drawn, d, sizeof drawn);
        for (int32_t i = 0; i < ROWS; i++)
            if (how[i].t > 0) assert_int_equal(drawn[i].id, eng_sampler_among(s, top[i], p[i].top_k, &p[i], 7));
            else assert_memory_equal(&drawn[i], &mark, sizeof mark);
        next_device();
    }
    eng_sampler_close(s);
}

/* What ranks found in their slices: the largest, of equals the first rank's; lists of the best put together; ranks that found nothing. */
static void what_ranks_found_is_put_together(void **state)
{
    (void)state;
    enum { ROWS = 5, SIZE = 3, EACH = ROWS + ROWS * KRN_TOP + 2 };
    struct rnd r = {.key = 82};
    for (int32_t round = 0; round < 20; round++) {
        static struct krn_pick all[SIZE][EACH], top[ROWS][KRN_TOP], want[SIZE * KRN_TOP];
        struct krn_pick best[ROWS] = {{0}};
        struct krn_noise how[ROWS] = {{.t = 1, .top = KRN_TOP}, {.t = 1}, {.t = 1, .top = 33}, {.t = 1, .top = 1}, {.t = 1, .top = 9}};
        const int32_t empty = round % (SIZE + 1);
        for (int32_t k = 0; k < SIZE; k++)
            for (int32_t i = 0; i < ROWS; i++) {
                struct krn_pick *list = all[k] + ROWS + i * KRN_TOP;
                int32_t n = k == empty ? 0 : rnd_between(&r, 1, KRN_TOP);
                all[k][i] = n ? (struct krn_pick){(float)rnd_below(&r, 3), 1000 * k + i} : (struct krn_pick){-INFINITY, -1};
                for (int32_t t = 0; t < KRN_TOP; t++)
                    list[t] = t < n ? (struct krn_pick){-(float)rnd_below(&r, 9), 1000 * k + t} : (struct krn_pick){-INFINITY, -1};
                qsort(list, (size_t)n, sizeof *list, by_value);
            }
        struct krn_pick *from = there(all, sizeof all), *dbest = there(best, sizeof best), *dtop = there(top, sizeof top);
        eng_backend_merge_best(be, ROWS, SIZE, EACH, from, dbest);
        eng_backend_merge_top(be, ROWS, SIZE, EACH, from + ROWS, there(how, sizeof how), dtop);
        here(best, dbest, sizeof best);
        here(top, dtop, sizeof top);
        for (int32_t i = 0; i < ROWS; i++) {
            struct krn_pick first = all[0][i];
            int32_t n = 0;
            for (int32_t k = 0; k < SIZE; k++) {
                if (first.id < 0 || all[k][i].z > first.z) first = all[k][i];
                for (int32_t t = 0; t < how[i].top; t++)
                    if (all[k][ROWS + i * KRN_TOP + t].id >= 0) want[n++] = all[k][ROWS + i * KRN_TOP + t];
            }
            assert_memory_equal(&best[i], &first, sizeof first);
            qsort(want, (size_t)n, sizeof *want, by_value);
            assert_memory_equal(top[i], want, (size_t)MIN(n, how[i].top) * sizeof *want);
            for (int32_t t = n; t < how[i].top; t++) assert_int_equal(top[i][t].id, -1);
        }
        next_device();
    }
}

/* Inputs that only the device knows are put in, and those of other ranks' rows marked. */
static void inputs_are_put_in_by_rank(void **state)
{
    (void)state;
    static const int32_t chosen[] = {7, 12, 30}, want[] = {2, -1, -1, 7, 0, -1, -1};
    int32_t ids[] = {7, 4, 100, -2, 5, -3, 13};
    int32_t *d = there(ids, sizeof ids);
    eng_backend_inputs(be, COUNT_OF(ids), d, there(chosen, sizeof chosen), 5, 8);
    here(ids, d, sizeof ids);
    assert_memory_equal(ids, want, sizeof want);
}

const struct CMUnitTest device_rows[] = {
    cmocka_unit_test_setup_teardown(codes_equal_ref, start, finish),
    cmocka_unit_test_setup_teardown(rows_may_be_more_than_a_grid_is_high, start, finish),
    cmocka_unit_test_setup_teardown(codes_that_are_copied_are_those_of_copied_rows, start, finish),
    cmocka_unit_test_setup_teardown(norms_equal_ref, start, finish),
    cmocka_unit_test_setup_teardown(norms_over_heads_equal_ref, start, finish),
    cmocka_unit_test_setup_teardown(ropes_equal_ref, start, finish),
    cmocka_unit_test_setup_teardown(elements_equal_ref, start, finish),
    cmocka_unit_test_setup_teardown(reductions_equal_ref, start, finish),
    cmocka_unit_test_setup_teardown(choices_equal_ref, start, finish),
    cmocka_unit_test_setup_teardown(the_best_of_rows_equal_a_sort, start, finish),
    cmocka_unit_test_setup_teardown(draws_among_a_few_equal_the_hosts, start, finish),
    cmocka_unit_test_setup_teardown(what_ranks_found_is_put_together, start, finish),
    cmocka_unit_test_setup_teardown(inputs_are_put_in_by_rank, start, finish),
};
const size_t n_device_rows = COUNT_OF(device_rows);
