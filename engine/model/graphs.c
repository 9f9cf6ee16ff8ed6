/* graphs.c: see graphs.h.
 *
 * Sizes: rows go up by a third or a half, which costs nothing while a step waits for weights; splits by four, since a split without keys is
 * a block that returns at once. An 8B model with 32k of context has some 35 graphs of 600 kernels each.
 *
 * TESSERA_GRAPHS=off on any rank: none are made, for comparison.
 *
 * I1  the ranks of a stage record the same graphs in the same order, and have all of them or none: what sums between cards set up while they are
 *     recorded, they may set up together (NCCL). */
#include "engine/model/graphs.h"

#include "engine/model/staging.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

static const int32_t sizes[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64};
enum { MOST_ROWS = 64, SPLITS = 4 };

/* The most rows of a step in whose layers the host takes no part: there is no sum over ranks by its memory. */
static int32_t most_rows(const struct eng_model *m)
{
    bool sums = m->shard.tp_width == 1 || (m->tp_dev && trn_coll_records(m->tp_dev));
    return m->be->on_host || !sums ? 0 : MIN(MOST_ROWS, m->max_tok);
}

int32_t eng_graphs_rows(const struct eng_model *m, int32_t n_tok)
{
    int32_t most = most_rows(m);
    size_t i = 0;
    if (n_tok > most) return n_tok;
    while (sizes[i] < n_tok) i++;
    return MIN(sizes[i], most);
}

bool eng_graphs_cover(const struct eng_model *m, int32_t n_tok) { return !m->graphs.off && n_tok <= most_rows(m); }

int32_t eng_graphs_splits(const struct eng_model *m, int32_t most)
{
    int32_t n = SPLITS;
    while (n < most) n *= SPLITS;
    return MIN(n, m->max_splits);
}

/* The least that a rank of the stage says. */
static enum err least(const struct eng_model *m, int32_t *x)
{
    int32_t all[COLL_MAX_RANKS];
    int64_t bytes[COLL_MAX_RANKS];
    if (m->tp->size == 1) return OK;
    for (int32_t r = 0; r < m->tp->size; r++) bytes[r] = sizeof *x;
    enum err e = trn_coll_all_gather(m->tp, x, bytes, all, m->timeout_us);
    for (int32_t r = 0; r < m->tp->size && !e; r++) *x = MIN(*x, all[r]);
    return e;
}

/* Go on only if every rank can. */
static enum err all_can(struct eng_model *m, bool can)
{
    int32_t x = can;
    enum err e = least(m, &x);
    m->graphs.off = !e && !x;
    if (m->graphs.off) eng_backend_forget(m->be);
    return e;
}

static uint64_t key_of(const struct eng_model *m, const struct eng_batch *b)
{
    return (uint64_t)b->n_tok << 32 | (uint64_t)(uint32_t)eng_attention_splits(m, b, m->shard.kv1 - m->shard.kv0, 1);
}

/* The graph of steps of `rows` rows, the longest of which has `splits` splits. */
static enum err make(struct eng_model *m, int32_t rows, int32_t splits, eng_layers_fn layers)
{
    enum err rc;
    int32_t pos[MOST_ROWS] = {(splits - 1) * KRN_ATTN_SPLIT};
    struct eng_batch b = {.n_tok = rows, .pos = pos};
    struct eng_pass p = {.m = m, .b = &b};
    eng_staging_rows(m, rows);
    TRY(all_can(m, eng_backend_record(m->be)));
    if (m->graphs.off) goto out;
    if (m->tp_dev) trn_coll_record_begin(m->tp_dev);
    eng_team_run(m->team, layers, &p);
    if (m->tp_dev) trn_coll_record_end(m->tp_dev, &m->graphs.sums);
    m->graphs.sums.bytes_sent /= (uint64_t)rows; /* of a row; as many operations in every graph */
    int32_t n = 0;
    bool kept = eng_backend_keep(m->be, key_of(m, &b), &n);
    if (rows == 1) m->graphs.one_row = MAX(m->graphs.one_row, n);
    TRY(p.failed);
    TRY(all_can(m, kept));
    m->graphs.n_made += !m->graphs.off;
out:
    return rc;
}

enum err eng_graphs_make(struct eng_model *m, eng_layers_fn layers)
{
    enum err rc = OK;
    int32_t nkv = m->shard.kv1 - m->shard.kv0, rows = 0;
    m->graphs.split_rows = nkv ? DIV_UP(eng_pass_split_items(m), nkv) : INT32_MAX;
    if (most_rows(m)) {
        const char *said = getenv("TESSERA_GRAPHS");
        TRY(least(m, &m->graphs.split_rows));
        TRY(all_can(m, !said || strcmp(said, "off") != 0));
    }
    while (rows < most_rows(m) && !m->graphs.off) {
        rows = eng_graphs_rows(m, rows + 1);
        TRY(make(m, rows, 1, layers));
        for (int32_t n = 1; n < m->max_splits && rows < m->graphs.split_rows && !m->graphs.off;) {
            n = eng_graphs_splits(m, n + 1);
            TRY(make(m, rows, n, layers));
        }
    }
    if (m->graphs.off) log_warn("engine", "%s makes no graphs of steps: each kernel is told by itself", m->be->name);
    else log_debug("engine", "%s: %d graphs of steps, of one token %d launches", m->be->name, m->graphs.n_made, m->graphs.one_row);
    atomic_store_explicit(&m->layer, -1, memory_order_relaxed);
out:
    return rc;
}

enum err eng_graphs_run(struct eng_pass *p, bool *done)
{
    struct eng_model *m = p->m;
    *done = false;
    if (m->graphs.off || p->b->n_tok > most_rows(m)) return OK;
    enum err e = eng_backend_replay(m->be, key_of(m, p->b), done);
    if (*done && m->tp_dev && !e) {
        struct coll_stats s = m->graphs.sums;
        s.bytes_sent *= (uint64_t)p->b->n_tok;
        e = trn_coll_replayed(m->tp_dev, &s, m->timeout_us);
    }
    m->graphs.n_replayed += *done;
    return e;
}
