// matmul.cu: which of the products: codes by codes, of many tokens or of few, or values by f32; and rows as values.
#include "engine/kernels/cuda/chain.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

// From so many tokens on the tensor cores do whole groups.
enum { MMA_TOKENS = 2 * KRN_GROUP };

extern "C" void krn_cuda_matmul(const struct krn_matmul *a)
{
    if (a->row0 >= a->row1 || a->x->n_tok < 1) return;
    if (!krn_pack_is_quant(a->w->type) || !a->x->q) {
        krn_cuda_matmul_float(a);
        return;
    }
    int32_t many = a->x->n_tok >= MMA_TOKENS && cu_few_leaves(a->leaves) ? a->x->n_tok / KRN_GROUP * KRN_GROUP : 0;
    if (many) krn_cuda_matmul_mma(a);
    if (many < a->x->n_tok) krn_cuda_matmul_int8(a, 1, many);
}

// Those of one type, few tokens and K whole go together; each of the others alone.
extern "C" void krn_cuda_matmuls(const struct krn_matmul a[], int32_t n)
{
    for (int32_t i = 0, end; i < n; i = end) {
        bool int8 = a[i].x->q && krn_pack_is_quant(a[i].w->type) && a[i].x->n_tok < MMA_TOKENS;
        for (end = i + 1; int8 && end < n && a[end].w->type == a[i].w->type;) end++;
        if (int8) krn_cuda_matmul_int8(a + i, end - i, 0);
        else krn_cuda_matmul(a + i);
    }
}

namespace {

// Block x is row rows[x] of the matrix; a thread takes a unit, or an element of an unquantised type.
template <int TYPE>
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    unpack_kernel(cu_mat w, const int32_t *rows, float *out)
{
    enum { EACH = cu_type<TYPE>::quant ? (int)KRN_UNIT : 1 };
    cu_begin();
    int32_t r = rows[blockIdx.x], row = r % KRN_TILE;
    const uint8_t *tile = w.data + r / KRN_TILE * w.tile_bytes;
    int32_t i = (int32_t)(blockIdx.y * blockDim.x + threadIdx.x);
    out += (int64_t)blockIdx.x * w.cols;
    if (r < 0) {
        for (int32_t k = i * EACH; k < (i + 1) * EACH && k < w.cols; k++) out[k] = -0.0f;
        return;
    }
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
    KRN_LAUNCH(unpack_kernel<TYPE>, cu_rows_by_columns(n, items), dim3(KRN_CUDA_THREADS), 0, cu_mat_of(w), rows, out);
}

} // namespace

extern "C" void krn_cuda_unpack_rows(const struct krn_mat *w, const int32_t *rows, int32_t n, float *out)
{
    if (n < 1) return;
    cu_for_type(w->type, [&](auto t) { launch<decltype(t)::value>(w, rows, n, out); });
    krn_cuda_launched("unpack_rows");
}
