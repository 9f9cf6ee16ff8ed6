/* moe_open.c: buffers of the experts' sublayer. See moe.h. */
#include "engine/model/moe_impl.h"

#include <stdlib.h>

/* What is taken together, so that an error can say how much it was. */
struct taker {
    struct eng_backend *be;
    bool failed;
    int64_t bytes;
};

static void *take(struct taker *t, int64_t n, int64_t size)
{
    void *p = NULL;
    t->bytes += n * size;
    if (!t->failed && posix_memalign(&p, 64, (size_t)MAX(n, 1) * (size_t)size)) p = NULL, t->failed = true;
    return p;
}

/* Where the kernels work. */
static void *take_there(struct taker *t, int64_t n, int64_t size)
{
    void *p = NULL;
    if (t->be->on_host) return take(t, n, size);
    t->bytes += n * size;
    if (!t->failed && eng_backend_alloc(t->be, ENG_MEMORY_STEP, &p, MAX(n, 1) * size)) t->failed = true;
    return p;
}

static void take_all(struct eng_moe *o, struct taker *t, const struct eng_model *m)
{
    const struct eng_spec *s = &m->spec;
    const struct eng_shard *h = &m->shard;
    const struct eng_experts *x = &s->experts;
    int32_t max_tok = m->max_tok;
    o->tokens = MIN(max_tok, LEAF_EXPERT_TOKENS);
    int64_t routed = (int64_t)o->tokens * x->used, slots = routed + (x->d_shared ? o->tokens : 0);
    int64_t cols = routed * (h->expert1 - h->expert0) + (slots - routed) * (h->shared1 - h->shared0);
    int32_t wide = ROUND_UP(MAX(MAX(s->d_model, h->expert1 - h->expert0), h->shared1 - h->shared0), KRN_UNIT);
    int64_t lanes = slots + (int64_t)(eng_moe_routed(m) + 2) * LEAF_EXPERT_PAD;
    o->logits = take(t, (int64_t)max_tok * x->n, sizeof(float));
    o->shared = take(t, max_tok, sizeof(float));
    o->ids = take(t, (int64_t)max_tok * x->used, sizeof(int32_t));
    o->weights = take(t, (int64_t)max_tok * x->used, sizeof(float));
    o->first = take(t, eng_moe_routed(m) + 2, sizeof(int32_t));
    o->token = take(t, slots, sizeof(int32_t));
    o->weight = take(t, slots, sizeof(float));
    if (x->weigh_input) o->scale = take(t, slots, sizeof(float));
    int64_t rows = m->be->on_host ? 0 : krn_grouping_rows((int32_t)routed, x->n), apart = MAX(rows - routed, 0); /* that are no slot's */
    o->x = take_there(t, MAX(slots, rows) * s->d_model, sizeof(float));
    o->gate = take_there(t, cols + apart * (h->expert1 - h->expert0), sizeof(float));
    o->up = take_there(t, cols + apart * (h->expert1 - h->expert0), sizeof(float));
    o->act_q = take_there(t, lanes * krn_act_q_bytes(1, wide), 1);
    if (m->krn->interleave) o->act_xt = take_there(t, lanes * krn_act_xt_floats(1, wide), sizeof(float));
    struct leaf_experts part = eng_shard_experts(h, s);
    int64_t leaves = MAX(eng_moe_per_row(h) * o->tokens, (h->expert.hi - h->expert.lo) * (rows + o->tokens)); /* of a row of weights */
    o->scratch_each = m->be->on_host ? leaf_expert_scratch(&part, o->tokens) : MAX(eng_moe_room(m), leaves * KRN_TILE);
    o->scratch = take_there(t, o->scratch_each * eng_team_size(m->team), sizeof(float));
    if (m->be->on_host) return;
    o->there.logits = take_there(t, (int64_t)max_tok * x->n, sizeof(float));
    o->there.shared = take_there(t, max_tok, sizeof(float));
    int64_t all = MAX(slots, (int64_t)max_tok * x->used); /* a group's, where the host chooses */
    o->there.token = take_there(t, all, sizeof(int32_t));
    o->there.weight = take_there(t, all, sizeof(float));
    if (x->weigh_input) o->there.scale = take_there(t, all, sizeof(float));
    o->n_layers = m->shard.layer1 - m->shard.layer0;
    o->shift = xcalloc((size_t)o->n_layers, sizeof *o->shift);
}

enum err eng_moe_open(struct eng_moe **out, const struct eng_model *m)
{
    struct taker t = {.be = m->be};
    struct eng_moe *o = xcalloc(1, sizeof *o);
    o->on_host = m->be->on_host;
    take_all(o, &t, m);
    if (t.failed) {
        eng_moe_close(o);
        return err_raise(ERR_NO_MEMORY, "no memory for %.1f MB of experts' buffers: lower --max-batch-tokens", (double)t.bytes / 1e6);
    }
    *out = o;
    return OK;
}

void eng_moe_close(struct eng_moe *o)
{
    if (!o) return;
    void *all[] = {o->logits, o->shared, o->ids, o->weights, o->first, o->token, o->weight, o->scale};
    void *there[] = {o->x, o->gate, o->up, o->act_q, o->act_xt, o->scratch};
    for (size_t i = 0; i < COUNT_OF(all); i++) free(all[i]);
    for (size_t i = 0; i < COUNT_OF(there) && o->on_host; i++) free(there[i]);
    for (int32_t i = 0; i < o->n_layers; i++) free(o->shift[i]);
    free(o->shift);
    free(o);
}
