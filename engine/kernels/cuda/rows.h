/* rows.h: what a device has beside the table of kernels, for experts: rows by lists, and which types it reads. Device pointers. */
#ifndef ENGINE_KERNELS_CUDA_ROWS_H
#define ENGINE_KERNELS_CUDA_ROWS_H

#include "engine/file/dtype.h"

#include <stdint.h>

/* Row i of dst = row at[i] of src (at NULL: row i) times by[i] (by NULL: 1), n values each; at[i] < 0: row i stays as it is. */
void krn_cuda_copy_rows(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, const int32_t *at, const float *by, int32_t n_rows, int32_t n);
/* The same of panels of codes (krn_act's q), src of n_tok rows, dst of n_rows, a multiple of KRN_GROUP. */
void krn_cuda_copy_codes(uint8_t *dst, const uint8_t *src, int32_t n_tok, int32_t cols, const int32_t *at, int32_t n_rows);
/* Is there a kernel for packed matrices of this type? */
int krn_cuda_reads(enum dtype t);

#endif
