/* sampling.h: how a sequence's next token is chosen: one value, with ranges, named as the API's fields.
 * Order of application on the last stage: penalties, DRY, bias, what is barred (stop ids before min_tokens, bad words, all but the allowed ids,
 * the grammar, all but the end of thoughts), temperature, top_k, typical_p, top_p, min_p, XTC, draw. */
#ifndef PROTO_SAMPLING_H
#define PROTO_SAMPLING_H

#include "base/arena.h"
#include "proto/limits.h"

#include <stdbool.h>
#include <stdint.h>

struct logit_bias { int32_t id; float bias; };

struct sampling {
    float temperature;         /* >= 0; 0: greedy */
    float top_p;               /* (0,1] */
    float min_p;               /* [0,1] */
    float typical_p;           /* (0,1]; 1: off */
    int32_t top_k;             /* 0: off */
    float presence_penalty;    /* [-2,2]; counts generated tokens */
    float frequency_penalty;   /* [-2,2]; counts generated tokens */
    float repetition_penalty;  /* > 0; prompt and generated tokens */
    int32_t penalty_last_n;    /* the three count the last n tokens only; -1: all */
    float dry_multiplier;      /* >= 0; 0: off */
    float dry_base;            /* >= 1 */
    int32_t dry_allowed_length;/* >= 0: longest repetition that costs nothing, and one less */
    int32_t dry_last_n;        /* looks at the last n tokens; -1: all; 0: off */
    float xtc_probability;     /* [0,1]; 0: off */
    float xtc_threshold;       /* [0,1]; above 0.5: off */
    uint64_t seed;             /* drawn once by the coordinator when the request has none */
    int32_t choice;            /* index of this choice among n */
    int32_t n_logprobs;        /* -1: none; 0: the chosen token's; k: plus the k best */
    int32_t n_prompt_logprobs; /* -1: none; else of each prompt token but the first, plus the k best */
    int32_t max_tokens;        /* generated tokens after which the sequence stops; >= 1 */
    int32_t min_tokens;        /* stop ids cannot be chosen before */
    bool ignore_eos;
    int32_t n_stop_ids;        /* end-of-generation ids and stop_token_ids; with ignore_eos only the latter */
    int32_t stop_ids[LIMIT_STOP_IDS];
    /* Thoughts end after so many tokens, by the ids of their closing mark. -1: no such budget. */
    int32_t think_budget;
    bool thinking;             /* the prompt has opened them */
    int32_t n_think_open, n_think_close;
    int32_t think_open[LIMIT_THINK_IDS], think_close[LIMIT_THINK_IDS];
    /* Own: whoever holds the value */
    int32_t n_bias, n_allowed, n_bad, n_breakers;
    struct logit_bias *bias;
    int32_t *allowed;          /* [n_allowed] none: every id */
    int32_t *bad;              /* [n_bad] runs of ids, each with its length before it; a run's last id cannot follow the others */
    char *breakers;            /* [n_breakers] bytes: texts that end a repetition for DRY, each with its length in a byte before it */
};

static inline struct sampling sampling_default(void)
{
    return (struct sampling){.temperature = 1, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .penalty_last_n = -1, .dry_base = 1.75f,
                             .dry_allowed_length = 2, .dry_last_n = -1, .xtc_threshold = 0.1f, .n_logprobs = -1, .n_prompt_logprobs = -1,
                             .max_tokens = 16, .think_budget = -1};
}

static inline bool sampling_penalises(const struct sampling *s)
{
    return s->presence_penalty != 0 || s->frequency_penalty != 0 || s->repetition_penalty != 1;
}
static inline bool sampling_dry(const struct sampling *s) { return s->dry_multiplier > 0 && s->dry_last_n; }

/* Does the choice depend on the tokens of the sequence (prompt included)? */
static inline bool sampling_needs_history(const struct sampling *s)
{
    return sampling_penalises(s) || sampling_dry(s) || s->n_bad || s->think_budget >= 0;
}

/* A value of its own: its arrays by malloc, or in an arena. */
struct sampling sampling_copy(const struct sampling *s);
struct sampling sampling_keep(const struct sampling *s, struct arena *a);
void sampling_free(struct sampling *s); /* the arrays of sampling_copy */
int64_t sampling_array_bytes(const struct sampling *s);

#endif
