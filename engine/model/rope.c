/* rope.c: see rope.h. Every operation is an IEEE add, mul, div or fma in a fixed order. */
#include "engine/model/rope.h"

#include "engine/model/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double LN2_HI = 0x1.62e42fefa39efp-1, LN2_LO = 0x1.abc9e3b39803fp-56;

static double ldexp_exact(double x, int e)
{
    uint64_t bits = (uint64_t)(1023 + e) << 52;
    double scale;
    memcpy(&scale, &bits, 8);
    return x * scale;
}

double eng_dexp(double x)
{
    double n = (double)(int64_t)(x * 0x1.71547652b82fep0 + (x < 0 ? -0.5 : 0.5));
    double r = fma(-n, LN2_LO, fma(-n, LN2_HI, x)); /* |r| <= ln2/2 */
    double p = 1;
    for (int k = 17; k >= 1; k--) p = fma(p, r / k, 1); /* Taylor by Horner; the 18th term is below 1 ulp */
    return ldexp_exact(p, (int)n);
}

double eng_dlog(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, 8);
    int e = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffu) | 0x3ff0000000000000u;
    double m;
    memcpy(&m, &bits, 8);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    double z = (m - 1) / (m + 1), z2 = z * z, s = 0; /* log m = 2 atanh z, |z| < 0.172 */
    for (int k = 25; k >= 3; k -= 2) s = fma(s, z2, 1.0 / k);
    return fma(e, LN2_HI, fma(2 * z * z2, s, 2 * z) + e * LN2_LO);
}

void eng_dsincos(double x, double *sn, double *cs)
{
    /* pi/2 in three parts of 33 bits: n * part is exact for |n| < 2^20 */
    static const double P1 = 0x1.921fb544p0, P2 = 0x1.0b4611a6p-34, P3 = 0x1.3198a2e037073p-69;
    double n = (double)(int64_t)(x * 0x1.45f306dc9c883p-1 + (x < 0 ? -0.5 : 0.5));
    double r = fma(-n, P3, fma(-n, P2, fma(-n, P1, x))), r2 = r * r, s = 1, c = 1;
    for (int k = 20; k >= 2; k -= 2) {
        c = fma(-c, r2 / ((k - 1) * k), 1);
        s = fma(-s, r2 / (k * (k + 1)), 1);
    }
    s *= r;
    switch ((int64_t)n & 3) {
    case 0: *sn = s, *cs = c; break;
    case 1: *sn = c, *cs = -s; break;
    case 2: *sn = -s, *cs = -c; break;
    default: *sn = -c, *cs = s; break;
    }
}

static const double PI = 3.14159265358979323846;

/* YaRN's ramp: how much of frequency i is interpolated (1) rather than kept (0). */
static double yarn_ramp(const struct eng_spec *s, int32_t i)
{
    double per = s->rope_dim / (2 * eng_dlog(s->rope_base));
    double lo = per * eng_dlog(s->rope_orig_context / (s->rope_fast * 2 * PI));
    double hi = per * eng_dlog(s->rope_orig_context / (s->rope_slow * 2 * PI));
    if (s->rope_truncate) lo = floor(lo), hi = ceil(hi);
    lo = MAX(lo, 0.0);
    hi = MIN(hi, (double)s->rope_dim - 1);
    if (hi <= lo) hi = lo + 0.001;
    return CLAMP((i - lo) / (hi - lo), 0.0, 1.0);
}

/* Llama 3.1: long waves are slowed by the factor, short ones kept, those between blended. As a float, like the
 * tensor of divisors that converted files have. */
static double llama3_divisor(const struct eng_spec *s, double freq)
{
    double turns = s->rope_orig_context * freq / (2 * PI), blend = s->rope_fast - s->rope_slow;
    double keep = blend > 0 ? CLAMP((turns - s->rope_slow) / blend, 0.0, 1.0) : turns >= s->rope_fast;
    return (double)(float)(1 / ((1 - keep) / s->rope_factor + keep));
}

/* Dynamic NTK: a larger base past the original context, so that the slowest frequency is slowed by the factor in use. */
static double dynamic_base(const struct eng_spec *s, int32_t n_pos)
{
    double turns = s->rope_factor * n_pos / s->rope_orig_context - (s->rope_factor - 1);
    if (n_pos <= s->rope_orig_context || s->rope_dim < 4) return s->rope_base;
    return s->rope_base * eng_dexp(eng_dlog(turns) * s->rope_dim / (s->rope_dim - 2));
}

static double scaled(const struct eng_spec *s, double f, int32_t i)
{
    if (s->rope_scaling == ROPE_LLAMA3) f /= llama3_divisor(s, f);
    if (s->rope_scaling == ROPE_LINEAR) f /= s->rope_factor;
    if (s->rope_scaling == ROPE_YARN) {
        double ramp = yarn_ramp(s, i);
        f = f / s->rope_factor * ramp + f * (1 - ramp);
    }
    return f;
}

/* What cos and sin are multiplied with. */
static double magnitude(const struct eng_spec *s)
{
    if (s->rope_attn_said > 0) return s->rope_attn_said;
    if (s->rope_scaling == ROPE_YARN && s->rope_factor > 1) return s->rope_attn_factor * (0.1 * eng_dlog(s->rope_factor) + 1);
    if (s->rope_scaling == ROPE_LONG && s->rope_factor > 1) /* as a float, like the key of converted files */
        return (double)(float)sqrt(1 + eng_dlog(s->rope_factor) / eng_dlog(s->rope_orig_context));
    return s->rope_attn_factor;
}

enum err eng_rope_table(float **out, const struct eng_spec *s, const struct eng_weights *w, int32_t n_pos, bool local)
{
    int32_t half = s->rope_dim / 2;
    float *t = malloc((size_t)n_pos * (size_t)half * 2 * sizeof *t);
    double *freq = malloc((size_t)half * sizeof *freq);
    double scale = local ? 1 : magnitude(s);
    double base = local ? s->rope_base_local : s->rope_scaling == ROPE_DYNAMIC ? dynamic_base(s, n_pos) : s->rope_base;
    const float *divisors = local ? NULL : s->rope_scaling != ROPE_LONG ? w->rope_freqs : n_pos > s->rope_orig_context ? w->rope_long : w->rope_short;
    if (!t || !freq) {
        free(t);
        free(freq);
        return err_raise(ERR_NO_MEMORY, "no memory for the rope table of %d positions", n_pos);
    }
    for (int32_t i = 0; i < half; i++) {
        freq[i] = eng_dexp(-2.0 * i / s->rope_dim * eng_dlog(base));
        if (divisors) freq[i] /= (double)divisors[i];
        if (!local) freq[i] = scaled(s, freq[i], i);
    }
    for (int32_t p = 0; p < n_pos; p++)
        for (int32_t i = 0; i < half; i++) {
            double sn, cs;
            eng_dsincos(p * freq[i], &sn, &cs);
            t[((size_t)p * (size_t)half + (size_t)i) * 2] = (float)(cs * scale);
            t[((size_t)p * (size_t)half + (size_t)i) * 2 + 1] = (float)(sn * scale);
        }
    free(freq);
    *out = t;
    return OK;
}

enum err eng_temper_table(float **out, const struct eng_spec *s, int32_t n_pos)
{
    int64_t rows = n_pos / s->temper_length + 1, half = s->head_dim / 2;
    float *t = calloc((size_t)(rows * half), 2 * sizeof *t);
    if (!t) return err_raise(ERR_NO_MEMORY, "no memory for the temperatures of %d positions", n_pos);
    for (int64_t r = 0; r < rows; r++) {
        double by = eng_dlog(1 + (double)r) * (double)s->temper_scale + 1;
        for (int64_t i = 0; i < half; i++) t[(r * half + i) * 2] = (float)by;
    }
    *out = t;
    return OK;
}
