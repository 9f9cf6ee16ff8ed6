/* left.c: see left.h.
 *
 * Adding -0 leaves every number's bits, that of -0 and of +0 too: so a row that one rank has and the others fill with -0 comes out of a sum in any order as
 * the file has it. */
#include "engine/model/left.h"

#include "engine/model/staging.h"

#include "base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    PAGE = 4096,
    PICKS = ENG_HEAD_ROWS * (2 + KRN_TOP),   /* best, drawn and top side by side */
    GATHERED = ENG_HEAD_ROWS * (1 + KRN_TOP) /* of a rank, at most: drawn and top */
};

static int32_t mark_of(int32_t side) { return PLUGIN_MARKS - ENG_BACKEND_MARKS + side; }

/* ---- open, close ---- */

/* Does nothing of a step need the host, as far as this rank knows? */
static bool could(const struct eng_model *m)
{
    const char *said = getenv("TESSERA_AHEAD");
    bool sums = m->shard.tp_width == 1 || (m->tp_dev && trn_coll_records(m->tp_dev));
    return !m->be->on_host && m->shard.first && m->shard.last && sums && (!said || strcmp(said, "off") != 0);
}

static enum err everywhere(const struct eng_model *m, bool *can)
{
    uint8_t mine = *can, all[COLL_MAX_RANKS];
    int64_t bytes[COLL_MAX_RANKS];
    if (m->shard.tp_width == 1) return OK;
    for (int32_t r = 0; r < m->shard.tp_width; r++) bytes[r] = 1;
    enum err e = trn_coll_all_gather(m->tp, &mine, bytes, all, m->timeout_us);
    for (int32_t r = 0; r < m->shard.tp_width && !e; r++) *can &= all[r];
    return e;
}

/* A rank without rows of the vocabulary finds nothing, once and for all. */
static enum err take_mine(struct eng_model *m)
{
    enum err rc;
    void *mine, *all;
    struct krn_pick *nothing = xmalloc(PICKS * sizeof *nothing);
    for (int32_t i = 0; i < PICKS; i++) nothing[i] = (struct krn_pick){-INFINITY, -1};
    TRY(eng_backend_alloc(m->be, ENG_MEMORY_STEP, &mine, PICKS * (int64_t)sizeof *nothing));
    TRY(eng_backend_alloc(m->be, ENG_MEMORY_STEP, &all, (int64_t)m->shard.tp_width * GATHERED * (int64_t)sizeof *nothing));
    TRY(eng_backend_upload(m->be, mine, nothing, PICKS * (int64_t)sizeof *nothing));
    m->left.mine.best = mine;
    m->left.mine.drawn = m->left.mine.best + ENG_HEAD_ROWS;
    m->left.mine.top = m->left.mine.drawn + ENG_HEAD_ROWS;
    m->left.all = all;
out:
    free(nothing);
    return rc;
}

/* *can: the memory was to be had. */
static enum err take(struct eng_model *m, int32_t n_seqs, bool *can)
{
    enum err rc;
    void *there, *mapped;
    int64_t each = ROUND_UP(n_seqs * (int64_t)sizeof(int32_t), PAGE);
    uint8_t *host = aligned_alloc(PAGE, (size_t)(2 * each));
    if (!host) return err_raise(ERR_NO_MEMORY, "no memory for %.1f MB of chosen tokens", (double)(2 * each) / 1e6);
    *can = !eng_backend_map(m->be, host, 2 * each, &mapped);
    if (!*can) {
        log_debug("engine", "steps wait for their tokens: %s", err_text());
        free(host);
        return OK;
    }
    m->left.host[0] = (int32_t *)(void *)host;
    TRY(eng_backend_alloc(m->be, ENG_MEMORY_STEP, &there, n_seqs * (int64_t)sizeof(int32_t)));
    if (m->shard.tp_width > 1) TRY(take_mine(m));
    for (int32_t s = 0; s < 2; s++) {
        m->left.host[s] = (int32_t *)(void *)(host + s * each);
        m->left.mapped[s] = (int32_t *)(void *)((uint8_t *)mapped + s * each);
    }
    m->left.there = there;
out:
    return rc;
}

enum err eng_left_open(struct eng_model *m, int32_t n_seqs)
{
    enum err rc;
    bool can = could(m);
    TRY(everywhere(m, &can));
    if (!can) goto out;
    TRY(take(m, n_seqs, &can));
    TRY(everywhere(m, &can));
    if (!can) eng_left_close(m);
out:
    return rc;
}

/* What is on the device is the backend's to free. */
void eng_left_close(struct eng_model *m)
{
    if (m->left.host[0]) eng_backend_unmap(m->be, m->left.host[0]);
    free(m->left.host[0]);
    m->left = (struct eng_left){0};
}

/* ---- inputs ---- */

enum err eng_left_embed(struct eng_model *m, const struct eng_batch *b)
{
    enum err rc;
    const int32_t *rows;
    struct coll_cut cut = {.n_leaf = m->shard.tp_width};
    for (int32_t r = 0; r <= cut.n_leaf; r++) cut.bounds[r] = r;
    TRY(eng_staging_ids(m, b->ids, b->n_tok, &rows));
    m->krn->unpack_rows(&m->weights->embd, rows, b->n_tok, m->h);
    rc = trn_coll_all_reduce(m->tp_dev, &cut, m->h, m->x, (int64_t)b->n_tok * m->spec.d_model, m->timeout_us);
out:
    return rc;
}

/* ---- choices ---- */

/* What every rank has at `mine`, rank after rank at m->left.all. */
static enum err gather(struct eng_model *m, const struct krn_pick *mine, int32_t n)
{
    int64_t bytes[COLL_MAX_RANKS];
    for (int32_t r = 0; r < m->shard.tp_width; r++) bytes[r] = n * (int64_t)sizeof *mine;
    return trn_coll_all_gather(m->tp_dev, mine, bytes, m->left.all, m->timeout_us);
}

static enum err best(struct eng_model *m, int32_t n)
{
    const bool alone = m->shard.tp_width == 1;
    const struct eng_picks *to = alone ? &m->picks : &m->left.mine;
    eng_backend_best(m->be, m->logits, n, m->weights->head.rows, m->shard.embd0, to->best);
    enum err e = alone ? OK : gather(m, to->best, n);
    if (!alone && !e) eng_backend_merge_best(m->be, n, m->shard.tp_width, n, m->left.all, m->picks.best);
    return e;
}

/* picks.drawn, over the picks.best of all ranks. n_top: rows up to which some are drawn among a few. */
static enum err draw(struct eng_model *m, int32_t n, int32_t n_top, const struct krn_noise how[])
{
    enum err rc;
    const bool alone = m->shard.tp_width == 1;
    const struct eng_picks *to = alone ? &m->picks : &m->left.mine, *p = &m->picks;
    int32_t rows = m->weights->head.rows, id0 = m->shard.embd0, each = n_top ? ENG_HEAD_ROWS + n_top * KRN_TOP : n;
    TRY(eng_backend_upload(m->be, p->how, how, n * (int64_t)sizeof *how));
    eng_backend_draw(m->be, m->logits, n, rows, id0, p->how, p->best, to->drawn);
    if (n_top) eng_backend_top(m->be, m->logits, n_top, rows, id0, p->how, p->best, p->pieces, to->top);
    if (!alone) {
        TRY(gather(m, to->drawn, each));
        eng_backend_merge_best(m->be, n, m->shard.tp_width, each, m->left.all, p->drawn);
        if (n_top) eng_backend_merge_top(m->be, n_top, m->shard.tp_width, each, m->left.all + ENG_HEAD_ROWS, p->how, p->top);
    }
    if (n_top) eng_backend_among(m->be, n_top, p->how, p->top, p->drawn);
out:
    return rc;
}

enum err eng_left_choose(struct eng_model *m, int32_t n, const struct krn_noise how[], int32_t first, int32_t side)
{
    enum err rc;
    bool draws = false;
    int32_t n_top = 0;
    for (int32_t i = 0; i < n; i++) {
        draws |= how[i].t > 0;
        if (how[i].t > 0 && how[i].top) n_top = i + 1;
    }
    TRY(best(m, n));
    if (draws) TRY(draw(m, n, n_top, how));
    eng_backend_chosen(m->be, n, draws ? m->picks.how : NULL, m->picks.best, m->picks.drawn, m->left.there + first, m->left.mapped[side] + first);
    rc = eng_backend_mark(m->be, mark_of(side));
    eng_times_lap(m->times, ENG_OP_HEAD);
out:
    return rc;
}

enum err eng_left_came(struct eng_model *m, int32_t side, bool *done) { return eng_backend_look(m->be, mark_of(side), done); }

enum err eng_left_tokens(struct eng_model *m, int32_t side, const int32_t **ids)
{
    *ids = m->left.host[side];
    enum err e = eng_backend_reach(m->be, mark_of(side));
    eng_times_lap(m->times, ENG_OP_HEAD);
    return e;
}
