// chain.cuh: the leaves of a product as a kernel walks them, the way of outputs through them, and
// what products of one output a thread share: who computes which, and the choice of a kernel.
//
// A thread that owns outputs continues their chains from column to column; where a leaf ends, its sums
// go on a stack and as many pairs are added as subtrees end there (the tree of docs/exactness.md).
#ifndef ENGINE_KERNELS_CUDA_CHAIN_CUH
#define ENGINE_KERNELS_CUDA_CHAIN_CUH

#include "engine/kernels/cuda/unit.cuh"

enum { CU_DEPTH = 12, CU_NODE_ENDS = 128, CU_LEFT_OUT = 64 };

// By value to the kernel: N leaves at most. Most products have one, and then it costs nothing.
template <int N> struct cu_leaves {
    int32_t end[N];    // first column after the leaf
    uint8_t merges[N]; // additions due after it; CU_NODE_ENDS: a node is complete; CU_LEFT_OUT: it is in no node
};

// Subtrees of `node` that end after `leaf`, leaving out the leaf itself.
static inline uint8_t cu_merges(struct tree_node node, int32_t leaf)
{
    uint8_t n = 0;
    while (node.b - node.a > 1) {
        int32_t m = tree_split(node.a, node.b);
        if (leaf < m)
            node.b = m, n = 0;
        else
            node.a = m, n++;
    }
    return n;
}

// Of a slice of K of `cols` columns. N 1: it is one leaf.
template <int N> static inline void cu_leaves_of(const struct krn_leaves *l, int32_t cols, cu_leaves<N> *out)
{
    if constexpr (N == 1) {
        out->end[0] = cols, out->merges[0] = CU_NODE_ENDS;
    } else {
        for (int32_t i = 0; i < l->hi - l->lo; i++) out->end[i] = l->cols[i + 1], out->merges[i] = CU_LEFT_OUT;
        for (int32_t i = 0; i < l->n_nodes; i++)
            for (int32_t leaf = l->nodes[i].a; leaf < l->nodes[i].b; leaf++) {
                bool last = leaf == l->nodes[i].b - 1;
                out->merges[leaf - l->lo] = (uint8_t)(cu_merges(l->nodes[i], leaf) | (last ? CU_NODE_ENDS : 0));
            }
    }
}

// The same with every leaf a node, however many.
template <int N> static inline void cu_leaves_each(const struct krn_leaves *l, int32_t cols, cu_leaves<N> *out)
{
    for (int32_t i = 0; i < N && i < l->hi - l->lo; i++) out->end[i] = N == 1 ? cols : l->cols[i + 1], out->merges[i] = CU_NODE_ENDS;
}

// Where a kernel's outputs go.
struct cu_out {
    float *y;
    int64_t y_stride, node_stride;
};
static inline cu_out cu_out_of(const struct krn_matmul *a) { return {a->y, a->y_stride, a->node_stride}; }

// COUNT outputs of one thread, all at the same column. put(i, node, v): output i of that node is v.
template <int N, int COUNT> struct cu_chains {
    float acc[COUNT];
    int32_t leaf, node, depth;
    float stack[N > 1 ? CU_DEPTH : 1][N > 1 ? COUNT : 1];

    __device__ void begin()
    {
        for (int i = 0; i < COUNT; i++) acc[i] = 0.0f;
        leaf = 0, node = 0, depth = 0;
    }

    // Columns up to k are done: close the leaves that end there.
    template <class P> __device__ void reach(int32_t k, const cu_leaves<N> &l, int32_t n_leaf, const P &put)
    {
        if constexpr (N > 1)
            while (leaf < n_leaf && l.end[leaf] == k) {
                if (l.merges[leaf] == CU_LEFT_OUT) {
                    for (int i = 0; i < COUNT; i++) acc[i] = 0.0f;
                    leaf++;
                    continue;
                }
                for (int i = 0; i < COUNT; i++) stack[depth][i] = acc[i];
                depth++;
                for (int32_t m = l.merges[leaf] & (CU_NODE_ENDS - 1); m > 0; m--) {
                    depth--;
                    for (int i = 0; i < COUNT; i++) stack[depth - 1][i] = stack[depth - 1][i] + stack[depth][i];
                }
                if (l.merges[leaf] & CU_NODE_ENDS) {
                    for (int i = 0; i < COUNT; i++) put(i, node, stack[0][i]);
                    node++;
                    depth = 0;
                }
                for (int i = 0; i < COUNT; i++) acc[i] = 0.0f;
                leaf++;
            }
    }

    template <class P> __device__ void end(const P &put)
    {
        if constexpr (N == 1)
            for (int i = 0; i < COUNT; i++) put(i, 0, acc[i]);
    }
};

// A block that computes one tile (16 rows) for up to `lanes` tokens from t0 on: thread (slot, row) owns
// that row of the slot-th token.
struct cu_tile {
    const uint8_t *data;
    int32_t row, slot;
    bool works, owns; // has a token; and the row is asked for
    float *y;
    int64_t node_stride;

    __device__ cu_tile(const cu_mat &w, int32_t row0, int32_t row1, int32_t t0, int32_t lanes, const cu_out &out)
    {
        int32_t first = row0 + (int32_t)blockIdx.x * KRN_TILE;
        data = w.data + first / KRN_TILE * w.tile_bytes;
        row = (int32_t)threadIdx.x % KRN_TILE, slot = (int32_t)threadIdx.x / KRN_TILE;
        works = slot < lanes, owns = works && first + row < row1;
        y = out.y + (t0 + slot) * out.y_stride + first + row;
        node_stride = out.node_stride;
    }
    __device__ void operator()(int, int32_t node, float v) const
    {
        if (owns) y[node * node_stride] = v;
    }
};

// f with the type as a constant: f(cu_constant<DTYPE_Q8_0>()). False: it has no layout.
template <int V> struct cu_constant { static constexpr int value = V; };
template <class F> static inline bool cu_for_type(enum dtype t, const F &f)
{
    switch (t) {
    case DTYPE_F32: f(cu_constant<DTYPE_F32>()); return true;
    case DTYPE_F16: f(cu_constant<DTYPE_F16>()); return true;
    case DTYPE_BF16: f(cu_constant<DTYPE_BF16>()); return true;
    case DTYPE_Q8_0: f(cu_constant<DTYPE_Q8_0>()); return true;
    case DTYPE_Q4_0: f(cu_constant<DTYPE_Q4_0>()); return true;
    case DTYPE_Q4_1: f(cu_constant<DTYPE_Q4_1>()); return true;
    case DTYPE_Q5_0: f(cu_constant<DTYPE_Q5_0>()); return true;
    case DTYPE_Q5_1: f(cu_constant<DTYPE_Q5_1>()); return true;
    case DTYPE_Q2_K: f(cu_constant<DTYPE_Q2_K>()); return true;
    case DTYPE_Q3_K: f(cu_constant<DTYPE_Q3_K>()); return true;
    case DTYPE_Q4_K: f(cu_constant<DTYPE_Q4_K>()); return true;
    case DTYPE_Q5_K: f(cu_constant<DTYPE_Q5_K>()); return true;
    case DTYPE_Q6_K: f(cu_constant<DTYPE_Q6_K>()); return true;
    case DTYPE_IQ4_NL: f(cu_constant<DTYPE_IQ4_NL>()); return true;
    case DTYPE_IQ4_XS: f(cu_constant<DTYPE_IQ4_XS>()); return true;
    case DTYPE_IQ2_S: f(cu_constant<DTYPE_IQ2_S>()); return true;
    case DTYPE_TQ2_0: f(cu_constant<DTYPE_TQ2_0>()); return true;
    case DTYPE_MXFP4: f(cu_constant<DTYPE_MXFP4>()); return true;
    default: return false;
    }
}
// Types that fewer people have get fewer kernels, so that a build ends; the bits are the same.
static constexpr bool cu_is_rare(int type)
{
    return type == DTYPE_Q4_1 || type == DTYPE_Q5_0 || type == DTYPE_Q5_1 || type == DTYPE_Q2_K || type == DTYPE_Q3_K ||
           type == DTYPE_IQ4_NL || type == DTYPE_IQ4_XS || type == DTYPE_IQ2_S || type == DTYPE_TQ2_0 || type == DTYPE_MXFP4;
}
// The same of the number of leaves: 1, or as many as there may be.
template <int TYPE, class F> static inline void cu_for_leaves(const struct krn_leaves *l, const F &f)
{
    if constexpr (!cu_is_rare(TYPE))
        if (l->hi - l->lo == 1) {
            f(cu_constant<1>());
            return;
        }
    f(cu_constant<TREE_MAX_LEAF>());
}

#endif
