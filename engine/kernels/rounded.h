/* rounded.h: products that round more than the contract of table.h allows, for `--exact off`: activations, and weights of F16, become bf16
 * first; on cards those of prompts' attention too. They are as repeatable as the others, whatever the number of threads; but only processors with a
 * dot product of bf16 have them, so
 * another machine gives other bits. A card's tensor cores have them too (engine/kernels/cuda/rounded.cu), a leaf's sum in an order of their own.
 *
 * y of a matrix of BF16 or F16 as table.h has it, but for the chain of a leaf: columns in pairs (2i, 2i+1),
 *   acc = fma(w[2i], x[2i], fma(w[2i+1], x[2i+1], acc))   where w and x are rounded to bf16 (to nearest even), subnormals taken for zero;
 * an odd last column stands alone. Leaves begin at even columns. */
#ifndef ENGINE_KERNELS_ROUNDED_H
#define ENGINE_KERNELS_ROUNDED_H

#include "engine/kernels/table.h"

struct krn_rounded {
    const char *name;
    /* Copy columns [k0,k1) of rows [t0,t1) of x into a->xb; k0 is even, k1 even or the last. */
    void (*interleave)(const struct krn_act *a, int32_t t0, int32_t t1, int32_t k0, int32_t k1);
    void (*matmul)(const struct krn_matmul *a); /* reads a->x->xb */
    /* table.h's, without splits: of tokens that follow each other queries times scale, keys, weights and values may become f16, or, of a bf16 cache, bf16
     * first, and scores and outputs be summed in any order inside a split. What lies in blocks of the sequence that a token does not see must be
     * finite. NULL: there is none. */
    void (*attention)(const struct krn_attention *a);
};

enum { KRN_ROUNDED_LEAST = 8 }; /* tokens from which it gains: below, both wait for memory */

static inline bool krn_rounded_takes(enum dtype t) { return t == DTYPE_BF16 || t == DTYPE_F16; }

/* Those that go with a table on this processor; NULL: none, or none that is faster than the table's own. */
const struct krn_rounded *krn_rounded_of(const struct krn_table *t);

#endif
