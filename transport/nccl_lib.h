/* nccl_lib.h: NVIDIA's collectives library, opened at run time: the few functions coll_nccl.c calls.
 *
 * Declared here, so that everything builds and runs where the library is not. Its interface is stable within major version 2; where its own
 * header is found, engine/backend/cuda/nccl_check.c has the compiler compare the two.
 * Source: NCCL 2.28 user guide, API reference. */
#ifndef TRANSPORT_NCCL_LIB_H
#define TRANSPORT_NCCL_LIB_H

#include "base/err.h"

#include <stddef.h>

enum { TRN_NCCL_ID_BYTES = 128 };
typedef struct { char internal[TRN_NCCL_ID_BYTES]; } trn_nccl_id; /* by value in a call */

/* ncclResult_t, ncclDataType_t and ncclRedOp_t are ints of the ABI. */
enum { TRN_NCCL_SUCCESS = 0, TRN_NCCL_IN_PROGRESS = 7 };
enum { TRN_NCCL_UINT8 = 1, TRN_NCCL_FLOAT32 = 7, TRN_NCCL_SUM = 0 };

/* The beginning of ncclConfig_t as of 2.14: the library reads `size` bytes, and takes the rest from its defaults by `version`. */
struct trn_nccl_config {
    size_t size;
    unsigned magic, version;
    int blocking;
};
#define TRN_NCCL_CONFIG {sizeof(struct trn_nccl_config), 0xcafebeef, 21400, 0}

struct trn_nccl_comm; /* ncclComm_t is a pointer to one */
typedef struct trn_nccl_comm *trn_nccl_comm;

struct trn_nccl_lib {
    int version; /* 22809: 2.28.9 */
    int (*get_version)(int *version);
    int (*get_unique_id)(trn_nccl_id *id);
    int (*init_rank_config)(trn_nccl_comm *c, int size, trn_nccl_id id, int rank, struct trn_nccl_config *config);
    int (*get_async_error)(trn_nccl_comm c, int *state);
    int (*finalize)(trn_nccl_comm c);
    int (*destroy)(trn_nccl_comm c);
    int (*abort)(trn_nccl_comm c);
    int (*group_start)(void);
    int (*group_end)(void);
    int (*send)(const void *from, size_t n, int type, int peer, trn_nccl_comm c, void *stream);
    int (*recv)(void *to, size_t n, int type, int peer, trn_nccl_comm c, void *stream);
    int (*all_gather)(const void *from, void *to, size_t n, int type, trn_nccl_comm c, void *stream);
    int (*broadcast)(const void *from, void *to, size_t n, int type, int root, trn_nccl_comm c, void *stream);
    int (*all_reduce)(const void *from, void *to, size_t n, int type, int op, trn_nccl_comm c, void *stream);
    const char *(*error_string)(int result);
    const char *(*last_error)(trn_nccl_comm c);
};

/* The file that TESSERA_NCCL names, else libnccl.so.2 as the loader finds it; opened once and never closed. Thr: any.
 * Err BAD_CONFIG: not there, older than 2.14 (which cannot be aborted while it begins), or not it. */
MUST_USE enum err trn_nccl_lib_open(const struct trn_nccl_lib **out);

#endif
