/* shape_model.h: the headers of published models as files: every key and tensor entry of the real
 * thing, no weights. The files are sparse: a 70B model takes a few kilobytes of disk and is as long
 * as the real one. */
#ifndef TESTS_SUPPORT_SHAPE_MODEL_H
#define TESTS_SUPPORT_SHAPE_MODEL_H

#include "base/err.h"
#include "engine/file/dtype.h"

#include <stdbool.h>

struct shape_model {
    const char *name, *arch;
    int32_t n_layer, d_model, n_head, n_kv_head, head_dim, d_ffn, vocab, context;
    bool tied;
    int32_t n_expert, n_used, d_expert; /* 0: dense */
    int32_t latent, q_latent, rope, n_dense, d_shared; /* deepseek2: head_dim is of a value and of a key without rope */
    int32_t window; /* of layers that have one */
    int32_t every;  /* experts are in one layer of so many, the last; 0: in all */
};

/* "Llama-3-8B", "Llama-3-70B", "Qwen2.5-72B", "Qwen2.5-0.5B", "Qwen3-32B", "Mistral-7B",
 * "Llama-2-7B", "Llama-3.2-1B", "Mixtral-8x7B", "Qwen3-235B-A22B", "DeepSeek-V2-Lite", "DeepSeek-V3",
 * "Mistral-7B-v0.1", "Gemma-3-27B", "gpt-oss-20B", "Llama-4-Scout", "Llama-4-Maverick"; NULL: not one of them. */
const struct shape_model *shape_model_named(const char *name);
/* Err IO. Matrices of type `t`, embedding and head of type `ends`. */
MUST_USE enum err shape_model_write(const struct shape_model *m, enum dtype t, enum dtype ends,
                                    const char *path);

#endif
