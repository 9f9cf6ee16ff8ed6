/* coll_pass.h: operations that a communicator made of another hands on to it as they are. Not for users of collectives. */
#ifndef TRANSPORT_COLL_PASS_H
#define TRANSPORT_COLL_PASS_H

#include "transport/coll.h"

struct trn_pass {
    struct trn_coll base;   /* first */
    struct trn_coll *inner; /* of the same ranks; the implementation's */
};

/* As the operations of coll.h. */
enum err trn_pass_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[], void *all, int64_t timeout_us);
enum err trn_pass_broadcast(struct trn_coll *c, void *data, int64_t bytes, int32_t root, int64_t timeout_us);
enum err trn_pass_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes, int64_t timeout_us);
enum err trn_pass_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes, int64_t timeout_us);
enum err trn_pass_barrier(struct trn_coll *c, int64_t timeout_us);
int32_t trn_pass_waits_for(const struct trn_coll *c);

#endif
