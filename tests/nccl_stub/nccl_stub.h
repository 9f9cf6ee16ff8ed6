/* nccl_stub.h: stands in for NVIDIA's library in tests (libnccl_stub.so, opened through TESSERA_NCCL): the functions coll_nccl.c calls, for
 * ranks that are threads or processes of one host, over shared memory.
 *
 * A stream is a struct nccl_stub_stream: what executes operations in order, and what may touch the memory they name. NULL members: at once,
 * and memcpy; nothing is captured. Every call that the real library may answer with "in progress" answers so once.
 *
 * A captured operation is kept by the stream and done at every replay. As with the real library a communicator is finalized, destroyed or
 * aborted only when nobody keeps its operations any more: finalizing does not come to an end before, and what would hang ends the process. More
 * strictly than there, what has not been used before (collectives; messages with a peer) cannot be used first in a capture, since setting up a
 * connection is no work of the device.
 * NCCL_STUB orders what goes wrong (R a rank, N its Nth operation, from 1):
 *   fail_id   fail_init:R   hang_init:R (it never gets ready)   fail:R:N (the call)   async:R:N (learned by asking for the state)
 *   hang:R:N, hang_replayed:R:N (nothing moves in it, of those that a stream does at once or in a replay)
 * NCCL_STUB_VERSION: the version it says, 22809 by default. */
#ifndef TESTS_NCCL_STUB_NCCL_STUB_H
#define TESTS_NCCL_STUB_NCCL_STUB_H

#include <stddef.h>

struct nccl_stub_stream {
    void (*push)(struct nccl_stub_stream *s, void (*fn)(void *arg), void *arg);
    void (*copy)(void *dst, const void *src, size_t n);
    /* Captures: fn(arg) is done at every replay, drop(arg) when there will be no more. 0: it does not capture now. */
    int (*record)(struct nccl_stub_stream *s, void (*fn)(void *arg), void *arg, void (*drop)(void *arg));
};

#endif
