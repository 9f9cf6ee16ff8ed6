/* device_attention.c: a plug-in's cache and attention against `ref`: see test_device.c. */
#include "tests/kernels/device.h"

enum { MAX_POS = 560, LAST_POS = 540, N_BLOCKS = MAX_POS / KRN_KV_BLOCK };

struct attention_case { int32_t n_kv, group, dim; enum kv_type type; int32_t window; float softcap; bool sinks, chunked; int32_t v_dim; };

/* Queries: T tokens, token t at position at[t] of sequence of[t]. rounded: by the kernel that rounds. */
struct queries { int32_t T; const int32_t *at, *of; bool rounded; };

/* Near what is exact, by what rounding queries, keys, weights and values costs; not all the same; and the same again. The largest of the errors, of
 * the type's last place, is returned. */
static double check_rounded(const struct krn_attention *a, const float *want, const struct queries *asked)
{
    const struct krn_rounded *rounded = eng_backend_rounded(be);
    const double place = a->kv->type == KV_BF16 ? 0x1p-8 : 0x1p-11;
    int64_t n = (int64_t)a->n_tok * a->n_head * krn_kv_values(a->kv), other = 0;
    double worst = 0;
    float *got[2];
    for (int k = 0; k < 2; k++) {
        struct krn_attention b = *a;
        b.out = there(want, n * 4);
        ok(eng_backend_clear(be, b.out, n * 4));
        b.i0 = 0, b.i1 = asked->T * a->kv->n_kv / 2;
        rounded->attention(&b);
        b.i0 = b.i1, b.i1 = asked->T * a->kv->n_kv;
        rounded->attention(&b);
        got[k] = case_alloc((size_t)n * 4);
        here(got[k], b.out, n * 4);
    }
    assert_memory_equal(got[0], got[1], (size_t)n * 4);
    for (int64_t i = 0; i < n; i++) {
        double off = fabs((double)got[0][i] - (double)want[i]) / place;
        if (!(off < 8))
            fail_msg("%s, %d values: value %lld is %g, not %g", kv_type_name(a->kv->type), krn_kv_values(a->kv), (long long)i,
                     (double)got[0][i], (double)want[i]);
        worst = MAX(worst, off);
        other += got[0][i] != want[i];
    }
    assert_true(other > n / 2); /* else nothing was rounded */
    free(got[0]), free(got[1]);
    return worst;
}

/* Two sequences over one pool with scrambled blocks, appended to by the device's kernel and by ref; then queries, whole and in splits of their
 * own. */
static void check_attention(struct rnd *r, const struct attention_case *c, const struct queries *asked)
{
    int32_t T = asked->T;
    const int32_t *at = asked->at;
    int32_t n_head = c->n_kv * c->group, table[2][N_BLOCKS], pos[MAX_POS];
    int64_t plane = 2 * N_BLOCKS * c->n_kv * KRN_KV_BLOCK * kv_row_bytes(c->type, c->dim), row = (int64_t)c->n_kv * c->dim;
    struct krn_kv kv = {.type = c->type, .n_kv = c->n_kv, .head_dim = c->dim, .v_dim = c->v_dim}, dkv = kv;
    kv.k = case_alloc((size_t)plane), kv.v = case_alloc((size_t)plane); /* latent: a plane that nobody touches */
    memset(kv.k, 0, (size_t)plane), memset(kv.v, 0, (size_t)plane);
    dkv.k = there(kv.k, plane), dkv.v = there(kv.v, plane);
    int32_t values = krn_kv_values(&kv);
    for (int32_t i = 0; i < 2 * N_BLOCKS; i++) table[i % 2][i / 2] = (i * 37 + 5) % (2 * N_BLOCKS);
    for (int32_t i = 0; i < MAX_POS; i++) pos[i] = i;
    int32_t *dtable = there(table, sizeof table), *dpos = there(pos, sizeof pos);
    for (int32_t seq = 0; seq < 2; seq++) {
        const int32_t *tables[MAX_POS], *dtables[MAX_POS];
        for (int32_t i = 0; i < MAX_POS; i++) tables[i] = table[seq], dtables[i] = dtable + seq * N_BLOCKS;
        float *k = case_floats(r, MAX_POS * row, asked->rounded ? CASE_NORMAL : CASE_TINY), *v = case_floats(r, MAX_POS * row, CASE_NORMAL);
        for (int32_t i = 0; i < MAX_POS; i++) /* infinite as f16: nobody sees the last ones, and one is seen by the later part of a tile */
            if (i > LAST_POS || (i == 260 && !c->window && !asked->rounded)) for (int64_t d = 0; d < row; d++) v[i * row + d] = 1e6f;
        struct krn_kv_append a = {.kv = &kv, .k = k, .v = v, .pos = pos, .table = tables, .t0 = 0, .t1 = MAX_POS};
        krn_ref.kv_append(&a);
        a = (struct krn_kv_append){.kv = &dkv, .k = there(k, MAX_POS * row * 4), .v = there(v, MAX_POS * row * 4), .pos = dpos,
                                   .table = there(dtables, sizeof dtables), .t0 = 0, .t1 = 100};
        be->krn->kv_append(&a);
        a.t0 = 100, a.t1 = MAX_POS;
        be->krn->kv_append(&a);
        free(k), free(v);
    }
    uint8_t *got = case_alloc((size_t)plane);
    here(got, dkv.k, plane);
    assert_memory_equal(kv.k, got, (size_t)plane);
    here(got, dkv.v, plane);
    assert_memory_equal(kv.v, got, (size_t)plane);
    free(got);

    int64_t n = (int64_t)T * n_head * values, n_q = (int64_t)T * n_head * c->dim;
    const int32_t *tables[MAX_POS], *dtables[MAX_POS];
    for (int32_t t = 0; t < T; t++) tables[t] = table[asked->of[t]], dtables[t] = dtable + asked->of[t] * N_BLOCKS;
    float *q = case_floats(r, n_q, CASE_NORMAL), *want = case_alloc((size_t)n * 4);
    memset(want, 0x5a, (size_t)n * 4);
    float *out = there(want, n * 4);
    float sinks[32];
    for (int32_t i = 0; i < 32; i++) sinks[i] = rnd_normal(r) * 4.0f;
    struct krn_attention a = {.kv = &kv, .q = q, .out = want, .pos = at, .table = tables, .n_tok = T, .n_head = n_head,
                              .scale = 0.125f, .i1 = T * c->n_kv, .window = c->window, .chunked = c->chunked, .softcap = c->softcap,
                              .sinks = c->sinks ? sinks : NULL};
    a.scratch = case_alloc((size_t)krn_attention_scratch(n_head, c->n_kv, c->dim) * 4);
    krn_ref.attention(&a);
    free(a.scratch);
    a = (struct krn_attention){.kv = &dkv, .q = there(q, n_q * 4), .out = out, .pos = there(at, T * 4), .table = there(dtables, sizeof dtables),
                               .n_tok = T, .n_head = n_head, .scale = 0.125f, .i1 = T * c->n_kv / 2, .window = c->window,
                               .chunked = c->chunked, .softcap = c->softcap,
                               .sinks = c->sinks ? there(sinks, sizeof sinks) : NULL};
    if (asked->rounded) {
        printf("%-5s %3d values: off by %.2f of the last place\n", kv_type_name(c->type), values, check_rounded(&a, want, asked));
        free(q), free(want), free(kv.k), free(kv.v);
        next_device();
        return;
    }
    be->krn->attention(&a);
    a.i0 = a.i1, a.i1 = T * c->n_kv;
    be->krn->attention(&a);
    char what[80];
    snprintf(what, sizeof what, "attention of %d tokens, %d x %d heads of %d, %s, window %d", T, c->n_kv, c->group, c->dim, kv_type_name(c->type), c->window);
    assert_floats(want, out, n, what, values);

    a.n_split = MAX_POS / KRN_ATTN_SPLIT + 1;
    float *zero = xcalloc((size_t)n, 4);
    ok(eng_backend_upload(be, out, zero, n * 4));
    void *partial;
    ok(eng_backend_alloc(be, ENG_MEMORY_STEP, &partial, krn_attention_partial(T * c->n_kv, a.n_split, c->group, values) * 4));
    a.partial = partial;
    a.i0 = 0, a.i1 = T * c->n_kv * a.n_split;
    be->krn->attention(&a);
    a.i1 = T * c->n_kv;
    be->krn->attention_merge(&a);
    assert_floats(want, out, n, "attention in splits", values);
    free(zero), free(q), free(want), free(kv.k), free(kv.v);
    next_device();
}

static void attention_equals_ref(void **state)
{
    (void)state;
    struct rnd r = {.key = 79};
    static const struct attention_case all[] = {{.n_kv = 2, .group = 1, .dim = 64, .type = KV_F16},
                                               {.n_kv = 1, .group = 4, .dim = 32, .window = 100, .type = KV_F32},
                                               {.n_kv = 1, .group = 4, .dim = 32, .window = 100, .chunked = true, .type = KV_F16},
                                               {.n_kv = 2, .group = 7, .dim = 16, .type = KV_F16, .softcap = 20.0f},
                                               {.n_kv = 1, .group = 12, .dim = 80, .type = KV_F16, .window = 255, .sinks = true},
                                               {.n_kv = 1, .group = 3, .dim = 256, .window = 257, .softcap = 5.0f, .sinks = true, .type = KV_F32},
                                               {.n_kv = 2, .group = 4, .dim = 64, .type = KV_Q8_0}, {.n_kv = 1, .group = 3, .dim = 80, .type = KV_Q8_0},
                                               {.n_kv = 2, .group = 2, .dim = 48, .type = KV_BF16},
                                               {.n_kv = 2, .group = 4, .dim = 64, .type = KV_FP8},
                                               {.n_kv = 1, .group = 3, .dim = 80, .v_dim = 64, .type = KV_FP8, .window = 100},
                                               {.n_kv = 1, .group = 5, .dim = 40, .v_dim = 24, .type = KV_F16},
                                               {.n_kv = 1, .group = 3, .dim = 576, .v_dim = 512, .type = KV_F16},
                                               {.n_kv = 1, .group = 9, .dim = 320, .v_dim = 256, .type = KV_Q8_0, .window = 200},
                                               /* values that come in pieces of 16 bytes, and some that cannot; of many keys a stage, and of few */
                                               {.n_kv = 2, .group = 8, .dim = 128, .type = KV_F16},
                                               {.n_kv = 1, .group = 8, .dim = 128, .type = KV_Q8_0, .window = 70},
                                               {.n_kv = 2, .group = 2, .dim = 96, .type = KV_BF16}, {.n_kv = 1, .group = 5, .dim = 256, .type = KV_Q8_0},
                                               {.n_kv = 1, .group = 4, .dim = 20, .type = KV_BF16}, {.n_kv = 1, .group = 2, .dim = 10, .type = KV_F32},
                                               {.n_kv = 1, .group = 1, .dim = 40, .type = KV_FP8, .window = 33}, {.n_kv = 1, .group = 8, .dim = 16, .type = KV_FP8},
                                               {.n_kv = 1, .group = 2, .dim = 300, .type = KV_F16}, {.n_kv = 1, .group = 1, .dim = 144, .type = KV_F32, .window = 20}};
    static const int32_t at[] = {0, 1, 15, 16, 254, 255, 256, 257, 511, 512, 540}, of[] = {0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0}; /* around the ends of splits */
    for (size_t i = 0; i < COUNT_OF(all); i++) check_attention(&r, &all[i], &(struct queries){COUNT_OF(at), at, of});
}

/* Runs that begin and end anywhere in a tile, over the ends of splits, and single tokens between them. */
static struct queries prompts(int32_t at[MAX_POS], int32_t of[MAX_POS])
{
    static const struct { int32_t seq, pos, n; } runs[] = {{0, 7, 1}, {1, 0, 21}, {0, 236, 40}, {1, 500, 2}, {0, 100, 1}, {1, 255, 13}, {0, 521, 20}};
    struct queries q = {0, at, of, false};
    for (size_t i = 0; i < COUNT_OF(runs); i++)
        for (int32_t k = 0; k < runs[i].n; k++) at[q.T] = runs[i].pos + k, of[q.T++] = runs[i].seq;
    return q;
}

/* Tokens that follow each other in a sequence share their keys, many at a time. */
static void attention_of_prompts_equals_ref(void **state)
{
    static const struct attention_case all[] = {{.n_kv = 2, .group = 1, .dim = 64, .type = KV_F16},
                                               {.n_kv = 1, .group = 4, .dim = 32, .window = 100, .type = KV_F32},
                                               {.n_kv = 1, .group = 4, .dim = 128, .window = 100, .chunked = true, .type = KV_BF16},
                                               {.n_kv = 2, .group = 7, .dim = 16, .type = KV_F16, .softcap = 20.0f},
                                               {.n_kv = 1, .group = 12, .dim = 80, .type = KV_F16, .window = 255, .sinks = true},
                                               {.n_kv = 1, .group = 3, .dim = 256, .window = 257, .softcap = 5.0f, .sinks = true, .type = KV_F32},
                                               {.n_kv = 2, .group = 4, .dim = 64, .type = KV_Q8_0},
                                               {.n_kv = 1, .group = 3, .dim = 80, .type = KV_Q8_0, .window = 16},
                                               {.n_kv = 1, .group = 2, .dim = 144, .type = KV_Q8_0},
                                               {.n_kv = 1, .group = 8, .dim = 128, .type = KV_FP8},
                                               {.n_kv = 1, .group = 3, .dim = 40, .type = KV_FP8, .window = 300},
                                               {.n_kv = 1, .group = 5, .dim = 20, .type = KV_BF16}, {.n_kv = 1, .group = 2, .dim = 10, .type = KV_F32},
                                               {.n_kv = 1, .group = 3, .dim = 80, .v_dim = 64, .type = KV_FP8, .window = 100},
                                               {.n_kv = 1, .group = 35, .dim = 40, .v_dim = 24, .type = KV_F16},
                                               {.n_kv = 1, .group = 6, .dim = 576, .v_dim = 512, .type = KV_F16},
                                               {.n_kv = 1, .group = 9, .dim = 320, .v_dim = 256, .type = KV_Q8_0, .window = 200}};
    int32_t at[MAX_POS], of[MAX_POS];
    struct queries q = prompts(at, of);
    (void)state;
    struct rnd r = {.key = 83};
    for (size_t i = 0; i < COUNT_OF(all); i++) check_attention(&r, &all[i], &q);
}

/* The same by tensor cores. */
static void attention_that_rounds_is_near(void **state)
{
    static const struct attention_case all[] = {{.n_kv = 2, .group = 4, .dim = 64, .type = KV_F16},
                                               {.n_kv = 1, .group = 4, .dim = 128, .window = 100, .chunked = true, .type = KV_BF16},
                                               {.n_kv = 1, .group = 7, .dim = 24, .type = KV_F16, .softcap = 20.0f},
                                               {.n_kv = 1, .group = 3, .dim = 144, .window = 257, .softcap = 5.0f, .sinks = true, .type = KV_BF16},
                                               {.n_kv = 1, .group = 4, .dim = 80, .type = KV_Q8_0, .window = 16},
                                               {.n_kv = 1, .group = 8, .dim = 128, .type = KV_FP8},
                                               {.n_kv = 1, .group = 3, .dim = 40, .type = KV_FP8, .window = 300},
                                               {.n_kv = 1, .group = 5, .dim = 20, .type = KV_BF16},
                                               {.n_kv = 1, .group = 3, .dim = 80, .v_dim = 64, .type = KV_FP8, .window = 100},
                                               {.n_kv = 1, .group = 35, .dim = 40, .v_dim = 24, .type = KV_F16},
                                               {.n_kv = 1, .group = 9, .dim = 320, .v_dim = 256, .type = KV_Q8_0, .window = 200}};
    int32_t at[MAX_POS], of[MAX_POS];
    struct queries q = prompts(at, of);
    (void)state;
    struct rnd r = {.key = 85};
    q.rounded = true;
    if (!eng_backend_rounded(be)) skip();
    for (size_t i = 0; i < COUNT_OF(all); i++) check_attention(&r, &all[i], &q);
}

const struct CMUnitTest device_attention[] = {
    cmocka_unit_test_setup_teardown(attention_equals_ref, start, finish),
    cmocka_unit_test_setup_teardown(attention_of_prompts_equals_ref, start, finish),
    cmocka_unit_test_setup_teardown(attention_that_rounds_is_near, start, finish),
};
const size_t n_device_attention = COUNT_OF(device_attention);
