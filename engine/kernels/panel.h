/* panel.h: how the activations of a product lie in memory. Internal to engine/kernels and its
 * tests.
 *
 * Tokens go in groups of KRN_GROUP, the last group as wide as it needs to be (krn_group_width: a
 * few widths, the lanes past n_tok are zero). A group's panel is what one pass over a tile of
 * weights reads, from end to end:
 *
 *   int8   per unit of 32 columns, width w: int8 q[w][32]; f32 d[w]; f32 s[w]; int32 z8[w],
 * z128[w], z32[2][w] s = sum of q (exact in f32); z8 = -8 * sum, z128 = -128 * sum, z32[h] = -32 *
 * sum of half unit h: the start of an integer sum over codes stored with an offset (Q4_0, Q8_0,
 * Q6_K) f32    per column: x[w]
 *   bf16   per two columns: x[w] of the even one in the lower, of the odd one in the upper half of a word
 *
 * A kernel thus reads each value by a broadcast from consecutive lines, whatever cols is: rows of
 * 4096 columns apart would all fall into the same sets of the first-level cache. */
#ifndef ENGINE_KERNELS_PANEL_H
#define ENGINE_KERNELS_PANEL_H

#include "base/base.h"
#include "engine/kernels/table.h"

#include <string.h>

enum {
    KRN_GROUP = 16,
    /* bytes per token and unit; where the fields begin, per lane of width */
    KRN_UNIT_BYTES = 56,
    KRN_UNIT_D = 32,
    KRN_UNIT_S = 36,
    KRN_UNIT_Z8 = 40,
    KRN_UNIT_Z128 = 44,
    KRN_UNIT_Z32 = 48,
};

/* Lanes of the group that begins at token t0 (a multiple of KRN_GROUP). */
ON_DEVICE static inline int32_t krn_group_width(int32_t n_tok, int32_t t0)
{
    int32_t n = n_tok - t0;
    if (n >= KRN_GROUP) return KRN_GROUP;
    return n > 12 ? 16 : n > 8 ? 12 : n > 6 ? 8 : n > 4 ? 6 : n > 2 ? 4 : n;
}

/* One unit of a group's int8 panel. */
static inline uint8_t *krn_panel_unit(const struct krn_act *a, int32_t t0, int32_t width,
                                      int32_t unit)
{
    return a->q + ((int64_t)t0 * (a->cols / KRN_UNIT) + (int64_t)unit * width) * KRN_UNIT_BYTES;
}

/* Where a panel keeps one token's unit. */
struct krn_panel_lane {
    uint8_t *unit;
    int32_t width, lane;
};
static inline struct krn_panel_lane krn_panel_lane(const struct krn_act *a, int32_t t, int32_t unit)
{
    int32_t t0 = t / KRN_GROUP * KRN_GROUP, width = krn_group_width(a->n_tok, t0);
    return (struct krn_panel_lane){krn_panel_unit(a, t0, width, unit), width, t - t0};
}
static inline int8_t *krn_lane_q(const struct krn_panel_lane *l)
{
    return (int8_t *)l->unit + l->lane * KRN_UNIT;
}

static inline void krn_lane_put(const struct krn_panel_lane *l, int32_t field, const void *v)
{
    memcpy(l->unit + field * l->width + 4 * l->lane, v, 4);
}
static inline float krn_lane_f32(const struct krn_panel_lane *l, int32_t field)
{
    float v;
    memcpy(&v, l->unit + field * l->width + 4 * l->lane, 4);
    return v;
}

/* Everything but q: the scale and the sums of the two half units. */
static inline void krn_lane_put_scale(const struct krn_panel_lane *l, float d, int32_t low,
                                      int32_t high)
{
    int32_t sum = low + high, z8 = -8 * sum, z128 = -128 * sum, z_low = -32 * low,
            z_high = -32 * high;
    float s = (float)sum;
    krn_lane_put(l, KRN_UNIT_D, &d);
    krn_lane_put(l, KRN_UNIT_S, &s);
    krn_lane_put(l, KRN_UNIT_Z8, &z8);
    krn_lane_put(l, KRN_UNIT_Z128, &z128);
    krn_lane_put(l, KRN_UNIT_Z32, &z_low);
    krn_lane_put(l, KRN_UNIT_Z32 + 4, &z_high);
}

/* The quantisers' common walk: tokens [t0,t1) by units [u0,u1); who does the last token also clears
 * the lanes after it. */
typedef void (*krn_quantize_unit_fn)(const float *x, const struct krn_panel_lane *l);
static inline __attribute__((always_inline)) void krn_quantize_walk(const struct krn_act *a,
                                                                    int32_t t0, int32_t t1,
                                                                    int32_t u0, int32_t u1,
                                                                    krn_quantize_unit_fn unit)
{
    for (int32_t t = t0; t < t1; t++) {
        struct krn_panel_lane l = krn_panel_lane(a, t, u0);
        const float *x = a->x + (int64_t)t * a->cols;
        int32_t end = t == a->n_tok - 1 ? l.width : l.lane + 1;
        for (int32_t u = u0; u < u1; u++, l.unit += l.width * KRN_UNIT_BYTES) {
            unit(x + u * KRN_UNIT, &l);
            for (int32_t lane = l.lane + 1; lane < end; lane++) {
                struct krn_panel_lane empty = {l.unit, l.width, lane};
                memset(krn_lane_q(&empty), 0, KRN_UNIT);
                krn_lane_put_scale(&empty, 0.0f, 0, 0);
            }
        }
    }
}

/* The same for xt: plain C on every instruction set, a cache line of a row at a time (1 % of the
 * product that reads it). */
static inline void krn_interleave_walk(const struct krn_act *a, int32_t t0, int32_t t1, int32_t k0,
                                       int32_t k1)
{
    enum { LINE = 16 };
    for (int32_t k = k0; k < k1; k += LINE)
        for (int32_t t = t0; t < t1; t++) {
            int32_t first = t / KRN_GROUP * KRN_GROUP, width = krn_group_width(a->n_tok, first);
            int32_t n = MIN(LINE, k1 - k), end = t == a->n_tok - 1 ? width : t - first + 1;
            const float *x = a->x + (int64_t)t * a->cols + k;
            float *to = a->xt + (int64_t)first * a->cols + (int64_t)k * width;
            for (int32_t i = 0; i < n; i++) {
                to[i * width + t - first] = x[i];
                for (int32_t lane = t - first + 1; lane < end; lane++) to[i * width + lane] = 0.0f;
            }
        }
}

#endif
