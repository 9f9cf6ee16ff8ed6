/* pass.h: one pass as its sublayers see it, and the pieces they share. Private to engine/model.
 *
 * Every function here is run by all threads of the team at once: thread i of n does its share, and eng_pass_barrier is where they meet.
 * Sublayers are numbered k = 0, 1, 2, ...: two a layer. Each leaves its sum over K as subtrees (docs/exactness.md) in eng_pass_parts(k);
 * the pass adds them up over the ranks, and the next sublayer adds the sum to the residual just before it reads it. */
#ifndef ENGINE_MODEL_PASS_H
#define ENGINE_MODEL_PASS_H

#include "engine/model/forward.h"

/* Items from which attention does not split them: there are enough for all that compute side by side. */
int32_t eng_pass_split_items(const struct eng_model *m);
/* The kernel of attention that is not split. */
void (*eng_pass_attention(const struct eng_model *m))(const struct krn_attention *a);

/* Items [i0,i1) = slice * n_tok + t that cost thread i of n its share, of so many slices of heads; an item costs as many keys as its token reads. */
void eng_attention_share(const struct eng_batch *b, int32_t window, bool chunked, int32_t n_slices, int32_t i, int32_t n, int64_t *i0, int64_t *i1);
/* How many splits each item of attention falls into when there are too few items to occupy n threads, or the device; 0: none. */
int32_t eng_attention_splits(const struct eng_model *m, const struct eng_batch *b, int32_t n_kv, int32_t n);

/* One pass, as every thread of the team sees it. On a device it may have rows of padding at its end (graphs.h), whose position is -1: their
 * values are anything, nothing is appended to a cache or read from one for them, and nobody reads what becomes of them. */
struct eng_pass {
    struct eng_model *m;
    const struct eng_batch *b;
    enum err failed; /* written by thread 0 before a barrier, read by all after it */
};

/* ---- the sublayers ---- */

void eng_attention(struct eng_pass *p, int32_t k, int32_t i, int32_t n);
void eng_mla_run(struct eng_pass *p, int32_t k, int32_t i, int32_t n);
void eng_mlp(const struct eng_pass *p, int32_t k, int32_t i, int32_t n);
void eng_moe_run(struct eng_pass *p, int32_t k, int32_t i, int32_t n);

/* ---- what they share ---- */

void eng_pass_lap(const struct eng_model *m, int32_t i, enum eng_op op);
void eng_pass_barrier(const struct eng_model *m, int32_t i);

/* The form in which a product of these weights reads its input. */
enum { READS_CODES = 1, READS_FLOATS = 2, READS_BF16 = 4 /* of many tokens, else as floats */ };
int eng_pass_reads(const struct eng_model *m, const struct krn_mat *w);

/* x as the input of products that read it in these forms; eng_pass_prepare fills them in. */
struct krn_act eng_pass_act(const struct eng_model *m, const float *x, int32_t n_tok, int32_t cols, int forms);
/* Columns [k0,k1) of rows [t0,t1); or elements [e0,e1), row after row. */
void eng_pass_prepare(const struct eng_model *m, const struct krn_act *a, int64_t t0, int64_t t1, int64_t k0, int64_t k1);
void eng_pass_prepare_flat(const struct eng_model *m, const struct krn_act *a, int64_t e0, int64_t e1);

/* This thread's rows of y = W x; x is prepared. */
void eng_pass_matmul(const struct eng_model *m, const struct krn_mat *w, const float *x, int32_t n_tok, const struct krn_leaves *leaves, float *y,
                     int64_t y_stride, int64_t node_stride, int32_t i, int32_t n);
/* An unsplit K of so many columns. What nobody looks at of it, some 4 KB, is not cleared. */
static inline void eng_pass_whole(struct krn_leaves *l, int32_t cols)
{
    l->n_leaf = l->hi = l->n_nodes = 1;
    l->lo = l->cols[0] = 0;
    l->cols[1] = cols;
    l->nodes[0] = (struct tree_node){0, 1};
}
/* The same with K whole. */
void eng_pass_matmul_whole(const struct eng_model *m, const struct krn_mat *w, const float *x, int32_t n_tok, float *y, int32_t i, int32_t n);

/* Products that read no output of each other: y = W x for each of them, x prepared, rows shared out among the threads together. Between two
 * calls there is a barrier. */
enum { ENG_PRODUCTS = 4 };
struct eng_product {
    const struct krn_mat *w;
    const float *x;
    const struct krn_leaves *leaves; /* NULL: K whole */
    float *y;
    int64_t y_stride, node_stride;
};
void eng_pass_products(const struct eng_model *m, const struct eng_product p[], int32_t n_products, int32_t n_tok, int32_t i, int32_t n);
MUST_USE enum err eng_shares_open(struct eng_share **out, int32_t n_threads); /* Own: free() */

/* The sublayer before k is added to the residual of tokens [t0,t1), and `in` is what sublayer k reads of it, ready for its products. */
void eng_pass_enter(const struct eng_model *m, const struct krn_act *in, int32_t k, int64_t t0, int64_t t1);
/* Sublayer k is added to the residual. */
void eng_pass_leave(const struct eng_model *m, int32_t k, int64_t t0, int64_t t1);
/* y of tokens [t0,t1) += bias, if there is one. */
void eng_pass_bias(const struct eng_model *m, float *y, const float *bias, int32_t cols, int64_t t0, int64_t t1);
/* Rows [t0,t1) of y = norm of rows of x, by the family's kind. */
void eng_pass_norm(const struct eng_model *m, float *y, const float *x, const float *w, const float *bias, int32_t d, int64_t t0, int64_t t1);
/* This thread's share of act(gate) * up, row after row in gate (up where there is no gate), e values at a time into L1. */
float *eng_pass_gate(const struct eng_model *m, float *gate, float *up, int64_t e0, int64_t e1);
/* All of it on a device, and the forms of a; a's x is gate, or up where there is no gate. */
void eng_pass_gated(const struct eng_model *m, float *gate, float *up, const struct krn_act *a);

/* Where sublayer k leaves its subtrees, and where their sum then is (k < 0: NULL). */
float *eng_pass_parts(const struct eng_model *m, int32_t k);
float *eng_pass_pending(const struct eng_model *m, int32_t k);

#endif
