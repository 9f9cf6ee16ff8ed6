/* test_device.c: the kernels of a plug-in against `ref`, bit for bit, through the plug-in's own interface: shapes, tails, odd
 * alignments, special values, cuts. TESSERA_CUDA_PLUGIN says which plug-in: the emulated one (tests/cuda_emu), or the real one, where
 * this is the check of a card (label gpu); without a device it is skipped with the reason. `--bench` times the real one. */
#include "base/base.h"
#include "cases.h"
#include "engine/backend/backend.h"
#include "engine/kernels/cuda/choose.h"
#include "engine/kernels/cuda/lt.h"
#include "engine/kernels/pack.h"
#include "transport/coll.h"
#include "transport/wire_type.h"

#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct eng_backend *be;

/* ---- memory ---------------------------------------------------------------------------------- */

static int finish(void **state)
{
    (void)state;
    eng_backend_close(be);
    be = NULL;
    return 0;
}

static int start(void **state)
{
    (void)state;
    if (eng_backend_open(&be, "cuda:0", "ref")) fail_msg("%s", err_text());
    return 0;
}

static void ok(enum err e)
{
    if (e) fail_msg("%s", err_text());
}

/* A copy on the device, off alignment by `shift` bytes. */
static void *there_off(const void *p, int64_t bytes, int32_t shift)
{
    void *d;
    ok(eng_backend_alloc(be, ENG_MEMORY_STEP, &d, bytes + shift));
    ok(eng_backend_upload(be, (uint8_t *)d + shift, p, bytes));
    return (uint8_t *)d + shift;
}
static void *there(const void *p, int64_t bytes) { return there_off(p, bytes, 0); }
static void here(void *dst, const void *d, int64_t bytes) { ok(eng_backend_download(be, dst, d, bytes)); }

/* Allocations of a test go with its device: close and open again. */
static void next_device(void)
{
    finish(NULL);
    start(NULL);
}

static struct krn_mat mat_there(const struct krn_mat *w)
{
    struct krn_mat m = *w;
    m.data = there(w->data, w->tile_bytes * DIV_UP(w->rows, KRN_TILE));
    return m;
}

static struct krn_act act_there(const struct krn_act *x)
{
    struct krn_act a = {.n_tok = x->n_tok, .cols = x->cols};
    a.x = there(x->x, (int64_t)x->n_tok * x->cols * 4);
    if (x->q) a.q = there(x->q, krn_act_q_bytes(x->n_tok, x->cols));
    return a;
}

static void assert_floats(const float *want, const void *d, int64_t n, const char *what, int64_t size)
{
    float *got = case_alloc((size_t)n * 4);
    here(got, d, n * 4);
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&want[i], &got[i], 4) != 0)
            fail_msg("%s at size %lld: value %lld is %a, not %a", what, (long long)size, (long long)i, (double)got[i], (double)want[i]);
    free(got);
}

/* ---- products -------------------------------------------------------------------------------- */

static const enum dtype types[] = {
    DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K,
    DTYPE_Q4_1, DTYPE_Q5_0, DTYPE_Q5_1, DTYPE_Q2_K, DTYPE_Q3_K, DTYPE_IQ4_NL, DTYPE_IQ4_XS,
    DTYPE_MXFP4, DTYPE_IQ3_XXS, DTYPE_IQ3_S, DTYPE_IQ2_XXS, DTYPE_IQ2_XS, DTYPE_IQ2_S, DTYPE_IQ1_S,
    DTYPE_IQ1_M, DTYPE_TQ1_0, DTYPE_TQ2_0,
};

struct shape {
    int32_t rows, cols, k0, n_tok, n_leaf, lo, hi;
    bool quantise;
    int32_t kind;
};

static void check_product(struct rnd *r, enum dtype type, const struct shape *s)
{
    enum { PAD = 5 };
    static int32_t bound[TREE_MAX_LEAF + 1];
    static struct krn_leaves l;
    int32_t whole = ROUND_UP(s->k0 + s->cols, dtype_block(type));
    struct case_file f = case_file_make(r, type, s->rows, whole);
    struct krn_mat w = case_pack(&f, s->k0, s->cols);
    struct krn_act x = case_act(r, s->n_tok, s->cols, s->quantise, s->kind);
    /* leaves [lo,hi) of n_leaf, whose columns fill this slice */
    case_bounds(r, s->hi - s->lo, s->cols, krn_pack_is_quant(type) ? KRN_UNIT : 1, bound);
    l = (struct krn_leaves){.n_leaf = s->n_leaf, .lo = s->lo, .hi = s->hi};
    for (int32_t i = 0; i <= s->hi - s->lo; i++) l.cols[i] = bound[i];
    l.n_nodes = tree_maximal(s->n_leaf, s->lo, s->hi, l.nodes);

    int64_t node_stride = s->rows + PAD, y_stride = node_stride * l.n_nodes, n = y_stride * s->n_tok;
    float *want = case_alloc((size_t)n * 4);
    memset(want, 0xa5, (size_t)n * 4);
    void *y = there(want, n * 4);
    struct krn_matmul a = {.w = &w, .x = &x, .leaves = &l, .y = want, .y_stride = y_stride, .node_stride = node_stride, .row1 = s->rows};
    krn_ref.matmul(&a);
    struct krn_mat dw = mat_there(&w);
    struct krn_act dx = act_there(&x);
    int32_t middle = rnd_below(r, s->rows / KRN_TILE + 1) * KRN_TILE;
    a.w = &dw, a.x = &dx, a.y = y;
    a.row1 = middle;
    be->krn->matmul(&a);
    a.row0 = middle, a.row1 = s->rows;
    be->krn->matmul(&a);
    char what[96];
    snprintf(what, sizeof what, "%s %s, %d x %d, %d tokens, leaves %d..%d of %d", dtype_name(type), x.q ? "int8" : "f32", s->rows, s->cols,
             s->n_tok, s->lo, s->hi, s->n_leaf);
    assert_floats(want, y, n, what, s->rows);
    free(want);
    free((void *)w.data);
    case_act_free(&x);
    case_file_free(&f);
    next_device();
}

static struct shape random_shape(struct rnd *r, enum dtype type)
{
    static const int32_t n_toks[] = {1, 1, 2, 3, 4, 5, 8, 13, 16, 17, 33};
    static const int32_t n_leaves[] = {1, 1, 1, 3, 5, 16, 56};
    struct shape s = {.rows = rnd_between(r, 1, 50), .n_tok = n_toks[rnd_below(r, COUNT_OF(n_toks))]};
    s.kind = rnd_below(r, 3) ? CASE_NORMAL : rnd_between(r, 0, CASE_KINDS - 1);
    bool quant = krn_pack_is_quant(type);
    int32_t grain = quant ? KRN_UNIT : rnd_below(r, 2) ? 8 : 1;
    s.n_leaf = n_leaves[rnd_below(r, COUNT_OF(n_leaves))];
    s.lo = rnd_below(r, 2) ? 0 : rnd_below(r, s.n_leaf);
    s.hi = rnd_below(r, 2) ? s.n_leaf : rnd_between(r, s.lo + 1, s.n_leaf);
    s.cols = grain * rnd_between(r, s.hi - s.lo, MAX(s.hi - s.lo, quant ? 20 : 90));
    s.k0 = grain * rnd_below(r, 9);
    s.quantise = quant && rnd_below(r, 3);
    return s;
}

static void products_equal_ref(void **state)
{
    (void)state;
    struct rnd r = {.key = 71};
    printf("seed %llu\n", (unsigned long long)r.key);
    for (size_t i = 0; i < COUNT_OF(types); i++)
        for (int32_t n = 0; n < 14; n++) {
            struct shape s = random_shape(&r, types[i]);
            check_product(&r, types[i], &s);
        }
}

static void long_rows_and_many_leaves(void **state)
{
    (void)state;
    struct rnd r = {.key = 72};
    struct shape wide = {.rows = 20, .cols = 4128, .n_tok = 1, .n_leaf = 1, .hi = 1, .quantise = true};
    check_product(&r, DTYPE_Q4_K, &wide);
    check_product(&r, DTYPE_Q6_K, &wide);
    wide.quantise = false;
    check_product(&r, DTYPE_BF16, &wide);
    struct shape many = {.rows = 17, .cols = 1040, .n_tok = 2, .n_leaf = 1000, .hi = 1000};
    check_product(&r, DTYPE_F16, &many);
    struct shape uneven = {.rows = 33, .cols = 96 * KRN_UNIT, .n_tok = 5, .n_leaf = 128, .lo = 3, .hi = 99, .quantise = true};
    check_product(&r, DTYPE_Q5_K, &uneven);
}

/* Blocks of the tensor-core kernel that are full, partly full and begun in the middle; few tokens left over for the other one. */
static void products_of_many_tokens_equal_ref(void **state)
{
    (void)state;
    struct rnd r = {.key = 74};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        bool quant = krn_pack_is_quant(types[i]);
        struct shape rows = {.rows = 150, .cols = quant ? 7 * KRN_UNIT : 229, .k0 = 3 * KRN_UNIT, .n_tok = 101, .n_leaf = 1, .hi = 1, .quantise = quant};
        check_product(&r, types[i], &rows);
        struct shape leaves = {.rows = 40, .cols = 33 * KRN_UNIT, .n_tok = 32, .n_leaf = 20, .lo = 3, .hi = 17, .quantise = quant};
        check_product(&r, types[i], &leaves);
        struct shape large = {.rows = 20, .cols = 6 * KRN_UNIT, .n_tok = 83, .n_leaf = 1, .hi = 1, .quantise = quant, .kind = 1 + (int32_t)i % (CASE_KINDS - 1)};
        check_product(&r, types[i], &large);
    }
}

/* Products that round: within what rounding both factors to bf16 costs of the sum of the terms' sizes, the same again, and not the exact ones. */
static void rounded_products_are_near(void **state)
{
    static const struct { int32_t rows, cols, n_tok, n_leaf; } shapes[] = {{17, 2, 8, 1}, {70, 333, 9, 1}, {130, 64, 131, 1}, {40, 6 * 34 + 1, 33, 6}, {200, 512, 140, 16},
                                                                          {70, 333, KRN_LT_TOKENS, 1}, {100, 96, KRN_LT_TOKENS + 3, 5}};
    (void)state;
    struct rnd r = {.key = 77};
    double worst = 0;
    for (size_t i = 0; i < 2 * COUNT_OF(shapes); i++) {
        const struct krn_rounded *k = eng_backend_rounded(be);
        int32_t rows = shapes[i / 2].rows, cols = shapes[i / 2].cols, T = shapes[i / 2].n_tok, n_leaf = shapes[i / 2].n_leaf, bound[TREE_MAX_LEAF + 1];
        if (!k) skip();
        struct case_file f = case_file_make(&r, i % 2 ? DTYPE_F16 : DTYPE_BF16, rows, cols);
        struct krn_mat w = case_pack(&f, 0, cols), dw = mat_there(&w);
        struct krn_act x = case_act(&r, T, cols, false, CASE_NORMAL), dx = act_there(&x);
        struct krn_leaves l = {.n_leaf = n_leaf, .hi = n_leaf};
        case_bounds(&r, n_leaf, cols / 2 * 2, 2, bound);
        bound[n_leaf] = cols;
        for (int32_t b = 0; b <= n_leaf; b++) l.cols[b] = bound[b];
        l.n_nodes = tree_maximal(n_leaf, 0, n_leaf, l.nodes);
        int64_t words = krn_act_xb_words(T, cols), n = (int64_t)T * rows;
        float *got = case_alloc((size_t)n * 4), *again = case_alloc((size_t)n * 4), *want = case_alloc((size_t)n * 4), *values = case_alloc((size_t)rows * (size_t)cols * 4);
        void *junk = case_alloc((size_t)words * 4);
        memset(junk, 0xff, (size_t)words * 4); /* not numbers: they must not be left */
        memset(got, 0, (size_t)n * 4);
        dx.xb = there(junk, words * 4);
        void *y = there(got, n * 4);
        int32_t middle = T / 2, at = rows / KRN_TILE / 2 * KRN_TILE;
        k->interleave(&dx, 0, middle, 0, cols);
        k->interleave(&dx, middle, T, 0, cols / 4 * 2);
        k->interleave(&dx, middle, T, cols / 4 * 2, cols);
        for (int times = 0; times < 2; times++) {
            k->matmul(&(struct krn_matmul){.w = &dw, .x = &dx, .leaves = &l, .y = y, .y_stride = rows, .row1 = at});
            k->matmul(&(struct krn_matmul){.w = &dw, .x = &dx, .leaves = &l, .y = y, .y_stride = rows, .row0 = at, .row1 = rows});
            here(times ? again : got, y, n * 4);
        }
        assert_memory_equal(got, again, (size_t)n * 4);
        krn_ref.matmul(&(struct krn_matmul){.w = &w, .x = &x, .leaves = &l, .y = want, .y_stride = rows, .row1 = rows});
        for (int32_t row = 0; row < rows; row++) krn_unpack_row(&w, row, values + (int64_t)row * cols);
        for (int64_t e = 0; e < n; e++) {
            double size = 0;
            for (int32_t c = 0; c < cols; c++) size += fabs((double)values[e % rows * cols + c] * (double)x.x[e / rows * cols + c]);
            double off = fabs((double)got[e] - (double)want[e]);
            if (!(off <= 1.01 * (i % 2 ? 0x1p-7 : 0x1p-8) * size)) fail_msg("%s, %d x %d, %d tokens: value %lld is %g, not %g", dtype_name(w.type), rows, cols, T, (long long)e, (double)got[e], (double)want[e]);
            worst = MAX(worst, size > 0 ? off / size : 0);
        }
        free(got);
        free(again);
        free(want);
        free(values);
        free(junk);
        free((void *)w.data);
        case_act_free(&x);
        case_file_free(&f);
        next_device();
    }
    assert_true(worst > 1e-5); /* else nothing was rounded */
}

/* With the library's stand-in: products of many tokens are its own, node by node and in pieces of rows, until it refuses one. */
static void products_of_many_tokens_are_the_librarys(void **state)
{
    (void)state;
    const char *path = getenv("TESSERA_CUBLASLT");
    void *stub = path ? dlopen(path, RTLD_NOW | RTLD_NOLOAD) : NULL;
    if (!stub && path) stub = dlopen(path, RTLD_NOW);
    int *n = stub ? dlsym(stub, "cublaslt_stub_products") : NULL;
    if (!n) skip();
    enum { ROWS = 40, COLS = 400, T = KRN_LT_TOKENS, PIECES = 3, NODES = 2 }; /* a piece is a tile: KRN_LT_ROOM of the emulated card */
    struct rnd r = {.key = 82};
    const struct krn_rounded *k = eng_backend_rounded(be);
    struct case_file f = case_file_make(&r, DTYPE_BF16, ROWS, COLS);
    struct krn_mat w = case_pack(&f, 0, COLS), dw = mat_there(&w);
    struct krn_act x = case_act(&r, T, COLS, false, CASE_NORMAL), dx = act_there(&x);
    struct krn_leaves l = {.n_leaf = 8, .lo = 1, .hi = 4};
    for (int32_t b = 0; b <= 3; b++) l.cols[b] = b == 3 ? COLS : 100 * b;
    l.n_nodes = tree_maximal(8, 1, 4, l.nodes);
    assert_int_equal(l.n_nodes, NODES);
    float *y = xcalloc(NODES * T * ROWS, 4), *again = xcalloc(NODES * T * ROWS, 4);
    dx.xb = there(y, krn_act_xb_words(T, COLS) * 4);
    k->interleave(&dx, 0, T, 0, COLS);
    struct krn_matmul a = {.w = &dw, .x = &dx, .leaves = &l, .y = there(y, NODES * T * ROWS * 4), .y_stride = ROWS, .node_stride = T * ROWS, .row1 = ROWS};
    int before = *n;
    k->matmul(&a);
    assert_int_equal(*n - before, PIECES * NODES);
    here(y, a.y, NODES * T * ROWS * 4);
    setenv("CUBLASLT_STUB", "refuse", 1);
    k->matmul(&a);
    unsetenv("CUBLASLT_STUB");
    k->matmul(&a);
    assert_int_equal(*n - before, PIECES * NODES); /* none since */
    here(again, a.y, NODES * T * ROWS * 4);
    for (int32_t i = 0; i < NODES * T * ROWS; i++) assert_true(fabsf(y[i] - again[i]) <= 1e-4f * (1 + fabsf(y[i]))); /* ours, in another order */
    free(y), free(again);
    free((void *)w.data);
    case_act_free(&x);
    case_file_free(&f);
    dlclose(stub);
}

/* Slots of three experts over the leaves of a slice, each leaf by itself: rows [row0, rows) of every slot are its expert's product with its token. */
static void check_slots(struct rnd *r, enum dtype type, int32_t n_tok, int32_t per, int32_t n_leaf)
{
    enum { E = 3, ROWS = 40 };
    bool quant = krn_pack_is_quant(type);
    int32_t cols = quant ? 40 * KRN_UNIT : 333, slots = n_tok * per, ids[64], bound[TREE_MAX_LEAF + 1];
    struct krn_act x = case_act(r, n_tok, cols, quant, CASE_NORMAL), dx = act_there(&x);
    struct krn_leaves l = {.n_leaf = n_leaf, .hi = n_leaf};
    struct krn_mat w[E], dw[E];
    const uint8_t *data[E];
    int64_t each = (int64_t)slots * ROWS;
    float *want = case_alloc((size_t)(each * n_leaf) * 4), *y = case_alloc((size_t)n_tok * ROWS * TREE_MAX_NODES * 4);
    memset(want, 0, (size_t)(each * n_leaf) * 4);
    case_bounds(r, n_leaf, cols, quant ? KRN_UNIT : 1, bound);
    for (int32_t i = 0; i <= n_leaf; i++) l.cols[i] = bound[i];
    for (int32_t i = 0; i < slots; i++) ids[i] = rnd_below(r, E);
    void *d = there(want, each * n_leaf * 4);
    for (int32_t e = 0; e < E; e++) {
        struct case_file f = case_file_make(r, type, ROWS, ROUND_UP(cols, dtype_block(type)));
        w[e] = case_pack(&f, 0, cols);
        dw[e] = mat_there(&w[e]);
        data[e] = dw[e].data;
        for (int32_t i = 0; i < n_leaf; i += l.n_nodes) {
            l.n_nodes = MIN(n_leaf - i, TREE_MAX_NODES);
            for (int32_t k = 0; k < l.n_nodes; k++) l.nodes[k] = (struct tree_node){i + k, i + k + 1};
            krn_ref.matmul(&(struct krn_matmul){.w = &w[e], .x = &x, .leaves = &l, .y = y, .y_stride = ROWS, .node_stride = n_tok * ROWS, .row1 = ROWS});
            for (int32_t k = 0; k < l.n_nodes; k++)
                for (int32_t s = 0; s < slots; s++)
                    if (ids[s] == e) memcpy(want + (i + k) * each + s * ROWS + KRN_TILE, y + (k * n_tok + s / per) * ROWS + KRN_TILE, (ROWS - KRN_TILE) * 4);
        }
        case_file_free(&f);
        free((void *)w[e].data);
    }
    struct krn_slots s = {.data = there(data, sizeof data), .ids = there(ids, slots * 4), .n_slots = slots, .per = per};
    eng_backend_experts(be)->matmul(&(struct krn_matmul){.w = &dw[0], .x = &dx, .leaves = &l, .y = d, .y_stride = ROWS, .node_stride = each,
                                                        .row0 = KRN_TILE, .row1 = ROWS}, &s);
    assert_floats(want, d, each * n_leaf, dtype_name(type), slots);
    free(want);
    free(y);
    case_act_free(&x);
    next_device();
}

static void products_of_experts_equal_ref(void **state)
{
    static const enum dtype some[] = {DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_K, DTYPE_Q6_K, DTYPE_MXFP4, DTYPE_IQ2_S};
    (void)state;
    struct rnd r = {.key = 75};
    for (size_t i = 0; i < COUNT_OF(some); i++) {
        check_slots(&r, some[i], 5, 2, 1);
        check_slots(&r, some[i], 19, 1, 25);
    }
}

/* Leaves that are in no node of a product, before and behind those that are, are passed over. */
static void leaves_in_no_node_are_left_out(void **state)
{
    enum { LEAVES = 30, ROWS = 20 };
    (void)state;
    struct rnd r = {.key = 76};
    for (int q = 0; q < 2; q++)
        for (int32_t n_tok = 1; n_tok < 80; n_tok += 39) {
            struct case_file f = case_file_make(&r, q ? DTYPE_Q8_0 : DTYPE_F16, ROWS, LEAVES * KRN_UNIT);
            struct krn_mat w = case_pack(&f, 0, LEAVES * KRN_UNIT), dw = mat_there(&w);
            struct krn_act x = case_act(&r, n_tok, LEAVES * KRN_UNIT, q, CASE_NORMAL), dx = act_there(&x);
            struct krn_leaves l = {.n_leaf = LEAVES, .hi = LEAVES, .n_nodes = 2, .nodes = {{11, 12}, {12, 15}}};
            for (int32_t i = 0; i <= LEAVES; i++) l.cols[i] = i * KRN_UNIT;
            float *want = case_alloc((size_t)(2 * n_tok * ROWS) * 4);
            void *d = there(want, 2 * n_tok * ROWS * 4);
            struct krn_matmul a = {.w = &w, .x = &x, .leaves = &l, .y = want, .y_stride = ROWS, .node_stride = n_tok * ROWS, .row1 = ROWS};
            krn_ref.matmul(&a);
            a.w = &dw, a.x = &dx, a.y = d;
            be->krn->matmul(&a);
            assert_floats(want, d, 2 * n_tok * ROWS, "leaves in no node", n_tok);
            free(want);
            free((void *)w.data);
            case_act_free(&x);
            case_file_free(&f);
            next_device();
        }
}

static void rows_unpack_to_the_files_values(void **state)
{
    (void)state;
    struct rnd r = {.key = 73};
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        struct case_file f = case_file_make(&r, types[i], 40, 512);
        struct krn_mat w = case_pack(&f, 0, 512), dw = mat_there(&w);
        static const int32_t rows[] = {0, 39, 16, 16, 7, 31};
        float want[COUNT_OF(rows)][512];
        for (size_t k = 0; k < COUNT_OF(rows); k++) krn_unpack_row(&w, rows[k], want[k]);
        float *out = there(want, sizeof want);
        float zero[COUNT_OF(rows) * 512] = {0};
        ok(eng_backend_upload(be, out, zero, sizeof zero));
        be->krn->unpack_rows(&dw, there(rows, sizeof rows), COUNT_OF(rows), out);
        assert_floats(want[0], out, COUNT_OF(rows) * 512, dtype_name(types[i]), 512);
        free((void *)w.data);
        case_file_free(&f);
        next_device();
    }
}

/* ---- activations ----------------------------------------------------------------------------- */

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
        struct krn_noise how[ROWS] = {{1.0f, -INFINITY, 1, 0}, {0.7f, -3.0f, 2, 0}, {0}, {2.0f, -INFINITY, 3, 0}, {0.01f, -INFINITY, 4, 0}};
        struct krn_pick best[ROWS], drawn[ROWS], mark = {42.0f, 42};
        for (int32_t i = 0; i < ROWS * n; i++) x[i] = rnd_below(&r, 10) ? x[i] * 3.0f : -INFINITY;
        for (int32_t i = 0; i < n; i++) x[3 * n + i] = -INFINITY;
        for (int32_t i = 0; i < n; i += 3) x[2 * n + i] = 50.0f;
        for (int32_t i = 0; i < ROWS; i++) drawn[i] = mark;
        float *dx = there(x, 4 * (int64_t)ROWS * n);
        struct krn_pick *dbest = there(best, sizeof best), *ddrawn = there(drawn, sizeof drawn);
        eng_backend_best(be, dx, ROWS, n, dbest);
        eng_backend_draw(be, dx, ROWS, n, id0, there(how, sizeof how), dbest, ddrawn);
        here(best, dbest, sizeof best);
        here(drawn, ddrawn, sizeof drawn);
        for (int32_t i = 0; i < ROWS; i++) {
            int32_t at = krn_ref.argmax(x + i * n, n);
            assert_int_equal(best[i].id, at);
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
        struct krn_noise how[ROWS] = {{1.0f, 0, 1, KRN_TOP}, {0.7f, 0, 2, 0}, {2.0f, 0, 3, 40}, {0.5f, 0, 4, 1}, {0.01f, 0, 5, 20}};
        struct krn_pick best[ROWS], mark = {42.0f, 42};
        static struct krn_pick top[ROWS][KRN_TOP], scratch[ROWS][KRN_CHOOSE_PIECES][KRN_TOP];
        for (int32_t i = 0; i < ROWS * n; i++) x[i] = rnd_below(&r, 10) ? x[i] * 3.0f : -INFINITY;
        for (int32_t i = 0; i < n; i += 3) x[2 * n + i] = 4.0f; /* as many as there are, and more than are wanted */
        for (int32_t i = 0; i < n; i++) x[3 * n + i] = -INFINITY;
        for (int32_t i = 0; i < ROWS; i++)
            for (int32_t t = 0; t < KRN_TOP; t++) top[i][t] = mark;
        float *dx = there(x, 4 * (int64_t)ROWS * n);
        struct krn_pick *dbest = there(best, sizeof best), *dtop = there(top, sizeof top);
        eng_backend_best(be, dx, ROWS, n, dbest);
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

/* ---- attention --------------------------------------------------------------------------------- */

enum { MAX_POS = 560, N_BLOCKS = MAX_POS / KRN_KV_BLOCK };

struct attention_case { int32_t n_kv, group, dim; enum kv_type type; int32_t window; float softcap; bool sinks, chunked; int32_t v_dim; };

/* Two sequences over one pool with scrambled blocks, appended to by the device's kernel and by ref; then queries at positions around the
 * ends of splits, whole and in splits of their own. */
static void check_attention(struct rnd *r, const struct attention_case *c)
{
    static const int32_t at[] = {0, 1, 15, 16, 254, 255, 256, 257, 511, 512, 540};
    enum { T = COUNT_OF(at) };
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
        float *k = case_floats(r, MAX_POS * row, CASE_TINY), *v = case_floats(r, MAX_POS * row, CASE_NORMAL);
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
    const int32_t *tables[T], *dtables[T];
    for (int32_t t = 0; t < T; t++) tables[t] = table[t % 2], dtables[t] = dtable + t % 2 * N_BLOCKS;
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
    a = (struct krn_attention){.kv = &dkv, .q = there(q, n_q * 4), .out = out, .pos = there(at, sizeof at), .table = there(dtables, sizeof dtables),
                               .n_tok = T, .n_head = n_head, .scale = 0.125f, .i1 = T * c->n_kv / 2, .window = c->window, .chunked = c->chunked, .softcap = c->softcap,
                               .sinks = c->sinks ? there(sinks, sizeof sinks) : NULL};
    be->krn->attention(&a);
    a.i0 = a.i1, a.i1 = T * c->n_kv;
    be->krn->attention(&a);
    char what[80];
    snprintf(what, sizeof what, "attention %d x %d heads of %d, %s, window %d", c->n_kv, c->group, c->dim, kv_type_name(c->type), c->window);
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
                                               {.n_kv = 2, .group = 4, .dim = 64, .type = KV_FP8}, {.n_kv = 1, .group = 3, .dim = 80, .v_dim = 64, .type = KV_FP8, .window = 100},
                                               {.n_kv = 1, .group = 5, .dim = 40, .v_dim = 24, .type = KV_F16},
                                               {.n_kv = 1, .group = 3, .dim = 576, .v_dim = 512, .type = KV_F16},
                                               {.n_kv = 1, .group = 9, .dim = 320, .v_dim = 256, .type = KV_Q8_0, .window = 200}};
    for (size_t i = 0; i < COUNT_OF(all); i++) check_attention(&r, &all[i]);
}

/* ---- the device itself ----------------------------------------------------------------------------- */

static void rows_of_lists_equal_ref(void **state)
{
    (void)state;
    struct rnd r = {.key = 78};
    for (int32_t k = 0; k < 12; k++) {
        enum { ROWS = 40, STRIDE = 311 };
        int32_t n = rnd_between(&r, 1, 300), n_rows = rnd_between(&r, 1, ROWS), batches = rnd_between(&r, 1, 3), at[ROWS];
        float *x = case_alloc(4 * 3 * ROWS * STRIDE), *y = case_alloc(4 * 3 * ROWS * STRIDE), a[ROWS];
        for (int32_t i = 0; i < 3 * ROWS * STRIDE; i++) x[i] = rnd_normal(&r), y[i] = rnd_normal(&r);
        for (int32_t i = 0; i < ROWS; i++) at[i] = rnd_below(&r, k % 2 ? 5 : ROWS), a[i] = rnd_normal(&r); /* some rows more than once */
        float *dy = there(y, 4 * 3 * ROWS * STRIDE), *dx = there(x, 4 * 3 * ROWS * STRIDE), *da = there(a, sizeof a);
        int32_t *dat = there(at, sizeof at);
        eng_backend_axpy_batches(be, dy, ROWS * STRIDE, STRIDE, dat, da, dx, ROWS * STRIDE, STRIDE - 1, batches, n_rows, n);
        for (int32_t b = 0; b < batches; b++)
            krn_ref.axpy_rows(y + b * ROWS * STRIDE, STRIDE, at, a, x + b * ROWS * STRIDE, STRIDE - 1, n_rows, n);
        assert_floats(y, dy, 3 * ROWS * STRIDE, "rows added", n);
        eng_backend_copy_rows(be, dy, STRIDE, dx, STRIDE - 3, k % 3 ? dat : NULL, k % 4 ? NULL : da, n_rows, n);
        for (int32_t i = 0; i < n_rows; i++) {
            memcpy(y + i * STRIDE, x + (k % 3 ? at[i] : i) * (STRIDE - 3), (size_t)n * 4);
            if (k % 4 == 0) krn_ref.scale(y + i * STRIDE, a[i], n);
        }
        assert_floats(y, dy, 3 * ROWS * STRIDE, "rows copied", n);
        ok(eng_backend_clear(be, dy + 3, 4 * 100));
        memset(y + 3, 0, 4 * 100);
        assert_floats(y, dy, 300, "memory cleared", n);
        free(x);
        free(y);
        next_device();
    }
}

static void ranks_are_dealt_to_devices(void **state)
{
    (void)state;
    static const struct { const char *want; int32_t nth, n, is; } all[] = {
        {"auto", 0, 2, 0}, {"auto", 1, 2, 1}, {"auto", 2, 2, -1}, {"auto+2", 0, 4, 2}, {"auto+2", 1, 4, 3}, {"auto+2", 2, 4, -1}, {"auto+2", 0, 2, -1},
        {"cuda", 3, 2, 1}, {"cuda+1", 0, 2, 1}, {"cuda+1", 1, 2, 0}, {"cuda", 0, 0, -1}, {"cuda:3", 0, 2, 3}, {"auto+", 0, 2, -1}, {"auto+x", 0, 2, -1},
        {"auto+1x", 0, 2, -1}, {"cuda+99999", 0, 2, -1}, {"cpu", 0, 2, -1}};
    for (size_t i = 0; i < COUNT_OF(all); i++) assert_int_equal(eng_backend_nth(all[i].want, all[i].nth, all[i].n), all[i].is);
    char name[24];
    int32_t n;
    ok(eng_backend_choose("auto+1", 0, name, &n, NULL));
    assert_string_equal(name, n > 1 ? "cuda:1" : "cpu");
    ok(eng_backend_choose("cuda+1", 0, name, &n, NULL));
    assert_true(!strncmp(name, "cuda:", 5));
    assert_int_equal(eng_backend_choose("auto+x", 0, name, &n, NULL), ERR_BAD_CONFIG);
}

static void a_card_with_a_display_keeps_some_memory(void **state)
{
    (void)state;
    struct plugin_device_info plain, shown;
    char name[24];
    int32_t n;
    if (!strstr(getenv("TESSERA_CUDA_PLUGIN"), "emu")) skip();
    ok(eng_backend_choose("cuda:0", 0, name, &n, &plain));
    setenv("CUDA_EMU_DISPLAY", "1", 1);
    ok(eng_backend_choose("cuda:0", 0, name, &n, &shown));
    unsetenv("CUDA_EMU_DISPLAY");
    assert_int_equal(plain.free_bytes - shown.free_bytes, 512 << 20);
    assert_int_equal(plain.total_bytes, shown.total_bytes);
}

static void types_without_kernels_are_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(types); i++) assert_true(eng_backend_reads(be, krn_pack_layout(types[i])));
    assert_false(eng_backend_reads(be, DTYPE_COUNT));
}

/* ---- sums over ranks ------------------------------------------------------------------------- */

static void tree_sums_equal_the_hosts(void **state)
{
    (void)state;
    struct rnd r = {41};
    static const int32_t sizes[] = {1, 2, 3, 4, 5, 8, 16};
    for (size_t k = 0; k < COUNT_OF(sizes); k++)
        for (int32_t odd = 0; odd < 3; odd++) {
            int32_t size = sizes[k], n_leaf = odd ? 37 + odd : 16;
            int64_t n = odd == 2 ? 70001 : 257, stride = n + 3 * odd;
            static struct trn_reduce plan;
            struct coll_cut cut = {.n_leaf = n_leaf};
            for (int32_t i = 0; i <= size; i++) cut.bounds[i] = n_leaf * i / size;
            trn_reduce_plan(&plan, &cut, size);
            float *parts = case_alloc((size_t)(plan.n_parts * stride) * 4), *want = case_alloc((size_t)n * 4);
            const float *part[TREE_MAX_LEAF];
            for (int64_t i = 0; i < plan.n_parts * stride; i++) parts[i] = rnd_normal(&r);
            for (int32_t p = 0; p < plan.n_parts; p++) part[p] = parts + p * stride;
            trn_reduce_run(&plan, part, want, n);
            struct trn_device d;
            ok(eng_backend_device(be, &d));
            float *out = there(parts, (n + 1) * 4);
            ok(d.reduce(d.user, &plan, there(parts, plan.n_parts * stride * 4), stride, out, n));
            assert_floats(want, out, n, "a tree sum", size);
            assert_floats(parts + n, out + n, 1, "what lies behind a tree sum", size);
            free(parts);
            free(want);
            next_device();
        }
}

/* What leaves a host packed, and what came back: the host's own bytes and sums, over lengths that end within a block, zeros, and values beyond f16. */
static void wires_equal_the_hosts(void **state)
{
    (void)state;
    static const int32_t lengths[] = {1, 31, 32, 33, 700, 4096 + 5};
    struct rnd r = {.key = 81};
    struct trn_device dev;
    ok(eng_backend_device(be, &dev));
    for (size_t k = 0; k < COUNT_OF(lengths); k++)
        for (int t = TRN_WIRE_F16; t < TRN_WIRE_TYPES; t++) {
            enum { PARTS = 3 };
            int32_t n = lengths[k];
            int64_t bytes = trn_wire_bytes((enum trn_wire_type)t, n), stride = ROUND_UP(bytes, 4);
            float *x = case_floats(&r, PARTS * n, k % 2 ? CASE_LARGE : CASE_TINY), *sum = xcalloc((size_t)n, 4), *got = xcalloc((size_t)n, 4);
            for (int32_t i = 0; i < MIN(n, 64); i++) x[i] = i % 3 ? 1e6f : -0.0f, x[n + i] = x[2 * n + i] = i % 5 ? 0.0f : -1e-6f;
            uint8_t *want = xcalloc(PARTS, (size_t)stride), *have = xcalloc(1, (size_t)bytes);
            for (int32_t parts = 1; parts <= PARTS; parts++) {
                for (int32_t i = 0; i < n; i++)
                    for (int32_t p = 0; p < parts; p++) sum[i] = p ? sum[i] + x[p * n + i] : x[i];
                trn_wire_pack((enum trn_wire_type)t, sum, n, want);
                void *out = there(have, bytes);
                ok(dev.pack(dev.user, &(struct wire_pack){t == TRN_WIRE_Q8, there(x, 4 * (int64_t)PARTS * n), n, n, parts, out}));
                here(have, out, bytes);
                assert_memory_equal(want, have, (size_t)bytes);
            }
            for (int32_t p = 0; p < PARTS; p++) trn_wire_pack((enum trn_wire_type)t, x + p * n, n, want + p * stride);
            for (int32_t parts = 0; parts <= PARTS; parts++) {
                memset(sum, 0, (size_t)n * 4);
                for (int32_t p = 0; p < parts; p++) trn_wire_add((enum trn_wire_type)t, want + p * stride, n, sum);
                if (!parts) trn_wire_unpack((enum trn_wire_type)t, want, n, sum);
                float *out = there(got, 4 * (int64_t)n);
                ok(dev.unpack(dev.user, &(struct wire_unpack){t == TRN_WIRE_Q8, there(want, PARTS * stride), stride, n, parts, out}));
                assert_floats(sum, out, n, "unpacked", n);
            }
            free(x), free(sum), free(got), free(want), free(have);
        }
}

static void marks_are_reached_in_order(void **state)
{
    (void)state;
    struct trn_device d;
    bool done = false;
    float x[64] = {1};
    ok(eng_backend_device(be, &d));
    assert_true(d.where[0] && d.stream);
    for (int32_t i = 0; i < 2 * TRN_DEVICE_MARKS; i++) {
        there(x, sizeof x);
        ok(d.mark(d.user, i % TRN_DEVICE_MARKS));
    }
    ok(eng_backend_sync(be));
    for (int32_t i = 0; i < TRN_DEVICE_MARKS; i++) {
        ok(d.marked(d.user, i, &done));
        assert_true(done);
    }
}

static enum err lost(void *user)
{
    ++*(int32_t *)user;
    return err_raise(ERR_PEER_LOST, "a rank is lost");
}

static void a_wait_is_watched(void **state)
{
    (void)state;
    int32_t asked = 0;
    bool emulated = strstr(getenv("TESSERA_CUDA_PLUGIN"), "emu"); /* there a device can be ordered to be busy */
    float x[4] = {1, 2, 3, 4}, y[4];
    void *d = there(x, sizeof x);
    eng_backend_watch(be, lost, &asked);
    if (emulated) setenv("CUDA_EMU_BUSY", "1000", 1);
    enum err e = eng_backend_download(be, y, d, sizeof y);
    unsetenv("CUDA_EMU_BUSY");
    assert_int_equal(asked, emulated || e ? 1 : 0);
    assert_int_equal(e, asked ? ERR_PEER_LOST : OK);
    eng_backend_watch(be, NULL, NULL);
    here(y, d, sizeof y);
    assert_memory_equal(x, y, sizeof x);
}

static void memory_is_zeroed_and_copied_in_order(void **state)
{
    (void)state;
    void *a, *b;
    uint8_t buf[1000], zero[1000] = {0};
    ok(eng_backend_alloc(be, ENG_MEMORY_KV, &a, 1000));
    ok(eng_backend_alloc(be, ENG_MEMORY_KV, &b, 1000));
    memset(buf, 7, sizeof buf);
    here(buf, a, 1000);
    assert_memory_equal(buf, zero, 1000);
    for (int32_t i = 0; i < 1000; i++) buf[i] = (uint8_t)i;
    ok(eng_backend_upload(be, a, buf, 1000));
    ok(eng_backend_copy(be, (uint8_t *)b + 500, a, 500));
    memset(zero, 1, sizeof zero);
    here(zero, b, 1000);
    assert_memory_equal(zero + 500, buf, 500);
    assert_int_equal(zero[499], 0);
    eng_backend_free(be, a);
    eng_backend_free(be, NULL);
    ok(eng_backend_sync(be));
}

/* Megabytes both ways, more than are on their way at once, from and to anywhere; the bytes that were sent may be overwritten at once. */
static void long_copies_go_in_pieces(void **state)
{
    enum { BYTES = (9 << 20) + 12345, AT = 77 };
    (void)state;
    uint8_t *sent = malloc(BYTES + AT), *got = malloc(BYTES + AT), *kept = malloc(BYTES);
    void *d;
    for (int32_t i = 0; i < BYTES; i++) kept[i] = (uint8_t)(i * 7 + i / 1000);
    memcpy(sent + AT, kept, BYTES);
    ok(eng_backend_alloc(be, ENG_MEMORY_KV, &d, BYTES + AT));
    ok(eng_backend_upload(be, (uint8_t *)d + 5, sent + AT, BYTES));
    memset(sent, 1, BYTES + AT);
    ok(eng_backend_download(be, got + AT, (uint8_t *)d + 5, BYTES));
    assert_memory_equal(got + AT, kept, BYTES);
    free(sent);
    free(got);
    free(kept);
}

static void too_much_memory_is_refused_and_the_device_lives_on(void **state)
{
    (void)state;
    void *p;
    assert_int_equal(eng_backend_alloc(be, ENG_MEMORY_WEIGHTS, &p, (int64_t)1 << 46), ERR_NO_MEMORY);
    assert_non_null(strstr(err_text(), "MB of weights"));
    assert_non_null(strstr(err_text(), "are free"));
    ok(eng_backend_alloc(be, ENG_MEMORY_WEIGHTS, &p, 64));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(products_equal_ref, start, finish),
        cmocka_unit_test_setup_teardown(long_rows_and_many_leaves, start, finish),
        cmocka_unit_test_setup_teardown(products_of_many_tokens_equal_ref, start, finish),
        cmocka_unit_test_setup_teardown(rounded_products_are_near, start, finish),
        cmocka_unit_test_setup_teardown(products_of_many_tokens_are_the_librarys, start, finish),
        cmocka_unit_test_setup_teardown(products_of_experts_equal_ref, start, finish),
        cmocka_unit_test_setup_teardown(leaves_in_no_node_are_left_out, start, finish),
        cmocka_unit_test_setup_teardown(rows_unpack_to_the_files_values, start, finish),
        cmocka_unit_test_setup_teardown(codes_equal_ref, start, finish),
        cmocka_unit_test_setup_teardown(norms_equal_ref, start, finish),
        cmocka_unit_test_setup_teardown(ropes_equal_ref, start, finish),
        cmocka_unit_test_setup_teardown(elements_equal_ref, start, finish),
        cmocka_unit_test_setup_teardown(reductions_equal_ref, start, finish),
        cmocka_unit_test_setup_teardown(choices_equal_ref, start, finish),
        cmocka_unit_test_setup_teardown(the_best_of_rows_equal_a_sort, start, finish),
        cmocka_unit_test_setup_teardown(attention_equals_ref, start, finish),
        cmocka_unit_test_setup_teardown(rows_of_lists_equal_ref, start, finish),
        cmocka_unit_test_setup_teardown(ranks_are_dealt_to_devices, start, finish),
        cmocka_unit_test_setup_teardown(a_card_with_a_display_keeps_some_memory, start, finish),
        cmocka_unit_test_setup_teardown(types_without_kernels_are_told, start, finish),
        cmocka_unit_test_setup_teardown(tree_sums_equal_the_hosts, start, finish),
        cmocka_unit_test_setup_teardown(wires_equal_the_hosts, start, finish),
        cmocka_unit_test_setup_teardown(marks_are_reached_in_order, start, finish),
        cmocka_unit_test_setup_teardown(a_wait_is_watched, start, finish),
        cmocka_unit_test_setup_teardown(memory_is_zeroed_and_copied_in_order, start, finish),
        cmocka_unit_test_setup_teardown(long_copies_go_in_pieces, start, finish),
        cmocka_unit_test_setup_teardown(too_much_memory_is_refused_and_the_device_lives_on, start, finish),
    };
    struct plugin_device_info info;
    char why[PLUGIN_TEXT];
    int32_t n;
    eng_backend_devices(&info, 1, &n, why);
    if (!n) {
        printf("SKIP: %s\n", why);
        return 77;
    }
    printf("%s, compute capability %d.%d, at %s\n", info.name, info.major, info.minor, info.where);
    return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}
