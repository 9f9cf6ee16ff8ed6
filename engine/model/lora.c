/* lora.c: see lora.h: what a pass computes of adapters.
 *
 * Work is cut into pieces (a product, some rows of one adapter, some tiles of its matrix), and piece number k is thread k mod n's: rows of
 * one adapter that follow each other read its matrices once. A x stands in no relation to W x, so its pieces are done before a thread takes
 * its share of the large product, without a barrier between: who has none takes more of the product. */
#include "engine/model/lora.h"

#include <string.h>

enum {
    ROWS = 32,  /* of a step in one piece: enough for a matrix to be read a few times only */
    TILES = 4,  /* of B in one piece */
};

static struct krn_leaves whole_of(int32_t cols)
{
    return (struct krn_leaves){.n_leaf = 1, .lo = 0, .hi = 1, .cols = {0, cols}, .n_nodes = 1, .nodes = {{0, 1}}};
}

static const struct eng_lora_pair *pair_of(const struct eng_lora *l, int32_t number, int32_t layer, enum eng_adapter_target target)
{
    return &l->pairs[((int64_t)(number - 1) * l->n_layers + layer) * ADAPTER_TARGETS + target];
}

static bool has(const struct eng_model *m, int32_t layer, enum eng_adapter_target target)
{
    const struct eng_lora *l = m->lora;
    return l && l->n_runs && l->any[layer * ADAPTER_TARGETS + target];
}

void eng_lora_step(struct eng_model *m, const struct eng_batch *b)
{
    struct eng_lora *l = m->lora;
    if (!l) return;
    l->n_runs = l->n_rows = 0;
    for (int32_t t = 0; t < b->n_tok; t++) {
        if (!b->adapter[t]) continue;
        struct eng_lora_run *last = l->n_runs ? &l->runs[l->n_runs - 1] : NULL;
        if (!last || last->t1 != t || last->number != b->adapter[t])
            *(last = &l->runs[l->n_runs++]) = (struct eng_lora_run){.t0 = t, .number = b->adapter[t], .at = l->n_rows};
        last->t1 = t + 1;
        l->n_rows++;
    }
}

static enum eng_adapter_target end_of(int32_t k) { return k % 2 ? ADAPTER_DOWN : ADAPTER_O; }

int64_t eng_lora_behind(const struct eng_model *m, int32_t k)
{
    return has(m, k / 2, end_of(k)) ? (int64_t)m->lora->n_rows * m->lora->room : 0;
}

/* ---- A x ---- */

/* Rows [t0,t1) of x, one tile of A; u: of row t0. */
static void a_tile(const struct eng_model *m, const struct krn_mat *a, int32_t tile, const float *x, int32_t rows, const struct krn_leaves *leaves, float *u,
                   int64_t node_stride)
{
    struct krn_act in = {.n_tok = rows, .cols = a->cols, .x = x};
    m->krn->matmul(&(struct krn_matmul){.w = a, .x = &in, .leaves = leaves, .y = u, .y_stride = m->lora->room, .node_stride = node_stride,
                                        .row0 = tile * KRN_TILE, .row1 = MIN((tile + 1) * KRN_TILE, a->rows)});
}

/* Every piece of A x of one run, counted on from *piece. u: of the run's first row. */
static void a_run(const struct eng_model *m, const struct eng_lora_run *run, const struct krn_mat *a, const float *x, const struct krn_leaves *leaves, float *u,
                  int64_t node_stride, int32_t *piece, int32_t i, int32_t n)
{
    for (int32_t t = run->t0; t < run->t1; t += ROWS)
        for (int32_t tile = 0; tile < DIV_UP(a->rows, KRN_TILE); tile++)
            if ((*piece)++ % n == i)
                a_tile(m, a, tile, x + (int64_t)t * a->cols, MIN(ROWS, run->t1 - t), leaves, u + (int64_t)(t - run->t0) * m->lora->room, node_stride);
}

static float *u_of(const struct eng_model *m, int32_t product, int32_t row)
{
    return m->lora->u + ((int64_t)product * m->max_tok + row) * m->lora->room;
}

void eng_lora_in(const struct eng_model *m, int32_t layer, const struct eng_lora_product p[], int32_t n_products, const float *x, int32_t cols,
                 int32_t i, int32_t n)
{
    const struct krn_leaves whole = whole_of(cols);
    int32_t piece = 0;
    for (int32_t k = 0; k < n_products; k++) {
        if (!has(m, layer, p[k].target)) continue;
        for (int32_t r = 0; r < m->lora->n_runs; r++) {
            const struct eng_lora_run *run = &m->lora->runs[r];
            const struct eng_lora_pair *q = pair_of(m->lora, run->number, layer, p[k].target);
            if (q->a.rows) a_run(m, run, &q->a, x, &whole, u_of(m, k, run->at), 0, &piece, i, n);
        }
    }
}

/* ---- y += B (scale * u) ---- */

/* Some rows of a run, TILES tiles of B from `tile` on; u: of the first row. */
static void b_tiles(const struct eng_model *m, const struct eng_lora_pair *q, int32_t tile, const float *u, int32_t rows, float *y, int64_t stride)
{
    float in[ROWS * ENG_LORA_RANK], out[ROWS * TILES * KRN_TILE];
    int32_t rank = q->b.cols, row0 = tile * KRN_TILE, n = MIN(TILES * KRN_TILE, q->b.rows - row0);
    const struct krn_mat part = {.type = q->b.type, .rows = n, .cols = rank, .tile_bytes = q->b.tile_bytes, .data = q->b.data + tile * q->b.tile_bytes};
    const struct krn_leaves whole = whole_of(rank);
    for (int32_t t = 0; t < rows; t++) memcpy(in + t * rank, u + (int64_t)t * m->lora->room, (size_t)rank * sizeof *in);
    m->krn->scale(in, q->scale, (int64_t)rows * rank);
    struct krn_act act = {.n_tok = rows, .cols = rank, .x = in};
    m->krn->matmul(&(struct krn_matmul){.w = &part, .x = &act, .leaves = &whole, .y = out, .y_stride = n, .row1 = n});
    for (int32_t t = 0; t < rows; t++) m->krn->add(y + t * stride + row0, out + t * n, n);
}

static void b_run(const struct eng_model *m, const struct eng_lora_run *run, const struct eng_lora_pair *q, const float *u, float *y, int64_t stride,
                  int32_t *piece, int32_t i, int32_t n)
{
    for (int32_t t = run->t0; t < run->t1; t += ROWS)
        for (int32_t tile = 0; tile < DIV_UP(q->b.rows, KRN_TILE); tile += TILES)
            if ((*piece)++ % n == i)
                b_tiles(m, q, tile, u + (int64_t)(t - run->t0) * m->lora->room, MIN(ROWS, run->t1 - t), y + t * stride, stride);
}

bool eng_lora_out(const struct eng_model *m, int32_t layer, const struct eng_lora_product p[], int32_t n_products, int32_t i, int32_t n)
{
    bool any = false;
    int32_t piece = 0;
    for (int32_t k = 0; k < n_products; k++) {
        if (!has(m, layer, p[k].target)) continue;
        any = true;
        for (int32_t r = 0; r < m->lora->n_runs; r++) {
            const struct eng_lora_run *run = &m->lora->runs[r];
            const struct eng_lora_pair *q = pair_of(m->lora, run->number, layer, p[k].target);
            if (q->a.rows) b_run(m, run, q, u_of(m, k, run->at), p[k].y, p[k].stride, &piece, i, n);
        }
    }
    return any;
}

/* ---- where K is cut ---- */

/* What no matrix writes is 0: it travels too, and some ways to travel round neighbours together. */
static void clear_behind(const struct eng_model *m, const struct krn_leaves *leaves, int64_t behind, float *u, int64_t node_stride, int32_t i)
{
    for (int32_t k = 0; k < leaves->n_nodes && i == 0; k++) memset(u + k * node_stride, 0, (size_t)behind * sizeof *u);
    eng_team_barrier(m->team, i);
}

void eng_lora_leaves(const struct eng_model *m, int32_t k, const float *x, int32_t cols, const struct krn_leaves *leaves, int32_t n_tok, int32_t i, int32_t n)
{
    int64_t behind = eng_lora_behind(m, k), sums = (int64_t)n_tok * m->spec.d_model;
    int32_t piece = 0;
    if (!behind) return;
    float *u = eng_pass_parts(m, k) + sums;
    clear_behind(m, leaves, behind, u, sums + behind, i);
    for (int32_t r = 0; r < m->lora->n_runs; r++) {
        const struct eng_lora_run *run = &m->lora->runs[r];
        const struct eng_lora_pair *q = pair_of(m->lora, run->number, k / 2, end_of(k));
        ASSERT(!q->a.rows || q->a.cols == cols);
        if (q->a.rows) a_run(m, run, &q->a, x, leaves, u + (int64_t)run->at * m->lora->room, sums + behind, &piece, i, n);
    }
}

void eng_lora_sums(const struct eng_model *m, int32_t k, int32_t n_tok, int32_t i, int32_t n)
{
    int32_t d = m->spec.d_model, piece = 0;
    if (!eng_lora_behind(m, k)) return;
    float *y = eng_pass_pending(m, k);
    const float *u = y + (int64_t)n_tok * d;
    for (int32_t r = 0; r < m->lora->n_runs; r++) {
        const struct eng_lora_run *run = &m->lora->runs[r];
        const struct eng_lora_pair *q = pair_of(m->lora, run->number, k / 2, end_of(k));
        if (q->a.rows) b_run(m, run, q, u + (int64_t)run->at * m->lora->room, y, d, &piece, i, n);
    }
    eng_pass_barrier(m, i);
}
