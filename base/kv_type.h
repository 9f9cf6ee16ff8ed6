/* kv_type.h: the types in which keys and values are kept, and what they weigh: known to kernels,
 * planner and options alike. */
#ifndef BASE_KV_TYPE_H
#define BASE_KV_TYPE_H

#include <stdint.h>

/* q8_0: codes of 8 bits, one f16 scale for every KV_UNIT values of a head. fp8: E4M3, no scale. */
enum kv_type { KV_F16, KV_F32, KV_Q8_0, KV_BF16, KV_FP8, KV_TYPES };
#define KV_TYPE_NAMES "f16|f32|q8_0|bf16|fp8=fp8_e4m3" /* in that order */
enum { KV_UNIT = 32 };

static inline const char *kv_type_name(enum kv_type t)
{
    static const char *const names[KV_TYPES] = {"f16", "f32", "q8_0", "bf16", "fp8"};
    return names[t];
}

/* Bytes of one head's keys (or values) at one position. A block of positions has as many times. */
static inline int64_t kv_row_bytes(enum kv_type t, int32_t head_dim)
{
    if (t == KV_Q8_0) return head_dim + 2 * (((int64_t)head_dim + KV_UNIT - 1) / KV_UNIT);
    return (int64_t)head_dim * (t == KV_F32 ? 4 : t == KV_FP8 ? 1 : 2);
}

#endif
