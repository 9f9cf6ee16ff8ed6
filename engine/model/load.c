/* load.c: see load.h.
 *
 * I1  all ranks of a group walk the same list in the same order; a rank waits only for one that is at the same item or
 *     before it, so the one that is furthest behind can always go on.
 * I2  rows of a want arrive in order; those that do not fill a tile wait in `stage`. */
#include "engine/model/load.h"

#include "engine/file/dequant.h"
#include "engine/kernels/table.h"
#include "engine/model/ahead.h"
#include "engine/model/deal.h"
#include "engine/model/pack_rows.h"
#include "engine/model/shard_cache.h"

#include <stdlib.h>
#include <string.h>

static const int64_t PIECE_BYTES = 8 << 20;

struct todo {                /* what is left of a want after the cache */
    struct eng_want w;
    int64_t rows_in;         /* arrived */
    uint8_t *stage;          /* n_stage rows of a tile that is not yet whole */
    int32_t n_stage;
};

struct load {
    const struct eng_load_conf *c;
    struct todo *todo;
    int32_t n_todo, cap_todo;
    struct eng_deal_rank ranks[LIMIT_RANKS];
    struct eng_need *needs;          /* of all ranks, rank after rank */
    int32_t cursor[LIMIT_RANKS];
    struct eng_deal_item *items;
    int32_t n_items, rank;
    struct eng_ahead *ahead;
    uint8_t *piece, *part;           /* received; cut out to be sent */
    int64_t piece_cap, part_cap;
    int64_t done, total;
    struct eng_load_stats s;
};

int64_t eng_want_bytes(const struct eng_want *w)
{
    int32_t per = dtype_block(w->t->type);
    return (w->row1 - w->row0) * (DIV_UP(w->k1, per) - w->k0 / per) * dtype_block_bytes(w->t->type);
}

static int32_t tensor_number(const struct load *l, const struct model_tensor *t)
{
    return (int32_t)(t - eng_model_file_tensor(l->c->file, 0));
}

static int by_place(const void *pa, const void *pb)
{
    const struct eng_want *a = pa, *b = pb;
    if (a->t != b->t) return a->t < b->t ? -1 : 1;
    return (a->row0 > b->row0) - (a->row0 < b->row0);
}

static void progress(struct load *l, int64_t more)
{
    l->done += more;
    if (l->c->progress) l->c->progress(l->c->user, l->done, l->total);
}

/* ---- what the cache has ---- */

static void add_todo(struct load *l, const struct eng_want *w)
{
    if (l->n_todo == l->cap_todo) {
        l->cap_todo = MAX(256, 2 * l->cap_todo);
        l->todo = xrealloc(l->todo, (size_t)l->cap_todo * sizeof *l->todo);
    }
    l->todo[l->n_todo++] = (struct todo){.w = *w};
}

/* Rows [row0,row1) of a want are still to be brought. */
static void want_rows(void *user, const struct eng_want *w, int64_t row0, int64_t row1)
{
    struct load *l = user;
    struct eng_want part = *w;
    if (part.tiles) part.tiles += (row0 - w->row0) / KRN_TILE * w->tile_bytes;
    part.row0 = row0;
    part.row1 = row1;
    add_todo(l, &part);
}

static void from_cache(void *user, const struct eng_want *w, int64_t bytes)
{
    struct load *l = user;
    l->s.cached += bytes;
    if (w->mapped) l->s.mapped += bytes;
    if (bytes) progress(l, bytes);
}

static void take_cached(struct load *l, struct eng_want wants[], int32_t n)
{
    struct eng_shard_taker to = {.found = from_cache, .missing = want_rows, .user = l};
    if (l->c->cache) eng_shard_cache_take(l->c->cache, l->c->team, wants, n, &to);
    else for (int32_t i = 0; i < n; i++) add_todo(l, &wants[i]);
}

/* ---- who needs what ---- */

static void own_needs(const struct load *l, struct eng_need needs[])
{
    for (int32_t i = 0; i < l->n_todo; i++) {
        const struct eng_want *w = &l->todo[i].w;
        needs[i] = (struct eng_need){tensor_number(l, w->t), (int32_t)w->row0, (int32_t)w->row1, (int32_t)w->k0, (int32_t)w->k1};
    }
}

static enum err check_needs(const struct load *l)
{
    int64_t n_tensors = eng_model_file_n_tensors(l->c->file);
    for (int32_t r = 0; r < l->c->peers->n; r++)
        for (int32_t i = 0; i < l->ranks[r].n_needs; i++) {
            const struct eng_need *x = &l->ranks[r].needs[i];
            if (x->tensor < 0 || x->tensor >= n_tensors || x->row0 < 0 || x->row0 >= x->row1 || x->k0 < 0 || x->k0 >= x->k1 ||
                x->k1 > eng_model_file_tensor(l->c->file, x->tensor)->dims[0])
                return err_raise(ERR_LINK_PROTOCOL, "rank %d wants rows %d to %d of tensor %d, which the model here has not: give every host "
                                 "the same file", r, x->row0, x->row1, x->tensor);
        }
    return OK;
}

static enum err gather_needs(struct load *l)
{
    enum err rc = OK;
    struct trn_coll *world = l->c->peers ? l->c->peers->world : NULL;
    int64_t bytes[COLL_MAX_RANKS];
    int32_t mine = l->n_todo, counts[COLL_MAX_RANKS], sum = 0;
    struct eng_need *own = xmalloc(((size_t)mine + 1) * sizeof *own);
    own_needs(l, own);
    if (!world || world->size == 1) {
        l->needs = own;
        l->ranks[0] = (struct eng_deal_rank){.has_file = true, .needs = own, .n_needs = mine};
        return OK;
    }
    for (int32_t r = 0; r < world->size; r++) bytes[r] = sizeof mine;
    TRY(trn_coll_all_gather(world, &mine, bytes, counts, ENG_LOAD_WAIT_US));
    for (int32_t r = 0; r < world->size; r++) {
        bytes[r] = counts[r] * (int64_t)sizeof *own;
        sum += counts[r];
    }
    l->needs = xmalloc(((size_t)sum + 1) * sizeof *l->needs);
    TRY(trn_coll_all_gather(world, own, bytes, l->needs, ENG_LOAD_WAIT_US));
    l->rank = world->rank;
    for (int32_t r = 0, at = 0; r < world->size; at += counts[r++])
        l->ranks[r] = (struct eng_deal_rank){.has_file = l->c->peers->has_file[r], .group = l->c->peers->group[r], .needs = l->needs + at,
                                             .n_needs = counts[r]};
    TRY(check_needs(l));
out:
    free(own);
    return rc;
}

/* ---- rows that arrive ---- */

static enum err take_floats(struct eng_want *w, const uint8_t *data)
{
    int64_t per = dtype_block(w->t->type), lo = w->k0 / per * per, n = ROUND_UP(w->k1, per) - lo;
    float *wide = malloc((size_t)n * sizeof *wide);
    if (!wide) return err_raise(ERR_NO_MEMORY, "no memory to widen %s", w->t->name);
    eng_dequant_row(w->t->type, data, wide, n);
    memcpy(w->floats, wide + (w->k0 - lo), (size_t)(w->k1 - w->k0) * sizeof *wide);
    free(wide);
    return OK;
}

/* The next n rows of a want, packed as far as they fill tiles. */
static enum err take_rows(struct load *l, struct todo *d, const uint8_t *data, int64_t n)
{
    struct eng_want *w = &d->w;
    int64_t run = eng_want_bytes(w) / (w->row1 - w->row0), end = w->row1 - w->row0;
    if (w->floats) return take_floats(w, data);
    while (n > 0) {
        int64_t tile = (d->rows_in - d->n_stage) / KRN_TILE, whole = n / KRN_TILE * KRN_TILE, k;
        bool last = d->rows_in + n == end;
        if (!d->n_stage && (whole || last)) {
            k = last ? n : whole;
            eng_pack_rows(l->c->team, w, tile, data, k);
        } else {
            k = MIN(n, KRN_TILE - d->n_stage);
            if (!d->stage) d->stage = xmalloc((size_t)(run * KRN_TILE));
            memcpy(d->stage + d->n_stage * run, data, (size_t)(k * run));
            d->n_stage += (int32_t)k;
            if (d->n_stage == KRN_TILE || d->rows_in + k == end) {
                eng_pack_rows(l->c->team, w, tile, d->stage, d->n_stage);
                d->n_stage = 0;
            }
        }
        d->rows_in += k;
        data += k * run;
        n -= k;
    }
    return OK;
}

static struct todo *todo_of(struct load *l, const struct eng_need *x)
{
    return &l->todo[x - l->ranks[l->rank].needs];
}

/* ---- pieces ---- */

static uint8_t *reserve(uint8_t **p, int64_t *cap, int64_t bytes)
{
    if (bytes > *cap) {
        free(*p);
        *p = xmalloc((size_t)bytes);
        *cap = bytes;
    }
    return *p;
}

/* The columns that a need has of a piece, row by row. */
static const uint8_t *cut_out(struct load *l, const struct eng_deal_item *x, const struct eng_need *n, const uint8_t *data, int64_t *bytes)
{
    enum dtype type = eng_model_file_tensor(l->c->file, x->tensor)->type;
    int64_t per = dtype_block(type), size = dtype_block_bytes(type), b0 = n->k0 / per, b1 = DIV_UP(n->k1, per);
    int64_t row = (x->b1 - x->b0) * size, run = (b1 - b0) * size, rows = x->row1 - x->row0;
    *bytes = rows * run;
    if (run == row) return data;
    uint8_t *out = reserve(&l->part, &l->part_cap, *bytes);
    for (int64_t r = 0; r < rows; r++) memcpy(out + r * run, data + r * row + (b0 - x->b0) * size, (size_t)run);
    return out;
}

static enum err hand_out(struct load *l, const struct eng_deal_item *x, const struct eng_need *const needs[], const uint8_t *data)
{
    enum err rc = OK;
    int32_t n = l->c->peers ? l->c->peers->n : 1;
    int64_t bytes;
    for (int32_t i = 1; i < n; i++) {
        int32_t r = (l->rank + i) % n;
        if (!needs[r]) continue;
        const uint8_t *part = cut_out(l, x, needs[r], data, &bytes);
        TRY(trn_coll_send(l->c->peers->world, r, part, bytes, ENG_LOAD_WAIT_US));
        l->s.sent += bytes;
    }
    if (needs[l->rank]) {
        const uint8_t *part = cut_out(l, x, needs[l->rank], data, &bytes);
        TRY(take_rows(l, todo_of(l, needs[l->rank]), part, x->row1 - x->row0));
        progress(l, bytes);
    }
out:
    return rc;
}

static enum err do_piece(struct load *l, const struct eng_deal_item *x, const uint8_t **data)
{
    enum err rc = OK;
    const struct eng_need *needs[LIMIT_RANKS] = {NULL};
    for (int32_t r = 0, n = l->c->peers ? l->c->peers->n : 1; r < n; r++)
        if (l->ranks[r].group == l->ranks[l->rank].group) needs[r] = eng_deal_need(&l->ranks[r], x, &l->cursor[r]);
    if (x->reader == l->rank) {
        TRY(eng_ahead_next(l->ahead, data));
        return hand_out(l, x, needs, *data);
    }
    const struct eng_need *own = needs[l->rank];
    if (!own) return OK;
    struct todo *d = todo_of(l, own);
    int64_t bytes = eng_want_bytes(&d->w) / (d->w.row1 - d->w.row0) * (x->row1 - x->row0);
    reserve(&l->piece, &l->piece_cap, bytes);
    TRY(trn_coll_recv(l->c->peers->world, x->reader, l->piece, bytes, ENG_LOAD_WAIT_US));
    l->s.received += bytes;
    TRY(take_rows(l, d, l->piece, x->row1 - x->row0));
    progress(l, bytes);
out:
    return rc;
}

/* ---- tensors that each reads its own part of ---- */

static enum err do_own(struct load *l, const struct eng_deal_item *x, int32_t *next)
{
    enum err rc = OK;
    while (*next < l->n_todo && tensor_number(l, l->todo[*next].w.t) < x->tensor) ++*next;
    for (; *next < l->n_todo && tensor_number(l, l->todo[*next].w.t) == x->tensor; ++*next) {
        struct eng_want *w = &l->todo[*next].w;
        int64_t bytes = eng_want_bytes(w);
        if (w->floats) {
            int64_t per = dtype_block(w->t->type);
            uint8_t *raw = reserve(&l->part, &l->part_cap, bytes);
            TRY(eng_model_file_read(l->c->file, w->t, w->row0 * dtype_bytes(w->t->type, w->t->dims[0]) + dtype_bytes(w->t->type, w->k0 / per * per),
                                    bytes, raw));
            TRY(take_floats(w, raw));
        } else {
            TRY(eng_pack_from_file(l->c->team, l->c->file, w));
        }
        l->s.read += bytes;
        progress(l, bytes);
    }
out:
    return rc;
}

static enum err walk(struct load *l)
{
    enum err rc;
    int32_t next = 0;
    const uint8_t *data = NULL;
    l->n_items = eng_deal(l->c->file, l->ranks, l->c->peers ? l->c->peers->n : 1, l->ranks[l->rank].group, PIECE_BYTES, &l->items);
    TRY(eng_ahead_open(&l->ahead, l->c->file, l->items, l->n_items, l->rank, l->c->team));
    for (int32_t i = 0; i < l->n_items; i++)
        if (l->items[i].reader == ENG_DEAL_OWN) TRY(do_own(l, &l->items[i], &next));
        else TRY(do_piece(l, &l->items[i], &data));
    l->s.read += eng_ahead_bytes(l->ahead);
    for (int32_t i = 0; i < l->n_todo; i++) /* I1, I2: all of them are whole now */
        ASSERT(l->todo[i].n_stage == 0);
out:
    eng_ahead_close(l->ahead);
    return rc;
}

/* What was not in the cache will be. */
static void keep(struct load *l)
{
    if (!l->c->cache) return;
    struct eng_want *w = xmalloc(((size_t)l->n_todo + 1) * sizeof *w);
    for (int32_t i = 0; i < l->n_todo; i++) w[i] = l->todo[i].w;
    eng_shard_cache_keep(l->c->cache, l->c->team, w, l->n_todo);
    free(w);
}

enum err eng_load(const struct eng_load_conf *c, struct eng_want wants[], int32_t n, struct eng_load_stats *out)
{
    enum err rc;
    struct load *l = xcalloc(1, sizeof *l);
    l->c = c;
    if (n) qsort(wants, (size_t)n, sizeof *wants, by_place);
    for (int32_t i = 0; i < n; i++) l->total += eng_want_bytes(&wants[i]);
    take_cached(l, wants, n);
    TRY(gather_needs(l));
    TRY(walk(l));
    keep(l);
    *out = l->s;
out:
    for (int32_t i = 0; i < l->n_todo; i++) free(l->todo[i].stage);
    free(l->todo);
    free(l->needs);
    free(l->items);
    free(l->piece);
    free(l->part);
    free(l);
    return rc;
}
