/* cases.h: what the kernel tests share: seeded numbers, file rows of every type, packed slices,
 * leaves, cuts. */
#ifndef TESTS_KERNELS_CASES_H
#define TESTS_KERNELS_CASES_H

#include "engine/kernels/table.h"

#include <stddef.h>

/* A stream of random numbers (splitmix64); every test names its seed. Its own, not base/rng.h, so
 * that the checksums of test_golden.c depend on kernels alone. */
struct rnd {
    uint64_t key;
};
static inline uint64_t rnd_bits(struct rnd *r)
{
    uint64_t x = r->key += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}
static inline int32_t rnd_below(struct rnd *r, int32_t n)
{
    return (int32_t)(rnd_bits(r) % (uint64_t)n);
}
static inline int32_t rnd_between(struct rnd *r, int32_t lo, int32_t hi)
{
    return lo + rnd_below(r, hi - lo + 1);
}
/* About normal: the sum of 12 uniforms (exact in f32), variance 1. */
static inline float rnd_normal(struct rnd *r)
{
    float s = -6.0f;
    for (int i = 0; i < 4; i++) {
        uint64_t bits = rnd_bits(r);
        for (int j = 0; j < 3; j++, bits >>= 20) s += (float)(bits & 0xfffff) * 0x1p-20f;
    }
    return s;
}

/* 64-byte aligned memory that ends the process when there is none; free(). */
void *case_alloc(size_t n);
/* n floats: kind 0 normal, 1 with zeros, signed zeros and denormals, 2 with large values. Own:
 * caller, free(). */
enum { CASE_NORMAL, CASE_TINY, CASE_LARGE, CASE_KINDS };
float *case_floats(struct rnd *r, int64_t n, int32_t kind);

/* rows x cols values of a type as a file holds them: random codes, sane scales. */
struct case_file {
    enum dtype type;
    int32_t rows, cols;
    int64_t row_bytes;
    uint8_t *bytes;
};
struct case_file case_file_make(struct rnd *r, enum dtype type, int32_t rows, int32_t cols);
void case_file_free(struct case_file *f);
/* Columns [k0, k0+cols) of the file, packed. Own: caller, free((void *)m.data). */
struct krn_mat case_pack(const struct case_file *f, int32_t k0, int32_t cols);

/* Bounds of n leaves over cols, bound[0..n], in multiples of `grain`, none empty. */
void case_bounds(struct rnd *r, int32_t n, int32_t cols, int32_t grain, int32_t bound[]);
/* The leaves [lo,hi) of n as a rank holding them sees them. */
void case_leaves(const int32_t bound[], int32_t n, int32_t lo, int32_t hi, struct krn_leaves *out);

/* Activations of n_tok x cols, interleaved, and quantised when asked. Own: caller, case_act_free.
 */
struct krn_act case_act(struct rnd *r, int32_t n_tok, int32_t cols, bool quantise, int32_t kind);
/* Columns [k0, k0+cols) of x as an activation of its own. */
struct krn_act case_act_slice(const struct krn_act *x, int32_t k0, int32_t cols);
/* The same rows again, q and xt still to be filled. */
struct krn_act case_act_copy(const struct krn_act *x);
void case_act_free(struct krn_act *x);

/* One token's unit as quantised. */
struct case_unit {
    int8_t q[KRN_UNIT];
    float d;
    int32_t s;
};
struct case_unit case_unit_at(const struct krn_act *x, int32_t t, int32_t unit);

#endif
