/* device.h: the device in whose memory a communicator's vectors lie, as far as collectives need it.
 *
 * A few operations that are ordered with everything else the device was told (its stream), and marks, by which the host learns how far it
 * has come. The engine makes one out of its backend (engine/device_group.h); tests have one whose memory is the host's.
 * Thr: the communicator's thread. */
#ifndef TRANSPORT_DEVICE_H
#define TRANSPORT_DEVICE_H

#include "base/err.h"
#include "base/exchange.h"
#include "base/wire.h"
#include "transport/coll_reduce.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    TRN_DEVICE_MARKS = 64,  /* as many are told apart */
    TRN_DEVICE_PARTS = 256, /* of one reduction at most: an FFN has 128 leaves, attention one or two per head */
};

/* What another rank of the host needs to reach an allocation; plain bytes. */
struct trn_device_share { uint8_t bytes[96]; };

struct trn_device {
    void *user;
    void *stream;   /* as the vendor's library takes it: cudaStream_t */
    char where[32]; /* its address on the bus: the same card for every process of the host */
    /* all required. Err: the device's */
    enum err (*alloc)(void *user, void **out, int64_t bytes);
    void (*free)(void *user, void *p); /* NULL-safe; waits for all that was told before */
    enum err (*copy)(void *user, void *dst, const void *src, int64_t bytes);     /* within the device */
    enum err (*upload)(void *user, void *dst, const void *src, int64_t bytes);   /* src may be reused at once */
    enum err (*download)(void *user, void *dst, const void *src, int64_t bytes); /* waits for all that was told before */
    /* out[n] = the tree over part i at parts + i * stride, i < plan->n_parts <= TRN_DEVICE_PARTS. */
    enum err (*reduce)(void *user, const struct trn_reduce *plan, const float *parts, int64_t stride, float *out, int64_t n);
    /* Put a mark behind everything told so far; replaces the mark of this number. */
    enum err (*mark)(void *user, int32_t i);
    /* Has the device come to it? Never waits. */
    enum err (*marked)(void *user, int32_t i, bool *done);
    /* What was recorded is told no more, nor holds anything once what is under way has come to its end. */
    void (*forget)(void *user);
    /* optional, all or none: memory that ranks of one host reach. Err UNSUPPORTED: it cannot be had here */
    enum err (*share)(void *user, void *p, struct trn_device_share *out); /* p: of alloc */
    enum err (*reach)(void *user, const struct trn_device_share *s, void **out);
    void (*unreach)(void *user, const struct trn_device_share *s, void *p);
    enum err (*map_host)(void *user, void *host, int64_t bytes, void **out); /* page-aligned; out: as the device sees it */
    void (*unmap_host)(void *user, void *host); /* waits for all that was told before */
    enum err (*exchange)(void *user, const struct exchange *x);
    /* optional, both or none */
    enum err (*pack)(void *user, const struct wire_pack *a);
    enum err (*unpack)(void *user, const struct wire_unpack *a);
};

#endif
