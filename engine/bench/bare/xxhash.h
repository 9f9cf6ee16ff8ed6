/* xxhash.h: stands in for the library of that name in the bare build (CMakeLists.txt here): the two functions that the engine calls, by a
 * hash of our own. Names of cached files and fingerprints differ from those of a whole build; nothing else does. */
#ifndef ENGINE_BENCH_BARE_XXHASH_H
#define ENGINE_BENCH_BARE_XXHASH_H

#include "base/rng.h"

#include <stddef.h>
#include <string.h>

static inline uint64_t XXH3_64bits_withSeed(const void *data, size_t n, uint64_t seed)
{
    const unsigned char *p = data;
    uint64_t h = rng_mix(seed ^ n);
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        h = rng_mix(h ^ word);
    }
    for (; n; p++, n--) h = rng_mix(h ^ *p);
    return h;
}

static inline uint64_t XXH3_64bits(const void *data, size_t n) { return XXH3_64bits_withSeed(data, n, 0); }

#endif
