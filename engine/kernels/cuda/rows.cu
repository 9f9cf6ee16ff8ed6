// rows.cu: rows that go to or come from a list: the tokens of an expert. And which types have kernels.
#include "engine/kernels/cuda/chain.cuh"

extern "C" {
#include "engine/kernels/cuda/rows.h"
}

namespace {

enum {
    MOST = 65535,
    UNITS = 8, // of a group of rows, by one block
    WORDS = KRN_UNIT_BYTES / 4, CODES = KRN_UNIT / 4, // of a row's unit: all, and those of its codes
};

__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    copy_kernel(float *dst, int64_t dst_stride, const float *src, int64_t src_stride, const int32_t *at, const float *by, int32_t row0, int32_t n)
{
    cu_begin();
    int32_t c = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), i = row0 + (int32_t)blockIdx.y;
    if (c >= n) return;
    int32_t from = at ? at[i] : i;
    if (from < 0) return;
    float v = src[from * src_stride + c];
    dst[i * dst_stride + c] = by ? v * by[i] : v;
}

// Grid: (UNITS units, groups of dst). A group's unit is written from end to end; of each row of src its codes lie together.
__global__ void __launch_bounds__(KRN_CUDA_THREADS) codes_kernel(int32_t *dst, const int32_t *src, int32_t n_tok, int32_t units, const int32_t *at, int32_t group0)
{
    cu_begin();
    constexpr int32_t ALL = KRN_GROUP * WORDS;
    __shared__ int32_t from[KRN_GROUP];
    int32_t j = (int32_t)threadIdx.x, u0 = (int32_t)blockIdx.x * UNITS, n = min((int32_t)UNITS, units - u0) * ALL;
    int64_t group = group0 + (int64_t)blockIdx.y;
    if (j < KRN_GROUP) from[j] = at[group * KRN_GROUP + j];
    __syncthreads();
    dst += (group * units + u0) * ALL;
    for (int32_t i = j; i < n; i += KRN_CUDA_THREADS) {
        int32_t word = i % ALL, row = word < KRN_GROUP * CODES ? word / CODES : word % KRN_GROUP, t = from[row];
        if (t < 0) continue;
        int32_t t0 = t / KRN_GROUP * KRN_GROUP, width = krn_group_width(n_tok, t0);
        const int32_t *unit = src + ((int64_t)t0 * units + (int64_t)(u0 + i / ALL) * width) * WORDS;
        dst[i] = unit[word < KRN_GROUP * CODES ? (t - t0) * CODES + word % CODES : word / KRN_GROUP * width + t - t0];
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

extern "C" void krn_cuda_copy_codes(uint8_t *dst, const uint8_t *src, int32_t n_tok, int32_t cols, const int32_t *at, int32_t n_rows)
{
    int32_t units = cols / KRN_UNIT;
    for (int32_t g = 0; g < n_rows / KRN_GROUP && units > 0; g += MOST) {
        int32_t groups = min(n_rows / KRN_GROUP - g, (int32_t)MOST);
        KRN_LAUNCH(codes_kernel, dim3((unsigned)DIV_UP(units, (int32_t)UNITS), (unsigned)groups), dim3(KRN_CUDA_THREADS), 0, (int32_t *)dst, (const int32_t *)src,
                   n_tok, units, at, g);
    }
    krn_cuda_launched("copy_codes");
}

extern "C" int krn_cuda_reads(enum dtype t) { return cu_for_type(t, [](auto) {}); }
