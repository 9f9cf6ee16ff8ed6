/* dequant.h: values of every element type as f32: what the blocks mean, written to be read.
 *
 * The reference for tests and for small tensors (norms, biases, embeddings by row). Not here: fast
 * paths (engine/kernels). */
#ifndef ENGINE_FILE_DEQUANT_H
#define ENGINE_FILE_DEQUANT_H

#include "engine/file/dtype.h"

/* dst[n] = the n values stored at src, bit for bit those of ggml's scalar code.
 * n is a multiple of dtype_block(t); src needs no alignment. Thr any. Err none: a wrong n is our
 * bug. */
void eng_dequant_row(enum dtype t, const void *src, float *dst, int64_t n);

/* Give a block of quantised values, whatever its codes are, scales with which its largest possible value is `size` in
 * magnitude: blocks of random bytes become blocks of weights (made models, tests). A negative size makes the scale
 * negative where a type has a sign for it. */
void eng_block_put_size(enum dtype t, uint8_t *block, float size);

#endif
