/* coll_pass.c: see coll_pass.h. */
#include "transport/coll_pass.h"

static struct trn_coll *inner(struct trn_coll *c) { return ((struct trn_pass *)c)->inner; }

enum err trn_pass_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[], void *all, int64_t timeout_us)
{
    return trn_coll_all_gather(inner(c), mine, bytes, all, timeout_us);
}

enum err trn_pass_broadcast(struct trn_coll *c, void *data, int64_t bytes, int32_t root, int64_t timeout_us)
{
    return trn_coll_broadcast(inner(c), data, bytes, root, timeout_us);
}

enum err trn_pass_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes, int64_t timeout_us)
{
    return trn_coll_send(inner(c), to, data, bytes, timeout_us);
}

enum err trn_pass_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes, int64_t timeout_us)
{
    return trn_coll_recv(inner(c), from, data, bytes, timeout_us);
}

enum err trn_pass_barrier(struct trn_coll *c, int64_t timeout_us) { return trn_coll_barrier(inner(c), timeout_us); }

int32_t trn_pass_waits_for(const struct trn_coll *c) { return trn_coll_now(((const struct trn_pass *)c)->inner).waiting_for; }
