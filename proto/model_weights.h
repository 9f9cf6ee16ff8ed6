/* model_weights.h: what a model's matrices weigh, by the parts that a cut deals out. For the
 * planner; numbers from the file's header.
 *
 * A rank holds heads/n_heads of `q`, its KV heads' part of `kv`, its columns' or experts' part of `ffn`, and
 * `rest` whole, of every layer of its stage. */
#ifndef PROTO_MODEL_WEIGHTS_H
#define PROTO_MODEL_WEIGHTS_H

#include "proto/limits.h"

#include <stdbool.h>
#include <stdint.h>

struct model_part {
    int64_t mem, file;
}; /* bytes: packed in memory; in the file */

struct model_layer {
    struct model_part q;    /* query rows and output columns */
    struct model_part kv;   /* key and value rows */
    struct model_part ffn;  /* gate, up, down */
    struct model_part rest; /* norms */
    bool experts;           /* ffn is those of experts, and of the shared one */
};

struct model_weights {
    int32_t n_layers;
    struct model_layer layers[LIMIT_LAYERS];
    struct model_part embd; /* first stage, by vocabulary tiles */
    struct model_part head; /* last stage, by vocabulary tiles; when tied it is the embedding's
                               bytes again, and the same memory on one stage */
    struct model_part ends; /* last stage, on every rank */
    bool tied;
    int32_t rope_dim;
};

#endif
