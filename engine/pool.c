/* pool.c: see pool.h. */
#include "engine/pool.h"

#include <string.h>

static enum err check(const struct eng_slot *s, const struct step_item *it)
{
    if (!s->pool)
        return err_raise(ERR_LINK_PROTOCOL, "slot %d: an item wants its hidden states pooled, but its sequence was not started so", it->slot);
    if (s->pool == POOL_MEAN && it->pos != s->n_pooled)
        return err_raise(ERR_LINK_PROTOCOL, "slot %d: positions from %d on are to be pooled, the next is %d", it->slot, it->pos, s->n_pooled);
    if (it->pos + it->n_in > s->n_prompt)
        return err_raise(ERR_LINK_PROTOCOL, "slot %d: positions up to %d are to be pooled, the prompt has %d", it->slot, it->pos + it->n_in,
                         s->n_prompt);
    return OK;
}

static enum err mean(struct eng_model *m, struct eng_slot *s, const struct step_item *it, int32_t row, float *out)
{
    int32_t d = m->spec.d_model;
    const float *h;
    enum err e = eng_forward_hidden(m, row, it->n_in, &h);
    if (e) return e;
    for (int32_t k = 0; k < it->n_in; k++) m->be->host->add(s->pool_sum, h + (int64_t)k * d, d);
    s->n_pooled += it->n_in;
    for (int32_t i = 0; out && i < d; i++) out[i] = s->pool_sum[i] / (float)s->n_prompt;
    return OK;
}

enum err eng_pool_take(struct eng_model *m, struct eng_slot *s, const struct step_item *it, int32_t row, struct arena *a,
                       struct result_item *r)
{
    enum err rc;
    const float *h;
    TRY(check(s, it));
    size_t bytes = (size_t)m->spec.d_model * sizeof(float);
    float *out = it->pos + it->n_in == s->n_prompt ? arena_alloc(a, bytes) : NULL;
    if (s->pool == POOL_MEAN) TRY(mean(m, s, it, row, out));
    else if (out) {
        TRY(eng_forward_hidden(m, row + it->n_in - 1, 1, &h));
        memcpy(out, h, bytes);
    }
    r->pooled = out;
    r->n_pooled = out ? m->spec.d_model : 0;
out:
    return rc;
}
