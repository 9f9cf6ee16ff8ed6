/* heads.c: see heads.h. */
#include "engine/model/heads.h"

#include <stdlib.h>

/* ---- who has which ---- */

struct has { int32_t q0, q1, kv0, kv1; };

static struct has heads_of_rank(const struct eng_model *m, int32_t rank)
{
    const struct eng_spec *s = &m->spec;
    const struct leaf_shape shape = {.n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim};
    struct has h = {.q0 = MIN(m->shard.attn_cut.bounds[rank] * leaf_heads(s->head_dim), s->n_heads),
                    .q1 = MIN(m->shard.attn_cut.bounds[rank + 1] * leaf_heads(s->head_dim), s->n_heads)};
    leaf_kv_range(&shape, h.q0, h.q1, &h.kv0, &h.kv1);
    return h;
}

static int32_t count(struct has h) { return h.q1 - h.q0 + h.kv1 - h.kv0; }
static int32_t own_count(const struct eng_model *m) { return m->shard.q1 - m->shard.q0 + m->shard.kv1 - m->shard.kv0; }

/* Heads in order, a KV head once however many ranks have it: at[n_heads], then at[n_kv_heads]. */
static void list(const struct eng_model *m, struct krn_head_at at[])
{
    struct krn_head_at *q = at, *kv = at + m->spec.n_heads;
    int32_t next = 0, before = 0;
    for (int32_t r = 0; r < m->shard.tp_width; r++) {
        struct has h = heads_of_rank(m, r);
        int32_t width = count(h), nq = h.q1 - h.q0;
        for (int32_t i = 0; i < nq; i++) *q++ = (struct krn_head_at){before, width, i};
        for (int32_t i = MAX(next, h.kv0); i < h.kv1; i++) *kv++ = (struct krn_head_at){before, width, nq + i - h.kv0};
        next = MAX(next, h.kv1);
        before += width;
    }
}

/* ---- open ---- */

static void *room(int64_t bytes) { return malloc((size_t)MAX(bytes, 1)); }

enum err eng_heads_open(struct eng_model *m)
{
    enum err rc = OK;
    struct eng_heads *o = &m->heads;
    int32_t n_at = m->spec.n_heads + m->spec.n_kv_heads;
    int64_t n = 0, bytes, at_bytes = n_at * (int64_t)sizeof *o->at;
    void *there;
    if (m->spec.qk_norm != ENG_QK_ALL) return OK;
    for (int32_t r = 0; r < m->shard.tp_width && m->shard.tp_width > 1; r++) n += (int64_t)m->max_tok * count(heads_of_rank(m, r));
    n += (int64_t)m->max_tok * own_count(m);
    bytes = n * (int64_t)sizeof(float);
    o->at = room(at_bytes);
    o->host = m->be->on_host || m->shard.tp_width > 1 ? room(bytes) : NULL;
    if (!o->at || (!o->host && m->be->on_host)) TRY(err_raise(ERR_NO_MEMORY, "no memory for %.1f MB of sums over heads: lower --max-batch-tokens", (double)bytes / 1e6));
    list(m, o->at);
    o->sums = o->host;
    if (m->be->on_host) goto out;
    TRY(eng_backend_alloc(m->be, ENG_MEMORY_STEP, &there, bytes));
    o->sums = there;
    TRY(eng_backend_alloc(m->be, ENG_MEMORY_STEP, &there, at_bytes));
    TRY(eng_backend_upload(m->be, there, o->at, at_bytes));
    o->at_there = there;
out:
    return rc;
}

void eng_heads_close(struct eng_model *m)
{
    free(m->heads.at);
    free(m->heads.host);
}

/* ---- everybody's sums ---- */

/* Behind this rank's own in the same room. */
static float *everyones(const struct eng_model *m, float *sums)
{
    return m->shard.tp_width == 1 ? sums : sums + (int64_t)m->max_tok * own_count(m);
}

static enum err gather(struct eng_model *m, int32_t n_tok)
{
    enum err rc;
    struct eng_heads *o = &m->heads;
    int64_t bytes[COLL_MAX_RANKS], all = 0;
    for (int32_t r = 0; r < m->shard.tp_width; r++) {
        bytes[r] = (int64_t)n_tok * count(heads_of_rank(m, r)) * (int64_t)sizeof(float);
        all += bytes[r];
    }
    if (m->tp_dev) return trn_coll_all_gather(m->tp_dev, o->sums, bytes, everyones(m, o->sums), m->timeout_us);
    if (!m->be->on_host) TRY(eng_backend_download(m->be, o->host, o->sums, bytes[m->shard.tp_rank]));
    TRY(trn_coll_all_gather(m->tp, o->host, bytes, everyones(m, o->host), m->timeout_us));
    if (!m->be->on_host) TRY(eng_backend_upload(m->be, everyones(m, o->sums), everyones(m, o->host), all));
out:
    return rc;
}

/* Of every thread's tokens, which are there. False: the exchange failed. */
static bool exchange(struct eng_pass *p, int32_t i)
{
    if (p->m->shard.tp_width == 1) return true;
    eng_pass_barrier(p->m, i);
    if (i == 0) {
        p->failed = gather(p->m, p->b->n_tok);
        eng_pass_lap(p->m, i, ENG_OP_COLLECTIVE);
    }
    eng_pass_barrier(p->m, i);
    return !p->failed;
}

/* ---- on the host ---- */

static void sum_here(const struct eng_model *m, int64_t t0, int64_t t1)
{
    int32_t hd = m->spec.head_dim, nq = m->shard.q1 - m->shard.q0, nkv = m->shard.kv1 - m->shard.kv0;
    for (int64_t t = t0; t < t1; t++) {
        float *to = m->heads.sums + t * (nq + nkv);
        for (int32_t h = 0; h < nq; h++) to[h] = m->krn->sum_squares(m->q + (t * nq + h) * hd, hd);
        for (int32_t h = 0; h < nkv; h++) to[nq + h] = m->krn->sum_squares(m->k + (t * nkv + h) * hd, hd);
    }
}

static float add_up(const struct eng_model *m, const struct krn_head_at at[], int32_t n, int32_t n_tok, int64_t t)
{
    const float *from = everyones(m, m->heads.sums);
    float sum = 0;
    for (int32_t h = 0; h < n; h++) sum += from[(int64_t)at[h].before * n_tok + t * at[h].width + at[h].at];
    return sum;
}

static void norm_here(const struct eng_model *m, float *x, const float *w, int32_t cols, float sum, int32_t n_heads)
{
    m->krn->scale(x, 1.0f / __builtin_sqrtf(sum / (float)(n_heads * m->spec.head_dim) + m->spec.norm_eps), cols);
    m->krn->mul(x, w, cols);
}

/* ---- on a device ---- */

static void sum_there(const struct eng_model *m, int32_t n_tok)
{
    eng_backend_heads(m->be)->squares(&(struct krn_head_squares){.q = m->q, .k = m->k, .n_tok = n_tok, .nq = m->shard.q1 - m->shard.q0,
                                                                 .nkv = m->shard.kv1 - m->shard.kv0, .head_dim = m->spec.head_dim, .out = m->heads.sums});
}

static void norm_there(const struct eng_model *m, const struct eng_layer *l, int32_t n_tok)
{
    eng_backend_heads(m->be)->norm(&(struct krn_head_norm){
        .q = m->q, .k = m->k, .wq = l->q_norm, .wk = l->k_norm, .n_tok = n_tok, .nq = m->shard.q1 - m->shard.q0, .nkv = m->shard.kv1 - m->shard.kv0,
        .head_dim = m->spec.head_dim, .sums = everyones(m, m->heads.sums), .at = m->heads.at_there, .all_q = m->spec.n_heads, .all_kv = m->spec.n_kv_heads,
        .eps = m->spec.norm_eps});
}

void eng_heads_norm(struct eng_pass *p, const struct eng_layer *l, int64_t t0, int64_t t1, int32_t i)
{
    const struct eng_model *m = p->m;
    const struct eng_spec *s = &m->spec;
    int32_t n_tok = p->b->n_tok, q = (m->shard.q1 - m->shard.q0) * s->head_dim, kv = (m->shard.kv1 - m->shard.kv0) * s->head_dim;
    if (m->be->on_host) sum_here(m, t0, t1);
    else sum_there(m, n_tok);
    if (!exchange(p, i)) return;
    if (!m->be->on_host) norm_there(m, l, n_tok);
    for (int64_t t = t0; t < t1 && m->be->on_host; t++) {
        norm_here(m, m->q + t * q, l->q_norm, q, add_up(m, m->heads.at, s->n_heads, n_tok, t), s->n_heads);
        norm_here(m, m->k + t * kv, l->k_norm, kv, add_up(m, m->heads.at + s->n_heads, s->n_kv_heads, n_tok, t), s->n_kv_heads);
    }
}
