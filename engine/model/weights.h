/* weights.h: this rank's tensors, packed into the kernels' layout: which they are and where they lie; load.h brings them.
 *
 * Lifetime: load. Read-only after open. Matrices are [rows][cols] as the mathematics sees them. */
#ifndef ENGINE_MODEL_WEIGHTS_H
#define ENGINE_MODEL_WEIGHTS_H

#include "engine/backend/backend.h"
#include "engine/model/huge.h"
#include "engine/model/load.h"
#include "engine/model/shard.h"
#include "proto/model_weights.h"

/* A feed-forward, or one expert's. */
struct eng_ffn {
    struct krn_mat gate, up;         /* rows: this rank's slice; cols d_model. gate: none where there is no gate */
    struct krn_mat down;             /* rows d_model; cols: this rank's slice */
    float *bgate, *bup, *bdown;      /* biases, or NULL; bdown whole on every rank */
};

/* Attention over a latent: q_a and kv_a and their norms are on every rank. A head's k_b takes its query to the latent's space, its v_b takes
 * what was attended to back to the head's values. */
struct eng_mla_weights {
    struct krn_mat q_a;              /* rows q_rank, cols d_model; or none: q reads the residual */
    struct krn_mat kv_a;             /* rows kv_rank + rope, cols d_model */
    float *q_a_norm, *kv_a_norm;     /* [q_rank] or NULL, [kv_rank] */
    struct krn_mat *k_b, *v_b;       /* [this rank's heads]: rows kv_rank, cols key - rope; rows head_dim, cols kv_rank */
};

struct eng_layer {
    struct krn_mat q, k, v;          /* rows: this rank's heads; cols d_model. With a latent q alone, of cols q_rank where there is q_a */
    struct eng_mla_weights mla;
    struct krn_mat o;                /* rows d_model; cols: this rank's query heads */
    float *attn_norm, *ffn_norm;     /* [d_model], or NULL; parallel layers may share attn_norm */
    float *attn_norm_bias, *ffn_norm_bias;
    float *attn_post, *ffn_post;     /* norms of the sublayers' outputs, or NULL */
    float *bq, *bk, *bv, *bo;        /* biases, or NULL; bo whole on every rank */
    float *q_norm, *k_norm;          /* [head_dim], or of each of this rank's heads; or NULL */
    float *sinks;                    /* [this rank's query heads], or NULL */
    struct eng_ffn ffn;              /* of a dense layer */
    struct krn_mat router;           /* rows experts; on every rank */
    float *router_bias;              /* added to its output, or NULL */
    float *router_shift;             /* added when experts are chosen, not to their weights, or NULL */
    struct eng_ffn *experts;         /* [n], or NULL */
    struct eng_ffn shared;           /* the expert of every token */
    struct krn_mat shared_gate;      /* one row */
};

struct eng_weights {
    int32_t n_layers;                /* of this stage */
    struct eng_layer *layers;
    struct krn_mat embd;             /* first stage: this rank's vocabulary rows */
    struct krn_mat head;             /* last stage: this rank's vocabulary rows; the same memory as embd when tied on one stage */
    float *out_norm, *out_norm_bias; /* last stage; the bias may be NULL */
    float *head_bias;                /* last stage: of this rank's rows, or NULL */
    float *rope_freqs;               /* [rope_dim/2] divisors, or NULL */
    float *rope_long, *rope_short;   /* [rope_dim/2] divisors past and within the original context, or NULL */
    int64_t bytes;                   /* packed, this rank */
    struct eng_load_stats loaded;    /* how they came */
    void **blocks; int32_t n_blocks, cap_blocks; /* private: what close frees, on the host */
    struct eng_backend *be;                      /* private: made there; NULL: read into the host's */
    int64_t *used, *sizes;                       /* private: bytes of each block that are taken; all of them */
    struct eng_span *spans; int32_t n_spans;     /* private: what is mapped from files of the cache */
    struct eng_huge *huge;                       /* private: moves them */
    void **places; int32_t n_places, cap_places;/* private: the pointers into blocks, which a move changes */
    uint8_t *next; int64_t room;                 /* private: the rest of the last block */
};

/* Bytes that this rank needs of the file, and what they are once packed (for progress and plans). Err as eng_weights_open. */
MUST_USE enum err eng_weights_count(const struct eng_model_file *f, const struct eng_spec *s, const struct eng_shard *h, int64_t *file_bytes,
                                    int64_t *mem_bytes);

/* What the parts of the whole model weigh. */
MUST_USE enum err eng_weights_parts(const struct eng_model_file *f, const struct eng_spec *s, struct model_weights *out);

/* Err BAD_FILE (tensor missing or of the wrong shape: name, shape seen and needed), UNSUPPORTED (its type), NO_MEMORY, as eng_load. */
MUST_USE enum err eng_weights_open(struct eng_weights **out, const struct eng_spec *s, const struct eng_shard *h, const struct eng_load_conf *load);
/* What is mapped from the cache's files begins to move into huge pages while others read it (huge.h). Once, on the host. Err SYSTEM. */
MUST_USE enum err eng_weights_to_huge(struct eng_weights *w, const struct eng_team *team);
/* Wait until that has ended. */
void eng_weights_settle(struct eng_weights *w);
/* The same in be's memory: pointers change, the host's memory is given back. Err NO_MEMORY, SYSTEM. */
MUST_USE enum err eng_weights_move(struct eng_weights *w, struct eng_backend *be);
void eng_weights_close(struct eng_weights *w);

#endif
