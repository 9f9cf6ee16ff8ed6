/* attention.c: the attention sublayer: norm -> q, k, v -> rope and cache -> attention -> output. */
#include "engine/model/graphs.h"
#include "engine/model/pass.h"

/* ---- norms of q and k ---- */

/* Rows of heads: one weight for all of them, or one for each. */
static void norm_heads(const struct eng_model *m, float *x, const float *w, int32_t heads, int64_t t0, int64_t t1)
{
    int32_t hd = m->spec.head_dim;
    if (m->spec.qk_norm != ENG_QK_HEADS) {
        eng_pass_norm(m, x, x, w, NULL, hd, t0 * heads, t1 * heads);
        return;
    }
    for (int64_t r = t0 * heads; r < t1 * heads; r++) eng_pass_norm(m, x + r * hd, x + r * hd, w + r % heads * hd, NULL, hd, 0, 1);
}

/* A norm over all heads needs every rank's: each sends its heads' sums of squares, first those of q, then those of k. */
static void sum_heads(const struct eng_model *m, const float *q, const float *k, int64_t t0, int64_t t1)
{
    int32_t hd = m->spec.head_dim, nq = m->shard.q1 - m->shard.q0, nkv = m->shard.kv1 - m->shard.kv0;
    for (int64_t t = t0; t < t1; t++) {
        float *to = m->squares + t * (nq + nkv);
        for (int32_t h = 0; h < nq; h++) to[h] = m->be->host->sum_squares(q + (t * nq + h) * hd, hd);
        for (int32_t h = 0; h < nkv; h++) to[nq + h] = m->be->host->sum_squares(k + (t * nkv + h) * hd, hd);
    }
}

static void heads_of_rank(const struct eng_model *m, int32_t rank, int32_t *q0, int32_t *q1, int32_t *kv0, int32_t *kv1)
{
    const struct eng_spec *s = &m->spec;
    const struct leaf_shape shape = {.n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim};
    *q0 = MIN(m->shard.attn_cut.bounds[rank] * leaf_heads(s->head_dim), s->n_heads);
    *q1 = MIN(m->shard.attn_cut.bounds[rank + 1] * leaf_heads(s->head_dim), s->n_heads);
    leaf_kv_range(&shape, *q0, *q1, kv0, kv1);
}

static float *everyones(const struct eng_model *m)
{
    return m->shard.tp_width == 1 ? m->squares : m->squares + (int64_t)m->max_tok * (m->shard.q1 - m->shard.q0 + m->shard.kv1 - m->shard.kv0);
}

static enum err gather_sums(const struct eng_model *m, int32_t n_tok)
{
    int64_t bytes[COLL_MAX_RANKS];
    for (int32_t r = 0; r < m->shard.tp_width; r++) {
        int32_t q0, q1, kv0, kv1;
        heads_of_rank(m, r, &q0, &q1, &kv0, &kv1);
        bytes[r] = (int64_t)n_tok * (q1 - q0 + kv1 - kv0) * (int64_t)sizeof(float);
    }
    return trn_coll_all_gather(m->tp, m->squares, bytes, everyones(m), m->timeout_us);
}

/* Heads in order, a KV head once however many ranks have it. */
static void add_sums(const struct eng_model *m, int32_t n_tok, int64_t t, float *q, float *k)
{
    const float *from = everyones(m);
    int32_t next = 0;
    *q = *k = 0;
    for (int32_t r = 0; r < m->shard.tp_width; r++) {
        int32_t q0, q1, kv0, kv1;
        heads_of_rank(m, r, &q0, &q1, &kv0, &kv1);
        const float *row = from + t * (q1 - q0 + kv1 - kv0);
        for (int32_t h = 0; h < q1 - q0; h++) *q += row[h];
        for (int32_t h = MAX(next, kv0); h < kv1; h++) *k += row[q1 - q0 + h - kv0];
        next = MAX(next, kv1);
        from += (int64_t)n_tok * (q1 - q0 + kv1 - kv0);
    }
}

static void norm_whole(const struct eng_model *m, const struct eng_layer *l, int32_t n_tok, int64_t t0, int64_t t1)
{
    const struct eng_spec *s = &m->spec;
    int32_t q = (m->shard.q1 - m->shard.q0) * s->head_dim, kv = (m->shard.kv1 - m->shard.kv0) * s->head_dim;
    for (int64_t t = t0; t < t1; t++) {
        float sum[2];
        add_sums(m, n_tok, t, &sum[0], &sum[1]);
        float *x[] = {m->q + t * q, m->k + t * kv};
        const float *w[] = {l->q_norm, l->k_norm};
        int32_t cols[] = {q, kv}, all[] = {s->n_heads * s->head_dim, s->n_kv_heads * s->head_dim};
        for (int i = 0; i < 2; i++) {
            m->krn->scale(x[i], 1.0f / __builtin_sqrtf(sum[i] / (float)all[i] + s->norm_eps), cols[i]);
            m->krn->mul(x[i], w[i], cols[i]);
        }
    }
}

/* Thread 0 exchanges the sums. False: the exchange failed. */
static bool norm_over_heads(struct eng_pass *p, const struct eng_layer *l, int64_t t0, int64_t t1, int32_t i)
{
    struct eng_model *m = p->m;
    const float *q = m->q, *k = m->k;
    if (!m->be->on_host) { /* the sums are the host's: one copy, and one wait, for all of them */
        int64_t nq = (int64_t)p->b->n_tok * (m->shard.q1 - m->shard.q0) * m->spec.head_dim;
        int64_t nk = (int64_t)p->b->n_tok * (m->shard.kv1 - m->shard.kv0) * m->spec.head_dim;
        q = m->heads, k = m->heads + nq;
        p->failed = eng_backend_download(m->be, m->heads, m->q, nq * (int64_t)sizeof *q);
        if (!p->failed) p->failed = eng_backend_download(m->be, m->heads + nq, m->k, nk * (int64_t)sizeof *k);
        if (p->failed) return false;
    }
    sum_heads(m, q, k, t0, t1);
    if (m->shard.tp_width > 1) {
        eng_pass_barrier(m, i);
        if (i == 0) {
            p->failed = gather_sums(m, p->b->n_tok);
            eng_pass_lap(m, i, ENG_OP_COLLECTIVE);
        }
        eng_pass_barrier(m, i);
        if (p->failed) return false;
    }
    norm_whole(m, l, p->b->n_tok, t0, t1);
    return true;
}

/* ---- q, k, v ---- */

/* q and k of tokens [t0,t1) from raw products to what attention reads; k and v into the cache. */
static void rope_append(struct eng_pass *p, int32_t layer, int32_t t0, int32_t t1, int32_t i)
{
    struct eng_model *m = p->m;
    const struct eng_spec *s = &m->spec;
    const struct eng_layer *l = &m->weights->layers[layer];
    const struct krn_table *krn = m->krn;
    int32_t nq = m->shard.q1 - m->shard.q0, nkv = m->shard.kv1 - m->shard.kv0, hd = s->head_dim, global = m->shard.layer0 + layer;
    const float *const *cs = s->local[global] ? m->in.cs_local : m->in.cs;
    eng_pass_bias(m, m->q, l->bq, nq * hd, t0, t1);
    eng_pass_bias(m, m->k, l->bk, nkv * hd, t0, t1);
    eng_pass_bias(m, m->v, l->bv, nkv * hd, t0, t1);
    if (s->qk_norm == ENG_QK_ALL) {
        if (!norm_over_heads(p, l, t0, t1, i)) return;
    } else if (s->qk_norm && s->qk_norm != ENG_QK_BARE) {
        norm_heads(m, m->q, l->q_norm, nq, t0, t1);
        norm_heads(m, m->k, l->k_norm, nkv, t0, t1);
    }
    if (!s->no_rope[global]) {
        krn->rope(m->q, nq, hd, s->rope_dim, s->rope_interleaved, cs, t0, t1);
        krn->rope(m->k, nkv, hd, s->rope_dim, s->rope_interleaved, cs, t0, t1);
        if (s->qk_norm == ENG_QK_BARE) {
            norm_heads(m, m->q, l->q_norm, nq, t0, t1);
            norm_heads(m, m->k, l->q_norm, nkv, t0, t1);
        }
    } else if (s->temper_length) {
        krn->rope(m->q, nq, hd, hd, true, m->in.temper, t0, t1);
    }
    krn->kv_append(&(struct krn_kv_append){.kv = &m->kv->planes[m->kv_at[layer].plane], .k = m->k, .v = m->v,
                                           .pos = m->in.pos, .table = m->in.table[m->kv_at[layer].group], .t0 = t0, .t1 = t1});
}

/* ---- attention ---- */

/* The layer's window, 0: none; in chunks or not. */
struct seen { int32_t window; bool chunked; };

/* What an item of this token costs: as many keys as it reads, and something of its own. */
static int64_t cost(const struct eng_batch *b, int32_t t, struct seen w)
{
    enum { OWN = 32 };
    return b->pos[t] - krn_first_key(b->pos[t], w.window, w.chunked) + OWN;
}

void eng_attention_share(const struct eng_batch *b, int32_t window, bool chunked, int32_t nkv, int32_t i, int32_t n, int64_t *i0, int64_t *i1)
{
    struct seen w = {window, chunked};
    int64_t T = b->n_tok, each = 0, *out[] = {i0, i1};
    for (int32_t t = 0; t < T; t++) each += cost(b, t, w);
    for (int32_t k = 0; k < 2; k++) {
        int64_t want = each * nkv * (i + k) / n, rest = want % each, t = 0;
        for (; t < T && rest >= cost(b, (int32_t)t, w); t++) rest -= cost(b, (int32_t)t, w);
        *out[k] = want / each * T + t;
    }
}

int32_t eng_attention_splits(const struct eng_model *m, const struct eng_batch *b, int32_t nkv, int32_t n)
{
    int32_t items = b->n_tok * nkv, most = 0;
    if (m->be->on_host ? items % n == 0 || items >= eng_pass_split_items(m) : b->n_tok >= m->graphs.split_rows) return 0;
    for (int32_t t = 0; t < b->n_tok; t++) most = MAX(most, b->pos[t] / KRN_ATTN_SPLIT + 1);
    if (most < 2) return 0;
    return m->be->on_host ? most : eng_graphs_splits(m, most);
}

/* Attention's output as the next product reads it: of items [i0,i1), which this thread computed, or,
 * where a unit may span two items, of its share of tokens once all are there. */
static void prepare_attention(const struct eng_model *m, const struct krn_act *a, int32_t nkv,
                              int64_t i0, int64_t i1, int32_t i, int32_t n)
{
    int32_t T = a->n_tok, group = a->cols / nkv;
    if (m->be->on_host && (group % KRN_UNIT == 0 || !a->q)) {
        for (int64_t k = i0; k < i1; k++)
            eng_pass_prepare(m, a, k % T, k % T + 1, k / T * group, (k / T + 1) * group);
        return;
    }
    int64_t t0, t1;
    eng_team_barrier(m->team, i);
    eng_team_range(T, 1, i, n, &t0, &t1);
    eng_pass_prepare(m, a, t0, t1, 0, a->cols);
}

/* Attention of this thread's share of (kv head, token) items, and its output quantised. */
static void attend(const struct eng_model *m, const struct eng_batch *b, int32_t layer, int32_t i,
                   int32_t n)
{
    int32_t T = b->n_tok, hd = m->spec.head_dim;
    int32_t nq = m->shard.q1 - m->shard.q0, nkv = m->shard.kv1 - m->shard.kv0;
    int64_t i0, i1;
    const struct eng_spec *s = &m->spec;
    struct seen seen = {s->local[m->shard.layer0 + layer] ? s->window : 0, s->chunked};
    struct krn_attention a = {
        .kv = &m->kv->planes[m->kv_at[layer].plane], .q = m->q, .out = m->att, .pos = m->in.pos,
        .table = m->in.table[m->kv_at[layer].group],
        .n_tok = T, .n_head = nq, .scale = s->attn_scale, .window = seen.window, .chunked = seen.chunked, .softcap = s->attn_cap,
        .sinks = m->weights->layers[layer].sinks,
        .scratch = m->scratch + i * m->scratch_each,
        .n_split = eng_attention_splits(m, b, nkv, n), .partial = m->partial};
    if (a.n_split) {
        eng_team_range((int64_t)T * nkv * a.n_split, 1, i, n, &i0, &i1);
        a.i0 = (int32_t)i0, a.i1 = (int32_t)i1;
        m->krn->attention(&a);
        eng_team_barrier(m->team, i);
        eng_team_range((int64_t)T * nkv, 1, i, n, &i0, &i1);
        a.i0 = (int32_t)i0, a.i1 = (int32_t)i1;
        m->krn->attention_merge(&a);
    } else {
        eng_attention_share(b, seen.window, seen.chunked, nkv, i, n, &i0, &i1);
        a.i0 = (int32_t)i0, a.i1 = (int32_t)i1;
        m->krn->attention(&a);
    }
    struct krn_act out = eng_pass_act(m, m->att, T, nq * hd, eng_pass_reads(m, &m->weights->layers[layer].o));
    prepare_attention(m, &out, nkv, i0, i1, i, n);
}

/* Sublayer k of the pass; its subtrees go to eng_pass_parts(k). */
void eng_attention(struct eng_pass *p, int32_t k, int32_t i, int32_t n)
{
    const struct eng_model *m = p->m;
    const struct eng_spec *s = &m->spec;
    const struct eng_layer *l = &m->weights->layers[k / 2];
    int32_t T = p->b->n_tok, d = s->d_model;
    int64_t t0, t1;
    eng_team_range(T, 1, i, n, &t0, &t1);

    struct krn_act in = eng_pass_act(m, m->h, T, d, eng_pass_reads(m, &l->q) | eng_pass_reads(m, &l->k) | eng_pass_reads(m, &l->v));
    eng_pass_enter(m, &in, k, t0, t1);
    eng_pass_lap(m, i, ENG_OP_NORM);
    eng_pass_barrier(m, i);

    const struct eng_product qkv[] = {{.w = &l->q, .x = m->h, .y = m->q, .y_stride = l->q.rows},
                                      {.w = &l->k, .x = m->h, .y = m->k, .y_stride = l->k.rows},
                                      {.w = &l->v, .x = m->h, .y = m->v, .y_stride = l->v.rows}};
    eng_pass_products(m, qkv, 3, T, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
    eng_pass_barrier(m, i);

    rope_append(p, k / 2, (int32_t)t0, (int32_t)t1, i);
    if (p->failed) return;
    eng_pass_lap(m, i, ENG_OP_ROPE);
    eng_pass_barrier(m, i);

    attend(m, p->b, k / 2, i, n);
    eng_pass_lap(m, i, ENG_OP_ATTENTION);
    eng_pass_barrier(m, i);

    eng_pass_products(m, &(struct eng_product){.w = &l->o, .x = m->att, .leaves = &m->shard.attn, .y = eng_pass_parts(m, k), .y_stride = d,
                                               .node_stride = (int64_t)T * d}, 1, T, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
}
