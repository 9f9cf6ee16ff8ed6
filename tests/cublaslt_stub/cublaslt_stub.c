/* cublaslt_stub.c: stands in for NVIDIA's library of matrix products (libcublaslt_stub.so, opened through TESSERA_CUBLASLT): the functions
 * engine/kernels/cuda/lt.h declares, products computed one by one in the order of their last column first. It refuses what the documentation
 * forbids: leading dimensions below the rows, pointers less aligned than was said, layouts that do not fit each other.
 *
 * A stream is a struct nccl_stub_stream, whose copy reaches the memory that the pointers name. CUBLASLT_STUB=refuse: no product can be had. */
#include "tests/nccl_stub/nccl_stub.h"

#include "engine/kernels/cuda/lt.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
#define EXPORT __attribute__((visibility("default")))

struct layout { int type; uint64_t rows, cols; int64_t ld; };
struct preference { uint32_t align[9]; uint64_t workspace; };
struct product { int compute, scale; };

EXPORT int cublaslt_stub_products; /* done so far */

static int make(void **out, size_t bytes)
{
    *out = calloc(1, bytes);
    return !*out;
}
static int destroy(void *p)
{
    free(p);
    return 0;
}

EXPORT int cublasLtCreate(void **handle) { return make(handle, 1); }
EXPORT int cublasLtDestroy(void *handle) { return destroy(handle); }
EXPORT int cublasLtMatmulDescCreate(void **out, int compute, int scale)
{
    int failed = make(out, sizeof(struct product));
    if (!failed) *(struct product *)*out = (struct product){compute, scale};
    return failed;
}
EXPORT int cublasLtMatmulDescDestroy(void *p) { return destroy(p); }
EXPORT int cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t cols, int64_t ld)
{
    if (!rows || !cols || ld < (int64_t)rows) return INVALID_VALUE;
    int failed = make(out, sizeof(struct layout));
    if (!failed) *(struct layout *)*out = (struct layout){type, rows, cols, ld};
    return failed;
}
EXPORT int cublasLtMatrixLayoutDestroy(void *p) { return destroy(p); }
EXPORT int cublasLtMatmulPreferenceCreate(void **out) { return make(out, sizeof(struct preference)); }
EXPORT int cublasLtMatmulPreferenceDestroy(void *p) { return destroy(p); }
EXPORT int cublasLtMatmulPreferenceSetAttribute(void *p, int what, const void *value, size_t bytes)
{
    struct preference *f = p;
    if (what == KRN_LT_PREF_WORKSPACE && bytes == 8) memcpy(&f->workspace, value, 8);
    else if (what >= KRN_LT_PREF_ALIGN_A && what <= KRN_LT_PREF_ALIGN_D && bytes == 4) memcpy(&f->align[what], value, 4);
    else return INVALID_VALUE;
    return 0;
}

static bool fit(const struct layout *a, const struct layout *b, const struct layout *c, const struct layout *d)
{
    return a->type == KRN_LT_R_16BF && b->type == KRN_LT_R_16BF && c->type == KRN_LT_R_32F && d->type == KRN_LT_R_32F && a->cols == b->rows &&
           a->rows == d->rows && b->cols == d->cols && c->rows == d->rows && c->cols == d->cols;
}

/* The choice remembers what alignments it was made for. */
EXPORT int cublasLtMatmulAlgoGetHeuristic(void *handle, void *product, void *a, void *b, void *c, void *d, void *preference, int n,
                                          struct krn_lt_choice out[], int *n_out)
{
    const struct product *p = product;
    const struct preference *f = preference;
    const char *order = getenv("CUBLASLT_STUB");
    *n_out = 0;
    if (!handle || n < 1 || p->compute != KRN_LT_COMPUTE_32F || p->scale != KRN_LT_R_32F || !fit(a, b, c, d)) return INVALID_VALUE;
    if (order && !strcmp(order, "refuse")) return NOT_SUPPORTED;
    *n_out = 1;
    out[0] = (struct krn_lt_choice){.workspace = f->workspace};
    for (int i = 0; i < 4; i++) out[0].algo.data[i] = f->align[KRN_LT_PREF_ALIGN_A + i];
    return 0;
}

static float wide(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* What lies between the matrix's first element and its last. */
static void *fetch(const struct nccl_stub_stream *s, const void *p, const struct layout *l)
{
    size_t n = ((size_t)(l->cols - 1) * (size_t)l->ld + (size_t)l->rows) * 2;
    void *out = malloc(n);
    s->copy(out, p, n);
    return out;
}

EXPORT int cublasLtMatmul(void *handle, void *product, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout, const void *beta,
                          const void *c, void *c_layout, void *d, void *d_layout, const struct krn_lt_algo *algo, void *workspace, size_t workspace_bytes,
                          void *stream)
{
    const struct layout *la = a_layout, *lb = b_layout, *ld = d_layout;
    const struct nccl_stub_stream *s = stream;
    const void *at[] = {a, b, c, d};
    if (!handle || !product || !fit(la, lb, c_layout, ld) || *(const float *)alpha != 1 || *(const float *)beta != 0 || !workspace || !workspace_bytes)
        return INVALID_VALUE;
    for (int i = 0; i < 4; i++)
        if (!algo->data[i] || (uintptr_t)at[i] % algo->data[i]) return INVALID_VALUE;
    uint16_t *w = fetch(s, a, la), *x = fetch(s, b, lb);
    float *column = malloc((size_t)ld->rows * sizeof *column);
    for (uint64_t t = 0; t < ld->cols; t++) {
        for (uint64_t r = 0; r < ld->rows; r++) {
            float sum = 0;
            for (uint64_t k = la->cols; k-- > 0;) sum += wide(w[k * (uint64_t)la->ld + r]) * wide(x[t * (uint64_t)lb->ld + k]);
            column[r] = sum;
        }
        s->copy((float *)d + t * (uint64_t)ld->ld, column, (size_t)ld->rows * sizeof *column);
    }
    free(w);
    free(x);
    free(column);
    cublaslt_stub_products++;
    return 0;
}
