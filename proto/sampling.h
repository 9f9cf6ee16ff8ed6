/* sampling.h: how a sequence's next token is chosen: one value, with ranges, named as the API's fields.
 * Order of application on the last stage: penalties, bias, (grammar mask), temperature, top_k, top_p, min_p, draw. */
#ifndef PROTO_SAMPLING_H
#define PROTO_SAMPLING_H

#include "proto/limits.h"

#include <stdbool.h>
#include <stdint.h>

struct logit_bias { int32_t id; float bias; };

struct sampling {
    float temperature;         /* >= 0; 0: greedy */
    float top_p;               /* (0,1] */
    float min_p;               /* [0,1] */
    int32_t top_k;             /* 0: off */
    float presence_penalty;    /* [-2,2]; counts generated tokens */
    float frequency_penalty;   /* [-2,2]; counts generated tokens */
    float repetition_penalty;  /* > 0; prompt and generated tokens */
    uint64_t seed;             /* drawn once by the coordinator when the request has none */
    int32_t choice;            /* index of this choice among n */
    int32_t n_logprobs;        /* -1: none; 0: the chosen token's; k: plus the k best */
    int32_t max_tokens;        /* generated tokens after which the sequence stops; >= 1 */
    int32_t min_tokens;        /* stop ids cannot be chosen before */
    bool ignore_eos;
    int32_t n_stop_ids;        /* end-of-generation ids and stop_token_ids; with ignore_eos only the latter */
    int32_t stop_ids[LIMIT_STOP_IDS];
    int32_t n_bias;
    struct logit_bias *bias;   /* Own: whoever holds the value */
};

static inline struct sampling sampling_default(void)
{
    return (struct sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .n_logprobs = -1, .max_tokens = 16};
}

/* Do the penalties need the tokens of the sequence (prompt included)? */
static inline bool sampling_needs_history(const struct sampling *s)
{
    return s->presence_penalty != 0 || s->frequency_penalty != 0 || s->repetition_penalty != 1;
}

#endif
