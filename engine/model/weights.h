/* weights.h: this rank's tensors, read with pread by its own slices only and packed once into the kernels' layout.
 *
 * Lifetime: load. Read-only after open. Matrices are [rows][cols] as the mathematics sees them. */
#ifndef ENGINE_MODEL_WEIGHTS_H
#define ENGINE_MODEL_WEIGHTS_H

#include "engine/backend/team.h"
#include "engine/model/shard.h"

struct eng_layer {
    struct krn_mat q, k, v;          /* rows: this rank's heads; cols d_model */
    struct krn_mat o;                /* rows d_model; cols: this rank's query heads */
    struct krn_mat gate, up;         /* rows: this rank's FFN slice; cols d_model */
    struct krn_mat down;             /* rows d_model; cols: this rank's FFN slice */
    float *attn_norm, *ffn_norm;     /* [d_model] */
    float *bq, *bk, *bv;             /* biases of this rank's heads, or NULL */
    float *q_norm, *k_norm;          /* [head_dim], or NULL */
};

struct eng_weights {
    int32_t n_layers;                /* of this stage */
    struct eng_layer *layers;
    struct krn_mat embd;             /* first stage: this rank's vocabulary rows */
    struct krn_mat head;             /* last stage: this rank's vocabulary rows; the same memory as embd when tied on one stage */
    float *out_norm;                 /* last stage */
    float *rope_freqs;               /* [rope_dim/2] divisors, or NULL */
    int64_t bytes;                   /* packed, this rank */
    void **blocks; int32_t n_blocks, cap_blocks; /* private: what close frees */
    uint8_t *next; int64_t room;                 /* private: the rest of the last block */
};

/* Bytes of the file this rank will read (for progress and plans). */
MUST_USE enum err eng_weights_file_bytes(const struct eng_model_file *f, const struct eng_spec *s, const struct eng_shard *h,
                                         int64_t *out);

typedef void (*eng_progress_fn)(void *user, int64_t bytes_done, int64_t bytes_total);

/* Err BAD_FILE (tensor missing or of the wrong shape: name, shape seen and needed), UNSUPPORTED (its type), IO, NO_MEMORY. */
MUST_USE enum err eng_weights_open(struct eng_weights **out, const struct eng_model_file *f, const struct eng_spec *s,
                                   const struct eng_shard *h, struct eng_team *team, eng_progress_fn progress, void *user);
void eng_weights_close(struct eng_weights *w);

#endif
