/* table.h: the operations of one forward pass as a table of kernels, one table per instruction set.
 *
 * Every table passes one suite (tests/kernels) by memcmp against `ref`: the ORDER OF OPERATIONS below is the
 * contract (docs/exactness.md), not a tolerance. All kernels are pure functions of their arguments, work on a
 * sub-range of the output so that threads can share one call, allocate nothing and use no libm.
 * Types come from engine/file/dtype.h, half conversions from engine/file/half.h.
 *
 * Float environment: -ffp-contract=off, round to nearest, no FTZ/DAZ. fma(a,b,c) below is one rounding (fmaf). */
#ifndef ENGINE_KERNELS_TABLE_H
#define ENGINE_KERNELS_TABLE_H

#include "base/kv_type.h"
#include "base/tree.h"
#include "engine/file/dtype.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    KRN_TILE = 16,   /* output rows interleaved in a packed tile: SIMD lanes are rows */
    KRN_UNIT = 32,   /* values of K: the unit of quantisation, of leaves and of cutting */
    KRN_KV_BLOCK = 16,    /* positions per KV block */
    KRN_ATTN_SPLIT = 256, /* key positions per softmax split, at absolute positions */
    KRN_ATTN_ROWS = 32,   /* query rows (tokens x heads of a group) that share a load of K and V */
    KRN_ATTN_STRIDE = KRN_ATTN_SPLIT + 16, /* floats from one row of weights to the next */
    KRN_ATTN_STRIPE = 32, /* values of a latent head that are turned round at once (attention_walk.h) */
    KRN_CUDA_KEYS = 640, KRN_CUDA_VALUES = 512, /* of a head, at most, on a card */
    KRN_LSE_TILE = 1024,  /* vocabulary ids per tile of a log-sum-exp */
};

/* ---- packed matrices ------------------------------------------------------------------------------------- */

/* A weight matrix W[rows][cols], packed in tiles of KRN_TILE rows (missing rows of the last tile are zero).
 * cols is this rank's slice of K. data: 64-byte aligned. */
struct krn_mat {
    enum dtype type;      /* a layout: krn_pack_layout */
    int32_t rows, cols;
    int64_t tile_bytes;   /* bytes from one tile to the next */
    const uint8_t *data;
};

/* The type whose layout holds a file's type exactly: what a krn_mat made of it is of. */
enum dtype krn_pack_layout(enum dtype file);
int64_t krn_pack_tile_bytes(enum dtype file, int32_t cols);
/* Pack one tile: src[i], i < n_rows <= KRN_TILE, points at the file's encoding of row i, starting at the block that
 * contains column k0; the tile receives columns [k0, k0+cols) of the full row. For quantised types k0 and cols are
 * multiples of KRN_UNIT (so a 256-wide super-block may be cut inside; its scales are expanded per unit). */
void krn_pack_tile(enum dtype type, void *dst, const uint8_t *const src[], int32_t n_rows, int32_t k0, int32_t cols);
/* Row r of a packed matrix as f32, exactly the file's values (embedding look-up from the tiles). dst[cols]. */
void krn_unpack_row(const struct krn_mat *m, int32_t row, float *dst);
void krn_unpack_rows(const struct krn_mat *m, const int32_t rows[], int32_t n, float *dst);

/* ---- activations ----------------------------------------------------------------------------------------- */

/* n_tok rows of K values. For a quantised matrix in the default mode q is used, else x (or xt).
 * Quantisation per unit of 32: amax = max|x|; d = amax / 127; inv = amax > 0 ? min(127 / amax, FLT_MAX) : 0;
 * q = round-half-even(x * inv) in [-127,127]; s = sum of q (exact, int32).
 * q and xt hold the tokens in groups, interleaved for the kernels (engine/kernels/panel.h). */
struct krn_act {
    int32_t n_tok, cols;
    const float *x;   /* [n_tok][cols] */
    uint8_t *q;       /* krn_act_q_bytes, 64-byte aligned; NULL: oracle mode or an unquantised matrix */
    float *xt;        /* x as krn_act_xt_floats, 64-byte aligned; NULL: kernels of f32 read x, slower when n_tok > 1 */
    uint32_t *xb;     /* x rounded to bf16, krn_act_xb_words, 64-byte aligned: of engine/kernels/rounded.h alone */
};
int64_t krn_act_q_bytes(int32_t n_tok, int32_t cols);
int64_t krn_act_xt_floats(int32_t n_tok, int32_t cols);
int64_t krn_act_xb_words(int32_t n_tok, int32_t cols);

/* How this rank's slice of K falls into leaves, and which subtrees of the reduction tree it can finish alone.
 * An unsplit K is one leaf: n_leaf 1, lo 0, hi 1, one node. */
struct krn_leaves {
    int32_t n_leaf, lo, hi;            /* of the whole tensor; this rank's range */
    int32_t cols[TREE_MAX_LEAF + 1];   /* cols[i-lo]: first local column of leaf i; cols[hi-lo] = all */
    int32_t n_nodes;
    struct tree_node nodes[TREE_MAX_NODES]; /* tree_maximal(n_leaf, lo, hi) */
};

/* y[t * y_stride + node * node_stride + r] = sum over the node's leaves of W[r][k] x[t][k].
 *   A leaf is one chain per (t, r), acc starting at +0, units in order:
 *     F32 F16 BF16 (and every type when x->q is NULL): for k in order: acc = fma(w[k], x[k], acc), w widened to f32
 *     Q8_0: acc = fma(dw * dx, (float)isum, acc)                      isum = sum of wq * xq over the unit (int32)
 *     Q4_0, Q5_0, IQ4_NL, MXFP4: the same over (wq - 8), (wq - 16), the book's values
 *     IQ4_XS, TQ2_0: acc = fma((d*sc) * dx, (float)isum, acc), TQ2_0 without sc   isum over the book's values, (wq - 1)
 *     Q4_K, Q5_K: acc = fma((d*sc) * dx, (float)isum, acc); then acc = fma(-((dmin*m) * dx), (float)s, acc)
 *     Q4_1, Q5_1: acc = fma(dw * dx, (float)isum, acc); then acc = fma(m * dx, (float)s, acc)
 *     Q6_K, Q3_K, IQ2_S: for each half unit h = 0, 1: acc = fma((d*sc_h) * dx, (float)isum_h, acc)
 *                                                     isum_h over (wq - 32), (wq - 4), the book's values
 *     Q2_K: for each half unit h: as Q6_K over wq; then acc = fma(-((dmin*m_h) * dx), (float)s_h, acc)
 *   where d, dmin, dw are the file's f16 widened, sc, m the integers widened, and each product in () rounds to f32.
 *   Oracle mode (x->q NULL) on a quantised matrix: w[k] is the dequantised f32 value (engine/file/dequant.h).
 *   A node of several leaves is the sum in the order of tree(n_leaf): node(a,b) = node(a,m) + node(m,b).
 * Rows [row0,row1) only; row0 is a multiple of KRN_TILE, and so is row1 or it equals w->rows. */
struct krn_matmul {
    const struct krn_mat *w;
    const struct krn_act *x;
    const struct krn_leaves *leaves;
    float *y;
    int64_t y_stride, node_stride;
    int32_t row0, row1;
};

/* ---- attention ------------------------------------------------------------------------------------------- */

/* One layer's paged KV of this rank. Block b of kv head h lies at (b * n_kv + h) * 16 * kv_row_bytes(type, head_dim) of
 * k and of v. f16, bf16, f32, fp8 (E4M3): K laid out [head_dim][16 positions], V [16 positions][head_dim]. q8_0: first the scales,
 * K [units][16], V [16][units], f16, then int8 codes laid out like the elements of the others; units of KV_UNIT values
 * of a head, the last one shorter where head_dim is no multiple (engine/kernels/kv_block.h).
 * v_dim > 0: latent. There is no v: a head's values are the first v_dim of its keys, as they are stored there. */
struct krn_kv {
    void *k, *v;
    enum kv_type type;
    int32_t n_kv, head_dim;
    int32_t v_dim;        /* 0: v has head_dim values of each head */
};
/* Values of a head, which are those of an output. */
static inline int32_t krn_kv_values(const struct krn_kv *kv) { return kv->v_dim ? kv->v_dim : kv->head_dim; }

/* Append: token t's K,V rows (k, v: [n_tok][n_kv][head_dim] f32; latent: v is not looked at) go to position pos[t] of the sequence whose block table
 * is table[t]; f16, bf16 and fp8 by round-to-nearest-even, fp8 within +-448. q8_0, per unit: amax = max|x|; scale = f16(min(amax / 127, 65504));
 * inv = amax > 0 ? min(127 / amax, FLT_MAX) : 0; code = round-half-even(x * inv). Tokens [t0,t1) only. */
struct krn_kv_append {
    const struct krn_kv *kv;
    const float *k, *v;
    const int32_t *pos;
    const int32_t *const *table;
    int32_t t0, t1;
};

/* Causal attention of query token t at position pos[t] over keys 0..pos[t] of its own sequence. K and V below are the
 * stored elements widened to f32; of q8_0 the product (float)code * (float)scale, rounded to f32.
 *   qs = q * scale, elementwise. score_j = chain over d in order of fma(qs[d], K_j[d], .), from +0.
 *   Keys are walked in splits [i*256, (i+1)*256) of absolute positions, cut at pos[t]. In a split:
 *     m = max score; p_j = krn_exp(score_j - m); l: 16 lanes, lane j%16 adds its p_j in order, then lanes added as
 *     (0+8,1+9,..7+15), then (0+4,..), (0+2,..), (0+1); o[d] = chain over j in order of fma(p_j, V_j[d], .), from +0.
 *   Splits are merged in order: (M,L,O) = first split; then M' = max(M,m), a = krn_exp(M-M'), b = krn_exp(m-M'),
 *     L = fma(L, a, l*b), O = fma(O, a, o*b). Result: O[d] * (1/L).
 * Query head h reads kv head h / (n_head / n_kv). Items are (kv head, token) pairs, item = kvh * n_tok + t; a call does
 * items [i0,i1). Tokens that follow each other in one sequence should stand side by side: they share loads.
 * q: [n_tok][n_head][head_dim], out: [n_tok][n_head][krn_kv_values], the rows of a token q_stride and out_stride floats after those of the one
 * before: so a call can take some of the heads that read one kv head. scratch: krn_attention_scratch() floats per thread.
 *
 * window > 0: only keys pos[t]-window+1 .. pos[t] are there; splits stand where they stood, the first is cut at its beginning too, and
 * splits without keys are not walked. Blocks wholly before the window may be read but never change a bit; their values must be finite.
 * chunked: the window begins where the chunk of `window` positions that pos[t] lies in begins, at pos[t] - pos[t] % window; the rest holds as it stands.
 * softcap > 0: a score s becomes cap * tanh(s / cap) as `softcap` below does it.
 * sinks[h]: after the last split, M' = max(M, sink), a = krn_exp(M-M'), L = fma(L, a, krn_exp(sink-M')), O = O*a.
 *
 * With n_split > 0 the splits of an item are items of their own, so that threads can share a long context:
 * item = (kvh * n_tok + t) * n_split + s, n_split >= pos[t] / KRN_ATTN_SPLIT + 1 for every t. They write m, l, o of each
 * head to partial, and `attention_merge` on items (kvh, t) makes out of them what a call without splits would have made. */
struct krn_attention {
    const struct krn_kv *kv;
    const float *q;
    float *out;
    const int32_t *pos;
    const int32_t *const *table;   /* [n_tok] block ids of each token's sequence */
    int32_t n_tok, n_head;
    int64_t q_stride, out_stride;  /* 0: tokens follow each other */
    float scale;
    int32_t window;                /* 0: all */
    bool chunked;
    float softcap;                 /* 0: none */
    const float *sinks;            /* [n_head], or NULL */
    float *scratch;
    int32_t i0, i1;
    int32_t n_split;               /* 0: items are whole */
    float *partial;                /* [n_kv * n_tok * n_split][group][krn_kv_values + 2]: o, m, l */
};
/* Where the queries of token t's head begin, and its output. */
static inline const float *krn_attention_q(const struct krn_attention *a, int64_t t, int32_t head)
{
    int64_t dim = a->kv->head_dim;
    return a->q + t * (a->q_stride ? a->q_stride : a->n_head * dim) + head * dim;
}
static inline float *krn_attention_out(const struct krn_attention *a, int64_t t, int32_t head)
{
    int64_t dim = krn_kv_values(a->kv);
    return a->out + t * (a->out_stride ? a->out_stride : a->n_head * dim) + head * dim;
}
/* The first key that a token at this position sees; that token t sees. */
static inline int32_t krn_first_key(int32_t pos, int32_t window, bool chunked)
{
    if (window <= 0 || pos < window) return 0;
    return chunked ? pos - pos % window : pos - window + 1;
}
static inline int32_t krn_attention_first(const struct krn_attention *a, int32_t t) { return krn_first_key(a->pos[t], a->window, a->chunked); }
static inline int64_t krn_attention_scratch(int32_t n_head, int32_t n_kv, int32_t head_dim)
{
    int32_t group = n_head / n_kv, rows = group > KRN_ATTN_ROWS ? group : KRN_ATTN_ROWS;
    return (int64_t)rows * (KRN_ATTN_STRIDE + 3 * head_dim + 4) + KRN_ATTN_SPLIT * KRN_ATTN_STRIPE + 64;
}
static inline int64_t krn_attention_partial(int32_t n_items, int32_t n_split, int32_t group, int32_t values)
{
    return (int64_t)n_items * n_split * group * (values + 2);
}

/* Feed-forward gates other than SwiGLU. */
enum krn_gate { KRN_GELU_TANH, KRN_GELU_ERF, KRN_SWIGLU_CLAMPED };

/* A candidate of the vocabulary: its value and its id. */
struct krn_pick {
    float z;
    int32_t id;
};

enum { KRN_TOP = 64 };
/* How noise chooses (`draw`): t: the temperature; 0: not at all. top > 0, KRN_TOP at most: among so many of the best, as far as what follows leaves
 * them (engine/kernels/few.h): top_p and typical_p from 1 on nothing, xtc: whether it strikes. */
struct krn_noise {
    float t, least;
    uint64_t key;
    int32_t top;
    float top_p, typical_p, xtc_threshold;
    bool xtc;
};

/* ---- the table ------------------------------------------------------------------------------------------- */

struct krn_table {
    const char *name;   /* "ref", or a folder: "avx2", "neon", ...; "cuda" comes from a plug-in (engine/backend) */

    void (*matmul)(const struct krn_matmul *a);
    /* Quantise units [u0,u1) of rows [t0,t1) of x into a->q. */
    void (*quantize)(const struct krn_act *a, int32_t t0, int32_t t1, int32_t u0, int32_t u1);
    /* Copy columns [k0,k1) of rows [t0,t1) of x into a->xt. NULL on a device, whose products read x as it is. */
    void (*interleave)(const struct krn_act *a, int32_t t0, int32_t t1, int32_t k0, int32_t k1);
    /* Rows rows[0..n) of a packed matrix as f32 into dst [n][cols]: the file's values (krn_unpack_row). */
    void (*unpack_rows)(const struct krn_mat *m, const int32_t rows[], int32_t n, float *dst);
    void (*kv_append)(const struct krn_kv_append *a);
    void (*attention)(const struct krn_attention *a);
    void (*attention_merge)(const struct krn_attention *a);

    /* y = x * (1/sqrt(mean(x^2) + eps)) * w per row of d values; y may be x. Rows [t0,t1).
     *   Sum of squares: 64 lanes, lane j = chain over i of fma(x[64i+j], x[64i+j], .); lanes added pairwise j + (j+32),
     *   j + (j+16), ... j + (j+1). scale = 1 / sqrtf(sum / d + eps); y = (x * scale) * w. */
    void (*rmsnorm)(float *y, const float *x, const float *w, int32_t d, float eps, int32_t t0, int32_t t1);

    /* The sum of squares of rmsnorm. */
    float (*sum_squares)(const float *x, int32_t d);
    /* y = (x - mean) / sqrt(var + eps) * w + b per row; b may be NULL; y may be x. Rows [t0,t1).
     *   mean = sum / d: 64 lanes, chains of x + acc, lanes added as in rmsnorm; c = x - mean; var = (sum of c*c as in rmsnorm) / d;
     *   scale = 1 / sqrtf(var + eps); y = fma(c * scale, w, b), without b (c * scale) * w. */
    void (*layernorm)(float *y, const float *x, const float *w, const float *b, int32_t d, float eps, int32_t t0, int32_t t1);

    /* Rotate pairs of each head in place: x [n_tok][n_head][head_dim], cs [n_tok][rot/2][2] = (cos, sin) of each token.
     * interleaved: pairs (2i, 2i+1), else (i, i + rot/2). y0 = fma(x0, c, -(x1*s)), y1 = fma(x0, s, x1*c). Tokens [t0,t1). */
    void (*rope)(float *x, int32_t n_head, int32_t head_dim, int32_t rot, bool interleaved, const float *const *cs,
                 int32_t t0, int32_t t1);

    void (*add)(float *x, const float *y, int64_t n);                 /* x += y */
    /* y = g / (1 + krn_exp(-g)) * u: e = krn_exp(-g); y = (g / (1 + e)) * u. y may be g. */
    void (*silu_mul)(float *y, const float *g, const float *u, int64_t n);

    /* y = act(g) * u, or act(g) when u is NULL; y may be g.
     *   GELU_TANH: e = krn_exp(g * fma(KRN_GELU_3, g*g, KRN_GELU_1)); act = g / (1 + e)
     *   GELU_ERF:  z = |g| * KRN_SQRT_HALF; t = 1 / fma(KRN_ERF_P, z, 1); q = (polynomial of math.h in t) * krn_exp(-(z*z));
     *              h = 0.5 * q; act = g * (g < 0 ? h : 1 - h)
     *   SWIGLU_CLAMPED: g = min(g, 7); u = max(min(u, 7), -7); e = krn_exp(g * -1.702); act = g / (1 + e); y = act * (u + 1) */
    void (*gate)(enum krn_gate kind, float *y, const float *g, const float *u, int64_t n);

    void (*mul)(float *x, const float *y, int64_t n);                 /* x *= y */
    void (*scale)(float *x, float a, int64_t n);                      /* x *= a */
    void (*axpy)(float *y, float a, const float *x, int64_t n);       /* y = fma(a, x, y) */
    /* Row i of x, n values, into row at[i] of y: y = fma(a[i], x, y), i in order. */
    void (*axpy_rows)(float *y, int64_t y_stride, const int32_t *at, const float *a, const float *x, int64_t x_stride, int32_t n_rows, int32_t n);
    /* x = cap * tanh(x / cap): t = krn_exp(x * (2 / cap)); x = ((t - 1) / (t + 1)) * cap. */
    void (*softcap)(float *x, float cap, int64_t n);

    /* Index of the largest of x[n] (ties: the lowest index); n >= 1. NaN never wins. */
    int32_t (*argmax)(const float *x, int32_t n);
    /* x = (x - m) / t */
    void (*temper)(float *x, float m, float t, int64_t n);
    /* Every i with x[i] >= least and x[i] > -infinity, in order, as {x[i], i} to out[n]; returns how many. NaN is none. */
    int32_t (*at_least)(const float *x, int32_t n, float least, struct krn_pick *out);
    /* Of the same i the one whose z[i] + krn_math_gumbel(rng_mix(key ^ (id0 + i))) is largest, of equals the first: that sum and
     * id0 + i; {-infinity, -1} when there is none. Who cannot win need not be computed (krn_gumbel_reach). */
    struct krn_pick (*draw)(const float *z, int32_t n, float least, uint64_t key, int32_t id0);
    /* sum of krn_exp(x[i] - m) over [0,n): tiles of KRN_LSE_TILE, each 16 lanes then the lane tree as in attention's l;
     * tiles added in tree(n_tiles). */
    float (*sum_exp)(const float *x, int32_t n, float m);
};

/* e^x for finite x: 0 below -87.3, saturates above 88.7; the exact sequence of fma steps is in math.h, the same for
 * scalars and vectors. */
float krn_exp(float x);
/* Natural logarithm of a positive normal float, same conditions. */
float krn_log(float x);

extern const struct krn_table krn_ref;
/* The best table this CPU runs; `want` names one ("ref", "avx2", "avxvnni", "avx512", "amx"; on ARM64 "ref", "neon",
 * "dotprod", "i8mm") or is NULL/"auto". Err BAD_CONFIG naming what this CPU lacks. */
MUST_USE enum err krn_table_pick(const char *want, const struct krn_table **out);
/* All tables this CPU runs, ref first; returns how many (<= max). */
int32_t krn_table_all(const struct krn_table *out[], int32_t max);

#endif
