/* buffers.c: what a pass writes into, sized once for the largest step. */
#include "engine/kernels/cuda/choose.h"
#include "engine/model/heads.h"
#include "engine/model/left.h"
#include "engine/model/lora.h"
#include "engine/model/mla.h"
#include "engine/model/moe.h"
#include "engine/model/pass.h"
#include "engine/model/staging.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

/* n floats of the backend's memory; it frees them when it closes. */
static enum err take(const struct eng_model *m, float **p, int64_t n)
{
    void *mem;
    enum err e = eng_backend_alloc(m->be, ENG_MEMORY_STEP, &mem, MAX(n, 1) * (int64_t)sizeof(float));
    if (!e) *p = mem;
    return e;
}

/* n floats of the host's; frees them. */
static enum err take_copy(struct eng_model *m, float **out, float *host, int64_t n)
{
    enum err rc = take(m, out, n);
    if (!rc) rc = eng_backend_upload(m->be, *out, host, n * (int64_t)sizeof *host);
    free(host);
    return rc;
}

/* The rope tables are made on the host. */
static enum err take_rope(struct eng_model *m, float **out, int32_t context, bool local)
{
    float *host;
    enum err rc = eng_rope_table(&host, &m->spec, m->weights, context, local);
    return rc ? rc : take_copy(m, out, host, (int64_t)context * (m->spec.rope_dim / 2) * 2);
}

static enum err take_temper(struct eng_model *m, int32_t context)
{
    float *host;
    enum err rc = eng_temper_table(&host, &m->spec, context);
    return rc ? rc : take_copy(m, &m->temper, host, (int64_t)(context / m->spec.temper_length + 1) * m->spec.head_dim);
}

/* What only some families need. */
static enum err open_special(struct eng_model *m)
{
    enum err rc = OK;
    const struct eng_spec *s = &m->spec;
    TRY(eng_heads_open(m));
    if (s->experts.n) TRY(eng_moe_open(&m->moe, m));
    if (s->mla.kv_rank) TRY(eng_mla_open(&m->mla, m));
out:
    return rc;
}

/* On a device: rows of logits, and what is chosen of them; best, drawn and top side by side, since they come over together. */
static enum err take_picks(struct eng_model *m)
{
    enum err rc;
    float *picks, *pieces, *how;
    const int64_t pick = (int64_t)(sizeof(struct krn_pick) / sizeof *picks);
    _Static_assert((int)ENG_HEAD_ROWS <= (int)KRN_CHOOSE_ROWS, "rows of one choice");
    TRY(take(m, &m->logits, (int64_t)ENG_HEAD_ROWS * m->weights->head.rows));
    TRY(take(m, &picks, ENG_HEAD_ROWS * (2 + KRN_TOP) * pick));
    TRY(take(m, &pieces, ENG_HEAD_ROWS * KRN_CHOOSE_PIECES * KRN_TOP * pick));
    TRY(take(m, &how, ENG_HEAD_ROWS * (int64_t)(sizeof(struct krn_noise) / sizeof *how)));
    m->picks = (struct eng_picks){.best = (struct krn_pick *)(void *)picks, .how = (struct krn_noise *)(void *)how};
    m->picks.drawn = m->picks.best + ENG_HEAD_ROWS;
    m->picks.top = m->picks.drawn + ENG_HEAD_ROWS;
    m->picks.pieces = (struct krn_pick *)(void *)pieces;
out:
    return rc;
}

struct krn_kv eng_forward_kv(const struct eng_model *m, enum kv_type type)
{
    const struct eng_spec *s = &m->spec;
    bool latent = s->mla.kv_rank > 0;
    return (struct krn_kv){.type = type, .n_kv = m->shard.kv1 - m->shard.kv0, .head_dim = latent ? eng_latent_cached(&s->mla) : s->head_dim,
                           .v_dim = s->mla.kv_rank};
}

/* Of attention by heads; with a latent: mla.c. */
static enum err open_heads(struct eng_model *m)
{
    enum err rc;
    const struct eng_shard *h = &m->shard;
    int64_t T = m->max_tok, hd = m->spec.head_dim, q = (h->q1 - h->q0) * hd, kv = (h->kv1 - h->kv0) * hd;
    TRY(take(m, &m->q, T * q));
    TRY(take(m, &m->k, T * kv));
    TRY(take(m, &m->v, T * kv));
    m->scratch_each = ROUND_UP(krn_attention_scratch(h->q1 - h->q0, h->kv1 - h->kv0, m->spec.head_dim), 16);
    TRY(take(m, &m->scratch, m->scratch_each * eng_team_size(m->team)));
    TRY(take(m, &m->partial, krn_attention_partial(eng_pass_split_items(m), m->max_splits, (h->q1 - h->q0) / MAX(h->kv1 - h->kv0, 1), m->spec.head_dim)));
out:
    return rc;
}

/* A card's attention has room for heads up to a size. */
static enum err check_heads(const struct eng_model *m)
{
    const struct krn_kv kv = eng_forward_kv(m, KV_F16);
    if (m->be->on_host || (kv.head_dim <= KRN_CUDA_KEYS && krn_kv_values(&kv) <= KRN_CUDA_VALUES)) return OK;
    return err_raise(ERR_UNSUPPORTED, "%s: %s attends to keys of up to %d values and values of up to %d, this model has %d and %d: --device cpu", m->spec.name,
                     m->be->name, KRN_CUDA_KEYS, KRN_CUDA_VALUES, kv.head_dim, krn_kv_values(&kv));
}

enum err eng_forward_open(struct eng_model *m, int32_t context, int32_t n_seqs)
{
    enum err rc;
    const struct eng_spec *s = &m->spec;
    const struct eng_shard *h = &m->shard;
    int64_t T = m->max_tok, d = s->d_model, q = (int64_t)(h->q1 - h->q0) * s->head_dim, f = h->ffn1 - h->ffn0;
    int64_t wide = MAX(MAX(d, q), MAX(f, s->mla.q_rank)), nodes = MAX(h->attn.n_nodes, h->ffn.n_nodes);
    atomic_store(&m->layer, -1);
    m->max_splits = DIV_UP(context, KRN_ATTN_SPLIT);
    TRY(check_heads(m));
    TRY(eng_shares_open(&m->shares, eng_team_size(m->team)));
    TRY(take_rope(m, &m->rope, context, false));
    if (s->rope_base_local > 0) TRY(take_rope(m, &m->rope_local, context, true));
    if (s->temper_length) TRY(take_temper(m, context));
    TRY(open_special(m));
    TRY(take(m, &m->x, T * d));
    TRY(take(m, &m->h, T * d));
    TRY(take(m, &m->att, T * q));
    if (!m->mla) TRY(open_heads(m));
    TRY(take(m, &m->gate, T * f));
    TRY(take(m, &m->up, T * f));
    const int64_t behind = m->lora ? m->lora->room : 0;
    TRY(take(m, &m->parts, T * (d + behind) * nodes));
    TRY(take(m, &m->red, T * (d + behind)));
    wide = ROUND_UP(wide, KRN_UNIT);
    TRY(take(m, (float **)&m->act_q, DIV_UP(krn_act_q_bytes((int32_t)T, (int32_t)wide), 4)));
    if (m->krn->interleave) TRY(take(m, &m->act_xt, krn_act_xt_floats((int32_t)T, (int32_t)wide)));
    if (m->rounded) TRY(take(m, (float **)&m->act_xb, krn_act_xb_words((int32_t)T, (int32_t)wide)));
    m->cs = xcalloc((size_t)T, sizeof *m->cs);
    m->cs_local = xcalloc((size_t)T, sizeof *m->cs_local);
    m->row_temper = xcalloc((size_t)T, sizeof *m->row_temper);
    m->own = xcalloc((size_t)T, sizeof *m->own);
    if (!m->be->on_host && h->last) TRY(take_picks(m));
    TRY(eng_staging_open(m, MIN(n_seqs, m->max_tok), context));
out:
    return rc;
}

/* The buffers are the backend's to free. */
void eng_forward_close(struct eng_model *m)
{
    eng_staging_close(m);
    eng_left_close(m);
    free((void *)m->cs);
    free((void *)m->cs_local);
    free((void *)m->row_temper);
    eng_moe_close(m->moe);
    eng_mla_close(m->mla);
    eng_heads_close(m);
    free(m->own);
    free(m->shares);
}
