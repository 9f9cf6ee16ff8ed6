/* place.c: the search for a placement. See place.h.
 *
 * Small clusters (up to EXACT devices in free order, EXACT_FIXED in fixed order): every way to put devices into an ordered row of stages, leaving
 * some out. Larger ones: devices in order of host and speed, cut into equal widths, by host, by kind; then the best few are improved by merging,
 * splitting and dropping stages until nothing helps.
 * For each such row of stages: for each number of full contexts that could be held at once, layers are dealt so that the slowest stage is as fast
 * as possible (a bisection over its time), and, when users are fewer than stages, so that the sum of stages is; place_stage.c has the shares.
 * The last word on bytes and speed is cost.c's, on the finished layout. */
#include "cluster/place.h"

#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXACT = 4, EXACT_FIXED = 9, CACHE = 1 << 12, ENUM_LAYERS = 300, KEEP = 6, MAX_CLIMB = 60, MAX_DEALS = 3 };

const int32_t clu_place_users[3] = {1, 8, 32};

/* Devices into stages. */
struct row { int32_t n_stages, width[LIMIT_RANKS], device[LIMIT_RANKS]; };

struct found {
    bool fits;
    struct row row;
    struct clu_layout layout;
    int64_t n_blocks;
    double decode_tok_s, prefill_tok_s, comm, bubble;
    int32_t users;
};

struct entry { uint64_t key; struct clu_stage_fit fit; };

struct search {
    const struct clu_work *w;
    const struct clu_topo *t;
    const struct clu_want *want;
    int32_t class_of[LIMIT_RANKS];
    struct entry *cache;
    struct found best, kept[KEEP];
    int32_t n_kept;
    struct clu_alt alts[LIMIT_RANKS + 1];     /* the best of each number of stages; [0]: one device */
    struct clu_alt flat;                      /* all in one stage */
    int64_t n_looked;
};

/* ---- stages, remembered ---- */

static bool same_device(const struct clu_topo *t, const struct clu_device *a, const struct clu_device *b)
{
    const struct clu_wire x = t->hosts[a->host].local, y = t->hosts[b->host].local;
    return a->kind == b->kind && a->mem_bytes == b->mem_bytes && a->read_bytes_s == b->read_bytes_s && a->ops_s == b->ops_s &&
           x.latency_s == y.latency_s && x.bytes_s == y.bytes_s;
}

static void classify(struct search *s)
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

/* Two tries with one key have one answer: devices count by class and by which of them share a host. */
static uint64_t key_of(const struct search *s, const struct clu_stage_try *y)
{
    uint64_t k = rng_at(1, (uint64_t)y->layers * 2048 + (uint64_t)y->rows, (uint64_t)y->n_blocks, (uint64_t)(y->first + 2 * y->last));
    int32_t host[LIMIT_RANKS], n_hosts = 0;
    for (int32_t i = 0; i < y->n; i++) {
        int32_t h = 0, real = s->t->devices[y->device[i]].host;
        while (h < n_hosts && host[h] != real) h++;
        if (h == n_hosts) host[n_hosts++] = real;
        k = rng_at(k, (uint64_t)s->class_of[y->device[i]], (uint64_t)(s->t->n_links ? real + 64 : h), (uint64_t)i);
    }
    return k | 1;
}

static const struct clu_stage_fit *solve(struct search *s, const struct clu_stage_try *y)
{
    uint64_t key = key_of(s, y);
    struct entry *e = &s->cache[key % CACHE];
    if (e->key != key) {
        clu_place_stage(y, &e->fit);
        e->key = key;
    }
    return &e->fit;
}

/* The stage with this many layers: the split that memory does not force, when there is room for it. */
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
    return stage_of(d->s, y, &f) ? n * f.layer_s + f.ends_s : -1;
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
        if (x >= 0 && x <= t) lo = mid;
        else hi = mid - 1;
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
        if (deal_within(d, mid)) hi = mid;
        else lo = mid;
    }
    static const double slack[] = {1, 1.1, 1.25, 1.5, 2, 4, 100};
    for (size_t k = 0; k < (d->batches < n ? COUNT_OF(slack) : 1); k++)
        if (deal_within(d, hi * slack[k])) judge(d);
}

/* ---- one row of stages ---- */

static bool lay(struct search *s, const struct row *row, int32_t users, struct clu_layout *out)
{
    struct dealing d = {.s = s, .row = row, .batches = MIN(row->n_stages, users)};
    int64_t context = DIV_UP(s->w->context, LIMIT_BLOCK_TOKENS);
    int64_t blocks = MAX(users * context, DIV_UP(MAX(s->want->need_tokens, s->w->context), LIMIT_BLOCK_TOKENS));
    int32_t first = 0;
    for (int32_t i = 0; i < row->n_stages; first += row->width[i++])
        d.stage[i] = (struct clu_stage_try){.w = s->w, .t = s->t, .device = row->device + first, .n = row->width[i], .layers = 1,
                                            .rows = DIV_UP(users, row->n_stages), .n_blocks = blocks, .first = i == 0,
                                            .last = i == row->n_stages - 1, .effort = s->want->effort};
    deal(&d);
    if (!d.found) return false;
    *out = (struct clu_layout){.grid = {.n_stages = row->n_stages, .shared = true}};
    memcpy(out->device, row->device, sizeof out->device);
    memcpy(out->grid.width, row->width, sizeof out->grid.width);
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

static bool better(const struct found *a, const struct found *b)
{
    if (a->fits != b->fits) return a->fits;
    double x = a->decode_tok_s, y = b->decode_tok_s;
    if (x > y * 1.005 || y > x * 1.005) return x > y;
    int32_t ra = grid_ranks(&a->layout.grid), rb = grid_ranks(&b->layout.grid);
    if (ra != rb) return ra < rb;
    return a->prefill_tok_s > b->prefill_tok_s * 1.005 || (a->prefill_tok_s * 1.005 >= b->prefill_tok_s && x > y);
}

/* "3+2", "16x4" */
static void shape_text(const struct row *r, char out[48])
{
    size_t n = 0;
    for (int32_t i = 0, k; i < r->n_stages && n < 36; i += k) {
        for (k = 1; i + k < r->n_stages && r->width[i + k] == r->width[i]; k++) {}
        if (k > 2) {
            n += (size_t)snprintf(out + n, 48 - n, "%s%dx%d", i ? "+" : "", k, r->width[i]);
        } else {
            k = 1;
            n += (size_t)snprintf(out + n, 48 - n, "%s%d", i ? "+" : "", r->width[i]);
        }
    }
}

static int64_t sum_of_weights(const struct clu_work *w)
{
    const struct model_weights *y = w->weights;
    int64_t n = y->embd.mem + (y->tied ? 0 : y->head.mem);
    for (int32_t i = 0; i < y->n_layers; i++) n += y->layers[i].q.mem + y->layers[i].kv.mem + y->layers[i].ffn.mem + y->layers[i].rest.mem;
    return n;
}

/* What these devices lack in sum; 0 or less: nothing. */
static int64_t lack(const struct search *s, const struct row *r, int32_t n)
{
    const struct model_info *m = s->w->info;
    int64_t tokens = MAX(s->want->need_tokens, s->w->context);
    int64_t need = sum_of_weights(s->w) + leaf_kv_block_bytes(m->n_layers, m->n_kv_heads, m->head_dim, s->w->kv_f16) * DIV_UP(tokens, LIMIT_BLOCK_TOKENS);
    for (int32_t i = 0; i < n; i++) need += s->w->rates->process_bytes - s->t->devices[r->device[i]].mem_bytes;
    return need;
}

static void note(struct search *s, const struct row *row, const struct found *f, int32_t n)
{
    struct clu_alt a = {.n_ranks = n, .fits = f->fits, .decode_tok_s = f->decode_tok_s, .comm = f->comm, .bubble = f->bubble,
                        .kv_tokens = f->n_blocks * LIMIT_BLOCK_TOKENS};
    shape_text(row, a.shape);
    if (!f->fits) a.short_bytes = MAX(lack(s, row, n), 0);
    struct clu_alt *slots[3] = {&s->alts[row->n_stages], n == 1 ? &s->alts[0] : NULL, row->n_stages == 1 && n == s->t->n_devices ? &s->flat : NULL};
    for (int32_t i = 0; i < 3; i++)
        if (slots[i] && (!slots[i]->n_ranks || (a.fits && (!slots[i]->fits || a.decode_tok_s > slots[i]->decode_tok_s)) ||
                         (!a.fits && !slots[i]->fits && a.short_bytes < slots[i]->short_bytes)))
            *slots[i] = a;
}

static void keep(struct search *s, const struct found *f)
{
    int32_t at = MIN(s->n_kept, KEEP - 1);
    if (s->n_kept == KEEP && !better(f, &s->kept[at])) return;
    if (s->n_kept < KEEP) s->n_kept++;
    for (; at > 0 && better(f, &s->kept[at - 1]); at--) s->kept[at] = s->kept[at - 1];
    s->kept[at] = *f;
}

/* Is the row as it stands better than the best? Remembered either way. */
static bool look(struct search *s, const struct row *row)
{
    struct found f = {.row = *row};
    int32_t n = 0;
    for (int32_t i = 0; i < row->n_stages; i++) n += row->width[i];
    if (row->n_stages > s->w->info->n_layers) return false;
    s->n_looked++;
    bool hopeless = lack(s, row, n) > 0;
    for (int32_t users = s->want->users, last = 0; !hopeless && users >= 1 && users != last; last = users, users = DIV_UP(users, 2)) {
        struct found c = {.row = *row};
        if (!lay(s, row, users, &c.layout)) continue;
        c.n_blocks = clu_cost_blocks(s->w, s->t, &c.layout, NULL);
        int64_t tokens = c.n_blocks * LIMIT_BLOCK_TOKENS;
        if (tokens < MAX(s->want->need_tokens, s->w->context)) continue;
        struct clu_speed v;
        c.fits = true;
        c.users = (int32_t)MIN(s->want->users, tokens / s->w->context);
        clu_cost_prefill(s->w, s->t, &c.layout, &v);
        c.prefill_tok_s = v.tok_s;
        clu_cost_decode(s->w, s->t, &c.layout, c.users, &v);
        c.decode_tok_s = v.tok_s, c.comm = v.comm, c.bubble = v.bubble;
        if (better(&c, &f)) f = c;
        if (c.users == s->want->users && users == s->want->users && !s->want->effort && c.n_blocks > 2 * users * s->w->context / LIMIT_BLOCK_TOKENS)
            break; /* memory binds nothing: fewer users gain nothing */
    }
    note(s, row, &f, n);
    keep(s, &f);
    if (!f.fits || !better(&f, &s->best)) return false;
    s->best = f;
    return true;
}

/* ---- which rows ---- */

/* Every ordered row of stages over the devices whose bits are set in `left`, and of every part of them. */
static void every_row(struct search *s, struct row *r, int32_t at, uint32_t left)
{
    if (r->n_stages) look(s, r);
    for (uint32_t set = left; set; set = (set - 1) & left) {
        int32_t n = 0;
        for (int32_t i = 0; i < s->t->n_devices; i++)
            if (set >> i & 1) r->device[at + n++] = i;
        r->width[r->n_stages++] = n;
        every_row(s, r, at + n, left & ~set);
        r->n_stages--;
    }
}

/* Every cut of the devices, in order, into stages. */
static void every_cut(struct search *s)
{
    int32_t n = s->t->n_devices;
    for (uint32_t cuts = 0; cuts < 1u << (n - 1); cuts++) {
        struct row r = {.n_stages = 0};
        for (int32_t i = 0; i < n; i++) {
            r.device[i] = i;
            if (i == 0 || (cuts >> (i - 1) & 1)) r.n_stages++;
            r.width[r.n_stages - 1]++;
        }
        look(s, &r);
    }
}

/* order[n] in stages of `width`; the rest makes a smaller last one. */
static void even_row(struct search *s, const int32_t order[], int32_t n, int32_t width)
{
    struct row r = {.n_stages = 0};
    memcpy(r.device, order, (size_t)n * sizeof *order);
    for (int32_t at = 0; at < n; at += width) r.width[r.n_stages++] = MIN(width, n - at);
    look(s, &r);
}

/* A new stage wherever host (by == 0), or host or class (by == 1) changes. */
static void grouped_row(struct search *s, const int32_t order[], int32_t n, int32_t by)
{
    struct row r = {.n_stages = 0};
    memcpy(r.device, order, (size_t)n * sizeof *order);
    for (int32_t i = 0; i < n; i++) {
        bool same = i && s->t->devices[order[i]].host == s->t->devices[order[i - 1]].host && (!by || s->class_of[order[i]] == s->class_of[order[i - 1]]);
        if (!same) r.n_stages++;
        r.width[r.n_stages - 1]++;
    }
    look(s, &r);
}

/* Faster hosts first; within a host faster devices first. */
static bool goes_before(const struct clu_topo *t, int32_t a, int32_t b)
{
    const struct clu_device *x = &t->devices[a], *y = &t->devices[b];
    double hx = 0, hy = 0;
    for (int32_t i = 0; i < t->n_devices; i++) {
        const struct clu_device *d = &t->devices[i];
        if (d->host == x->host) hx = MAX(hx, d->read_bytes_s);
        if (d->host == y->host) hy = MAX(hy, d->read_bytes_s);
    }
    if (hx != hy) return hx > hy;
    if (x->host != y->host) return x->host < y->host;
    return x->read_bytes_s > y->read_bytes_s;
}

static void sort_by_speed(const struct clu_topo *t, int32_t order[])
{
    for (int32_t i = 1; i < t->n_devices; i++)
        for (int32_t k = i; k > 0 && goes_before(t, order[k], order[k - 1]); k--) {
            int32_t swap = order[k];
            order[k] = order[k - 1];
            order[k - 1] = swap;
        }
}

static void drop_stage(struct row *r, int32_t stage)
{
    int32_t at = 0, n = 0;
    for (int32_t i = 0; i < stage; i++) at += r->width[i];
    for (int32_t i = 0; i < r->n_stages; i++) n += r->width[i];
    memmove(r->device + at, r->device + at + r->width[stage], (size_t)(n - at - r->width[stage]) * sizeof *r->device);
    memmove(r->width + stage, r->width + stage + 1, (size_t)(r->n_stages - stage - 1) * sizeof *r->width);
    r->n_stages--;
}

/* Where the order is free: stage i left out, its first or last device left out, or its last exchanged with the next stage's first. */
static bool climb_free(struct search *s, const struct row *base, int32_t i)
{
    struct row r = *base;
    int32_t n = 0, first = 0, all = 0;
    bool up = false;
    for (int32_t k = 0; k < base->n_stages; all += base->width[k++]) first += k < i ? base->width[k] : 0;
    n = base->width[i];
    if (base->n_stages > 1) {
        drop_stage(&r, i);
        up |= look(s, &r);
    }
    for (int32_t k = 0; n > 1 && k < 2; k++) {
        int32_t at = k ? first + n - 1 : first;
        r = *base;
        memmove(r.device + at, r.device + at + 1, (size_t)(all - at - 1) * sizeof *r.device);
        r.width[i]--;
        up |= look(s, &r);
    }
    if (i + 1 < base->n_stages) {
        r = *base;
        r.device[first + n - 1] = base->device[first + n];
        r.device[first + n] = base->device[first + n - 1];
        up |= look(s, &r);
    }
    return up;
}

/* Neighbouring rows: two stages merged, one split, one device moved on; and climb_free's. */
static bool climb_from(struct search *s, const struct row *base)
{
    bool up = false;
    int32_t n = base->n_stages, step = n > 16 ? 4 : 1;
    for (int32_t i = 0; i < n; i += step) {
        struct row r = *base;
        if (i + 1 < n) {
            r.width[i] += r.width[i + 1];
            memmove(r.width + i + 1, r.width + i + 2, (size_t)(n - i - 2) * sizeof *r.width);
            r.n_stages--;
            up |= look(s, &r);
            r = *base;
            if (r.width[i] > 1) r.width[i]--, r.width[i + 1]++, up |= look(s, &r);
            r = *base;
            if (r.width[i + 1] > 1) r.width[i]++, r.width[i + 1]--, up |= look(s, &r);
        }
        for (int32_t k = 1; k < base->width[i] && n < LIMIT_RANKS; k += MAX(1, base->width[i] / 4)) {
            r = *base;
            memmove(r.width + i + 1, r.width + i, (size_t)(n - i) * sizeof *r.width);
            r.width[i] = k;
            r.width[i + 1] = base->width[i] - k;
            r.n_stages++;
            up |= look(s, &r);
        }
        if (s->want->fixed_order) continue;
        up |= climb_free(s, base, i);
    }
    return up;
}

static void beam(struct search *s)
{
    static const int32_t widths[] = {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 48, 64};
    int32_t n = s->t->n_devices, order[LIMIT_RANKS], ends[8], n_ends = 0;
    for (int32_t i = 0; i < n; i++) order[i] = i;
    if (!s->want->fixed_order) sort_by_speed(s->t, order);
    ends[n_ends++] = n;
    for (int32_t i = n - 1; i > 0 && n_ends < 8 && !s->want->fixed_order; i--)
        if (s->t->devices[order[i]].host != s->t->devices[order[i - 1]].host || n <= 8 || i == 1) ends[n_ends++] = i;
    for (int32_t e = 0; e < n_ends; e++) {
        for (size_t k = 0; k < COUNT_OF(widths) && widths[k] <= ends[e]; k++) even_row(s, order, ends[e], widths[k]);
        if (ends[e] > 1) even_row(s, order, ends[e], ends[e]);
        grouped_row(s, order, ends[e], 0);
        grouped_row(s, order, ends[e], 1);
    }
    for (int32_t round = 0, up = 1; up && round < MAX_CLIMB / MAX(1, n / 8); round++) {
        struct row from[MAX_DEALS];
        int32_t k = MIN(s->n_kept, n > 16 ? 1 : MAX_DEALS);
        for (int32_t i = 0; i < k; i++) from[i] = s->kept[i].row;
        up = 0;
        for (int32_t i = 0; i < k; i++) up |= climb_from(s, &from[i]);
    }
}

/* ---- the answer ---- */

static void figures(struct clu_place *p, const struct clu_work *w, const struct clu_topo *t, const struct clu_want *want)
{
    bool used[LIMIT_RANKS] = {false};
    p->n_ranks = grid_ranks(&p->layout.grid);
    p->n_blocks = clu_cost_blocks(w, t, &p->layout, &p->tightest);
    p->users = (int32_t)MIN(want->users, MAX(p->n_blocks, 0) * LIMIT_BLOCK_TOKENS / w->context);
    for (int32_t i = 0; i < 3; i++) clu_cost_decode(w, t, &p->layout, clu_place_users[i], &p->decode[i]);
    clu_cost_decode(w, t, &p->layout, MAX(p->users, 1), &p->judged);
    clu_cost_prefill(w, t, &p->layout, &p->prefill);
    p->load_s = clu_cost_load(w, t, &p->layout);
    for (int32_t r = 0; r < p->n_ranks; r++) used[p->layout.device[r]] = true;
    p->n_unused = 0;
    for (int32_t i = 0; i < t->n_devices; i++)
        if (!used[i]) p->unused[p->n_unused++] = i;
}

static void take_alts(struct clu_place *p, const struct search *s)
{
    char mine[48];
    shape_text(&s->best.row, mine);
    for (int32_t i = -1; i <= LIMIT_RANKS && p->n_alts < CLU_MAX_ALTS; i++) {
        const struct clu_alt *a = i < 0 ? &s->flat : &s->alts[i];
        bool seen = !a->n_ranks || (!strcmp(a->shape, mine) && a->n_ranks == p->n_ranks);
        for (int32_t k = 0; k < p->n_alts; k++) seen |= !strcmp(p->alts[k].shape, a->shape);
        if (!seen) p->alts[p->n_alts++] = *a;
    }
}

enum err clu_place_find(struct clu_place *out, const struct clu_work *w, const struct clu_topo *t, const struct clu_want *want)
{
    struct search *s = xcalloc(1, sizeof *s);
    enum err rc = OK;
    s->w = w, s->t = t, s->want = want;
    s->cache = xcalloc(CACHE, sizeof *s->cache);
    classify(s);
    if (want->fixed_order && t->n_devices <= EXACT_FIXED && !want->effort) every_cut(s);
    else if (!want->fixed_order && t->n_devices <= EXACT && !want->effort) every_row(s, &(struct row){.n_stages = 0}, 0, (1u << t->n_devices) - 1);
    else beam(s);
    if (s->best.fits) {
        struct clu_place p = {.layout = s->best.layout, .n_looked = s->n_looked};
        figures(&p, w, t, want);
        take_alts(&p, s);
        *out = p;
    } else {
        rc = want->effort == CLU_EFFORT_PROBE ? ERR_NO_FIT : clu_place_refuse(w, t, want);
    }
    free(s->cache);
    free(s);
    return rc;
}

enum err clu_place_of(struct clu_place *out, const struct clu_work *w, const struct clu_topo *t, const struct clu_want *want,
                      const struct clu_layout *l)
{
    struct clu_place p = {.layout = *l};
    figures(&p, w, t, want);
    int64_t need = DIV_UP(MAX(want->need_tokens, w->context), LIMIT_BLOCK_TOKENS);
    if (p.n_blocks < need) {
        struct clu_memory m;
        clu_cost_memory(w, &l->grid, p.tightest, &m);
        const struct clu_device *d = &t->devices[l->device[p.tightest]];
        return err_raise(ERR_NO_FIT,
                         "rank %d (%s) needs %.2f GB: weights %.2f, step buffers %.2f, KV for %lld tokens %.2f, the process %.2f; %.2f GB are free for it: use "
                         "more ranks, a smaller quantisation, or a shorter --context",
                         p.tightest, t->hosts[d->host].name, (double)(m.weights + m.buffers + m.process + need * m.kv_block) / 1e9,
                         (double)m.weights / 1e9, (double)m.buffers / 1e9, (long long)need * LIMIT_BLOCK_TOKENS, (double)(need * m.kv_block) / 1e9,
                         (double)m.process / 1e9, (double)d->mem_bytes / 1e9);
    }
    *out = p;
    return OK;
}
