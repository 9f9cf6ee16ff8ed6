/* shape.h: models of the published shapes without their weights, to measure machines with: no file of gigabytes is needed.
 *
 * A shape is written as the header of a GGUF file (a few kilobytes, in a file without a name in the directory of temporary files); the
 * engine that opens it is told to make the weights itself (eng_engine_conf.made). */
#ifndef ENGINE_BENCH_SHAPE_H
#define ENGINE_BENCH_SHAPE_H

#include "engine/file/dtype.h"

/* "llama3-8b", "llama3-70b", ...; see bench_shape_names. Matrices of `type`, or of Q8_0 where rows are no multiple of its block.
 * Out path[64]: the header, to be opened while *fd is open. Own: the caller closes *fd, and then it is gone.
 * Err BAD_CONFIG naming the known shapes, or the type; IO. */
MUST_USE enum err bench_shape_open(const char *name, enum dtype type, char path[64], int *fd);
const char *bench_shape_names(void);
/* "q4_k", "bf16": as --type says it. Err BAD_CONFIG naming the known ones. */
MUST_USE enum err bench_shape_type(const char *name, enum dtype *out);

#endif
