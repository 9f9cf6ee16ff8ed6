/* engine.c: see engine.h: a rank opened and closed, and what it says of itself. Its steps are in step.c, what can be said of a model before it is loaded
 * in preview.c. */
#include "engine/engine_impl.h"

#include "base/clock.h"
#include "base/log.h"
#include "engine/model/left.h"
#include "engine/model/shard_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- open, close ---- */

static int64_t mat_bytes(const struct krn_mat *w) { return w->tile_bytes * DIV_UP(w->rows, KRN_TILE); }

static void count_matrix(struct eng_engine_info *o, const struct krn_mat *w, int32_t times)
{
    o->step_bytes += mat_bytes(w) * times;
    o->layer_weights += (int64_t)w->rows * w->cols * times;
}

/* A layer's matrices that every step reads; those that the layer has not are empty. Latents' matrices of each head and experts' come besides. */
enum { LAYER_MATRICES = 14 };
static void list_matrices(const struct eng_layer *y, const struct krn_mat *out[])
{
    const struct krn_mat *all[LAYER_MATRICES] = {&y->q, &y->k, &y->v, &y->o, &y->mla.q_a, &y->mla.kv_a, &y->ffn.gate, &y->ffn.up, &y->ffn.down,
                                                 &y->router, &y->shared_gate, &y->shared.gate, &y->shared.up, &y->shared.down};
    memcpy(out, all, sizeof all);
}

/* What a step reads and multiplies: the embedding gives single rows only. */
static void count_work(struct eng_engine *e)
{
    const struct eng_weights *w = e->m.weights;
    struct eng_engine_info *o = &e->info;
    for (int32_t l = 0; l < w->n_layers; l++) {
        const struct eng_layer *y = &w->layers[l];
        const struct krn_mat *all[LAYER_MATRICES];
        list_matrices(y, all);
        for (int32_t i = 0; i < LAYER_MATRICES; i++) count_matrix(o, all[i], 1);
        for (int32_t h = 0; y->mla.k_b && h < e->m.shard.q1 - e->m.shard.q0; h++) count_matrix(o, &y->mla.k_b[h], 1), count_matrix(o, &y->mla.v_b[h], 1);
        if (!y->experts) continue;
        const struct krn_mat *one[] = {&y->experts->gate, &y->experts->up, &y->experts->down};
        for (size_t i = 0; i < COUNT_OF(one); i++) count_matrix(o, one[i], e->m.spec.experts.used);
    }
    if (!e->m.shard.last) return;
    o->step_bytes += mat_bytes(&w->head);
    o->head_weights = (int64_t)w->head.rows * w->head.cols;
}

/* conf->cache_dir: NULL none, "" the user's own where the model lies on another machine. A cache that cannot be used is no reason to stop. */
static struct eng_shard_cache *open_cache(const struct eng_engine_conf *conf, const struct eng_peers *peers)
{
    struct eng_shard_cache *c = NULL;
    const char *named = conf->made ? NULL : conf->cache_dir;
    char *dir = NULL;
    if (named && !*named) named = dir = peers->remote ? eng_shard_cache_default() : NULL;
    if (named && eng_shard_cache_open(&c, named, conf->cache_bytes, peers->model_id)) log_warn("load", "%s: going on without", err_text());
    free(dir);
    return c;
}

static enum err load(struct eng_engine *e, const struct eng_peers *peers)
{
    const struct eng_engine_conf *conf = &e->conf;
    struct eng_model *m = &e->m;
    int64_t t0 = clock_us();
    e->cache = open_cache(conf, peers);
    struct eng_load_conf c = {.file = e->file, .team = m->team, .peers = peers, .cache = e->cache, .progress = conf->progress, .user = conf->user,
                              .made_on = conf->made ? m->be : NULL, .made_seed = conf->made};
    enum err rc = eng_weights_open(&m->weights, &m->spec, &m->shard, &c);
    if (rc) return rc;
    const struct eng_load_stats *s = &m->weights->loaded;
    log_debug("load", "weights are there after %.3f s: %.1f MB read, %.1f from other ranks, %.1f from the cache, of which %.1f mapped",
              (double)(clock_us() - t0) / 1e6, (double)s->read / 1e6, (double)s->received / 1e6, (double)s->cached / 1e6, (double)s->mapped / 1e6);
    return OK;
}

/* A device's kernels are started by one thread. */
static enum err one_thread(struct eng_engine *e)
{
    e->host_team = e->m.team;
    e->m.team = NULL;
    return eng_team_open(&e->m.team, 1, NULL);
}

static enum err watch(void *user)
{
    struct eng_model *m = user;
    if (m->beside) (void)trn_coll_push(m->beside);
    return m->tp_dev ? trn_coll_poll(m->tp_dev) : OK;
}

/* Sums between devices. Collective over the stage, whether this rank has one or not. */
static enum err open_tp_device(struct eng_engine *e)
{
    enum err rc = OK;
    struct eng_model *m = &e->m;
    if (!e->conf.tp_device || m->tp->size < 2) return OK;
    if (!m->be->on_host) TRY(eng_backend_device(m->be, &e->device));
    TRY(e->conf.tp_device(e->conf.tp_user, m->be->on_host ? NULL : &e->device, &m->tp_dev));
out:
    return rc;
}

/* Every matrix has a kernel where it is to be read. */
static enum err check_types(const struct eng_engine *e)
{
    const struct eng_weights *w = e->m.weights;
    bool seen[DTYPE_COUNT] = {false};
    for (int32_t l = 0; l < w->n_layers; l++) {
        const struct eng_layer *y = &w->layers[l];
        const struct krn_mat *all[LAYER_MATRICES + 2];
        list_matrices(y, all);
        all[LAYER_MATRICES] = y->mla.k_b, all[LAYER_MATRICES + 1] = y->mla.v_b;
        for (size_t i = 0; i < COUNT_OF(all); i++)
            if (all[i]) seen[all[i]->type] |= all[i]->rows > 0; /* heads' matrices are of one type */
        for (int32_t k = 0; k < e->m.spec.experts.n && y->experts; k++)
            seen[y->experts[k].gate.type] = seen[y->experts[k].up.type] = seen[y->experts[k].down.type] = true;
    }
    seen[w->embd.type] |= w->embd.rows > 0;
    seen[w->head.type] |= w->head.rows > 0;
    for (int32_t t = 0; t < DTYPE_COUNT; t++)
        if (seen[t] && !eng_backend_reads(e->m.be, (enum dtype)t))
            return err_raise(ERR_UNSUPPORTED, "%s: %s has no kernels for weights of type %s: --device cpu", e->m.spec.name, e->m.be->name,
                             dtype_name((enum dtype)t));
    return OK;
}

/* To the device, once all that the host computes from them is there. The cache's thread reads them on the host. */
static enum err move_weights(struct eng_engine *e)
{
    if (e->m.be->on_host || e->conf.made) return OK;
    if (e->cache) (void)eng_shard_cache_settle(e->cache);
    return eng_weights_move(e->m.weights, e->m.be);
}

static enum err open_kv(struct eng_model *m, const struct eng_engine_conf *conf)
{
    const struct eng_shard *h = &m->shard;
    const bool *windowed = m->spec.local;
    m->groups = eng_spec_groups(&m->spec, conf->context);
    for (int32_t l = h->layer0; l < h->layer1; l++)
        kv_groups_place(&m->groups, windowed, h->layer0, h->layer1, l, &m->kv_at[l - h->layer0].group, &m->kv_at[l - h->layer0].plane);
    const struct krn_kv kv = eng_forward_kv(m, conf->kv_type);
    return eng_kv_pool_open(&m->kv, m->be, kv_groups_planes(&m->groups, windowed, h->layer0, h->layer1), conf->n_blocks, &kv);
}

/* TESSERA_FUSED=off: operation by operation, for comparison. */
static const struct krn_fused *fused(const struct eng_backend *be)
{
    const char *said = getenv("TESSERA_FUSED");
    return said && !strcmp(said, "off") ? NULL : eng_backend_fused(be);
}

enum err eng_engine_open(struct eng_engine **out, const struct eng_engine_conf *conf)
{
    enum err rc;
    int64_t t0 = clock_us();
    struct eng_engine *e = xcalloc(1, sizeof *e);
    struct eng_model *m = &e->m;
    struct eng_peers peers;
    e->conf = *conf;
    e->grid = conf->grid;
    m->tp = conf->tp;
    m->timeout_us = conf->timeout_us;
    m->oracle = conf->oracle;
    m->max_tok = conf->max_step_tokens;
    if ((unsigned)conf->kv_type >= KV_TYPES) TRY(err_raise(ERR_LINK_PROTOCOL, "KV type %d is unknown: types are %s", (int)conf->kv_type, KV_TYPE_NAMES));
    TRY(eng_peers_open(&peers, &e->file, conf->model_path, conf->fingerprint, conf->world));
    TRY(eng_spec_read(&m->spec, e->file));
    TRY(eng_shard_of(&m->shard, &m->spec, &e->grid, conf->rank));
    TRY(eng_backend_open(&m->be, conf->device, conf->isa));
    m->krn = m->be->krn;
    m->fused = fused(m->be);
    if (m->shard.last) e->masks = eng_mask_ahead_open(conf->n_slots);
    /* columns go in pairs, and inputs fall apart by heads and by rows of the feed-forward */
    if (conf->rounded && m->spec.head_dim % 2 == 0 && m->spec.d_ffn % 2 == 0) m->rounded = eng_backend_rounded(m->be);
    TRY(eng_team_open(&m->team, conf->n_threads, conf->cpus));
    TRY(eng_lora_open(m, &conf->adapters, conf->world));
    TRY(load(e, &peers));
    TRY(check_types(e));
    if (!m->be->on_host) TRY(one_thread(e));
    TRY(open_kv(m, conf));
    TRY(eng_forward_open(m, conf->context, conf->n_slots));
    TRY(move_weights(e));
    TRY(open_tp_device(e));
    if (e->grid.n_stages > 1) m->beside = conf->world;
    if (m->tp_dev || (m->beside && m->beside->ops->push)) eng_backend_watch(m->be, watch, m);
    TRY(eng_left_open(m, conf->n_slots));
    TRY(eng_forward_warm(m));
    eng_slots_open(&e->slots, conf->n_slots, conf->context, &m->groups);
    e->batch.ids = xcalloc((size_t)m->max_tok, sizeof *e->batch.ids);
    e->batch.pos = xcalloc((size_t)m->max_tok, sizeof *e->batch.pos);
    e->batch.adapter = xcalloc((size_t)m->max_tok, sizeof *e->batch.adapter);
    for (int32_t g = 0; g < m->groups.n; g++) e->batch.table[g] = xcalloc((size_t)m->max_tok, sizeof *e->batch.table[g]);
    e->stages = (struct eng_stages){.grid = &e->grid, .shard = &m->shard, .world = conf->world, .slots = &e->slots, .timeout_us = conf->timeout_us};
    eng_stages_open(&e->stages);
    if (m->shard.last) {
        e->slots.pool_dim = m->shard.tp_rank == 0 ? m->spec.d_model : 0;
        e->constraints = e->slots.constraints = eng_constraints_open(e->file, m->spec.n_vocab);
        e->head = (struct eng_head){.m = m, .slots = &e->slots, .team = e->host_team ? e->host_team : m->team};
        eng_head_open(&e->head);
    }
    e->info = (struct eng_engine_info){.weight_bytes = m->weights->bytes + (m->lora ? m->lora->mem->bytes : 0), .kv_bytes = m->kv->bytes, .n_blocks = conf->n_blocks,
                                       .loaded = m->weights->loaded, .isa = m->be->host->name, .load_seconds = (double)(clock_us() - t0) / 1e6};
    snprintf(e->info.device, sizeof e->info.device, "%s", m->be->name);
    count_work(e);
    if (m->be->on_host) TRY(eng_weights_to_huge(m->weights, m->team));
    *out = e, e = NULL;
out:
    eng_engine_close(e);
    return rc;
}

enum err eng_engine_reset(struct eng_engine *e)
{
    enum err rc;
    ASSERT(e->n_begun == e->n_ended);
    TRY(eng_stages_read_all(&e->stages));
    eng_slots_clear(&e->slots);
    eng_head_forget(&e->head);
out:
    return rc;
}

void eng_engine_settle(struct eng_engine *e)
{
    if (e->cache) (void)eng_shard_cache_settle(e->cache);
    eng_weights_settle(e->m.weights);
}

void eng_engine_close(struct eng_engine *e)
{
    if (!e) return;
    if (e->m.left.there)
        log_debug("engine", "%lld of %lld steps were begun before the tokens of the one before had come", (long long)e->n_ahead, (long long)e->n_begun);
    eng_mask_ahead_close(e->masks);
    eng_head_close(&e->head);
    eng_stages_close(&e->stages);
    eng_slots_close(&e->slots);
    eng_constraints_close(e->constraints);
    eng_forward_close(&e->m);
    if (e->m.be) eng_backend_watch(e->m.be, NULL, NULL);
    trn_coll_close(e->m.tp_dev);
    eng_kv_pool_close(e->m.kv);
    eng_shard_cache_close(e->cache); /* its thread reads the weights */
    eng_weights_close(e->m.weights);
    eng_lora_close(e->m.lora);
    eng_team_close(e->m.team);
    eng_team_close(e->host_team);
    eng_backend_close(e->m.be);
    eng_model_file_close(e->file);
    free(e->batch.ids);
    free(e->batch.pos);
    free(e->batch.adapter);
    for (int32_t g = 0; g < LIMIT_GROUPS; g++) free((void *)e->batch.table[g]);
    free(e);
}

void eng_engine_info(const struct eng_engine *e, struct eng_engine_info *out)
{
    *out = e->info;
    out->n_replayed = e->m.graphs.n_replayed;
    out->n_launches = e->m.graphs.one_row;
    out->n_ahead = e->n_ahead;
}
void eng_engine_comm(const struct eng_engine *e, struct coll_stats *out)
{
    *out = e->conf.tp->stats;
    if (!e->m.tp_dev) return;
    out->n_ops += e->m.tp_dev->stats.n_ops;
    out->bytes_sent += e->m.tp_dev->stats.bytes_sent;
    out->wait_us += e->m.tp_dev->stats.wait_us;
}
struct trn_coll *eng_engine_tp_device(const struct eng_engine *e) { return e->m.tp_dev; }
void eng_engine_measure(struct eng_engine *e, struct eng_times *t) { e->m.times = t; }
void eng_engine_watch(struct eng_engine *e, eng_watch_fn fn, void *user) { e->m.watch = fn, e->m.watch_user = user; }
const struct eng_weights *eng_engine_matrices(const struct eng_engine *e) { return e->m.weights; }
const struct eng_spec *eng_engine_spec(const struct eng_engine *e) { return &e->m.spec; }
int32_t eng_engine_layer(const struct eng_engine *e) { return atomic_load_explicit(&e->m.layer, memory_order_relaxed); }
bool eng_engine_answers(const struct eng_engine *e) { return e->m.shard.last && eng_head_answers(&e->head); }

struct step_bounds eng_engine_bounds(const struct eng_engine *e)
{
    return (struct step_bounds){.n_slots = e->conf.n_slots, .n_groups = e->m.groups.n, .n_blocks = e->conf.n_blocks,
                                .n_vocab = e->m.spec.n_vocab, .context = e->conf.context, .n_adapters = e->conf.adapters.n};
}
