/* lt_check.c: compiled where NVIDIA's header is, and never run: does engine/kernels/cuda/lt.h declare what that header declares? */
#include "engine/kernels/cuda/lt.h"

#include <cublasLt.h>

_Static_assert(KRN_LT_COMPUTE_32F == (int)CUBLAS_COMPUTE_32F && KRN_LT_R_32F == (int)CUDA_R_32F && KRN_LT_R_16BF == (int)CUDA_R_16BF, "types");
_Static_assert(KRN_LT_PREF_WORKSPACE == (int)CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES &&
                   KRN_LT_PREF_ALIGN_A == (int)CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
                   KRN_LT_PREF_ALIGN_B == (int)CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES &&
                   KRN_LT_PREF_ALIGN_C == (int)CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES &&
                   KRN_LT_PREF_ALIGN_D == (int)CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
               "preferences");
_Static_assert(sizeof(cublasStatus_t) == sizeof(int) && sizeof(cudaDataType) == sizeof(int) && sizeof(cublasComputeType_t) == sizeof(int), "enums");
_Static_assert(sizeof(struct krn_lt_algo) == sizeof(cublasLtMatmulAlgo_t) && sizeof(struct krn_lt_choice) == sizeof(cublasLtMatmulHeuristicResult_t) &&
                   offsetof(struct krn_lt_choice, workspace) == offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize) &&
                   offsetof(struct krn_lt_choice, state) == offsetof(cublasLtMatmulHeuristicResult_t, state),
               "a choice");

/* Each function called with arguments of its own kinds, in the order in which lt.h has them. */
int krn_lt_check(cublasLtHandle_t h, cublasLtMatmulDesc_t p, cublasLtMatrixLayout_t l, cublasLtMatmulPreference_t f, cublasLtMatmulHeuristicResult_t *out,
                 const cublasLtMatmulAlgo_t *algo, void *d, size_t n, cudaStream_t s);
int krn_lt_check(cublasLtHandle_t h, cublasLtMatmulDesc_t p, cublasLtMatrixLayout_t l, cublasLtMatmulPreference_t f, cublasLtMatmulHeuristicResult_t *out,
                 const cublasLtMatmulAlgo_t *algo, void *d, size_t n, cudaStream_t s)
{
    int k = 0, sum = 0;
    sum += (int)cublasLtCreate(&h) + (int)cublasLtDestroy(h);
    sum += (int)cublasLtMatmulDescCreate(&p, CUBLAS_COMPUTE_32F, CUDA_R_32F) + (int)cublasLtMatmulDescDestroy(p);
    sum += (int)cublasLtMatrixLayoutCreate(&l, CUDA_R_16BF, (uint64_t)n, (uint64_t)n, (int64_t)n) + (int)cublasLtMatrixLayoutDestroy(l);
    sum += (int)cublasLtMatmulPreferenceCreate(&f) + (int)cublasLtMatmulPreferenceDestroy(f);
    sum += (int)cublasLtMatmulPreferenceSetAttribute(f, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, d, n);
    sum += (int)cublasLtMatmulAlgoGetHeuristic(h, p, l, l, l, l, f, 1, out, &k);
    sum += (int)cublasLtMatmul(h, p, d, d, l, d, l, d, d, l, d, l, algo, d, n, s);
    return sum;
}
