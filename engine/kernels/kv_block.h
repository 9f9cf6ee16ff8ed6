/* kv_block.h: where things lie in a head's block of KRN_KV_BLOCK positions (table.h: krn_kv), and the scalar forms of its elements.
 * Internal to kernels. */
#ifndef ENGINE_KERNELS_KV_BLOCK_H
#define ENGINE_KERNELS_KV_BLOCK_H

#include "base/base.h"
#include "engine/file/half.h"
#include "engine/kernels/table.h"

#include <float.h>
#include <math.h>

/* The block `block` of kv head `head` in a plane (k or v). */
static inline uint8_t *krn_kv_block_at(void *plane, const struct krn_kv *kv, int64_t block, int32_t head)
{
    return (uint8_t *)plane + (block * kv->n_kv + head) * KRN_KV_BLOCK * kv_row_bytes(kv->type, kv->head_dim);
}

/* q8_0: the scales come first, by unit and position in K, by position and unit in V; then the codes, in the order of the other types' elements. */
static inline int32_t krn_kv_units(int32_t dim) { return DIV_UP(dim, KV_UNIT); }
static inline int32_t krn_kv_codes(int32_t dim) { return krn_kv_units(dim) * KRN_KV_BLOCK * 2; }

/* The scale of a unit whose largest magnitude is amax, and what its values are multiplied by on their way to codes. */
static inline uint16_t krn_kv_scale(float amax, float *inv)
{
    enum { MOST = 65504 }; /* of f16 */
    float d = amax / 127.0f, by = amax > 0.0f ? 127.0f / amax : 0.0f;
    *inv = by > FLT_MAX ? FLT_MAX : by;
    return half_f32_to_f16(d > (float)MOST ? (float)MOST : d);
}

/* Element (d, position j) of a head's block of keys; of values. */
static inline float krn_kv_element(enum kv_type type, const uint8_t *block, int64_t i)
{
    if (type == KV_F32) return ((const float *)block)[i];
    if (type == KV_FP8) return half_e4m3_to_f32(block[i]);
    uint16_t h = ((const uint16_t *)block)[i];
    return type == KV_F16 ? half_f16_to_f32(h) : half_bf16_to_f32(h);
}

static inline float krn_kv_key(enum kv_type type, const uint8_t *block, int32_t dim, int32_t d, int32_t j)
{
    int64_t i = (int64_t)d * KRN_KV_BLOCK + j;
    if (type != KV_Q8_0) return krn_kv_element(type, block, i);
    uint16_t scale = ((const uint16_t *)block)[d / KV_UNIT * KRN_KV_BLOCK + j];
    return (float)((const int8_t *)block + krn_kv_codes(dim))[i] * half_f16_to_f32(scale);
}

static inline float krn_kv_value(enum kv_type type, const uint8_t *block, int32_t dim, int32_t d, int32_t j)
{
    int64_t i = (int64_t)j * dim + d;
    if (type != KV_Q8_0) return krn_kv_element(type, block, i);
    uint16_t scale = ((const uint16_t *)block)[j * krn_kv_units(dim) + d / KV_UNIT];
    return (float)((const int8_t *)block + krn_kv_codes(dim))[i] * half_f16_to_f32(scale);
}

/* How an instruction set stores one head's rows k[dim], v[dim] at position j of its blocks; latent: v and v_block are NULL. */
typedef void (*krn_kv_put_fn)(enum kv_type type, uint8_t *k_block, uint8_t *v_block, int32_t j, const float *k, const float *v, int32_t dim);

static inline void krn_kv_append_walk(const struct krn_kv_append *a, krn_kv_put_fn put)
{
    const struct krn_kv *kv = a->kv;
    for (int32_t t = a->t0; t < a->t1; t++) {
        int64_t block = a->table[t][a->pos[t] / KRN_KV_BLOCK];
        for (int32_t h = 0; h < kv->n_kv; h++) {
            int64_t row = ((int64_t)t * kv->n_kv + h) * kv->head_dim;
            put(kv->type, krn_kv_block_at(kv->k, kv, block, h), kv->v_dim ? NULL : krn_kv_block_at(kv->v, kv, block, h), a->pos[t] % KRN_KV_BLOCK,
                a->k + row, kv->v_dim ? NULL : a->v + row, kv->head_dim);
        }
    }
}

#endif
