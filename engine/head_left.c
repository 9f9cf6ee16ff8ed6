/* head_left.c: see head.h: tokens that stay on the device, where the next step finds them, until this one ends.
 *
 * A rank may tell its device a step before it knows what came of the one before, and another rank after: both must tell the same. So nothing here looks at
 * what ends with a step: a sequence that has stopped is chosen for like any other, and its token is thrown away in the second half. */
#include "engine/head_rows.h"
#include "engine/model/left.h"

/* The largest logit or a draw, among all or a few, and nothing else wanted. What the choice is does not depend on tokens that are still on their way:
 * min_tokens, reached or not, is judged by those that have come, and once reached stays so. */
static bool stays(const struct eng_head *hd, const struct step_item *it)
{
    const struct eng_slot *s = &hd->slots->slots[it->slot];
    if (it->out & ~(uint32_t)OUT_SAMPLE) return false;
    return !it->out || eng_rows_way(hd, s, it->pos + it->n_in) < CHOICE_WHOLE;
}

bool eng_head_leaves(const struct eng_head *hd, const struct step_plan *p)
{
    int32_t n = 0;
    bool all = hd->m->left.there;
    for (int32_t i = 0; i < p->n_items && all; i++) {
        all = stays(hd, &p->items[i]);
        n += p->items[i].out & OUT_SAMPLE;
    }
    return all && n;
}

int32_t eng_head_left(const struct eng_head *hd, const struct step_in *in)
{
    const struct eng_head_left *l = &hd->left[in->ref_slot];
    return hd->left_of == in->ref_step && l->step == in->ref_step ? -1 - l->at : 0;
}

void eng_head_forget(struct eng_head *hd) { hd->left_of = UINT64_MAX; }

enum err eng_head_leave(struct eng_head *hd, const struct step_plan *p, struct arena *a, int32_t side)
{
    enum err rc = OK;
    struct eng_wanted *w;
    int32_t n = eng_rows_wanted(p, a, &w);
    ASSERT(n <= hd->slots->n_slots);
    hd->left_of = p->step;
    for (int32_t i = 0; i < n; i += HEAD_ROWS) {
        struct eng_rows r = {.hd = hd, .p = p, .w = w + i, .n = MIN(HEAD_ROWS, n - i)};
        struct krn_noise how[HEAD_ROWS] = {{0}};
        int32_t rows[HEAD_ROWS];
        for (int32_t j = 0; j < r.n; j++) {
            const struct eng_slot *s = eng_rows_slot(&r, j);
            int64_t position = eng_rows_position(&r, j);
            rows[j] = r.w[j].row;
            hd->left[p->items[r.w[j].item].slot] = (struct eng_head_left){.step = p->step, .at = i + j};
            if (eng_rows_way(hd, s, position) != CHOICE_GREEDY) how[j] = eng_sampler_noise(&s->sampling, position);
        }
        TRY(eng_forward_head(hd->m, rows, r.n, hd->slice));
        TRY(eng_left_choose(hd->m, r.n, how, i, side));
    }
out:
    return rc;
}

enum err eng_head_take(struct eng_head *hd, const struct step_plan *p, struct arena *a, int32_t side, struct step_result *res)
{
    enum err rc;
    struct eng_wanted *w;
    const int32_t *ids;
    int32_t n = eng_rows_wanted(p, a, &w);
    TRY(eng_left_tokens(hd->m, side, &ids));
    eng_rows_prepare(hd, p, a, res);
    for (int32_t i = 0; i < n; i += HEAD_ROWS) {
        struct eng_rows r = {.hd = hd, .p = p, .w = w + i, .n = MIN(HEAD_ROWS, n - i)};
        eng_rows_settle(&r, ids + i, res);
    }
out:
    return rc;
}
