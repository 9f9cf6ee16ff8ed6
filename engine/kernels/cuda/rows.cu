// rows.cu: rows that go to or come from a list: the tokens of an expert. And which types have kernels.
#include "engine/kernels/cuda/chain.cuh"

extern "C" {
#include "engine/kernels/cuda/rows.h"
}

namespace {

enum { LANES = 32, MOST = 65535 }; // LANES: targets that one column of blocks shares out among its rows of blocks

__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    copy_kernel(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, const int32_t *at, const float *by, int32_t row0, int32_t n)
{
    int32_t c = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), i = row0 + (int32_t)blockIdx.y;
    if (c >= n) return;
    float v = src[(at ? at[i] : i) * src_stride + c];
    dst[i * dst_stride + c] = by ? v * by[i] : v;
}

// Grid: (columns, targets modulo LANES, batches). A target row meets its additions in the order of the list.
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    axpy_kernel(float *y, int64_t y_batch, int64_t y_stride, const int32_t *at, const float *a, const float *x, int64_t x_batch,
                int64_t x_stride, int32_t n_rows, int32_t n)
{
    int32_t c = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    if (c >= n) return;
    y += blockIdx.z * y_batch + c, x += blockIdx.z * x_batch + c;
    for (int32_t i = 0; i < n_rows; i++) {
        int32_t to = at[i];
        if (to % LANES == (int32_t)blockIdx.y) y[to * y_stride] = fmaf(a[i], x[i * x_stride], y[to * y_stride]);
    }
}

unsigned columns(int32_t n) { return (unsigned)DIV_UP(n, KRN_CUDA_THREADS); }

} // namespace

extern "C" void krn_cuda_copy_rows(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, const int32_t *at,
                                   const float *by, int32_t n_rows, int32_t n)
{
    for (int32_t row = 0; row < n_rows && n > 0; row += MOST) {
        int32_t rows = n_rows - row < MOST ? n_rows - row : (int32_t)MOST;
        KRN_LAUNCH(copy_kernel, dim3(columns(n), (unsigned)rows), dim3(KRN_CUDA_THREADS), 0, dst, dst_stride, src, src_stride, at, by, row, n);
    }
    krn_cuda_launched("copy_rows");
}

extern "C" void krn_cuda_axpy_batches(float *y, int64_t y_batch, int64_t y_stride, const int32_t *at, const float *a, const float *x,
                                      int64_t x_batch, int64_t x_stride, int32_t n_batches, int32_t n_rows, int32_t n)
{
    if (n_batches < 1 || n_rows < 1 || n < 1) return;
    KRN_LAUNCH(axpy_kernel, dim3(columns(n), LANES, (unsigned)n_batches), dim3(KRN_CUDA_THREADS), 0, y, y_batch, y_stride, at, a, x,
               x_batch, x_stride, n_rows, n);
    krn_cuda_launched("axpy_batches");
}

extern "C" int krn_cuda_reads(enum dtype t) { return cu_for_type(t, [](auto) {}); }
