/* forward.c: see forward.h.
 *
 * The team runs one function per pass; inside it the threads share rows, tokens or heads and meet at
 * barriers. Only the calling thread (thread 0) speaks to other ranks, while the others wait. The
 * sublayers are in attention.c and mlp.c, what they share in pass.c. */
#include "engine/model/graphs.h"
#include "engine/model/left.h"
#include "engine/model/lora.h"
#include "engine/model/mla.h"
#include "engine/model/moe.h"
#include "engine/model/pass.h"
#include "engine/model/staging.h"

#include <stdlib.h>
#include <string.h>

static enum err all_reduce(struct eng_model *m, const struct coll_cut *cut, int32_t n_nodes, int64_t n)
{
    enum err rc;
    const float *mine;
    if (m->tp_dev) return trn_coll_all_reduce(m->tp_dev, cut, m->parts, m->red, n, m->timeout_us);
    TRY(eng_staging_get(m, m->parts, n_nodes * n, &mine));
    TRY(trn_coll_all_reduce(m->tp, cut, mine, eng_staging_room(m, m->red), n, m->timeout_us));
    TRY(eng_staging_put(m, m->red, n));
out:
    return rc;
}

/* Everyone's rows of the last product are there; with several ranks, summed over them. */
static bool reduce(struct eng_pass *p, int32_t k, const struct coll_cut *cut, int32_t n_nodes, int32_t i)
{
    struct eng_model *m = p->m;
    eng_pass_barrier(m, i);
    if (i == 0 && m->beside) (void)trn_coll_push(m->beside);
    if (m->shard.tp_width == 1) return true;
    if (i == 0) {
        p->failed = all_reduce(m, cut, n_nodes, (int64_t)p->b->n_tok * m->spec.d_model + eng_lora_behind(m, k));
        eng_pass_lap(m, i, ENG_OP_COLLECTIVE);
    }
    eng_pass_barrier(m, i);
    return !p->failed;
}

static void layers(void *arg, int32_t i, int32_t n)
{
    struct eng_pass *p = arg;
    struct eng_model *m = p->m;
    int32_t n_sub = 2 * m->weights->n_layers;
    int64_t t0, t1;
    for (int32_t k = 0; k < n_sub; k += 2) {
        if (i == 0)
            atomic_store_explicit(&m->layer, m->shard.layer0 + k / 2, memory_order_relaxed);
        if (m->mla) eng_mla_run(p, k, i, n);
        else eng_attention(p, k, i, n);
        if (p->failed || !reduce(p, k, &m->shard.attn_cut, m->shard.attn.n_nodes, i)) return;
        eng_lora_sums(m, k, p->b->n_tok, i, n);
        if (m->spec.moe[m->shard.layer0 + k / 2]) eng_moe_run(p, k + 1, i, n);
        else eng_mlp(p, k + 1, i, n);
        if (p->failed || !reduce(p, k + 1, &m->shard.ffn_cut, m->shard.ffn.n_nodes, i)) return;
        eng_lora_sums(m, k + 1, p->b->n_tok, i, n);
    }
    eng_team_range(p->b->n_tok, 1, i, n, &t0, &t1);
    eng_pass_leave(m, n_sub - 1, t0, t1);
    eng_pass_lap(m, i, ENG_OP_NORM);
}

enum err eng_forward_run(struct eng_model *m, const struct eng_batch *b)
{
    struct eng_batch rows = *b;
    struct eng_pass p = {.m = m, .b = &rows};
    int32_t half = m->spec.rope_dim / 2;
    rows.n_tok = eng_graphs_rows(m, b->n_tok);
    for (int32_t t = b->n_tok; t < rows.n_tok; t++) {
        rows.pos[t] = -1;
        for (int32_t g = 0; g < m->groups.n; g++) rows.table[g][t] = rows.table[g][b->n_tok - 1];
    }
    for (int32_t t = 0; t < rows.n_tok; t++) {
        int64_t at = (int64_t)MAX(rows.pos[t], 0) * half * 2;
        m->cs[t] = m->rope + at;
        m->cs_local[t] = m->rope_local ? m->rope_local + at : m->cs[t];
        m->row_temper[t] = m->temper ? m->temper + (rows.pos[t] + 1) / m->spec.temper_length * (int64_t)m->spec.head_dim : m->cs[t];
    }
    eng_lora_step(m, b);
    p.failed = eng_staging_batch(m, &rows);
    if (p.failed) return p.failed;
    eng_times_lap(m->times, ENG_OP_OTHER);
    bool done;
    p.failed = eng_graphs_run(&p, &done);
    if (!p.failed && !done) eng_team_run(m->team, layers, &p);
    eng_times_lap(m->times, ENG_OP_WAIT);
    atomic_store_explicit(&m->layer, -1, memory_order_relaxed);
    return p.failed;
}

enum err eng_forward_warm(struct eng_model *m)
{
    enum err e = eng_moe_there_open(m);
    return e ? e : eng_graphs_make(m, layers);
}

/* Every rank's rows of the embedding, brought together: ranks hold vocabulary rows [bounds[r], bounds[r+1]). */
static enum err embed_together(struct eng_model *m, const struct eng_batch *b)
{
    enum err rc;
    int32_t d = m->spec.d_model, w = m->shard.tp_width, mine = 0;
    const int32_t *bounds = m->shard.vocab_bounds, *ids;
    int64_t bytes[COLL_MAX_RANKS] = {0}, at[COLL_MAX_RANKS] = {0};
    const float *rows;
    float *x = eng_staging_room(m, m->x), *all = eng_staging_all(m);
    for (int32_t t = 0; t < b->n_tok; t++)
        for (int32_t r = 0; r < w; r++)
            if (b->ids[t] >= bounds[r] && b->ids[t] < bounds[r + 1]) {
                bytes[r] += d * (int64_t)sizeof(float);
                if (r == m->shard.tp_rank) m->own[mine++] = b->ids[t] - bounds[r];
            }
    for (int32_t r = 1; r < w; r++) at[r] = at[r - 1] + bytes[r - 1] / (int64_t)sizeof(float);
    TRY(eng_staging_ids(m, m->own, mine, &ids));
    m->krn->unpack_rows(&m->weights->embd, ids, mine, m->h);
    TRY(eng_staging_get(m, m->h, (int64_t)mine * d, &rows));
    TRY(trn_coll_all_gather(m->tp, rows, bytes, all, m->timeout_us));
    for (int32_t t = 0; t < b->n_tok; t++)
        for (int32_t r = 0; r < w; r++)
            if (b->ids[t] >= bounds[r] && b->ids[t] < bounds[r + 1]) {
                memcpy(x + (int64_t)t * d, all + at[r], (size_t)d * sizeof(float));
                at[r] += d;
            }
    TRY(eng_staging_put(m, m->x, (int64_t)b->n_tok * d));
out:
    return rc;
}

static enum err embed_alone(struct eng_model *m, const struct eng_batch *b)
{
    const int32_t *ids;
    enum err e = eng_staging_ids(m, b->ids, b->n_tok, &ids);
    if (!e) m->krn->unpack_rows(&m->weights->embd, ids, b->n_tok, m->x);
    return e;
}

enum err eng_forward_embed(struct eng_model *m, const struct eng_batch *b)
{
    enum err e = m->shard.tp_width == 1 ? embed_alone(m, b) : m->left.there ? eng_left_embed(m, b) : embed_together(m, b);
    if (!e && m->spec.embd_scale != 1.0f) m->krn->scale(m->x, m->spec.embd_scale, (int64_t)b->n_tok * m->spec.d_model);
    return e;
}

struct head { struct eng_model *m; const int32_t *rows; int32_t n; float *out; };

static bool adjusts(const struct eng_model *m)
{
    return m->weights->head_bias || m->spec.logit_scale != 1.0f || m->spec.logit_cap > 0;
}

/* What some families do to their logits, on this thread's rows. */
static void adjust(const struct eng_model *m, const struct head *a, int32_t i, int32_t n)
{
    const struct eng_spec *s = &m->spec;
    int64_t r0, r1, rows = m->weights->head.rows;
    eng_team_range(rows, KRN_TILE, i, n, &r0, &r1);
    for (int32_t t = 0; t < a->n && r0 < r1; t++) {
        float *y = a->out + t * rows + r0;
        if (m->weights->head_bias) m->krn->add(y, m->weights->head_bias + r0, r1 - r0);
        if (s->logit_scale != 1.0f) m->krn->scale(y, s->logit_scale, r1 - r0);
        if (s->logit_cap > 0) m->krn->softcap(y, s->logit_cap, r1 - r0);
    }
}

static void head(void *arg, int32_t i, int32_t n)
{
    const struct head *a = arg;
    struct eng_model *m = a->m;
    int32_t d = m->spec.d_model;
    int64_t t0, t1;
    eng_team_range(a->n, 1, i, n, &t0, &t1);
    if (m->be->on_host)
        for (int64_t t = t0; t < t1; t++)
            memcpy(m->h + t * d, m->x + (int64_t)a->rows[t] * d, (size_t)d * sizeof(float));
    eng_pass_norm(m, m->h, m->h, m->weights->out_norm, m->weights->out_norm_bias, d, t0, t1);
    struct krn_act in = eng_pass_act(m, m->h, a->n, d, eng_pass_reads(m, &m->weights->head));
    eng_pass_prepare(m, &in, t0, t1, 0, d);
    eng_team_barrier(m->team, i);
    const struct krn_mat *w = &m->weights->head;
    eng_pass_products(m, &(struct eng_product){.w = w, .x = m->h, .y = a->out, .y_stride = w->rows}, 1, a->n, i, n);
    if (!adjusts(m)) return;
    eng_team_barrier(m->team, i);
    adjust(m, a, i, n);
}

/* h = rows of x, on a device: a copy for each run of rows that follow each other. */
static enum err gather(struct eng_model *m, const int32_t rows[], int32_t n)
{
    enum err rc = OK;
    int64_t d = m->spec.d_model;
    for (int32_t t = 0, end; t < n; t = end) {
        for (end = t + 1; end < n && rows[end] == rows[end - 1] + 1;) end++;
        TRY(eng_backend_copy(m->be, m->h + t * d, m->x + rows[t] * d, (end - t) * d * (int64_t)sizeof(float)));
    }
out:
    return rc;
}

enum err eng_forward_head(struct eng_model *m, const int32_t rows[], int32_t n, float *out)
{
    enum err rc = OK;
    ASSERT(n <= m->max_tok && n <= ENG_HEAD_ROWS);
    if (!n) return OK;
    eng_times_lap(m->times, ENG_OP_OTHER);
    if (!m->be->on_host) TRY(gather(m, rows, n));
    eng_team_run(m->team, head, &(struct head){m, rows, n, m->be->on_host ? out : m->logits});
    eng_times_lap(m->times, ENG_OP_HEAD);
out:
    return rc;
}

enum err eng_forward_logits(struct eng_model *m, int32_t n, float *out)
{
    if (m->be->on_host) return OK;
    enum err e = eng_backend_download(m->be, out, m->logits, (int64_t)n * m->weights->head.rows * (int64_t)sizeof *out);
    eng_times_lap(m->times, ENG_OP_HEAD);
    return e;
}

enum err eng_forward_best(struct eng_model *m, int32_t n, struct krn_pick best[])
{
    eng_backend_best(m->be, m->logits, n, m->weights->head.rows, m->shard.embd0, m->picks.best);
    enum err e = eng_backend_download(m->be, best, m->picks.best, n * (int64_t)sizeof *best);
    eng_times_lap(m->times, ENG_OP_HEAD);
    return e;
}

/* Best, drawn and top come over as one. */
enum err eng_forward_draw(struct eng_model *m, int32_t n, const struct krn_noise how[], const struct krn_pick over[], struct krn_pick best[],
                          struct krn_pick drawn[], struct krn_pick top[][KRN_TOP])
{
    enum err rc;
    enum { TOP = 2 * ENG_HEAD_ROWS };
    struct krn_pick all[TOP + ENG_HEAD_ROWS * KRN_TOP];
    int32_t rows = m->weights->head.rows, n_top = 0;
    for (int32_t i = 0; i < n; i++)
        if (how[i].top) n_top = i + 1;
    if (over) TRY(eng_backend_upload(m->be, m->picks.best, over, n * (int64_t)sizeof *over));
    else eng_backend_best(m->be, m->logits, n, rows, m->shard.embd0, m->picks.best);
    TRY(eng_backend_upload(m->be, m->picks.how, how, n * (int64_t)sizeof *how));
    eng_backend_draw(m->be, m->logits, n, rows, m->shard.embd0, m->picks.how, m->picks.best, m->picks.drawn);
    if (n_top) eng_backend_top(m->be, m->logits, n_top, rows, m->shard.embd0, m->picks.how, m->picks.best, m->picks.pieces, m->picks.top);
    TRY(eng_backend_download(m->be, all, m->picks.best, (n_top ? TOP + n_top * KRN_TOP : ENG_HEAD_ROWS + n) * (int64_t)sizeof *all));
    memcpy(best, all, (size_t)n * sizeof *best);
    memcpy(drawn, all + ENG_HEAD_ROWS, (size_t)n * sizeof *drawn);
    if (n_top) memcpy(top, all + TOP, (size_t)n_top * sizeof *top);
    eng_times_lap(m->times, ENG_OP_HEAD);
out:
    return rc;
}

struct hidden { struct eng_model *m; int32_t row0, n; };

static void hidden(void *arg, int32_t i, int32_t n)
{
    const struct hidden *a = arg;
    struct eng_model *m = a->m;
    int32_t d = m->spec.d_model;
    int64_t t0, t1;
    eng_team_range(a->n, 1, i, n, &t0, &t1);
    if (t0 < t1)
        eng_pass_norm(m, m->h, m->x + (int64_t)a->row0 * d, m->weights->out_norm, m->weights->out_norm_bias, d, t0, t1);
}

enum err eng_forward_hidden(struct eng_model *m, int32_t row0, int32_t n, const float **out)
{
    ASSERT(row0 >= 0 && n > 0 && row0 + n <= m->max_tok);
    eng_times_lap(m->times, ENG_OP_OTHER);
    eng_team_run(m->team, hidden, &(struct hidden){m, row0, n});
    eng_times_lap(m->times, ENG_OP_HEAD);
    return eng_staging_get(m, m->h, (int64_t)n * m->spec.d_model, out);
}
