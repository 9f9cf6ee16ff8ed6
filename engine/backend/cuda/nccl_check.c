/* nccl_check.c: compiled where NVIDIA's header is, and never run: does transport/nccl_lib.h declare what that header declares? */
#include "transport/nccl_lib.h"

#include <nccl.h>
#include <stddef.h>

_Static_assert(sizeof(trn_nccl_id) == sizeof(ncclUniqueId), "the id");
_Static_assert(TRN_NCCL_SUCCESS == (int)ncclSuccess && TRN_NCCL_IN_PROGRESS == (int)ncclInProgress, "results");
_Static_assert(TRN_NCCL_UINT8 == (int)ncclUint8 && TRN_NCCL_FLOAT32 == (int)ncclFloat32 && TRN_NCCL_SUM == (int)ncclSum, "types");
_Static_assert(sizeof(ncclResult_t) == sizeof(int) && sizeof(ncclDataType_t) == sizeof(int) && sizeof(ncclRedOp_t) == sizeof(int), "enums");
_Static_assert(offsetof(struct trn_nccl_config, blocking) == offsetof(ncclConfig_t, blocking) &&
                   offsetof(struct trn_nccl_config, version) == offsetof(ncclConfig_t, version) &&
                   offsetof(struct trn_nccl_config, magic) == offsetof(ncclConfig_t, magic) && sizeof(struct trn_nccl_config) <= sizeof(ncclConfig_t),
               "the configuration's beginning");

/* A call by the header's declaration with the arguments of ours, and each function's result where ours has it. */
int trn_nccl_check(const struct trn_nccl_lib *l, ncclComm_t c, cudaStream_t s, void *p, size_t n, ncclUniqueId id);
int trn_nccl_check(const struct trn_nccl_lib *l, ncclComm_t c, cudaStream_t s, void *p, size_t n, ncclUniqueId id)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclResult_t state = ncclSuccess;
    int v = (int)n, sum = 0;
    (void)l;
    sum += (int)ncclGetVersion(&v) + (int)ncclGetUniqueId(&id) + (int)ncclCommInitRankConfig(&c, v, id, v, &config);
    sum += (int)ncclCommGetAsyncError(c, &state) + (int)ncclCommFinalize(c) + (int)ncclCommDestroy(c) + (int)ncclCommAbort(c);
    sum += (int)ncclGroupStart() + (int)ncclGroupEnd();
    sum += (int)ncclSend(p, n, ncclUint8, v, c, s) + (int)ncclRecv(p, n, ncclUint8, v, c, s) + (int)ncclAllGather(p, p, n, ncclUint8, c, s);
    sum += (int)ncclBroadcast(p, p, n, ncclUint8, v, c, s) + (int)ncclAllReduce(p, p, n, ncclFloat32, ncclSum, c, s);
    return sum + *ncclGetErrorString(state) + *ncclGetLastError(c);
}
