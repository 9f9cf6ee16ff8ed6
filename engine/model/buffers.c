/* buffers.c: what a pass writes into, sized once for the largest step. */
#include "engine/model/pass.h"

#include <stdlib.h>

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
    TRY(take(&m->partial, krn_attention_partial(ENG_PASS_SPLIT_ITEMS * eng_team_size(m->team),
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
