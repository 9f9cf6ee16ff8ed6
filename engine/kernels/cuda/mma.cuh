// mma.cuh: products of small matrices that a warp computes together, on tensor cores.
//
// A is 16 rows, B 8 columns; lane l has of A rows l/4 and l/4 + 8, of B column l/4, in both the values
// k = 4 (l%4) .. + 3; and of the sums rows l/4 (c[0], c[1]) and l/4 + 8 (c[2], c[3]), columns 2 (l%4) and + 1.
// Integer sums are exact, so who adds them in which order shows nowhere. Where there are no tensor
// cores of that kind, and in the emulation, lanes hand each other what they need: the same contract.
// Source: PTX ISA, "Matrix fragments for mma.m16n8k16/k32" and m8n8k16.
#ifndef ENGINE_KERNELS_CUDA_MMA_CUH
#define ENGINE_KERNELS_CUDA_MMA_CUH

#include "engine/kernels/cuda/cuda.cuh"

#ifdef __CUDA_ARCH__

// volatile: all lanes come to a product together, so no compiler may move one to where only some go on.
#if __CUDA_ARCH__ >= 800
// c += A B of bf16 with K of 16; the card adds in an order of its own. a[0], a[1]: rows l/4, l/4 + 8, values k = 2 (l%4), + 1; a[2], a[3]: the same
// of k + 8; b[0], b[1] likewise of column l/4.
__device__ static inline void cu_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// The same of f16.
__device__ static inline void cu_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
__device__ static inline void cu_mma_bf16(float *, const uint32_t *, const uint32_t *) {} // never asked of these cards
__device__ static inline void cu_mma_f16(float *, const uint32_t *, const uint32_t *) {}
#endif
// A of shared memory that holds 16 columns, `stride` halves apart, of 16 rows each, 16-byte aligned.
__device__ static inline void cu_load_a(uint32_t a[4], const uint16_t *from, int stride, int lane)
{
    const uint16_t *at = from + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8; // the row of the small matrix that this lane tells of
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(at)));
}

// Rows' halves of A with K of 16: a[0] of row l/4, a[1] of row l/4 + 8.
__device__ static inline void cu_mma_k16(int32_t c[4], int32_t a0, int32_t a1, int32_t b)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(b));
#else
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
        : "+r"(c[0]), "+r"(c[1])
        : "r"(a0), "r"(b));
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
        : "+r"(c[2]), "+r"(c[3])
        : "r"(a1), "r"(b));
#endif
}

// K of 32: a[0], a[1] as above for k < 16, a[2], a[3] for the other half; b[0], b[1] likewise.
__device__ static inline void cu_mma_k32(int32_t c[4], const int32_t a[4], const int32_t b[2])
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    cu_mma_k16(c, a[0], a[1], b[0]);
    cu_mma_k16(c, a[2], a[3], b[1]);
#endif
}

#else

template <class W> __device__ static inline void cu_mma_halves(float c[4], const uint32_t a[4], const uint32_t b[2], const W &widen)
{
    int lane = (int)(threadIdx.x % 32), row = lane / 4, col = lane % 4 * 2;
    for (int t = 0; t < 4; t++)
        for (int half = 0; half < 2; half++) { // k = 8 half + 2 t, + 1
            uint32_t r0 = __shfl_sync(0xffffffffu, a[2 * half], row * 4 + t), r8 = __shfl_sync(0xffffffffu, a[2 * half + 1], row * 4 + t);
            uint32_t b0 = __shfl_sync(0xffffffffu, b[half], col * 4 + t), b1 = __shfl_sync(0xffffffffu, b[half], (col + 1) * 4 + t);
            const uint32_t rows[4] = {r0, r0, r8, r8}, cols[4] = {b0, b1, b0, b1};
            for (int e = 0; e < 4; e++) {
                c[e] = fmaf(widen((uint16_t)rows[e]), widen((uint16_t)cols[e]), c[e]);
                c[e] = fmaf(widen((uint16_t)(rows[e] >> 16)), widen((uint16_t)(cols[e] >> 16)), c[e]);
            }
        }
}
__device__ static inline void cu_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2]) { cu_mma_halves(c, a, b, cu_bf16); }
__device__ static inline void cu_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2]) { cu_mma_halves(c, a, b, cu_f16); }
__device__ static inline void cu_load_a(uint32_t a[4], const uint16_t *from, int stride, int lane)
{
    for (int i = 0; i < 4; i++) {
        const uint16_t *at = from + (lane % 4 * 2 + i / 2 * 8) * stride + lane / 4 + i % 2 * 8;
        a[i] = at[0] | (uint32_t)at[stride] << 16;
    }
}

__device__ static inline void cu_mma_k16(int32_t c[4], int32_t a0, int32_t a1, int32_t b)
{
    int lane = (int)(threadIdx.x % 32), row = lane / 4, col = lane % 4 * 2;
    long long a = (long long)((unsigned long long)(uint32_t)a1 << 32 | (uint32_t)a0);
    for (int t = 0; t < 4; t++) {
        long long rows = __shfl_sync(0xffffffffu, a, row * 4 + t);
        int b0 = __shfl_sync(0xffffffffu, b, col * 4 + t), b1 = __shfl_sync(0xffffffffu, b, (col + 1) * 4 + t);
        int low = (int)rows, high = (int)(rows >> 32);
        c[0] = __dp4a(low, b0, c[0]), c[1] = __dp4a(low, b1, c[1]);
        c[2] = __dp4a(high, b0, c[2]), c[3] = __dp4a(high, b1, c[3]);
    }
}

__device__ static inline void cu_mma_k32(int32_t c[4], const int32_t a[4], const int32_t b[2])
{
    cu_mma_k16(c, a[0], a[1], b[0]);
    cu_mma_k16(c, a[2], a[3], b[1]);
}

#endif

#endif
