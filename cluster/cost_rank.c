/* cost_rank.c: seconds of one rank that computes: products of matrices, attention. */
#include "cluster/cost_impl.h"

#include <math.h>
#include <string.h>

static bool is_float(const char *type) { return !strcmp(type, "F32") || !strcmp(type, "F16") || !strcmp(type, "BF16"); }

/* Of the device while as many of its crowd compute as do. */
struct clu_cost_speed clu_cost_speed(const struct clu_work *w, const struct clu_device *d)
{
    struct clu_cost_speed v = {d->read_bytes_s, d->ops_s, d->kind == CLU_CPU};
    if (d->crowd.ranks && w->active > 0) clu_crowd_speed(&d->crowd, (int32_t)ceil(w->active * d->crowd.ranks), w->staged, &v.read_bytes_s, &v.ops_s);
    return v;
}

double clu_cost_matrix(const struct clu_work *w, const struct clu_cost_speed *d, double bytes,
                       double weights, int32_t rows)
{
    bool floats = d->cpu && is_float(w->info->type);
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
    const struct clu_cost_speed v = clu_cost_speed(w, device), *d = &v;
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
        .per_head_s = clu_cost_matrix(w, d, (double)sum.q.mem / n / m->n_heads, a.head_weights, rows) +
                      a.per_key * keys * rows / (d->ops_s * w->rates->attention_share),
        .per_kv_s = clu_cost_matrix(w, d, (double)sum.kv.mem / n / m->n_kv_heads, a.kv_weights, rows) +
                    kv_bytes / (d->read_bytes_s * w->rates->read_share),
        .per_leaf_s =
            clu_cost_matrix(w, d, (double)sum.ffn.mem / n / leaves * read, 3.0 * width / leaves * dm, rows) +
            (d->cpu ? w->rates->leaf_ops * adds * dm * rows / d->ops_s : 0),
        .fixed_s = w->rates->layer_s + w->rates->row_layer_s * rows,
    };
}
