/* spec.h: a model family as data: sizes and switches read from a file's header. No mathematics here.
 *
 * The forward pass (forward.c) is one; a new family is a new row in arch.c and perhaps one new switch. */
#ifndef ENGINE_MODEL_SPEC_H
#define ENGINE_MODEL_SPEC_H

#include "engine/file/model_file.h"
#include "proto/kv_groups.h"
#include "proto/model_info.h"

#include <stdbool.h>
#include <stdint.h>

enum rope_scaling { ROPE_NONE, ROPE_LINEAR, ROPE_YARN, ROPE_LLAMA3, ROPE_DYNAMIC, ROPE_LONG };
enum eng_norm { ENG_NORM_RMS, ENG_NORM_LAYER };
enum eng_act { ENG_SILU, ENG_GELU_TANH, ENG_GELU_ERF, ENG_SWIGLU_CLAMPED };
/* Norms of q and k before rope: one weight for every head, one for each, or one norm over all heads together. Or after rope, where there is
 * one, without a weight. */
enum eng_qk_norm { ENG_QK_NONE, ENG_QK_HEAD, ENG_QK_HEADS, ENG_QK_ALL, ENG_QK_BARE };
/* How a router's values become the weights of the chosen experts: softmax over all, a sigmoid each, softmax over the chosen; a sigmoid of the
 * chosen alone, which are chosen by the values themselves. */
enum eng_gating { ENG_GATING_SOFTMAX = 1, ENG_GATING_SIGMOID, ENG_GATING_SOFTMAX_CHOSEN, ENG_GATING_SIGMOID_CHOSEN };

struct eng_experts {
    int32_t n, used;              /* n 0: none */
    int32_t d_ffn;                /* of one */
    int32_t d_shared;             /* of the expert that every token visits; 0: none */
    enum eng_gating gating;
    bool renorm;                  /* weights of the chosen are divided by their sum */
    bool weigh_input;             /* weights multiply what an expert reads, not what it gives */
    bool shared_gated;            /* the shared expert's output is multiplied with a sigmoid of its own */
    float scale;                  /* multiplies the weights */
    int32_t n_groups, groups_used;/* experts are chosen within the best groups; 1: no groups */
};

/* Attention over a latent that all heads share (MLA): a token's keys and values are products of it, and it is what the cache holds. */
struct eng_latent {
    int32_t kv_rank;              /* of the latent; 0: none, keys and values are kept by heads */
    int32_t q_rank;               /* of what queries are made from; 0: from the residual */
    int32_t key, rope;            /* of a head: values of a query, the last `rope` of which are rotated; a value's are head_dim */
};
/* Values that the cache holds of a token: the latent, and a rotated key for all heads. */
static inline int32_t eng_latent_cached(const struct eng_latent *x) { return x->kv_rank ? x->kv_rank + x->rope : 0; }

struct eng_spec {
    char arch[32], name[128];
    int32_t n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ffn, n_vocab;
    int32_t context;              /* trained positions */
    bool tied;                    /* the output matrix is the embedding */
    /* the block */
    enum eng_norm norm;
    float norm_eps;
    bool norm_plus_one;           /* the file holds w, the norm multiplies with 1 + w */
    bool pre_norm, post_norm;     /* of a sublayer's input, of its output */
    bool parallel;                /* attention and feed-forward read the same residual */
    bool gated;                   /* the feed-forward has a gate */
    enum eng_act act;
    float embd_scale, residual_scale, logit_scale; /* 1: none */
    float logit_cap;              /* 0: none */
    /* attention */
    struct eng_latent mla;           /* then n_kv_heads is 1 and head_dim is what a head gives to the output */
    enum eng_qk_norm qk_norm;
    float attn_scale;             /* of the scores */
    float attn_cap;               /* 0: none */
    bool sinks;
    int32_t window;               /* positions that a layer in `local` sees; 0: no layer is local */
    bool chunked;                 /* not the last `window` ones, but those of its chunk of so many */
    bool local[LIMIT_LAYERS];
    bool no_rope[LIMIT_LAYERS];
    int32_t temper_length;        /* layers without rope: q is multiplied by 1 + temper_scale * log(1 + (pos + 1) / temper_length), in whole */
    float temper_scale;           /* numbers; length 0: it is not */
    /* rope */
    int32_t rope_dim;             /* values of a head that are rotated */
    bool rope_interleaved;        /* pairs (2i, 2i+1); else (i, i + rope_dim/2) */
    double rope_base;
    double rope_base_local;       /* of local layers, unscaled; 0: as the others */
    enum rope_scaling rope_scaling;
    double rope_factor;           /* linear, yarn, llama3, dynamic */
    double rope_orig_context;     /* yarn, llama3, dynamic, long */
    double rope_attn_factor;      /* multiplies cos and sin; 1 unless yarn */
    double rope_attn_said;        /* the whole of what multiplies them, when the file says it; 0: it does not */
    double rope_fast, rope_slow;  /* turns within the original context: yarn's betas (32, 1), llama3's high and low factor */
    bool rope_truncate;           /* yarn's ramp begins and ends at whole frequencies */
    bool rope_freqs;              /* the file has per-frequency divisors (llama3 scaling) */
    /* experts */
    struct eng_experts experts;
    bool moe[LIMIT_LAYERS];       /* this layer's feed-forward is experts */
    /* how fused tensors lie in the file */
    bool qkv_grouped;             /* attn_qkv holds q, k, v of one group of heads after the other */
    bool gate_up_mixed;           /* gate and up rows alternate in one tensor */
};

/* Read and check the header: every size positive and consistent with the tensors' shapes.
 * Err UNSUPPORTED (architecture named, known ones listed), BAD_FILE (key or tensor named). */
MUST_USE enum err eng_spec_read(struct eng_spec *out, const struct eng_model_file *f);

/* The feed-forward width that decides where the model may be cut: the narrowest, so that no leaf of a wider one is empty. */
int32_t eng_spec_cut_ffn(const struct eng_spec *s);

/* The same as the scheduler and planner see it. */
void eng_spec_info(const struct eng_spec *s, const struct eng_model_file *f, struct model_info *out);

/* How its layers share the KV pool of a rank whose sequences are no longer than `context`. */
struct kv_groups eng_spec_groups(const struct eng_spec *s, int32_t context);

#endif
