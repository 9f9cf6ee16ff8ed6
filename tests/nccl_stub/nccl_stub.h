/* nccl_stub.h: stands in for NVIDIA's library in tests (libnccl_stub.so, opened through TESSERA_NCCL): the functions coll_nccl.c calls, for
 * ranks that are threads or processes of one host, over shared memory.
 *
 * A stream is a struct nccl_stub_stream: what executes operations in order, and what may touch the memory they name. NULL members: at once,
 * and memcpy. Every call that the real library may answer with "in progress" answers so once.
 * NCCL_STUB orders what goes wrong (R a rank, N its Nth operation, from 1):
 *   fail_id   fail_init:R   hang_init:R (it never gets ready)   fail:R:N (the call)   async:R:N (learned by asking for the state)
 * NCCL_STUB_VERSION: the version it says, 22809 by default. */
#ifndef TESTS_NCCL_STUB_NCCL_STUB_H
#define TESTS_NCCL_STUB_NCCL_STUB_H

#include <stddef.h>

struct nccl_stub_stream {
    void (*push)(struct nccl_stub_stream *s, void (*fn)(void *arg), void *arg);
    void (*copy)(void *dst, const void *src, size_t n);
};

#endif
