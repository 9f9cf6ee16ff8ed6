/* lt.c: see engine/kernels/cuda/lt.h. */
#include "engine/kernels/cuda/lt.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct name { const char *name; size_t at; } names[] = {
#define N(symbol, field) {symbol, offsetof(struct krn_lt_lib, field)}
    N("cublasLtCreate", create),
    N("cublasLtDestroy", destroy),
    N("cublasLtMatmulDescCreate", product_create),
    N("cublasLtMatmulDescDestroy", product_destroy),
    N("cublasLtMatrixLayoutCreate", layout_create),
    N("cublasLtMatrixLayoutDestroy", layout_destroy),
    N("cublasLtMatmulPreferenceCreate", preference_create),
    N("cublasLtMatmulPreferenceDestroy", preference_destroy),
    N("cublasLtMatmulPreferenceSetAttribute", preference_set),
    N("cublasLtMatmulAlgoGetHeuristic", choose),
    N("cublasLtMatmul", matmul),
#undef N
};

/* The file that TESSERA_CUBLASLT names, else the runtime's own version as the loader finds it; "off": none. */
static void *open_library(char *why, size_t n_why)
{
    char name[32];
    const char *said = getenv("TESSERA_CUBLASLT");
    snprintf(name, sizeof name, "libcublasLt.so.%d", CUDART_VERSION / 1000);
    if (said && !strcmp(said, "off")) {
        snprintf(why, n_why, "TESSERA_CUBLASLT is off");
        return NULL;
    }
    void *library = dlopen(said ? said : name, RTLD_NOW | RTLD_LOCAL);
    if (!library) snprintf(why, n_why, "%s", dlerror());
    return library;
}

int krn_lt_open(struct krn_lt *lt, char *why, size_t n_why)
{
    uint64_t bytes = KRN_LT_WORKSPACE;
    int failed = 0;
    lt->library = open_library(why, n_why);
    if (!lt->library) return 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *f = dlsym(lt->library, names[i].name);
        if (!f) {
            snprintf(why, n_why, "the library has no %s", names[i].name);
            krn_lt_close(lt);
            return 0;
        }
        *(void **)((char *)&lt->lib + names[i].at) = f;
    }
    failed = lt->lib.create(&lt->handle);
    if (!failed) failed = lt->lib.product_create(&lt->product, KRN_LT_COMPUTE_32F, KRN_LT_R_32F);
    if (!failed) failed = lt->lib.preference_create(&lt->preference);
    if (!failed) failed = lt->lib.preference_set(lt->preference, KRN_LT_PREF_WORKSPACE, &bytes, sizeof bytes);
    if (failed) {
        snprintf(why, n_why, "it does not begin: status %d", failed);
        krn_lt_close(lt);
    }
    return !failed;
}

void krn_lt_close(struct krn_lt *lt)
{
    if (lt->preference) (void)lt->lib.preference_destroy(lt->preference);
    if (lt->product) (void)lt->lib.product_destroy(lt->product);
    if (lt->handle) (void)lt->lib.destroy(lt->handle);
    if (lt->library) (void)dlclose(lt->library);
    lt->preference = lt->product = lt->handle = lt->library = NULL;
}
