/* nccl_lib.c: see nccl_lib.h. */
#include "transport/nccl_lib.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

enum { OLDEST = 21400 };

static const struct name {
    const char *name;
    size_t at; /* in the table */
} names[] = {
#define N(symbol, field) {symbol, offsetof(struct trn_nccl_lib, field)}
    N("ncclGetVersion", get_version),
    N("ncclGetUniqueId", get_unique_id),
    N("ncclCommInitRankConfig", init_rank_config),
    N("ncclCommGetAsyncError", get_async_error),
    N("ncclCommFinalize", finalize),
    N("ncclCommDestroy", destroy),
    N("ncclCommAbort", abort),
    N("ncclGroupStart", group_start),
    N("ncclGroupEnd", group_end),
    N("ncclSend", send),
    N("ncclRecv", recv),
    N("ncclAllGather", all_gather),
    N("ncclBroadcast", broadcast),
    N("ncclAllReduce", all_reduce),
    N("ncclGetErrorString", error_string),
    N("ncclGetLastError", last_error),
#undef N
};

static enum err open_lib(struct trn_nccl_lib *l)
{
    const char *said = getenv("TESSERA_NCCL"), *path = said ? said : "libnccl.so.2";
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) return err_raise(ERR_BAD_CONFIG, "NCCL cannot be loaded: %s", dlerror());
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        void *f = dlsym(lib, names[i].name);
        if (!f) {
            enum err e = err_raise(ERR_BAD_CONFIG, "%s is no NCCL that can be used: it has no %s, 2.14 or newer is needed", path, names[i].name);
            dlclose(lib);
            return e;
        }
        *(void **)((char *)l + names[i].at) = f;
    }
    if (l->get_version(&l->version)) l->version = 0;
    if (l->version >= OLDEST) return OK;
    enum err e = err_raise(ERR_BAD_CONFIG, "%s is NCCL %d.%d, 2.14 or newer is needed", path, l->version / (l->version < 10000 ? 1000 : 10000),
                           l->version % (l->version < 10000 ? 1000 : 10000) / 100);
    dlclose(lib);
    return e;
}

enum err trn_nccl_lib_open(const struct trn_nccl_lib **out)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct trn_nccl_lib lib;
    static bool is_open;
    pthread_mutex_lock(&lock);
    enum err e = is_open ? OK : open_lib(&lib);
    is_open |= !e;
    pthread_mutex_unlock(&lock);
    if (!e) *out = &lib;
    return e;
}
