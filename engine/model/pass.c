/* pass.c: see pass.h. */
#include "engine/model/pass.h"

#include "engine/model/moe.h"

#include <string.h>

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
    _Static_assert((int)LEAF_SPLIT == (int)KRN_ATTN_SPLIT, "what a plan has room for");
    if (m->spec.mla.kv_rank) return m->be->on_host ? 2 * eng_team_size(m->team) : LEAF_CARD_LATENT_ITEMS; /* their unmerged outputs are large */
    return m->be->on_host ? 8 * eng_team_size(m->team) : LEAF_CARD_ITEMS * m->be->n_units;
}

void (*eng_pass_attention(const struct eng_model *m))(const struct krn_attention *a)
{
    return m->rounded && m->rounded->attention ? m->rounded->attention : m->krn->attention;
}

static bool quantised(const struct krn_mat *w) { return dtype_block(w->type) > 1; }

/* The form in which a product of these weights reads its input. */
int eng_pass_reads(const struct eng_model *m, const struct krn_mat *w)
{
    if (quantised(w) && !m->oracle) return READS_CODES;
    return m->rounded && krn_rounded_takes(w->type) ? READS_BF16 : READS_FLOATS;
}

/* One token's floats are read from x itself. */
struct krn_act eng_pass_act(const struct eng_model *m, const float *x, int32_t n_tok, int32_t cols,
                            int forms)
{
    struct krn_act a = {.n_tok = n_tok, .cols = cols, .x = x};
    if (forms & READS_CODES) a.q = m->act_q;
    if (forms & READS_BF16) {
        if (n_tok >= KRN_ROUNDED_LEAST) a.xb = m->act_xb;
        else forms |= READS_FLOATS;
    }
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
    if (a->xb) m->rounded->interleave(a, (int32_t)t0, (int32_t)t1, (int32_t)k0, (int32_t)k1);
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
    if (i == 0 && m->watch) m->watch(m->watch_user, w, x, n_tok);
    eng_team_range(w->rows, KRN_TILE, i, n, &r0, &r1);
    if (r0 >= r1) return;
    struct krn_act a = eng_pass_act(m, x, n_tok, w->cols, eng_pass_reads(m, w));
    (a.xb ? m->rounded->matmul : m->krn->matmul)(&(struct krn_matmul){.w = w, .x = &a, .leaves = leaves, .y = y,
                                                                      .y_stride = y_stride, .node_stride = node_stride,
                                                                      .row0 = (int32_t)r0, .row1 = (int32_t)r1});
}

/* y = W x with K whole. */
void eng_pass_matmul_whole(const struct eng_model *m, const struct krn_mat *w, const float *x,
                           int32_t n_tok, float *y, int32_t i, int32_t n)
{
    struct krn_leaves one;
    eng_pass_whole(&one, w->cols);
    eng_pass_matmul(m, w, x, n_tok, &one, y, w->rows, 0, i, n);
}

/* Where sublayer k leaves its subtrees. With one rank the whole tree is one of them and is the next
 * sublayer's pending sum, so it must survive that one's own. */
float *eng_pass_parts(const struct eng_model *m, int32_t k)
{
    return m->shard.tp_width == 1 && k % 2 ? m->red : m->parts;
}

float *eng_pass_pending(const struct eng_model *m, int32_t k)
{
    return k < 0 ? NULL : m->shard.tp_width == 1 ? eng_pass_parts(m, k) : m->red;
}

void eng_pass_bias(const struct eng_model *m, float *y, const float *bias, int32_t cols, int64_t t0, int64_t t1)
{
    if (bias && m->fused && t0 < t1) {
        m->fused->bias(&(struct krn_bias){.y = y + t0 * cols, .bias = bias, .n_tok = (int32_t)(t1 - t0), .cols = cols});
        return;
    }
    for (int64_t t = t0; bias && t < t1; t++) m->krn->add(y + t * cols, bias, cols);
}

void eng_pass_norm(const struct eng_model *m, float *y, const float *x, const float *w, const float *bias, int32_t d, int64_t t0, int64_t t1)
{
    if (m->spec.norm == ENG_NORM_LAYER) m->krn->layernorm(y, x, w, bias, d, m->spec.norm_eps, (int32_t)t0, (int32_t)t1);
    else m->krn->rmsnorm(y, x, w, d, m->spec.norm_eps, (int32_t)t0, (int32_t)t1);
}

/* What the products of sublayer k owe to their sums. */
static void owed(const struct eng_model *m, int32_t k, float *sum, int64_t t0, int64_t t1)
{
    const struct eng_layer *l = &m->weights->layers[k / 2];
    bool ffn = k % 2, moe = ffn && m->spec.moe[m->shard.layer0 + k / 2];
    const float *bias = !ffn ? l->bo : moe ? NULL : l->ffn.bdown;
    int64_t d = m->spec.d_model;
    bool there = moe && !m->be->on_host;
    if (there) eng_moe_there_bias(m, l, sum + t0 * d, (int32_t)(t1 - t0));
    for (int64_t t = t0; t < t1 && moe && !there; t++) eng_moe_bias(m, l, sum + t * d, t);
    eng_pass_bias(m, sum, bias, m->spec.d_model, t0, t1);
}

static const float *post_norm(const struct eng_model *m, int32_t k)
{
    const struct eng_layer *l = &m->weights->layers[k / 2];
    return k % 2 ? l->ffn_post : l->attn_post;
}

/* The sums of sublayer k become what the residual receives: bias, norm, scale. */
static void finish(const struct eng_model *m, int32_t k, float *sum, int64_t t0, int64_t t1)
{
    const struct eng_spec *s = &m->spec;
    const float *post = post_norm(m, k);
    int64_t d = s->d_model;
    owed(m, k, sum, t0, t1);
    if (post) eng_pass_norm(m, sum, sum, post, NULL, s->d_model, t0, t1);
    if (s->residual_scale != 1.0f) m->krn->scale(sum + t0 * d, s->residual_scale, (t1 - t0) * d);
}

void eng_pass_leave(const struct eng_model *m, int32_t k, int64_t t0, int64_t t1)
{
    int64_t d = m->spec.d_model;
    float *pending = eng_pass_pending(m, k);
    if (!pending || t0 >= t1) return;
    finish(m, k, pending, t0, t1);
    m->krn->add(m->x + t0 * d, pending + t0 * d, (t1 - t0) * d);
}

/* The norm before sublayer k; NULL: there is none. */
static const float *pre_norm(const struct eng_model *m, int32_t k, const float **bias)
{
    const struct eng_layer *l = &m->weights->layers[k / 2];
    bool own = k % 2 && l->ffn_norm;
    *bias = own ? l->ffn_norm_bias : l->attn_norm_bias;
    return own ? l->ffn_norm : l->attn_norm;
}

/* What sublayer k reads of the residual. */
static void read_in(const struct eng_model *m, int32_t k, int64_t t0, int64_t t1)
{
    int32_t d = m->spec.d_model;
    const float *bias, *w = pre_norm(m, k, &bias);
    if (w) eng_pass_norm(m, m->h, m->x, w, bias, d, t0, t1);
    else if (!m->be->on_host) eng_backend_copy_rows(m->be, m->h + t0 * d, d, m->x + t0 * d, d, NULL, NULL, (int32_t)(t1 - t0), d);
    else memcpy(m->h + t0 * d, m->x + t0 * d, (size_t)(t1 - t0) * (size_t)d * sizeof(float));
}

/* On a device, of a family whose norms are RMS: one call. */
static bool enter_at_once(const struct eng_model *m, const struct krn_act *in, int32_t k)
{
    if (!m->fused || m->spec.norm == ENG_NORM_LAYER || (k % 2 && m->spec.parallel)) return false;
    float *sum = eng_pass_pending(m, k - 1);
    const float *bias, *w = pre_norm(m, k, &bias);
    if (sum) owed(m, k - 1, sum, 0, in->n_tok);
    m->fused->enter(&(struct krn_enter){.x = m->x, .sum = sum, .post = sum ? post_norm(m, k - 1) : NULL, .scale = m->spec.residual_scale, .w = w,
                                        .eps = m->spec.norm_eps, .h = m->h, .q = in->q, .n_tok = in->n_tok, .d = m->spec.d_model});
    struct krn_act rest = *in;
    rest.q = NULL;
    eng_pass_prepare(m, &rest, 0, in->n_tok, 0, in->cols);
    return true;
}

/* Token by token, so that a row stays in the first-level cache from the sum to the codes; on a device all at once. The feed-forward of a
 * parallel layer reads the residual as attention did: before it receives attention's sum. */
void eng_pass_enter(const struct eng_model *m, const struct krn_act *in, int32_t k, int64_t t0, int64_t t1)
{
    if (enter_at_once(m, in, k)) return;
    bool before = k % 2 && m->spec.parallel;
    int64_t step = m->be->on_host ? 1 : MAX(t1 - t0, 1);
    for (int64_t t = t0; t < t1; t += step) {
        if (before) read_in(m, k, t, t + step);
        eng_pass_leave(m, k - 1, t, t + step);
        if (!before) read_in(m, k, t, t + step);
        eng_pass_prepare(m, in, t, t + step, 0, in->cols);
    }
}

static const enum krn_gate gates[] = {[ENG_GELU_TANH] = KRN_GELU_TANH, [ENG_GELU_ERF] = KRN_GELU_ERF, [ENG_SWIGLU_CLAMPED] = KRN_SWIGLU_CLAMPED};

float *eng_pass_gate(const struct eng_model *m, float *gate, float *up, int64_t e0, int64_t e1)
{
    bool gated = m->spec.gated;
    float *y = gated ? gate : up;
    if (m->spec.act == ENG_SILU) m->krn->silu_mul(y + e0, y + e0, up + e0, e1 - e0);
    else m->krn->gate(gates[m->spec.act], y + e0, y + e0, gated ? up + e0 : NULL, e1 - e0);
    return y;
}

void eng_pass_gated(const struct eng_model *m, float *gate, float *up, const struct krn_act *a)
{
    bool gated = m->spec.gated, silu = m->spec.act == ENG_SILU;
    float *y = gated ? gate : up;
    if (m->fused && a->q) {
        m->fused->gated(&(struct krn_gated){.silu = silu, .kind = silu ? 0 : gates[m->spec.act], .g = y, .u = gated || silu ? up : NULL, .y = y, .q = a->q,
                                            .n_tok = a->n_tok, .cols = a->cols});
        return;
    }
    eng_pass_gate(m, gate, up, 0, (int64_t)a->n_tok * a->cols);
    eng_pass_prepare(m, a, 0, a->n_tok, 0, a->cols);
}
