/* spec.h: a model family as data: sizes and switches read from a file's header. No mathematics here.
 *
 * The forward pass (forward.c) is one; a new family is a new row in arch.c and perhaps one new switch. */
#ifndef ENGINE_MODEL_SPEC_H
#define ENGINE_MODEL_SPEC_H

#include "engine/file/model_file.h"
#include "proto/model_info.h"

#include <stdbool.h>
#include <stdint.h>

enum rope_scaling { ROPE_NONE, ROPE_LINEAR, ROPE_YARN, ROPE_LLAMA3 };

struct eng_spec {
    char arch[32], name[128];
    int32_t n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ffn, n_vocab;
    int32_t context;              /* trained positions */
    float norm_eps;
    bool qkv_bias;                /* biases on q, k, v */
    bool qk_norm;                 /* RMS norm of each q and k head before rope */
    bool tied;                    /* the output matrix is the embedding */
    int32_t rope_dim;             /* values of a head that are rotated */
    bool rope_interleaved;        /* pairs (2i, 2i+1); else (i, i + rope_dim/2) */
    double rope_base;
    enum rope_scaling rope_scaling;
    double rope_factor;           /* linear, yarn, llama3 */
    double rope_orig_context;     /* yarn, llama3 */
    double rope_attn_factor;      /* multiplies cos and sin; 1 unless yarn */
    double rope_attn_said;        /* the whole of what multiplies them, when the file says it; 0: it does not */
    double rope_fast, rope_slow;  /* turns within the original context: yarn's betas (32, 1), llama3's high and low factor */
    bool rope_freqs;              /* the file has per-frequency divisors (llama3 scaling) */
};

/* Read and check the header: every size positive and consistent with the tensors' shapes.
 * Err UNSUPPORTED (architecture named, known ones listed), BAD_FILE (key or tensor named). */
MUST_USE enum err eng_spec_read(struct eng_spec *out, const struct eng_model_file *f);

/* The same as the scheduler and planner see it. */
void eng_spec_info(const struct eng_spec *s, const struct eng_model_file *f, struct model_info *out);

/* Known architecture names, comma separated. */
const char *eng_spec_known(void);

#endif
