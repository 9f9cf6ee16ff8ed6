/* grammar_walk.h: what the fuzz targets of grammars have in common. */
#ifndef TESTS_FUZZ_GRAMMAR_WALK_H
#define TESTS_FUZZ_GRAMMAR_WALK_H

#include "proto/grammar.h"

#include <stddef.h>

int grammar_walk(enum grammar_kind kind, const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#endif
