/* moe_inner.c: what experts do before the product that goes out: inputs by expert -> gate, up -> their product. See moe_impl.h. */
#include "engine/model/moe_impl.h"

#include <string.h>

/* Copies of inputs, slot by slot, in the forms that the products read. */
void eng_moe_gather(const struct moe_group *g, int32_t i, int32_t n)
{
    int64_t d = g->m->spec.d_model, s0, s1;
    int32_t e = 0;
    eng_team_range(g->o->first[eng_moe_n(g->m)], 1, i, n, &s0, &s1);
    for (int64_t s = s0; s < s1; s++) {
        while (g->o->first[e + 1] <= s) e++;
        struct krn_act a = eng_moe_input(g, e);
        int64_t row = s - g->o->first[e];
        memcpy(g->o->x + s * d, g->m->h + (g->t0 + g->o->token[s]) * d, (size_t)d * sizeof(float));
        if (g->o->scale) g->m->krn->scale(g->o->x + s * d, g->o->scale[s], d);
        eng_pass_prepare(g->m, &a, row, row + 1, 0, d);
    }
}

/* The first thread shows what the experts' products read. */
static void show_inputs(const struct moe_group *g, int32_t i)
{
    const struct eng_model *m = g->m;
    for (int32_t e = 0; e < eng_moe_n(m) && i == 0 && m->watch; e++) {
        if (!eng_moe_slots(g, e)) continue;
        struct krn_act in = eng_moe_input(g, e);
        m->watch(m->watch_user, &eng_moe_ffn(g, e)->gate, in.x, in.n_tok);
        m->watch(m->watch_user, &eng_moe_ffn(g, e)->up, in.x, in.n_tok);
    }
}

/* Work is (expert, tile) pairs, each as dear as its expert has tokens: thread i of n does tiles [*lo,*hi) of the expert whose work begins at
 * `before`, of `all`. */
static void tiles_of(int64_t before, int64_t dear, int32_t tiles, int64_t all, int32_t i, int32_t n, int32_t *lo, int32_t *hi)
{
    int64_t from = all * i / n - before, to = all * (i + 1) / n - before;
    *lo = (int32_t)CLAMP(DIV_UP(MAX(from, 0), dear), 0, tiles);
    *hi = (int32_t)CLAMP(DIV_UP(MAX(to, 0), dear), 0, tiles);
}

static int64_t dear(const struct moe_group *g, int32_t e) { return DIV_UP(eng_moe_slots(g, e), 4); }

static void rows_of(const struct moe_group *g, const struct krn_mat *w, const struct krn_act *in, float *y, int32_t row0, int32_t row1)
{
    struct krn_leaves one;
    struct krn_act a = *in;
    eng_pass_whole(&one, w->cols);
    if (eng_pass_reads(g->m, w) != READS_CODES) a.q = NULL;
    if (row0 < row1)
        g->m->krn->matmul(&(struct krn_matmul){.w = w, .x = &a, .leaves = &one, .y = y, .y_stride = w->rows, .row0 = row0, .row1 = row1});
}

void eng_moe_gate_and_up(const struct moe_group *g, int32_t i, int32_t n)
{
    int64_t all = 0, before = 0;
    show_inputs(g, i);
    for (int32_t e = 0; e < eng_moe_n(g->m); e++) all += dear(g, e) * DIV_UP(eng_moe_ffn(g, e)->up.rows, KRN_TILE);
    for (int32_t e = 0; e < eng_moe_n(g->m); e++) {
        const struct eng_ffn *f = eng_moe_ffn(g, e);
        int32_t lo, hi, tiles = DIV_UP(f->up.rows, KRN_TILE);
        if (!eng_moe_slots(g, e)) continue;
        tiles_of(before, dear(g, e), tiles, all, i, n, &lo, &hi);
        before += dear(g, e) * tiles;
        if (lo >= hi) continue;
        struct krn_act in = eng_moe_input(g, e);
        int32_t row1 = MIN(hi * KRN_TILE, f->up.rows);
        rows_of(g, &f->gate, &in, g->o->gate + eng_moe_columns_at(g, e), lo * KRN_TILE, row1);
        rows_of(g, &f->up, &in, g->o->up + eng_moe_columns_at(g, e), lo * KRN_TILE, row1);
    }
}

void eng_moe_products(const struct moe_group *g, int32_t i, int32_t n)
{
    int64_t s0, s1;
    int32_t e = 0;
    eng_team_range(g->o->first[eng_moe_n(g->m)], 1, i, n, &s0, &s1);
    for (int64_t s = s0; s < s1; s++) {
        while (g->o->first[e + 1] <= s) e++;
        const struct eng_ffn *f = eng_moe_ffn(g, e);
        struct krn_act a = eng_moe_product(g, e);
        int64_t row = s - g->o->first[e], at = eng_moe_columns_at(g, e) + row * a.cols;
        if (f->bgate) g->m->krn->add(g->o->gate + at, f->bgate, a.cols);
        if (f->bup) g->m->krn->add(g->o->up + at, f->bup, a.cols);
        eng_pass_gate(g->m, g->o->gate, g->o->up, at, at + a.cols);
        eng_pass_prepare(g->m, &a, row, row + 1, 0, a.cols);
    }
}
