/* placement.c: which rank holds what, from the options and from what the ranks said of themselves.
 * See placement.h.
 *
 * --tp and --pp mean what they say: equal stages, dealt evenly. Without them the planner decides,
 * over the ranks in the order in which MPI numbers them; what it does not know of the machines
 * (--topo says it) it takes as equal for every processor. Bytes are counted by the engine itself.
 */
#include "cli/placement.h"

#include "base/log.h"
#include "coordinator/core.h"
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct clu_guess per_processor = {.read_bytes_s = 12e9, .ops_s = 400e9}; /* where nothing was measured */

static bool planned(const struct model_options *m, int32_t n)
{
    return !m->tp && m->pp == 1 && n > 1;
}

static enum err check_topo(const char *path)
{
    struct clu_topo *t = xmalloc(sizeof *t);
    enum err e = clu_topo_read(t, path);
    free(t);
    return e;
}

enum err placement_open(struct placement *p, const struct common_options *o, const char *path)
{
    enum err rc;
    int32_t n;
    struct grid g;
    *p = (struct placement){.o = o, .model_path = path, .sharing = 1};
    if (o->cluster.launch == LAUNCH_MANAGED && !o->cluster.hostfile) p->sharing = (int32_t)MAX(o->cluster.replicas, 1);
    TRY(options_wire_check(o->model.exact, o->model.wire_type));
    TRY(eng_engine_model_info(path, &p->info));
    TRY(eng_engine_fingerprint(path, &p->fingerprint));
    TRY(adapters_open(&p->adapters, o->model.lora, path));
    if (o->cluster.topo) TRY(check_topo(o->cluster.topo));
    int64_t context = o->model.context ? o->model.context : MIN(p->info.context, 8192);
    if (context > p->info.context)
        return err_raise(ERR_BAD_CONFIG,
                         "--context %lld is more than the %d tokens %s was trained for: give at most that",
                         (long long)context, p->info.context, p->info.name);
    p->context = (int32_t)context;
    if (o->model.kv_tokens && o->model.kv_tokens < context)
        return err_raise(ERR_BAD_CONFIG,
                         "--kv-tokens %lld holds less than one context of %lld tokens: raise it, "
                         "or lower --context",
                         (long long)o->model.kv_tokens, (long long)context);
    const struct krn_table *krn;
    if (o->cluster.launch == LAUNCH_MANAGED && !o->cluster.hostfile) { /* all ranks are this machine's */
        char name[24];
        TRY(krn_table_pick(o->model.isa, &krn));
        TRY(eng_backend_choose(o->model.device, 0, name, &n, NULL));
    }
    if (o->cluster.launch == LAUNCH_MANAGED || o->cluster.ranks) {
        TRY(options_ranks(o, &n));
        if (!planned(&o->model, n))
            TRY(eng_engine_grid(path, n / (int32_t)o->model.pp, (int32_t)o->model.pp, &g));
    }
out:
    return rc;
}

void placement_close(struct placement *p) { adapters_free(&p->adapters); }

/* ---- the cut ---- */

/* What it was judged by, where `tessera plan` with the same topology may have judged otherwise. */
static void say_basis(const struct clu_place *c, const struct clu_topo *t, bool recorded, struct buf *out)
{
    buf_printf(out, "; %.1f tok/s predicted for 8 users", c->judged.tok_s);
    if (t->together.latency_s > 0)
        buf_printf(out, ", by what all hosts at once do, measured now (%.0f us, %.2f Gbit/s)%s", t->together.latency_s * 1e6, t->together.bytes_s * 8e-9,
                   recorded ? ", which a topology does not tell `tessera plan`" : "");
}

static void say(const struct clu_place *c, const struct clu_topo *t, bool recorded)
{
    struct buf b = {0};
    const struct grid *g = &c->layout.grid;
    for (int32_t s = 0; s < g->n_stages; s++) {
        buf_printf(&b, "%s layers %d-%d on %d rank%s (", s ? ";" : "", g->layers[s],
                   g->layers[s + 1] - 1, g->width[s], g->width[s] == 1 ? "" : "s");
        for (int32_t r = grid_first(g, s); r < grid_first(g, s) + g->width[s]; r++)
            buf_printf(&b, "%s%d heads + %d FFN leaves", r > grid_first(g, s) ? ", " : "",
                       g->share[r].heads, g->share[r].ffn);
        buf_putc(&b, ')');
    }
    say_basis(c, t, recorded, &b);
    log_info("plan", "placement:%s", buf_str(&b));
    buf_free(&b);
}

/* The planner's inputs; kept together, they are large. */
struct plan_inputs {
    struct model_weights weights;
    struct clu_topo topo, known;
    struct clu_ranks_known what;
    struct clu_rates rates;
    struct clu_work work;
    struct clu_want want;
    struct clu_place place;
    bool wire_chosen; /* by an option: options_wire */
    struct grid grid; /* out */
};

static enum err gather_inputs(const struct placement *p, const struct msg_hello hellos[], int32_t n, struct plan_inputs *in)
{
    enum err rc;
    const struct model_options *m = &p->o->model;
    in->rates = clu_rates_default;
    in->rates.process_bytes = 0; /* the ranks run already: memory that is available is theirs */
    const struct eng_adapters adapters = adapters_of(&p->adapters);
    TRY(eng_engine_weights(p->model_path, &in->weights));
    TRY(eng_engine_adapters_weigh(p->model_path, &adapters, &in->weights));
    if (p->o->cluster.topo) TRY(clu_topo_read(&in->known, p->o->cluster.topo));
    clu_topo_ranks(&in->topo, hellos, n, p->o->cluster.topo ? &in->known : NULL, (int32_t)m->threads, p->guess.measured ? &p->guess : &per_processor,
                   &in->what);
    in->work = (struct clu_work){.info = &p->info,
                                 .weights = &in->weights,
                                 .rates = &in->rates,
                                 .context = p->context,
                                 .depth = p->depth ? p->depth : MIN(p->context / 2, 512),
                                 .max_step_tokens = (int32_t)m->max_batch_tokens,
                                 .n_slots = (int32_t)m->max_seqs,
                                 .kv_type = (enum kv_type)m->kv_type,
                                 .rounded = m->exact == EXACT_OFF};
    in->work.wire = options_wire(m->exact, m->wire_type, &in->wire_chosen);
    in->want = (struct clu_want){.users = 8, .need_tokens = m->kv_tokens, .kv_tokens = m->kv_tokens,
                                 .experts = options_experts(m->exact, m->experts), .fixed_order = true};
out:
    return rc;
}

static enum err find(const struct placement *p, struct plan_inputs *in, struct grid *out)
{
    enum err rc;
    TRY(clu_place_find(&in->place, &in->work, &in->topo, &in->want));
    if (!in->wire_chosen && clu_place_wire(&in->place)) {
        in->work.wire = clu_place_wire(&in->place);
        TRY(clu_place_find(&in->place, &in->work, &in->topo, &in->want));
    }
    say(&in->place, &in->topo, p->o->cluster.topo != NULL);
    *out = in->place.layout.grid;
out:
    return rc;
}

/* The cut that --tp and --pp name. */
static enum err given(const struct placement *p, struct plan_inputs *in, int32_t n, struct grid *out)
{
    struct clu_layout l;
    int32_t pp = (int32_t)p->o->model.pp;
    enum err e = eng_engine_grid(p->model_path, n / pp, pp, &l.grid);
    if (e) return e;
    for (int32_t r = 0; r < n; r++) l.device[r] = r;
    l.grid.whole_experts = clu_place_whole(&in->work, &in->topo, &in->want, &l);
    *out = l.grid;
    return OK;
}

static double spread(double least, double most) { return least > 0 ? most / least : 1; }

/* A cut that was asked for is of equal parts. Where the ranks are not, say so, and what the planner would do with them. */
static void compare_given(const struct placement *p, struct plan_inputs *in, const struct grid *g)
{
    const struct clu_device *d = in->topo.devices;
    struct clu_layout l = {.grid = *g};
    double least[2] = {(double)d->mem_bytes, d->read_bytes_s}, most[2] = {least[0], least[1]}, asked = 0;
    for (int32_t r = 0; r < grid_ranks(g); r++) {
        double v[2] = {(double)d[r].mem_bytes, d[r].read_bytes_s};
        l.device[r] = r;
        for (int i = 0; i < 2; i++) least[i] = MIN(least[i], v[i]), most[i] = MAX(most[i], v[i]);
    }
    double memory = spread(least[0], most[0]), speed = spread(least[1], most[1]);
    if (memory < 1.5 && speed < 1.5) return;
    if (!clu_place_of(&in->place, &in->work, &in->topo, &in->want, &l)) asked = in->place.judged.tok_s;
    if (clu_place_find(&in->place, &in->work, &in->topo, &in->want) || in->place.judged.tok_s < 1.05 * asked) return;
    char so[64] = "it may not fit";
    const char *hint = p->o->cluster.topo ? "" : " (better known with --topo: tessera doctor --hostfile HOSTS --record FILE)";
    if (asked > 0) snprintf(so, sizeof so, "%.1f tok/s predicted for 8 users", asked);
    log_warn("plan", "the cut was asked for with --tp or --pp: equal parts, but the ranks' memory differs by a factor of %.1f and their speed by %.1f; "
             "%s, without --tp and --pp the planner would reach %.1f tok/s%s", memory, speed, so, in->place.judged.tok_s, hint);
}

/* Slots of a hostfile are ranks, each of which computes with many threads: a hostfile written for other programs has one for each core. */
static void check_slots(const struct placement *p, const struct msg_hello hellos[], int32_t n)
{
    enum { MOST = 4 }; /* processors in sockets of one machine */
    for (int32_t r = 0; r < n && p->o->cluster.hostfile; r++) {
        int32_t on_host = 0, before = 0;
        for (int32_t k = 0; k < n; k++) {
            bool same = !hellos[k].gpu && !strcmp(hellos[k].host, hellos[r].host);
            on_host += same;
            before += same && k < r;
        }
        if (!hellos[r].gpu && !before && on_host > MOST)
            log_warn("plan", "%s has %d ranks on its %d processors: slots of the hostfile are ranks, and one for the processors of a box, or one for each "
                     "socket, is faster (and one for each card)", hellos[r].host, on_host, hellos[r].n_cpus);
    }
}

/* How sums travel when --exact is off: as asked, or as a cut that was given is fastest with. */
static enum clu_wire_type wire_of(const struct placement *p, struct plan_inputs *in, const struct grid *g)
{
    const struct model_options *m = &p->o->model;
    struct clu_layout l = {.grid = *g};
    bool chosen;
    const enum clu_wire_type asked = options_wire(m->exact, m->wire_type, &chosen);
    if (chosen) return asked;
    for (int32_t r = 0; r < grid_ranks(g); r++) l.device[r] = r;
    in->work.wire = CLU_WIRE_F32;
    in->want.need_tokens = 0;
    return clu_place_of(&in->place, &in->work, &in->topo, &in->want, &l) ? CLU_WIRE_F32 : clu_place_wire(&in->place);
}

/* What this cut should do, to be compared with what it does. */
static void promise(struct placement *p, struct plan_inputs *in, const struct grid *g, int32_t replica)
{
    struct clu_layout l = {.grid = *g};
    if (replica >= ROUTE_REPLICAS) return;
    struct clu_forecast *f = &p->forecast[replica];
    for (int32_t r = 0; r < grid_ranks(g); r++) l.device[r] = r;
    in->work.wire = wire_of(p, in, g);
    clu_forecast_of(f, &in->work, &in->topo, &l);
    p->slowest = (struct clu_wire){0, 0};
    for (int32_t i = 0; i < in->topo.n_links; i++) {
        const struct clu_wire *x = &in->topo.links[i].wire;
        p->slowest.latency_s = MAX(p->slowest.latency_s, x->latency_s);
        p->slowest.bytes_s = p->slowest.bytes_s > 0 ? MIN(p->slowest.bytes_s, x->bytes_s) : x->bytes_s;
    }
    f->speed_known = in->what.speed;
    f->links_known = in->what.links;
    p->said[replica].term = CLU_TERM_NONE;
    p->said[replica].us = 0;
}

/* ---- KV blocks, and the plan ---- */

/* Memory of a rank's host that is nobody's. */
static int64_t free_bytes(const struct placement *p, const struct msg_hello *y)
{
    int64_t n = y->mem_available;
    for (int32_t i = 0; i < p->n_taken; i++)
        if (!strcmp(p->taken[i].host, y->host)) n -= p->taken[i].bytes;
    return MAX(n, 0);
}

/* KV blocks that every rank has memory for, rank r on t->devices[r]. */
static enum err fit_blocks(struct placement *p, const struct clu_work *w, const struct clu_topo *t, const struct grid *g,
                           const struct msg_hello hellos[], int32_t n, int64_t *out)
{
    int64_t fit = INT32_MAX / 2;
    const struct model_options *m = &p->o->model;
    for (int32_t r = 0; r < n; r++) {
        struct eng_engine_need need, more;
        struct clu_memory plan;
        const struct eng_adapters adapters = adapters_of(&p->adapters);
        enum err e = eng_engine_need(p->model_path, g, r, (enum kv_type)m->kv_type,
                                     (int32_t)m->max_batch_tokens, p->context, &need);
        if (!e) e = eng_engine_adapters_need(p->model_path, &adapters, g, r, (int32_t)m->max_batch_tokens, &more);
        if (e) return e;
        need.weight_bytes += more.weight_bytes;
        need.buffer_bytes += more.buffer_bytes;
        /* before the first load the others have taken nothing yet */
        int32_t others = p->n_blocks ? 1 : p->sharing;
        int64_t share = free_bytes(p, &hellos[r]) / MAX(hellos[r].mem_ranks, 1) / others / 100 * 92;
        clu_cost_memory(w, g, r, t, r, &plan);
        need.buffer_bytes += plan.card;
        int64_t left = share - need.weight_bytes - need.buffer_bytes,
                least = need.block_bytes * clu_cost_hold(w, p->context);
        if (left < least)
            return err_raise(
                ERR_NO_FIT,
                "rank %d (%s) needs %.2f GB: weights %.2f, step buffers %.2f, KV for one context "
                "of %d tokens %.2f; %.2f GB are free "
                "for it: use more ranks, a smaller quantisation, or a shorter --context",
                r, hellos[r].host, (double)(need.weight_bytes + need.buffer_bytes + least) / 1e9,
                (double)need.weight_bytes / 1e9, (double)need.buffer_bytes / 1e9, p->context,
                (double)least / 1e9, (double)share / 1e9);
        fit = MIN(fit, left / need.block_bytes);
    }
    *out = fit;
    return OK;
}

/* KV blocks: as --kv-tokens says, else as fit; of later loads no more than of the first, so that replicas are alike. */
static enum err choose_blocks(struct placement *p, const struct plan_inputs *in, const struct grid *g, const struct msg_hello hellos[], int32_t n,
                              int32_t *n_blocks)
{
    enum err rc;
    const struct clu_work *w = &in->work;
    int64_t fit = 0, kv_tokens = p->o->model.kv_tokens;
    TRY(fit_blocks(p, w, &in->topo, g, hellos, n, &fit));
    int64_t want = clu_place_kv(w, fit, kv_tokens);
    if (want > fit)
        TRY(err_raise(ERR_NO_FIT, "--kv-tokens %lld does not fit: %lld tokens do", (long long)kv_tokens, (long long)clu_cost_room(w, fit)));
    if (want < clu_cost_hold(w, p->context))
        TRY(err_raise(ERR_BAD_CONFIG, "--kv-tokens %lld holds less than one context of %d tokens", (long long)kv_tokens, p->context));
    if (!p->n_blocks) p->n_blocks = (int32_t)want;
    *n_blocks = (int32_t)MIN(want, p->n_blocks);
out:
    return rc;
}

/* What the ranks are told besides the cut, the blocks and how sums travel. */
static void fill_plan(const struct placement *p, const struct msg_hello hellos[], int32_t n, struct msg_load_plan *plan)
{
    const struct model_options *m = &p->o->model;
    bool one_host = true;
    for (int32_t r = 0; r < n; r++) one_host &= !strcmp(hellos[r].host, hellos[0].host);
    plan->model_path = p->model_path;
    plan->model_fingerprint = p->fingerprint;
    plan->n_adapters = p->adapters.n;
    for (int32_t i = 0; i < p->adapters.n; i++) {
        plan->adapters[i] = p->adapters.paths[i];
        plan->adapter_fingerprints[i] = p->adapters.sums[i];
    }
    plan->n_threads = (int32_t)m->threads;
    if (!m->threads && p->sharing > 1) plan->n_threads = MAX(1, hellos[0].n_cpus / MAX(hellos[0].host_size, 1) / p->sharing);
    plan->context = p->context;
    plan->n_slots = (int32_t)m->max_seqs;
    plan->max_step_tokens = (int32_t)m->max_batch_tokens;
    plan->kv_type = (enum kv_type)m->kv_type;
    plan->oracle = m->activations == ACTIVATIONS_F32;
    plan->exact = m->exact == EXACT_ON;
    plan->isa = m->isa;
    plan->wire = m->wire == WIRE_MPI ? "mpi" : one_host ? "shm" : "auto";
    plan->shard_cache = m->shard_cache;
    plan->shard_cache_bytes = m->shard_cache_size;
    plan->comm_timeout_us = (int64_t)(m->comm_timeout * 1e6);
    plan->telemetry_us = p->telemetry_us ? p->telemetry_us : 1000000;
}

/* Before anything is loaded: adapters are the processors'. */
static enum err check_devices(const struct placement *p, const struct msg_hello hellos[], int32_t n)
{
    for (int32_t r = 0; r < n && p->adapters.n; r++)
        if (hellos[r].gpu)
            return err_raise(ERR_UNSUPPORTED, "--lora: rank %d computes on %s, and adapters are computed on the CPU only: --device cpu", r, hellos[r].device);
    return OK;
}

enum err placement_place(void *user, const struct msg_hello hellos[], int32_t n,
                         struct msg_load_plan *plan)
{
    enum err rc;
    struct placement *p = user;
    const struct model_options *m = &p->o->model;
    struct grid g;
    struct plan_inputs *in = xcalloc(1, sizeof *in);
    if (n % m->pp || (m->tp && m->tp * m->pp != n))
        TRY(err_raise(ERR_BAD_CONFIG, "%d ranks are not --tp %lld x --pp %lld", n,
                      (long long)m->tp, (long long)m->pp));
    TRY(gather_inputs(p, hellos, n, in));
    TRY(check_devices(p, hellos, n));
    check_slots(p, hellos, n);
    if (planned(m, n)) {
        TRY(find(p, in, &g));
    } else {
        TRY(given(p, in, n, &g));
        compare_given(p, in, &g);
    }
    if (g.whole_experts && m->exact == EXACT_OFF && m->experts == EXPERTS_AUTO) log_info("plan", "--exact off: whole experts on each rank");
    plan->grid = in->grid = g;
    TRY(choose_blocks(p, in, &g, hellos, n, &plan->n_blocks));
    fill_plan(p, hellos, n, plan);
    plan->wire_type = clu_wire_name[wire_of(p, in, &g)];
    if (m->exact == EXACT_OFF) log_info("plan", "--exact off: sums travel between hosts as %s", plan->wire_type);
    promise(p, in, &g, plan->replica);
    if (p->guess.measured) {
        free(p->inputs);
        p->inputs = in, in = NULL;
    }
out:
    free(in);
    return rc;
}

void placement_measured(struct placement *p, const struct clu_guess *guess)
{
    struct clu_topo *t = &p->inputs->topo;
    for (int32_t i = 0; i < t->n_devices; i++) {
        struct clu_device *d = &t->devices[i];
        if (!d->crowd.ranks) continue;
        d->crowd.read_bytes_s = guess->read_bytes_s;
        d->crowd.ops_s = guess->ops_s;
        d->crowd.all_read_bytes_s = guess->host_read_bytes_s;
        clu_crowd_speed(&d->crowd, d->crowd.ranks, false, &d->read_bytes_s, &d->ops_s);
    }
    promise(p, p->inputs, &p->inputs->grid, 0);
}
