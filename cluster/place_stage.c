/* place_stage.c: the shares of one stage's ranks. See place.h.
 *
 * Costs are linear in units: a rank's time is fixed + heads, KV heads and leaves times its own
 * seconds per unit, and so is its memory. For given heads the level split of leaves is greedy: each
 * next leaf goes to the rank that it makes busy least (optimal for equal pieces). Then cuts are
 * moved by a few leaves when sending fewer subtrees wins more than the level loses. Heads: every
 * split when there are few, else steps of one group from the proportional split. Small stages are
 * enumerated whole. */
#include "cluster/place.h"

#include "base/tree.h"

#include <float.h>
#include <string.h>

enum {
    ENUM_HEADS = 40,
    ENUM_LEAVES = 500,
    CLIMB_WIDTH = 16,
    CLIMB_HEADS = 8,
    SHIFT = 4,
    CLOSE_LAYERS = 12
};

struct stage {
    const struct clu_stage_try *try;
    struct leaf_shape shape;
    int32_t n, n_leaf, hpl, unit, n_units; /* heads are dealt in units */
    struct clu_rank_cost cost[LIMIT_RANKS];
    double room[LIMIT_RANKS]; /* memory for what a share adds */
    double head_bytes, kv_bytes, leaf_bytes;
    int32_t heads[LIMIT_RANKS], leaves[LIMIT_RANKS];
    double reduce_attn;
    bool close; /* ends count */
    bool exact; /* every split is tried, and its memory is counted to the byte */
    /* best so far */
    bool found;
    double best;
    int32_t best_heads[LIMIT_RANKS], best_leaves[LIMIT_RANKS];
};

/* ---- units ---- */

/* Where a stage of so many layers has most planes of KV: its first layer. Which layers it gets is known only at the ends. */
static int32_t worst_layers(const struct clu_stage_try *y, int32_t *planes)
{
    const struct model_info *m = y->w->info;
    const struct kv_groups k = kv_groups_of_model(m, y->w->context);
    int32_t last = m->n_layers - y->layers, from = y->first ? 0 : y->last ? last : MIN(1, last), worst = from;
    int32_t to = y->first || y->last || !k.window ? from : last;
    *planes = 0;
    for (int32_t i = from; i <= to; i++) {
        int32_t n = kv_groups_planes(&k, m->windowed, i, i + y->layers);
        if (n > *planes) *planes = n, worst = i;
    }
    return worst;
}

static void weigh(struct stage *s)
{
    int32_t planes;
    worst_layers(s->try, &planes);
    const struct clu_stage_try *y = s->try;
    const struct model_info *m = y->w->info;
    const struct model_weights *mw = y->w->weights;
    double q = 0, kv = 0, ffn = 0, rest = 0, n = m->n_layers, tokens = y->w->max_step_tokens;
    for (int32_t i = 0; i < m->n_layers; i++) {
        q += (double)mw->layers[i].q.mem;
        kv += (double)mw->layers[i].kv.mem;
        ffn += (double)mw->layers[i].ffn.mem;
        rest += (double)mw->layers[i].rest.mem;
    }
    /* vocabulary goes with the leaves */
    double vocab = 0;
    if (y->first || (y->last && mw->tied)) vocab += (double)mw->embd.mem;
    if (y->last && !mw->tied) vocab += (double)mw->head.mem;
    double cols = (double)MAX(m->d_dense, m->d_ffn) / s->n_leaf, hd = m->head_dim;
    const struct model_latent *x = &m->latent;
    double head_floats = x->rank ? hd + x->key + 2 * x->rank + x->rope : 2 * hd, kv_floats = x->rank ? x->rank + x->rope + x->q_rank : 2 * hd;
    s->head_bytes = y->layers * q / n / m->n_heads + 4 * head_floats * tokens;
    s->kv_bytes = y->layers * kv / n / m->n_kv_heads + 4 * kv_floats * tokens +
                  (double)y->n_blocks * (double)leaf_kv_block_bytes(&m->kv, planes, 1, y->w->kv_type);
    s->leaf_bytes = y->layers * ffn / n / s->n_leaf + 9.5 * cols * tokens + vocab / s->n_leaf;
    if (s->exact) s->head_bytes = s->kv_bytes = s->leaf_bytes = 0; /* consider() has the say */
    struct leaf_buffers b = {.d_model = m->d_model,
                             .head_dim = m->head_dim,
                             .rope_dim = mw->rope_dim,
                             .n_vocab = m->n_vocab,
                             .nodes = s->n == 1 || s->exact ? 1 : s->n > 2 ? 4 : 2,
                             .vocab_rows = s->exact ? 0 : m->n_vocab / s->n,
                             .last = y->last,
                             .max_step_tokens = y->w->max_step_tokens,
                             .context = y->w->context,
                             .n_slots = y->w->n_slots,
                             .n_tables = kv_groups_of_model(m, y->w->context).n,
                             .experts = {m->n_experts, m->n_used, y->whole_experts ? m->n_experts / s->n : m->n_experts,
                                         y->whole_experts ? m->d_expert : m->d_expert / s->n, m->d_shared / s->n, s->n_leaf / s->n}};
    if (s->exact) b.experts = (struct leaf_experts){.n = 0};
    double fixed = y->layers * rest / n + (y->last ? (double)mw->ends.mem : 0) +
                   (double)leaf_buffer_bytes(&b) + (double)y->w->rates->process_bytes;
    for (int32_t r = 0; r < s->n; r++) {
        const struct clu_device *d = &y->t->devices[y->device[r]];
        s->room[r] = (double)d->mem_bytes - fixed - (double)clu_cost_card(y->w, y->t, y->device[r], y->layers, s->n);
    }
}

static int32_t kv_heads(const struct stage *s, int32_t q0, int32_t heads)
{
    int32_t a, b;
    leaf_kv_range(&s->shape, q0, q0 + heads, &a, &b);
    return b - a;
}

/* ---- one split ---- */

static double reduce_s(const struct stage *s, int32_t n_leaf, const int32_t count[],
                       int32_t per_leaf)
{
    struct tree_node nodes[TREE_MAX_NODES];
    int32_t parts[LIMIT_RANKS];
    if (s->n == 1) return 0;
    for (int32_t r = 0, at = 0; r < s->n; at += count[r++])
        parts[r] = tree_maximal(n_leaf, at / per_leaf, DIV_UP(at + count[r], per_leaf), nodes);
    return clu_cost_reduce(s->try->w, s->try->t, s->try->device, s->n, parts, s->try->rows);
}

/* Seconds of a layer's computing on rank r before any leaf, and how many leaves it has room for. */
static void begin(const struct stage *s, double base[], int32_t most[])
{
    for (int32_t r = 0, q = 0; r < s->n; q += s->heads[r++]) {
        int32_t kv = kv_heads(s, q, s->heads[r]);
        base[r] =
            s->cost[r].fixed_s + s->cost[r].per_head_s * s->heads[r] + s->cost[r].per_kv_s * kv;
        double left = (s->room[r] - s->head_bytes * s->heads[r] - s->kv_bytes * kv) / s->leaf_bytes;
        most[r] = left < 0 ? 0 : (int32_t)MIN(left, (double)s->n_leaf);
    }
}

/* Vocabulary tiles follow the leaves. */
static void deal_vocab(const struct stage *s, struct grid_share share[])
{
    int32_t tiles = leaf_vocab_tiles(s->shape.n_vocab), at = 0;
    for (int32_t r = 0, leaf = 0; r < s->n; r++) {
        leaf += share[r].ffn;
        int32_t to = (int32_t)((int64_t)tiles * leaf / s->n_leaf);
        share[r].vocab = to - at;
        at = to;
    }
}

/* Embedding and head, spread over the layers; only where a stage is looked at closely: they are
 * little of a large model. */
static double ends_s(const struct stage *s)
{
    const struct clu_stage_try *y = s->try;
    struct grid_share share[LIMIT_RANKS];
    if (!s->close || !(y->first || y->last)) return 0;
    for (int32_t r = 0; r < s->n; r++) share[r] = (struct grid_share){s->heads[r], s->leaves[r], 0};
    deal_vocab(s, share);
    return clu_cost_ends(y->w, y->t, y->device, y->n, share, y->first, y->last, y->rows, y->rows) /
           y->layers;
}

static double total(const struct stage *s, const double base[])
{
    double worst = 0;
    for (int32_t r = 0; r < s->n; r++)
        worst = MAX(worst, base[r] + s->cost[r].per_leaf_s * s->leaves[r]);
    return worst + s->reduce_attn + reduce_s(s, s->n_leaf, s->leaves, 1) + ends_s(s);
}

/* Have all ranks room for their shares, as cost.c counts it? Asked with a grid in which this stage
 * stands between others where it is not the first or last. */
static bool has_room(const struct stage *s)
{
    const struct clu_stage_try *y = s->try;
    int32_t n_layers = y->w->info->n_layers, at = !y->first, planes, layer0 = worst_layers(y, &planes);
    struct grid g = {.shared = true, .whole_experts = y->whole_experts, .n_stages = at + 1 + !y->last};
    struct grid_share share[LIMIT_RANKS];
    for (int32_t i = 0; i < g.n_stages; i++) g.width[i] = i == at ? s->n : 1;
    if (at) g.layers[at] = layer0;
    g.layers[at + 1] = layer0 + y->layers;
    if (!y->last) g.layers[at + 2] = n_layers;
    for (int32_t r = 0; r < s->n; r++) share[r] = (struct grid_share){s->heads[r], s->leaves[r], 0};
    deal_vocab(s, share);
    memcpy(g.share + at, share, (size_t)s->n * sizeof *share);
    for (int32_t r = 0; r < s->n; r++) {
        struct clu_memory m;
        const struct clu_device *d = &y->t->devices[y->device[r]];
        clu_cost_memory(y->w, &g, at + r, y->t, y->device[r], &m);
        if (clu_memory_fixed(&m) + y->n_blocks * m.kv_block > d->mem_bytes) return false;
    }
    return true;
}

static void consider(struct stage *s, double t)
{
    if (s->found && t >= s->best) return;
    if (s->exact && !has_room(s)) return;
    s->found = true;
    s->best = t;
    memcpy(s->best_heads, s->heads, sizeof s->heads);
    memcpy(s->best_leaves, s->leaves, sizeof s->leaves);
}

/* The level split; the number of leaves for which nobody had room. */
static int32_t fill(struct stage *s, const double base[], const int32_t most[])
{
    int32_t left = s->n_leaf;
    for (int32_t r = 0; r < s->n; r++) left -= s->leaves[r] = 1;
    for (int32_t r = 0; r < s->n; r++)
        if (most[r] < 1) return s->n_leaf;
    for (; left > 0; left--) {
        int32_t to = -1;
        double least = DBL_MAX;
        for (int32_t r = 0; r < s->n; r++) {
            double t = base[r] + s->cost[r].per_leaf_s * (s->leaves[r] + 1);
            if (s->leaves[r] < most[r] && t < least) least = t, to = r;
        }
        if (to < 0) break;
        s->leaves[to]++;
    }
    return MAX(left, 0);
}

/* Move cuts by a few leaves while that helps. */
static double shift(struct stage *s, const double base[], const int32_t most[], double t)
{
    bool better = s->n <= CLIMB_WIDTH;
    for (int32_t pass = 0; better && pass < 4; pass++) {
        better = false;
        for (int32_t r = 0; r + 1 < s->n; r++)
            for (int32_t d = -SHIFT; d <= SHIFT; d++) {
                if (s->leaves[r] + d < 1 || s->leaves[r + 1] - d < 1 ||
                    s->leaves[r] + d > most[r] || s->leaves[r + 1] - d > most[r + 1])
                    continue;
                s->leaves[r] += d;
                s->leaves[r + 1] -= d;
                double u = total(s, base);
                if (u < t * (1 - 1e-9)) {
                    t = u;
                    better = true;
                } else {
                    s->leaves[r] -= d;
                    s->leaves[r + 1] += d;
                }
            }
    }
    return t;
}

static void every_leaf_split(struct stage *s, const double base[], const int32_t most[], int32_t r,
                             int32_t left)
{
    if (r == s->n - 1) {
        if (left > most[r]) return;
        s->leaves[r] = left;
        consider(s, total(s, base));
        return;
    }
    for (int32_t k = 1; k <= MIN(left - (s->n - 1 - r), most[r]); k++) {
        s->leaves[r] = k;
        every_leaf_split(s, base, most, r + 1, left - k);
    }
}

static double compositions(int32_t n, int32_t k)
{
    double c = 1;
    for (int32_t i = 1; i < k; i++) c = c * (n - i) / i;
    return c;
}

/* The best leaves for s->heads; leaves that found no room. */
static int32_t with_heads(struct stage *s, double *t)
{
    double base[LIMIT_RANKS];
    int32_t most[LIMIT_RANKS];
    begin(s, base, most);
    s->reduce_attn = reduce_s(s, DIV_UP(s->shape.n_heads, s->hpl), s->heads, s->hpl);
    int32_t missing = fill(s, base, most);
    if (missing) return missing;
    *t = shift(s, base, most, total(s, base));
    consider(s, *t);
    if (!s->try->effort && s->n > 1 && compositions(s->n_leaf, s->n) <= ENUM_LEAVES)
        every_leaf_split(s, base, most, 0, s->n_leaf);
    return 0;
}

/* ---- heads ---- */

static void every_head_split(struct stage *s, int32_t r, int32_t left)
{
    double t;
    if (r == s->n - 1) {
        s->heads[r] = MIN(left * s->unit, s->shape.n_heads - (s->n_units - left) * s->unit);
        with_heads(s, &t);
        return;
    }
    for (int32_t k = 1; k <= left - (s->n - 1 - r); k++) {
        s->heads[r] = k * s->unit;
        every_head_split(s, r + 1, left - k);
    }
}

/* In proportion to speed, leaves counted in. */
static void start_heads(struct stage *s, int32_t units[])
{
    double rate = (double)s->n_leaf / s->n_units;
    for (int32_t r = 0; r < s->n; r++) units[r] = 1;
    for (int32_t left = s->n_units - s->n; left > 0; left--) {
        int32_t to = 0;
        double least = DBL_MAX;
        for (int32_t r = 0; r < s->n; r++) {
            double each = s->cost[r].per_head_s * s->unit + s->cost[r].per_kv_s +
                          rate * s->cost[r].per_leaf_s;
            double mem = (s->head_bytes * s->unit + s->kv_bytes) * (units[r] + 1),
                   t = each * (units[r] + 1);
            if (mem > s->room[r]) t *= 1e6;
            if (t < least) least = t, to = r;
        }
        units[to]++;
    }
}

static void put_heads(struct stage *s, const int32_t units[])
{
    for (int32_t r = 0, at = 0; r < s->n; r++) {
        s->heads[r] = MIN(units[r] * s->unit, s->shape.n_heads - at);
        at += s->heads[r];
    }
}

/* Steps of one unit from one rank to another: first until all leaves have room, then while it gets
 * faster. */
static void climb_heads(struct stage *s)
{
    int32_t units[LIMIT_RANKS], missing, m;
    double t = DBL_MAX, u = DBL_MAX;
    start_heads(s, units);
    put_heads(s, units);
    missing = with_heads(s, &t);
    bool better = s->n > 1 && s->n <= CLIMB_HEADS;
    for (int32_t pass = 0; better && pass < 6; pass++) {
        better = false;
        for (int32_t a = 0; a < s->n; a++)
            for (int32_t b = 0; b < s->n; b++) {
                if (a == b || units[a] == 1) continue;
                units[a]--, units[b]++;
                put_heads(s, units);
                m = with_heads(s, &u);
                if (m < missing || (!m && !missing && u < t * (1 - 1e-9))) {
                    missing = m;
                    if (!m) t = u;
                    better = true;
                } else {
                    units[a]++, units[b]--;
                }
            }
    }
}

static void set_units(struct stage *s)
{
    s->hpl = leaf_heads(s->shape.head_dim);
    int32_t group = s->try->w->info->latent.rank ? s->hpl : s->shape.n_heads / s->shape.n_kv_heads; /* of a latent every rank has all */
    s->unit = group % s->hpl ? 2 * group : group;
    s->n_units = DIV_UP(s->shape.n_heads, s->unit);
    s->n_leaf = leaf_ffn_count(s->shape.d_ffn);
}

bool clu_place_stage_close(const struct clu_stage_try *y)
{
    return !y->effort && y->n <= 4 && y->w->info->n_layers <= CLOSE_LAYERS;
}

bool clu_place_stage_fits(const struct clu_stage_try *y, const struct grid_share share[])
{
    struct stage s = {.try = y, .shape = leaf_shape_of(y->w->info), .n = y->n};
    set_units(&s);
    weigh(&s);
    for (int32_t r = 0, q = 0; r < s.n; q += share[r++].heads) {
        double need = s.head_bytes * share[r].heads + s.kv_bytes * kv_heads(&s, q, share[r].heads) +
                      s.leaf_bytes * share[r].ffn;
        if (need > s.room[r]) return false;
    }
    return true;
}

void clu_place_stage(const struct clu_stage_try *y, struct clu_stage_fit *out)
{
    struct stage s = {.try = y, .shape = leaf_shape_of(y->w->info), .n = y->n};
    out->fits = false;
    set_units(&s);
    if (y->n > leaf_max_width(&s.shape)) return;
    s.close = clu_place_stage_close(y);
    s.exact = s.close && s.n <= s.n_units && compositions(s.n_units, s.n) <= ENUM_HEADS &&
              compositions(s.n_leaf, s.n) <= ENUM_LEAVES;
    weigh(&s);
    for (int32_t r = 0; r < s.n; r++)
        clu_cost_rank(y->w, &y->t->devices[y->device[r]], y->rows, false, y->whole_experts ? s.n : 0, &s.cost[r]);
    if (s.n > s.n_units) { /* KV heads held twice: dealt evenly */
        struct grid_share even[LIMIT_RANKS];
        double t;
        if (leaf_deal(&s.shape, s.n, even)) return;
        for (int32_t r = 0; r < s.n; r++) s.heads[r] = even[r].heads;
        with_heads(&s, &t);
    } else if (!y->effort && compositions(s.n_units, s.n) <= ENUM_HEADS) {
        every_head_split(&s, 0, s.n_units);
    } else {
        climb_heads(&s);
    }
    if (!s.found) return;
    for (int32_t r = 0; r < s.n; r++)
        out->share[r] = (struct grid_share){s.best_heads[r], s.best_leaves[r], 0};
    deal_vocab(&s, out->share);
    out->fits = true;
    out->ends_s =
        clu_cost_ends(y->w, y->t, y->device, y->n, out->share, y->first, y->last, y->rows, y->rows);
    out->layer_s = s.best - (s.close ? out->ends_s / y->layers : 0);
}
