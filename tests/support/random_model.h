/* random_model.h: models with random weights, true in everything but sense: keys, names, shapes and
 * a vocabulary in which text works. The same spec gives the same bytes.
 *
 * Matrices are bell-shaped with standard deviation 1/sqrt(K), norms lie around 1, biases around 0;
 * norms, biases and rope factors are F32. Streams to disk, so a model of any size can be made in
 * little memory. */
#ifndef TESTS_SUPPORT_RANDOM_MODEL_H
#define TESTS_SUPPORT_RANDOM_MODEL_H

#include "base/err.h"
#include "engine/file/dtype.h"

#include <stdbool.h>

enum random_rope { RANDOM_ROPE_PLAIN, RANDOM_ROPE_LINEAR, RANDOM_ROPE_LLAMA3, RANDOM_ROPE_YARN };

/* BPE: ids 0..255 are the bytes, 256 <|endoftext|>, 257 <|im_start|>, 258 <|im_end|>, then merged
 * letters.
 * SPM: ids 0..2 are <unk> <s> </s>, 3..258 the bytes, then U+2581, a..z and longer strings of
 * letters. */
enum random_vocab { RANDOM_VOCAB_BPE, RANDOM_VOCAB_SPM };

/* A zero in a number marked (0: x) means x. */
struct random_model {
    const char *arch;  /* a family of GGUF's; what it has besides Llama's tensors: random_model.c */
    int32_t n_layer, d_model, n_head, n_kv_head;
    int32_t head_dim;  /* (0: d_model / n_head) */
    int32_t d_ffn;
    int32_t n_expert, n_used, d_expert, d_shared; /* n_expert 0: a dense model; d_shared 0: no shared expert */
    int32_t n_dense;   /* layers without experts, the first ones */
    int32_t moe_step;  /* of the others one in so many has experts (0: each) */
    enum dtype other_type; /* each expert's matrices are tensors of their own, as in older files and checkpoints, and some of this type (F32, 0: none) */
    int32_t latent, q_latent, rope_part; /* attention over a latent: its size, that of what queries are made from (0: the residual), and a key's
                          rotated values behind its head_dim others; latent 0: none */
    bool latent_whole; /* keys and values of heads in one matrix, as older files have them */
    int32_t n_group, n_group_used; /* of experts (0: no groups) */
    bool sigmoid;      /* experts by sigmoids and a shift */
    int32_t window;    /* of layers that have one, or their chunk (0: no key) */
    int32_t rope_dim;  /* (0: head_dim) */
    int32_t vocab;     /* >= 259 */
    int32_t context;   /* (0: 2048) */
    bool tied;         /* no output.weight */
    double rope_theta; /* (0: 10000) */
    enum random_rope rope;
    double rope_factor; /* (0: 8) */
    int32_t rope_original_context; /* (0: 512) */
    enum dtype type;       /* of the layers' matrices */
    enum dtype embd_type;  /* of token_embd and output */
    bool as_f32;           /* matrices hold the values that `type` and `embd_type` stand for, as F32 */
    enum random_vocab vocab_kind;
    uint64_t seed;
};

/* Write the model to path. Err BAD_CONFIG (a shape that does not fit together, an unknown arch, a
 * row length that is no multiple of the type's block), IO. */
MUST_USE enum err random_model_write(const struct random_model *m, const char *path);

/* n values of stream `key` from position `first`: mean 0, deviation `scale`, the sum of four
 * uniforms; depends on nothing but its arguments, on any machine. */
void random_fill(float *dst, int64_t n, uint64_t key, int64_t first, float scale);

#endif
