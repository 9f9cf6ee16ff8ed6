/* coll_self.c: a group of one rank. Every operation is a copy or nothing. */
#include "transport/coll_open.h"

#include <stdlib.h>
#include <string.h>

static enum err self_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[],
                                void *all, int64_t timeout_us)
{
    (void)c, (void)timeout_us;
    if (all != mine && bytes[0]) memcpy(all, mine, (size_t)bytes[0]);
    return OK;
}

static enum err self_all_reduce(struct trn_coll *c, const struct coll_cut *cut, const float *mine,
                                float *out, int64_t n, int64_t timeout_us)
{
    (void)c, (void)cut, (void)timeout_us; /* all leaves are here: mine is the root already */
    if (out != mine && n) memcpy(out, mine, (size_t)n * sizeof *out);
    return OK;
}

static enum err self_broadcast(struct trn_coll *c, void *data, int64_t bytes, int32_t root,
                               int64_t timeout_us)
{
    (void)c, (void)data, (void)bytes, (void)root, (void)timeout_us;
    return OK;
}

/* Never reached: coll.c refuses peers that are not another rank. */
static enum err self_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes,
                          int64_t timeout_us)
{
    (void)c, (void)data, (void)bytes, (void)timeout_us;
    return err_raise(ERR_UNSUPPORTED, "self send: a group of one rank has no rank %d", to);
}

static enum err self_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes,
                          int64_t timeout_us)
{
    (void)c, (void)data, (void)bytes, (void)timeout_us;
    return err_raise(ERR_UNSUPPORTED, "self recv: a group of one rank has no rank %d", from);
}

static enum err self_barrier(struct trn_coll *c, int64_t timeout_us)
{
    (void)c, (void)timeout_us;
    return OK;
}

static void self_close(struct trn_coll *c)
{
    free(c);
}

static const struct trn_coll_ops self_ops = {
    .name = "self",
    .all_gather = self_all_gather,
    .broadcast = self_broadcast,
    .send = self_send,
    .recv = self_recv,
    .barrier = self_barrier,
    .close = self_close,
    .all_reduce = self_all_reduce,
};

enum err trn_coll_self_open(struct trn_coll **out)
{
    struct trn_coll *c = xcalloc(1, sizeof *c);
    *c = (struct trn_coll){.ops = &self_ops, .size = 1, .now_rank = -1};
    *out = c;
    return OK;
}
