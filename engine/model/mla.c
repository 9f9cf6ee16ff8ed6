/* mla.c: see mla.h. */
#include "engine/model/mla.h"

#include "engine/model/pass.h"

#include <stdlib.h>
#include <string.h>

enum {
    CHUNK = 64,        /* tokens whose inputs stay in the second-level cache beside a head's matrix */
    SLICE_LEAST = 8,   /* heads that share a walk over the cache: fewer would widen it more often than they use it, */
    SLICE_MOST = KRN_ATTN_ROWS, /* more would not fit a tile of queries */
};
static const float EPS = 1e-6f; /* of the latents' norms, whatever the model's other norms have */

static int32_t heads_of(const struct eng_model *m) { return m->shard.q1 - m->shard.q0; }

/* ---- rows ---- */

/* Row t of dst = row t of src, n values each, tokens [t0,t1). */
static void copy_rows(const struct eng_model *m, float *dst, int64_t dst_stride, const float *src, int64_t src_stride, int64_t t0, int64_t t1, int32_t n)
{
    if (t0 >= t1) return;
    if (!m->be->on_host) {
        eng_backend_copy_rows(m->be, dst + t0 * dst_stride, dst_stride, src + t0 * src_stride, src_stride, NULL, NULL, (int32_t)(t1 - t0), n);
        return;
    }
    for (int64_t t = t0; t < t1; t++) memcpy(dst + t * dst_stride, src + t * src_stride, (size_t)n * sizeof *dst);
}

/* The latents of tokens [t0,t1): normed and rotated where they stand, and into the cache. */
static void keep_latent(const struct eng_pass *p, int32_t layer, int64_t t0, int64_t t1)
{
    const struct eng_model *m = p->m;
    const struct eng_latent *s = &m->spec.mla;
    const float *w = m->weights->layers[layer].mla.kv_a_norm;
    int32_t row = eng_latent_cached(s);
    if (t0 >= t1) return;
    if (m->be->on_host) {
        for (int64_t t = t0; t < t1; t++) m->krn->rmsnorm(m->k + t * row, m->k + t * row, w, s->kv_rank, EPS, 0, 1);
    } else {
        copy_rows(m, m->mla->latent, s->kv_rank, m->k, row, t0, t1, s->kv_rank);
        m->krn->rmsnorm(m->mla->latent, m->mla->latent, w, s->kv_rank, EPS, (int32_t)t0, (int32_t)t1);
        copy_rows(m, m->k, row, m->mla->latent, s->kv_rank, t0, t1, s->kv_rank);
    }
    m->krn->rope(m->k + s->kv_rank, 1, row, s->rope, m->spec.rope_interleaved, m->in.cs, (int32_t)t0, (int32_t)t1);
    m->krn->kv_append(&(struct krn_kv_append){.kv = &m->kv->planes[m->kv_at[layer].plane], .k = m->k, .pos = m->in.pos,
                                              .table = m->in.table[m->kv_at[layer].group], .t0 = (int32_t)t0, .t1 = (int32_t)t1});
}

/* The rotated part of each head's query over the latent, tokens [t0,t1). */
static void rotate_queries(const struct eng_model *m, int64_t t0, int64_t t1)
{
    const struct eng_latent *s = &m->spec.mla;
    int32_t row = eng_latent_cached(s), heads = heads_of(m);
    float *to = m->mla->query + s->kv_rank;
    copy_rows(m, to, row, m->q + s->key - s->rope, s->key, t0 * heads, t1 * heads, s->rope);
    if (t0 < t1) m->krn->rope(to, heads, row, s->rope, m->spec.rope_interleaved, m->in.cs, (int32_t)t0, (int32_t)t1);
}

/* ---- products of heads ---- */

/* y[t][h] = W[h] x[t][h] of every head; x and y are [T][heads], each head's values behind a stride of its own. */
struct by_head {
    const struct krn_mat *w;
    const float *x;
    float *y;
    int32_t x_head, y_head; /* floats from one head to the next */
};

/* Tokens [t0, t0 + n) of head h as its product reads them, in this thread's room. */
static struct krn_act input_of(const struct eng_model *m, const struct by_head *a, int32_t h, int32_t t0, int32_t n, int32_t i)
{
    const struct eng_mla *o = m->mla;
    const struct krn_mat *w = &a->w[h];
    int64_t stride = (int64_t)heads_of(m) * a->x_head;
    const float *from = a->x + t0 * stride + h * a->x_head;
    float *x = o->x + i * o->x_each;
    int forms = eng_pass_reads(m, w);
    struct krn_act in = {.n_tok = n, .cols = w->cols, .x = n == 1 ? from : x};
    if (n > 1) copy_rows(m, x, w->cols, from, stride, 0, n, w->cols);
    if (forms & READS_CODES) in.q = o->codes + i * o->codes_each;
    if (forms & (READS_FLOATS | READS_BF16) && n > 1 && o->xt) in.xt = o->xt + i * o->xt_each;
    eng_pass_prepare(m, &in, 0, n, 0, w->cols);
    return in;
}

/* Rows [r0,r1) of head h's product, chunk by chunk: its matrix is read from memory once. */
static void head_rows(const struct eng_model *m, const struct by_head *a, int32_t h, int32_t r0, int32_t r1, int32_t T, int32_t i)
{
    const struct krn_mat *w = &a->w[h];
    struct krn_leaves one;
    int64_t stride = (int64_t)heads_of(m) * a->y_head;
    eng_pass_whole(&one, w->cols);
    for (int32_t t = 0, n; t < T; t += n) {
        n = MIN(m->mla->chunk, T - t);
        struct krn_act in = input_of(m, a, h, t, n, i);
        m->krn->matmul(&(struct krn_matmul){.w = w, .x = &in, .leaves = &one, .y = a->y + t * stride + h * a->y_head, .y_stride = stride,
                                            .row0 = r0, .row1 = r1});
    }
}

/* The first thread shows what the heads' products read. */
static void show(const struct eng_model *m, const struct by_head *a, int32_t T, int32_t i)
{
    for (int32_t h = 0; h < heads_of(m) && i == 0 && m->watch; h++)
        for (int32_t t = 0, n; t < T; t += n) {
            n = MIN(m->mla->chunk, T - t);
            struct krn_act in = input_of(m, a, h, t, n, i);
            m->watch(m->watch_user, &a->w[h], in.x, n);
        }
}

/* This thread's share of (head, tile of rows) pairs. */
static void heads_product(const struct eng_model *m, const struct by_head *a, int32_t T, int32_t i, int32_t n)
{
    int32_t rows = a->w->rows, tiles = DIV_UP(rows, KRN_TILE);
    int64_t from, to;
    show(m, a, T, i);
    eng_team_range((int64_t)heads_of(m) * tiles, 1, i, n, &from, &to);
    for (int64_t at = from, end; at < to; at = end) {
        int32_t h = (int32_t)(at / tiles), first = (int32_t)(at % tiles);
        end = MIN(to, (int64_t)(h + 1) * tiles);
        head_rows(m, a, h, first * KRN_TILE, MIN((first + (int32_t)(end - at)) * KRN_TILE, rows), T, i);
    }
}

/* ---- attention ---- */

/* Heads are dealt in slices, so that threads have something to do when tokens are few. */
static int32_t slices_of(const struct eng_model *m, int32_t T, int32_t n)
{
    int32_t heads = heads_of(m), least = DIV_UP(heads, SLICE_MOST), most = MAX(heads / SLICE_LEAST, least);
    return m->be->on_host ? CLAMP(DIV_UP(2 * n, T), least, most) : 1;
}

/* A slice of heads as attention takes it. */
static struct krn_attention slice(const struct eng_model *m, const struct krn_attention *all, int32_t s, int32_t n_slices)
{
    struct krn_attention a = *all;
    int32_t heads = heads_of(m), h0 = s * heads / n_slices, h1 = (s + 1) * heads / n_slices, v = m->spec.mla.kv_rank;
    a.q += (int64_t)h0 * a.kv->head_dim, a.q_stride = (int64_t)heads * a.kv->head_dim;
    a.out += (int64_t)h0 * v, a.out_stride = (int64_t)heads * v;
    a.n_head = h1 - h0;
    if (a.n_split) a.partial += s * krn_attention_partial(a.n_tok, a.n_split, DIV_UP(heads, n_slices), v);
    return a;
}

/* Items [i0,i1), `each` of which are a slice's. */
static void run_items(const struct eng_model *m, const struct krn_attention *all, int32_t n_slices, int64_t each, int64_t i0, int64_t i1,
                      void (*kernel)(const struct krn_attention *))
{
    for (int32_t s = 0; s < n_slices; s++) {
        struct krn_attention a = slice(m, all, s, n_slices);
        a.i0 = (int32_t)(MAX(i0, s * each) - s * each);
        a.i1 = (int32_t)(MIN(i1, (s + 1) * each) - s * each);
        if (a.i0 < a.i1) kernel(&a);
    }
}

static void attend(const struct eng_model *m, const struct eng_batch *b, int32_t layer, int32_t i, int32_t n)
{
    int32_t T = b->n_tok, slices = slices_of(m, T, n);
    int64_t i0, i1;
    struct krn_attention a = {.kv = &m->kv->planes[m->kv_at[layer].plane], .q = m->mla->query, .out = m->mla->seen, .pos = m->in.pos,
                              .table = m->in.table[m->kv_at[layer].group], .n_tok = T,
                              .scale = m->spec.attn_scale, .scratch = m->scratch + i * m->scratch_each, .n_split = eng_attention_splits(m, b, slices, n),
                              .partial = m->partial};
    if (!a.n_split) {
        eng_attention_share(b, 0, false, slices, i, n, &i0, &i1);
        run_items(m, &a, slices, T, i0, i1, eng_pass_attention(m));
        return;
    }
    eng_team_range((int64_t)T * slices * a.n_split, 1, i, n, &i0, &i1);
    run_items(m, &a, slices, (int64_t)T * a.n_split, i0, i1, m->krn->attention);
    eng_team_barrier(m->team, i);
    eng_team_range((int64_t)T * slices, 1, i, n, &i0, &i1);
    run_items(m, &a, slices, T, i0, i1, m->krn->attention_merge);
}

/* ---- the sublayer ---- */

/* Queries of heads, and this step's latents in the cache. */
static void queries(const struct eng_pass *p, int32_t k, int32_t i, int32_t n)
{
    const struct eng_model *m = p->m;
    const struct eng_latent *s = &m->spec.mla;
    const struct eng_layer *l = &m->weights->layers[k / 2];
    int32_t T = p->b->n_tok, d = m->spec.d_model;
    const struct krn_mat *from_h = s->q_rank ? &l->mla.q_a : &l->q;
    int64_t t0, t1;
    eng_team_range(T, 1, i, n, &t0, &t1);

    struct krn_act in = eng_pass_act(m, m->h, T, d, eng_pass_reads(m, from_h) | eng_pass_reads(m, &l->mla.kv_a));
    eng_pass_enter(m, &in, k, t0, t1);
    eng_pass_lap(m, i, ENG_OP_NORM);
    eng_pass_barrier(m, i);

    const struct eng_product both[] = {{.w = from_h, .x = m->h, .y = s->q_rank ? m->mla->low : m->q, .y_stride = from_h->rows},
                                       {.w = &l->mla.kv_a, .x = m->h, .y = m->k, .y_stride = l->mla.kv_a.rows}};
    eng_pass_products(m, both, 2, T, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
    eng_pass_barrier(m, i);

    keep_latent(p, k / 2, t0, t1);
    if (s->q_rank) {
        struct krn_act low = eng_pass_act(m, m->mla->low, T, s->q_rank, eng_pass_reads(m, &l->q));
        if (t0 < t1) m->krn->rmsnorm(m->mla->low, m->mla->low, l->mla.q_a_norm, s->q_rank, EPS, (int32_t)t0, (int32_t)t1);
        eng_pass_prepare(m, &low, t0, t1, 0, s->q_rank);
        eng_pass_lap(m, i, ENG_OP_ROPE);
        eng_pass_barrier(m, i);
        eng_pass_products(m, &(struct eng_product){.w = &l->q, .x = m->mla->low, .y = m->q, .y_stride = l->q.rows}, 1, T, i, n);
        eng_pass_lap(m, i, ENG_OP_MATMUL);
        eng_pass_barrier(m, i);
    }
    rotate_queries(m, t0, t1);
    eng_pass_lap(m, i, ENG_OP_ROPE);
}

void eng_mla_run(struct eng_pass *p, int32_t k, int32_t i, int32_t n)
{
    const struct eng_model *m = p->m;
    const struct eng_latent *s = &m->spec.mla;
    const struct eng_layer *l = &m->weights->layers[k / 2];
    int32_t T = p->b->n_tok, d = m->spec.d_model, hd = m->spec.head_dim, cached = eng_latent_cached(s);
    int64_t t0, t1;
    queries(p, k, i, n);

    const struct by_head to_latent = {l->mla.k_b, m->q, m->mla->query, s->key, cached};
    heads_product(m, &to_latent, T, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
    eng_pass_barrier(m, i);

    attend(m, p->b, k / 2, i, n);
    eng_pass_lap(m, i, ENG_OP_ATTENTION);
    eng_pass_barrier(m, i);

    const struct by_head to_values = {l->mla.v_b, m->mla->seen, m->att, s->kv_rank, hd};
    heads_product(m, &to_values, T, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
    eng_pass_barrier(m, i);

    struct krn_act out = eng_pass_act(m, m->att, T, heads_of(m) * hd, eng_pass_reads(m, &l->o));
    eng_team_range(T, 1, i, n, &t0, &t1);
    eng_pass_prepare(m, &out, t0, t1, 0, out.cols);
    eng_pass_barrier(m, i);
    eng_pass_products(m, &(struct eng_product){.w = &l->o, .x = m->att, .leaves = &m->shard.attn, .y = eng_pass_parts(m, k), .y_stride = d,
                                               .node_stride = (int64_t)T * d}, 1, T, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
}

/* ---- buffers ---- */

static enum err take(const struct eng_model *m, float **p, int64_t n)
{
    void *mem;
    enum err e = eng_backend_alloc(m->be, ENG_MEMORY_STEP, &mem, MAX(n, 1) * (int64_t)sizeof(float));
    if (!e) *p = mem;
    return e;
}

/* Room of each thread for a head's inputs. */
static enum err take_inputs(struct eng_mla *o, const struct eng_model *m)
{
    enum err rc;
    const struct eng_latent *s = &m->spec.mla;
    int32_t n = eng_team_size(m->team), wide = ROUND_UP(MAX(s->kv_rank, s->key - s->rope), KRN_UNIT);
    float *codes;
    o->chunk = m->be->on_host ? CHUNK : m->max_tok;
    o->x_each = (int64_t)o->chunk * wide;
    o->xt_each = ROUND_UP(krn_act_xt_floats(o->chunk, wide), 16);
    o->codes_each = ROUND_UP(krn_act_q_bytes(o->chunk, wide), 64);
    TRY(take(m, &o->x, n * o->x_each));
    if (m->krn->interleave) TRY(take(m, &o->xt, n * o->xt_each));
    TRY(take(m, &codes, n * o->codes_each / 4));
    o->codes = (uint8_t *)codes;
out:
    return rc;
}

enum err eng_mla_open(struct eng_mla **out, struct eng_model *m)
{
    enum err rc;
    const struct eng_latent *s = &m->spec.mla;
    struct eng_mla *o = xcalloc(1, sizeof *o);
    int64_t T = m->max_tok, heads = heads_of(m), cached = eng_latent_cached(s);
    int32_t slice = m->be->on_host ? MIN((int32_t)heads, SLICE_MOST) : (int32_t)heads;
    TRY(take_inputs(o, m));
    if (s->q_rank) TRY(take(m, &o->low, T * s->q_rank));
    TRY(take(m, &o->query, T * heads * cached));
    TRY(take(m, &o->seen, T * heads * s->kv_rank));
    if (!m->be->on_host) TRY(take(m, &o->latent, T * s->kv_rank));
    TRY(take(m, &m->q, T * heads * s->key));
    TRY(take(m, &m->k, T * cached));
    m->scratch_each = ROUND_UP(krn_attention_scratch(slice, 1, (int32_t)cached), 16);
    TRY(take(m, &m->scratch, m->scratch_each * eng_team_size(m->team)));
    TRY(take(m, &m->partial, krn_attention_partial(eng_pass_split_items(m), m->max_splits, slice, s->kv_rank)));
    *out = o, o = NULL;
out:
    eng_mla_close(o);
    return rc;
}

void eng_mla_close(struct eng_mla *x) { free(x); }
