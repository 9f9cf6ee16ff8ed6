/* pass.c: see pass.h. */
#include "engine/model/pass.h"

void eng_pass_lap(const struct eng_model *m, int32_t i, enum eng_op op)
{
    if (i == 0) eng_times_lap(m->times, op);
}

void eng_pass_barrier(const struct eng_model *m, int32_t i)
{
    eng_team_barrier(m->team, i);
    eng_pass_lap(m, i, ENG_OP_WAIT);
}

/* On the host 8 per thread, since items are unequal; a device keeps few waiting and needs room for each. */
int32_t eng_pass_split_items(const struct eng_model *m)
{
    return m->be->on_host ? 8 * eng_team_size(m->team) : 2 * m->be->n_units;
}

static bool quantised(const struct krn_mat *w) { return dtype_block(w->type) > 1; }

/* The form in which a product of these weights reads its input. */
int eng_pass_reads(const struct eng_model *m, const struct krn_mat *w)
{
    return quantised(w) && !m->oracle ? READS_CODES : READS_FLOATS;
}

/* One token's floats are read from x itself. */
struct krn_act eng_pass_act(const struct eng_model *m, const float *x, int32_t n_tok, int32_t cols,
                            int forms)
{
    struct krn_act a = {.n_tok = n_tok, .cols = cols, .x = x};
    if (forms & READS_CODES) a.q = m->act_q;
    if (forms & READS_FLOATS && n_tok > 1) a.xt = m->act_xt;
    return a;
}

/* Columns [k0,k1) of rows [t0,t1) of x, in the forms that the products read. */
void eng_pass_prepare(const struct eng_model *m, const struct krn_act *a, int64_t t0, int64_t t1,
                      int64_t k0, int64_t k1)
{
    if (t0 >= t1 || k0 >= k1) return;
    if (a->q)
        m->krn->quantize(a, (int32_t)t0, (int32_t)t1, (int32_t)(k0 / KRN_UNIT),
                         (int32_t)(k1 / KRN_UNIT));
    if (a->xt) m->krn->interleave(a, (int32_t)t0, (int32_t)t1, (int32_t)k0, (int32_t)k1);
}

/* The same of elements [e0,e1), row after row; whole rows at once. */
void eng_pass_prepare_flat(const struct eng_model *m, const struct krn_act *a, int64_t e0, int64_t e1)
{
    if (e0 % a->cols == 0 && e1 % a->cols == 0) {
        eng_pass_prepare(m, a, e0 / a->cols, e1 / a->cols, 0, a->cols);
        return;
    }
    for (int64_t end; e0 < e1; e0 = end) {
        int64_t t = e0 / a->cols, row = t * a->cols;
        end = MIN(e1, row + a->cols);
        eng_pass_prepare(m, a, t, t + 1, e0 - row, end - row);
    }
}

void eng_pass_matmul(const struct eng_model *m, const struct krn_mat *w, const float *x,
                     int32_t n_tok, const struct krn_leaves *leaves, float *y, int64_t y_stride,
                     int64_t node_stride, int32_t i, int32_t n)
{
    int64_t r0, r1;
    eng_team_range(w->rows, KRN_TILE, i, n, &r0, &r1);
    if (r0 >= r1) return;
    struct krn_act a = eng_pass_act(m, x, n_tok, w->cols, eng_pass_reads(m, w));
    m->krn->matmul(&(struct krn_matmul){.w = w, .x = &a, .leaves = leaves, .y = y,
                                        .y_stride = y_stride, .node_stride = node_stride,
                                        .row0 = (int32_t)r0, .row1 = (int32_t)r1});
}

/* y = W x with K whole. */
void eng_pass_matmul_whole(const struct eng_model *m, const struct krn_mat *w, const float *x,
                           int32_t n_tok, float *y, int32_t i, int32_t n)
{
    struct krn_leaves one = {.n_leaf = 1, .lo = 0, .hi = 1, .cols = {0, w->cols}, .n_nodes = 1,
                             .nodes = {{0, 1}}};
    eng_pass_matmul(m, w, x, n_tok, &one, y, w->rows, 0, i, n);
}

/* The residual receives the last sublayer's sum just before it is read. */
void eng_pass_add_pending(const struct eng_model *m, const float *pending, int64_t t0, int64_t t1)
{
    int64_t d = m->spec.d_model;
    if (pending && t0 < t1) m->krn->add(m->x + t0 * d, pending + t0 * d, (t1 - t0) * d);
}

/* Where sublayer k leaves its subtrees. With one rank the whole tree is one of them and is the next
 * sublayer's pending sum, so it must survive that one's own. */
float *eng_pass_parts(const struct eng_model *m, int32_t k)
{
    return m->shard.tp_width == 1 && k % 2 ? m->red : m->parts;
}

const float *eng_pass_pending(const struct eng_model *m, int32_t k)
{
    return k < 0 ? NULL : m->shard.tp_width == 1 ? eng_pass_parts(m, k) : m->red;
}

/* in = the normed residual of tokens [t0,t1), ready for its products: token by token, so that a row
 * stays in the first-level cache from the sum to the codes; on a device all at once. */
void eng_pass_norm(const struct eng_model *m, const struct krn_act *in, const float *pending,
                   const float *weight, int64_t t0, int64_t t1)
{
    int64_t step = m->be->on_host ? 1 : t1 - t0;
    for (int64_t t = t0; t < t1; t += step) {
        eng_pass_add_pending(m, pending, t, t + step);
        m->krn->rmsnorm(m->h, m->x, weight, in->cols, m->spec.norm_eps, (int32_t)t, (int32_t)(t + step));
        eng_pass_prepare(m, in, t, t + step, 0, in->cols);
    }
}
