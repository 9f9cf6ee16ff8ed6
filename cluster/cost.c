/* cost.c: see cost.h. */
#include "cluster/cost.h"

#include "base/tree.h"

#include <math.h>
#include <string.h>

/* Measured on 2 cores with AVX-512 VNNI (tessera bench engine against its own limits; docs/performance.md). */
const struct clu_rates clu_rates_default = {
    .read_share = 0.90,
    .ops_share = 0.50,
    .float_share = 0.22,
    .attention_share = 0.10,
    .leaf_ops = 380,
    .layer_s = 12e-6,
    .row_layer_s = 1.5e-6,
    .step_s = 120e-6,
    .message_s = 8e-6,
    .sample_s = 1.2e-9,
    .process_bytes = INT64_C(32) << 20,
};

const char *const clu_wire_name[CLU_WIRE_TYPES] = {"f32", "f16", "q8"};

enum {
    CONSENT_BYTES = 1 << 20, /* a larger message waits until the receiver has said that it may come (transport/mpi_post.c) */
    ONE_SHOT_BYTES = 65536
}; /* all parts of an all_reduce together; above, each rank reduces a slice (transport/coll_mpi.c)
    */

static struct leaf_shape shape_of(const struct clu_work *w)
{
    return leaf_shape_of(w->info);
}

/* What rank r of the grid holds, also when the grid is dealt evenly. */
static struct grid_share share_of(const struct clu_work *w, const struct grid *g, int32_t rank,
                                  int32_t *q0, int32_t *leaf0)
{
    struct grid_share even[LIMIT_RANKS] = {{0}};
    struct leaf_shape s = shape_of(w);
    int32_t stage = grid_stage_of(g, rank), first = grid_first(g, stage);
    const struct grid_share *all = g->share + first;
    if (!g->shared) {
        if (leaf_deal(&s, g->width[stage], even)) even[rank - first] = (struct grid_share){0};
        all = even;
    }
    *q0 = *leaf0 = 0;
    for (int32_t r = 0; r < rank - first; r++) *q0 += all[r].heads, *leaf0 += all[r].ffn;
    return all[rank - first];
}

static int32_t n_parts(int32_t n_leaf, int32_t lo, int32_t n)
{
    struct tree_node nodes[TREE_MAX_NODES];
    return tree_maximal(n_leaf, lo, lo + n, nodes);
}

/* ---- memory ---- */

int64_t clu_cost_hold(const struct clu_work *w, int64_t n_tok)
{
    const struct kv_groups k = kv_groups_of_model(w->info, w->context);
    return kv_groups_hold(&k, n_tok, w->context, w->max_step_tokens);
}

int64_t clu_cost_room(const struct clu_work *w, int64_t n_blocks)
{
    const struct kv_groups k = kv_groups_of_model(w->info, w->context);
    return kv_groups_room(&k, n_blocks, w->context, w->max_step_tokens);
}

static int64_t part_of(int64_t bytes, int64_t share, int64_t all)
{
    return (int64_t)((double)bytes * (double)share / (double)all);
}

/* Columns of a feed-forward of this width that leaves [leaf0, leaf0 + n) stand for. */
static int32_t columns_of(const struct model_info *m, int32_t width, int32_t leaf0, int32_t n)
{
    int32_t all = leaf_ffn_count(m->d_ffn);
    return width ? leaf_col(width, all, leaf0 + n) - leaf_col(width, all, leaf0) : 0;
}

/* Of layers with experts a rank has, in columns: those of its experts, and of the shared one. */
struct expert_part {
    int32_t held, cols, shared_cols;
};

static struct expert_part experts_of(const struct model_info *m, bool whole, int32_t leaf0, int32_t n)
{
    int32_t all = leaf_ffn_count(m->d_ffn);
    struct expert_part x = {m->n_experts, columns_of(m, m->d_expert, leaf0, n), columns_of(m, m->d_shared, leaf0, n)};
    if (!whole || !m->n_experts) return x;
    x.held = leaf_first_expert(m->n_experts, all, leaf0 + n) - leaf_first_expert(m->n_experts, all, leaf0);
    x.cols = m->d_expert;
    return x;
}

void clu_cost_memory(const struct clu_work *w, const struct grid *g, int32_t rank,
                     struct clu_memory *out)
{
    const struct model_info *m = w->info;
    const struct model_weights *y = w->weights;
    struct leaf_shape s = shape_of(w);
    int32_t stage = grid_stage_of(g, rank), q0, leaf0, kv0, kv1, hpl = leaf_heads(m->head_dim);
    struct grid_share h = share_of(w, g, rank, &q0, &leaf0);
    bool first = stage == 0, last = stage == g->n_stages - 1;
    int32_t cols = columns_of(m, m->d_ffn, leaf0, h.ffn),
            tiles = leaf_vocab_tiles(m->n_vocab);
    const struct expert_part x = experts_of(m, g->whole_experts, leaf0, h.ffn);
    leaf_kv_range(&s, q0, q0 + h.heads, &kv0, &kv1);
    *out = (struct clu_memory){.process = w->rates->process_bytes};
    for (int32_t i = g->layers[stage]; i < g->layers[stage + 1]; i++) {
        const struct model_layer *l = &y->layers[i];
        out->weights += part_of(l->q.mem, h.heads, m->n_heads) +
                        part_of(l->kv.mem, kv1 - kv0, m->n_kv_heads) +
                        (l->experts ? part_of(l->ffn.mem, (int64_t)x.held * x.cols + x.shared_cols, (int64_t)m->n_experts * m->d_expert + m->d_shared)
                                    : part_of(l->ffn.mem, cols, m->d_ffn)) +
                        l->rest.mem;
    }
    if (first || (last && y->tied)) out->weights += part_of(y->embd.mem, h.vocab, tiles);
    if (last && !y->tied) out->weights += part_of(y->head.mem, h.vocab, tiles);
    if (last) out->weights += y->ends.mem;
    const struct kv_groups k = kv_groups_of_model(m, w->context);
    out->kv_block = leaf_kv_block_bytes(&m->kv, kv_groups_planes(&k, m->windowed, g->layers[stage], g->layers[stage + 1]), kv1 - kv0,
                                        w->kv_type);
    int32_t attn = n_parts(DIV_UP(m->n_heads, hpl), q0 / hpl, DIV_UP(h.heads, hpl)),
            ffn = n_parts(leaf_ffn_count(m->d_ffn), leaf0, h.ffn);
    out->buffers =
        leaf_buffer_bytes(&(struct leaf_buffers){.d_model = m->d_model,
                                                 .head_dim = m->head_dim,
                                                 .rope_dim = y->rope_dim,
                                                 .n_vocab = m->n_vocab,
                                                 .heads = h.heads,
                                                 .kv_heads = kv1 - kv0,
                                                 .ffn_cols = columns_of(m, MAX(m->d_dense, m->d_ffn), leaf0, h.ffn),
                                                 .nodes = MAX(attn, ffn),
                                                 .vocab_rows = MIN(h.vocab * LEAF_TILE, m->n_vocab),
                                                 .last = last,
                                                 .max_step_tokens = w->max_step_tokens,
                                                 .context = w->context,
                                                 .n_slots = w->n_slots,
                                                 .n_tables = k.n,
                                                 .experts = {m->n_experts, m->n_used, x.held, x.cols, x.shared_cols, h.ffn},
                                                 .latent = m->latent});
}

int64_t clu_cost_blocks(const struct clu_work *w, const struct clu_topo *t,
                        const struct clu_layout *l, int32_t *tightest)
{
    int64_t least = INT64_MAX;
    for (int32_t r = 0; r < grid_ranks(&l->grid); r++) {
        struct clu_memory m;
        clu_cost_memory(w, &l->grid, r, &m);
        int64_t left = t->devices[l->device[r]].mem_bytes - m.weights - m.buffers - m.process;
        int64_t blocks = left < 0 ? -1 : left / MAX(m.kv_block, 1);
        if (blocks < least) {
            least = blocks;
            if (tightest) *tightest = r;
        }
    }
    return least;
}

/* ---- one rank ---- */

static bool is_float(const char *type) { return !strcmp(type, "F32") || !strcmp(type, "F16") || !strcmp(type, "BF16"); }

struct speed {
    double read_bytes_s, ops_s;
    bool cpu;
};

/* Of the device while as many of its crowd compute as do. */
static struct speed speed_of(const struct clu_work *w, const struct clu_device *d)
{
    struct speed v = {d->read_bytes_s, d->ops_s, d->kind == CLU_CPU};
    if (d->crowd.ranks && w->active > 0) clu_crowd_speed(&d->crowd, (int32_t)ceil(w->active * d->crowd.ranks), &v.read_bytes_s, &v.ops_s);
    return v;
}

static double matrix_s(const struct clu_work *w, const struct speed *d, double bytes,
                       double weights, int32_t rows)
{
    bool floats = d->cpu && is_float(w->weights->type);
    double read = bytes / (d->read_bytes_s * w->rates->read_share),
           ops = 2 * weights * rows / (d->ops_s * (floats ? w->rates->float_share : w->rates->ops_share));
    /* a GPU hides the shorter; so does a processor, but where both are alike neither is hidden whole: within 8 % of what a 1B model of Q4_0
     * took for 1, 8, 16, 32 and 512 rows */
    return d->cpu ? sqrt(sqrt(read * read * read * read + ops * ops * ops * ops)) : MAX(read, ops);
}

/* How many times the mean the largest of n ranks' counts is, each of this mean and with this variance before their sum was known: the mean of the
 * largest of n bell-shaped numbers (Blom), by a logistic curve for the bell's (within a sixth up to 64). */
static double largest(int32_t n, double mean, double variance)
{
    double p = (n - 0.375) / (n + 0.25), deviations = log(p / (1 - p)) / 1.702;
    return n == 1 ? 1 : CLAMP(1 + deviations * sqrt(variance) / mean, MAX(1, 1 / mean), n);
}

/* How much of the feed-forward's weights a step of so many rows reads, and with how wide a one a row is multiplied: of experts only those chosen
 * (each row takes n_used of n_experts, as if by chance); of n_dealt ranks with whole ones that which has most of them. leaves: how often a row is
 * added into each of them. */
static void ffn_load(const struct model_info *m, int32_t rows, int32_t n_dealt, bool whole, double *read, double *width, double *leaves)
{
    *read = 1, *width = m->d_ffn, *leaves = 0;
    if (!m->n_experts) return;
    double chosen = (double)m->n_used / m->n_experts, missed = pow(1 - chosen, rows), routed = (double)m->n_experts * m->d_expert;
    double each = (double)m->n_experts / n_dealt, slots = (double)rows * m->n_used / n_dealt;
    double reads = largest(n_dealt, each * (1 - missed), each * missed * (1 - missed)), computes = largest(n_dealt, slots, slots * (1 - chosen));
    *read = (routed * (1 - missed) * reads + m->d_shared) / (routed + m->d_shared);
    *width = (double)m->n_used * m->d_expert * computes + m->d_shared;
    *leaves = (whole ? m->n_used * computes / leaf_ffn_count(m->d_ffn) : m->n_used) + (m->d_shared > 0);
}

/* Keys that a layer reads of so many, the mean over the layers. */
static double keys_read(const struct model_info *m, double keys)
{
    double sum = 0;
    for (int32_t i = 0; i < m->n_layers; i++)
        sum += m->windowed[i] && m->window < keys ? m->window : keys;
    return sum / m->n_layers;
}

/* What one query head multiplies: its weights, and with each key; and what a KV head does (a latent: what every rank has of it). */
struct attention_work {
    double head_weights, per_key, kv_weights;
};

static struct attention_work attention_of(const struct model_info *m)
{
    double dm = m->d_model, hd = m->head_dim;
    const struct model_latent *x = &m->latent;
    if (!x->rank) return (struct attention_work){2 * hd * dm, 4 * hd, 2 * hd * dm};
    double from = x->q_rank ? x->q_rank : dm;
    return (struct attention_work){x->key * from + (x->key - x->rope + hd) * x->rank + hd * dm, 2.0 * (2 * x->rank + x->rope),
                                   (x->q_rank + x->rank + x->rope) * dm};
}

void clu_cost_rank(const struct clu_work *w, const struct clu_device *device, int32_t rows, bool prefill, int32_t n_dealt,
                   struct clu_rank_cost *out)
{
    const struct speed v = speed_of(w, device), *d = &v;
    const struct model_info *m = w->info;
    struct model_layer sum = {.experts = false};
    for (int32_t i = 0; i < m->n_layers; i++) {
        sum.q.mem += w->weights->layers[i].q.mem;
        sum.kv.mem += w->weights->layers[i].kv.mem;
        sum.ffn.mem += w->weights->layers[i].ffn.mem;
    }
    double n = m->n_layers, leaves = leaf_ffn_count(m->d_ffn), dm = m->d_model, read, width, adds;
    ffn_load(m, rows, MAX(n_dealt, 1), n_dealt > 0, &read, &width, &adds);
    struct attention_work a = attention_of(m);
    double keys = keys_read(m, prefill ? 0.5 * MIN(4 * rows, w->context) : w->depth),
           kv_bytes = (double)leaf_kv_row_bytes(&m->kv, w->kv_type) * keys * (prefill ? 1 : rows);
    *out = (struct clu_rank_cost){
        .per_head_s = matrix_s(w, d, (double)sum.q.mem / n / m->n_heads, a.head_weights, rows) +
                      a.per_key * keys * rows / (d->ops_s * w->rates->attention_share),
        .per_kv_s = matrix_s(w, d, (double)sum.kv.mem / n / m->n_kv_heads, a.kv_weights, rows) +
                    kv_bytes / (d->read_bytes_s * w->rates->read_share),
        .per_leaf_s =
            matrix_s(w, d, (double)sum.ffn.mem / n / leaves * read, 3.0 * width / leaves * dm, rows) +
            (d->cpu ? w->rates->leaf_ops * adds * dm * rows / d->ops_s : 0),
        .fixed_s = w->rates->layer_s + w->rates->row_layer_s * rows,
    };
}

/* ---- collectives ---- */

static bool shares_wire(const struct clu_topo *t, int32_t a, int32_t b)
{
    return t->devices[a].host == t->devices[b].host;
}

/* Of the way from what two hosts alone take to what all take at once: how far so many are. */
static double crowding(const struct clu_topo *t, int32_t n_hosts)
{
    return t->together.latency_s > 0 && n_hosts > 2 ? MIN(1, (n_hosts - 2.0) / (t->n_hosts - 2)) : 0;
}

static int32_t hosts_of(const struct clu_topo *t, const int32_t device[], int32_t n)
{
    int32_t hosts = 0;
    for (int32_t i = 0, k; i < n; i++) {
        for (k = 0; k < i && !shares_wire(t, device[i], device[k]); k++) {}
        hosts += k == i;
    }
    return hosts;
}

/* The slowest rank's time to receive bytes[j] from every other; ranks of a host share its wire. */
static double gather_s(const struct clu_work *w, const struct clu_topo *t, const int32_t device[], int32_t n,
                       const double bytes[])
{
    double worst = 0, latency = 0, all = crowding(t, hosts_of(t, device, n));
    for (int32_t i = 0; i < n; i++) {
        double near = 0, far = 0, far_bytes = 0;
        int32_t here = 0, messages = 0;
        for (int32_t j = 0; j < n; j++) {
            struct clu_wire x =
                clu_topo_wire(t, t->devices[device[i]].host, t->devices[device[j]].host);
            bool same = shares_wire(t, device[i], device[j]);
            here += same;
            if (i == j) continue;
            messages += !same;
            latency = MAX(latency, !same && bytes[j] > CONSENT_BYTES ? 3 * x.latency_s : x.latency_s);
            if (same)
                near += bytes[j] / x.bytes_s;
            else
                far += bytes[j] / x.bytes_s, far_bytes += bytes[j];
        }
        /* all at once: as measured, if that is more than the sum of the pairs */
        if (all > 0) far += all * MAX(far_bytes / t->together.bytes_s - far, 0);
        worst = MAX(worst, near + far * here + w->rates->message_s * MAX(messages - 1, 0));
    }
    double pairs = latency + w->rates->message_s * MAX(n - 2, 0), more = all > 0 ? all * MAX(t->together.latency_s - pairs, 0) : 0;
    return latency + worst + more;
}

/* Everybody gives all its bytes to everybody, or each a slice to each and its sum to all: as transport/coll_mpi.c does. */
static double exchange_s(const struct clu_work *w, const struct clu_topo *t, const int32_t device[], int32_t n, double bytes[], double vector)
{
    double all = 0;
    for (int32_t i = 0; i < n; i++) all += bytes[i];
    if (all <= ONE_SHOT_BYTES || (n == 2 && all <= 2 * vector)) return gather_s(w, t, device, n, bytes);
    for (int32_t i = 0; i < n; i++) bytes[i] /= n;
    double s = gather_s(w, t, device, n, bytes);
    for (int32_t i = 0; i < n; i++) bytes[i] = vector / n;
    return s + gather_s(w, t, device, n, bytes);
}

double clu_cost_reduce(const struct clu_work *w, const struct clu_topo *t, const int32_t device[],
                       int32_t n, const int32_t parts[], int32_t rows)
{
    static const double shrink[CLU_WIRE_TYPES] = {1, 0.5, 36.0 / 128};
    double vector = 4.0 * w->info->d_model * rows, bytes[LIMIT_RANKS], near = 0;
    int32_t first[LIMIT_RANKS], n_hosts = 0;
    if (n == 1) return 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t h = t->devices[device[i]].host, k = 0;
        while (k < n_hosts && t->devices[first[k]].host != h) k++;
        if (k == n_hosts) {
            first[n_hosts++] = device[i];
            bytes[k] = 0;
        } else {
            struct clu_wire x = clu_topo_wire(t, h, h);
            near = MAX(near, 2 * x.latency_s + (bytes[k] + (parts[i] + 1) * vector) / x.bytes_s);
        }
        /* neighbours' subtrees grow together: a host sends about as many as its most ragged rank */
        bytes[k] = MAX(bytes[k], parts[i] * vector);
    }
    if (n_hosts == 1) {
        for (int32_t i = 0; i < n; i++) bytes[i] = parts[i] * vector;
        return exchange_s(w, t, device, n, bytes, vector);
    }
    double small = shrink[w->wire];
    for (int32_t i = 0; i < n_hosts; i++) bytes[i] = w->wire ? vector * small : bytes[i];
    return near + exchange_s(w, t, first, n_hosts, bytes, vector * small);
}

static double gather_rows_s(const struct clu_work *w, const struct clu_topo *t, const int32_t device[], int32_t n,
                            const struct grid_share share[], double row_bytes, int32_t rows,
                            int32_t tiles)
{
    double bytes[LIMIT_RANKS];
    if (n == 1 || !rows) return 0;
    for (int32_t i = 0; i < n; i++) bytes[i] = row_bytes * rows * share[i].vocab / tiles;
    return gather_s(w, t, device, n, bytes);
}

/* ---- stages ---- */

/* Leaves, but where experts are fewer and whole a rank has what its experts make of them. */
static double leaves_worth(const struct model_info *m, bool whole, int32_t leaf0, int32_t n)
{
    return whole ? (double)leaf_ffn_count(m->d_ffn) * experts_of(m, whole, leaf0, n).held / m->n_experts : n;
}

double clu_cost_hop(const struct clu_work *w, const struct clu_topo *t, const struct clu_layout *l,
                    int32_t stage, int32_t rows)
{
    const struct grid *g = &l->grid;
    if (stage == g->n_stages - 1) return 0;
    int32_t from = grid_first(g, stage), to = from + g->width[stage];
    double bytes = 4.0 * w->info->d_model * rows, far = 0, near = 0;
    for (int32_t j = 0; j < g->width[stage + 1]; j++) {
        int32_t a = l->device[from + j % g->width[stage]], b = l->device[to + j];
        struct clu_wire x = clu_topo_wire(t, t->devices[a].host, t->devices[b].host);
        double s = x.latency_s + bytes / x.bytes_s;
        if (shares_wire(t, a, b))
            near = MAX(near, s);
        else
            far += far > 0 ? bytes / x.bytes_s : s; /* copies of the same rows over the same wire */
    }
    return MAX(near, far);
}

/* What the ends gather: rows of the embedding, and logits. */
static double ends_gather_s(const struct clu_work *w, const struct clu_topo *t, const int32_t device[], int32_t n, const struct grid_share share[],
                            bool first, bool last, int32_t rows, int32_t sampled)
{
    const struct model_info *m = w->info;
    int32_t tiles = leaf_vocab_tiles(m->n_vocab);
    double s = 0;
    if (first) s += gather_rows_s(w, t, device, n, share, 4.0 * m->d_model, rows, tiles);
    if (last && sampled) s += gather_rows_s(w, t, device, n, share, 4.0 * m->n_vocab, sampled, tiles);
    return s;
}

double clu_cost_ends(const struct clu_work *w, const struct clu_topo *t, const int32_t device[],
                     int32_t n, const struct grid_share share[], bool first, bool last,
                     int32_t rows, int32_t sampled)
{
    const struct model_info *m = w->info;
    int32_t tiles = leaf_vocab_tiles(m->n_vocab);
    double s = ends_gather_s(w, t, device, n, share, first, last, rows, sampled), head = 0;
    if (!last || !sampled) return s;
    for (int32_t r = 0; r < n; r++) {
        double part = (double)share[r].vocab / tiles;
        struct speed v = speed_of(w, &t->devices[device[r]]);
        head = MAX(head, matrix_s(w, &v, (double)w->weights->head.mem * part,
                                  (double)m->n_vocab * m->d_model * part, sampled));
    }
    return s + head + w->rates->sample_s * m->n_vocab * sampled;
}

void clu_cost_stage(const struct clu_work *w, const struct clu_topo *t, const struct clu_layout *l,
                    int32_t stage, int32_t rows, int32_t sampled, bool prefill,
                    struct clu_stage_cost *out)
{
    const struct model_info *m = w->info;
    const struct grid *g = &l->grid;
    struct leaf_shape s = shape_of(w);
    struct grid_share share[LIMIT_RANKS];
    int32_t first = grid_first(g, stage), n = g->width[stage],
            layers = g->layers[stage + 1] - g->layers[stage];
    int32_t attn[LIMIT_RANKS], ffn[LIMIT_RANKS], hpl = leaf_heads(m->head_dim);
    double worst = 0;
    for (int32_t r = 0; r < n; r++) {
        int32_t q0, leaf0, kv0, kv1;
        struct clu_rank_cost c;
        share[r] = share_of(w, g, first + r, &q0, &leaf0);
        leaf_kv_range(&s, q0, q0 + share[r].heads, &kv0, &kv1);
        attn[r] = n_parts(DIV_UP(m->n_heads, hpl), q0 / hpl, DIV_UP(share[r].heads, hpl));
        ffn[r] = n_parts(leaf_ffn_count(m->d_ffn), leaf0, share[r].ffn);
        clu_cost_rank(w, &t->devices[l->device[first + r]], rows, prefill, g->whole_experts ? n : 0, &c);
        worst = MAX(worst, c.per_head_s * share[r].heads + c.per_kv_s * (kv1 - kv0) +
                               c.per_leaf_s * leaves_worth(m, g->whole_experts, leaf0, share[r].ffn) + c.fixed_s);
    }
    out->compute_s = layers * worst;
    out->reduce_s = layers * (clu_cost_reduce(w, t, l->device + first, n, attn, rows) +
                              clu_cost_reduce(w, t, l->device + first, n, ffn, rows));
    out->ends_s = clu_cost_ends(w, t, l->device + first, n, share, stage == 0,
                                stage == g->n_stages - 1, rows, sampled);
    out->gather_s = ends_gather_s(w, t, l->device + first, n, share, stage == 0, stage == g->n_stages - 1, rows, sampled);
    out->hop_s = clu_cost_hop(w, t, l, stage, rows);
    out->total_s = out->compute_s + out->reduce_s + out->ends_s + out->hop_s;
}

/* ---- the whole ---- */

/* The lead hands each plan to the other ranks before they can begin. */
static double plan_s(const struct clu_topo *t, const struct clu_layout *l)
{
    double s = 0;
    for (int32_t r = 1; r < grid_ranks(&l->grid); r++)
        if (!shares_wire(t, l->device[0], l->device[r])) s = MAX(s, clu_topo_wire(t, t->devices[l->device[0]].host, t->devices[l->device[r]].host).latency_s);
    return s;
}

void clu_cost_decode(const struct clu_work *work, const struct clu_topo *t, const struct clu_layout *l,
                     int32_t users, struct clu_speed *out)
{
    int32_t n = l->grid.n_stages, rows = DIV_UP(users, n), batches = MIN(n, users);
    struct clu_work busy = *work, *w = &busy;
    w->active = (double)batches / n;
    double step = w->rates->step_s + plan_s(t, l), sum = step, most = 0, most_comm = 0, sum_comm = 0;
    for (int32_t i = 0; i < n; i++) {
        struct clu_stage_cost c;
        clu_cost_stage(w, t, l, i, rows, rows, false, &c);
        sum += c.total_s;
        sum_comm += c.reduce_s + c.hop_s;
        if (c.total_s > most) {
            most = c.total_s;
            most_comm = c.reduce_s + c.hop_s;
        }
    }
    double round = MAX(sum, batches * most);
    *out = (struct clu_speed){.tok_s = users / round,
                              .round_s = round,
                              .bubble = 1 - (sum - step) * batches / (n * round),
                              .comm = most > 0 ? most_comm / most : 0,
                              .comm_s = sum >= batches * most ? sum_comm : batches * most_comm};
}

void clu_cost_prefill(const struct clu_work *w, const struct clu_topo *t,
                      const struct clu_layout *l, struct clu_speed *out)
{
    int32_t n = l->grid.n_stages, rows = MIN(w->max_step_tokens, w->context),
            chunks = CLAMP(w->context / rows, 1, 4);
    double step = w->rates->step_s + plan_s(t, l), sum = step, most = 0, comm = 0;
    for (int32_t i = 0; i < n; i++) {
        struct clu_stage_cost c;
        clu_cost_stage(w, t, l, i, rows, 1, true, &c);
        sum += c.total_s;
        if (c.total_s > most) {
            most = c.total_s;
            comm = (c.reduce_s + c.hop_s) / c.total_s;
        }
    }
    double all = sum + (chunks - 1) * MAX(most, n == 1 ? sum : most);
    *out = (struct clu_speed){.tok_s = rows * chunks / all,
                              .round_s = all,
                              .bubble = 1 - sum * chunks / (n * all),
                              .comm = comm};
}

double clu_cost_load(const struct clu_work *w, const struct clu_topo *t, const struct clu_layout *l)
{
    double bytes[CLU_MAX_HOSTS] = {0}, worst = 0;
    double file = 0, mem = 0;
    for (int32_t i = 0; i < w->info->n_layers; i++) {
        const struct model_layer *y = &w->weights->layers[i];
        file += (double)(y->q.file + y->kv.file + y->ffn.file + y->rest.file);
        mem += (double)(y->q.mem + y->kv.mem + y->ffn.mem + y->rest.mem);
    }
    for (int32_t r = 0; r < grid_ranks(&l->grid); r++) {
        struct clu_memory m;
        clu_cost_memory(w, &l->grid, r, &m);
        bytes[t->devices[l->device[r]].host] += (double)m.weights * file / MAX(mem, 1);
    }
    for (int32_t h = 0; h < t->n_hosts; h++)
        worst = MAX(worst, bytes[h] / t->hosts[h].disk_bytes_s);
    return worst;
}
