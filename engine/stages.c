/* stages.c: see stages.h. */
#include "engine/stages.h"

#include <stdlib.h>
#include <string.h>

enum { INBOX_EAGER = 64 }; /* unread token messages kept before the oldest is read anyway */

struct eng_token_note { uint64_t step; int32_t n; int32_t *slots; };

void eng_stages_open(struct eng_stages *s)
{
    s->tokens = xcalloc((size_t)s->slots->n_slots, sizeof *s->tokens);
}

void eng_stages_close(struct eng_stages *s)
{
    for (int32_t i = 0; i < s->n_inbox; i++) free(s->inbox[i].slots);
    free(s->inbox);
    free(s->tokens);
}

/* ---- hidden states ---- */

static int32_t first_rank(const struct grid *g, int32_t stage)
{
    int32_t r = 0;
    for (int32_t i = 0; i < stage; i++) r += g->width[i];
    return r;
}

/* They are the same on every rank of a stage: rank j of a stage receives from rank j % width of the one before. */
enum err eng_stages_receive(struct eng_stages *s, float *x, int64_t n)
{
    int32_t prev = s->shard->stage - 1;
    int32_t from = first_rank(s->grid, prev) + s->shard->tp_rank % s->grid->width[prev];
    return trn_coll_recv(s->world, from, x, n * (int64_t)sizeof *x, s->timeout_us);
}

enum err eng_stages_send(struct eng_stages *s, const float *x, int64_t n)
{
    enum err rc = OK;
    const struct eng_shard *h = s->shard;
    int32_t next = first_rank(s->grid, h->stage + 1);
    for (int32_t j = h->tp_rank; j < s->grid->width[h->stage + 1]; j += h->tp_width)
        TRY(trn_coll_send(s->world, next + j, x, n * (int64_t)sizeof *x, s->timeout_us));
out:
    return rc;
}

/* ---- sampled tokens ---- */

enum err eng_stages_send_tokens(struct eng_stages *s, const int32_t tokens[], int32_t n)
{
    enum err rc = OK;
    for (int32_t r = 0; r < s->grid->width[0] && n; r++)
        TRY(trn_coll_send(s->world, r, tokens, n * (int64_t)sizeof *tokens, s->timeout_us));
out:
    return rc;
}

/* The tokens of the oldest unread step. */
static enum err read_oldest(struct eng_stages *s)
{
    enum err rc;
    struct eng_token_note n = s->inbox[0];
    int32_t from = grid_ranks(s->grid) - s->grid->width[s->grid->n_stages - 1];
    TRY(trn_coll_recv(s->world, from, s->tokens, n.n * (int64_t)sizeof *s->tokens, s->timeout_us));
    for (int32_t i = 0; i < n.n; i++) {
        s->slots->slots[n.slots[i]].last_token = s->tokens[i];
        s->slots->slots[n.slots[i]].last_step = n.step;
    }
    free(n.slots);
    memmove(s->inbox, s->inbox + 1, (size_t)--s->n_inbox * sizeof *s->inbox);
out:
    return rc;
}

enum err eng_stages_expect_tokens(struct eng_stages *s, const struct step_plan *p)
{
    enum err rc = OK;
    struct eng_token_note n = {.step = p->step, .slots = xmalloc(((size_t)p->n_items + 1) * sizeof *n.slots)};
    for (int32_t i = 0; i < p->n_items; i++)
        if (p->items[i].out & OUT_SAMPLE) n.slots[n.n++] = p->items[i].slot;
    if (!n.n) {
        free(n.slots);
        return OK;
    }
    if (s->n_inbox == s->cap_inbox) {
        s->cap_inbox = MAX(16, 2 * s->cap_inbox);
        s->inbox = xrealloc(s->inbox, (size_t)s->cap_inbox * sizeof *s->inbox);
    }
    s->inbox[s->n_inbox++] = n;
    while (s->n_inbox > INBOX_EAGER) TRY(read_oldest(s));
out:
    return rc;
}

enum err eng_stages_read_all(struct eng_stages *s)
{
    enum err rc = OK;
    while (s->n_inbox) TRY(read_oldest(s));
out:
    return rc;
}

enum err eng_stages_token(struct eng_stages *s, const struct step_in *in, int32_t *id)
{
    enum err rc = OK;
    const struct eng_slot *slot = &s->slots->slots[in->ref_slot];
    while (s->n_inbox && s->inbox[0].step <= in->ref_step) TRY(read_oldest(s));
    if (slot->last_step != in->ref_step || slot->last_token < 0)
        rc = err_raise(ERR_LINK_PROTOCOL, "slot %d: an input refers to the token of step %llu; the last known is of step %llu",
                       in->ref_slot, (unsigned long long)in->ref_step, (unsigned long long)slot->last_step);
    else *id = slot->last_token;
out:
    return rc;
}
