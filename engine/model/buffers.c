/* buffers.c: what a pass writes into, sized once for the largest step. */
#include "engine/model/pass.h"
#include "engine/model/staging.h"

#include <stdlib.h>

/* n floats of the backend's memory; it frees them when it closes. */
static enum err take(const struct eng_model *m, float **p, int64_t n)
{
    void *mem;
    enum err e = eng_backend_alloc(m->be, ENG_MEMORY_STEP, &mem, MAX(n, 1) * (int64_t)sizeof(float));
    if (!e) *p = mem;
    return e;
}

/* The rope table is made on the host. */
static enum err take_rope(struct eng_model *m, int32_t context)
{
    enum err rc;
    float *host = NULL;
    int64_t n = (int64_t)context * (m->spec.rope_dim / 2) * 2;
    TRY(eng_rope_table(&host, &m->spec, m->weights->rope_freqs, context));
    TRY(take(m, &m->rope, n));
    TRY(eng_backend_upload(m->be, m->rope, host, n * (int64_t)sizeof *host));
out:
    free(host);
    return rc;
}

enum err eng_forward_open(struct eng_model *m, int32_t context, int32_t n_seqs)
{
    enum err rc;
    const struct eng_spec *s = &m->spec;
    const struct eng_shard *h = &m->shard;
    int64_t T = m->max_tok, d = s->d_model, q = (int64_t)(h->q1 - h->q0) * s->head_dim;
    int64_t kv = (int64_t)(h->kv1 - h->kv0) * s->head_dim, f = h->ffn1 - h->ffn0;
    int64_t wide = MAX(MAX(d, q), f), nodes = MAX(h->attn.n_nodes, h->ffn.n_nodes);
    atomic_store(&m->layer, -1);
    TRY(take_rope(m, context));
    TRY(take(m, &m->x, T * d));
    TRY(take(m, &m->h, T * d));
    TRY(take(m, &m->q, T * q));
    TRY(take(m, &m->att, T * q));
    TRY(take(m, &m->k, T * kv));
    TRY(take(m, &m->v, T * kv));
    TRY(take(m, &m->gate, T * f));
    TRY(take(m, &m->up, T * f));
    TRY(take(m, &m->parts, T * d * nodes));
    TRY(take(m, &m->red, T * d));
    wide = ROUND_UP(wide, KRN_UNIT);
    TRY(take(m, (float **)&m->act_q, DIV_UP(krn_act_q_bytes((int32_t)T, (int32_t)wide), 4)));
    if (m->krn->interleave) TRY(take(m, &m->act_xt, krn_act_xt_floats((int32_t)T, (int32_t)wide)));
    m->scratch_each = ROUND_UP(krn_attention_scratch(h->q1 - h->q0, h->kv1 - h->kv0, s->head_dim), 16);
    TRY(take(m, &m->scratch, m->scratch_each * eng_team_size(m->team)));
    TRY(take(m, &m->partial, krn_attention_partial(eng_pass_split_items(m),
                                                DIV_UP(context, KRN_ATTN_SPLIT),
                                                (h->q1 - h->q0) / MAX(h->kv1 - h->kv0, 1), s->head_dim)));
    m->cs = xcalloc((size_t)T, sizeof *m->cs);
    m->own = xcalloc((size_t)T, sizeof *m->own);
    if (!m->be->on_host && h->last) TRY(take(m, &m->logits, (int64_t)ENG_HEAD_ROWS * m->weights->head.rows));
    TRY(eng_staging_open(m, MIN(n_seqs, m->max_tok), context));
out:
    return rc;
}

/* The buffers are the backend's to free. */
void eng_forward_close(struct eng_model *m)
{
    eng_staging_close(m);
    free((void *)m->cs);
    free(m->own);
}
