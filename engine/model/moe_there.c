/* moe_there.c: experts on a device: the choice is made there (engine/kernels/experts.h), so that the host waits for nothing and small steps can be
 * graphs. Products of few tokens go slot by slot, each of which reads its expert; of more, slots are sorted by expert there, and one launch has
 * all experts' rows. Experts whose matrices are of other types have a launch for each type, in which blocks of the others return at once; so do
 * blocks of experts that lie whole on another rank.
 *
 * The order of work: choice -> for a group of tokens: slots by expert -> their inputs -> gate, up of every row -> their product -> down, leaf by
 * leaf, for some rows of weights at a time -> slots and leaves added. Rows of products are slots, or, by expert, krn_grouping's. A row of a slot
 * whose expert is another rank's holds anything, and is in no sum. */
#include "engine/model/moe_impl.h"

/* The tokens of a group in one layer. */
struct job {
    const struct eng_model *m;
    const struct eng_moe *o;
    const struct eng_layer *l;
    const struct moe_layer *at;
    int32_t t0, n_tok, n_slots, n_rows;
    bool grouped;
};

static struct job job_of(const struct eng_model *m, const struct eng_layer *l, int32_t t0, int32_t n_tok, bool grouped)
{
    int32_t n = eng_moe_routed(m), slots = n_tok * m->spec.experts.used, rows = !n ? 0 : grouped ? krn_grouping_rows(slots, n) : slots;
    return (struct job){m, m->moe, l, &m->moe->there.layers[l - m->weights->layers], t0, n_tok, slots, rows, grouped && n};
}

static const void *table(const struct job *j, int64_t at) { return j->o->there.tables + at; }
static const int32_t *ids_of(const struct job *j) { return j->o->there.ids + (int64_t)j->t0 * j->m->spec.experts.used; }
static const float *weights_of(const struct job *j) { return j->o->there.weight + (int64_t)j->t0 * j->m->spec.experts.used; }
static const float *scales_of(const struct job *j) { return j->o->there.scale ? j->o->there.scale + (int64_t)j->t0 * j->m->spec.experts.used : NULL; }

/* Of all tokens. */
static void route(const struct eng_model *m, const struct eng_layer *l, int32_t n_tok)
{
    static const enum krn_gating gating[] = {[ENG_GATING_SOFTMAX] = KRN_GATING_SOFTMAX, [ENG_GATING_SIGMOID] = KRN_GATING_SIGMOID,
                                             [ENG_GATING_SOFTMAX_CHOSEN] = KRN_GATING_SOFTMAX_CHOSEN, [ENG_GATING_SIGMOID_CHOSEN] = KRN_GATING_SIGMOID_CHOSEN};
    const struct eng_experts *x = &m->spec.experts;
    const struct eng_moe_there *o = &m->moe->there;
    eng_backend_experts(m->be)->route(&(struct krn_route){
        .logits = o->logits, .shift = l->router_shift, .shared = x->d_shared ? o->shared : NULL, .ids = o->ids, .weights = x->weigh_input ? o->scale : o->weight,
        .n_tok = n_tok, .n = x->n, .used = x->used, .n_groups = x->n_groups, .groups_used = x->groups_used, .gating = gating[x->gating], .renorm = x->renorm,
        .shared_gated = x->shared_gated, .scale = x->scale});
}

static void group(const struct job *j)
{
    const struct eng_moe_there *o = &j->o->there;
    eng_backend_experts(j->m->be)->group(&(struct krn_grouping){
        .ids = ids_of(j), .weights = scales_of(j), .n_slots = j->n_slots, .per = j->m->spec.experts.used, .n = j->m->spec.experts.n,
        .e0 = j->m->shard.e0, .e1 = j->m->shard.e1, .at = o->at, .token = o->row_token, .expert = o->row_expert, .scale = o->row_scale, .parts = o->parts});
}

/* The forms in which the products of a matrix read their input. */
static int reads(const struct job *j, int32_t which)
{
    int forms = 0;
    for (int32_t k = j->at->first[which]; k < j->at->first[which + 1]; k++) forms |= eng_pass_reads(j->m, &j->o->there.kinds[k].w);
    return forms;
}

/* Rows [row0, row1) of weights times every row of `in`, or, slot by slot, `per` slots each row; y counted from row0. */
static void products(const struct job *j, int32_t which, const struct krn_act *in, int32_t per, const struct krn_leaves *leaves, float *y, int64_t y_stride,
                     int64_t node_stride, int32_t row0, int32_t row1)
{
    const struct plugin_experts *x = eng_backend_experts(j->m->be);
    for (int32_t k = j->at->first[which]; k < j->at->first[which + 1]; k++) {
        const struct moe_kind *kind = &j->o->there.kinds[k];
        struct krn_act a = *in;
        if (eng_pass_reads(j->m, &kind->w) != READS_CODES) a.q = NULL;
        struct krn_matmul p = {.w = &kind->w, .x = &a, .leaves = leaves, .y = y - row0, .y_stride = y_stride, .node_stride = node_stride, .row0 = row0, .row1 = row1};
        if (j->grouped)
            x->matmul_grouped(&p, &(struct krn_grouped){.data = table(j, kind->at), .parts = j->o->there.parts,
                                                        .n_parts = krn_grouping_parts(j->n_slots, eng_moe_routed(j->m))});
        else
            x->matmul(&p, &(struct krn_slots){.data = table(j, kind->at), .ids = ids_of(j), .n_slots = j->n_slots, .per = per});
    }
}

static void row_bias(const struct job *j, float *y, int32_t which, int32_t cols)
{
    if (j->at->bias[which] >= 0)
        eng_backend_experts(j->m->be)->slot_bias(&(struct krn_slot_bias){
            .y = y, .bias = table(j, j->at->bias[which]), .ids = j->grouped ? j->o->there.row_expert : ids_of(j), .n_slots = j->n_rows, .n = cols});
}

/* What gate and up read: the tokens, or copies of them row by row; *per: slots that share one. Codes are made of tokens, and copied; where a slot's
 * input is scaled it is copied first. */
static struct krn_act inputs(const struct job *j, int32_t *per)
{
    const struct eng_model *m = j->m;
    const struct eng_ffn *s = &j->l->shared;
    const struct eng_moe_there *o = &j->o->there;
    int32_t d = m->spec.d_model;
    int forms = reads(j, MOE_GATE) | reads(j, MOE_UP), of_tokens = o->scale ? 0 : forms & READS_CODES;
    bool codes = forms & READS_CODES, floats = o->scale || forms & ~READS_CODES;
    if (m->spec.experts.d_shared) of_tokens |= eng_pass_reads(m, &s->gate) | eng_pass_reads(m, &s->up);
    struct krn_act in = eng_pass_act(m, m->h + (int64_t)j->t0 * d, j->n_tok, d, of_tokens);
    eng_pass_prepare(m, &in, 0, j->n_tok, 0, d);
    *per = m->spec.experts.used;
    if (!j->grouped && !o->scale) return in;
    *per = 1;
    const struct krn_act to = {.n_tok = j->n_rows, .cols = d, .x = j->o->x, .q = codes ? j->o->act_q : NULL};
    if (floats) eng_backend_copy_rows(m->be, j->o->x, d, in.x, d, j->grouped ? o->row_token : o->token_of, j->grouped ? o->row_scale : scales_of(j), j->n_rows, d);
    if (codes && o->scale) eng_pass_prepare(m, &to, 0, to.n_tok, 0, d);
    else if (codes) eng_backend_copy_codes(m->be, to.q, in.q, j->n_tok, d, o->row_token, j->n_rows);
    return to;
}

/* gate and up of every row, and of the shared expert behind them, to what down reads: *shared. */
static struct krn_act inner(const struct job *j, struct krn_act *shared)
{
    const struct eng_model *m = j->m;
    const struct eng_ffn *s = &j->l->shared;
    int32_t cols = m->shard.expert1 - m->shard.expert0, d = m->spec.d_model, per;
    int64_t n = (int64_t)j->n_rows * cols, more = m->spec.experts.d_shared ? (int64_t)j->n_tok * s->down.cols : 0;
    const struct krn_leaves one = {.n_leaf = 1, .lo = 0, .hi = 1, .cols = {0, d}, .n_nodes = 1, .nodes = {{0, 1}}};
    float *gate = j->o->gate, *up = j->o->up;
    struct krn_act in = inputs(j, &per);
    products(j, MOE_GATE, &in, per, &one, gate, cols, 0, 0, cols);
    products(j, MOE_UP, &in, per, &one, up, cols, 0, 0, cols);
    row_bias(j, gate, MOE_GATE, cols);
    row_bias(j, up, MOE_UP, cols);
    if (more) {
        const float *h = m->h + (int64_t)j->t0 * d;
        eng_pass_matmul_whole(m, &s->gate, h, j->n_tok, gate + n, 0, 1);
        eng_pass_matmul_whole(m, &s->up, h, j->n_tok, up + n, 0, 1);
        eng_pass_bias(m, gate + n, s->bgate, s->down.cols, 0, j->n_tok);
        eng_pass_bias(m, up + n, s->bup, s->down.cols, 0, j->n_tok);
    }
    struct krn_act a = {.n_tok = j->n_rows, .cols = cols, .x = gate, .q = reads(j, MOE_DOWN) & READS_CODES ? j->o->act_q : NULL};
    eng_pass_gated(m, gate, up, &a);
    *shared = (struct krn_act){.n_tok = j->n_tok, .cols = s->down.cols, .x = gate + n};
    if (more && eng_pass_reads(m, &s->down) & READS_CODES) shared->q = j->o->act_q + krn_act_q_bytes(ROUND_UP(j->n_rows, LEAF_EXPERT_PAD), ROUND_UP(cols, KRN_UNIT));
    if (more) eng_pass_gated(m, gate + n, up + n, shared);
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

/* to: [node][all tokens][d_model], from the group's first token on. */
static void down(const struct job *j, const struct krn_act *in, const struct krn_act *shared, float *to, int64_t node_stride)
{
    const struct eng_model *m = j->m;
    const struct krn_leaves *l = &m->shard.ffn;
    const struct eng_moe_there *o = &j->o->there;
    bool also = m->spec.experts.d_shared > 0;
    int32_t d = m->spec.d_model;
    int64_t y_row = (int64_t)eng_moe_leaves_each(&m->shard) * j->n_rows, each = y_row + (also ? (int64_t)eng_moe_leaves(&m->shard) * j->n_tok : 0);
    int32_t most = (int32_t)MIN(j->o->scratch_each / (MAX(each, 1) * KRN_TILE) * KRN_TILE, d);
    ASSERT(most >= KRN_TILE || most == d);
    for (int32_t r0 = 0, r1; r0 < d; r0 = r1) {
        r1 = MIN(r0 + most, d);
        int32_t rows = r1 - r0;
        float *y = j->o->scratch, *ys = y + y_row * rows;
        products(j, MOE_DOWN, in, 1, &m->shard.expert, y, rows, (int64_t)j->n_rows * rows, r0, r1);
        if (also) shared_leaves(j, shared, ys, r0, r1);
        for (int32_t k = 0; k < l->n_nodes; k++) {
            int16_t ops[2 * KRN_TREE_PARTS];
            int32_t n_ops = 0;
            program(l->nodes[k], l->lo, ops, &n_ops);
            eng_backend_experts(m->be)->combine(&(struct krn_combine){
                .ops = ops, .n_ops = n_ops, .y = y, .weights = weights_of(j), .at = j->grouped ? o->at : NULL, .ids = ids_of(j), .leaf = o->leaf,
                .shared = also ? ys : NULL, .shared_weights = o->shared + j->t0, .n_tok = j->n_tok, .used = m->spec.experts.used, .rows = rows,
                .y_rows = j->n_rows, .to = to + k * node_stride + r0, .to_stride = d});
        }
    }
}

void eng_moe_there_run(const struct eng_model *m, const struct eng_layer *l, int32_t n_tok, float *parts)
{
    int64_t d = m->spec.d_model;
    route(m, l, n_tok);
    if (!eng_moe_leaves(&m->shard)) return;
    for (int32_t t = 0; t < n_tok; t += m->moe->tokens) {
        struct krn_act shared;
        struct job j = job_of(m, l, t, MIN(m->moe->tokens, n_tok - t), n_tok > m->moe->there.rows);
        if (j.grouped) group(&j);
        struct krn_act a = inner(&j, &shared);
        down(&j, &a, &shared, parts + t * d, n_tok * d);
    }
}

void eng_moe_there_bias(const struct eng_model *m, const struct eng_layer *l, float *sum, int32_t n_tok)
{
    struct job j = job_of(m, l, 0, n_tok, false);
    const struct eng_moe_there *o = &m->moe->there;
    bool any = j.at->bias[MOE_DOWN] >= 0;
    if (!any && !l->shared.bdown) return;
    eng_backend_experts(m->be)->token_bias(&(struct krn_token_bias){
        .sum = sum, .bias = any ? table(&j, j.at->bias[MOE_DOWN]) : NULL, .weights = o->weight, .shared = l->shared.bdown, .shared_weights = o->shared,
        .ids = o->ids, .n_tok = n_tok, .used = m->spec.experts.used, .n = m->spec.d_model});
}
