/* sampling_wire.h: the packed form of struct sampling inside a step plan. Only step_plan.c, the
 * scheduler's count of a plan's bytes and tests need it. */
#ifndef PROTO_SAMPLING_WIRE_H
#define PROTO_SAMPLING_WIRE_H

#include "base/arena.h"
#include "proto/sampling.h"
#include "proto/scan.h"

enum { SAMPLING_WIRE_BYTES = 122 };   /* the fewest: no lists */

void sampling_pack(const struct sampling *s, struct buf *out);   /* appends */
/* Every value is checked against the ranges of sampling.h, every id against n_vocab; arrays are
 * allocated in `a`. */
MUST_USE enum err sampling_unpack(struct sampling *out, struct scan *in, int32_t n_vocab,
                                  struct arena *a);

#endif
