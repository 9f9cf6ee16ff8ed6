/* rope.c: rotary positions: each pair of a head turns by its token's angle. */
#include "engine/kernels/ref/ref.h"

#include <math.h>

void krn_ref_rope(float *x, int32_t n_head, int32_t head_dim, int32_t rot, bool interleaved,
                  const float *const *cs, int32_t t0, int32_t t1)
{
    int32_t step = interleaved ? 1 : rot / 2; /* from x0 to x1 of a pair */
    for (int64_t t = t0; t < t1; t++)
        for (int32_t h = 0; h < n_head; h++) {
            float *head = x + (t * n_head + h) * head_dim;
            for (int32_t i = 0; i < rot / 2; i++) {
                float *pair = head + (interleaved ? 2 * i : i);
                float c = cs[t][2 * i], s = cs[t][2 * i + 1], x0 = pair[0], x1 = pair[step];
                pair[0] = fmaf(x0, c, -(x1 * s));
                pair[step] = fmaf(x0, s, x1 * c);
            }
        }
}
