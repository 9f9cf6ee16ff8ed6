/* moe.h: feed-forward by experts: a router chooses a few for each token, a shared one may serve all.
 *
 * Exactness (docs/exactness.md): every rank has the router and chooses alike. Experts are cut inside, all by the same leaves, or each lies on
 * one rank whole (shard.whole_experts) and is in one leaf, by its number. A leaf of the sublayer is the chain, over the chosen experts in it in
 * id order and then the shared one, of fma(weight, that expert's leaf, .); where weights multiply inputs (weigh_input) that weight is 1, and an
 * expert reads weight * input, rounded.
 *
 * Speed: tokens are grouped by expert, so that a step reads each expert's weights once, for all tokens that chose it. */
#ifndef ENGINE_MODEL_MOE_H
#define ENGINE_MODEL_MOE_H

#include "engine/model/forward.h"

/* Buffers of the sublayer; lifetime: load. A slot is a (token, expert) pair. Off the host the choice is made where the router's values are, and
 * nothing of it comes over (moe_there.c): the lists are `there`, and what says so below is in the backend's memory. On the host slots lie expert
 * after expert. */
struct eng_moe {
    int32_t tokens;               /* grouped at once */
    bool on_host;
    struct eng_moe_there {        /* off the host */
        float *logits, *shared;   /* [max_tok][n], [max_tok] of the router and the shared expert's gate; then what they became */
        int32_t *ids;             /* [max_tok][used] ascending: a token's slots */
        float *weight, *scale;    /* [max_tok][used] of each slot: its weight in the chain; what its input is multiplied by, or NULL: 1 */
        const void *const *tables;/* addresses of experts, which layers' `at` count from (moe_impl.h) */
        struct moe_layer *layers; /* [n_layers]; the host's, as kinds are */
        struct moe_kind *kinds;
        int32_t n_layers, n_kinds;
        int32_t *leaf;            /* [n] of a whole expert: its leaf, counted from this rank's first; NULL: experts are cut inside */
        int32_t rows;             /* up to so many tokens products go slot by slot */
        int32_t *token_of;        /* [a group's slots] of each slot */
        int32_t *at, *row_token, *row_expert; /* slots by expert (krn_grouping) */
        float *row_scale;
        struct krn_part *parts;
    } there;
    /* on the host */
    float *logits;                /* [max_tok][n] of the router; then what they became */
    float *shared;                /* [max_tok] weight of the shared expert */
    int32_t *ids;                 /* [max_tok][used] ascending */
    float *weights;               /* [max_tok][used] */
    /* of the tokens grouped now */
    int32_t *first;               /* [experts here + 2] first slot of each; the shared one comes last */
    int32_t *token;               /* [slots] counted from the first of the group */
    float *weight;                /* [slots] of what the expert gives */
    float *scale;                 /* [slots] of what it reads; NULL: 1 */
    /* in the backend's memory */
    float *x;                     /* [slots][d_model]: each slot's copy of its token's input */
    float *gate, *up;             /* [slots][columns of its expert] */
    uint8_t *act_q; float *act_xt;/* panels of every expert, one after the other */
    float *scratch; int64_t scratch_each; /* per thread: leaves of some rows of all tokens */
};

MUST_USE enum err eng_moe_open(struct eng_moe **out, const struct eng_model *m);
void eng_moe_close(struct eng_moe *o); /* what is the backend's goes with it */
/* sum of token t += the weighted biases of its experts' outputs. */
void eng_moe_bias(const struct eng_model *m, const struct eng_layer *l, float *sum, int64_t t);

/* On a device all of it is there. open: once weights are where they will be used. run: the router's values are there; the sums go to parts. bias: as
 * eng_moe_bias, of all tokens. */
MUST_USE enum err eng_moe_there_open(struct eng_model *m);
void eng_moe_there_run(const struct eng_model *m, const struct eng_layer *l, int32_t n_tok, float *parts);
void eng_moe_there_bias(const struct eng_model *m, const struct eng_layer *l, float *sum, int32_t n_tok);

#endif
