/* lora.h: LoRA adapters beside the model's matrices, several at once: y = W x + B (scale * (A x)) for rows of a step that use one.
 *
 * W x is what it is without adapters: rows that use none have the same bits whoever stands beside them. A x takes the input as f32, also
 * where W's is quantised, so it depends on no cut. A stands beside W's columns and is cut as they are, B beside W's rows:
 *   q, k, v, gate, up   K is whole on every rank: each computes all of A x, and B's rows that belong to its own rows of W;
 *   o, down             K is cut: A x is summed in W's leaves and tree, behind W's own sums and in the same all-reduce; every rank then
 *                       computes all rows of B, and adds them to the sum before bias and norm.
 * docs/exactness.md has the order of every sum. On the host only. */
#ifndef ENGINE_MODEL_LORA_H
#define ENGINE_MODEL_LORA_H

#include "engine/file/adapter.h"
#include "engine/model/pass.h"
#include "proto/model_weights.h"

enum {
    ENG_LORA_RANK = 512,
    ENG_LORA_TOGETHER = 3, /* products with one input */
    ENG_LORA_THREADS = 16, /* of a rank, as buffers are counted */
};

/* The adapters of a model, in the order of their numbers, which begin at 1. */
struct eng_adapters {
    int32_t n;
    const char *const *paths;
    const uint64_t *sums;      /* fingerprints they must have, 0: any; or NULL */
};

struct eng_lora_pair {
    struct krn_mat a, b;       /* this rank's part; a.rows 0: the adapter has none here */
    float scale;
};

/* Those of a step that use adapter `number`: rows[first] ... rows[first + n - 1]. */
struct eng_lora_group { int32_t number, first, n; };

struct eng_lora {
    int32_t n, n_layers;         /* of this stage */
    int32_t room;                /* floats of a row of u: the largest rank, in whole units */
    struct eng_lora_pair *pairs; /* [n][n_layers][ADAPTER_TARGETS] */
    bool *any;                   /* [n_layers][ADAPTER_TARGETS] has one of them a pair here? */
    struct eng_weights *mem;
    int32_t wide;                /* columns of the widest A, in whole units */
    float *u;                    /* [ENG_LORA_TOGETHER][max_tok][room]; row k is that of rows[k] */
    float *together;             /* [threads][2][KRN_GROUP][wide] */
    /* of the running step */
    struct eng_lora_group *groups; /* [n] */
    int32_t *rows;               /* [max_tok] rows that use an adapter, by adapter */
    int32_t n_groups, n_rows;
};

/* What adapters need of a rank beside the model: bytes of matrices and of step buffers. parts: added to what the planner deals out, or NULL.
 * Err as eng_lora_open, but nothing beside headers is read. */
MUST_USE enum err eng_lora_count(const struct eng_adapters *a, const struct eng_spec *s, const struct eng_shard *h, int32_t max_tok,
                                 struct model_weights *parts, int64_t *mat_bytes, int64_t *step_bytes);
/* Values of a row of u, as in eng_lora.room. */
static inline int32_t eng_lora_room(int32_t rank) { return ROUND_UP(rank, KRN_UNIT); }

/* m->lora, of m's spec, shard and team; NULL where there are none. Collective over `world` (or NULL): ranks without the files get them from
 * others. Err UNSUPPORTED, BAD_FILE: one sentence with module and remedy (eng_adapter_read; a base of another shape; too large a rank). */
MUST_USE enum err eng_lora_open(struct eng_model *m, const struct eng_adapters *a, struct trn_coll *world);
void eng_lora_close(struct eng_lora *l); /* NULL-safe */

/* ---- a pass; each of these does nothing where no row uses an adapter with such a pair ---- */

/* Which rows use which adapter. */
void eng_lora_step(struct eng_model *m, const struct eng_batch *b);

/* Floats that sublayer k leaves behind the sums of each of its nodes. */
int64_t eng_lora_behind(const struct eng_model *m, int32_t k);

/* Products with the same input x: y = W x of `target`, [n_tok][stride]. */
struct eng_lora_product {
    enum eng_adapter_target target;
    float *y;
    int64_t stride;
};
/* A x of each of them; may run beside the products. Then, behind a barrier, y += B (scale * A x); true: something was added, and a barrier is to
 * follow before y is read. */
void eng_lora_in(const struct eng_model *m, int32_t layer, const struct eng_lora_product p[], int32_t n_products, const float *x, int32_t cols,
                 int32_t i, int32_t n);
bool eng_lora_out(const struct eng_model *m, int32_t layer, const struct eng_lora_product p[], int32_t n_products, int32_t i, int32_t n);

/* The same of the product that ends sublayer k: A x of this rank's leaves, behind the nodes' sums; and once all is summed over the ranks,
 * B (scale * A x) is added to the sums. */
void eng_lora_leaves(const struct eng_model *m, int32_t k, const float *x, int32_t cols, const struct krn_leaves *leaves, int32_t n_tok, int32_t i, int32_t n);
void eng_lora_sums(const struct eng_model *m, int32_t k, int32_t n_tok, int32_t i, int32_t n);

#endif
