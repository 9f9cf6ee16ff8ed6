/* gate.c: GELU in its two forms and the clamped SwiGLU, four elements at a time. */
#include "engine/kernels/neon/neon.h"
#include "engine/kernels/neon/vmath.h"

static inline float32x4_t gelu_tanh(float32x4_t g)
{
    float32x4_t c = vfmaq_f32(vmath_all(KRN_GELU_1), vmath_all(KRN_GELU_3), vmulq_f32(g, g));
    float32x4_t e = vmath_exp(vmulq_f32(g, c));
    return vdivq_f32(g, vaddq_f32(vmath_all(1.0f), e));
}

static inline float32x4_t gelu_erf(float32x4_t g)
{
    const float32x4_t one = vmath_all(1.0f);
    float32x4_t z = vmulq_f32(vabsq_f32(g), vmath_all(KRN_SQRT_HALF));
    float32x4_t t = vdivq_f32(one, vfmaq_f32(one, vmath_all(KRN_ERF_P), z));
    float32x4_t p = vfmaq_f32(vmath_all(KRN_ERF_A4), vmath_all(KRN_ERF_A5), t);
    p = vfmaq_f32(vmath_all(KRN_ERF_A3), p, t);
    p = vfmaq_f32(vmath_all(KRN_ERF_A2), p, t);
    p = vfmaq_f32(vmath_all(KRN_ERF_A1), p, t);
    float32x4_t e = vmath_exp(vnegq_f32(vmulq_f32(z, z)));
    float32x4_t h = vmulq_f32(vmath_all(0.5f), vmulq_f32(vmulq_f32(p, t), e));
    return vmulq_f32(g, vbslq_f32(vcltq_f32(g, vmath_zero()), h, vsubq_f32(one, h)));
}

static inline float32x4_t swiglu_clamped(float32x4_t g, float32x4_t u)
{
    const float32x4_t limit = vmath_all(KRN_SWIGLU_LIMIT), one = vmath_all(1.0f);
    g = vminq_f32(g, limit);
    u = vmaxq_f32(vminq_f32(u, limit), vmath_all(-KRN_SWIGLU_LIMIT));
    float32x4_t e = vmath_exp(vmulq_f32(g, vmath_all(-KRN_SWIGLU_ALPHA)));
    return vmulq_f32(vdivq_f32(g, vaddq_f32(one, e)), vaddq_f32(u, one));
}

void krn_neon_gate(enum krn_gate kind, float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES) {
        float32x4_t a = vmath_load(g + i, n - i),
                    b = u ? vmath_load(u + i, n - i) : vmath_all(1.0f);
        if (kind == KRN_SWIGLU_CLAMPED) {
            vmath_store(y + i, n - i, swiglu_clamped(a, b));
            continue;
        }
        a = kind == KRN_GELU_TANH ? gelu_tanh(a) : gelu_erf(a);
        vmath_store(y + i, n - i, u ? vmulq_f32(a, b) : a);
    }
}
