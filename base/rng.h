/* rng.h: counter-based randomness: a value is a pure function of its key and counters, so it does not
 * depend on who asks first. splitmix64's finaliser (Steele, Lea, Flood 2014) over mixed counters. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include "base/base.h"

#include <stdint.h>

ON_DEVICE static inline uint64_t rng_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* 64 random bits for (key, a, b, c). */
static inline uint64_t rng_at(uint64_t key, uint64_t a, uint64_t b, uint64_t c)
{
    return rng_mix(rng_mix(rng_mix(rng_mix(key) ^ a) ^ b) ^ c);
}

/* A uniform float strictly inside (0,1): 23 bits and a half, which is all that a float holds exactly. */
static inline float rng_unit(uint64_t bits) { return ((float)(bits >> 41) + 0.5f) * 0x1p-23f; }

#endif
