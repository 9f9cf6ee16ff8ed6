/* head_slices.c: see head_rows.h. */
#include "engine/head_rows.h"

#include <math.h>
#include <string.h>

static void slice_best(struct eng_rows *r, int32_t i, int32_t thread)
{
    const struct eng_model *m = r->hd->m;
    int32_t v = m->weights->head.rows;
    const float *x = r->hd->slice + (int64_t)i * v;
    int32_t id = v ? m->be->host->argmax(x, v) : -1;
    (void)thread;
    r->best[i] = (struct krn_pick){v ? x[id] : -INFINITY, v ? m->shard.embd0 + id : -1};
}

static bool draws(const struct eng_rows *r, int32_t i) { return r->how[i] == CHOICE_DRAW && r->max[i] > -INFINITY; }
static bool among_top(const struct eng_rows *r, int32_t i) { return r->how[i] == CHOICE_TOP && r->max[i] > -INFINITY; }

static void slice_draw(struct eng_rows *r, int32_t i, int32_t thread)
{
    struct eng_head *hd = r->hd;
    int32_t v = hd->m->weights->head.rows, id0 = hd->m->shard.embd0;
    float *x = hd->slice + (int64_t)i * v;
    if (draws(r, i)) r->best[i] = eng_sampler_draw(hd->samplers[thread], x, v, id0, r->max[i], eng_rows_sampling(r, i), eng_rows_position(r, i));
    else if (among_top(r, i)) eng_sampler_top(hd->samplers[thread], x, v, id0, r->max[i], eng_rows_sampling(r, i), r->top[i]);
}

/* The same on a device, whose logits do not come over. */
static enum err best_there(struct eng_rows *r)
{
    struct eng_model *m = r->hd->m;
    enum err e = m->weights->head.rows ? eng_forward_best(m, r->n, r->best) : OK;
    for (int32_t i = 0; i < r->n && !m->weights->head.rows; i++) r->best[i] = (struct krn_pick){-INFINITY, -1};
    return e;
}

/* into[i] of rows that are drawn. over NULL: of the largest logit of this rank's slice, which then is r->best too. */
static enum err draw_there(struct eng_rows *r, const struct krn_pick over[], struct krn_pick into[])
{
    struct eng_model *m = r->hd->m;
    struct krn_noise how[HEAD_ROWS] = {{0}};
    struct krn_pick best[HEAD_ROWS], drawn[HEAD_ROWS];
    for (int32_t i = 0; i < r->n; i++) {
        if (r->how[i] == CHOICE_DRAW || r->how[i] == CHOICE_TOP) how[i] = eng_sampler_noise(eng_rows_sampling(r, i), eng_rows_position(r, i));
        for (int32_t k = 0; k < how[i].top && !m->weights->head.rows; k++) r->top[i][k] = (struct krn_pick){-INFINITY, -1};
    }
    enum err e = m->weights->head.rows ? eng_forward_draw(m, r->n, how, over, best, drawn, r->top) : OK;
    for (int32_t i = 0; i < r->n && !e; i++) {
        if (r->how[i] == CHOICE_DRAW) into[i] = m->weights->head.rows ? drawn[i] : (struct krn_pick){-INFINITY, -1};
        if (!over) r->best[i] = best[i];
    }
    return e;
}

/* Every rank's best of each row, and of these the best; ties go to the lowest id, and slices are in id order. */
static enum err best_of_all(struct eng_rows *r)
{
    struct krn_pick all[HEAD_ROWS * COLL_MAX_RANKS];
    const struct eng_model *m = r->hd->m;
    int64_t bytes[COLL_MAX_RANKS];
    if (m->shard.tp_width == 1) return OK;
    for (int32_t k = 0; k < m->shard.tp_width; k++) bytes[k] = r->n * (int64_t)sizeof *all;
    enum err e = trn_coll_all_gather(m->tp, r->best, bytes, all, m->timeout_us);
    for (int32_t i = 0; i < r->n && !e; i++) {
        r->best[i] = all[i];
        for (int32_t k = 1; k < m->shard.tp_width; k++)
            if (r->best[i].id < 0 || all[k * r->n + i].z > r->best[i].z) r->best[i] = all[k * r->n + i];
    }
    return e;
}

/* A draw among every rank's best of each such row. */
static enum err choose_among_tops(struct eng_rows *r, int32_t ids[])
{
    enum err rc = OK;
    struct eng_head *hd = r->hd;
    int32_t n = 0, width = hd->m->shard.tp_width;
    int64_t bytes[COLL_MAX_RANKS];
    for (int32_t i = 0; i < r->n; i++) {
        if (!among_top(r, i)) continue;
        if (width > 1) memcpy(hd->tops + n, r->top[i], (size_t)eng_rows_sampling(r, i)->top_k * sizeof **r->top);
        n += eng_rows_sampling(r, i)->top_k;
    }
    for (int32_t k = 0; k < width; k++) bytes[k] = n * (int64_t)sizeof *hd->tops;
    struct krn_pick *all = hd->tops + HEAD_ROWS * KRN_TOP, one[COLL_MAX_RANKS * KRN_TOP];
    if (n && width > 1) TRY(trn_coll_all_gather(hd->m->tp, hd->tops, bytes, all, hd->m->timeout_us));
    for (int32_t i = 0, at = 0; i < r->n; i++) {
        if (!among_top(r, i)) continue;
        int32_t each = eng_rows_sampling(r, i)->top_k;
        for (int32_t k = 0; k < width; k++) memcpy(one + k * each, width > 1 ? all + k * n + at : r->top[i], (size_t)each * sizeof *one);
        int32_t id = eng_sampler_among(hd->samplers[0], one, width * each, eng_rows_sampling(r, i), eng_rows_position(r, i));
        if (id >= 0) ids[i] = id;
        at += each;
    }
out:
    return rc;
}

/* Tokens of rows that no rank must see whole. A rank on a device that is alone need not wait between the two looks. */
enum err eng_slices_choose(struct eng_rows *r, int32_t ids[])
{
    enum err rc = OK;
    const struct eng_model *m = r->hd->m;
    struct krn_pick drawn[HEAD_ROWS];
    bool any = false, there = !m->be->on_host, alone = there && m->shard.tp_width == 1;
    for (int32_t i = 0; i < r->n; i++) any |= r->how[i] == CHOICE_DRAW || r->how[i] == CHOICE_TOP;
    if (alone && any) TRY(draw_there(r, NULL, drawn));
    else if (there) TRY(best_there(r));
    else eng_rows_run(r, slice_best);
    TRY(best_of_all(r));
    for (int32_t i = 0; i < r->n; i++) {
        ids[i] = r->best[i].id;
        r->max[i] = r->best[i].z;
    }
    if (!any) return OK;
    if (!there) eng_rows_run(r, slice_draw);
    else if (!alone) TRY(draw_there(r, r->best, drawn));
    for (int32_t i = 0; i < r->n && there; i++)
        if (draws(r, i)) r->best[i] = drawn[i];
    TRY(best_of_all(r));
    for (int32_t i = 0; i < r->n; i++)
        if (draws(r, i) && r->best[i].id >= 0) ids[i] = r->best[i].id;
    rc = choose_among_tops(r, ids);
out:
    return rc;
}

