/* wire_type.c: see wire_type.h. */
#include "transport/wire_type.h"

#include <math.h>
#include <string.h>

const char *const trn_wire_name[TRN_WIRE_TYPES] = {"f32", "f16", "q8"};

int64_t trn_wire_bytes(enum trn_wire_type t, int64_t n)
{
    return t == TRN_WIRE_Q8 ? DIV_UP(n, WIRE_BLOCK) * WIRE_Q8_BYTES : n * (t == TRN_WIRE_F16 ? 2 : 4);
}

/* ---- f16 ---- */

static uint32_t bits_of(float x)
{
    uint32_t v;
    memcpy(&v, &x, sizeof v);
    return v;
}

static float float_of(uint32_t v)
{
    float x;
    memcpy(&x, &v, sizeof x);
    return x;
}

static inline uint16_t to_f16(float x)
{
    uint32_t v = bits_of(x), sign = v >> 16 & 0x8000, a = v & 0x7fffffff;
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7bff); /* rounds to 65504 or is more */
    if (a < 0x38800000) { /* below 2^-14: a denormal; adding 0.5 puts its bits at the bottom, rounded to nearest even */
        return (uint16_t)(sign | (bits_of(float_of(a) + 0.5f) - 0x3f000000));
    }
    return (uint16_t)(sign | ((a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13));
}

static inline float from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, a = h & 0x7fff;
    if (a < 0x400) return float_of(bits_of((float)a * 0x1p-24f) | sign);
    return float_of(((a << 13) + 0x38000000) | sign);
}

/* ---- q8 ---- */

static void pack_q8(const float *x, int32_t n, uint8_t *out)
{
    float most = 0;
    int8_t q[WIRE_BLOCK] = {0};
    for (int32_t i = 0; i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    float scale = most / 127, inverse = most > 0x1p-100f ? 127 / most : 0;
    for (int32_t i = 0; i < n; i++) q[i] = (int8_t)rintf(x[i] * inverse);
    memcpy(out, &scale, 4);
    memcpy(out + 4, q, sizeof q);
}

static void unpack_q8(const uint8_t *in, int32_t n, float *x)
{
    float scale;
    int8_t q[WIRE_BLOCK];
    memcpy(&scale, in, 4);
    memcpy(q, in + 4, sizeof q);
    for (int32_t i = 0; i < n; i++) x[i] = scale * (float)q[i];
}

/* ---- any ---- */

void trn_wire_pack(enum trn_wire_type t, const float *x, int64_t n, void *out)
{
    uint8_t *p = out;
    if (t == TRN_WIRE_F32) memcpy(out, x, (size_t)n * 4);
    for (int64_t i = 0; i < n && t == TRN_WIRE_F16; i++) {
        uint16_t h = to_f16(x[i]);
        memcpy(p + 2 * i, &h, 2);
    }
    for (int64_t i = 0; i < n && t == TRN_WIRE_Q8; i += WIRE_BLOCK, p += WIRE_Q8_BYTES) pack_q8(x + i, (int32_t)MIN(n - i, WIRE_BLOCK), p);
}

void trn_wire_unpack(enum trn_wire_type t, const void *in, int64_t n, float *x)
{
    const uint8_t *p = in;
    if (t == TRN_WIRE_F32) memcpy(x, in, (size_t)n * 4);
    for (int64_t i = 0; i < n && t == TRN_WIRE_F16; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, 2);
        x[i] = from_f16(h);
    }
    for (int64_t i = 0; i < n && t == TRN_WIRE_Q8; i += WIRE_BLOCK, p += WIRE_Q8_BYTES) unpack_q8(p, (int32_t)MIN(n - i, WIRE_BLOCK), x + i);
}

void trn_wire_add(enum trn_wire_type t, const void *in, int64_t n, float *x)
{
    const uint8_t *p = in;
    float part[WIRE_BLOCK];
    for (int64_t i = 0; i < n; i += WIRE_BLOCK) {
        int64_t k = MIN(n - i, WIRE_BLOCK);
        trn_wire_unpack(t, p, k, part);
        for (int64_t j = 0; j < k; j++) x[i + j] += part[j];
        p += trn_wire_bytes(t, k);
    }
}
