/* rope.c: four pairs at a time, parted by the loads; the rest one by one. */
#include "engine/kernels/neon/neon.h"
#include "engine/kernels/neon/vmath.h"

/* A pair turned: x0 c - x1 s, x0 s + x1 c. */
static inline void turn(float32x4_t x[2], float32x4x2_t cs)
{
    float32x4_t x0 = x[0], x1 = x[1];
    x[0] = vfmaq_f32(vnegq_f32(vmulq_f32(x1, cs.val[1])), x0, cs.val[0]);
    x[1] = vfmaq_f32(vmulq_f32(x1, cs.val[0]), x0, cs.val[1]);
}
static inline void turn_one(float *x0, float *x1, const float *cs)
{
    float a = *x0, b = *x1;
    *x0 = fmaf(a, cs[0], -(b * cs[1]));
    *x1 = fmaf(a, cs[1], b * cs[0]);
}

static void rotate_neighbours(float *x, const float *cs, int32_t pairs)
{
    int32_t i = 0;
    for (; i + LANES <= pairs; i += LANES) {
        float32x4x2_t v = vld2q_f32(x + 2 * i);
        turn(v.val, vld2q_f32(cs + 2 * i));
        vst2q_f32(x + 2 * i, v);
    }
    for (; i < pairs; i++) turn_one(x + 2 * i, x + 2 * i + 1, cs + 2 * i);
}

static void rotate_halves(float *x, const float *cs, int32_t pairs)
{
    int32_t i = 0;
    for (; i + LANES <= pairs; i += LANES) {
        float32x4_t v[2] = {vld1q_f32(x + i), vld1q_f32(x + pairs + i)};
        turn(v, vld2q_f32(cs + 2 * i));
        vst1q_f32(x + i, v[0]);
        vst1q_f32(x + pairs + i, v[1]);
    }
    for (; i < pairs; i++) turn_one(x + i, x + pairs + i, cs + 2 * i);
}

void krn_neon_rope(float *x, int32_t n_head, int32_t head_dim, int32_t rot, bool interleaved,
                   const float *const *cs, int32_t t0, int32_t t1)
{
    for (int64_t t = t0; t < t1; t++)
        for (int32_t h = 0; h < n_head; h++) {
            float *head = x + (t * n_head + h) * head_dim;
            if (interleaved)
                rotate_neighbours(head, cs[t], rot / 2);
            else
                rotate_halves(head, cs[t], rot / 2);
        }
}
