/* deal.c: see deal.h.
 *
 * I1  rows of a tensor are cut where any need of the group begins or ends, so a need covers a piece wholly or not at all.
 * I2  the pieces of one need come in the order of its rows. */
#include "engine/model/deal.h"

#include <stdlib.h>
#include <string.h>

enum { TILE_ROWS = 16 };

struct dealing {
    const struct eng_model_file *f;
    const struct eng_deal_rank *ranks;
    int32_t n_ranks, group;
    int64_t piece_bytes;
    int32_t at[LIMIT_RANKS];      /* first need of a rank that is not yet dealt */
    int64_t load[LIMIT_RANKS];    /* bytes that a rank is to read */
    struct eng_deal_item *items;
    int32_t n, cap;
};

static void put(struct dealing *d, struct eng_deal_item x)
{
    if (d->n == d->cap) {
        d->cap = MAX(256, 2 * d->cap);
        d->items = xrealloc(d->items, (size_t)d->cap * sizeof *d->items);
    }
    d->items[d->n++] = x;
}

/* The needs of rank r for this tensor: [at, return). */
static int32_t end_of(const struct dealing *d, int32_t r, int32_t tensor)
{
    int32_t i = d->at[r];
    while (i < d->ranks[r].n_needs && d->ranks[r].needs[i].tensor == tensor) i++;
    return i;
}

static int64_t run_bytes(const struct model_tensor *t, int32_t k0, int32_t k1)
{
    int32_t per = dtype_block(t->type);
    return (int64_t)(DIV_UP(k1, per) - k0 / per) * dtype_block_bytes(t->type);
}

/* Whole rows that go to one rank each, or all to one rank: then no byte is wanted twice, and each reads its own. */
static bool reads_own(const struct dealing *d, int32_t tensor)
{
    const struct model_tensor *t = eng_model_file_tensor(d->f, tensor);
    int32_t who = 0;
    bool whole = true;
    for (int32_t r = 0; r < d->n_ranks; r++) {
        int32_t end = end_of(d, r, tensor);
        if (d->ranks[r].group != d->group || d->at[r] == end) continue;
        if (!d->ranks[r].has_file) return false;
        who++;
        for (int32_t i = d->at[r]; i < end; i++) {
            const struct eng_need *a = &d->ranks[r].needs[i];
            whole &= a->k0 == 0 && a->k1 == t->dims[0];
            for (int32_t q = 0; q < r; q++)
                for (int32_t j = d->at[q], stop = end_of(d, q, tensor); j < stop && d->ranks[q].group == d->group; j++) {
                    const struct eng_need *b = &d->ranks[q].needs[j];
                    if (a->row0 < b->row1 && b->row0 < a->row1) return false;
                }
        }
    }
    return who <= 1 || whole;
}

static bool covers(const struct eng_need *n, int32_t row0, int32_t row1) { return n->row0 <= row0 && n->row1 >= row1; }

/* The rank with a file that has the least to read, among those who need rows [a,b); else of the whole group. Also the
 * columns that are needed there. False: nobody needs these rows. */
static bool choose(const struct dealing *d, int32_t tensor, int32_t a, int32_t b, struct eng_deal_item *x)
{
    int32_t best = -1, k0 = INT32_MAX, k1 = 0;
    bool best_needs = false;
    for (int32_t r = 0; r < d->n_ranks; r++) {
        bool needs = false;
        if (d->ranks[r].group != d->group) continue;
        for (int32_t i = d->at[r], end = end_of(d, r, tensor); i < end; i++) {
            const struct eng_need *n = &d->ranks[r].needs[i];
            if (!covers(n, a, b)) continue;
            needs = true;
            k0 = MIN(k0, n->k0);
            k1 = MAX(k1, n->k1);
        }
        if (!d->ranks[r].has_file) continue;
        if (best < 0 || (needs && !best_needs) || (needs == best_needs && d->load[r] < d->load[best])) {
            best = r;
            best_needs = needs;
        }
    }
    if (!k1 || best < 0) return false;
    int32_t per = dtype_block(eng_model_file_tensor(d->f, tensor)->type);
    *x = (struct eng_deal_item){.tensor = tensor, .row0 = a, .row1 = b, .b0 = k0 / per, .b1 = DIV_UP(k1, per), .reader = best};
    return true;
}

static int by_value(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void deal_pieces(struct dealing *d, int32_t tensor)
{
    const struct model_tensor *t = eng_model_file_tensor(d->f, tensor);
    int32_t n_cuts = 0, most = 0;
    for (int32_t r = 0; r < d->n_ranks; r++) most += 2 * (end_of(d, r, tensor) - d->at[r]);
    int32_t *cuts = xmalloc(((size_t)most + 1) * sizeof *cuts);
    for (int32_t r = 0; r < d->n_ranks; r++)
        for (int32_t i = d->at[r], end = end_of(d, r, tensor); i < end && d->ranks[r].group == d->group; i++) {
            cuts[n_cuts++] = d->ranks[r].needs[i].row0;
            cuts[n_cuts++] = d->ranks[r].needs[i].row1;
        }
    qsort(cuts, (size_t)n_cuts, sizeof *cuts, by_value);
    for (int32_t c = 0; c + 1 < n_cuts; c++) {
        struct eng_deal_item x;
        for (int32_t a = cuts[c]; a < cuts[c + 1] && choose(d, tensor, a, cuts[c + 1], &x);) {
            int64_t row = (int64_t)(x.b1 - x.b0) * dtype_block_bytes(t->type);
            int64_t rows = MAX(d->piece_bytes / row, 1);
            if (rows > TILE_ROWS) rows -= rows % TILE_ROWS; /* pieces end where tiles do, mostly */
            x.row1 = (int32_t)MIN((int64_t)cuts[c + 1], a + rows);
            put(d, x);
            d->load[x.reader] += (x.row1 - x.row0) * row;
            a = x.row1;
        }
    }
    free(cuts);
}

static void deal_own(struct dealing *d, int32_t tensor)
{
    const struct model_tensor *t = eng_model_file_tensor(d->f, tensor);
    for (int32_t r = 0; r < d->n_ranks; r++)
        for (int32_t i = d->at[r], end = end_of(d, r, tensor); i < end && d->ranks[r].group == d->group; i++) {
            const struct eng_need *n = &d->ranks[r].needs[i];
            d->load[r] += (n->row1 - n->row0) * run_bytes(t, n->k0, n->k1);
        }
    put(d, (struct eng_deal_item){.tensor = tensor, .reader = ENG_DEAL_OWN});
}

int32_t eng_deal(const struct eng_model_file *f, const struct eng_deal_rank ranks[], int32_t n_ranks, int32_t group,
                 int64_t piece_bytes, struct eng_deal_item **out)
{
    struct dealing d = {.f = f, .ranks = ranks, .n_ranks = n_ranks, .group = group, .piece_bytes = piece_bytes};
    for (;;) {
        int32_t tensor = INT32_MAX;
        for (int32_t r = 0; r < n_ranks; r++)
            if (ranks[r].group == group && d.at[r] < ranks[r].n_needs) tensor = MIN(tensor, ranks[r].needs[d.at[r]].tensor);
        if (tensor == INT32_MAX) break;
        if (reads_own(&d, tensor)) deal_own(&d, tensor);
        else deal_pieces(&d, tensor);
        for (int32_t r = 0; r < n_ranks; r++)
            if (ranks[r].group == group) d.at[r] = end_of(&d, r, tensor);
    }
    *out = d.items;
    return d.n;
}

const struct eng_need *eng_deal_need(const struct eng_deal_rank *r, const struct eng_deal_item *x, int32_t *cursor)
{
    while (*cursor < r->n_needs && r->needs[*cursor].tensor < x->tensor) ++*cursor;
    for (int32_t i = *cursor; i < r->n_needs && r->needs[i].tensor == x->tensor; i++)
        if (covers(&r->needs[i], x->row0, x->row1)) return &r->needs[i];
    return NULL;
}
