/* place_refuse.c: why a model does not fit and what would make it fit: the planner asked again
 * under one changed condition at a time, so that a remedy named is a remedy that works. See
 * place.h. */
#include "cluster/place.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 9 };

static bool fits(const struct clu_work *w, const struct clu_topo *t, const struct clu_want *want)
{
    struct clu_want q = *want;
    struct clu_place *p = xmalloc(sizeof *p);
    q.effort = CLU_EFFORT_PROBE;
    q.users = 1;
    bool yes = !clu_place_find(p, w, t, &q);
    free(p);
    return yes;
}

/* Every device with this many bytes more. */
static bool fits_with_more(const struct clu_work *w, const struct clu_topo *t,
                           const struct clu_want *want, double bytes)
{
    struct clu_topo *x = xmalloc(sizeof *x);
    *x = *t;
    for (int32_t i = 0; i < x->n_devices; i++)
        x->devices[i].mem_bytes += (int64_t)(bytes / x->n_devices);
    bool yes = fits(w, x, want);
    free(x);
    return yes;
}

/* One device more, on a host of its own, as fast as the best there is. */
static bool fits_with_device(const struct clu_work *w, const struct clu_topo *t,
                             const struct clu_want *want, double bytes)
{
    struct clu_topo *x = xmalloc(sizeof *x);
    *x = *t;
    bool yes = false;
    if (x->n_devices < LIMIT_RANKS && x->n_hosts < CLU_MAX_HOSTS) {
        int32_t best = 0;
        for (int32_t i = 1; i < x->n_devices; i++)
            if (x->devices[i].read_bytes_s > x->devices[best].read_bytes_s) best = i;
        struct clu_device d = x->devices[best];
        x->hosts[x->n_hosts] = x->hosts[d.host];
        d.host = x->n_hosts++;
        d.mem_bytes = (int64_t)bytes;
        x->devices[x->n_devices++] = d;
        yes = fits(w, x, want);
    }
    free(x);
    return yes;
}

/* The least bytes, to about 1 %, for which `ok` holds; 0 when even `hi` does not. */
static double
least(bool (*ok)(const struct clu_work *, const struct clu_topo *, const struct clu_want *, double),
      const struct clu_work *w, const struct clu_topo *t, const struct clu_want *want, double hi)
{
    double lo = 0;
    if (!ok(w, t, want, hi)) return 0;
    for (int32_t i = 0; i < STEPS; i++) {
        double mid = (lo + hi) / 2;
        if (ok(w, t, want, mid))
            hi = mid;
        else
            lo = mid;
    }
    return hi;
}

static bool fits_one_user(const struct clu_work *w, const struct clu_topo *t,
                          const struct clu_want *want)
{
    struct clu_want q = *want;
    q.need_tokens = 0;
    return fits(w, t, &q);
}

static int32_t shorter_context(const struct clu_work *w, const struct clu_topo *t,
                               const struct clu_want *want)
{
    for (int32_t c = w->context / 2; c >= 512; c /= 2) {
        struct clu_work x = *w;
        struct clu_want q = *want;
        x.context = c;
        q.need_tokens = want->need_tokens / w->context * c; /* as many users */
        if (fits(&x, t, &q)) return c;
    }
    return 0;
}

/* The widest KV type smaller than now with which it fits; KV_TYPES: none. fp8 weighs 6 % less than q8_0 and is ten times as coarse: not proposed. */
static enum kv_type smaller_kv(const struct clu_work *w, const struct clu_topo *t,
                               const struct clu_want *want)
{
    static const enum kv_type by_size[] = {KV_F16, KV_Q8_0};
    int32_t dim = w->info->kv.head_dim;
    for (size_t i = 0; i < COUNT_OF(by_size); i++) {
        struct clu_work x = *w;
        x.kv_type = by_size[i];
        if (kv_row_bytes(x.kv_type, dim) < kv_row_bytes(w->kv_type, dim) && fits(&x, t, want))
            return x.kv_type;
    }
    return KV_TYPES;
}

/* Types by bits per weight, as packed. */
static const struct {
    const char *name;
    double bits;
} types[] = {{"Q8_0", 8.5}, {"Q6_K", 6.6}, {"Q5_K", 5.6}, {"Q4_K", 4.6}};

static void scale(struct model_part *p, double by)
{
    p->mem = (int64_t)((double)p->mem * by);
    p->file = (int64_t)((double)p->file * by);
}

/* The widest type smaller than now with which it fits, or NULL. */
static const char *smaller_type(const struct clu_work *w, const struct clu_topo *t,
                                const struct clu_want *want)
{
    double bytes = (double)w->weights->embd.mem + (w->weights->tied ? 0 : (double)w->weights->head.mem);
    for (int32_t i = 0; i < w->info->n_layers; i++)
        bytes += (double)(w->weights->layers[i].q.mem + w->weights->layers[i].kv.mem +
                          w->weights->layers[i].ffn.mem);
    double bits = 8 * bytes / (double)MAX(w->info->n_params, 1);
    struct model_weights *x = xmalloc(sizeof *x);
    const char *name = NULL;
    for (size_t i = 0; i < COUNT_OF(types) && !name; i++) {
        double by = types[i].bits / bits;
        struct clu_work y = *w;
        if (by > 0.95 || !strcmp(types[i].name, w->info->type)) continue;
        *x = *w->weights;
        for (int32_t l = 0; l < x->n_layers; l++)
            scale(&x->layers[l].q, by), scale(&x->layers[l].kv, by), scale(&x->layers[l].ffn, by);
        scale(&x->embd, by);
        scale(&x->head, by);
        y.weights = x;
        if (fits(&y, t, want)) name = types[i].name;
    }
    free(x);
    return name;
}

enum err clu_place_refuse(const struct clu_work *w, const struct clu_topo *t,
                          const struct clu_want *want)
{
    struct buf b = {0};
    double have = 0, weights = 0;
    for (int32_t i = 0; i < t->n_devices; i++) have += (double)t->devices[i].mem_bytes;
    for (int32_t i = 0; i < w->weights->n_layers; i++) {
        const struct model_layer *y = &w->weights->layers[i];
        weights += (double)(y->q.mem + y->kv.mem + y->ffn.mem + y->rest.mem);
    }
    weights += (double)w->weights->embd.mem + (w->weights->tied ? 0 : (double)w->weights->head.mem);
    int64_t tokens = MAX(want->need_tokens, w->context);
    const struct kv_groups k = kv_groups_of_model(w->info, w->context);
    double kv = (double)leaf_kv_block_bytes(&w->info->kv, kv_groups_planes(&k, w->info->windowed, 0, w->info->n_layers),
                                            w->info->n_kv_heads, w->kv_type) *
                (double)clu_cost_hold(w, tokens);
    double lacks = least(fits_with_more, w, t, want, 1.5 * (weights + kv) + 4e9 * t->n_devices);
    double card = least(fits_with_device, w, t, want, 2 * (weights + kv) + 8e9);
    if (card > 0) lacks = lacks > 0 ? MIN(lacks, card) : card; /* as much on each may be a crooked way to have enough in all */
    buf_printf(&b,
               "%s (%s) does not fit on %d device%s of %.1f GB in all: weights are %.1f GB, KV for "
               "%lld tokens %.1f GB",
               w->info->name, w->info->type, t->n_devices, t->n_devices == 1 ? "" : "s",
               have / 1e9, weights / 1e9, (long long)tokens, kv / 1e9);
    if (lacks > 0) buf_printf(&b, "; %.2f GB are missing", lacks / 1e9);
    int32_t context = shorter_context(w, t, want), n = 0;
    const char *type = smaller_type(w, t, want);
    enum kv_type smaller = smaller_kv(w, t, want);
    buf_puts(&b, ". It would fit with");
    if (context) buf_printf(&b, "%s --context %d", n++ ? "," : "", context);
    if (want->need_tokens >= 2LL * w->context && fits_one_user(w, t, want))
        buf_printf(&b, "%s fewer --users", n++ ? "," : "");
    if (smaller < KV_TYPES) buf_printf(&b, "%s --kv-type %s (%.0f %% of the KV)", n++ ? "," : "", kv_type_name(smaller),
                   100.0 * (double)leaf_kv_row_bytes(&w->info->kv, smaller) / (double)leaf_kv_row_bytes(&w->info->kv, w->kv_type));
    if (type) buf_printf(&b, "%s a %s file", n++ ? "," : "", type);
    if (card > 0)
        buf_printf(&b, "%s one more device of %.0f GB", n++ ? ", or" : "", ceil(card / 1e9));
    if (!n) buf_puts(&b, " more hosts");
    enum err e = err_raise(ERR_NO_FIT, "%s", buf_str(&b));
    buf_free(&b);
    return e;
}
