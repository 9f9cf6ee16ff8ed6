/* wire_type.h: vectors of f32 as fewer bytes and back. The same bits on every machine: integer and single f32 operations only.
 *
 * f16: two bytes a value, rounded to nearest even, what is larger than 65504 becomes 65504 (a sum must not turn infinite).
 * q8: blocks of 32: f32 scale = largest / 127, then 32 codes, rounded to nearest even. The last block is filled with zeros. */
#ifndef TRANSPORT_WIRE_TYPE_H
#define TRANSPORT_WIRE_TYPE_H

#include "base/wire.h"
#include "transport/coll_open.h"

void trn_wire_pack(enum trn_wire_type t, const float *x, int64_t n, void *out);
void trn_wire_unpack(enum trn_wire_type t, const void *in, int64_t n, float *x);
/* x += what is packed. */
void trn_wire_add(enum trn_wire_type t, const void *in, int64_t n, float *x);

#endif
