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

#endif
