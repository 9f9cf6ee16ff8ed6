/* dtype.h: the element types of model files: names, block sizes, bytes.
 * Source: the GGUF specification (ggml type numbers). Not here: arithmetic (engine/kernels). */
#ifndef ENGINE_FILE_DTYPE_H
#define ENGINE_FILE_DTYPE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/*   name     ggml  values per block, bytes per block */
#define DTYPE_MAP(X)                                                                               \
    X(F32,      0,   1,   4)                                                                       \
    X(F16,      1,   1,   2)                                                                       \
    X(Q4_0,     2,  32,  18)                                                                       \
    X(Q8_0,     8,  32,  34)                                                                       \
    X(Q4_K,    12, 256, 144)                                                                       \
    X(Q5_K,    13, 256, 176)                                                                       \
    X(Q6_K,    14, 256, 210)                                                                       \
    X(BF16,    30,   1,   2)                                                                       \
    X(Q4_1,     3,  32,  20)                                                                       \
    X(Q5_0,     6,  32,  22)                                                                       \
    X(Q5_1,     7,  32,  24)                                                                       \
    X(Q2_K,    10, 256,  84)                                                                       \
    X(Q3_K,    11, 256, 110)                                                                       \
    X(IQ2_XXS, 16, 256,  66)                                                                       \
    X(IQ2_XS,  17, 256,  74)                                                                       \
    X(IQ3_XXS, 18, 256,  98)                                                                       \
    X(IQ1_S,   19, 256,  50)                                                                       \
    X(IQ4_NL,  20,  32,  18)                                                                       \
    X(IQ3_S,   21, 256, 110)                                                                       \
    X(IQ2_S,   22, 256,  82)                                                                       \
    X(IQ4_XS,  23, 256, 136)                                                                       \
    X(IQ1_M,   29, 256,  56)                                                                       \
    X(TQ1_0,   34, 256,  54)                                                                       \
    X(TQ2_0,   35, 256,  66)                                                                       \
    X(MXFP4,   39,  32,  17)

enum dtype {
#define X(name, ggml, n, bytes) DTYPE_##name,
    DTYPE_MAP(X)
#undef X
    DTYPE_COUNT
};

const char *dtype_name(enum dtype t);          /* "Q4_K"; "unsupported" for DTYPE_COUNT */
int32_t dtype_block(enum dtype t);             /* values per block */
int32_t dtype_block_bytes(enum dtype t);
/* Bytes of n consecutive values; n must be a multiple of dtype_block. */
int64_t dtype_bytes(enum dtype t, int64_t n);
/* ggml's number -> dtype. Err UNSUPPORTED naming the number (and its ggml name where known). */
MUST_USE enum err dtype_of_ggml(uint32_t ggml, enum dtype *out);
const char *dtype_all_names(void);             /* "F32, F16, ...", for sentences */
uint32_t dtype_ggml(enum dtype t);             /* ggml's number */
const char *dtype_ggml_name(uint32_t ggml);    /* of ours and of foreign types; "unknown" if nobody's */
/* The number of a type of that name, ours or foreign (numbers above 0xffff are safetensors' own types); false
 * when nobody knows it. */
bool dtype_ggml_of_name(const char *name, uint32_t *ggml);
/* Block and bytes per block of any ggml type, ours or not; false (nothing written) when the number
 * is unknown. */
bool dtype_ggml_layout(uint32_t ggml, int32_t *block, int32_t *bytes);

#endif
