/* forward.c: see forward.h.
 *
 * The team runs one function per pass; inside it the threads share rows, tokens or heads and meet at
 * barriers. Only the calling thread (thread 0) speaks to other ranks, while the others wait. */
#include "engine/model/forward.h"

#include <stdlib.h>
#include <string.h>

enum {
    GATE_CHUNK = 8192, /* values of SwiGLU quantised while they are in L1 */
    SPLIT_ITEMS = 8,   /* items per thread from which attention does not split them */
};

/* One pass, as every thread of the team sees it. */
struct pass {
    struct eng_model *m;
    const struct eng_batch *b;
    enum err failed; /* written by thread 0 before a barrier, read by all after it */
};

/* ---- pieces shared by the sublayers, run by every thread of the team ---- */

static void lap(const struct eng_model *m, int32_t i, enum eng_op op)
{
    if (i == 0) eng_times_lap(m->times, op);
}

static void barrier(const struct eng_model *m, int32_t i)
{
    eng_team_barrier(m->team, i);
    lap(m, i, ENG_OP_WAIT);
}

static bool quantised(const struct krn_mat *w) { return dtype_block(w->type) > 1; }

/* The form in which a product of these weights reads its input. */
enum { READS_CODES = 1, READS_FLOATS = 2 };
static int reads(const struct eng_model *m, const struct krn_mat *w)
{
    return quantised(w) && !m->oracle ? READS_CODES : READS_FLOATS;
}

/* One token's floats are read from x itself. */
static struct krn_act act_of(const struct eng_model *m, const float *x, int32_t n_tok, int32_t cols,
                             int forms)
{
    struct krn_act a = {.n_tok = n_tok, .cols = cols, .x = x};
    if (forms & READS_CODES) a.q = m->act_q;
    if (forms & READS_FLOATS && n_tok > 1) a.xt = m->act_xt;
    return a;
}

/* Columns [k0,k1) of rows [t0,t1) of x, in the forms that the products read. */
static void prepare(const struct eng_model *m, const struct krn_act *a, int64_t t0, int64_t t1,
                    int64_t k0, int64_t k1)
{
    if (t0 >= t1 || k0 >= k1) return;
    if (a->q)
        m->krn->quantize(a, (int32_t)t0, (int32_t)t1, (int32_t)(k0 / KRN_UNIT),
                         (int32_t)(k1 / KRN_UNIT));
    if (a->xt) m->krn->interleave(a, (int32_t)t0, (int32_t)t1, (int32_t)k0, (int32_t)k1);
}

/* The same of elements [e0,e1), row after row. */
static void prepare_flat(const struct eng_model *m, const struct krn_act *a, int64_t e0, int64_t e1)
{
    for (int64_t end; e0 < e1; e0 = end) {
        int64_t t = e0 / a->cols, row = t * a->cols;
        end = MIN(e1, row + a->cols);
        prepare(m, a, t, t + 1, e0 - row, end - row);
    }
}

static void matmul(const struct eng_model *m, const struct krn_mat *w, const float *x,
                   int32_t n_tok, const struct krn_leaves *leaves, float *y, int64_t y_stride,
                   int64_t node_stride, int32_t i, int32_t n)
{
    int64_t r0, r1;
    eng_team_range(w->rows, KRN_TILE, i, n, &r0, &r1);
    if (r0 >= r1) return;
    struct krn_act a = act_of(m, x, n_tok, w->cols, reads(m, w));
    m->krn->matmul(&(struct krn_matmul){.w = w, .x = &a, .leaves = leaves, .y = y,
                                        .y_stride = y_stride, .node_stride = node_stride,
                                        .row0 = (int32_t)r0, .row1 = (int32_t)r1});
}

/* y = W x with K whole. */
static void matmul_whole(const struct eng_model *m, const struct krn_mat *w, const float *x,
                         int32_t n_tok, float *y, int32_t i, int32_t n)
{
    struct krn_leaves one = {.n_leaf = 1, .lo = 0, .hi = 1, .cols = {0, w->cols}, .n_nodes = 1,
                             .nodes = {{0, 1}}};
    matmul(m, w, x, n_tok, &one, y, w->rows, 0, i, n);
}

/* The residual receives the last sublayer's sum just before it is read. */
static void add_pending(const struct eng_model *m, const float *pending, int64_t t0, int64_t t1)
{
    int64_t d = m->spec.d_model;
    if (pending && t0 < t1) m->krn->add(m->x + t0 * d, pending + t0 * d, (t1 - t0) * d);
}

/* Where sublayer k leaves its subtrees. With one rank the whole tree is one of them and is the next
 * sublayer's pending sum, so it must survive that one's own. */
static float *parts_of(const struct eng_model *m, int32_t k)
{
    return m->shard.tp_width == 1 && k % 2 ? m->red : m->parts;
}

static const float *pending_after(const struct eng_model *m, int32_t k)
{
    return k < 0 ? NULL : m->shard.tp_width == 1 ? parts_of(m, k) : m->red;
}

/* in = the normed residual of tokens [t0,t1), ready for its products: token by token, so that a row
 * stays in the first-level cache from the sum to the codes. */
static void norm(const struct eng_model *m, const struct krn_act *in, const float *pending,
                 const float *weight, int64_t t0, int64_t t1)
{
    for (int64_t t = t0; t < t1; t++) {
        add_pending(m, pending, t, t + 1);
        m->krn->rmsnorm(m->h, m->x, weight, in->cols, m->spec.norm_eps, (int32_t)t, (int32_t)t + 1);
        prepare(m, in, t, t + 1, 0, in->cols);
    }
}

/* ---- attention ---- */

static void add_bias(const struct eng_model *m, float *y, const float *bias, int32_t cols,
                     int64_t t0, int64_t t1)
{
    for (int64_t t = t0; bias && t < t1; t++) m->krn->add(y + t * cols, bias, cols);
}

/* q and k of tokens [t0,t1) from raw products to what attention reads; k and v into the cache. */
static void rope_append(const struct eng_model *m, const struct eng_batch *b, int32_t layer,
                        int32_t t0, int32_t t1)
{
    const struct eng_spec *s = &m->spec;
    const struct eng_layer *l = &m->weights->layers[layer];
    const struct krn_table *krn = m->krn;
    int32_t nq = m->shard.q1 - m->shard.q0, nkv = m->shard.kv1 - m->shard.kv0, hd = s->head_dim;
    add_bias(m, m->q, l->bq, nq * hd, t0, t1);
    add_bias(m, m->k, l->bk, nkv * hd, t0, t1);
    add_bias(m, m->v, l->bv, nkv * hd, t0, t1);
    if (s->qk_norm) {
        krn->rmsnorm(m->q, m->q, l->q_norm, hd, s->norm_eps, t0 * nq, t1 * nq);
        krn->rmsnorm(m->k, m->k, l->k_norm, hd, s->norm_eps, t0 * nkv, t1 * nkv);
    }
    krn->rope(m->q, nq, hd, s->rope_dim, s->rope_interleaved, m->cs, t0, t1);
    krn->rope(m->k, nkv, hd, s->rope_dim, s->rope_interleaved, m->cs, t0, t1);
    krn->kv_append(&(struct krn_kv_append){.kv = &m->kv->layers[layer], .k = m->k, .v = m->v,
                                           .pos = b->pos, .table = b->table, .t0 = t0, .t1 = t1});
}

/* Items [i0,i1) = kvh * n_tok + t that cost thread i its share: an item costs as many keys as it
 * reads, and something of its own. */
static void attention_share(const struct eng_batch *b, int32_t nkv, int32_t i, int32_t n,
                            int64_t *i0, int64_t *i1)
{
    enum { OWN = 32 };
    int64_t T = b->n_tok, each = 0, *out[] = {i0, i1};
    for (int32_t t = 0; t < T; t++) each += b->pos[t] + OWN;
    for (int32_t k = 0; k < 2; k++) {
        int64_t want = each * nkv * (i + k) / n, rest = want % each, t = 0;
        for (; t < T && rest >= b->pos[t] + OWN; t++) rest -= b->pos[t] + OWN;
        *out[k] = want / each * T + t;
    }
}

/* How many splits each item falls into when there are too few items to occupy the team; 0: none. */
static int32_t attention_splits(const struct eng_batch *b, int32_t nkv, int32_t n)
{
    int32_t items = b->n_tok * nkv, most = 0;
    if (items % n == 0 || items >= SPLIT_ITEMS * n) return 0;
    for (int32_t t = 0; t < b->n_tok; t++) most = MAX(most, b->pos[t] / KRN_ATTN_SPLIT + 1);
    return most > 1 ? most : 0;
}

/* Attention's output as the next product reads it: of items [i0,i1), which this thread computed, or,
 * where a unit may span two items, of its share of tokens once all are there. */
static void prepare_attention(const struct eng_model *m, const struct krn_act *a, int32_t nkv,
                              int64_t i0, int64_t i1, int32_t i, int32_t n)
{
    int32_t T = a->n_tok, group = a->cols / nkv;
    if (group % KRN_UNIT == 0 || !a->q) {
        for (int64_t k = i0; k < i1; k++)
            prepare(m, a, k % T, k % T + 1, k / T * group, (k / T + 1) * group);
        return;
    }
    int64_t t0, t1;
    eng_team_barrier(m->team, i);
    eng_team_range(T, 1, i, n, &t0, &t1);
    prepare(m, a, t0, t1, 0, a->cols);
}

/* Attention of this thread's share of (kv head, token) items, and its output quantised. */
static void attend(const struct eng_model *m, const struct eng_batch *b, int32_t layer, int32_t i,
                   int32_t n)
{
    int32_t T = b->n_tok, hd = m->spec.head_dim;
    int32_t nq = m->shard.q1 - m->shard.q0, nkv = m->shard.kv1 - m->shard.kv0;
    int64_t i0, i1;
    struct krn_attention a = {
        .kv = &m->kv->layers[layer], .q = m->q, .out = m->att, .pos = b->pos, .table = b->table,
        .n_tok = T, .n_head = nq, .scale = 1.0f / __builtin_sqrtf((float)hd),
        .scratch = m->scratch + i * m->scratch_each,
        .n_split = attention_splits(b, nkv, n), .partial = m->partial};
    if (a.n_split) {
        eng_team_range((int64_t)T * nkv * a.n_split, 1, i, n, &i0, &i1);
        a.i0 = (int32_t)i0, a.i1 = (int32_t)i1;
        m->krn->attention(&a);
        eng_team_barrier(m->team, i);
        eng_team_range((int64_t)T * nkv, 1, i, n, &i0, &i1);
        a.i0 = (int32_t)i0, a.i1 = (int32_t)i1;
        m->krn->attention_merge(&a);
    } else {
        attention_share(b, nkv, i, n, &i0, &i1);
        a.i0 = (int32_t)i0, a.i1 = (int32_t)i1;
        m->krn->attention(&a);
    }
    struct krn_act out = act_of(m, m->att, T, nq * hd, reads(m, &m->weights->layers[layer].o));
    prepare_attention(m, &out, nkv, i0, i1, i, n);
}

/* Sublayer k of the pass; its subtrees go to parts_of(k). */
static void attention(const struct pass *p, int32_t k, int32_t i, int32_t n)
{
    const struct eng_model *m = p->m;
    const struct eng_spec *s = &m->spec;
    const struct eng_layer *l = &m->weights->layers[k / 2];
    int32_t T = p->b->n_tok, d = s->d_model;
    int64_t t0, t1;
    eng_team_range(T, 1, i, n, &t0, &t1);

    struct krn_act in = act_of(m, m->h, T, d, reads(m, &l->q) | reads(m, &l->k) | reads(m, &l->v));
    norm(m, &in, pending_after(m, k - 1), l->attn_norm, t0, t1);
    lap(m, i, ENG_OP_NORM);
    barrier(m, i);

    matmul_whole(m, &l->q, m->h, T, m->q, i, n);
    matmul_whole(m, &l->k, m->h, T, m->k, i, n);
    matmul_whole(m, &l->v, m->h, T, m->v, i, n);
    lap(m, i, ENG_OP_MATMUL);
    barrier(m, i);

    rope_append(m, p->b, k / 2, (int32_t)t0, (int32_t)t1);
    lap(m, i, ENG_OP_ROPE);
    barrier(m, i);

    attend(m, p->b, k / 2, i, n);
    lap(m, i, ENG_OP_ATTENTION);
    barrier(m, i);

    matmul(m, &l->o, m->att, T, &m->shard.attn, parts_of(m, k), d, (int64_t)T * d, i, n);
    lap(m, i, ENG_OP_MATMUL);
}

/* ---- feed-forward ---- */

/* This thread's share of gate = silu(gate) * up, and of what the next product reads of it. */
static void gate_up(const struct eng_model *m, int32_t T, const struct krn_mat *down, int32_t i,
                    int32_t n)
{
    int64_t e0, e1;
    struct krn_act a = act_of(m, m->gate, T, down->cols, reads(m, down));
    eng_team_range((int64_t)T * down->cols, KRN_UNIT, i, n, &e0, &e1);
    for (int64_t e = e0; e < e1; e += GATE_CHUNK) {
        int64_t end = MIN(e + GATE_CHUNK, e1);
        m->krn->silu_mul(m->gate + e, m->gate + e, m->up + e, end - e);
        prepare_flat(m, &a, e, end);
    }
}

static void mlp(const struct pass *p, int32_t k, int32_t i, int32_t n)
{
    const struct eng_model *m = p->m;
    const struct eng_layer *l = &m->weights->layers[k / 2];
    int32_t T = p->b->n_tok, d = m->spec.d_model;
    int64_t t0, t1;
    eng_team_range(T, 1, i, n, &t0, &t1);

    struct krn_act in = act_of(m, m->h, T, d, reads(m, &l->gate) | reads(m, &l->up));
    norm(m, &in, pending_after(m, k - 1), l->ffn_norm, t0, t1);
    lap(m, i, ENG_OP_NORM);
    barrier(m, i);

    matmul_whole(m, &l->gate, m->h, T, m->gate, i, n);
    matmul_whole(m, &l->up, m->h, T, m->up, i, n);
    lap(m, i, ENG_OP_MATMUL);
    barrier(m, i);

    gate_up(m, T, &l->down, i, n);
    lap(m, i, ENG_OP_GATE);
    barrier(m, i);

    matmul(m, &l->down, m->gate, T, &m->shard.ffn, parts_of(m, k), d, (int64_t)T * d, i, n);
    lap(m, i, ENG_OP_MATMUL);
}

/* ---- the pass ---- */

/* Everyone's rows of the last product are there; with several ranks, summed over them. */
static bool reduce(struct pass *p, const struct coll_cut *cut, int32_t i)
{
    struct eng_model *m = p->m;
    barrier(m, i);
    if (m->shard.tp_width == 1) return true;
    if (i == 0) {
        p->failed = trn_coll_all_reduce(m->tp, cut, m->parts, m->red,
                                        (int64_t)p->b->n_tok * m->spec.d_model, m->timeout_us);
        lap(m, i, ENG_OP_COLLECTIVE);
    }
    barrier(m, i);
    return !p->failed;
}

static void layers(void *arg, int32_t i, int32_t n)
{
    struct pass *p = arg;
    struct eng_model *m = p->m;
    int32_t n_sub = 2 * m->weights->n_layers;
    int64_t t0, t1;
    for (int32_t k = 0; k < n_sub; k += 2) {
        if (i == 0)
            atomic_store_explicit(&m->layer, m->shard.layer0 + k / 2, memory_order_relaxed);
        attention(p, k, i, n);
        if (!reduce(p, &m->shard.attn_cut, i)) return;
        mlp(p, k + 1, i, n);
        if (!reduce(p, &m->shard.ffn_cut, i)) return;
    }
    eng_team_range(p->b->n_tok, 1, i, n, &t0, &t1);
    add_pending(m, pending_after(m, n_sub - 1), t0, t1);
    lap(m, i, ENG_OP_NORM);
}

enum err eng_forward_run(struct eng_model *m, const struct eng_batch *b)
{
    struct pass p = {.m = m, .b = b};
    int32_t half = m->spec.rope_dim / 2;
    for (int32_t t = 0; t < b->n_tok; t++) m->cs[t] = m->rope + (int64_t)b->pos[t] * half * 2;
    eng_times_lap(m->times, ENG_OP_OTHER);
    eng_team_run(m->team, layers, &p);
    eng_times_lap(m->times, ENG_OP_WAIT);
    atomic_store_explicit(&m->layer, -1, memory_order_relaxed);
    return p.failed;
}

/* Each rank unpacks the rows it holds; the others receive them. */
enum err eng_forward_embed(struct eng_model *m, const struct eng_batch *b)
{
    enum err rc;
    int32_t d = m->spec.d_model, w = m->shard.tp_width, mine = 0;
    const int32_t *bounds = m->shard.vocab_bounds;
    int64_t bytes[COLL_MAX_RANKS] = {0}, at[COLL_MAX_RANKS] = {0};
    if (w == 1) {
        for (int32_t t = 0; t < b->n_tok; t++) krn_unpack_row(&m->weights->embd, b->ids[t], m->x + (int64_t)t * d);
        return OK;
    }
    for (int32_t t = 0; t < b->n_tok; t++)
        for (int32_t r = 0; r < w; r++)
            if (b->ids[t] >= bounds[r] && b->ids[t] < bounds[r + 1]) {
                bytes[r] += d * (int64_t)sizeof(float);
                if (r == m->shard.tp_rank)
                    krn_unpack_row(&m->weights->embd, b->ids[t] - bounds[r], m->h + (int64_t)mine++ * d);
            }
    for (int32_t r = 1; r < w; r++) at[r] = at[r - 1] + bytes[r - 1] / (int64_t)sizeof(float);
    TRY(trn_coll_all_gather(m->tp, m->h, bytes, m->red, m->timeout_us));
    for (int32_t t = 0; t < b->n_tok; t++)
        for (int32_t r = 0; r < w; r++)
            if (b->ids[t] >= bounds[r] && b->ids[t] < bounds[r + 1]) {
                memcpy(m->x + (int64_t)t * d, m->red + at[r], (size_t)d * sizeof(float));
                at[r] += d;
            }
out:
    return rc;
}

struct head { struct eng_model *m; const int32_t *rows; int32_t n; float *out; };

static void head(void *arg, int32_t i, int32_t n)
{
    const struct head *a = arg;
    struct eng_model *m = a->m;
    int32_t d = m->spec.d_model;
    int64_t t0, t1;
    eng_team_range(a->n, 1, i, n, &t0, &t1);
    for (int64_t t = t0; t < t1; t++)
        memcpy(m->h + t * d, m->x + (int64_t)a->rows[t] * d, (size_t)d * sizeof(float));
    m->krn->rmsnorm(m->h, m->h, m->weights->out_norm, d, m->spec.norm_eps, (int32_t)t0, (int32_t)t1);
    struct krn_act in = act_of(m, m->h, a->n, d, reads(m, &m->weights->head));
    prepare(m, &in, t0, t1, 0, d);
    eng_team_barrier(m->team, i);
    matmul_whole(m, &m->weights->head, m->h, a->n, a->out, i, n);
}

void eng_forward_head(struct eng_model *m, const int32_t rows[], int32_t n, float *out)
{
    ASSERT(n <= m->max_tok);
    if (!n) return;
    eng_times_lap(m->times, ENG_OP_OTHER);
    eng_team_run(m->team, head, &(struct head){m, rows, n, out});
    eng_times_lap(m->times, ENG_OP_HEAD);
}

/* ---- buffers ---- */

static enum err take(float **p, int64_t n)
{
    if (posix_memalign((void **)p, 64, (size_t)MAX(n, 1) * sizeof(float))) {
        *p = NULL;
        return err_raise(ERR_NO_MEMORY, "no memory for %.1f MB of step buffers: lower --max-batch-tokens",
                         (double)n * 4 / 1e6);
    }
    return OK;
}

enum err eng_forward_open(struct eng_model *m, int32_t context)
{
    enum err rc;
    const struct eng_spec *s = &m->spec;
    const struct eng_shard *h = &m->shard;
    int64_t T = m->max_tok, d = s->d_model, q = (int64_t)(h->q1 - h->q0) * s->head_dim;
    int64_t kv = (int64_t)(h->kv1 - h->kv0) * s->head_dim, f = h->ffn1 - h->ffn0;
    int64_t wide = MAX(MAX(d, q), f), nodes = MAX(h->attn.n_nodes, h->ffn.n_nodes);
    atomic_store(&m->layer, -1);
    TRY(eng_rope_table(&m->rope, s, m->weights->rope_freqs, context));
    TRY(take(&m->x, T * d));
    TRY(take(&m->h, T * d));
    TRY(take(&m->q, T * q));
    TRY(take(&m->att, T * q));
    TRY(take(&m->k, T * kv));
    TRY(take(&m->v, T * kv));
    TRY(take(&m->gate, T * f));
    TRY(take(&m->up, T * f));
    TRY(take(&m->parts, T * d * nodes));
    TRY(take(&m->red, T * d));
    wide = ROUND_UP(wide, KRN_UNIT);
    TRY(take((float **)&m->act_q, DIV_UP(krn_act_q_bytes((int32_t)T, (int32_t)wide), 4)));
    TRY(take(&m->act_xt, krn_act_xt_floats((int32_t)T, (int32_t)wide)));
    m->scratch_each = ROUND_UP(krn_attention_scratch(h->q1 - h->q0, h->kv1 - h->kv0, s->head_dim), 16);
    TRY(take(&m->scratch, m->scratch_each * eng_team_size(m->team)));
    TRY(take(&m->partial, krn_attention_partial(SPLIT_ITEMS * eng_team_size(m->team),
                                                DIV_UP(context, KRN_ATTN_SPLIT),
                                                (h->q1 - h->q0) / MAX(h->kv1 - h->kv0, 1), s->head_dim)));
    m->cs = xcalloc((size_t)T, sizeof *m->cs);
out:
    return rc;
}

void eng_forward_close(struct eng_model *m)
{
    float *all[] = {m->rope, m->x, m->h, m->q, m->att, m->k, m->v, m->gate, m->up, m->parts, m->red, m->act_xt, m->scratch,
                    m->partial};
    for (size_t i = 0; i < COUNT_OF(all); i++) free(all[i]);
    free(m->act_q);
    free((void *)m->cs);
}
