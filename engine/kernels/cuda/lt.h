/* lt.h: NVIDIA's library of matrix products, cuBLASLt, as the products of many tokens that round use it (rounded.h) where it is there: opened at run
 * time by engine/backend/cuda/lt.c, called by lt.cu.
 *
 * Declared here, so that everything builds and runs where the library is not; where its own header is found, lt_check.c has the compiler compare the
 * two. Source: the cuBLAS documentation, "Using the cuBLASLt API". */
#ifndef ENGINE_KERNELS_CUDA_LT_H
#define ENGINE_KERNELS_CUDA_LT_H

#include "engine/kernels/table.h"

#include <stddef.h>
#include <stdint.h>

/* Ints of the ABI. */
enum { KRN_LT_COMPUTE_32F = 68, KRN_LT_R_32F = 0, KRN_LT_R_16BF = 14 };
enum { KRN_LT_PREF_WORKSPACE = 1, KRN_LT_PREF_ALIGN_A = 5, KRN_LT_PREF_ALIGN_B = 6, KRN_LT_PREF_ALIGN_C = 7, KRN_LT_PREF_ALIGN_D = 8 };

struct krn_lt_algo { uint64_t data[8]; };
struct krn_lt_choice {
    struct krn_lt_algo algo;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

/* Handles are opaque. A matrix of a layout is column by column, ld elements from one to the next. 0 is success. */
struct krn_lt_lib {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*product_create)(void **product, int compute, int scale_type);
    int (*product_destroy)(void *product);
    int (*layout_create)(void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld);
    int (*layout_destroy)(void *layout);
    int (*preference_create)(void **preference);
    int (*preference_destroy)(void *preference);
    int (*preference_set)(void *preference, int what, const void *value, size_t bytes);
    int (*choose)(void *handle, void *product, void *a, void *b, void *c, void *d, void *preference, int n, struct krn_lt_choice out[], int *n_out);
    int (*matmul)(void *handle, void *product, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout, const void *beta,
                  const void *c, void *c_layout, void *d, void *d_layout, const struct krn_lt_algo *algo, void *workspace, size_t workspace_bytes,
                  void *stream);
};

#ifndef KRN_LT_ROOM
enum { KRN_LT_ROOM = 32 << 20 }; /* bytes: rows of a matrix as the library reads them */
#endif
enum { KRN_LT_WORKSPACE = 32 << 20, KRN_LT_TOKENS = 256 /* from so many on */ };

/* Of a device. */
struct krn_lt {
    struct krn_lt_lib lib;
    void *library, *handle, *product, *preference;
    void *room, *workspace; /* on the device */
    int off;                /* it has refused a product: ours from then on */
};

/* room, workspace: set by the caller. 1: it can be used; 0: why says why not. */
int krn_lt_open(struct krn_lt *lt, char why[], size_t n_why);
void krn_lt_close(struct krn_lt *lt);
/* Of the calling thread's device; NULL: without (engine/backend/cuda/plugin.c). */
struct krn_lt *krn_cuda_lt(void);
/* The product, for KRN_LT_TOKENS tokens or more, the sum of a node in the library's order; 0: not done. */
int krn_cuda_lt_matmul(const struct krn_matmul *a);

#endif
