// chain.cuh: the leaves of a product as a kernel walks them, and one output's way through them.
//
// A thread that owns an output continues one chain from column to column; where a leaf ends, its sum
// goes on a stack and as many pairs are added as subtrees end there (the tree of docs/exactness.md).
#ifndef ENGINE_KERNELS_CUDA_CHAIN_CUH
#define ENGINE_KERNELS_CUDA_CHAIN_CUH

#include "engine/kernels/cuda/cuda.cuh"

enum { CU_DEPTH = 12, CU_NODE_ENDS = 128 };

// By value to the kernel: N leaves at most. Most products have one, and then it costs nothing.
template <int N> struct cu_leaves {
    int32_t end[N];    // first column after the leaf
    uint8_t merges[N]; // additions due after it; CU_NODE_ENDS: a node is complete
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

template <int N> static inline void cu_leaves_of(const struct krn_leaves *l, cu_leaves<N> *out)
{
    for (int32_t i = 0; i < l->n_nodes; i++)
        for (int32_t leaf = l->nodes[i].a; leaf < l->nodes[i].b; leaf++) {
            bool last = leaf == l->nodes[i].b - 1;
            out->end[leaf - l->lo] = l->cols[leaf - l->lo + 1];
            out->merges[leaf - l->lo] =
                (uint8_t)(cu_merges(l->nodes[i], leaf) | (last ? CU_NODE_ENDS : 0));
        }
}

// Where a kernel's outputs go.
struct cu_out {
    float *y;
    int64_t y_stride, node_stride;
};

// One output (token, row).
template <int N> struct cu_chain {
    float acc;
    int32_t leaf, node, depth;
    float stack[N > 1 ? CU_DEPTH : 1];

    __device__ void begin() { acc = 0.0f, leaf = 0, node = 0, depth = 0; }

    // Columns up to k are done: close the leaves that end there.
    __device__ void reach(int32_t k, const cu_leaves<N> &l, int32_t n_leaf, float *y, int64_t node_stride,
                          bool keep)
    {
        if constexpr (N > 1)
            while (leaf < n_leaf && l.end[leaf] == k) {
                stack[depth++] = acc;
                for (int32_t m = l.merges[leaf] & (CU_NODE_ENDS - 1); m > 0; m--) {
                    depth--;
                    stack[depth - 1] = stack[depth - 1] + stack[depth];
                }
                if (l.merges[leaf] & CU_NODE_ENDS) {
                    if (keep) y[node * node_stride] = stack[0];
                    node++;
                    depth = 0;
                }
                acc = 0.0f;
                leaf++;
            }
    }

    __device__ void end(float *y, bool keep)
    {
        if (N == 1 && keep) *y = acc;
    }
};

#endif
