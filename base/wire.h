/* wire.h: vectors of f32 on their way between hosts as fewer bytes, as a device packs and adds them; transport/wire_type.h says what the bytes are, and
 * does the same on the host, bit for bit. Pointers are the device's. */
#ifndef BASE_WIRE_H
#define BASE_WIRE_H

#include <stdbool.h>
#include <stdint.h>

enum { WIRE_BLOCK = 32, WIRE_Q8_BYTES = 4 + WIRE_BLOCK };

/* out = parts 0 + 1 + ..., n values each, stride apart, in this order, packed; n_parts at least 1. q8, else f16. */
struct wire_pack {
    bool q8;
    const float *parts;
    int64_t stride, n;
    int32_t n_parts;
    void *out;
};

/* out[n] = +0 + part 0 + part 1 + ..., each packed, stride bytes apart; n_parts 0: what one holds, as it is. */
struct wire_unpack {
    bool q8;
    const void *in;
    int64_t stride, n;
    int32_t n_parts;
    float *out;
};

#endif
