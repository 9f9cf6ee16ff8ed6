// begin.cu: is what is loaded on this card compiled so that its kernels wait in cu_begin?
#include "engine/kernels/cuda/cuda.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

__global__ void begin_kernel() { cu_begin(); }

} // namespace

extern "C" int krn_cuda_begins(void)
{
#ifdef __CUDACC__
    cudaFuncAttributes a; // the driver may have made the kernels from those of an older architecture
    return cudaFuncGetAttributes(&a, begin_kernel) == cudaSuccess && a.ptxVersion >= 90;
#else
    (void)begin_kernel;
    return 0;
#endif
}
