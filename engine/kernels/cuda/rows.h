/* rows.h: what a device has beside the table of kernels, for experts: rows by lists, and which types it reads. Device pointers. */
#ifndef ENGINE_KERNELS_CUDA_ROWS_H
#define ENGINE_KERNELS_CUDA_ROWS_H

#include "engine/file/dtype.h"

#include <stdint.h>

/* axpy_rows of engine/kernels/table.h for n_batches y and x, each y_batch and x_batch after the one before. */
void krn_cuda_axpy_batches(float *y, int64_t y_batch, int64_t y_stride, const int32_t *at, const float *a, const float *x, int64_t x_batch,
                           int64_t x_stride, int32_t n_batches, int32_t n_rows, int32_t n);
/* Row i of dst = row at[i] of src (at NULL: row i) times by[i] (by NULL: 1), n values each. */
void krn_cuda_copy_rows(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, const int32_t *at, const float *by, int32_t n_rows, int32_t n);
/* Is there a kernel for packed matrices of this type? */
int krn_cuda_reads(enum dtype t);

#endif
