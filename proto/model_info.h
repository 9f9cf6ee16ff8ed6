/* model_info.h: all that the scheduler and the planner may know of a model. Plain numbers from its header. */
#ifndef PROTO_MODEL_INFO_H
#define PROTO_MODEL_INFO_H

#include "proto/limits.h"
#include "proto/pooling.h"

#include <stdbool.h>
#include <stdint.h>

struct model_info {
    char name[128];            /* what the API calls it */
    char arch[32];
    int32_t n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ffn, n_vocab;
    int32_t d_dense;           /* the widest dense feed-forward; d_ffn is the narrowest of all, where the model is cut. 0: as d_ffn */
    int32_t n_experts, n_used, d_expert, d_shared; /* of a layer with experts; n_experts 0: none */
    int32_t context;           /* trained context */
    enum step_pool pooling;    /* what embeddings are made of; NONE: in a way that we do not have */
    int64_t n_params, weight_bytes;
    int32_t window;            /* positions that layers in `windowed` see; 0: there are none */
    bool windowed[LIMIT_LAYERS];
};

#endif
