/* grammar.c: see grammar.h. */
#include "proto/grammar.h"

#include "base/rng.h"

uint64_t grammar_hash(const struct grammar_source *g)
{
    uint64_t h = rng_mix((uint64_t)g->kind << 32 | g->flags) ^ (uint64_t)(uint32_t)g->n;
    for (int32_t i = 0; i < g->n; i++) h = (h ^ (uint8_t)g->text[i]) * 0x100000001b3u;
    return rng_mix(h);
}
