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

/* What the choice is made of and by, on the host. */
static void take_choice(struct eng_moe *o, struct taker *t, const struct eng_model *m, int64_t slots)
{
    const struct eng_experts *x = &m->spec.experts;
    int64_t max_tok = m->max_tok;
    o->logits = take(t, max_tok * x->n, sizeof(float));
    o->shared = take(t, max_tok, sizeof(float));
    o->ids = take(t, max_tok * x->used, sizeof(int32_t));
    o->weights = take(t, max_tok * x->used, sizeof(float));
    o->first = take(t, eng_moe_routed(m) + 2, sizeof(int32_t));
    o->token = take(t, slots, sizeof(int32_t));
    o->weight = take(t, slots, sizeof(float));
    if (x->weigh_input) o->scale = take(t, slots, sizeof(float));
}

static void take_choice_there(struct eng_moe *o, struct taker *t, const struct eng_model *m)
{
    const struct eng_experts *x = &m->spec.experts;
    int64_t max_tok = m->max_tok;
    o->there.logits = take_there(t, max_tok * x->n, sizeof(float));
    o->there.shared = take_there(t, max_tok, sizeof(float));
    o->there.ids = take_there(t, max_tok * x->used, sizeof(int32_t));
    o->there.weight = take_there(t, max_tok * x->used, sizeof(float));
    if (x->weigh_input) o->there.scale = take_there(t, max_tok * x->used, sizeof(float));
}

static void take_all(struct eng_moe *o, struct taker *t, const struct eng_model *m)
{
    const struct eng_spec *s = &m->spec;
    const struct eng_shard *h = &m->shard;
    const struct eng_experts *x = &s->experts;
    bool here = m->be->on_host;
    o->tokens = MIN(m->max_tok, LEAF_EXPERT_TOKENS);
    int64_t routed = (int64_t)o->tokens * x->used, shared = x->d_shared ? o->tokens : 0, slots = routed + shared;
    int64_t cols = h->expert1 - h->expert0, shared_cols = h->shared1 - h->shared0;
    int32_t wide = ROUND_UP((int32_t)MAX(MAX(s->d_model, cols), shared_cols), KRN_UNIT);
    int64_t lanes = slots + (int64_t)(eng_moe_routed(m) + 2) * LEAF_EXPERT_PAD;
    int64_t rows = here ? routed : MAX(routed, krn_grouping_rows((int32_t)routed, eng_moe_routed(m)));
    if (here) take_choice(o, t, m, slots);
    else take_choice_there(o, t, m);
    o->x = take_there(t, (here ? slots : rows) * s->d_model, sizeof(float));
    o->gate = take_there(t, rows * cols + shared * shared_cols, sizeof(float));
    o->up = take_there(t, rows * cols + shared * shared_cols, sizeof(float));
    o->act_q = take_there(t, lanes * krn_act_q_bytes(1, wide), 1);
    if (m->krn->interleave) o->act_xt = take_there(t, lanes * krn_act_xt_floats(1, wide), sizeof(float));
    struct leaf_experts part = eng_shard_experts(h, s);
    o->scratch_each = here ? leaf_expert_scratch(&part, o->tokens) : leaf_expert_card_scratch(&part, o->tokens);
    o->scratch = take_there(t, o->scratch_each * eng_team_size(m->team), sizeof(float));
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
    free(o->there.layers);
    free(o->there.kinds);
    free(o);
}
