/* device_products.c: a plug-in's products against `ref`: see test_device.c. */
#include "tests/kernels/device.h"

#include "engine/kernels/cuda/lt.h"

#include <dlfcn.h>

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

/* As many leaves as the kernels of many chains a thread take, a slice of more, and one too many: those of one chain compute it. */
static void many_tokens_and_many_leaves_equal_ref(void **state)
{
    static const enum dtype some[] = {DTYPE_F32, DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_K, DTYPE_Q6_K, DTYPE_Q2_K};
    static const struct { int32_t n_leaf, lo, hi; } cuts[] = {{128, 0, 128}, {300, 101, 229}, {129, 0, 129}, {1000, 40, 240}};
    (void)state;
    struct rnd r = {.key = 85};
    for (size_t i = 0; i < COUNT_OF(some); i++)
        for (size_t k = 0; k < COUNT_OF(cuts); k++) {
            bool quant = krn_pack_is_quant(some[i]);
            int32_t cols = (cuts[k].hi - cuts[k].lo) * (quant ? KRN_UNIT : 3) + (quant ? 5 * KRN_UNIT : 7);
            struct shape s = {.rows = 20, .cols = cols, .n_tok = k % 2 ? 32 : 49, .n_leaf = cuts[k].n_leaf, .lo = cuts[k].lo, .hi = cuts[k].hi, .quantise = quant};
            check_product(&r, some[i], &s);
        }
}

/* Products that round: within what rounding both factors to bf16 costs of the sum of the terms' sizes, the same again, and not the exact ones. */
static void rounded_products_are_near(void **state)
{
    static const struct { int32_t rows, cols, n_tok, n_leaf; } shapes[] = {{17, 2, 8, 1}, {70, 333, 9, 1}, {130, 64, 131, 1}, {40, 6 * 34 + 1, 33, 6}, {200, 512, 140, 16},
                                                                          {30, 520, 33, 128}, {30, 520, 33, 130},
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
    uint32_t *pairs = xcalloc((size_t)krn_act_xb_words(T, COLS), 4);
    dx.xb = there(pairs, krn_act_xb_words(T, COLS) * 4);
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
    free(y), free(again), free(pairs);
    free((void *)w.data);
    case_act_free(&x);
    case_file_free(&f);
    dlclose(stub);
}

/* Slots of three experts over the leaves of a slice, each leaf by itself: rows [row0, rows) of every slot are its expert's product with its token;
 * of a fourth, which is another kind's or another rank's, nothing is written. */
static void check_slots(struct rnd *r, enum dtype type, int32_t n_tok, int32_t per, int32_t n_leaf)
{
    enum { E = 4, ROWS = 40 };
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
        data[e] = e == E - 1 ? NULL : dw[e].data;
        for (int32_t i = 0; i < n_leaf && data[e]; i += l.n_nodes) {
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

/* The same of many slots, sorted by expert: which rows they got is the device's to say. Of some experts there are none, the last ones are another
 * rank's and get no row, one has a row and is another kind's. */
static void check_grouped(struct rnd *r, enum dtype type, int32_t n_tok, int32_t per, int32_t n_leaf, bool codes)
{
    enum { E = 9, E0 = 1, E1 = 8, OTHER = 3, ROWS = 152, MOST = 512 };
    bool quant = krn_pack_is_quant(type);
    int32_t cols = quant ? 40 * KRN_UNIT : 133, slots = n_tok * per, rows = krn_grouping_rows(slots, E1 - E0), n_parts = krn_grouping_parts(slots, E1 - E0);
    int32_t ids[MOST], at[MOST], *token = xcalloc((size_t)rows, 4), *expert = xcalloc((size_t)rows, 4), bound[TREE_MAX_LEAF + 1], n_row = 0;
    float weights[MOST], *scale = xcalloc((size_t)rows, 4);
    struct krn_part parts[MOST];
    struct krn_act x = case_act(r, n_tok, cols, codes, CASE_NORMAL);
    struct krn_leaves l = {.n_leaf = n_leaf, .hi = n_leaf};
    struct krn_mat w, dw[E];
    const uint8_t *data[E];
    assert_true(rows <= MOST && n_parts <= MOST);
    for (int32_t i = 0; i < slots; i++) ids[i] = (int32_t[]){1, 3, 5, 5, 6, 7, 0, 8}[rnd_below(r, i ? 8 : 6)], weights[i] = rnd_normal(r);
    struct krn_grouping g = {.ids = there(ids, slots * 4), .weights = there(weights, slots * 4), .n_slots = slots, .per = per, .n = E, .e0 = E0, .e1 = E1, .at = there(ids, slots * 4),
                             .token = there(scale, rows * 4), .expert = there(scale, rows * 4), .scale = there(scale, rows * 4),
                             .parts = there(parts, n_parts * (int64_t)sizeof *parts)};
    eng_backend_experts(be)->group(&g);
    here(at, g.at, slots * 4), here(token, g.token, rows * 4), here(expert, g.expert, rows * 4), here(scale, g.scale, rows * 4);
    here(parts, g.parts, n_parts * (int64_t)sizeof *parts);
    for (int32_t i = 0; i < n_parts; i++) { /* whole, one after the other, experts ascending */
        if (parts[i].expert < 0) continue;
        assert_int_equal(parts[i].row0, i && parts[i].expert == parts[i - 1].expert ? parts[i - 1].row0 + KRN_PART : ROUND_UP(n_row, KRN_GROUP));
        assert_true(parts[i].n_rows > 0 && parts[i].n_rows <= KRN_PART && (!i || parts[i].expert >= parts[i - 1].expert));
        n_row = parts[i].row0 + parts[i].n_rows;
    }
    assert_true(n_row <= rows);
    float *copies = xcalloc((size_t)rows * (size_t)cols, 4);
    bool taken[MOST] = {false};
    for (int32_t i = 0; i < slots; i++) {
        bool found = false;
        if (ids[i] < E0 || ids[i] >= E1) {
            assert_int_equal(at[i], -1);
            continue;
        }
        for (int32_t k = 0; k < n_parts; k++) found |= parts[k].expert == ids[i] && at[i] >= parts[k].row0 && at[i] < parts[k].row0 + parts[k].n_rows;
        assert_true(found && !taken[at[i]]);
        taken[at[i]] = true;
        assert_int_equal(token[at[i]], i / per);
        assert_int_equal(expert[at[i]], ids[i]);
        assert_true(scale[at[i]] == weights[i]);
        memcpy(copies + (int64_t)at[i] * cols, x.x + (int64_t)(i / per) * cols, (size_t)cols * 4);
    }
    for (int32_t i = 0; i < rows; i++) assert_true(taken[i] || (token[i] == -1 && expert[i] == -1 && scale[i] == 0));

    struct krn_act dx = {.n_tok = rows, .cols = cols, .x = there(copies, (int64_t)rows * cols * 4)};
    if (codes) {
        dx.q = there(copies, krn_act_q_bytes(rows, cols));
        be->krn->quantize(&dx, 0, rows, 0, cols / KRN_UNIT);
    }
    case_bounds(r, n_leaf, cols, quant ? KRN_UNIT : 1, bound);
    for (int32_t i = 0; i <= n_leaf; i++) l.cols[i] = bound[i];
    int64_t each = (int64_t)slots * ROWS, there_each = (int64_t)rows * ROWS;
    float *want = xcalloc((size_t)(each * n_leaf), 4), *got = xcalloc((size_t)(there_each * n_leaf), 4), *y = case_alloc((size_t)n_tok * ROWS * TREE_MAX_NODES * 4);
    void *d = there(got, there_each * n_leaf * 4);
    for (int32_t e = 0; e < E; e++) {
        struct case_file f = case_file_make(r, type, ROWS, ROUND_UP(cols, dtype_block(type)));
        w = case_pack(&f, 0, cols);
        dw[e] = mat_there(&w);
        data[e] = e == OTHER || e < E0 || e >= E1 ? NULL : dw[e].data;
        for (int32_t i = 0; i < n_leaf && data[e]; i += l.n_nodes) {
            l.n_nodes = MIN(n_leaf - i, TREE_MAX_NODES);
            for (int32_t k = 0; k < l.n_nodes; k++) l.nodes[k] = (struct tree_node){i + k, i + k + 1};
            krn_ref.matmul(&(struct krn_matmul){.w = &w, .x = &x, .leaves = &l, .y = y, .y_stride = ROWS, .node_stride = n_tok * ROWS, .row1 = ROWS});
            for (int32_t k = 0; k < l.n_nodes; k++)
                for (int32_t s = 0; s < slots; s++)
                    if (ids[s] == e) memcpy(want + (i + k) * each + s * ROWS + KRN_TILE, y + (k * n_tok + s / per) * ROWS + KRN_TILE, (ROWS - KRN_TILE) * 4);
        }
        case_file_free(&f);
        free((void *)w.data);
    }
    eng_backend_experts(be)->matmul_grouped(
        &(struct krn_matmul){.w = &dw[0], .x = &dx, .leaves = &l, .y = d, .y_stride = ROWS, .node_stride = there_each, .row0 = KRN_TILE, .row1 = ROWS},
        &(struct krn_grouped){.data = there(data, sizeof data), .parts = g.parts, .n_parts = n_parts});
    here(got, d, there_each * n_leaf * 4);
    for (int32_t i = 0; i < n_leaf; i++)
        for (int32_t s = 0; s < slots; s++)
            if (at[s] >= 0 && memcmp(want + i * each + s * ROWS, got + i * there_each + (int64_t)at[s] * ROWS, ROWS * 4))
                fail_msg("%s %s, %d slots, leaf %d of %d: slot %d has other values", dtype_name(type), codes ? "int8" : "f32", slots, i, n_leaf, s);
    free(want), free(got), free(y), free(copies), free(token), free(expert), free(scale);
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

static void grouped_products_of_experts_equal_ref(void **state)
{
    static const enum dtype some[] = {DTYPE_BF16, DTYPE_F16, DTYPE_Q8_0, DTYPE_Q4_K, DTYPE_Q6_K, DTYPE_MXFP4, DTYPE_IQ2_S};
    (void)state;
    struct rnd r = {.key = 84};
    for (size_t i = 0; i < COUNT_OF(some); i++) {
        bool quant = krn_pack_is_quant(some[i]);
        check_grouped(&r, some[i], 1, 2, 1, quant);
        check_grouped(&r, some[i], 97, 4, 1, quant);
        check_grouped(&r, some[i], 80, 1, 25, quant);
        if (quant) check_grouped(&r, some[i], 23, 3, 3, false);
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
        static const int32_t rows[] = {0, 39, 16, -1, 16, 7, 31};
        float want[COUNT_OF(rows)][512];
        for (size_t k = 0; k < COUNT_OF(rows); k++)
            if (rows[k] >= 0) krn_unpack_row(&w, rows[k], want[k]);
            else for (int32_t c = 0; c < 512; c++) want[k][c] = -0.0f;
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

static void types_without_kernels_are_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(types); i++) assert_true(eng_backend_reads(be, krn_pack_layout(types[i])));
    assert_false(eng_backend_reads(be, DTYPE_COUNT));
}

const struct CMUnitTest device_products[] = {
    cmocka_unit_test_setup_teardown(products_equal_ref, start, finish),
    cmocka_unit_test_setup_teardown(long_rows_and_many_leaves, start, finish),
    cmocka_unit_test_setup_teardown(products_of_many_tokens_equal_ref, start, finish),
    cmocka_unit_test_setup_teardown(many_tokens_and_many_leaves_equal_ref, start, finish),
    cmocka_unit_test_setup_teardown(rounded_products_are_near, start, finish),
    cmocka_unit_test_setup_teardown(products_of_many_tokens_are_the_librarys, start, finish),
    cmocka_unit_test_setup_teardown(products_of_experts_equal_ref, start, finish),
    cmocka_unit_test_setup_teardown(grouped_products_of_experts_equal_ref, start, finish),
    cmocka_unit_test_setup_teardown(leaves_in_no_node_are_left_out, start, finish),
    cmocka_unit_test_setup_teardown(rows_unpack_to_the_files_values, start, finish),
    cmocka_unit_test_setup_teardown(types_without_kernels_are_told, start, finish),
};
const size_t n_device_products = COUNT_OF(device_products);
