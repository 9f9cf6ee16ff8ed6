/* cmd_plan.c: `tessera plan`: what would go where, whether it fits and how fast, before anything is
 * loaded. Reads headers only. */
#include "cli/adapters.h"
#include "cli/commands.h"
#include "cli/hosts_topo.h"
#include "cli/options.h"

#include "base/conf.h"
#include "base/plain.h"
#include "cluster/place.h"
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    const char *hostfile, *topo, *record, *lora;
    int64_t ranks, context, users, kv_tokens, tp, pp, max_batch_tokens, max_seqs;
    int32_t kv_type, exact, experts, wire_type;
    bool json;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"topo", CONF_STR, O(topo), NULL, 0, 0, "FILE",
     "the machines, as recorded (docs/topology.md); default: this one"},
    {"hostfile", CONF_STR, O(hostfile), NULL, 0, 0, "FILE",
     "hosts in Open MPI's syntax: each as the topology of its name says, else like this machine"},
    {"ranks", CONF_INT, O(ranks), "0", 0, LIMIT_RANKS, "N",
     "so many ranks on each CPU device; 0: one"},
    {"context", CONF_INT, O(context), "0", 0, LIMIT_CONTEXT, "N",
     "longest sequence in tokens; 0: the model's, at most 8192"},
    {"users", CONF_INT, O(users), "0", 0, LIMIT_SLOTS, "N",
     "full contexts that must fit, and that speed is judged by; 0: one must, judged by 8"},
    {"kv-tokens", CONF_INT, O(kv_tokens), "0", 0, 1e9, "N",
     "tokens the KV cache holds; 0: as serve, at most 8 contexts, or those of --users"},
    {"tp", CONF_INT, O(tp), "0", 0, LIMIT_RANKS, "N",
     "do not choose: N tensor ranks per stage, dealt evenly"},
    {"pp", CONF_INT, O(pp), "0", 0, LIMIT_RANKS, "N", "do not choose: N stages"},
    {"kv-type", CONF_ENUM, O(kv_type), "f16", 0, 0, KV_TYPE_NAMES, "type of the KV cache"},
    {"experts", CONF_ENUM, O(experts), "auto", 0, 0, EXPERTS_NAMES, EXPERTS_HELP},
    {"exact", CONF_ENUM, O(exact), "on", 0, 0, EXACT_NAMES,
     "off: sums may travel between hosts as fewer bytes, as the links make fastest"},
    {"wire-type", CONF_ENUM, O(wire_type), "auto", 0, 0, WIRE_TYPE_NAMES,
     "with --exact off: as this"},
    {"max-batch-tokens", CONF_INT, O(max_batch_tokens), "512", 16, LIMIT_STEP_TOKENS, "N",
     "tokens computed in one step"},
    {"max-seqs", CONF_INT, O(max_seqs), "64", 1, LIMIT_SLOTS, "N", "sequences running at once"},
    {"lora", CONF_LIST, O(lora), NULL, 0, 0, "NAME=PATH", "a LoRA adapter beside the model, as of serve; may be given again"},
    {"record", CONF_STR, O(record), NULL, 0, 0, "FILE",
     "write the machines to FILE, for --topo here or elsewhere"},
    {"json", CONF_FLAG, O(json), NULL, 0, 0, "on|off", "one JSON document instead of the picture"},
    {0},
};
static const struct conf_opt *const groups[] = {table, NULL};
static const struct conf_table conf = {
    "plan",
    "plan MODEL [options]",
    "The placement of a model on machines: who holds what and why, what fits, how fast it will be. "
    "Reads headers only and\n"
    "reaches no host, so a laptop can plan for a cluster:\n"
    "  tessera plan llama-70b.gguf --topo rack.topo --context 8192 --users 16",
    groups,
    1,
    1};

/* ---- the machines ---- */

static enum err machines(const struct options *o, struct clu_topo *t)
{
    enum err rc;
    if (o->topo)
        TRY(clu_topo_read(t, o->topo));
    else
        TRY(hosts_this_machine(t));
    if (o->hostfile) {
        struct clu_hostfile f;
        TRY(clu_hostfile_read(&f, o->hostfile));
        clu_hostfile_warn(&f);
        TRY(hosts_topo(t, o->hostfile, o->topo != NULL));
    }
    int64_t ranks = o->ranks;
    if (!ranks && !o->topo && !o->hostfile && t->n_devices == 1) ranks = MAX(o->tp, 1) * MAX(o->pp, 1); /* as serve has it on one host */
    if (ranks) TRY(clu_topo_split(t, (int32_t)MIN(ranks, LIMIT_RANKS)));
    if (o->record) TRY(hosts_record(t, o->record));
out:
    return rc;
}

/* ---- the placement ---- */

/* The cut that --tp and --pp name, over the devices in order. */
static enum err given(const struct options *o, const char *path, const struct clu_work *w,
                      const struct clu_topo *t, const struct clu_want *want, struct clu_place *p)
{
    enum err rc;
    int32_t pp = MAX(1, (int32_t)o->pp), tp = o->tp ? (int32_t)o->tp : MAX(1, t->n_devices / pp);
    struct clu_layout l;
    struct leaf_shape shape = leaf_shape_of(w->info);
    TRY(eng_engine_grid(path, tp, pp, &l.grid));
    if (tp * pp > t->n_devices)
        return err_raise(
            ERR_BAD_CONFIG,
            "--tp %d x --pp %d are %d ranks; the machines have %d devices (more with --ranks N)",
            tp, pp, tp * pp, t->n_devices);
    l.grid.shared = true;
    for (int32_t i = 0; i < pp; i++) TRY(leaf_deal(&shape, tp, l.grid.share + i * tp));
    for (int32_t r = 0; r < tp * pp; r++) l.device[r] = r;
    l.grid.whole_experts = clu_place_whole(w, t, want, &l);
    rc = clu_place_of(p, w, t, want, &l);
out:
    return rc;
}

/* A hostfile numbers the ranks; where another order, or fewer hosts, would be clearly faster, say
 * which. */
static void better_order(const struct clu_work *w, const struct clu_topo *t, struct clu_want want,
                         const struct clu_place *p, bool recorded, struct buf *out)
{
    struct clu_place *free_order = xmalloc(sizeof *free_order);
    want.fixed_order = false;
    if (!clu_place_find(free_order, w, t, &want) &&
        free_order->judged.tok_s > 1.02 * p->judged.tok_s) {
        buf_printf(out, "\n%.1f tok/s instead of %.1f would be possible with this hostfile%s:\n",
                   free_order->judged.tok_s, p->judged.tok_s, recorded ? ", and serve --topo takes that order by itself" : "");
        for (int32_t r = 0, n; r < free_order->n_ranks; r += n) {
            const int32_t *device = free_order->layout.device, host = t->devices[device[r]].host;
            for (n = 1; r + n < free_order->n_ranks && t->devices[device[r + n]].host == host;
                 n++) {
            }
            buf_printf(out, "  %s slots=%d\n", t->hosts[host].name, n);
        }
    }
    free(free_order);
}

static enum err place_once(const struct options *o, const char *path, const struct clu_work *w,
                           const struct clu_topo *t, const struct clu_want *want, struct clu_place *p)
{
    if (o->tp || o->pp) return given(o, path, w, t, want, p);
    return clu_place_find(p, w, t, want);
}

/* w->wire: out, how sums travel between hosts. */
static enum err place(const struct options *o, const char *path, struct clu_work *w,
                      const struct clu_topo *t, const struct clu_want *want, struct clu_place *p)
{
    enum err rc;
    bool chosen;
    TRY(options_wire_check(o->exact, o->wire_type));
    w->wire = options_wire(o->exact, o->wire_type, &chosen);
    TRY(place_once(o, path, w, t, want, p));
    if (!chosen && clu_place_wire(p)) { /* again: another cut may now be best */
        w->wire = clu_place_wire(p);
        TRY(place_once(o, path, w, t, want, p));
    }
out:
    return rc;
}

/* What each sequence may have, from the options and the model. Err BAD_CONFIG. */
static enum err choose_context(const struct options *o, const struct model_info *info, int64_t *context)
{
    *context = o->context ? o->context : MIN(info->context, 8192);
    if (*context > info->context)
        return err_raise(ERR_BAD_CONFIG,
                         "--context %lld is more than the %d tokens %s was trained for: give at most that",
                         (long long)*context, info->context, info->name);
    if (o->kv_tokens && o->kv_tokens < *context * MAX(o->users, 1))
        return err_raise(ERR_BAD_CONFIG,
                         "--kv-tokens %lld holds fewer than %lld context(s) of %lld tokens: raise it, or lower --context or --users",
                         (long long)o->kv_tokens, (long long)MAX(o->users, 1), (long long)*context);
    return OK;
}

/* The weights of the model and of its adapters. */
static enum err weigh(const struct options *o, const char *path, struct model_weights *out)
{
    enum err rc;
    struct adapters lora = {.n = 0};
    TRY(eng_engine_weights(path, out));
    TRY(adapters_open(&lora, o->lora, path));
    const struct eng_adapters adapters = adapters_of(&lora);
    TRY(eng_engine_adapters_weigh(path, &adapters, out));
out:
    adapters_free(&lora);
    return rc;
}

static void explain(const struct options *o, const struct clu_work *w, const struct clu_topo *t,
                    const struct clu_want *want, const struct clu_place *p, struct buf *out)
{
    const bool planned = !o->tp && !o->pp;
    clu_place_explain(p, w, t, out);
    if (o->topo && t->n_hosts > 2 && planned)
        buf_puts(out, "\nlinks are taken as recorded, two hosts at a time; serve measures all of them at once, too, and may find another cut as good\n");
    if (o->users > CLU_KV_CONTEXTS && !o->kv_tokens)
        buf_printf(out, "\n%lld full contexts: serve holds them with --kv-tokens %lld, by itself %d\n", (long long)o->users,
                   (long long)want->kv_tokens, CLU_KV_CONTEXTS);
    if (want->fixed_order && planned) better_order(w, t, *want, p, o->topo != NULL, out);
}

static enum err plan(const struct options *o, const char *path, struct buf *out)
{
    enum err rc;
    struct model_info info;
    struct model_weights *weights = xmalloc(sizeof *weights);
    struct clu_topo *t = xmalloc(sizeof *t);
    struct clu_place *p = xmalloc(sizeof *p);
    int64_t context;
    TRY(eng_engine_model_info(path, &info));
    TRY(weigh(o, path, weights));
    TRY(choose_context(o, &info, &context));
    TRY(machines(o, t));
    struct clu_work w = {.info = &info,
                         .weights = weights,
                         .rates = &clu_rates_default,
                         .context = (int32_t)context,
                         .depth = (int32_t)MIN(context / 2, 512),
                         .max_step_tokens = (int32_t)o->max_batch_tokens,
                         .n_slots = (int32_t)o->max_seqs,
                         .kv_type = (enum kv_type)o->kv_type,
                         .rounded = o->exact == EXACT_OFF};
    struct clu_want want = {.users = o->users ? (int32_t)o->users : 8,
                            .need_tokens = MAX(context * MAX(o->users, 1), o->kv_tokens),
                            .kv_tokens = o->kv_tokens ? o->kv_tokens : o->users > CLU_KV_CONTEXTS ? context * o->users : 0,
                            .experts = options_experts(o->exact, o->experts),
                            .fixed_order = o->hostfile != NULL};
    TRY(place(o, path, &w, t, &want, p));
    if (o->json)
        clu_place_json(p, &w, t, out);
    else
        explain(o, &w, t, &want, p, out);
out:
    free(weights);
    free(t);
    free(p);
    return rc;
}

int cmd_plan(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[1];
    int n_args;
    bool help;
    struct buf out = {0};
    TRY(conf_parse(&conf, argc, argv, &o, args, &n_args, &help));
    if (help) {
        conf_help(&conf);
        return 0;
    }
    TRY(cmd_model(&args[0]));
    TRY(plan(&o, args[0], &out));
    if (o.json) fputs(buf_str(&out), stdout);
    else plain_write(stdout, buf_str(&out), out.len);
out:
    buf_free(&out);
    return rc ? cmd_fail(rc) : 0;
}
