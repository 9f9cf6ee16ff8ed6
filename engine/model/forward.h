/* forward.h: spine 4: one forward pass of this rank's shard: embed -> layers -> head.
 *
 * Reads like the mathematics; everything that differs between families is in eng_spec, everything that differs between machines in
 * the kernel table, everything that differs between cuts in eng_shard and the reduction tree. */
#ifndef ENGINE_MODEL_FORWARD_H
#define ENGINE_MODEL_FORWARD_H

#include "engine/backend/backend.h"
#include "engine/backend/team.h"
#include "engine/kv/kv_pool.h"
#include "engine/kernels/rounded.h"
#include "engine/model/rope.h"
#include "engine/model/times.h"
#include "engine/model/weights.h"
#include "proto/kv_groups.h"
#include "transport/coll.h"

#include <stdatomic.h>

/* The tokens of one step, flat: n_tok rows, each its own position and its own sequence's block table. The arrays have room for max_tok; what
 * lies behind n_tok is the pass's. */
struct eng_batch {
    int32_t n_tok;
    int32_t *ids;                 /* first stage; below 0: token -1 - id of the last eng_left_choose */
    int32_t *pos;
    const int32_t **table[LIMIT_GROUPS]; /* block ids of the row's sequence, by group */
    int32_t *adapter;             /* number of the LoRA adapter that the row uses, 0: none */
};

enum { ENG_HEAD_ROWS = 32 }; /* logits rows computed at once */

/* On a device the layers of a small step are one graph (engine/model/graphs.h). */
struct eng_graphs {
    int32_t n_made, one_row; /* one_row: launches in those of one token, at most */
    int32_t split_rows; /* attention of so many rows or more is not split, on no rank of the stage */
    struct coll_stats sums; /* between cards in each: operations; bytes for a row */
    bool off; /* they cannot be had here */
    int64_t n_replayed;
};

/* The batch of the running pass as the kernels read it: in the backend's memory. */
struct eng_inputs {
    const int32_t *pos;
    const int32_t *const *table[LIMIT_GROUPS];
    const float *const *cs, *const *cs_local, *const *temper;
};

/* Shown the input of each product: x [n_tok][w->cols], in the host's memory. Thr: the first of the team. */
typedef void (*eng_watch_fn)(void *user, const struct krn_mat *w, const float *x, int32_t n_tok);

/* One rank's model: everything a step needs. Lifetime: load; buffers are sized for max_tok. */
struct eng_model {
    struct eng_spec spec;
    struct eng_shard shard;
    struct eng_weights *weights;
    struct kv_groups groups;      /* of the KV pool's layers */
    struct { int32_t group, plane; } kv_at[LIMIT_LAYERS]; /* of this stage's layer i */
    struct eng_kv_pool *kv;
    struct eng_backend *be;       /* where it computes: weights, cache and step buffers are in its memory */
    const struct krn_table *krn;  /* be's */
    const struct krn_fused *fused; /* on a device: several of those in one call; NULL: one by one */
    struct eng_team *team;
    struct trn_coll *tp;          /* this stage's ranks */
    struct trn_coll *tp_dev;      /* the same over their devices' memory; NULL: sums go by the host */
    struct trn_coll *beside;      /* messages to other stages are on their way over it while layers are computed; or NULL */
    int64_t timeout_us;
    bool oracle;                  /* activations stay f32 */
    const struct krn_rounded *rounded; /* products of many tokens with BF16 and F16 weights; NULL: the table's */
    int32_t max_tok;
    float *rope, *rope_local;     /* [context][rope_dim/2][2]; of local layers, or NULL: the same */
    float *temper;                /* [context / temper_length + 1][head_dim/2][2], as rope tables are; or NULL */
    /* step buffers, [max_tok] rows unless said otherwise */
    float *x;                     /* residual, d_model */
    float *h;                     /* normed input of a matmul */
    float *q, *k, *v, *att;       /* this rank's heads */
    float *gate, *up;             /* this rank's FFN slice */
    float *parts;                 /* [n_nodes][n_tok][d_model] subtrees before the all-reduce */
    float *red;                   /* after it; with one rank these two alternate */
    uint8_t *act_q; float *act_xt; uint32_t *act_xb; /* panels of a matmul's input (engine/kernels/panel.h) */
    const float **cs, **cs_local, **row_temper; /* rope row of each token; row of temper, or the same as cs */
    int32_t *own;                 /* ids of this rank's rows of the embedding */
    struct eng_inputs in;
    struct eng_graphs graphs;
    struct eng_staging *staging;  /* between that memory and the host's (engine/model/staging.h) */
    struct eng_share *shares;     /* [threads] of the products under way (products.c) */
    float *logits;                /* [ENG_HEAD_ROWS][rows of the head]; NULL on the host */
    struct eng_picks {            /* on a device, [ENG_HEAD_ROWS] each: what is chosen there */
        struct krn_pick *best, *drawn, *top; /* top: [KRN_TOP] of each row */
        struct krn_pick *pieces;             /* scratch of top */
        struct krn_noise *how;
    } picks;
    struct eng_left {             /* tokens that stay on the device for the next step (engine/model/left.h); NULLs: they do not */
        int32_t *there;           /* [n_seqs] */
        int32_t *host[2], *mapped[2]; /* [n_seqs] the same for the host: a side for each of two steps on their way; as the device finds them */
        struct eng_picks mine;    /* of several ranks: what this one finds in its slice */
        struct krn_pick *all;     /* and what all find, rank after rank */
    } left;
    float *scratch; int64_t scratch_each; /* attention, per thread */
    float *partial;               /* attention whose items are split over threads */
    int32_t max_splits;           /* of one item */
    struct eng_heads {            /* of norms over all heads (engine/model/heads.h): each head's sum of squares, this rank's and then everyone's; or NULL */
        float *sums, *host;       /* where it computes, and on the host's way to other ranks: the same on the host */
        struct krn_head_at *at;   /* where each is, in the order of adding */
        const struct krn_head_at *at_there; /* on a device */
    } heads;
    struct eng_mla *mla;          /* NULL: keys and values are kept by heads (engine/model/mla.h) */
    struct eng_moe *moe;          /* NULL: no experts (engine/model/moe.h) */
    struct eng_lora *lora;        /* NULL: no adapters (engine/model/lora.h). Own: the engine */
    struct eng_times *times;      /* NULL: not measured */
    _Atomic int32_t layer;        /* being computed, for heartbeats; -1: none */
    eng_watch_fn watch; void *watch_user; /* or NULL */
};

/* One layer of this rank's cache, without its planes. */
struct krn_kv eng_forward_kv(const struct eng_model *m, enum kv_type type);

/* Buffers and rope table; spec, shard, weights (still the host's), groups, kv, be, krn, team, tp, max_tok are set by the caller; steps have rows of
 * up to n_seqs sequences. Err UNSUPPORTED: the model needs what be has not. */
MUST_USE enum err eng_forward_open(struct eng_model *m, int32_t context, int32_t n_seqs);
void eng_forward_close(struct eng_model *m);
/* Everything is where it will be used: what can be made ready for steps is, so that they allocate nothing. Err: the device's. */
MUST_USE enum err eng_forward_warm(struct eng_model *m);

/* x = embedding of b->ids (first stage; collective over the stage's ranks: the table is cut by rows). */
MUST_USE enum err eng_forward_embed(struct eng_model *m, const struct eng_batch *b);
/* x through this stage's layers; KV of every row is appended. */
MUST_USE enum err eng_forward_run(struct eng_model *m, const struct eng_batch *b);
/* out[n][rows of this rank's head] = logits of rows[n] of x (last stage). n <= ENG_HEAD_ROWS. On a device they stay there: out is written by
 * eng_forward_logits. */
MUST_USE enum err eng_forward_head(struct eng_model *m, const int32_t rows[], int32_t n, float *out);
/* The logits of the last eng_forward_head, to the same n and out, for the host to read. */
MUST_USE enum err eng_forward_logits(struct eng_model *m, int32_t n, float *out);
/* On a device, of the same rows, ids being the vocabulary's: best[n]: each one's largest logit; and drawn[i], where how[i].t > 0, by the noise of how[i]
 * and the row's largest of `over` (NULL: best); where how[i].top > 0 as many in top[i] instead. */
MUST_USE enum err eng_forward_best(struct eng_model *m, int32_t n, struct krn_pick best[]);
MUST_USE enum err eng_forward_draw(struct eng_model *m, int32_t n, const struct krn_noise how[], const struct krn_pick over[], struct krn_pick best[],
                                   struct krn_pick drawn[], struct krn_pick top[][KRN_TOP]);
/* *out: the normed hidden states of rows [row0, row0 + n) of x (last stage): [n][d_model], for the host to read until the next call of
 * anything here. */
MUST_USE enum err eng_forward_hidden(struct eng_model *m, int32_t row0, int32_t n, const float **out);

#endif
