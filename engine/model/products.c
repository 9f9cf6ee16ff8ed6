/* products.c: rows of products shared out among the threads of the team.
 *
 * The tiles of a call's products stand in one line, which is cut into a share for every thread, alike in bytes of weights. A thread takes its
 * own share in pieces, and then what is left of others': one that the system stopped, or a slower processor, holds the rest up by a piece and
 * not by its share. Whole tiles are taken, so no bit depends on who computes them.
 *
 * I1  a share's word holds the call that it speaks of and the next tile to be taken. Of an earlier call it says that nothing has been taken
 *     of this one: nobody has to reset it. Calls are counted by every thread alike.
 * I2  between two calls there is a barrier, so no thread takes for a call that others have not reached.
 *
 * A piece is a part of what is left of a share, within bounds: pieces in the end are small, so that all are done at nearly the same time.
 * Few tokens wait for memory, and a piece is a quarter and bounded, so that little waits for a thread that stands still. Many tokens are
 * read again for every piece, so pieces of a prompt are halves, and never very small. */
#include "engine/model/pass.h"

#include "engine/kernels/panel.h"

#include <stdlib.h>

enum {
    PIECE_MOST = 256 << 10, PIECE_LEAST = 64 << 10, /* bytes of weights */
    PIECE_STEP = 4,                                 /* tiles that kernels of many tokens, or of floats, take at once */
    PIECE_PROMPT = 8,                               /* tiles at least, of many tokens */
    VICTIMS = 8,                                    /* neighbours looked at when the own share is done */
};

struct eng_share {
    _Alignas(64) _Atomic uint64_t word; /* call << 32 | next tile of the line */
    uint32_t call;                      /* its thread's own count */
};

/* The products of a call in line: tiles [first[k], first[k+1]) and bytes from[k] on are those of product k. */
struct line {
    const struct eng_product *p;
    int32_t n, first[ENG_PRODUCTS + 1];
    int64_t from[ENG_PRODUCTS + 1];
    uint32_t call;
    int32_t step;
    bool prompt;
};

enum err eng_shares_open(struct eng_share **out, int32_t n_threads)
{
    void *p;
    if (posix_memalign(&p, 64, (size_t)n_threads * sizeof(struct eng_share))) return err_raise(ERR_NO_MEMORY, "no memory for the shares of %d threads", n_threads);
    *out = p;
    for (int32_t i = 0; i < n_threads; i++) {
        atomic_init(&(*out)[i].word, 0);
        (*out)[i].call = 0;
    }
    return OK;
}

static struct line line_of(const struct eng_product p[], int32_t n, int32_t n_tok, uint32_t call)
{
    struct line l = {.p = p, .n = n, .call = call, .step = n_tok > 1 || dtype_block(p[0].w->type) == 1 ? PIECE_STEP : 1, .prompt = n_tok > KRN_GROUP};
    for (int32_t k = 0; k < n; k++) {
        int32_t tiles = DIV_UP(p[k].w->rows, KRN_TILE);
        l.first[k + 1] = l.first[k] + tiles;
        l.from[k + 1] = l.from[k] + tiles * p[k].w->tile_bytes;
    }
    return l;
}

/* The product that a tile belongs to. */
static int32_t product_at(const struct line *l, int32_t tile)
{
    int32_t k = 0;
    while (tile >= l->first[k + 1]) k++;
    return k;
}

/* The first tile of share i of n. */
static int32_t share_begin(const struct line *l, int32_t i, int32_t n)
{
    int64_t at = l->from[l->n] / n * i;
    if (i == n || !l->from[l->n]) return l->first[l->n]; /* nothing at all: a head without rows */
    int32_t k = 0;
    while (at >= l->from[k + 1]) k++;
    int32_t tiles = (int32_t)((at - l->from[k]) / l->p[k].w->tile_bytes);
    return l->first[k] + tiles / PIECE_STEP * PIECE_STEP;
}

/* How many tiles from `next` on are taken at once: of one product, and not beyond `end`. */
static int32_t piece(const struct line *l, int32_t next, int32_t end)
{
    int32_t k = product_at(l, next), step = l->step;
    int64_t tile = l->p[k].w->tile_bytes;
    int32_t left = end - next, want = l->prompt ? MAX(left / 2, PIECE_PROMPT) : (int32_t)CLAMP(left / 4, PIECE_LEAST / tile, PIECE_MOST / tile);
    return MIN(ROUND_UP(MAX(want, 1), step), MIN(end, l->first[k + 1]) - next);
}

/* Take a piece of share s, tiles [begin,end). False: nothing is left of it. */
static bool take(const struct line *l, struct eng_share *s, int32_t begin, int32_t end, int32_t *tile, int32_t *n_tiles)
{
    uint64_t seen = atomic_load_explicit(&s->word, memory_order_relaxed);
    for (;;) {
        uint32_t call = (uint32_t)(seen >> 32);
        ASSERT((int32_t)(l->call - call) >= 0); /* I2 */
        *tile = call == l->call ? (int32_t)(uint32_t)seen : begin;
        if (*tile >= end) return false;
        *n_tiles = piece(l, *tile, end);
        uint64_t then = (uint64_t)l->call << 32 | (uint32_t)(*tile + *n_tiles);
        if (atomic_compare_exchange_weak_explicit(&s->word, &seen, then, memory_order_relaxed, memory_order_relaxed)) return true;
    }
}

/* On a device, products of the same rows with K whole: one call. */
static bool products_at_once(const struct eng_model *m, const struct eng_product p[], int32_t n, int32_t n_tok)
{
    struct krn_act a[ENG_PRODUCTS];
    struct krn_matmul jobs[ENG_PRODUCTS];
    struct krn_leaves one = {.n_leaf = 1, .lo = 0, .hi = 1, .cols = {0, p->w->cols}, .n_nodes = 1, .nodes = {{0, 1}}};
    if (!m->fused || n < 2) return false;
    for (int32_t k = 0; k < n; k++) {
        a[k] = eng_pass_act(m, p[k].x, n_tok, p[k].w->cols, eng_pass_reads(m, p[k].w));
        if (a[k].xb || p[k].leaves || p[k].x != p->x || p[k].w->cols != p->w->cols) return false;
        jobs[k] = (struct krn_matmul){.w = p[k].w, .x = &a[k], .leaves = &one, .y = p[k].y, .y_stride = p[k].y_stride, .row1 = p[k].w->rows};
    }
    m->fused->matmuls(jobs, n);
    return true;
}

static void compute(const struct eng_model *m, const struct line *l, int32_t n_tok, int32_t tile, int32_t n_tiles)
{
    int32_t k = product_at(l, tile), row0 = (tile - l->first[k]) * KRN_TILE;
    const struct eng_product *p = &l->p[k];
    struct krn_act a = eng_pass_act(m, p->x, n_tok, p->w->cols, eng_pass_reads(m, p->w));
    struct krn_leaves one;
    if (!p->leaves) eng_pass_whole(&one, p->w->cols);
    struct krn_matmul job = {.w = p->w, .x = &a, .leaves = p->leaves ? p->leaves : &one, .y = p->y, .y_stride = p->y_stride,
                             .node_stride = p->node_stride, .row0 = row0, .row1 = MIN(row0 + n_tiles * KRN_TILE, p->w->rows)};
    (a.xb ? m->rounded->matmul : m->krn->matmul)(&job);
}

void eng_pass_products(const struct eng_model *m, const struct eng_product p[], int32_t n_products, int32_t n_tok, int32_t i, int32_t n)
{
    ASSERT(n_products >= 1 && n_products <= ENG_PRODUCTS);
    for (int32_t k = 0; k < n_products && i == 0 && m->watch; k++) m->watch(m->watch_user, p[k].w, p[k].x, n_tok);
    struct line l = line_of(p, n_products, n_tok, ++m->shares[i].call);
    if (n == 1 && !m->be->on_host) {
        if (products_at_once(m, p, n_products, n_tok)) return;
        for (int32_t k = 0; k < n_products; k++)
            if (p[k].w->rows) compute(m, &l, n_tok, l.first[k], l.first[k + 1] - l.first[k]);
        return;
    }
    int32_t tile, n_tiles;
    for (int32_t v = 0; v < MIN(n, 1 + VICTIMS); v++) {
        int32_t whose = (i + v) % n, begin = share_begin(&l, whose, n), end = share_begin(&l, whose + 1, n);
        while (take(&l, &m->shares[whose], begin, end, &tile, &n_tiles)) compute(m, &l, n_tok, tile, n_tiles);
    }
}
