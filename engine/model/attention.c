/* attention.c: the attention sublayer: norm -> q, k, v -> rope and cache -> attention -> output. */
#include "engine/model/pass.h"

static void add_bias(const struct eng_model *m, float *y, const float *bias, int32_t cols,
                     int64_t t0, int64_t t1)
{
    for (int64_t t = t0; bias && t < t1; t++) m->krn->add(y + t * cols, bias, cols);
}

/* q and k of tokens [t0,t1) from raw products to what attention reads; k and v into the cache. */
static void rope_append(const struct eng_model *m, int32_t layer, int32_t t0, int32_t t1)
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
    krn->rope(m->q, nq, hd, s->rope_dim, s->rope_interleaved, m->in.cs, t0, t1);
    krn->rope(m->k, nkv, hd, s->rope_dim, s->rope_interleaved, m->in.cs, t0, t1);
    krn->kv_append(&(struct krn_kv_append){.kv = &m->kv->layers[layer], .k = m->k, .v = m->v,
                                           .pos = m->in.pos, .table = m->in.table, .t0 = t0, .t1 = t1});
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
static int32_t attention_splits(const struct eng_model *m, const struct eng_batch *b, int32_t nkv, int32_t n)
{
    int32_t items = b->n_tok * nkv, most = 0;
    if ((m->be->on_host && items % n == 0) || items >= eng_pass_split_items(m)) return 0;
    for (int32_t t = 0; t < b->n_tok; t++) most = MAX(most, b->pos[t] / KRN_ATTN_SPLIT + 1);
    return most > 1 ? most : 0;
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
    struct krn_attention a = {
        .kv = &m->kv->layers[layer], .q = m->q, .out = m->att, .pos = m->in.pos, .table = m->in.table,
        .n_tok = T, .n_head = nq, .scale = 1.0f / __builtin_sqrtf((float)hd),
        .scratch = m->scratch + i * m->scratch_each,
        .n_split = attention_splits(m, b, nkv, n), .partial = m->partial};
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
    struct krn_act out = eng_pass_act(m, m->att, T, nq * hd, eng_pass_reads(m, &m->weights->layers[layer].o));
    prepare_attention(m, &out, nkv, i0, i1, i, n);
}

/* Sublayer k of the pass; its subtrees go to eng_pass_parts(k). */
void eng_attention(const struct eng_pass *p, int32_t k, int32_t i, int32_t n)
{
    const struct eng_model *m = p->m;
    const struct eng_spec *s = &m->spec;
    const struct eng_layer *l = &m->weights->layers[k / 2];
    int32_t T = p->b->n_tok, d = s->d_model;
    int64_t t0, t1;
    eng_team_range(T, 1, i, n, &t0, &t1);

    struct krn_act in = eng_pass_act(m, m->h, T, d, eng_pass_reads(m, &l->q) | eng_pass_reads(m, &l->k) | eng_pass_reads(m, &l->v));
    eng_pass_norm(m, &in, eng_pass_pending(m, k - 1), l->attn_norm, t0, t1);
    eng_pass_lap(m, i, ENG_OP_NORM);
    eng_pass_barrier(m, i);

    eng_pass_matmul_whole(m, &l->q, m->h, T, m->q, i, n);
    eng_pass_matmul_whole(m, &l->k, m->h, T, m->k, i, n);
    eng_pass_matmul_whole(m, &l->v, m->h, T, m->v, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
    eng_pass_barrier(m, i);

    rope_append(m, k / 2, (int32_t)t0, (int32_t)t1);
    eng_pass_lap(m, i, ENG_OP_ROPE);
    eng_pass_barrier(m, i);

    attend(m, p->b, k / 2, i, n);
    eng_pass_lap(m, i, ENG_OP_ATTENTION);
    eng_pass_barrier(m, i);

    eng_pass_matmul(m, &l->o, m->att, T, &m->shard.attn, eng_pass_parts(m, k), d, (int64_t)T * d, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
}
