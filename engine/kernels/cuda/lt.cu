// lt.cu: products that round (rounded.h), for many tokens, by cuBLASLt: the rows of a matrix are laid out as the library reads them, as many at a time
// as there is room for, then each node of the tree is one product. The library adds a node's terms in an order of its own, also across leaves.
//
// W, in tiles of 16 rows, becomes [column][row] in BF16; x is read from the pairs that rounded.cu makes, [token][column]. Column by column, as the
// library counts, y is [rows x tokens] = W [rows x columns] times x [columns x tokens].
#include "engine/kernels/cuda/unit.cuh"

extern "C" {
#include "engine/kernels/cuda/lt.h"
}

namespace {

__device__ uint32_t bf16_of_f16(uint32_t w) { return cu_to_bf16(cu_f16((uint16_t)w)) | (uint32_t)cu_to_bf16(cu_f16((uint16_t)(w >> 16))) << 16; }

// Grid: (columns, tiles); a thread takes eight rows of a column.
template <int TYPE> __global__ void __launch_bounds__(KRN_CUDA_THREADS) rows_kernel(cu_mat w, int32_t tile0, int32_t ld, uint16_t *out)
{
    cu_begin();
    int32_t i = (int32_t)(blockIdx.x * KRN_CUDA_THREADS + threadIdx.x), k = i / 2, half = i % 2, tile = (int32_t)blockIdx.y;
    if (k >= w.cols) return;
    int4 v = *(const int4 *)(w.data + (int64_t)(tile0 + tile) * w.tile_bytes + ((int64_t)k * KRN_TILE + half * 8) * 2);
    if (TYPE == DTYPE_F16) {
        v.x = (int)bf16_of_f16((uint32_t)v.x), v.y = (int)bf16_of_f16((uint32_t)v.y);
        v.z = (int)bf16_of_f16((uint32_t)v.z), v.w = (int)bf16_of_f16((uint32_t)v.w);
    }
    *(int4 *)(out + (int64_t)k * ld + tile * KRN_TILE + half * 8) = v;
}

struct product {
    int32_t rows, cols, n_tok;
    const uint16_t *w, *x;
    float *y;
    int64_t w_ld, x_ld, y_ld; // elements from column to column, as the library counts
};

uint32_t alignment(const void *p)
{
    uintptr_t a = (uintptr_t)p;
    uint32_t n = 256;
    while (a % n) n /= 2;
    return n;
}

bool set_alignments(krn_lt *lt, const product &p)
{
    uint32_t w = alignment(p.w), x = alignment(p.x), y = alignment(p.y);
    auto set = [&](int what, uint32_t v) { return lt->lib.preference_set(lt->preference, what, &v, sizeof v) == 0; };
    return set(KRN_LT_PREF_ALIGN_A, w) && set(KRN_LT_PREF_ALIGN_B, x) && set(KRN_LT_PREF_ALIGN_C, y) && set(KRN_LT_PREF_ALIGN_D, y);
}

bool run(krn_lt *lt, const product &p, void *w, void *x, void *y)
{
    const float one = 1.0f, zero = 0.0f;
    krn_lt_choice best = {};
    int n = 0;
    if (!set_alignments(lt, p) || lt->lib.choose(lt->handle, lt->product, w, x, y, y, lt->preference, 1, &best, &n) || n < 1 || best.state) return false;
    return !lt->lib.matmul(lt->handle, lt->product, &one, p.w, w, p.x, x, &zero, p.y, y, p.y, y, &best.algo, lt->workspace, KRN_LT_WORKSPACE,
                           (void *)krn_cuda_stream());
}

bool multiply(krn_lt *lt, const product &p)
{
    void *w = nullptr, *x = nullptr, *y = nullptr;
    bool ok = !lt->lib.layout_create(&w, KRN_LT_R_16BF, (uint64_t)p.rows, (uint64_t)p.cols, p.w_ld) &&
              !lt->lib.layout_create(&x, KRN_LT_R_16BF, (uint64_t)p.cols, (uint64_t)p.n_tok, p.x_ld) &&
              !lt->lib.layout_create(&y, KRN_LT_R_32F, (uint64_t)p.rows, (uint64_t)p.n_tok, p.y_ld) && run(lt, p, w, x, y);
    for (void *l : {w, x, y})
        if (l) (void)lt->lib.layout_destroy(l);
    return ok;
}

void lay_out(const struct krn_mat *w, int32_t row0, int32_t tiles, uint16_t *out)
{
    dim3 grid((unsigned)DIV_UP(2 * w->cols, KRN_CUDA_THREADS), (unsigned)tiles);
    if (w->type == DTYPE_F16) KRN_LAUNCH(rows_kernel<DTYPE_F16>, grid, dim3(KRN_CUDA_THREADS), 0, cu_mat_of(w), row0 / KRN_TILE, tiles * KRN_TILE, out);
    else KRN_LAUNCH(rows_kernel<DTYPE_BF16>, grid, dim3(KRN_CUDA_THREADS), 0, cu_mat_of(w), row0 / KRN_TILE, tiles * KRN_TILE, out);
}

// Rows [row0, row1), which fit into the room.
bool some_rows(krn_lt *lt, const struct krn_matmul *a, int32_t row0, int32_t row1)
{
    const struct krn_leaves *l = a->leaves;
    int32_t tiles = DIV_UP(row1 - row0, KRN_TILE);
    uint16_t *room = (uint16_t *)lt->room;
    lay_out(a->w, row0, tiles, room);
    for (int32_t i = 0; i < l->n_nodes; i++) {
        int32_t k0 = l->cols[l->nodes[i].a - l->lo], k1 = l->cols[l->nodes[i].b - l->lo];
        int64_t ld = (int64_t)tiles * KRN_TILE;
        product p = {row1 - row0, k1 - k0, a->x->n_tok, room + k0 * ld, (const uint16_t *)a->x->xb + k0, a->y + i * a->node_stride + row0,
                     ld, (a->w->cols + 1) / 2 * 2, a->y_stride};
        if (!multiply(lt, p)) return false;
    }
    return true;
}

} // namespace

extern "C" int krn_cuda_lt_matmul(const struct krn_matmul *a)
{
    enum { TILES = 65535 }; // of a grid
    krn_lt *lt = krn_cuda_lt();
    if (!lt || lt->off || a->x->n_tok < KRN_LT_TOKENS) return 0;
    int64_t tiles = (int64_t)KRN_LT_ROOM / (2 * (int64_t)KRN_TILE * a->w->cols);
    if (tiles < 1) return 0;
    int32_t most = (int32_t)(tiles < TILES ? tiles : (int64_t)TILES) * KRN_TILE;
    for (int32_t row0 = a->row0; row0 < a->row1 && !lt->off; row0 += most) lt->off = !some_rows(lt, a, row0, MIN(a->row1, row0 + most));
    krn_cuda_launched("rows for cuBLASLt");
    return !lt->off;
}
