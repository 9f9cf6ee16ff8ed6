// lanes.cuh: the sum of a row in 64 lanes, added pairwise 32, 16, ... 1 apart (docs/exactness.md).
#ifndef ENGINE_KERNELS_CUDA_LANES_CUH
#define ENGINE_KERNELS_CUDA_LANES_CUH

#include "engine/kernels/cuda/cuda.cuh"

enum { CU_LANES = 64 };

// By all threads of a block of at least CU_LANES; the result is lane[0] for all of them.
__device__ static inline void cu_lane_sum(float *lane, float mine)
{
    int32_t j = (int32_t)threadIdx.x;
    if (j < CU_LANES) lane[j] = mine;
    for (int32_t half = CU_LANES / 2; half; half /= 2) {
        __syncthreads();
        if (j < half) lane[j] = lane[j] + lane[j + half];
    }
    __syncthreads();
}

// This thread's part of a row's sum of squares; 0 beyond the lanes.
__device__ static inline float cu_squares(const float *row, int32_t d)
{
    float s = 0.0f;
    if (threadIdx.x < CU_LANES)
        for (int32_t i = (int32_t)threadIdx.x; i < d; i += CU_LANES) s = fmaf(row[i], row[i], s);
    return s;
}

// Threads for rows of d values.
static inline int32_t cu_lane_threads(int32_t d) { return d <= 256 ? (int32_t)CU_LANES : (int32_t)KRN_CUDA_THREADS; }

#endif
