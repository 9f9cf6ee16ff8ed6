/* weights.h: this rank's tensors, packed into the kernels' layout: which they are and where they lie; load.h brings them.
 *
 * Lifetime: load. Read-only after open. Matrices are [rows][cols] as the mathematics sees them. */
#ifndef ENGINE_MODEL_WEIGHTS_H
#define ENGINE_MODEL_WEIGHTS_H

#include "engine/backend/backend.h"
#include "engine/model/load.h"
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
    struct eng_load_stats loaded;    /* how they came */
    void **blocks; int32_t n_blocks, cap_blocks; /* private: what close frees, on the host */
    int64_t *used;                               /* private: bytes of each block */
    void **places; int32_t n_places, cap_places;/* private: the pointers into blocks, which a move changes */
    uint8_t *next; int64_t room;                 /* private: the rest of the last block */
};

/* Bytes that this rank needs of the file, and what they are once packed (for progress and plans). Err as eng_weights_open. */
MUST_USE enum err eng_weights_count(const struct eng_model_file *f, const struct eng_spec *s, const struct eng_shard *h, int64_t *file_bytes,
                                    int64_t *mem_bytes);

/* Err BAD_FILE (tensor missing or of the wrong shape: name, shape seen and needed), UNSUPPORTED (its type), NO_MEMORY, as eng_load. */
MUST_USE enum err eng_weights_open(struct eng_weights **out, const struct eng_spec *s, const struct eng_shard *h, const struct eng_load_conf *load);
/* The same in be's memory: pointers change, the host's memory is given back. Err NO_MEMORY, SYSTEM. */
MUST_USE enum err eng_weights_move(struct eng_weights *w, struct eng_backend *be);
void eng_weights_close(struct eng_weights *w);

#endif
