/* ranks.c: see ranks.h. A team of tp threads carries the ranks; each rank's engine has its own team,
 * of which the rank's thread is the first. */
#include "engine/bench/ranks.h"

#include "transport/coll_open.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_US = 60000000 };

struct rank {
    char device[24];
    struct eng_engine_conf conf;
    struct eng_engine *engine;
    struct arena arena;
    enum err err;
    char text[512];
};

struct bench_ranks {
    struct bench_ranks_conf conf;
    struct eng_team *team;
    struct grid grid;
    struct rank *ranks;
    struct trn_coll *tp[COLL_MAX_RANKS], *world[COLL_MAX_RANKS];
    int32_t *cpus; /* [tp * n_threads], or NULL */
    int32_t n_vocab, n_groups; /* block tables of a sequence */
    uint64_t step;
    struct eng_times times;
    const struct step_plan *plan;
};

/* ---- on every rank's thread ---- */

static void note(struct rank *k, enum err e)
{
    k->err = e;
    if (e) snprintf(k->text, sizeof k->text, "%s", err_text());
}

static void open_rank(void *arg, int32_t i, int32_t n)
{
    struct bench_ranks *b = arg;
    struct rank *k = &b->ranks[i];
    (void)n;
    enum err e = eng_backend_choose(b->conf.device ? b->conf.device : "cpu", i, k->device, &n, NULL);
    k->conf.device = k->device;
    note(k, e ? e : eng_engine_open(&k->engine, &k->conf));
}

static void step_rank(void *arg, int32_t i, int32_t n)
{
    struct bench_ranks *b = arg;
    struct rank *k = &b->ranks[i];
    struct step_result result;
    (void)n;
    arena_free(&k->arena);
    note(k, eng_engine_step(k->engine, b->plan, &k->arena, &result));
}

static enum err run(struct bench_ranks *b, eng_team_fn fn)
{
    eng_team_run(b->team, fn, b);
    for (int32_t i = 0; i < b->conf.tp; i++)
        if (b->ranks[i].err) return err_raise(b->ranks[i].err, "rank %d: %s", i, b->ranks[i].text);
    return OK;
}

/* ---- open ---- */

/* A processor of its own for every thread, where there are enough. */
static int32_t *choose_cpus(int32_t n)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) || CPU_COUNT(&set) < n) return NULL;
    int32_t *cpus = xcalloc((size_t)n, sizeof *cpus);
    for (int32_t c = 0, k = 0; k < n; c++)
        if (CPU_ISSET(c, &set)) cpus[k++] = c;
    return cpus;
}

static int32_t blocks_each(const struct bench_ranks *b)
{
    return DIV_UP(b->conf.context, LIMIT_BLOCK_TOKENS);
}

/* Table k of all sequences' has blocks [k*n, k*n+n). The first block of all is computed from tokens, the others are
 * copies of it: every page is touched and holds numbers of the right kind. */
static enum err fill(struct bench_ranks *b)
{
    enum err rc;
    int32_t n = b->conf.n_seqs, each = blocks_each(b), n_groups = b->n_groups, n_tables = n * n_groups;
    struct step_start *starts = xcalloc((size_t)n, sizeof *starts);
    struct step_table *tables = xcalloc((size_t)n_tables, sizeof *tables);
    struct step_copy *copies = xcalloc((size_t)n_tables * (size_t)each, sizeof *copies);
    int32_t *ids = xcalloc((size_t)n_tables * (size_t)each, sizeof *ids);
    double seconds;
    for (int32_t i = 0; i < n_tables * each; i++) ids[i] = i, copies[i] = (struct step_copy){.dst = i};
    for (int32_t i = 0; i < n; i++) {
        starts[i] = (struct step_start){.slot = i, .seq_id = (uint64_t)i + 1,
                                        .sampling = sampling_default(), .n_prompt = 1,
                                        .adapter = b->conf.adapters.n ? i % b->conf.adapters.n + 1 : 0};
        starts[i].sampling.temperature = 0;
        starts[i].sampling.max_tokens = INT32_MAX;
    }
    for (int32_t k = 0; k < n_tables; k++)
        tables[k] = (struct step_table){.slot = k / n_groups, .group = k % n_groups, .n = each, .ids = ids + (int64_t)k * each};
    struct step_plan p = {.epoch = 1, .step = ++b->step, .n_starts = n, .starts = starts,
                          .n_tables = n_tables, .tables = tables};
    b->plan = &p;
    TRY(run(b, step_rank));
    TRY(bench_ranks_step(b, 1, MIN(LIMIT_BLOCK_TOKENS, b->conf.max_step_tokens), 0, &seconds));
    p = (struct step_plan){.epoch = 1, .step = ++b->step, .n_copies = n_tables * each - 1,
                           .copies = copies + 1};
    b->plan = &p;
    TRY(run(b, step_rank));
out:
    free(starts);
    free(tables);
    free(copies);
    free(ids);
    return rc;
}

enum err bench_ranks_open(struct bench_ranks **out, const struct bench_ranks_conf *c)
{
    enum err rc;
    struct model_info info;
    struct bench_ranks *b = xcalloc(1, sizeof *b);
    b->conf = *c;
    b->ranks = xcalloc((size_t)c->tp, sizeof *b->ranks);
    b->cpus = choose_cpus(c->tp * c->n_threads);
    TRY(eng_engine_model_info(c->path, &info));
    b->n_vocab = info.n_vocab;
    b->n_groups = kv_groups_of_model(&info, c->context).n;
    if (c->context > info.context)
        TRY(err_raise(ERR_BAD_CONFIG, "%d positions are more than the %d the model was trained for: lower --prompt or --depth",
                      c->context, info.context));
    TRY(eng_engine_grid(c->path, c->tp, 1, &b->grid));
    b->grid.whole_experts = c->whole_experts;
    TRY(eng_team_open(&b->team, c->tp, NULL));
    if (c->tp > 1) {
        TRY(trn_coll_local_open(b->tp, c->tp));
        TRY(trn_coll_local_open(b->world, c->tp));
    } else {
        TRY(trn_coll_self_open(&b->tp[0]));
        TRY(trn_coll_self_open(&b->world[0]));
    }
    for (int32_t i = 0; i < c->tp; i++)
        b->ranks[i].conf = (struct eng_engine_conf){
            .model_path = c->path, .grid = b->grid, .rank = i, .tp = b->tp[i],
            .world = b->world[i], .n_threads = c->n_threads,
            .cpus = b->cpus ? b->cpus + i * c->n_threads : NULL, .context = c->context,
            .n_blocks = c->n_seqs * blocks_each(b) * b->n_groups, .n_slots = c->n_seqs,
            .max_step_tokens = c->max_step_tokens, .kv_type = c->kv_type, .oracle = c->oracle, .rounded = c->rounded,
            .isa = c->isa, .made = c->made, .adapters = c->adapters, .timeout_us = TIMEOUT_US};
    TRY(run(b, open_rank));
    eng_engine_measure(b->ranks[0].engine, &b->times);
    TRY(fill(b));
    *out = b, b = NULL;
out:
    bench_ranks_close(b);
    return rc;
}

void bench_ranks_close(struct bench_ranks *b)
{
    if (!b) return;
    for (int32_t i = 0; i < b->conf.tp; i++) {
        eng_engine_close(b->ranks[i].engine);
        arena_free(&b->ranks[i].arena);
        trn_coll_close(b->tp[i]);
        trn_coll_close(b->world[i]);
    }
    eng_team_close(b->team);
    free(b->ranks);
    free(b->cpus);
    free(b);
}

void bench_ranks_info(const struct bench_ranks *b, struct eng_engine_info *out)
{
    eng_engine_info(b->ranks[0].engine, out);
    for (int32_t i = 1; i < b->conf.tp; i++) {
        struct eng_engine_info one;
        eng_engine_info(b->ranks[i].engine, &one);
        out->weight_bytes += one.weight_bytes;
        out->kv_bytes += one.kv_bytes;
        out->step_bytes += one.step_bytes;
        out->layer_weights += one.layer_weights;
        out->head_weights += one.head_weights;
    }
}

const int32_t *bench_ranks_cpus(const struct bench_ranks *b) { return b->cpus; }

/* ---- a step ---- */

enum err bench_ranks_step(struct bench_ranks *b, int32_t n_seqs, int32_t n_in, int32_t pos,
                          double *seconds)
{
    enum err rc;
    struct step_item *items = xcalloc((size_t)n_seqs, sizeof *items);
    struct step_in *in = xcalloc((size_t)n_seqs * (size_t)n_in, sizeof *in);
    for (int32_t i = 0; i < n_seqs; i++) {
        struct step_in *mine = in + (int64_t)i * n_in;
        for (int32_t k = 0; k < n_in; k++)
            mine[k].id = (int32_t)(((int64_t)(pos + k) * 7919 + i * 104729) % b->n_vocab);
        items[i] = (struct step_item){.slot = i, .pos = pos, .n_in = n_in, .out = OUT_SAMPLE,
                                      .in = mine};
    }
    struct step_plan p = {.epoch = 1, .step = ++b->step, .n_items = n_seqs, .items = items};
    b->plan = &p;
    int64_t t0 = eng_times_now();
    TRY(run(b, step_rank));
    *seconds = (double)(eng_times_now() - t0) * 1e-9;
out:
    free(items);
    free(in);
    return rc;
}

void bench_ranks_times(struct bench_ranks *b, struct eng_times *out)
{
    *out = b->times;
    b->times = (struct eng_times){0};
}
