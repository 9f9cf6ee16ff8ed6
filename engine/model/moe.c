/* moe.c: see moe.h. The order of work: norm -> router -> choice -> for a group of tokens: lists -> inputs by expert -> gate, up -> their
 * product -> down, added into leaves. */
#include "engine/model/moe.h"

#include "engine/model/pass.h"
#include "engine/model/route.h"

#include <stdlib.h>
#include <string.h>

/* The group of tokens [t0, t0 + n_tok) in one layer. */
struct group {
    const struct eng_model *m;
    const struct eng_moe *o;
    const struct eng_layer *l;
    int32_t t0, n_tok;
};

static int32_t n_experts(const struct eng_model *m) { return m->spec.experts.n + (m->spec.experts.d_shared > 0); }

static const struct eng_ffn *ffn_of(const struct group *g, int32_t e)
{
    return e < g->m->spec.experts.n ? &g->l->experts[e] : &g->l->shared;
}

static int32_t slots_of(const struct group *g, int32_t e) { return g->o->first[e + 1] - g->o->first[e]; }

/* Where the columns of expert e's slots begin in gate and up. */
static int64_t columns_at(const struct group *g, int32_t e)
{
    const struct eng_shard *h = &g->m->shard;
    int32_t n = g->m->spec.experts.n;
    return (int64_t)g->o->first[MIN(e, n)] * (h->expert1 - h->expert0) + (e > n ? (int64_t)slots_of(g, n) * (h->shared1 - h->shared0) : 0);
}

/* The input of expert e's products of `cols` columns: panels lie expert after expert, each with room for whole groups. */
static struct krn_act act_of(const struct group *g, int32_t e, const float *x, int32_t cols, int32_t widest, int forms)
{
    struct krn_act a = {.n_tok = slots_of(g, e), .cols = cols, .x = x};
    int64_t before = ROUND_UP(g->o->first[e], LEAF_EXPERT_PAD / 2) + (int64_t)e * LEAF_EXPERT_PAD;
    if (forms & READS_CODES) a.q = g->o->act_q + krn_act_q_bytes(1, widest) * before;
    if (forms & (READS_FLOATS | READS_BF16) && a.n_tok > 1 && g->o->act_xt) a.xt = g->o->act_xt + krn_act_xt_floats(1, widest) * before;
    return a;
}

static int32_t widest(const struct eng_model *m)
{
    const struct eng_shard *h = &m->shard;
    int32_t w = MAX(MAX(m->spec.d_model, h->expert1 - h->expert0), h->shared1 - h->shared0);
    return ROUND_UP(w, KRN_UNIT);
}

static struct krn_act input_of(const struct group *g, int32_t e)
{
    const struct eng_ffn *f = ffn_of(g, e);
    int32_t d = g->m->spec.d_model;
    int forms = eng_pass_reads(g->m, &f->gate) | eng_pass_reads(g->m, &f->up);
    return act_of(g, e, g->o->x + (int64_t)g->o->first[e] * d, d, widest(g->m), forms);
}

static struct krn_act product_of(const struct group *g, int32_t e)
{
    const struct eng_ffn *f = ffn_of(g, e);
    return act_of(g, e, g->o->gate + columns_at(g, e), f->down.cols, widest(g->m), eng_pass_reads(g->m, &f->down));
}

/* ---- choice ---- */

/* Thread 0: which slots there are. Tokens of an expert stand in order. */
static void list_slots(struct eng_moe *o, const struct eng_experts *x, int32_t t0, int32_t n_tok)
{
    int32_t n = x->n, used = x->used;
    memset(o->first, 0, (size_t)(n + 2) * sizeof *o->first);
    for (int32_t i = 0; i < n_tok * used; i++) o->first[o->ids[(int64_t)t0 * used + i] + 1]++;
    for (int32_t e = 0; e < n; e++) o->first[e + 1] += o->first[e];
    for (int32_t t = 0; t < n_tok; t++)
        for (int32_t k = 0; k < used; k++) { /* first[e] moves to the end of e's slots */
            int64_t at = (int64_t)(t0 + t) * used + k;
            int32_t slot = o->first[o->ids[at]]++;
            o->token[slot] = t;
            o->weight[slot] = o->scale ? 1.0f : o->weights[at];
            if (o->scale) o->scale[slot] = o->weights[at];
        }
    for (int32_t e = n; e > 0; e--) o->first[e] = o->first[e - 1];
    o->first[0] = 0;
    o->first[n + 1] = o->first[n];
    for (int32_t t = 0; t < n_tok && x->d_shared; t++) {
        int32_t slot = o->first[n + 1]++;
        o->token[slot] = t;
        o->weight[slot] = o->shared[t0 + t];
        if (o->scale) o->scale[slot] = 1.0f;
    }
}

/* Router's and shared gate's values to choices, for tokens [t0,t1). */
static void choose(const struct eng_model *m, const float *shift, int64_t t0, int64_t t1)
{
    const struct eng_experts *x = &m->spec.experts;
    struct eng_moe *o = m->moe;
    for (int64_t t = t0; t < t1; t++) {
        float *logits = o->logits + t * x->n;
        eng_route(x, logits, shift, o->ids + t * x->used, o->weights + t * x->used);
        o->shared[t] = x->shared_gated ? 1.0f / (1.0f + krn_exp(-o->shared[t])) : 1.0f;
    }
}

static int64_t floats(int64_t n) { return n * (int64_t)sizeof(float); }

/* Off the host: the router's values of T tokens come over; *shift: what layer k adds to choose by. */
static enum err fetch(const struct eng_model *m, const struct eng_layer *l, int32_t k, int32_t T, const float **shift)
{
    enum err rc;
    struct eng_moe *o = m->moe;
    int32_t n = m->spec.experts.n;
    *shift = NULL;
    TRY(eng_backend_download(m->be, o->logits, o->there.logits, floats((int64_t)T * n)));
    if (m->spec.experts.shared_gated) TRY(eng_backend_download(m->be, o->shared, o->there.shared, floats(T)));
    if (l->router_shift && !o->shift[k]) {
        o->shift[k] = xmalloc((size_t)n * sizeof **o->shift); /* once, with the layer's first step */
        TRY(eng_backend_download(m->be, o->shift[k], l->router_shift, floats(n)));
    }
    *shift = o->shift[k];
out:
    return rc;
}

/* Off the host: the lists of this group go over. */
static enum err send_lists(const struct group *g)
{
    const struct eng_moe *o = g->o;
    int64_t slots = o->first[n_experts(g->m)];
    enum err e = eng_backend_upload(g->m->be, o->there.token, o->token, slots * (int64_t)sizeof *o->token);
    if (!e) e = eng_backend_upload(g->m->be, o->there.weight, o->weight, floats(slots));
    return e || !o->scale ? e : eng_backend_upload(g->m->be, o->there.scale, o->scale, floats(slots));
}

/* ---- products ---- */

/* Copies of inputs, slot by slot, in the forms that the products read. */
static void gather(const struct group *g, int32_t i, int32_t n)
{
    int64_t d = g->m->spec.d_model, s0, s1;
    int32_t e = 0;
    if (!g->m->be->on_host) {
        eng_backend_copy_rows(g->m->be, g->o->x, d, g->m->h + g->t0 * d, d, g->o->there.token, g->o->there.scale, g->o->first[n_experts(g->m)],
                              (int32_t)d);
        for (; e < n_experts(g->m); e++) {
            struct krn_act a = input_of(g, e);
            eng_pass_prepare(g->m, &a, 0, a.n_tok, 0, d);
        }
        return;
    }
    eng_team_range(g->o->first[n_experts(g->m)], 1, i, n, &s0, &s1);
    for (int64_t s = s0; s < s1; s++) {
        while (g->o->first[e + 1] <= s) e++;
        struct krn_act a = input_of(g, e);
        int64_t row = s - g->o->first[e];
        memcpy(g->o->x + s * d, g->m->h + (g->t0 + g->o->token[s]) * d, (size_t)d * sizeof(float));
        if (g->o->scale) g->m->krn->scale(g->o->x + s * d, g->o->scale[s], d);
        eng_pass_prepare(g->m, &a, row, row + 1, 0, d);
    }
}

/* The first thread shows what the experts' products read. */
static void show_inputs(const struct group *g, int32_t i)
{
    const struct eng_model *m = g->m;
    for (int32_t e = 0; e < n_experts(m) && i == 0 && m->watch; e++) {
        if (!slots_of(g, e)) continue;
        struct krn_act in = input_of(g, e);
        m->watch(m->watch_user, &ffn_of(g, e)->gate, in.x, in.n_tok);
        m->watch(m->watch_user, &ffn_of(g, e)->up, in.x, in.n_tok);
    }
}
static void show_products(const struct group *g, int32_t i)
{
    const struct eng_model *m = g->m;
    for (int32_t e = 0; e < n_experts(m) && i == 0 && m->watch; e++) {
        struct krn_act in = product_of(g, e);
        if (in.n_tok) m->watch(m->watch_user, &ffn_of(g, e)->down, in.x, in.n_tok);
    }
}

/* Work is (expert, tile) pairs, each as dear as its expert has tokens: thread i of n does tiles [*lo,*hi) of the expert whose work begins at
 * `before`, of `all`. */
static void tiles_of(int64_t before, int64_t dear, int32_t tiles, int64_t all, int32_t i, int32_t n, int32_t *lo, int32_t *hi)
{
    int64_t from = all * i / n - before, to = all * (i + 1) / n - before;
    *lo = (int32_t)CLAMP(DIV_UP(MAX(from, 0), dear), 0, tiles);
    *hi = (int32_t)CLAMP(DIV_UP(MAX(to, 0), dear), 0, tiles);
}

static int64_t dear(const struct group *g, int32_t e) { return DIV_UP(slots_of(g, e), 4); }

static void rows_of(const struct group *g, const struct krn_mat *w, const struct krn_act *in, float *y, int32_t row0, int32_t row1)
{
    struct krn_leaves one = {.n_leaf = 1, .lo = 0, .hi = 1, .cols = {0, w->cols}, .n_nodes = 1, .nodes = {{0, 1}}};
    struct krn_act a = *in;
    if (eng_pass_reads(g->m, w) != READS_CODES) a.q = NULL;
    if (row0 < row1)
        g->m->krn->matmul(&(struct krn_matmul){.w = w, .x = &a, .leaves = &one, .y = y, .y_stride = w->rows, .row0 = row0, .row1 = row1});
}

static void gate_and_up(const struct group *g, int32_t i, int32_t n)
{
    int64_t all = 0, before = 0;
    for (int32_t e = 0; e < n_experts(g->m); e++) all += dear(g, e) * DIV_UP(ffn_of(g, e)->up.rows, KRN_TILE);
    for (int32_t e = 0; e < n_experts(g->m); e++) {
        const struct eng_ffn *f = ffn_of(g, e);
        int32_t lo, hi, tiles = DIV_UP(f->up.rows, KRN_TILE);
        if (!slots_of(g, e)) continue;
        tiles_of(before, dear(g, e), tiles, all, i, n, &lo, &hi);
        before += dear(g, e) * tiles;
        if (lo >= hi) continue;
        struct krn_act in = input_of(g, e);
        int32_t row1 = MIN(hi * KRN_TILE, f->up.rows);
        rows_of(g, &f->gate, &in, g->o->gate + columns_at(g, e), lo * KRN_TILE, row1);
        rows_of(g, &f->up, &in, g->o->up + columns_at(g, e), lo * KRN_TILE, row1);
    }
}

/* Off the host: all slots at once, but for biases. */
static void products_there(const struct group *g)
{
    int64_t all = 0;
    for (int32_t e = 0; e < n_experts(g->m); e++) {
        const struct eng_ffn *f = ffn_of(g, e);
        int64_t at = columns_at(g, e);
        eng_pass_bias(g->m, g->o->gate + at, f->bgate, f->down.cols, 0, slots_of(g, e));
        eng_pass_bias(g->m, g->o->up + at, f->bup, f->down.cols, 0, slots_of(g, e));
        all = at + (int64_t)slots_of(g, e) * f->down.cols;
    }
    if (all) eng_pass_gate(g->m, g->o->gate, g->o->up, 0, all);
    for (int32_t e = 0; e < n_experts(g->m); e++) {
        struct krn_act a = product_of(g, e);
        eng_pass_prepare(g->m, &a, 0, a.n_tok, 0, a.cols);
    }
}

static void products(const struct group *g, int32_t i, int32_t n)
{
    int64_t s0, s1;
    int32_t e = 0;
    if (!g->m->be->on_host) {
        products_there(g);
        return;
    }
    eng_team_range(g->o->first[n_experts(g->m)], 1, i, n, &s0, &s1);
    for (int64_t s = s0; s < s1; s++) {
        while (g->o->first[e + 1] <= s) e++;
        const struct eng_ffn *f = ffn_of(g, e);
        struct krn_act a = product_of(g, e);
        int64_t row = s - g->o->first[e], at = columns_at(g, e) + row * a.cols;
        if (f->bgate) g->m->krn->add(g->o->gate + at, f->bgate, a.cols);
        if (f->bup) g->m->krn->add(g->o->up + at, f->bup, a.cols);
        eng_pass_gate(g->m, g->o->gate, g->o->up, at, at + a.cols);
        eng_pass_prepare(g->m, &a, row, row + 1, 0, a.cols);
    }
}

/* ---- down ---- */

/* The leaves of `rows` rows from row0 on, of all tokens of the group: acc[leaf][token][rows]. */
struct block {
    const struct group *g;
    float *acc, *y;
    int32_t row0, rows;
};

static const struct krn_leaves *leaves_of(const struct group *g, int32_t e)
{
    return e < g->m->spec.experts.n ? &g->m->shard.expert : &g->m->shard.shared;
}

/* acc += weight * leaf, for every leaf and slot of expert e; some leaves at a time. */
static void add_expert(const struct block *b, int32_t e)
{
    const struct group *g = b->g;
    const struct eng_ffn *f = ffn_of(g, e);
    int32_t n = slots_of(g, e), first = g->o->first[e];
    struct krn_leaves l = *leaves_of(g, e);
    struct krn_act in = product_of(g, e);
    struct krn_mat w = f->down;
    w.data += b->row0 / KRN_TILE * w.tile_bytes;
    w.rows = b->rows;
    for (int32_t i = l.lo; i < l.hi; i += l.n_nodes) {
        l.n_nodes = MIN(l.hi - i, TREE_MAX_NODES);
        for (int32_t k = 0; k < l.n_nodes; k++) l.nodes[k] = (struct tree_node){i + k, i + k + 1};
        int64_t node = (int64_t)n * b->rows;
        g->m->krn->matmul(&(struct krn_matmul){.w = &w, .x = &in, .leaves = &l, .y = b->y, .y_stride = b->rows, .node_stride = node,
                                               .row0 = 0, .row1 = b->rows});
        if (!g->m->be->on_host) {
            eng_backend_axpy_batches(g->m->be, b->acc + (int64_t)(i - l.lo) * g->n_tok * b->rows, (int64_t)g->n_tok * b->rows, b->rows,
                                    g->o->there.token + first, g->o->there.weight + first, b->y, node, b->rows, l.n_nodes, n, b->rows);
            continue;
        }
        for (int32_t k = 0; k < l.n_nodes; k++)
            g->m->krn->axpy_rows(b->acc + (int64_t)(i + k - l.lo) * g->n_tok * b->rows, b->rows, g->o->token + first, g->o->weight + first,
                                 b->y + k * node, b->rows, n, b->rows);
    }
}

/* The node's sum, left in its first leaf. */
static float *add_leaves(const struct block *b, struct tree_node node)
{
    int64_t each = (int64_t)b->g->n_tok * b->rows;
    float *left = b->acc + (node.a - b->g->m->shard.expert.lo) * each;
    if (node.b - node.a > 1) {
        int32_t mid = tree_split(node.a, node.b);
        add_leaves(b, (struct tree_node){node.a, mid});
        b->g->m->krn->add(left, add_leaves(b, (struct tree_node){mid, node.b}), each);
    }
    return left;
}

static int32_t leaves_held(const struct eng_shard *h) { return h->expert.hi - h->expert.lo; }

/* Floats per row and token: its leaves, and those of one expert that are not added yet. */
static int64_t per_row(const struct eng_shard *h)
{
    int32_t held = leaves_held(h);
    return held + MIN(held, TREE_MAX_NODES);
}

/* Floats of scratch that a block's rows are chosen for. A device has many rows at once: each block is a launch for every expert. */
static int64_t room(const struct eng_model *m)
{
    enum { THERE = 1 << 22 };
    return m->be->on_host ? LEAF_EXPERT_SCRATCH : THERE;
}

static enum err down(const struct group *g, float *parts, int64_t node_stride, int32_t i, int32_t n)
{
    enum err rc = OK;
    const struct krn_leaves *l = &g->m->shard.expert;
    int64_t r0, r1, d = g->m->spec.d_model, each = per_row(&g->m->shard) * g->n_tok;
    int32_t most = (int32_t)MAX(room(g->m) / (each * KRN_TILE), 1) * KRN_TILE;
    eng_team_range(d, KRN_TILE, i, n, &r0, &r1);
    struct block b = {.g = g, .acc = g->m->moe->scratch + i * g->m->moe->scratch_each};
    for (int64_t r = r0; r < r1; r += b.rows) {
        b.row0 = (int32_t)r;
        b.rows = (int32_t)MIN(most, r1 - r);
        int64_t held = (int64_t)leaves_held(&g->m->shard) * g->n_tok * b.rows;
        b.y = b.acc + held;
        TRY(eng_backend_clear(g->m->be, b.acc, floats(held)));
        for (int32_t e = 0; e < n_experts(g->m); e++)
            if (slots_of(g, e)) add_expert(&b, e);
        for (int32_t k = 0; k < l->n_nodes; k++) {
            const float *sum = add_leaves(&b, l->nodes[k]);
            float *to = parts + k * node_stride + g->t0 * d + r;
            if (!g->m->be->on_host) eng_backend_copy_rows(g->m->be, to, d, sum, b.rows, NULL, NULL, g->n_tok, b.rows);
            else for (int32_t t = 0; t < g->n_tok; t++)
                memcpy(to + t * d, sum + (int64_t)t * b.rows, (size_t)b.rows * sizeof(float));
        }
    }
out:
    return rc;
}

/* ---- the sublayer ---- */

static void route(struct eng_pass *p, const struct eng_layer *l, int32_t k, int32_t T, int32_t i, int32_t n)
{
    const struct eng_model *m = p->m;
    const float *shift = l->router_shift;
    bool here = m->be->on_host;
    float *logits = here ? m->moe->logits : m->moe->there.logits;
    int64_t t0, t1;
    bool gated = m->spec.experts.shared_gated;
    eng_team_range(T, 1, i, n, &t0, &t1);
    struct krn_act in = eng_pass_act(m, m->h, T, m->spec.d_model, eng_pass_reads(m, &l->router) | (gated ? eng_pass_reads(m, &l->shared_gate) : 0));
    eng_pass_enter(m, &in, k, t0, t1);
    eng_pass_lap(m, i, ENG_OP_NORM);
    eng_pass_barrier(m, i);
    eng_pass_matmul_whole(m, &l->router, m->h, T, logits, i, n);
    if (gated) eng_pass_matmul_whole(m, &l->shared_gate, m->h, T, here ? m->moe->shared : m->moe->there.shared, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
    eng_pass_barrier(m, i);
    eng_pass_bias(m, logits, l->router_bias, m->spec.experts.n, t0, t1);
    if (m->moe->there.chosen) return;
    if (!here) p->failed = fetch(m, l, k / 2, T, &shift);
    if (!p->failed) choose(m, shift, t0, t1);
    eng_pass_barrier(m, i);
}

void eng_moe_run(struct eng_pass *p, int32_t k, int32_t i, int32_t n)
{
    const struct eng_model *m = p->m;
    const struct eng_layer *l = &m->weights->layers[k / 2];
    int32_t T = p->b->n_tok;
    m->moe->there.chosen = T <= m->moe->there.rows;
    route(p, l, k, T, i, n);
    if (m->moe->there.chosen) eng_moe_there_run(m, l, T, eng_pass_parts(m, k));
    if (p->failed || m->moe->there.chosen) return;
    for (int32_t t = 0; t < T; t += m->moe->tokens) {
        struct group g = {.m = m, .o = m->moe, .l = l, .t0 = t, .n_tok = MIN(m->moe->tokens, T - t)};
        if (t) eng_pass_barrier(m, i);
        if (i == 0) list_slots(m->moe, &m->spec.experts, t, g.n_tok);
        if (!m->be->on_host && (p->failed = send_lists(&g))) return;
        eng_pass_barrier(m, i);
        gather(&g, i, n);
        eng_pass_lap(m, i, ENG_OP_NORM);
        eng_pass_barrier(m, i);
        show_inputs(&g, i);
        gate_and_up(&g, i, n);
        eng_pass_lap(m, i, ENG_OP_MATMUL);
        eng_pass_barrier(m, i);
        products(&g, i, n);
        eng_pass_lap(m, i, ENG_OP_GATE);
        eng_pass_barrier(m, i);
        show_products(&g, i);
        enum err e = down(&g, eng_pass_parts(m, k), (int64_t)T * m->spec.d_model, i, n);
        if (e && (p->failed = e)) return; /* a device's, where one thread runs this */
        eng_pass_lap(m, i, ENG_OP_MATMUL);
    }
}

void eng_moe_bias(const struct eng_model *m, const struct eng_layer *l, float *sum, int64_t t)
{
    int32_t used = m->spec.experts.used;
    for (int32_t k = 0; k < used; k++) {
        const float *bias = l->experts[m->moe->ids[t * used + k]].bdown;
        if (bias) m->krn->axpy(sum, m->moe->scale ? 1.0f : m->moe->weights[t * used + k], bias, m->spec.d_model);
    }
    if (l->shared.bdown) m->krn->axpy(sum, m->moe->shared[t], l->shared.bdown, m->spec.d_model);
}

/* ---- buffers ---- */

/* What is taken together, so that an error can say how much it was. */
struct taker {
    struct eng_backend *be;
    bool failed;
    int64_t bytes;
};

static void *take(struct taker *t, int64_t n, int64_t size)
{
    void *p = NULL;
    t->bytes += n * size;
    if (!t->failed && posix_memalign(&p, 64, (size_t)MAX(n, 1) * (size_t)size)) p = NULL, t->failed = true;
    return p;
}

/* Where the kernels work. */
static void *take_there(struct taker *t, int64_t n, int64_t size)
{
    void *p = NULL;
    if (t->be->on_host) return take(t, n, size);
    t->bytes += n * size;
    if (!t->failed && eng_backend_alloc(t->be, ENG_MEMORY_STEP, &p, MAX(n, 1) * size)) t->failed = true;
    return p;
}

static void take_all(struct eng_moe *o, struct taker *t, const struct eng_model *m)
{
    const struct eng_spec *s = &m->spec;
    const struct eng_shard *h = &m->shard;
    const struct eng_experts *x = &s->experts;
    int32_t max_tok = m->max_tok;
    o->tokens = MIN(max_tok, LEAF_EXPERT_TOKENS);
    int64_t routed = (int64_t)o->tokens * x->used, slots = routed + (x->d_shared ? o->tokens : 0);
    int64_t cols = routed * (h->expert1 - h->expert0) + (slots - routed) * (h->shared1 - h->shared0);
    int32_t wide = ROUND_UP(MAX(MAX(s->d_model, h->expert1 - h->expert0), h->shared1 - h->shared0), KRN_UNIT);
    int64_t lanes = slots + (int64_t)(x->n + 2) * LEAF_EXPERT_PAD;
    o->logits = take(t, (int64_t)max_tok * x->n, sizeof(float));
    o->shared = take(t, max_tok, sizeof(float));
    o->ids = take(t, (int64_t)max_tok * x->used, sizeof(int32_t));
    o->weights = take(t, (int64_t)max_tok * x->used, sizeof(float));
    o->first = take(t, x->n + 2, sizeof(int32_t));
    o->token = take(t, slots, sizeof(int32_t));
    o->weight = take(t, slots, sizeof(float));
    if (x->weigh_input) o->scale = take(t, slots, sizeof(float));
    o->x = take_there(t, slots * s->d_model, sizeof(float));
    o->gate = take_there(t, cols, sizeof(float));
    o->up = take_there(t, cols, sizeof(float));
    o->act_q = take_there(t, lanes * krn_act_q_bytes(1, wide), 1);
    if (m->krn->interleave) o->act_xt = take_there(t, lanes * krn_act_xt_floats(1, wide), sizeof(float));
    struct leaf_experts part = eng_shard_experts(h, s);
    o->scratch_each = m->be->on_host ? leaf_expert_scratch(&part, o->tokens) : MAX(room(m), per_row(h) * o->tokens * KRN_TILE);
    o->scratch = take_there(t, o->scratch_each * eng_team_size(m->team), sizeof(float));
    if (m->be->on_host) return;
    o->there.logits = take_there(t, (int64_t)max_tok * x->n, sizeof(float));
    o->there.shared = take_there(t, max_tok, sizeof(float));
    o->there.token = take_there(t, slots, sizeof(int32_t));
    o->there.weight = take_there(t, slots, sizeof(float));
    if (x->weigh_input) o->there.scale = take_there(t, slots, sizeof(float));
    o->n_layers = m->shard.layer1 - m->shard.layer0;
    o->shift = xcalloc((size_t)o->n_layers, sizeof *o->shift);
}

enum err eng_moe_open(struct eng_moe **out, const struct eng_model *m)
{
    struct taker t = {.be = m->be};
    struct eng_moe *o = xcalloc(1, sizeof *o);
    o->on_host = m->be->on_host;
    take_all(o, &t, m);
    if (t.failed) {
        eng_moe_close(o);
        return err_raise(ERR_NO_MEMORY, "no memory for %.1f MB of experts' buffers: lower --max-batch-tokens", (double)t.bytes / 1e6);
    }
    *out = o;
    return OK;
}

void eng_moe_close(struct eng_moe *o)
{
    if (!o) return;
    void *all[] = {o->logits, o->shared, o->ids, o->weights, o->first, o->token, o->weight, o->scale};
    void *there[] = {o->x, o->gate, o->up, o->act_q, o->act_xt, o->scratch};
    for (size_t i = 0; i < COUNT_OF(all); i++) free(all[i]);
    for (size_t i = 0; i < COUNT_OF(there) && o->on_host; i++) free(there[i]);
    for (int32_t i = 0; i < o->n_layers; i++) free(o->shift[i]);
    free(o->shift);
    free(o);
}
