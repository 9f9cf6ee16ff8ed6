/* lora.c: see lora.h: what a pass computes of adapters.
 *
 * Rows of a step are taken by adapter: a group's rows stand one after the other, wherever they are in the step, so each matrix is read once for
 * all of them (once for ROWS of a prompt's).
 *   A x          a piece is some rows of a group with all products that read the same input; piece number k is thread k mod n's. It stands in no
 *                relation to W x, so it is done before a thread takes its share of the large product, without a barrier between: who has none takes
 *                more of the product. The rows are brought together in the thread's own room, so that kernels read them from end to end.
 *   B (s A x)    the tiles of all groups and products stand in one line, by rows that they are for, of which each thread has a part. */
#include "engine/model/lora.h"

#include "engine/kernels/panel.h"

#include <string.h>

enum {
    ROWS = KRN_GROUP,  /* of a group computed at once */
    OUT = 4096,        /* values of B's products, kept in the first-level cache until they are added */
};

static const struct eng_lora_pair *pair_of(const struct eng_lora *l, int32_t number, int32_t layer, enum eng_adapter_target target)
{
    return &l->pairs[((int64_t)(number - 1) * l->n_layers + layer) * ADAPTER_TARGETS + target];
}

static bool has(const struct eng_model *m, int32_t layer, enum eng_adapter_target target)
{
    const struct eng_lora *l = m->lora;
    return l && l->n_groups && l->any[layer * ADAPTER_TARGETS + target];
}

/* A group for each adapter that is used, in the order of their numbers; rows keep theirs. */
void eng_lora_step(struct eng_model *m, const struct eng_batch *b)
{
    struct eng_lora *l = m->lora;
    if (!l) return;
    l->n_groups = l->n_rows = 0;
    for (int32_t k = 1; k <= l->n; k++) {
        struct eng_lora_group g = {.number = k, .first = l->n_rows};
        for (int32_t t = 0; t < b->n_tok; t++)
            if (b->adapter[t] == k) l->rows[l->n_rows++] = t;
        g.n = l->n_rows - g.first;
        if (g.n) l->groups[l->n_groups++] = g;
    }
}

static enum eng_adapter_target end_of(int32_t k) { return k % 2 ? ADAPTER_DOWN : ADAPTER_O; }

int64_t eng_lora_behind(const struct eng_model *m, int32_t k)
{
    return has(m, k / 2, end_of(k)) ? (int64_t)m->lora->n_rows * m->lora->room : 0;
}

/* ---- A x ---- */

/* n rows of x that are rows[] of the step, as kernels read them. room: of ROWS rows, twice. */
static struct krn_act together(const struct eng_model *m, const float *x, int32_t cols, const int32_t rows[], int32_t n, float *room)
{
    bool stand = rows[n - 1] - rows[0] == n - 1;
    struct krn_act a = {.n_tok = n, .cols = cols, .x = stand ? x + (int64_t)rows[0] * cols : room};
    for (int32_t t = 0; t < n && !stand; t++) memcpy(room + (int64_t)t * cols, x + (int64_t)rows[t] * cols, (size_t)cols * sizeof *x);
    if (n == 1 || !m->krn->interleave) return a; /* one row is its own panel */
    a.xt = room + (int64_t)ROWS * cols;
    m->krn->interleave(&a, 0, n, 0, cols);
    return a;
}

/* Thread i's room for `together`. */
static float *room_of(const struct eng_model *m, int32_t i) { return m->lora->together + (int64_t)i * 2 * ROWS * m->lora->wide; }

static void a_product(const struct eng_model *m, const struct krn_mat *a, const struct krn_act *x, const struct krn_leaves *leaves, float *u,
                      int64_t node_stride)
{
    m->krn->matmul(&(struct krn_matmul){.w = a, .x = x, .leaves = leaves, .y = u, .y_stride = m->lora->room, .node_stride = node_stride, .row1 = a->rows});
}

static float *u_of(const struct eng_model *m, int32_t product, int32_t row)
{
    return m->lora->u + ((int64_t)product * m->max_tok + row) * m->lora->room;
}

/* Rows [r,r+n) of those that use an adapter, which are of one group. */
static void a_rows(const struct eng_model *m, int32_t layer, const struct eng_lora_product p[], int32_t n_products, const float *x, int32_t cols,
                   const struct eng_lora_group *g, int32_t r, int32_t n, int32_t i)
{
    struct krn_leaves whole;
    struct krn_act in = {.n_tok = 0};
    eng_pass_whole(&whole, cols);
    for (int32_t k = 0; k < n_products; k++) {
        const struct eng_lora_pair *q = pair_of(m->lora, g->number, layer, p[k].target);
        if (!q->a.rows) continue;
        if (!in.n_tok) in = together(m, x, cols, m->lora->rows + r, n, room_of(m, i));
        a_product(m, &q->a, &in, &whole, u_of(m, k, r), 0);
    }
}

void eng_lora_in(const struct eng_model *m, int32_t layer, const struct eng_lora_product p[], int32_t n_products, const float *x, int32_t cols,
                 int32_t i, int32_t n)
{
    bool any = false;
    int32_t piece = 0;
    for (int32_t k = 0; k < n_products; k++) any |= has(m, layer, p[k].target);
    for (int32_t j = 0; any && j < m->lora->n_groups; j++) {
        const struct eng_lora_group *g = &m->lora->groups[j];
        for (int32_t r = 0; r < g->n; r += ROWS)
            if (piece++ % n == i) a_rows(m, layer, p, n_products, x, cols, g, g->first + r, MIN(ROWS, g->n - r), i);
    }
}

/* ---- y += B (scale * u) ---- */

/* Some rows of a group, and tiles [tile,end) of B; u: of the first row. */
static void b_tiles(const struct eng_model *m, const struct eng_lora_pair *q, int32_t tile, int32_t end, const float *u, const int32_t rows[], int32_t n,
                    float *y, int64_t stride)
{
    _Alignas(64) float in[ROWS * ENG_LORA_RANK], panel[ROWS * ENG_LORA_RANK], out[OUT];
    struct krn_leaves whole;
    int32_t rank = q->b.cols, step = OUT / KRN_TILE / n;
    eng_pass_whole(&whole, rank);
    for (int32_t t = 0; t < n; t++) memcpy(in + t * rank, u + (int64_t)t * m->lora->room, (size_t)rank * sizeof *in);
    m->krn->scale(in, q->scale, (int64_t)n * rank);
    struct krn_act act = {.n_tok = n, .cols = rank, .x = in, .xt = n > 1 && m->krn->interleave ? panel : NULL};
    if (act.xt) m->krn->interleave(&act, 0, n, 0, rank);
    for (; tile < end; tile += step) {
        int32_t row0 = tile * KRN_TILE, count = MIN(MIN(tile + step, end) * KRN_TILE, q->b.rows) - row0;
        const struct krn_mat part = {.type = q->b.type, .rows = count, .cols = rank, .tile_bytes = q->b.tile_bytes, .data = q->b.data + tile * q->b.tile_bytes};
        m->krn->matmul(&(struct krn_matmul){.w = &part, .x = &act, .leaves = &whole, .y = out, .y_stride = count, .row1 = count});
        for (int32_t t = 0; t < n; t++) m->krn->add(y + rows[t] * stride + row0, out + t * count, count);
    }
}

/* The line of a call: tiles that all groups and products have, each as often as it has rows. */
struct line {
    int64_t from, to; /* this thread's part */
    int64_t at;       /* while it is walked */
};

static int32_t tiles_of(const struct eng_lora_pair *q) { return q->a.rows ? DIV_UP(q->b.rows, KRN_TILE) : 0; }

/* One group's part of the line, as far as it is this thread's. u: of the group's first row. */
static void b_group(const struct eng_model *m, struct line *l, const struct eng_lora_group *g, const struct eng_lora_pair *q, const float *u, float *y,
                    int64_t stride)
{
    int64_t tiles = tiles_of(q), all = tiles * g->n;
    int64_t t0 = CLAMP((l->from - l->at + g->n - 1) / g->n, 0, tiles), t1 = CLAMP((l->to - l->at + g->n - 1) / g->n, 0, tiles);
    l->at += all;
    for (int32_t r = 0; r < g->n && t0 < t1; r += ROWS)
        b_tiles(m, q, (int32_t)t0, (int32_t)t1, u + (int64_t)r * m->lora->room, m->lora->rows + g->first + r, MIN(ROWS, g->n - r), y, stride);
}

static struct line line_of(int64_t all, int32_t i, int32_t n) { return (struct line){.from = all * i / n, .to = all * (i + 1) / n}; }

bool eng_lora_out(const struct eng_model *m, int32_t layer, const struct eng_lora_product p[], int32_t n_products, int32_t i, int32_t n)
{
    int64_t all = 0;
    const struct eng_lora *a = m->lora;
    for (int32_t k = 0; k < n_products; k++)
        for (int32_t j = 0; has(m, layer, p[k].target) && j < a->n_groups; j++)
            all += (int64_t)tiles_of(pair_of(a, a->groups[j].number, layer, p[k].target)) * a->groups[j].n;
    if (!all) return false;
    struct line l = line_of(all, i, n);
    for (int32_t k = 0; k < n_products; k++)
        for (int32_t j = 0; j < a->n_groups; j++) {
            const struct eng_lora_group *g = &a->groups[j];
            b_group(m, &l, g, pair_of(a, g->number, layer, p[k].target), u_of(m, k, g->first), p[k].y, p[k].stride);
        }
    return true;
}

/* ---- where K is cut ---- */

/* Rows [r,r+n) of one group. What no matrix writes is 0: it travels too, and some ways to travel round neighbours together. */
static void leaves_rows(const struct eng_model *m, const struct eng_lora_pair *q, const float *x, int32_t cols, const struct krn_leaves *leaves, int32_t r,
                        int32_t n, float *u, int64_t node_stride, int32_t i)
{
    int32_t room = m->lora->room;
    for (int32_t k = 0; k < leaves->n_nodes && q->a.rows < room; k++) memset(u + k * node_stride, 0, (size_t)n * (size_t)room * sizeof *u);
    if (!q->a.rows) return;
    ASSERT(q->a.cols == cols);
    const struct krn_act in = together(m, x, cols, m->lora->rows + r, n, room_of(m, i));
    a_product(m, &q->a, &in, leaves, u, node_stride);
}

void eng_lora_leaves(const struct eng_model *m, int32_t k, const float *x, int32_t cols, const struct krn_leaves *leaves, int32_t n_tok, int32_t i, int32_t n)
{
    int64_t behind = eng_lora_behind(m, k), sums = (int64_t)n_tok * m->spec.d_model;
    int32_t piece = 0;
    if (!behind) return;
    float *u = eng_pass_parts(m, k) + sums;
    for (int32_t j = 0; j < m->lora->n_groups; j++) {
        const struct eng_lora_group *g = &m->lora->groups[j];
        const struct eng_lora_pair *q = pair_of(m->lora, g->number, k / 2, end_of(k));
        for (int32_t r = g->first; r < g->first + g->n; r += ROWS)
            if (piece++ % n == i) leaves_rows(m, q, x, cols, leaves, r, MIN(ROWS, g->first + g->n - r), u + (int64_t)r * m->lora->room, sums + behind, i);
    }
}

void eng_lora_sums(const struct eng_model *m, int32_t k, int32_t n_tok, int32_t i, int32_t n)
{
    int64_t all = 0, d = m->spec.d_model;
    if (!eng_lora_behind(m, k)) return;
    const struct eng_lora *a = m->lora;
    float *y = eng_pass_pending(m, k);
    for (int32_t j = 0; j < a->n_groups; j++) all += (int64_t)tiles_of(pair_of(a, a->groups[j].number, k / 2, end_of(k))) * a->groups[j].n;
    struct line l = line_of(all, i, n);
    for (int32_t j = 0; j < a->n_groups; j++) {
        const struct eng_lora_group *g = &a->groups[j];
        b_group(m, &l, g, pair_of(a, g->number, k / 2, end_of(k)), y + n_tok * d + (int64_t)g->first * a->room, y, d);
    }
    eng_pass_barrier(m, i);
}
