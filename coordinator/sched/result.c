/* result.c: see result.h. A result is checked whole before anything is taken from it. */
#include "coordinator/sched/result.h"
#include "coordinator/sched/batch.h"
#include "coordinator/sched/preempt.h"
#include "coordinator/sched/life.h"
#include "coordinator/sched/share.h"
#include "coordinator/sched/window.h"

#include <inttypes.h>

/* Is the pooled vector due with this item? */
static bool ends_pooled(const struct crd_step_item *it)
{
    return it->out & OUT_POOL && it->pos + it->n_in == it->seq->group->n_prompt;
}

/* Scores due with this item: not of what follows the prompt. */
static int32_t n_scores(const struct crd_step_item *it)
{
    if (!(it->out & OUT_PROMPT)) return 0;
    return it->pos + it->n_in < it->seq->group->n_prompt ? it->n_in : it->n_in - 1;
}

static enum err check_item(const struct step_result *r, const struct crd_step_item *want,
                           const struct result_item *got)
{
    const bool alive = want->seq->state != SEQ_DRAINING, sample = want->out & OUT_SAMPLE;
    const bool pooled = ends_pooled(want);
    if (got->slot != want->slot)
        return err_raise(ERR_LINK_PROTOCOL,
                         "the result of step %" PRIu64 " names slot %" PRId32
                         " where the plan had slot %" PRId32,
                         r->step, got->slot, want->slot);
    if (!alive) return OK; /* nobody reads it */
    if (got->n_tokens < sample || got->n_tokens > sample + want->n_draft)
        return err_raise(ERR_LINK_PROTOCOL,
                         "the result of step %" PRIu64 " has %" PRId32 " tokens for slot %" PRId32
                         ", which runs: %d needed, and up to %" PRId32 " more",
                         r->step, got->n_tokens, got->slot, sample ? 1 : 0, want->n_draft);
    for (int32_t i = 0; i < got->n_tokens; i++)
        if (got->tokens[i].id < 0)
            return err_raise(ERR_LINK_PROTOCOL, "the result of step %" PRIu64 " has token %" PRId32 " for slot %" PRId32,
                             r->step, got->tokens[i].id, got->slot);
    if ((want->out & OUT_LOGITS) &&
        (got->n_logit_rows != want->n_in || !got->logits || r->n_vocab < 1))
        return err_raise(ERR_LINK_PROTOCOL,
                         "the result of step %" PRIu64 " has %" PRId32 " rows of %" PRId32
                         " logits for slot %" PRId32 ", %" PRId32 " rows needed",
                         r->step, got->n_logit_rows, r->n_vocab, got->slot, want->n_in);
    if (got->n_scores != n_scores(want))
        return err_raise(ERR_LINK_PROTOCOL,
                         "the result of step %" PRIu64 " has %" PRId32
                         " log-probabilities of the prompt for slot %" PRId32 ", %" PRId32
                         " needed",
                         r->step, got->n_scores, got->slot, n_scores(want));
    if ((got->n_pooled > 0) != pooled || (pooled && !got->pooled))
        return err_raise(ERR_LINK_PROTOCOL,
                         "the result of step %" PRIu64 " has %" PRId32
                         " pooled values for slot %" PRId32 ", %s needed",
                         r->step, got->n_pooled, got->slot, pooled ? "a vector is" : "none are");
    return OK;
}

static enum err check_result(const struct crd_sched *s, const struct step_result *r)
{
    enum err rc = OK;
    const struct crd_step_rec *rec = &s->recs[s->first_rec];
    if (!s->n_in_flight || r->epoch != s->conf.epoch || r->step != rec->step)
        TRY(err_raise(ERR_LINK_PROTOCOL,
                      "a result of step %" PRIu64 " in epoch %" PRIu32 "; needed: step %" PRIu64
                      " in epoch %" PRIu32 ", %" PRId32 " steps are in flight",
                      r->step, r->epoch, s->retired + 1, s->conf.epoch, s->n_in_flight));
    if (r->n_items != rec->n)
        TRY(err_raise(ERR_LINK_PROTOCOL,
                      "the result of step %" PRIu64 " has %" PRId32 " items, the plan had %" PRId32,
                      r->step, r->n_items, rec->n));
    for (int32_t i = 0; i < rec->n; i++) TRY(check_item(r, &rec->items[i], &r->items[i]));
out:
    return rc;
}

static void send_rows(struct crd_sched *s, const struct crd_seq *q, int32_t n, const float *logits)
{
    struct token_event e = {.kind = EVENT_LOGITS,
                            .request = q->group->request,
                            .choice = q->choice,
                            .n_rows = n,
                            .logits = logits};
    s->on_event(s->user, &e);
}

/* Of prompt tokens that have not been delivered before. */
static void send_scores(struct crd_sched *s, const struct crd_step_item *it,
                        const struct result_item *got)
{
    struct crd_seq *q = it->seq;
    const int32_t n_prompt = q->group->n_prompt, from = MAX(it->pos, q->rows_sent),
                  to = MIN(it->pos + it->n_in, n_prompt - 1);
    struct token_event e = {.kind = EVENT_SCORES,
                            .request = q->group->request,
                            .choice = q->choice,
                            .n_scores = to - from,
                            .scores = got->scores + (from - it->pos)};
    if (from < to) s->on_event(s->user, &e);
}

/* Prompt rows that have not been delivered before, then the row a token was sampled from unless it
 * was among them. */
static void take_rows(struct crd_sched *s, const struct crd_step_item *it,
                      const struct result_item *got, int32_t n_vocab)
{
    struct crd_seq *q = it->seq;
    const struct crd_group *g = q->group;
    const int32_t end = it->pos + it->n_in;
    int32_t delivered = 0;
    if (g->prompt_logits && !q->choice) {
        int32_t from = MAX(it->pos, q->rows_sent), to = MIN(end, g->n_prompt);
        if (from < to) {
            send_rows(s, q, to - from, got->logits + (int64_t)(from - it->pos) * n_vocab);
            delivered = to;
        }
    }
    if (g->sample_logits && (it->out & OUT_SAMPLE) && delivered < end)
        send_rows(s, q, 1, got->logits + (int64_t)(it->n_in - 1) * n_vocab);
}

static void take_token(struct crd_sched *s, struct crd_seq *q, const struct result_token *token, enum seq_finish finish)
{
    crd_seq_append(q, token->id);
    q->last_us = s->now_us;
    if (q->n_gen == 1) q->first_us = s->now_us;
    s->stats.generated_tokens++;
    if (!q->group->sample_logits) crd_guess_learn(q, s->decodes.n < s->conf.guess_rows ? s->conf.max_guesses : 0);
    struct token_event e = {.kind = EVENT_TOKEN,
                            .request = q->group->request,
                            .choice = q->choice,
                            .token = token,
                            .finish = finish};
    s->on_event(s->user, &e);
}

/* What came of the guesses of an item: its first token was counted when it was sent. */
static void settle_guesses(struct crd_sched *s, struct crd_seq *q, const struct crd_step_item *it, int32_t n_right)
{
    q->n_right += n_right;
    q->n_wrong += it->n_draft - n_right;
    if (it->n_draft) {
        s->stats.n_guessed_steps++;
        s->stats.n_guesses += (uint64_t)it->n_draft;
        s->stats.n_right += (uint64_t)n_right;
    }
    crd_guess_judge(&q->guess, n_right, s->conf.max_guesses);
    if (!n_right) return;
    crd_batch_charge(s, q, q->n_computed + n_right);
    q->n_sampled += n_right;
    q->n_computed += n_right;
    crd_window_slide(s, q);
}

static void take_tokens(struct crd_sched *s, const struct crd_step_item *it, const struct result_item *got)
{
    struct crd_seq *q = it->seq;
    const int32_t n = got->n_tokens;
    settle_guesses(s, q, it, n - 1);
    enum seq_finish why = got->finish;
    for (int32_t i = 0; i < n; i++) {
        bool last = i == n - 1;
        if (last && why == FINISH_NONE && q->n_gen + 1 == q->group->sampling.max_tokens) why = FINISH_LENGTH;
        take_token(s, q, &got->tokens[i], last ? why : FINISH_NONE);
    }
    if (why != FINISH_NONE)
        crd_life_finish(s, q, why, OK, "");
    else
        crd_share_publish(s, q, MIN(crd_seq_known(q), q->n_computed));
}

static void take_pooled(struct crd_sched *s, struct crd_seq *q, const struct result_item *got)
{
    struct token_event e = {.kind = EVENT_POOLED,
                            .request = q->group->request,
                            .choice = q->choice,
                            .n_pooled = got->n_pooled,
                            .pooled = got->pooled};
    s->on_event(s->user, &e);
    crd_life_finish(s, q, FINISH_STOP, OK, "");
}

/* The step is over: whoever was only waiting for it goes. */
static void retire(struct crd_sched *s, const struct crd_step_rec *rec)
{
    s->retired = rec->step;
    s->n_in_flight--;
    s->first_rec = (s->first_rec + 1) % s->conf.depth;
    for (int32_t i = 0; i < rec->n; i++) {
        struct crd_seq *q = rec->items[i].seq;
        if (q->last_step != rec->step) continue;
        if (q->state == SEQ_DRAINING) {
            crd_life_drop_blocks(s, q);
            crd_life_gone(s, q);
        } else if (q->state == SEQ_LAST || q->state == SEQ_PREEMPTING) {
            crd_preempt_settle(s, q);
        }
    }
}

enum err crd_result_take(struct crd_sched *s, const struct step_result *r)
{
    enum err rc;
    TRY(check_result(s, r));
    const struct crd_step_rec *rec = &s->recs[s->first_rec];
    for (int32_t i = 0; i < rec->n; i++) {
        const struct crd_step_item *it = &rec->items[i];
        if (it->seq->state == SEQ_DRAINING) continue;
        if (it->out & OUT_LOGITS) take_rows(s, it, &r->items[i], r->n_vocab);
        if (it->out & OUT_PROMPT) send_scores(s, it, &r->items[i]);
        if (crd_seq_wants_prompt(it->seq))
            it->seq->rows_sent = MAX(it->seq->rows_sent, MIN(it->pos + it->n_in, it->seq->group->n_prompt));
        if (it->out & OUT_SAMPLE) take_tokens(s, it, &r->items[i]);
        if (ends_pooled(it)) take_pooled(s, it->seq, &r->items[i]);
    }
    retire(s, rec);
out:
    return rc;
}
