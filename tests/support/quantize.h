/* quantize.h: encoders for every element type: plain ones, for random and test models.
 *
 * Q4_0, Q8_0 and the floats give the bytes of ggml's reference encoder; the K types choose their
 * scales from the extremes of each sub-block and search no further, which is honest but not the
 * best a K type can do. Not here: decoding (engine/file/dequant.h). */
#ifndef TESTS_SUPPORT_QUANTIZE_H
#define TESTS_SUPPORT_QUANTIZE_H

#include "engine/file/dtype.h"

/* dst = src[n] as type t; n is a multiple of dtype_block(t), dst has dtype_bytes(t, n). Thr any. */
void quantize_row(enum dtype t, const float *src, void *dst, int64_t n);

#endif
