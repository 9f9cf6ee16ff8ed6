/* scheduler.h: who runs in the next step of one replica (spine 2). A pure core: no clock, no
 * socket, no thread; time is an argument, so tests and the simulator run this very code with
 * virtual time.
 *
 * Continuous batching over paged KV blocks: every step is a token budget filled by running decodes
 * first, then chunks of prefills, by weighted token fairness between tenants (virtual token
 * counters), then priority, then arrival. Preemption is by recomputation and never an error. Up to
 * `depth` steps are in flight: an item may name as its input the output of a step whose result is
 * not known yet; a sequence is in step n only if its previous step's result is known or its
 * previous step <= n - n_stages, so that independent micro-batches keep all stages busy; a chunk of
 * known tokens waits for nobody.
 *
 * Invariants (asserted): a block is free, or referenced, or cached
 * and unreferenced; a block is freed only when the last step that names it has retired; tokens past
 * a stop are never in usage, text or prefix cache; every accepted request ends with exactly one
 * finishing event per choice. */
#ifndef COORDINATOR_SCHED_SCHEDULER_H
#define COORDINATOR_SCHED_SCHEDULER_H

#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "proto/kv_groups.h"
#include "proto/step_plan.h"
#include "proto/step_result.h"

#include <stdbool.h>
#include <stdint.h>

struct sched_conf {
    uint32_t epoch;
    int32_t n_blocks;        /* of LIMIT_BLOCK_TOKENS positions of a group's layers, on every rank */
    struct kv_groups groups; /* of layers; n 0: one, which sees everything */
    int32_t n_slots;         /* sequences in state on the ranks at once */
    int32_t n_stages;        /* pipeline stages */
    int32_t depth;           /* steps in flight, >= n_stages + 1 */
    int32_t max_step_tokens; /* token budget of one step */
    int32_t context;         /* longest sequence, prompt + generated */
    int32_t max_waiting;     /* queued sequences; beyond: QUEUE_FULL */
    bool prefix_cache;
    uint64_t prefix_key[2]; /* random per start */
    int32_t max_logit_rows; /* that one result may carry, as a frame is bounded; 0: any number */
    int32_t max_guesses;    /* tokens guessed ahead for a sequence in a step, <= LIMIT_RESULT_TOKENS - 1; 0: none */
    int32_t max_losses;     /* of its replica, one after the other, without a token or a chunk more: then a request is ended; 0: any number */
    int32_t guess_rows;     /* only while no more positions than these are decoded in a step: more would cost time */
};

/* What a choice has said already, of a request that began elsewhere: under a coordinator, or on a
 * replica, that is gone. It goes on behind it, with the same bits. */
struct gen_known {
    int32_t n;
    const int32_t *ids; /* [n] generated; copied by submit */
    bool over;          /* it has ended: nothing more will come of it */
};

/* One request as the scheduler sees it: ids and numbers only. */
struct gen_request {
    uint64_t id;      /* unique; choices of one request share it */
    uint64_t tenant;  /* fairness between these; 0: anonymous */
    float weight;     /* of the tenant; > 0 */
    int32_t priority; /* lower runs first, as vLLM's */
    int32_t n_prompt;
    const int32_t *prompt; /* copied by submit */
    int32_t n_likely;
    const int32_t *likely; /* [n_likely] what the answer may well say, from its beginning: only for speed; copied by submit */
    int32_t n;             /* choices >= 1 */
    struct grammar_source grammar; /* of every choice; text copied by submit */
    /* Of choice 0; choice i differs in `choice` only. bias array copied by submit. */
    struct sampling sampling;
    bool prompt_logits;  /* return logits of every prompt position (no prefix hits are used) */
    bool sample_logits;  /* return the logits row each token was sampled from */
    uint64_t cache_salt; /* prefixes are shared within a salt, and an adapter, only */
    int32_t adapter;     /* which LoRA adapter it uses, counted from 1; 0: the model alone */
    /* Not NONE: nothing is generated; the prompt's hidden states come as one EVENT_POOLED. A mean
     * needs every one of them, so it uses no prefix hits. n must be 1. */
    enum step_pool pool;
    const struct gen_known *known; /* [n] of its choices; NULL: it begins here */
};

/* What its prefixes are rooted in. */
static inline uint64_t gen_request_salt(const struct gen_request *r)
{
    return r->adapter ? rng_mix(r->cache_salt ^ rng_mix((uint64_t)r->adapter)) : r->cache_salt;
}

/* Choices that will still end with an EVENT_FINISH. */
static inline int32_t gen_request_open(const struct gen_request *r)
{
    int32_t n = r->n;
    for (int32_t i = 0; r->known && i < r->n; i++) n -= r->known[i].over;
    return n;
}

enum token_event_kind { EVENT_TOKEN, EVENT_LOGITS, EVENT_SCORES, EVENT_POOLED, EVENT_FINISH };

/* What happened to one choice of one request; valid during the callback. */
struct token_event {
    enum token_event_kind kind;
    uint64_t request;
    int32_t choice;
    int32_t engine; /* which replica says so; set by it, not by the scheduler */
    /* EVENT_TOKEN; a stop id (EOS) is delivered too, just before FINISH_STOP. */
    const struct result_token *token;
    int32_t n_rows;
    const float *logits;    /* EVENT_LOGITS: rows of n_vocab, in position order */
    /* EVENT_SCORES, with n_prompt_logprobs, choice 0 only: of prompt tokens 1, 2, ... in order */
    int32_t n_scores;
    const struct result_score *scores;
    int32_t n_pooled;       /* EVENT_POOLED: the vector's length */
    const float *pooled;
    /* EVENT_FINISH with err OK; EVENT_TOKEN: the finish that follows at once, or NONE */
    enum seq_finish finish;
    enum err err;           /* EVENT_FINISH: why it ended otherwise; the sentence in text */
    const char *text;
    /* EVENT_FINISH: usage; n_cached: prompt tokens not computed thanks to the prefix cache. */
    int32_t n_prompt, n_generated, n_cached;
    int64_t queued_us, prefill_us, decode_us; /* EVENT_FINISH: queued: submit to first step; prefill: to the first token; decode: first to last token */
    int32_t n_preempted;
    int32_t n_right, n_wrong; /* tokens guessed ahead in its steps */
};
/* Called while a function of the scheduler runs; must not call it back. */
typedef void (*token_event_fn)(void *user, const struct token_event *e);

struct crd_sched;
struct crd_sched *crd_sched_open(const struct sched_conf *conf, token_event_fn on_event,
                                 void *user);
void crd_sched_close(struct crd_sched *s);

/* Err BAD_REQUEST (a value out of its range, an id in use), TOO_LONG (prompt + max_tokens exceeds
 * the context or the whole pool: numbers in the sentence), QUEUE_FULL. On success every choice that
 * is not over will end with one EVENT_FINISH. Rows of prompt logits come with choice 0 only. */
MUST_USE enum err crd_sched_submit(struct crd_sched *s, const struct gen_request *r,
                                   int64_t now_us);
/* Ends all choices of a request (EVENT_FINISH with CANCELLED); unknown ids are ignored. */
void crd_sched_cancel(struct crd_sched *s, uint64_t request, int64_t now_us);

/* Fill *out with the next step, if there is something to do and fewer than depth are in flight.
 * Arrays live in `a`; replica, model and flags are 0 for the caller to set. Every plan returned
 * must be sent, and is answered by one result with one item per item. Returns false when there is
 * nothing to send now. */
bool crd_sched_step(struct crd_sched *s, int64_t now_us, struct arena *a, struct step_plan *out);
/* The result of the oldest step in flight. Err LINK_PROTOCOL if it is not that one or names a slot
 * that the step did not. */
MUST_USE enum err crd_sched_on_result(struct crd_sched *s, const struct step_result *r,
                                      int64_t now_us);

/* The replica is gone: steps in flight will never be answered. Every live sequence goes back to
 * waiting with its known tokens; blocks, slots and the prefix cache are emptied. `conf` describes
 * the new replica (new epoch); sequences that no longer fit end with NO_BLOCKS. */
void crd_sched_restart(struct crd_sched *s, const struct sched_conf *conf, int64_t now_us);
/* A request with its choices and their known tokens, on its way from one scheduler to another. */
struct crd_group;
/* As crd_sched_restart, but others go on with what is open: every request that has not ended is
 * given to take(user, g), and this scheduler is empty after. Own: the receiver, for
 * crd_sched_adopt. No events. */
void crd_sched_hand_over(struct crd_sched *s, int64_t now_us,
                         void (*take)(void *user, struct crd_group *g), void *user);
/* Go on with a request that another scheduler handed over: no limit of the queue applies, it was
 * accepted once. Choices that do not fit here end with NO_BLOCKS. Own: the scheduler. */
void crd_sched_adopt(struct crd_sched *s, struct crd_group *g, int64_t now_us);
uint64_t crd_sched_handed_id(const struct crd_group *g); /* gen_request.id */
const int32_t *crd_sched_handed_prompt(const struct crd_group *g, int32_t *n, uint64_t *salt);
void crd_sched_discard(struct crd_group *g); /* nobody goes on with it; no events; NULL-safe */
/* End everything with this error. */
void crd_sched_fail_all(struct crd_sched *s, enum err err, const char *text, int64_t now_us);

struct sched_stats {
    int32_t n_running, n_waiting, n_in_flight;
    int32_t n_waiting_blocks; /* of those that wait: because the first in line has no room for its blocks */
    int32_t n_blocks, n_blocks_used, n_blocks_cached;
    uint64_t n_steps, n_preemptions, prompt_tokens, generated_tokens;
    uint64_t prefix_queries, prefix_hits; /* tokens */
    uint64_t n_guessed_steps, n_guesses, n_right; /* items with guesses, and what became of them */
    uint64_t prompt_recomputed; /* prompt tokens computed again, after a preemption or a loss */
    int32_t last_step_tokens;
    uint32_t adapters_running, adapters_waiting; /* bit i - 1: adapter i, of sequences in the batch; only of such as are not */
    int32_t n_behind; /* sequences that began, lost their replica or their blocks, and have not caught up */
};
void crd_sched_stats(const struct crd_sched *s, struct sched_stats *out);
/* Nothing waiting, running or in flight. */
bool crd_sched_idle(const struct crd_sched *s);

#endif
