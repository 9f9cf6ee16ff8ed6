/* iq.h: the types whose codes are numbers of a small book of integers: one unit of 32 values at a time.
 *
 * value k = (d * scale[k / 16]) * book[index[k]], every product exact in f32: so the order does not matter, and the
 * result is ggml's bit for bit. Source: ggml's block structures (facts). Not here: tiles (engine/kernels/pack.c). */
#ifndef ENGINE_FILE_IQ_H
#define ENGINE_FILE_IQ_H

#include "engine/file/dtype.h"

enum { ENG_IQ_UNIT = 32 };

struct eng_iq_unit {
    uint8_t index[ENG_IQ_UNIT]; /* into the book: below 8 (IQ1, IQ2) or 16 */
    int8_t scale[2];            /* of each half; 1 where a type has none */
    float d;
};

/* 16 values, of which IQ1 and IQ2 use 8. NULL: none of IQ1_S, IQ1_M, IQ2_*, IQ3_*, IQ4_NL, IQ4_XS, MXFP4. */
const int8_t *eng_iq_book(enum dtype t);
/* Unit `sub` of a block: 0..7, of types with blocks of 32 values 0. */
void eng_iq_unit(enum dtype t, const uint8_t *block, int32_t sub, struct eng_iq_unit *out);

#endif
