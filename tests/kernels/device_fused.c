/* device_fused.c: a plug-in's several operations in one call (engine/kernels/fused.h) against the same one after another, which the other files hold
 * against `ref`: see test_device.c. Whatever is left in memory is compared, panels of codes whole. */
#include "tests/kernels/device.h"

static const struct krn_fused *fused(void) { return eng_backend_fused(be); }

/* What lies at a and at b on the device is the same. */
static void assert_same(const void *a, const void *b, int64_t bytes, const char *what)
{
    uint8_t *x = case_alloc((size_t)bytes), *y = case_alloc((size_t)bytes);
    here(x, a, bytes), here(y, b, bytes);
    for (int64_t i = 0; i < bytes; i++)
        if (x[i] != y[i]) fail_msg("%s: byte %lld of %lld", what, (long long)i, (long long)bytes);
    free(x), free(y);
}

/* Panels begin as anything: the lanes behind the last token must be cleared. */
static uint8_t *panel(int32_t n_tok, int32_t cols)
{
    int64_t bytes = krn_act_q_bytes(n_tok, cols);
    uint8_t *p = case_alloc((size_t)bytes), *d;
    memset(p, 0x5a, (size_t)bytes);
    d = there(p, bytes);
    free(p);
    return d;
}

/* Rows short and longer than a block holds in shared memory; with and without a sum, its norm, its scale, a norm, codes. */
static void entering_is_add_norm_and_codes(void **state)
{
    (void)state;
    static const int32_t sizes[] = {32, 96, 2048, 8192, 9216, 20480}, tokens[] = {1, 3, 17};
    struct rnd r = {.key = 91};
    for (size_t c = 0; c < COUNT_OF(sizes); c++)
        for (int32_t how = 0; how < 32; how++) {
            int32_t d = sizes[c], T = d > 4096 ? 1 : tokens[how % 3];
            int64_t n = (int64_t)T * d, bytes = n * 4;
            if (d > 4096 && how % 5) continue;
            float *x = case_floats(&r, n, CASE_NORMAL), *s = case_floats(&r, n, how % 2 ? CASE_TINY : CASE_NORMAL), *w = case_floats(&r, 2 * d, CASE_NORMAL);
            float *dx[2] = {there(x, bytes), there(x, bytes)}, *ds[2] = {there(s, bytes), there(s, bytes)}, *h[2] = {there(x, bytes), there(x, bytes)};
            const float *norm = there(w, 4 * d), *post = there(w + d, 4 * d);
            bool sum = how & 1, posted = how & 2, scaled = how & 4, normed = !(how & 8), codes = !(how & 16);
            struct krn_act a = {.n_tok = T, .cols = d, .x = h[0], .q = panel(T, d)};
            uint8_t *q = panel(T, d);
            if (sum && posted) be->krn->rmsnorm(ds[0], ds[0], post, d, 1e-6f, 0, T);
            if (sum && scaled) be->krn->scale(ds[0], 0.22f, n);
            if (sum) be->krn->add(dx[0], ds[0], n);
            if (normed) be->krn->rmsnorm(h[0], dx[0], norm, d, 1e-6f, 0, T);
            else ok(eng_backend_copy(be, h[0], dx[0], bytes));
            if (codes) be->krn->quantize(&a, 0, T, 0, d / KRN_UNIT);
            fused()->enter(&(struct krn_enter){.x = dx[1], .sum = sum ? ds[1] : NULL, .post = posted ? post : NULL, .scale = scaled ? 0.22f : 1.0f,
                                               .w = normed ? norm : NULL, .eps = 1e-6f, .h = h[1], .q = codes ? q : NULL, .n_tok = T, .d = d});
            assert_same(dx[0], dx[1], bytes, "the residual");
            assert_same(h[0], h[1], bytes, "the input");
            assert_same(a.q, q, krn_act_q_bytes(T, d), "its codes");
            free(x), free(s), free(w);
            next_device();
        }
}

/* The heads of a step's tokens: what is in the cache before stays there. The last token is padding. */
static void check_heads(struct rnd *r, enum kv_type type, int32_t how)
{
    enum { T = 4, BLOCKS = 6, NQ = 5, NKV = 2 };
    static const int32_t dims[] = {16, 80, 128, 200};
    bool bias = how & 1, norms = how & 2, last = how & 4, interleaved = how & 8, each = how & 16;
    int32_t dim = dims[how % 4], rot = how % 3 == 0 ? 0 : how % 3 == 1 ? dim : dim / 4 * 2, table[BLOCKS] = {3, 0, 5, 1, 4, 2}, pos[T] = {15, 16, 70, -1};
    int64_t plane = BLOCKS * NKV * KRN_KV_BLOCK * kv_row_bytes(type, dim), nq = (int64_t)T * NQ * dim, nkv = (int64_t)T * NKV * dim;
    float *q = case_floats(r, nq, CASE_NORMAL), *kv = case_floats(r, 2 * nkv, CASE_NORMAL), *b = case_floats(r, (NQ + 2 * NKV) * dim, CASE_NORMAL);
    float *w = case_floats(r, (NQ + NKV) * dim, CASE_NORMAL), *turn = case_floats(r, 2 * dim, CASE_NORMAL);
    uint8_t *old = case_alloc((size_t)plane);
    memset(old, 0x11, (size_t)plane);
    const int32_t *dtable = there(table, sizeof table), *tables[T] = {dtable, dtable, dtable, dtable}, *dpos = there(pos, sizeof pos);
    const float *dturn = there(turn, 8 * dim), *turns[T] = {dturn, dturn + dim, dturn + 2, dturn}, *db = there(b, (NQ + 2 * NKV) * dim * 4);
    const float *dw = there(w, (NQ + NKV) * dim * 4), *const *cs = there(turns, sizeof turns);
    const int32_t *const *dtables = there(tables, sizeof tables);
    struct krn_kv to[2];
    float *dq[2];
    struct krn_heads a;
    for (int i = 0; i < 2; i++) {
        dq[i] = there(q, nq * 4);
        to[i] = (struct krn_kv){.k = there(old, plane), .v = there(old, plane), .type = type, .n_kv = NKV, .head_dim = dim};
        a = (struct krn_heads){.q = dq[i], .to = {.kv = &to[i], .k = there(kv, nkv * 4), .v = there(kv + nkv, nkv * 4), .pos = dpos, .table = dtables},
                               .bq = bias ? db : NULL, .bk = bias ? db + NQ * dim : NULL, .bv = bias ? db + (NQ + NKV) * dim : NULL,
                               .q_norm = norms ? dw : NULL, .k_norm = norms ? dw + NQ * dim : NULL, .norm_stride = each ? dim : 0, .eps = 1e-5f, .norm_last = last,
                               .n_tok = T, .n_q = NQ, .rot = rot, .interleaved = interleaved, .cs = cs};
        if (i) fused()->heads(&a);
        else
            for (int32_t part = 0; part < 3; part++) { /* q, k, v */
                float *x = part == 0 ? dq[0] : (float *)(uintptr_t)(part == 1 ? a.to.k : a.to.v);
                int32_t heads = part ? NKV : NQ;
                const float *add = part == 0 ? a.bq : part == 1 ? a.bk : a.bv, *norm = part == 0 ? a.q_norm : part == 1 ? a.k_norm : NULL;
                for (int32_t t = 0; t < T && add; t++) be->krn->add(x + t * heads * dim, add, heads * dim);
                for (int32_t turned = 0; turned < 2; turned++) {
                    for (int32_t h = 0; h < T * heads && norm && turned == last; h++)
                        be->krn->rmsnorm(x + h * dim, x + h * dim, norm + (each ? h % heads * dim : 0), dim, 1e-5f, 0, 1);
                    if (!turned && part < 2) be->krn->rope(x, heads, dim, rot, interleaved, cs, 0, T);
                }
            }
        if (!i) {
            a.to.t1 = T;
            be->krn->kv_append(&a.to);
        }
    }
    assert_same(dq[0], dq[1], nq * 4, "queries");
    assert_same(to[0].k, to[1].k, plane, kv_type_name(type));
    assert_same(to[0].v, to[1].v, plane, kv_type_name(type));
    free(q), free(kv), free(b), free(w), free(turn), free(old);
    next_device();
}

static void heads_are_bias_norm_rope_and_append(void **state)
{
    (void)state;
    struct rnd r = {.key = 92};
    for (int32_t how = 0; how < 32; how++)
        for (int32_t type = 0; type < KV_TYPES; type++)
            if (type == KV_F16 || (how + type) % 3 == 0) check_heads(&r, (enum kv_type)type, how);
}

static void gates_and_their_codes(void **state)
{
    (void)state;
    struct rnd r = {.key = 93};
    for (int32_t form = 0; form < 6; form++)
        for (int32_t T = 1; T < 40; T += 19) {
            int32_t cols = KRN_UNIT * rnd_between(&r, 1, 19), n = T * cols;
            bool silu = form == 5, up = silu || form % 2 == 0;
            enum krn_gate kind = form < 2 ? KRN_GELU_TANH : form < 4 ? KRN_GELU_ERF : KRN_SWIGLU_CLAMPED;
            float *g = case_floats(&r, n, CASE_NORMAL), *u = case_floats(&r, n, CASE_NORMAL), *y[2] = {there(g, 4 * n), there(g, 4 * n)}, *du = there(u, 4 * n);
            struct krn_act a = {.n_tok = T, .cols = cols, .x = y[0], .q = panel(T, cols)};
            uint8_t *q = panel(T, cols);
            if (silu) be->krn->silu_mul(y[0], y[0], du, n);
            else be->krn->gate(kind, y[0], y[0], up ? du : NULL, n);
            be->krn->quantize(&a, 0, T, 0, cols / KRN_UNIT);
            fused()->gated(&(struct krn_gated){.silu = silu, .kind = kind, .g = y[1], .u = up ? du : NULL, .y = y[1], .q = q, .n_tok = T, .cols = cols});
            assert_same(y[0], y[1], 4 * n, "gate");
            assert_same(a.q, q, krn_act_q_bytes(T, cols), "codes of a gate");
            float *bias = there(u, 4 * cols);
            for (int32_t t = 0; t < T; t++) be->krn->add(y[0] + t * cols, bias, cols);
            fused()->bias(&(struct krn_bias){.y = y[1], .bias = bias, .n_tok = T, .cols = cols});
            assert_same(y[0], y[1], 4 * n, "bias");
            free(g), free(u);
            next_device();
        }
}

/* Products of the same rows: of one type and of several, more of a type than a launch takes, with codes and without. */
static void products_together_are_products_alone(void **state)
{
    (void)state;
    enum { N = 4 };
    static const enum dtype types[][N] = {{DTYPE_Q4_K, DTYPE_Q4_K, DTYPE_Q6_K, DTYPE_Q4_K}, {DTYPE_Q4_0, DTYPE_Q4_0, DTYPE_Q4_0, DTYPE_Q4_0},
                                          {DTYPE_Q8_0, DTYPE_BF16, DTYPE_BF16, DTYPE_Q8_0}, {DTYPE_IQ4_XS, DTYPE_IQ4_XS, DTYPE_Q2_K, DTYPE_MXFP4}};
    static const int32_t tokens[] = {1, 3, 9, 16, 33, 40};
    struct rnd r = {.key = 94};
    for (size_t c = 0; c < COUNT_OF(types); c++)
        for (size_t k = 0; k < COUNT_OF(tokens); k++) {
            int32_t T = tokens[k], cols = 256 * rnd_between(&r, 1, 9), n = rnd_between(&r, 2, N);
            struct krn_act x = case_act(&r, T, cols, true, CASE_NORMAL), dx = act_there(&x), plain = dx;
            struct krn_leaves one = {.n_leaf = 1, .lo = 0, .hi = 1, .cols = {0, cols}, .n_nodes = 1, .nodes = {{0, 1}}};
            struct krn_mat w[N], dw[N];
            struct krn_matmul jobs[N];
            float *y[2][N];
            plain.q = NULL;
            for (int32_t i = 0; i < n; i++) {
                struct case_file f = case_file_make(&r, types[c][i], rnd_between(&r, 1, 75), cols);
                w[i] = case_pack(&f, 0, cols), dw[i] = mat_there(&w[i]);
                case_file_free(&f);
                for (int how = 0; how < 2; how++) {
                    ok(eng_backend_alloc(be, ENG_MEMORY_STEP, (void **)&y[how][i], (int64_t)T * dw[i].rows * 4));
                    jobs[i] = (struct krn_matmul){.w = &dw[i], .x = dtype_block(dw[i].type) > 1 ? &dx : &plain, .leaves = &one, .y = y[how][i],
                                                  .y_stride = dw[i].rows, .row1 = dw[i].rows};
                    if (!how) be->krn->matmul(&jobs[i]);
                }
            }
            fused()->matmuls(jobs, n);
            for (int32_t i = 0; i < n; i++) {
                assert_same(y[0][i], y[1][i], (int64_t)T * dw[i].rows * 4, dtype_name(dw[i].type));
                free((void *)(uintptr_t)w[i].data);
            }
            case_act_free(&x);
            next_device();
        }
}

/* Splits of what lies in a cache of any bytes are parts of any floats: only their merging is looked at. */
static void merging_makes_codes(void **state)
{
    (void)state;
    struct rnd r = {.key = 95};
    for (int32_t c = 0; c < 6; c++) {
        enum { T = 3, NKV = 2, SPLITS = 4 };
        int32_t group = rnd_between(&r, 1, 5), dim = KRN_UNIT * (c % 2 ? 4 : rnd_between(&r, 1, 8)), heads = NKV * group, pos[T] = {255, 900, 300};
        int64_t n = krn_attention_partial(T * NKV, SPLITS, group, dim), out = (int64_t)T * heads * dim * 4;
        float *parts = case_floats(&r, n, CASE_NORMAL), *sinks = case_floats(&r, heads, CASE_NORMAL), *y[2];
        for (int64_t i = dim + 1; i < n; i += dim + 2) parts[i] = 1.0f + fabsf(parts[i]);
        struct krn_kv kv = {.type = KV_F16, .n_kv = NKV, .head_dim = dim};
        struct krn_act a = {.n_tok = T, .cols = heads * dim, .q = panel(T, heads * dim)};
        uint8_t *q = panel(T, heads * dim);
        for (int how = 0; how < 2; how++) {
            ok(eng_backend_alloc(be, ENG_MEMORY_STEP, (void **)&y[how], out));
            struct krn_attention job = {.kv = &kv, .out = y[how], .pos = there(pos, sizeof pos), .n_tok = T, .n_head = heads, .scale = 1, .i1 = T * NKV,
                                        .n_split = SPLITS, .partial = there(parts, n * 4), .sinks = c % 3 ? NULL : there(sinks, heads * 4)};
            if (how) fused()->merge(&job, q);
            else be->krn->attention_merge(&job);
        }
        a.x = y[0];
        be->krn->quantize(&a, 0, T, 0, a.cols / KRN_UNIT);
        assert_same(y[0], y[1], out, "merged");
        assert_same(a.q, q, krn_act_q_bytes(T, a.cols), "codes of what is merged");
        free(parts), free(sinks);
        next_device();
    }
}

const struct CMUnitTest device_fused[] = {
    cmocka_unit_test_setup_teardown(entering_is_add_norm_and_codes, start, finish),
    cmocka_unit_test_setup_teardown(heads_are_bias_norm_rope_and_append, start, finish),
    cmocka_unit_test_setup_teardown(gates_and_their_codes, start, finish),
    cmocka_unit_test_setup_teardown(products_together_are_products_alone, start, finish),
    cmocka_unit_test_setup_teardown(merging_makes_codes, start, finish),
};
const size_t n_device_fused = COUNT_OF(device_fused);
