// matmul.cu: which of the two products: codes by codes, or values by f32; and rows as values.
#include "engine/kernels/cuda/unit.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

extern "C" void krn_cuda_matmul(const struct krn_matmul *a)
{
    if (a->row0 >= a->row1 || a->x->n_tok < 1) return;
    if (krn_pack_is_quant(a->w->type) && a->x->q)
        krn_cuda_matmul_int8(a);
    else
        krn_cuda_matmul_float(a);
}

namespace {

// Block y is row rows[y] of the matrix; a thread takes a unit, or an element of an unquantised type.
template <int TYPE>
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    unpack_kernel(cu_mat w, const int32_t *rows, float *out)
{
    int32_t r = rows[blockIdx.y], row = r % KRN_TILE;
    const uint8_t *tile = w.data + r / KRN_TILE * w.tile_bytes;
    int32_t i = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    out += (int64_t)blockIdx.y * w.cols;
    if constexpr (!cu_type<TYPE>::quant) {
        if (i < w.cols) out[i] = cu_element<TYPE>(tile, (int64_t)i * KRN_TILE + row);
    } else if (i < w.cols / KRN_UNIT) {
        int32_t code[8];
        float d[2], m[2];
        cu_unit_codes<TYPE>(w, tile, i, row, code);
        cu_unit_scales<TYPE>(w, tile, i, row, d, m);
        for (int k = 0; k < KRN_UNIT; k++) out[i * KRN_UNIT + k] = cu_unit_value<TYPE>(code, d, m, k);
    }
}

template <int TYPE> void launch(const struct krn_mat *w, const int32_t *rows, int32_t n, float *out)
{
    int32_t items = cu_type<TYPE>::quant ? w->cols / KRN_UNIT : w->cols;
    dim3 grid((unsigned)DIV_UP(items, KRN_CUDA_THREADS), (unsigned)n);
    KRN_LAUNCH(unpack_kernel<TYPE>, grid, dim3(KRN_CUDA_THREADS), 0, cu_mat_of(w), rows, out);
}

} // namespace

extern "C" void krn_cuda_unpack_rows(const struct krn_mat *w, const int32_t *rows, int32_t n, float *out)
{
    if (n < 1) return;
    switch (w->type) {
    case DTYPE_F32: launch<DTYPE_F32>(w, rows, n, out); break;
    case DTYPE_F16: launch<DTYPE_F16>(w, rows, n, out); break;
    case DTYPE_BF16: launch<DTYPE_BF16>(w, rows, n, out); break;
    case DTYPE_Q8_0: launch<DTYPE_Q8_0>(w, rows, n, out); break;
    case DTYPE_Q4_0: launch<DTYPE_Q4_0>(w, rows, n, out); break;
    case DTYPE_Q4_K: launch<DTYPE_Q4_K>(w, rows, n, out); break;
    case DTYPE_Q5_K: launch<DTYPE_Q5_K>(w, rows, n, out); break;
    case DTYPE_Q6_K: launch<DTYPE_Q6_K>(w, rows, n, out); break;
    case DTYPE_Q4_1: launch<DTYPE_Q4_1>(w, rows, n, out); break;
    case DTYPE_Q5_0: launch<DTYPE_Q5_0>(w, rows, n, out); break;
    case DTYPE_Q5_1: launch<DTYPE_Q5_1>(w, rows, n, out); break;
    case DTYPE_Q2_K: launch<DTYPE_Q2_K>(w, rows, n, out); break;
    case DTYPE_Q3_K: launch<DTYPE_Q3_K>(w, rows, n, out); break;
    case DTYPE_IQ4_NL: launch<DTYPE_IQ4_NL>(w, rows, n, out); break;
    case DTYPE_IQ4_XS: launch<DTYPE_IQ4_XS>(w, rows, n, out); break;
    case DTYPE_IQ2_S: launch<DTYPE_IQ2_S>(w, rows, n, out); break;
    case DTYPE_TQ2_0: launch<DTYPE_TQ2_0>(w, rows, n, out); break;
    case DTYPE_MXFP4: launch<DTYPE_MXFP4>(w, rows, n, out); break;
    default: break; // no layout
    }
    krn_cuda_launched("unpack_rows");
}
