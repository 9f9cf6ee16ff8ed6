/* encode.h: values as blocks of a quantised type, with the least error that this project knows to find.
 *
 * Weighted where an importance of each column is given: sum of importance (x - y)^2, else plain squares. Not here: which
 * tensor becomes which type (engine/file/qmix.h), files (gguf_out.h). Decoding: dequant.h. */
#ifndef ENGINE_FILE_ENCODE_H
#define ENGINE_FILE_ENCODE_H

#include "engine/file/dtype.h"

/* F32, F16, BF16, Q4_0 .. Q8_0, the K types, IQ4_NL, IQ4_XS. */
bool eng_encode_has(enum dtype t);

/* dst = src[n] as type t.
 * In    n a multiple of dtype_block(t); values finite; importance [n], each >= 0, or NULL
 * Out   dst[dtype_bytes(t, n)], the same for the same input on any machine
 * Thr   any.   Err none: a type that eng_encode_has does not know is our bug */
void eng_encode_row(enum dtype t, const float *src, const float *importance, void *dst, int64_t n);

#endif
