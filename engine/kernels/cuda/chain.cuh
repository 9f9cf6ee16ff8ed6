// chain.cuh: the leaves of a product as a kernel walks them, the way of outputs through them, and
// what products of one output a thread share: who computes which, and the choice of a kernel.
//
// A thread that owns outputs continues their chains from column to column; where a leaf ends, its sums are added to those that wait for
// them, as many as subtrees end there, and then wait themselves (the tree of docs/exactness.md).
#ifndef ENGINE_KERNELS_CUDA_CHAIN_CUH
#define ENGINE_KERNELS_CUDA_CHAIN_CUH

#include "engine/kernels/cuda/unit.cuh"

extern "C" {
#include "proto/limits.h"
}

enum { CU_NODE_ENDS = 128, CU_LEFT_OUT = 64 };
// Kernels of many chains a thread are for so many leaves at most: those of every feed-forward, and of attention of so many heads. Others go by
// kernels of one chain.
enum { CU_FEW_LEAVES = 128 };
static_assert((int)CU_FEW_LEAVES >= (int)LIMIT_FFN_LEAVES, "experts have no other kernels");
static inline bool cu_few_leaves(const struct krn_leaves *l) { return l->hi - l->lo <= CU_FEW_LEAVES; }

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

// x, for what is computed seldom: nothing that is made of it moves out of a loop, into registers that are wanted there.
__device__ static inline int64_t cu_here(int64_t x)
{
    asm volatile("" : "+l"(x));
    return x;
}

// Where a kernel's outputs go.
struct cu_out {
    float *y;
    int64_t y_stride, node_stride;
};
static inline cu_out cu_out_of(const struct krn_matmul *a) { return {a->y, a->y_stride, a->node_stride}; }

// Left halves of COUNT sums of a tree of N leaves. Of one sum they are registers. Of more they are local memory, touched where leaves end: a
// variable apart from the chains, so that those stay in registers.
template <int N, int COUNT> struct cu_waiting {
    enum { LEVELS = N > 512 ? 10 : N > 128 ? 9 : N > 1 ? 7 : 1 }; // log2(N), rounded up
    static_assert(N <= 1024, "a level for each doubling");
    float sum[LEVELS][N > 1 ? COUNT : 1];

    __device__ float at(int32_t level, int i) const
    {
        if constexpr (COUNT > 1) return sum[level][i];
        float v = sum[0][0];
#pragma unroll
        for (int k = 1; k < LEVELS; k++) v = k == level ? sum[k][0] : v;
        return v;
    }
    __device__ void put(int32_t level, int i, float v)
    {
        if constexpr (COUNT > 1) sum[level][i] = v;
        else
#pragma unroll
            for (int k = 0; k < LEVELS; k++) sum[k][0] = k == level ? v : sum[k][0];
    }
};

// COUNT outputs of one thread, all at the same column. put(node, v): v[COUNT] are what they are of that node.
template <int N, int COUNT> struct cu_chains {
    float acc[COUNT];
    int32_t leaf, node, depth, next; // next: the column after the leaf

    __device__ void begin(const cu_leaves<N> &l)
    {
#pragma unroll
        for (int i = 0; i < COUNT; i++) acc[i] = 0.0f;
        leaf = 0, node = 0, depth = 0, next = l.end[0];
    }

    // Columns up to k are done: close the leaves that end there.
    template <class P> __device__ void reach(int32_t k, const cu_leaves<N> &l, int32_t n_leaf, cu_waiting<N, COUNT> &waiting, const P &put)
    {
        if constexpr (N > 1)
            while (next == k) {
                uint32_t then = l.merges[leaf++];
                next = leaf < n_leaf ? l.end[leaf] : -1;
                for (uint32_t m = then % CU_LEFT_OUT; m > 0; m--) {
                    depth--;
#pragma unroll
                    for (int i = 0; i < COUNT; i++) acc[i] = waiting.at(depth, i) + acc[i];
                }
                if (then & CU_NODE_ENDS)
                    put(node++, acc);
                else if (then != CU_LEFT_OUT) {
#pragma unroll
                    for (int i = 0; i < COUNT; i++) waiting.put(depth, i, acc[i]);
                    depth++;
                }
#pragma unroll
                for (int i = 0; i < COUNT; i++) acc[i] = 0.0f;
            }
    }

    template <class P> __device__ void end(const P &put)
    {
        if constexpr (N == 1) put(0, acc);
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
    __device__ void operator()(int32_t node, const float v[1]) const
    {
        if (owns) y[node * node_stride] = v[0];
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
// The same of the number of leaves: 1, or as many as there may be, MOST.
template <int TYPE, int MOST = TREE_MAX_LEAF, class F> static inline void cu_for_leaves(const struct krn_leaves *l, const F &f)
{
    if constexpr (!cu_is_rare(TYPE))
        if (l->hi - l->lo == 1) {
            f(cu_constant<1>());
            return;
        }
    f(cu_constant<MOST>());
}

#endif
