/* model_info.h: all that the scheduler and the planner may know of a model. Plain numbers from its header. */
#ifndef PROTO_MODEL_INFO_H
#define PROTO_MODEL_INFO_H

#include "proto/limits.h"
#include "proto/pooling.h"

#include <stdbool.h>
#include <stdint.h>

enum kv_kind { KV_FULL, KV_LATENT };

/* What a layer caches of a position. Of a latent a KV head's keys are its values too. */
struct kv_layer {
    enum kv_kind kind;
    int32_t n_kv_heads, head_dim;
};

struct model_info {
    char name[128];            /* as its file calls it, made plain (base/plain.h): for people */
    char arch[32];
    int32_t n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ffn, n_vocab;
    int32_t d_dense;           /* the widest dense feed-forward; d_ffn is the narrowest of all, where the model is cut. 0: as d_ffn */
    struct model_latent {      /* attention over a latent that all heads share; rank 0: there is none. head_dim is then of a value */
        int32_t rank, q_rank;  /* of the latent; of what queries are made from, 0: from the residual */
        int32_t key, rope;     /* values of a query's head, the rotated ones among them */
    } latent;
    int32_t n_experts, n_used, d_expert, d_shared; /* of a layer with experts; n_experts 0: none */
    int32_t context;           /* trained context */
    enum step_pool pooling;    /* what embeddings are made of; NONE: in a way that we do not have */
    int64_t n_params, weight_bytes;
    char type[16];             /* of most of its matrices, by bytes: "Q4_K" */
    struct kv_layer kv;
    int32_t window;            /* positions that layers in `windowed` see; 0: there are none */
    bool windowed[LIMIT_LAYERS];
};

#endif
