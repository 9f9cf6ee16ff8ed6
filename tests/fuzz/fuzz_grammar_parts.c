/* fuzz_grammar_parts.c: any bytes as a description of parts: compiled or refused with a sentence; what compiles is walked by its own masks
 * for a while, which must never lead into a dead end. */
#include "tests/fuzz/grammar_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    return grammar_walk(GRAMMAR_PARTS, data, n);
}
