/* place_layers.c: layers dealt to the stages of a row. See place_impl.h.
 *
 * The slowest stage as fast as possible: a bisection over its time; and, when users are fewer than
 * stages, so that the sum of stages is, a few multiples of it. Every deal when they are few.
 * place_stage.c has the shares within a stage; its answers are remembered. */
#include "cluster/place_impl.h"

#include "base/rng.h"

#include <string.h>

enum { ENUM_LAYERS = 300 };

/* ---- stages, remembered ---- */

static bool same_device(const struct clu_topo *t, const struct clu_device *a,
                        const struct clu_device *b)
{
    const struct clu_wire x = t->hosts[a->host].local, y = t->hosts[b->host].local;
    return a->kind == b->kind && a->mem_bytes == b->mem_bytes &&
           a->read_bytes_s == b->read_bytes_s && a->ops_s == b->ops_s &&
           x.latency_s == y.latency_s && x.bytes_s == y.bytes_s;
}

void clu_place_classify(struct search *s)
{
    for (int32_t i = 0; i < s->t->n_devices; i++) {
        s->class_of[i] = i;
        for (int32_t j = 0; j < i; j++)
            if (same_device(s->t, &s->t->devices[i], &s->t->devices[j])) {
                s->class_of[i] = s->class_of[j];
                break;
            }
    }
}

/* Two tries with one key have one answer: devices count by class and by which of them share a host.
 */
static uint64_t key_of(const struct search *s, const struct clu_stage_try *y)
{
    uint64_t k = rng_at(1, (uint64_t)y->layers * 2048 + (uint64_t)y->rows, (uint64_t)y->n_blocks,
                        (uint64_t)(y->first + 2 * y->last));
    int32_t host[LIMIT_RANKS], n_hosts = 0;
    for (int32_t i = 0; i < y->n; i++) {
        int32_t h = 0, real = s->t->devices[y->device[i]].host;
        while (h < n_hosts && host[h] != real) h++;
        if (h == n_hosts) host[n_hosts++] = real;
        k = rng_at(k, (uint64_t)s->class_of[y->device[i]],
                   (uint64_t)(s->t->n_links ? real + 64 : h), (uint64_t)i);
    }
    return k | 1;
}

static const struct clu_stage_fit *solve(struct search *s, const struct clu_stage_try *y)
{
    uint64_t key = key_of(s, y);
    struct entry *e = &s->cache[key % PLACE_CACHE];
    if (e->key != key) {
        clu_place_stage(y, &e->fit);
        e->key = key;
    }
    return &e->fit;
}

/* The stage with this many layers: the split that memory does not force, when there is room for it.
 */
static bool stage_of(struct search *s, struct clu_stage_try y, struct clu_stage_fit *out)
{
    struct clu_stage_try free = y;
    if (clu_place_stage_close(&y)) {
        *out = *solve(s, &y);
        return out->fits;
    }
    free.layers = 1;
    free.n_blocks = 1;
    *out = *solve(s, &free);
    if (out->fits && clu_place_stage_fits(&y, out->share)) return true;
    y.effort = MAX(y.effort, s->w->info->n_layers > 12);
    *out = *solve(s, &y);
    return out->fits;
}

/* ---- layers ---- */

struct dealing {
    struct search *s;
    const struct row *row;
    struct clu_stage_try stage[LIMIT_RANKS];
    int32_t layers[LIMIT_RANKS], batches;
    double hop_s[LIMIT_RANKS]; /* of what a stage sends to the next */
    double best;
    int32_t best_layers[LIMIT_RANKS];
    bool found;
};

/* Seconds of stage i with n layers; negative: no room. */
static double stage_s(struct dealing *d, int32_t i, int32_t n)
{
    struct clu_stage_fit f;
    struct clu_stage_try y = d->stage[i];
    y.layers = n;
    return stage_of(d->s, y, &f) ? n * f.layer_s + f.ends_s + d->hop_s[i] : -1;
}

static void judge(struct dealing *d)
{
    double sum = d->s->w->rates->step_s, most = 0;
    for (int32_t i = 0; i < d->row->n_stages; i++) {
        double t = stage_s(d, i, d->layers[i]);
        if (t < 0) return;
        sum += t;
        most = MAX(most, t);
    }
    double round = MAX(sum, d->batches * most) + 1e-6 * sum;
    if (d->found && round >= d->best) return;
    d->found = true;
    d->best = round;
    memcpy(d->best_layers, d->layers, sizeof d->layers);
}

static void every_deal(struct dealing *d, int32_t i, int32_t left)
{
    if (i == d->row->n_stages - 1) {
        d->layers[i] = left;
        judge(d);
        return;
    }
    for (int32_t k = 1; k <= left - (d->row->n_stages - 1 - i); k++) {
        d->layers[i] = k;
        every_deal(d, i + 1, left - k);
    }
}

/* The most layers that stage i computes within t seconds and has room for. */
static int32_t layers_within(struct dealing *d, int32_t i, double t)
{
    int32_t lo = 0, hi = d->s->w->info->n_layers;
    while (lo < hi) {
        int32_t mid = (lo + hi + 1) / 2;
        double x = stage_s(d, i, mid);
        if (x >= 0 && x <= t)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

/* No stage above t seconds: as many layers as go on the fastest stages. */
static bool deal_within(struct dealing *d, double t)
{
    int32_t n = d->row->n_stages, most[LIMIT_RANKS], sum = 0;
    double each[LIMIT_RANKS];
    for (int32_t i = 0; i < n; i++) {
        most[i] = layers_within(d, i, t);
        if (most[i] < 1) return false;
        each[i] = stage_s(d, i, most[i]) / most[i];
        d->layers[i] = most[i];
        sum += most[i];
    }
    for (int32_t over = sum - d->s->w->info->n_layers; over != 0; over--) {
        int32_t from = -1;
        if (over < 0) return false;
        for (int32_t i = 0; i < n; i++)
            if (d->layers[i] > 1 && (from < 0 || each[i] > each[from])) from = i;
        if (from < 0) return false;
        d->layers[from]--;
    }
    return true;
}

static void deal(struct dealing *d)
{
    int32_t n = d->row->n_stages, layers = d->s->w->info->n_layers;
    double lo = 0, hi = 0, c = 1;
    for (int32_t i = 1; i < n; i++) c = c * (layers - i) / i;
    if (n == 1 || (c <= ENUM_LAYERS && !d->s->want->effort)) {
        every_deal(d, 0, layers);
        return;
    }
    for (int32_t i = 0; i < n; i++) {
        double t = stage_s(d, i, 1);
        if (t < 0) return;
        hi = MAX(hi, t * layers * 2);
    }
    for (int32_t k = 0; !deal_within(d, hi); k++) {
        hi *= 4;
        if (k == 3) return;
    }
    for (int32_t k = 0; k < 14; k++) {
        double mid = (lo + hi) / 2;
        if (deal_within(d, mid))
            hi = mid;
        else
            lo = mid;
    }
    static const double slack[] = {1, 1.1, 1.25, 1.5, 2, 4, 100};
    for (size_t k = 0; k < (d->batches < n ? COUNT_OF(slack) : 1); k++)
        if (deal_within(d, hi * slack[k])) judge(d);
}

/* ---- a whole row ---- */

bool clu_place_lay(struct search *s, const struct row *row, int32_t users, int32_t contexts, struct clu_layout *out)
{
    struct dealing d = {.s = s, .row = row, .batches = MIN(row->n_stages, users)};
    int64_t context = ROUND_UP(s->w->context, LIMIT_BLOCK_TOKENS);
    int64_t blocks = clu_cost_hold(s->w, MAX(contexts * context, MAX(s->want->need_tokens, context)));
    int32_t first = 0;
    for (int32_t i = 0; i < row->n_stages; first += row->width[i++])
        d.stage[i] = (struct clu_stage_try){.w = s->w,
                                            .t = s->t,
                                            .device = row->device + first,
                                            .n = row->width[i],
                                            .layers = 1,
                                            .rows = DIV_UP(users, row->n_stages),
                                            .n_blocks = blocks,
                                            .first = i == 0,
                                            .last = i == row->n_stages - 1,
                                            .effort = s->want->effort,
                                            .whole_experts = s->whole_experts};
    *out = (struct clu_layout){.grid = {.n_stages = row->n_stages, .shared = true, .whole_experts = s->whole_experts}};
    memcpy(out->device, row->device, sizeof out->device);
    memcpy(out->grid.width, row->width, sizeof out->grid.width);
    for (int32_t i = 0; i < row->n_stages; i++)
        d.hop_s[i] = clu_cost_hop(s->w, s->t, out, i, d.stage[i].rows);
    deal(&d);
    if (!d.found) return false;
    first = 0;
    for (int32_t i = 0; i < row->n_stages; first += row->width[i++]) {
        struct clu_stage_fit f;
        d.stage[i].layers = d.best_layers[i];
        if (!stage_of(s, d.stage[i], &f)) return false;
        memcpy(out->grid.share + first, f.share, (size_t)row->width[i] * sizeof *f.share);
        out->grid.layers[i + 1] = out->grid.layers[i] + d.best_layers[i];
    }
    return true;
}
