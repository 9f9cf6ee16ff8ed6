/* forward.c: see forward.h.
 *
 * The team runs one function per pass; inside it the threads share rows, tokens or heads and meet at
 * barriers. Only the calling thread (thread 0) speaks to other ranks, while the others wait. The
 * sublayers are in attention.c and mlp.c, what they share in pass.c. */
#include "engine/model/pass.h"

#include <stdlib.h>
#include <string.h>

/* Everyone's rows of the last product are there; with several ranks, summed over them. */
static bool reduce(struct eng_pass *p, const struct coll_cut *cut, int32_t i)
{
    struct eng_model *m = p->m;
    eng_pass_barrier(m, i);
    if (m->shard.tp_width == 1) return true;
    if (i == 0) {
        p->failed = trn_coll_all_reduce(m->tp, cut, m->parts, m->red,
                                        (int64_t)p->b->n_tok * m->spec.d_model, m->timeout_us);
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
        eng_attention(p, k, i, n);
        if (!reduce(p, &m->shard.attn_cut, i)) return;
        eng_mlp(p, k + 1, i, n);
        if (!reduce(p, &m->shard.ffn_cut, i)) return;
    }
    eng_team_range(p->b->n_tok, 1, i, n, &t0, &t1);
    eng_pass_add_pending(m, eng_pass_pending(m, n_sub - 1), t0, t1);
    eng_pass_lap(m, i, ENG_OP_NORM);
}

enum err eng_forward_run(struct eng_model *m, const struct eng_batch *b)
{
    struct eng_pass p = {.m = m, .b = b};
    int32_t half = m->spec.rope_dim / 2;
    for (int32_t t = 0; t < b->n_tok; t++) m->cs[t] = m->rope + (int64_t)b->pos[t] * half * 2;
    eng_times_lap(m->times, ENG_OP_OTHER);
    eng_team_run(m->team, layers, &p);
    eng_times_lap(m->times, ENG_OP_WAIT);
    atomic_store_explicit(&m->layer, -1, memory_order_relaxed);
    return p.failed;
}

/* Each rank unpacks the rows it holds; the others receive them. */
enum err eng_forward_embed(struct eng_model *m, const struct eng_batch *b)
{
    enum err rc;
    int32_t d = m->spec.d_model, w = m->shard.tp_width, mine = 0;
    const int32_t *bounds = m->shard.vocab_bounds;
    int64_t bytes[COLL_MAX_RANKS] = {0}, at[COLL_MAX_RANKS] = {0};
    if (w == 1) {
        for (int32_t t = 0; t < b->n_tok; t++) krn_unpack_row(&m->weights->embd, b->ids[t], m->x + (int64_t)t * d);
        return OK;
    }
    for (int32_t t = 0; t < b->n_tok; t++)
        for (int32_t r = 0; r < w; r++)
            if (b->ids[t] >= bounds[r] && b->ids[t] < bounds[r + 1]) {
                bytes[r] += d * (int64_t)sizeof(float);
                if (r == m->shard.tp_rank)
                    krn_unpack_row(&m->weights->embd, b->ids[t] - bounds[r], m->h + (int64_t)mine++ * d);
            }
    for (int32_t r = 1; r < w; r++) at[r] = at[r - 1] + bytes[r - 1] / (int64_t)sizeof(float);
    TRY(trn_coll_all_gather(m->tp, m->h, bytes, m->red, m->timeout_us));
    for (int32_t t = 0; t < b->n_tok; t++)
        for (int32_t r = 0; r < w; r++)
            if (b->ids[t] >= bounds[r] && b->ids[t] < bounds[r + 1]) {
                memcpy(m->x + (int64_t)t * d, m->red + at[r], (size_t)d * sizeof(float));
                at[r] += d;
            }
out:
    return rc;
}

struct head { struct eng_model *m; const int32_t *rows; int32_t n; float *out; };

static void head(void *arg, int32_t i, int32_t n)
{
    const struct head *a = arg;
    struct eng_model *m = a->m;
    int32_t d = m->spec.d_model;
    int64_t t0, t1;
    eng_team_range(a->n, 1, i, n, &t0, &t1);
    for (int64_t t = t0; t < t1; t++)
        memcpy(m->h + t * d, m->x + (int64_t)a->rows[t] * d, (size_t)d * sizeof(float));
    m->krn->rmsnorm(m->h, m->h, m->weights->out_norm, d, m->spec.norm_eps, (int32_t)t0, (int32_t)t1);
    struct krn_act in = eng_pass_act(m, m->h, a->n, d, eng_pass_reads(m, &m->weights->head));
    eng_pass_prepare(m, &in, t0, t1, 0, d);
    eng_team_barrier(m->team, i);
    eng_pass_matmul_whole(m, &m->weights->head, m->h, a->n, a->out, i, n);
}

void eng_forward_head(struct eng_model *m, const int32_t rows[], int32_t n, float *out)
{
    ASSERT(n <= m->max_tok);
    if (!n) return;
    eng_times_lap(m->times, ENG_OP_OTHER);
    eng_team_run(m->team, head, &(struct head){m, rows, n, out});
    eng_times_lap(m->times, ENG_OP_HEAD);
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
        m->krn->rmsnorm(m->h, m->x + (int64_t)a->row0 * d, m->weights->out_norm, d, m->spec.norm_eps,
                        (int32_t)t0, (int32_t)t1);
}

const float *eng_forward_hidden(struct eng_model *m, int32_t row0, int32_t n)
{
    ASSERT(row0 >= 0 && n > 0 && row0 + n <= m->max_tok);
    eng_times_lap(m->times, ENG_OP_OTHER);
    eng_team_run(m->team, hidden, &(struct hidden){m, row0, n});
    eng_times_lap(m->times, ENG_OP_HEAD);
    return m->h;
}
