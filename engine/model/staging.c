/* staging.c: see staging.h.
 *
 * A batch goes to the device as one block of bytes: pointers to rope rows and, group by group, block tables first, then positions, then the
 * block tables themselves, one of each group per run of rows of the same sequence. */
#include "engine/model/staging.h"

#include <stdlib.h>
#include <string.h>

struct eng_staging {
    uint8_t *batch;          /* host's image of the block */
    void *batch_there;
    int64_t cap_tables;      /* block ids that fit */
    int32_t *ids_there;      /* [max_tok] */
    float *from, *to, *all;  /* host: what was got; what is to be put; what ranks gathered */
};

static int64_t most_floats(const struct eng_model *m)
{
    int64_t nodes = MAX(m->shard.attn.n_nodes, m->shard.ffn.n_nodes), rows = m->shard.embd1 - m->shard.embd0;
    return MAX((int64_t)m->max_tok * m->spec.d_model * MAX(nodes, 1), ENG_HEAD_ROWS * rows);
}

static int64_t pointers_bytes(const struct eng_model *m) { return (int64_t)m->max_tok * (int64_t)((3 + (size_t)m->groups.n) * sizeof(void *) + sizeof(int32_t)); }

enum err eng_staging_open(struct eng_model *m, int32_t n_seqs, int32_t context)
{
    enum err rc = OK;
    if (m->be->on_host) return OK;
    struct eng_staging *s = m->staging = xcalloc(1, sizeof *s);
    s->cap_tables = (int64_t)n_seqs * m->groups.n * DIV_UP(context, KRN_KV_BLOCK);
    int64_t bytes = pointers_bytes(m) + s->cap_tables * (int64_t)sizeof(int32_t);
    s->batch = xmalloc((size_t)bytes);
    TRY(eng_backend_alloc(m->be, ENG_MEMORY_STEP, &s->batch_there, bytes));
    void *ids;
    TRY(eng_backend_alloc(m->be, ENG_MEMORY_STEP, &ids, m->max_tok * (int64_t)sizeof(int32_t)));
    s->ids_there = ids;
    s->from = malloc((size_t)most_floats(m) * sizeof(float));
    s->to = malloc((size_t)most_floats(m) * sizeof(float));
    s->all = malloc((size_t)m->max_tok * (size_t)m->spec.d_model * sizeof(float));
    if (!s->from || !s->to || !s->all)
        rc = err_raise(ERR_NO_MEMORY, "no memory for %.1f MB of buffers between host and device: lower --max-batch-tokens",
                       (double)most_floats(m) * 8 / 1e6);
out:
    return rc;
}

void eng_staging_close(struct eng_model *m)
{
    struct eng_staging *s = m->staging;
    if (!s) return;
    free(s->batch);
    free(s->from);
    free(s->to);
    free(s->all);
    free(s);
    m->staging = NULL;
}

/* ---- the batch --------------------------------------------------------------------------------- */

static int32_t n_blocks_of(const struct eng_batch *b, int32_t t0, int32_t t1)
{
    int32_t last = 0;
    for (int32_t t = t0; t < t1; t++) last = MAX(last, b->pos[t]);
    return last / KRN_KV_BLOCK + 1;
}

/* The parts of the block: at an image of it, or at the one that the kernels read. */
struct parts {
    const float **cs, **cs_local, **temper;
    const int32_t **table; /* [groups][n_tok] */
    int32_t *pos, *ids;
};

static struct parts parts_at(uint8_t *block, int32_t n_tok, int32_t n_groups)
{
    struct parts p = {.cs = (const float **)(void *)block};
    p.cs_local = p.cs + n_tok;
    p.temper = p.cs_local + n_tok;
    p.table = (const int32_t **)(void *)(p.temper + n_tok);
    p.pos = (int32_t *)(void *)(p.table + (int64_t)n_groups * n_tok);
    p.ids = p.pos + n_tok;
    return p;
}

void eng_staging_rows(struct eng_model *m, int32_t n_tok)
{
    struct parts p = parts_at(m->staging->batch_there, n_tok, m->groups.n);
    m->in = (struct eng_inputs){.pos = p.pos, .cs = (const float *const *)p.cs, .cs_local = (const float *const *)p.cs_local,
                                .temper = (const float *const *)p.temper};
    for (int32_t g = 0; g < m->groups.n; g++) m->in.table[g] = (const int32_t *const *)(p.table + (int64_t)g * n_tok);
}

static enum err upload_batch(struct eng_model *m, const struct eng_batch *b)
{
    struct eng_staging *s = m->staging;
    int32_t T = b->n_tok, G = m->groups.n;
    struct parts to = parts_at(s->batch, T, G), there = parts_at(s->batch_there, T, G);
    int64_t n = 0;
    memcpy(to.cs, m->cs, (size_t)T * sizeof *to.cs);
    memcpy(to.cs_local, m->cs_local, (size_t)T * sizeof *to.cs_local);
    memcpy(to.temper, m->row_temper, (size_t)T * sizeof *to.temper);
    memcpy(to.pos, b->pos, (size_t)T * sizeof *to.pos);
    for (int32_t t0 = 0, t1; t0 < T; t0 = t1) {
        for (t1 = t0 + 1; t1 < T && b->table[0][t1] == b->table[0][t0];) t1++;
        int32_t k = n_blocks_of(b, t0, t1);
        if (n + (int64_t)k * G > s->cap_tables)
            return err_raise(ERR_LINK_PROTOCOL, "a step's block tables hold more than the %lld ids that fit on the device", (long long)s->cap_tables);
        for (int32_t g = 0; g < G; g++, n += k) {
            memcpy(to.ids + n, b->table[g][t0], (size_t)k * sizeof *to.ids);
            for (int32_t t = t0; t < t1; t++) to.table[(int64_t)g * T + t] = there.ids + n;
        }
    }
    eng_staging_rows(m, T);
    return eng_backend_upload(m->be, s->batch_there, s->batch, (uint8_t *)(to.ids + n) - s->batch);
}

enum err eng_staging_batch(struct eng_model *m, const struct eng_batch *b)
{
    if (!m->be->on_host) return upload_batch(m, b);
    m->in.pos = b->pos;
    for (int32_t g = 0; g < m->groups.n; g++) m->in.table[g] = b->table[g];
    m->in.cs = m->cs;
    m->in.cs_local = m->cs_local;
    m->in.temper = m->row_temper;
    return OK;
}

enum err eng_staging_ids(struct eng_model *m, const int32_t ids[], int32_t n, const int32_t **out)
{
    bool left = m->left.there && m->shard.tp_width > 1;
    *out = m->be->on_host ? ids : m->staging->ids_there;
    if (m->be->on_host) return OK;
    enum err e = eng_backend_upload(m->be, m->staging->ids_there, ids, n * (int64_t)sizeof *ids);
    for (int32_t i = 0; i < n; i++) left |= ids[i] < 0;
    if (!e && left) eng_backend_inputs(m->be, n, m->staging->ids_there, m->left.there, m->shard.embd0, m->weights->embd.rows);
    return e;
}

/* ---- values -------------------------------------------------------------------------------------- */

enum err eng_staging_get(struct eng_model *m, const float *x, int64_t n, const float **host)
{
    *host = m->be->on_host ? x : m->staging->from;
    return m->be->on_host ? OK : eng_backend_download(m->be, m->staging->from, x, n * (int64_t)sizeof *x);
}

float *eng_staging_all(struct eng_model *m) { return m->be->on_host ? m->red : m->staging->all; }

float *eng_staging_room(struct eng_model *m, float *x) { return m->be->on_host ? x : m->staging->to; }

enum err eng_staging_put(struct eng_model *m, float *x, int64_t n)
{
    return m->be->on_host ? OK : eng_backend_upload(m->be, x, m->staging->to, n * (int64_t)sizeof *x);
}
