/* coll_told.h: what communicators share whose operations are told to a device and not waited for: how far it has come, who is late, and what
 * goes by way of the host. Not for users of collectives.
 *
 * An operation is begun, told, and ended by a mark behind it in the device's stream. While the device records a graph nothing is begun and no
 * mark is put; when it is told that graph, its operations count as begun together, with one mark behind them all.
 * Who is late the device cannot say: where `host` has a board (ranks of one host), each rank writes there how many operations it has begun. */
#ifndef TRANSPORT_COLL_TOLD_H
#define TRANSPORT_COLL_TOLD_H

#include "transport/coll.h"
#include "transport/device.h"

struct trn_told {
    struct trn_coll base;         /* first */
    struct trn_coll *host;        /* the same ranks; borrowed */
    const struct trn_device *dev; /* borrowed */
    _Atomic uint64_t *board;      /* or NULL */
    bool wait;                    /* operations return when they are over */
    /* set by the implementation. state: has it failed meanwhile? NULL: it cannot know. give_up: the device waits in nothing any more, and nothing
     * is begun again */
    enum err (*state)(struct trn_told *t, const char *what);
    void (*give_up)(struct trn_told *t);
    /* private */
    bool recording;
    uint64_t n_begun, n_done;     /* operations; known to be over */
    uint64_t n_put, n_passed;     /* marks */
    struct { uint64_t n, seq; } marks[TRN_DEVICE_MARKS]; /* operations begun when it was put; the newest's number as a collective */
    int64_t moved_us, timeout_us; /* when n_done moved last, or work began; of the newest */
    const char *op;               /* the newest */
    void *bounce;                 /* the host's */
    int64_t bounce_bytes;
};

/* base has ops, rank and size; host, dev, wait, state and give_up are set. Collective over host. */
MUST_USE enum err trn_told_open(struct trn_told *t, int64_t timeout_us);
void trn_told_close(struct trn_told *t);

/* Around what the device is told. end waits where t->wait says so. */
void trn_told_begin(struct trn_told *t, const char *op, int64_t timeout_us);
MUST_USE enum err trn_told_end(struct trn_told *t);
/* The operation cannot be begun or ended in time: gives up, and says who is late. */
enum err trn_told_late(struct trn_told *t, int64_t timeout_us);

/* As the operations of coll.h. */
enum err trn_told_poll(struct trn_coll *c);
enum err trn_told_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes, int64_t timeout_us);
enum err trn_told_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes, int64_t timeout_us);
enum err trn_told_barrier(struct trn_coll *c, int64_t timeout_us);
int32_t trn_told_waits_for(const struct trn_coll *c);
void trn_told_record(struct trn_coll *c, bool on);
enum err trn_told_replayed(struct trn_coll *c, uint64_t n_ops, int64_t timeout_us);

/* One turn of a wait that began then. */
void trn_told_rest(int64_t since_us);

#endif
