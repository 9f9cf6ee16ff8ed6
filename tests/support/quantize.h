/* quantize.h: encoders for random and test models: plain ones, and for the types whose encoders would be long, blocks of
 * random codes as large as the values (quantize_is_near says of which types the values are kept).
 *
 * Q4_0, Q8_0 and the floats give the bytes of ggml's reference encoder; the K types choose their
 * scales from the extremes of each sub-block and search no further, which is honest but not the
 * best a K type can do. Not here: decoding (engine/file/dequant.h). */
#ifndef TESTS_SUPPORT_QUANTIZE_H
#define TESTS_SUPPORT_QUANTIZE_H

#include "engine/file/dtype.h"

/* dst = src[n] as type t; n is a multiple of dtype_block(t), dst has dtype_bytes(t, n). Thr any. */
void quantize_row(enum dtype t, const float *src, void *dst, int64_t n);

/* Whether the block holds the values, not merely a block of their size. */
bool quantize_is_near(enum dtype t);

#endif
