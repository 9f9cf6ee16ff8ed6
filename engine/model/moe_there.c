/* moe_there.c: experts of a small step on a device: the choice is made there and products go slot by slot (engine/kernels/experts.h), so that the
 * host waits for nothing and the step can be a graph. An expert that several tokens chose is read for each: more tokens than there.rows go the
 * way of moe.c, expert by expert, and so do models whose weights multiply what experts read (Llama 4), and whole experts on each rank.
 *
 * The order of work: choice -> gate, up of every slot -> their product -> down, leaf by leaf, for some rows at a time -> slots and leaves added. */
#include "engine/model/moe.h"

#include "engine/model/pass.h"

#include <stdlib.h>

/* ---- open ---- */

static bool alike(const struct krn_mat *a, const struct krn_mat *b)
{
    return a->type == b->type && a->rows == b->rows && a->cols == b->cols && a->tile_bytes == b->tile_bytes;
}

/* One kernel computes them all. */
static bool all_alike(const struct eng_layer *l, int32_t n)
{
    bool same = true;
    for (int32_t e = 1; e < n; e++)
        same &= alike(&l->experts[e].gate, &l->experts[0].gate) && alike(&l->experts[e].up, &l->experts[0].up) &&
                alike(&l->experts[e].down, &l->experts[0].down) && !l->experts[e].bgate == !l->experts[0].bgate &&
                !l->experts[e].bup == !l->experts[0].bup && !l->experts[e].bdown == !l->experts[0].bdown;
    return same;
}

/* The addresses of a layer's experts, as [6][n]: gate, up, down, and their biases. */
enum { GATE, UP, DOWN, BIAS_GATE, BIAS_UP, BIAS_DOWN, TABLES };

static void list(const struct eng_layer *l, int32_t n, const void **to)
{
    for (int32_t e = 0; e < n; e++) {
        const struct eng_ffn *f = &l->experts[e];
        const void *of[TABLES] = {f->gate.data, f->up.data, f->down.data, f->bgate, f->bup, f->bdown};
        for (int32_t i = 0; i < TABLES; i++) to[i * n + e] = of[i];
    }
}

enum err eng_moe_there_open(struct eng_model *m)
{
    enum err rc = OK;
    const struct eng_experts *x = &m->spec.experts;
    struct eng_moe_there *o = m->moe ? &m->moe->there : NULL;
    int32_t n_layers = m->weights->n_layers, each = TABLES * x->n;
    const void **all = NULL;
    void *there;
    bool can = o && !m->be->on_host && x->n_groups <= KRN_ROUTE_GROUPS && !x->weigh_input && !m->shard.whole_experts;
    for (int32_t l = 0; l < n_layers && can; l++) can = !m->spec.moe[m->shard.layer0 + l] || all_alike(&m->weights->layers[l], x->n);
    if (!can) return OK;
    all = xcalloc((size_t)n_layers * (size_t)each, sizeof *all);
    for (int32_t l = 0; l < n_layers; l++)
        if (m->spec.moe[m->shard.layer0 + l]) list(&m->weights->layers[l], x->n, all + (int64_t)l * each);
    int64_t bytes = (int64_t)n_layers * each * (int64_t)sizeof *all;
    TRY(eng_backend_alloc(m->be, ENG_MEMORY_STEP, &there, bytes));
    TRY(eng_backend_upload(m->be, there, all, bytes));
    o->tables = there;
    o->rows = MIN(m->moe->tokens, MAX(x->n / x->used, 1));
out:
    free((void *)all);
    return rc;
}

/* ---- the pass ---- */

/* The tokens of a pass in one layer. */
struct job {
    const struct eng_model *m;
    const struct eng_moe *o;
    const struct eng_layer *l;
    const void *const *tables; /* [TABLES][n], the device's */
    int32_t n_tok, n_slots;
};

static struct job job_of(const struct eng_model *m, const struct eng_layer *l, int32_t n_tok)
{
    int32_t n = m->spec.experts.n, layer = (int32_t)(l - m->weights->layers);
    return (struct job){m, m->moe, l, m->moe->there.tables + (int64_t)layer * TABLES * n, n_tok, n_tok * m->spec.experts.used};
}

static const void *table(const struct job *j, int32_t which) { return j->tables + which * j->m->spec.experts.n; }

static void route(const struct job *j)
{
    static const enum krn_gating gating[] = {[ENG_GATING_SOFTMAX] = KRN_GATING_SOFTMAX, [ENG_GATING_SIGMOID] = KRN_GATING_SIGMOID,
                                             [ENG_GATING_SOFTMAX_CHOSEN] = KRN_GATING_SOFTMAX_CHOSEN};
    const struct eng_experts *x = &j->m->spec.experts;
    const struct eng_moe_there *o = &j->o->there;
    eng_backend_experts(j->m->be)->route(&(struct krn_route){
        .logits = o->logits, .shift = j->l->router_shift, .shared = x->d_shared ? o->shared : NULL, .ids = o->token, .weights = o->weight, .n_tok = j->n_tok,
        .n = x->n, .used = x->used, .n_groups = x->n_groups, .groups_used = x->groups_used, .gating = gating[x->gating], .renorm = x->renorm,
        .shared_gated = x->shared_gated, .scale = x->scale});
}

/* Rows [row0, row1) of every slot's product; y counted from row0. */
static void of_slots(const struct job *j, const struct krn_mat *w, int32_t which, const struct krn_act *in, int32_t per, const struct krn_leaves *leaves,
                     float *y, int64_t y_stride, int64_t node_stride, int32_t row0, int32_t row1)
{
    struct krn_act a = *in;
    if (eng_pass_reads(j->m, w) != READS_CODES) a.q = NULL;
    eng_backend_experts(j->m->be)->matmul(
        &(struct krn_matmul){.w = w, .x = &a, .leaves = leaves, .y = y - row0, .y_stride = y_stride, .node_stride = node_stride, .row0 = row0, .row1 = row1},
        &(struct krn_slots){.data = table(j, which), .ids = j->o->there.token, .n_slots = j->n_slots, .per = per});
}

static struct krn_leaves whole(int32_t cols)
{
    return (struct krn_leaves){.n_leaf = 1, .lo = 0, .hi = 1, .cols = {0, cols}, .n_nodes = 1, .nodes = {{0, 1}}};
}

static void slot_bias(const struct job *j, float *y, const float *any, int32_t which, int32_t cols)
{
    if (any)
        eng_backend_experts(j->m->be)->slot_bias(
            &(struct krn_slot_bias){.y = y, .bias = table(j, which), .ids = j->o->there.token, .n_slots = j->n_slots, .n = cols});
}

/* gate and up of every slot, and of the shared expert behind them, to what down reads: *shared. */
static struct krn_act inner(const struct job *j, const struct krn_act *in, struct krn_act *shared)
{
    const struct eng_model *m = j->m;
    const struct eng_ffn *f = &j->l->experts[0], *s = &j->l->shared;
    int32_t cols = f->down.cols, d = m->spec.d_model;
    int64_t n = (int64_t)j->n_slots * cols, more = m->spec.experts.d_shared ? (int64_t)j->n_tok * s->down.cols : 0;
    struct krn_leaves one = whole(d);
    float *gate = j->o->gate, *up = j->o->up;
    of_slots(j, &f->gate, GATE, in, m->spec.experts.used, &one, gate, f->gate.rows, 0, 0, f->gate.rows);
    of_slots(j, &f->up, UP, in, m->spec.experts.used, &one, up, f->up.rows, 0, 0, f->up.rows);
    slot_bias(j, gate, f->bgate, BIAS_GATE, cols);
    slot_bias(j, up, f->bup, BIAS_UP, cols);
    if (more) {
        eng_pass_matmul_whole(m, &s->gate, m->h, j->n_tok, gate + n, 0, 1);
        eng_pass_matmul_whole(m, &s->up, m->h, j->n_tok, up + n, 0, 1);
        eng_pass_bias(m, gate + n, s->bgate, s->down.cols, 0, j->n_tok);
        eng_pass_bias(m, up + n, s->bup, s->down.cols, 0, j->n_tok);
    }
    eng_pass_gate(m, gate, up, 0, n + more);
    struct krn_act a = {.n_tok = j->n_slots, .cols = cols, .x = gate};
    if (eng_pass_reads(m, &f->down) & READS_CODES) a.q = j->o->act_q;
    eng_pass_prepare(m, &a, 0, a.n_tok, 0, cols);
    *shared = (struct krn_act){.n_tok = j->n_tok, .cols = s->down.cols, .x = gate + n};
    if (more && eng_pass_reads(m, &s->down) & READS_CODES) shared->q = j->o->act_q + krn_act_q_bytes(ROUND_UP(j->n_slots, LEAF_EXPERT_PAD), ROUND_UP(cols, KRN_UNIT));
    if (more) eng_pass_prepare(m, shared, 0, j->n_tok, 0, shared->cols);
    return a;
}

/* Each leaf of rows [row0, row1) of the shared expert, some at a time: leaf after leaf in y. */
static void shared_leaves(const struct job *j, const struct krn_act *in, float *y, int32_t row0, int32_t row1)
{
    struct krn_leaves l = j->m->shard.shared;
    int64_t node = (int64_t)j->n_tok * (row1 - row0);
    for (int32_t i = l.lo; i < l.hi; i += l.n_nodes) {
        l.n_nodes = MIN(l.hi - i, TREE_MAX_NODES);
        for (int32_t k = 0; k < l.n_nodes; k++) l.nodes[k] = (struct tree_node){i + k, i + k + 1};
        j->m->krn->matmul(&(struct krn_matmul){.w = &j->l->shared.down, .x = in, .leaves = &l, .y = y + (i - l.lo) * node - row0,
                                               .y_stride = row1 - row0, .node_stride = node, .row0 = row0, .row1 = row1});
    }
}

/* The program of a node's leaves, counted from lo. */
static void program(struct tree_node node, int32_t lo, int16_t ops[], int32_t *n)
{
    if (node.b - node.a == 1) {
        ops[(*n)++] = (int16_t)(node.a - lo);
        return;
    }
    int32_t mid = tree_split(node.a, node.b);
    program((struct tree_node){node.a, mid}, lo, ops, n);
    program((struct tree_node){mid, node.b}, lo, ops, n);
    ops[(*n)++] = -1;
}

static void down(const struct job *j, const struct krn_act *in, const struct krn_act *shared, float *parts, int64_t node_stride)
{
    const struct eng_model *m = j->m;
    const struct krn_leaves *l = &m->shard.expert;
    const struct krn_mat *w = &j->l->experts[0].down;
    bool also = m->spec.experts.d_shared > 0;
    int32_t held = l->hi - l->lo, d = m->spec.d_model;
    if (!held) return;
    int64_t each = (int64_t)held * (j->n_slots + (also ? j->n_tok : 0));
    int32_t most = (int32_t)MIN(j->o->scratch_each / (each * KRN_TILE) * KRN_TILE, d);
    ASSERT(most >= KRN_TILE || most == d);
    for (int32_t r0 = 0, r1; r0 < d; r0 = r1) {
        r1 = MIN(r0 + most, d);
        int32_t rows = r1 - r0;
        float *y = j->o->scratch, *ys = y + (int64_t)held * j->n_slots * rows;
        of_slots(j, w, DOWN, in, 1, l, y, rows, (int64_t)j->n_slots * rows, r0, r1);
        if (also) shared_leaves(j, shared, ys, r0, r1);
        for (int32_t k = 0; k < l->n_nodes; k++) {
            int16_t ops[2 * KRN_TREE_PARTS];
            int32_t n_ops = 0;
            program(l->nodes[k], l->lo, ops, &n_ops);
            eng_backend_experts(m->be)->combine(&(struct krn_combine){
                .ops = ops, .n_ops = n_ops, .y = y, .weights = j->o->there.weight, .shared = also ? ys : NULL, .shared_weights = j->o->there.shared,
                .n_tok = j->n_tok, .used = m->spec.experts.used, .rows = rows, .to = parts + k * node_stride + r0, .to_stride = d});
        }
    }
}

void eng_moe_there_run(const struct eng_model *m, const struct eng_layer *l, int32_t n_tok, float *parts)
{
    struct job j = job_of(m, l, n_tok);
    const struct eng_ffn *f = &l->experts[0];
    int forms = eng_pass_reads(m, &f->gate) | eng_pass_reads(m, &f->up);
    if (m->spec.experts.d_shared) forms |= eng_pass_reads(m, &l->shared.gate) | eng_pass_reads(m, &l->shared.up);
    struct krn_act in = eng_pass_act(m, m->h, n_tok, m->spec.d_model, forms), shared;
    route(&j);
    eng_pass_prepare(m, &in, 0, n_tok, 0, in.cols);
    struct krn_act a = inner(&j, &in, &shared);
    down(&j, &a, &shared, parts, (int64_t)n_tok * m->spec.d_model);
}

void eng_moe_there_bias(const struct eng_model *m, const struct eng_layer *l, float *sum, int32_t n_tok)
{
    struct job j = job_of(m, l, n_tok);
    bool any = l->experts[0].bdown;
    if (!any && !l->shared.bdown) return;
    eng_backend_experts(m->be)->token_bias(&(struct krn_token_bias){
        .sum = sum, .bias = any ? table(&j, BIAS_DOWN) : NULL, .weights = m->moe->there.weight, .shared = l->shared.bdown, .shared_weights = m->moe->there.shared,
        .ids = m->moe->there.token, .n_tok = n_tok, .used = m->spec.experts.used, .n = m->spec.d_model});
}
