/* measure.c: see measure.h. One rank on the CPU, without a coordinator: steps are made here. */
#include "engine/convert/measure.h"

#include "base/base.h"
#include "engine/engine.h"
#include "engine/file/model_file.h"
#include "transport/coll_open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEP_TOKENS = 512, TIMEOUT_US = 60000000 };

/* A matrix of the engine's and where its sums go. */
struct seat {
    const uint8_t *data;
    int64_t entry, mat;
};

struct measure {
    struct eng_imatrix *m;
    const struct eng_model_file *file;
    struct seat *seats; /* Own; by data */
    int64_t n, cap;
};

/* ---- which matrix is which tensor ---- */

static int by_data(const void *a, const void *b)
{
    const uint8_t *x = ((const struct seat *)a)->data, *y = ((const struct seat *)b)->data;
    return (x > y) - (x < y);
}

/* One of `mats` matrices of the tensor, if the file has it. */
static void add(struct measure *s, const struct krn_mat *w, int layer, const char *what, int64_t mat, int64_t mats)
{
    char name[96];
    if (layer < 0) snprintf(name, sizeof name, "%s", what);
    else snprintf(name, sizeof name, "blk.%d.%s", layer, what);
    if (!w->data || !eng_model_file_tensor_find(s->file, name)) return;
    struct eng_imatrix_entry *e = eng_imatrix_entry(s->m, name, w->cols, mats);
    if (s->n == s->cap) {
        s->cap = MAX(256, 2 * s->cap);
        s->seats = xrealloc(s->seats, (size_t)s->cap * sizeof *s->seats);
    }
    s->seats[s->n++] = (struct seat){w->data, e - s->m->at, mat};
}

/* An expert's matrix: its part of the tensor of all, by that name also where a checkpoint has a tensor for each. */
static void add_expert(struct measure *s, const struct krn_mat *w, int layer, const char *what, int32_t e, int32_t n)
{
    char all[64], own[64], name[96];
    snprintf(all, sizeof all, "ffn_%s_exps.weight", what);
    snprintf(own, sizeof own, "blk.%d.ffn_%s.%d.weight", layer, what, e);
    snprintf(name, sizeof name, "blk.%d.%s", layer, all);
    if (eng_model_file_tensor_find(s->file, name)) {
        add(s, w, layer, all, e, n);
        return;
    }
    if (!eng_model_file_tensor_find(s->file, own)) return;
    struct eng_imatrix_entry *entry = eng_imatrix_entry(s->m, name, w->cols, n);
    if (s->n == s->cap) {
        s->cap = MAX(256, 2 * s->cap);
        s->seats = xrealloc(s->seats, (size_t)s->cap * sizeof *s->seats);
    }
    s->seats[s->n++] = (struct seat){w->data, entry - s->m->at, e};
}

static void list(struct measure *s, const struct eng_weights *w, const struct eng_spec *spec)
{
    for (int32_t i = 0; i < w->n_layers; i++) {
        const struct eng_layer *l = &w->layers[i];
        add(s, &l->q, i, "attn_q.weight", 0, 1);
        add(s, &l->k, i, "attn_k.weight", 0, 1);
        add(s, &l->v, i, "attn_v.weight", 0, 1);
        add(s, &l->q, i, "attn_qkv.weight", 0, 1); /* fused: q reads what all three read */
        add(s, &l->q, i, "attn_q_b.weight", 0, 1);
        add(s, &l->mla.q_a, i, "attn_q_a.weight", 0, 1);
        add(s, &l->mla.kv_a, i, "attn_kv_a_mqa.weight", 0, 1);
        for (int32_t h = 0; l->mla.k_b && h < spec->n_heads; h++) {
            add(s, &l->mla.k_b[h], i, "attn_k_b.weight", h, spec->n_heads);
            add(s, &l->mla.v_b[h], i, "attn_v_b.weight", h, spec->n_heads);
        }
        add(s, &l->o, i, "attn_output.weight", 0, 1);
        add(s, &l->ffn.gate, i, "ffn_gate.weight", 0, 1);
        add(s, &l->ffn.up, i, "ffn_up.weight", 0, 1);
        add(s, &l->ffn.down, i, "ffn_down.weight", 0, 1);
        for (int32_t e = 0; l->experts && e < spec->experts.n; e++) {
            add_expert(s, &l->experts[e].gate, i, "gate", e, spec->experts.n);
            add_expert(s, &l->experts[e].up, i, "up", e, spec->experts.n);
            add_expert(s, &l->experts[e].down, i, "down", e, spec->experts.n);
        }
        add(s, &l->shared.gate, i, "ffn_gate_shexp.weight", 0, 1);
        add(s, &l->shared.up, i, "ffn_up_shexp.weight", 0, 1);
        add(s, &l->shared.down, i, "ffn_down_shexp.weight", 0, 1);
    }
    qsort(s->seats, (size_t)s->n, sizeof *s->seats, by_data);
}

/* ---- what the engine shows ---- */

static void watch(void *user, const struct krn_mat *w, const float *x, int32_t n_tok)
{
    struct measure *s = user;
    const struct seat key = {.data = w->data}, *at = bsearch(&key, s->seats, (size_t)s->n, sizeof *s->seats, by_data);
    if (!at) return;
    struct eng_imatrix_entry *e = &s->m->at[at->entry];
    float *sums = e->sums + at->mat * e->cols;
    ASSERT(w->cols == e->cols);
    for (int32_t t = 0; t < n_tok; t++)
        for (int64_t k = 0; k < e->cols; k++) sums[k] += x[t * e->cols + k] * x[t * e->cols + k];
    e->counts[at->mat] += (float)n_tok;
}

/* ---- the text ---- */

struct run {
    struct eng_engine *engine;
    uint64_t step;
};

static enum err do_step(struct run *r, struct step_plan *p)
{
    struct arena a = {0};
    struct step_result result;
    p->epoch = 1;
    p->step = ++r->step;
    enum err e = eng_engine_step(r->engine, p, &a, &result);
    arena_free(&a);
    return e;
}

static enum err do_chunk(struct run *r, const int32_t *ids, int32_t n)
{
    enum err rc = OK;
    int32_t n_blocks = DIV_UP(n, LIMIT_BLOCK_TOKENS), n_groups = eng_engine_bounds(r->engine).n_groups;
    int32_t *blocks = xmalloc((size_t)(n_blocks * n_groups) * sizeof *blocks);
    struct step_in *in = xcalloc((size_t)n, sizeof *in);
    for (int32_t i = 0; i < n_blocks * n_groups; i++) blocks[i] = i;
    for (int32_t i = 0; i < n; i++) in[i].id = ids[i];
    struct step_start start = {.seq_id = 1, .sampling = sampling_default(), .n_prompt = n};
    struct step_table tables[LIMIT_GROUPS];
    for (int32_t g = 0; g < n_groups; g++) tables[g] = (struct step_table){.group = g, .n = n_blocks, .ids = blocks + g * n_blocks};
    for (int32_t at = 0; at < n; at += STEP_TOKENS) {
        struct step_item item = {.pos = at, .n_in = MIN(STEP_TOKENS, n - at), .in = in + at, .next = -1};
        struct step_plan p = {.n_items = 1, .items = &item, .n_starts = at == 0, .starts = &start, .n_tables = at ? 0 : n_groups, .tables = tables};
        TRY(do_step(r, &p));
    }
    struct step_end end = {0};
    struct step_plan p = {.n_ends = 1, .ends = &end};
    TRY(do_step(r, &p));
out:
    free(blocks);
    free(in);
    return rc;
}

static enum err do_text(const struct eng_measure_conf *c, struct run *r, struct eng_imatrix *m)
{
    enum err rc = OK;
    int64_t n = MAX(c->n_ids / c->chunk, 1);
    for (int64_t i = 0; i < n; i++) {
        TRY(do_chunk(r, c->ids + i * c->chunk, (int32_t)MIN(c->chunk, c->n_ids - i * c->chunk)));
        m->chunks++;
        if (c->progress && !c->progress(c->user, i + 1, n)) break;
    }
out:
    return rc;
}

enum err eng_measure(const struct eng_measure_conf *c, struct eng_imatrix **out)
{
    enum err rc;
    struct trn_coll *tp = NULL, *world = NULL;
    struct run r = {0};
    struct eng_model_file *file = NULL;
    struct eng_engine_conf conf = {.model_path = c->path, .n_threads = MAX(c->n_threads, 1), .context = c->chunk, .n_slots = 1,
                                   .n_blocks = DIV_UP(c->chunk, LIMIT_BLOCK_TOKENS), .max_step_tokens = STEP_TOKENS, .kv_type = KV_F16,
                                   .device = "cpu", .isa = "auto", .timeout_us = TIMEOUT_US};
    struct measure s = {.m = eng_imatrix_open()};
    s.m->chunk_size = c->chunk;
    if (c->n_ids < 1) TRY(err_raise(ERR_BAD_CONFIG, "the text has no token"));
    struct model_info info;
    TRY(eng_engine_model_info(c->path, &info));
    conf.n_blocks *= kv_groups_of_model(&info, conf.context).n;
    TRY(eng_model_file_open(&file, c->path));
    s.file = file;
    TRY(eng_engine_grid(c->path, 1, 1, &conf.grid));
    TRY(trn_coll_local_open(&tp, 1));
    TRY(trn_coll_local_open(&world, 1));
    conf.tp = tp;
    conf.world = world;
    TRY(eng_engine_open(&r.engine, &conf));
    list(&s, eng_engine_matrices(r.engine), eng_engine_spec(r.engine));
    eng_engine_watch(r.engine, watch, &s);
    TRY(do_text(c, &r, s.m));
    *out = s.m, s.m = NULL;
out:
    eng_engine_close(r.engine);
    trn_coll_close(tp);
    trn_coll_close(world);
    eng_model_file_close(file);
    eng_imatrix_close(s.m);
    free(s.seats);
    return rc;
}
