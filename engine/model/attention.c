/* attention.c: the attention sublayer: norm -> q, k, v -> rope and cache -> attention -> output. */
#include "engine/model/graphs.h"
#include "engine/model/heads.h"
#include "engine/model/lora.h"
#include "engine/model/pass.h"

/* ---- norms of q and k ---- */

/* Rows of heads: one weight for all of them, or one for each. */
static void norm_heads(const struct eng_model *m, float *x, const float *w, int32_t heads, int64_t t0, int64_t t1)
{
    int32_t hd = m->spec.head_dim;
    if (m->spec.qk_norm != ENG_QK_HEADS) {
        eng_pass_norm(m, x, x, w, NULL, hd, t0 * heads, t1 * heads);
        return;
    }
    for (int64_t r = t0 * heads; r < t1 * heads; r++) eng_pass_norm(m, x + r * hd, x + r * hd, w + r % heads * hd, NULL, hd, 0, 1);
}

/* ---- q, k, v ---- */

/* The same by one call on a device, of families whose heads have norms of their own or none. */
static bool heads_at_once(struct eng_pass *p, int32_t layer)
{
    struct eng_model *m = p->m;
    const struct eng_spec *s = &m->spec;
    const struct eng_layer *l = &m->weights->layers[layer];
    int32_t hd = s->head_dim, global = m->shard.layer0 + layer;
    bool rope = !s->no_rope[global], bare = s->qk_norm == ENG_QK_BARE, norm = s->qk_norm && (rope || !bare);
    if (!m->fused || s->qk_norm == ENG_QK_ALL || (norm && s->norm == ENG_NORM_LAYER) || (!rope && s->temper_length)) return false;
    m->fused->heads(&(struct krn_heads){
        .q = m->q,
        .to = {.kv = &m->kv->planes[m->kv_at[layer].plane], .k = m->k, .v = m->v, .pos = m->in.pos, .table = m->in.table[m->kv_at[layer].group]},
        .bq = l->bq, .bk = l->bk, .bv = l->bv,
        .q_norm = norm ? l->q_norm : NULL, .k_norm = !norm ? NULL : bare ? l->q_norm : l->k_norm, .norm_stride = s->qk_norm == ENG_QK_HEADS ? hd : 0,
        .eps = s->norm_eps, .norm_last = bare, .n_tok = p->b->n_tok, .n_q = m->shard.q1 - m->shard.q0, .rot = rope ? s->rope_dim : 0,
        .interleaved = s->rope_interleaved, .cs = s->local[global] ? m->in.cs_local : m->in.cs});
    return true;
}

/* q and k of tokens [t0,t1) from raw products to what attention reads; k and v into the cache. */
static void rope_append(struct eng_pass *p, int32_t layer, int32_t t0, int32_t t1, int32_t i)
{
    struct eng_model *m = p->m;
    const struct eng_spec *s = &m->spec;
    const struct eng_layer *l = &m->weights->layers[layer];
    const struct krn_table *krn = m->krn;
    int32_t nq = m->shard.q1 - m->shard.q0, nkv = m->shard.kv1 - m->shard.kv0, hd = s->head_dim, global = m->shard.layer0 + layer;
    const float *const *cs = s->local[global] ? m->in.cs_local : m->in.cs;
    if (heads_at_once(p, layer)) return;
    eng_pass_bias(m, m->q, l->bq, nq * hd, t0, t1);
    eng_pass_bias(m, m->k, l->bk, nkv * hd, t0, t1);
    eng_pass_bias(m, m->v, l->bv, nkv * hd, t0, t1);
    if (s->qk_norm == ENG_QK_ALL) {
        eng_heads_norm(p, l, t0, t1, i);
        if (p->failed) return;
    } else if (s->qk_norm && s->qk_norm != ENG_QK_BARE) {
        norm_heads(m, m->q, l->q_norm, nq, t0, t1);
        norm_heads(m, m->k, l->k_norm, nkv, t0, t1);
    }
    if (!s->no_rope[global]) {
        krn->rope(m->q, nq, hd, s->rope_dim, s->rope_interleaved, cs, t0, t1);
        krn->rope(m->k, nkv, hd, s->rope_dim, s->rope_interleaved, cs, t0, t1);
        if (s->qk_norm == ENG_QK_BARE) {
            norm_heads(m, m->q, l->q_norm, nq, t0, t1);
            norm_heads(m, m->k, l->q_norm, nkv, t0, t1);
        }
    } else if (s->temper_length) {
        krn->rope(m->q, nq, hd, hd, true, m->in.temper, t0, t1);
    }
    krn->kv_append(&(struct krn_kv_append){.kv = &m->kv->planes[m->kv_at[layer].plane], .k = m->k, .v = m->v,
                                           .pos = m->in.pos, .table = m->in.table[m->kv_at[layer].group], .t0 = t0, .t1 = t1});
}

/* ---- attention ---- */

/* The layer's window, 0: none; in chunks or not. */
struct seen { int32_t window; bool chunked; };

/* What an item of this token costs: as many keys as it reads, and something of its own. */
static int64_t cost(const struct eng_batch *b, int32_t t, struct seen w)
{
    enum { OWN = 32 };
    return b->pos[t] - krn_first_key(b->pos[t], w.window, w.chunked) + OWN;
}

void eng_attention_share(const struct eng_batch *b, int32_t window, bool chunked, int32_t nkv, int32_t i, int32_t n, int64_t *i0, int64_t *i1)
{
    struct seen w = {window, chunked};
    int64_t T = b->n_tok, each = 0, *out[] = {i0, i1};
    for (int32_t t = 0; t < T; t++) each += cost(b, t, w);
    for (int32_t k = 0; k < 2; k++) {
        int64_t want = each * nkv * (i + k) / n, rest = want % each, t = 0;
        for (; t < T && rest >= cost(b, (int32_t)t, w); t++) rest -= cost(b, (int32_t)t, w);
        *out[k] = want / each * T + t;
    }
}

int32_t eng_attention_splits(const struct eng_model *m, const struct eng_batch *b, int32_t nkv, int32_t n)
{
    int32_t items = b->n_tok * nkv, most = 0;
    if (m->be->on_host ? items % n == 0 || items >= eng_pass_split_items(m) : b->n_tok >= m->graphs.split_rows) return 0;
    for (int32_t t = 0; t < b->n_tok; t++) most = MAX(most, b->pos[t] / KRN_ATTN_SPLIT + 1);
    if (most < 2) return 0;
    return m->be->on_host ? most : eng_graphs_splits(m, most);
}

/* Attention's output as the next product reads it: of items [i0,i1), which this thread computed, or,
 * where a unit may span two items, of its share of tokens once all are there. */
static void prepare_attention(const struct eng_model *m, const struct krn_act *a, int32_t nkv,
                              int64_t i0, int64_t i1, int32_t i, int32_t n)
{
    int32_t T = a->n_tok, group = a->cols / nkv;
    if (m->be->on_host && (group % KRN_UNIT == 0 || !a->q)) {
        for (int64_t k = i0; k < i1; k++)
            eng_pass_prepare(m, a, k % T, k % T + 1, k / T * group, (k / T + 1) * group);
        return;
    }
    int64_t t0, t1;
    eng_team_barrier(m->team, i);
    eng_team_range(T, 1, i, n, &t0, &t1);
    eng_pass_prepare(m, a, t0, t1, 0, a->cols);
}

/* Attention of this thread's share of (kv head, token) items, and its output quantised. */
static void attend(const struct eng_model *m, const struct eng_batch *b, int32_t layer, int32_t i,
                   int32_t n)
{
    int32_t T = b->n_tok, hd = m->spec.head_dim;
    int32_t nq = m->shard.q1 - m->shard.q0, nkv = m->shard.kv1 - m->shard.kv0;
    int64_t i0, i1;
    const struct eng_spec *s = &m->spec;
    struct seen seen = {s->local[m->shard.layer0 + layer] ? s->window : 0, s->chunked};
    struct krn_attention a = {
        .kv = &m->kv->planes[m->kv_at[layer].plane], .q = m->q, .out = m->att, .pos = m->in.pos,
        .table = m->in.table[m->kv_at[layer].group],
        .n_tok = T, .n_head = nq, .scale = s->attn_scale, .window = seen.window, .chunked = seen.chunked, .softcap = s->attn_cap,
        .sinks = m->weights->layers[layer].sinks,
        .scratch = m->scratch + i * m->scratch_each,
        .n_split = eng_attention_splits(m, b, nkv, n), .partial = m->partial};
    struct krn_act out = eng_pass_act(m, m->att, T, nq * hd, eng_pass_reads(m, &m->weights->layers[layer].o));
    if (a.n_split) {
        eng_team_range((int64_t)T * nkv * a.n_split, 1, i, n, &i0, &i1);
        a.i0 = (int32_t)i0, a.i1 = (int32_t)i1;
        m->krn->attention(&a);
        eng_team_barrier(m->team, i);
        eng_team_range((int64_t)T * nkv, 1, i, n, &i0, &i1);
        a.i0 = (int32_t)i0, a.i1 = (int32_t)i1;
        if (m->fused && out.q && hd % KRN_UNIT == 0) {
            m->fused->merge(&a, out.q);
            return;
        }
        m->krn->attention_merge(&a);
    } else {
        eng_attention_share(b, seen.window, seen.chunked, nkv, i, n, &i0, &i1);
        a.i0 = (int32_t)i0, a.i1 = (int32_t)i1;
        eng_pass_attention(m)(&a);
    }
    prepare_attention(m, &out, nkv, i0, i1, i, n);
}

/* Sublayer k of the pass; its subtrees go to eng_pass_parts(k). */
void eng_attention(struct eng_pass *p, int32_t k, int32_t i, int32_t n)
{
    const struct eng_model *m = p->m;
    const struct eng_spec *s = &m->spec;
    const struct eng_layer *l = &m->weights->layers[k / 2];
    int32_t T = p->b->n_tok, d = s->d_model;
    int64_t t0, t1;
    eng_team_range(T, 1, i, n, &t0, &t1);

    struct krn_act in = eng_pass_act(m, m->h, T, d, eng_pass_reads(m, &l->q) | eng_pass_reads(m, &l->k) | eng_pass_reads(m, &l->v));
    eng_pass_enter(m, &in, k, t0, t1);
    eng_pass_lap(m, i, ENG_OP_NORM);
    eng_pass_barrier(m, i);

    const struct eng_product qkv[] = {{.w = &l->q, .x = m->h, .y = m->q, .y_stride = l->q.rows},
                                      {.w = &l->k, .x = m->h, .y = m->k, .y_stride = l->k.rows},
                                      {.w = &l->v, .x = m->h, .y = m->v, .y_stride = l->v.rows}};
    const struct eng_lora_product adapted[] = {{ADAPTER_Q, m->q, l->q.rows}, {ADAPTER_K, m->k, l->k.rows}, {ADAPTER_V, m->v, l->v.rows}};
    eng_lora_in(m, k / 2, adapted, 3, m->h, d, i, n);
    eng_pass_products(m, qkv, 3, T, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
    eng_pass_barrier(m, i);
    if (eng_lora_out(m, k / 2, adapted, 3, i, n)) eng_pass_barrier(m, i);

    rope_append(p, k / 2, (int32_t)t0, (int32_t)t1, i);
    if (p->failed) return;
    eng_pass_lap(m, i, ENG_OP_ROPE);
    eng_pass_barrier(m, i);

    attend(m, p->b, k / 2, i, n);
    eng_pass_lap(m, i, ENG_OP_ATTENTION);
    eng_pass_barrier(m, i);

    eng_lora_leaves(m, k, m->att, l->o.cols, &m->shard.attn, T, i, n);
    eng_pass_products(m, &(struct eng_product){.w = &l->o, .x = m->att, .leaves = &m->shard.attn, .y = eng_pass_parts(m, k), .y_stride = d,
                                               .node_stride = (int64_t)T * d + eng_lora_behind(m, k)}, 1, T, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
}
