/* control_check.h: are the values of a decoded control message within their ranges? No protobuf here.
 * A reader may index and size by what has passed. */
#ifndef PROTO_CONTROL_CHECK_H
#define PROTO_CONTROL_CHECK_H

#include "proto/control.h"

/* Err LINK_PROTOCOL naming message, field, the value and what is needed. Packed bodies are checked
 * by step_plan_unpack and step_result_unpack. */
MUST_USE enum err control_check(const struct control_msg *m);
/* One number: lo and hi are both allowed. */
MUST_USE enum err control_need(const char *msg, const char *field, int64_t v, int64_t lo,
                               int64_t hi);

#endif
