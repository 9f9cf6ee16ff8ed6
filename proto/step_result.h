/* step_result.h: what a step produced, from the last stage to the coordinator. Same manner as step_plan.h. */
#ifndef PROTO_STEP_RESULT_H
#define PROTO_STEP_RESULT_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "proto/limits.h"

#include <stdint.h>

/* Why a worker stopped a slot. */
enum seq_finish { FINISH_NONE, FINISH_STOP, FINISH_LENGTH };

struct result_logprob { int32_t id; float logprob; };

struct result_token {
    int32_t id;
    float logprob;                       /* meaningful when the slot asked for logprobs */
    int32_t n_top;
    struct result_logprob top[LIMIT_LOGPROBS];  /* best first; ties by id */
};

/* How likely a token of the prompt was. */
struct result_score {
    int32_t id;
    float logprob;
    int32_t rank;                        /* 1: no token was likelier; ties by id */
    int32_t n_top;
    const struct result_logprob *top;    /* [n_top] best first; ties by id */
};

struct result_item {
    int32_t slot;
    int32_t n_tokens;                    /* 0: the slot had already stopped (or no output was asked) */
    struct result_token tokens[LIMIT_RESULT_TOKENS];
    enum seq_finish finish;              /* after the last token of this item */
    int32_t n_logit_rows;                /* OUT_LOGITS: rows of n_vocab f32 */
    const float *logits;                 /* [n_logit_rows][n_vocab] */
    int32_t n_scores;                    /* OUT_PROMPT: of the tokens behind each position, in order */
    const struct result_score *scores;
    int32_t n_pooled;                    /* OUT_POOL, with the prompt's last position: the vector's length, else 0 */
    const float *pooled;                 /* [n_pooled] */
};

struct step_result {
    uint32_t epoch;
    uint64_t step;
    uint32_t compute_us, comm_us;        /* of the lead rank */
    uint64_t comm_bytes;
    int32_t n_vocab;                     /* row length of logits; 0 if none */
    int32_t n_items;                     /* in the plan's order */
    struct result_item *items;
};

void step_result_pack(const struct step_result *r, struct buf *out);
MUST_USE enum err step_result_unpack(struct step_result *r, const void *data, size_t n, struct arena *a);

#endif
