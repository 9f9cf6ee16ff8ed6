/* cost.c: see cost.h: stages and pipelines, of what cost_rank.c, cost_wire.c and cost_memory.c say of their ranks. */
#include "cluster/cost_impl.h"

/* NCCL's buffers, by what its documentation and headers say of version 2.2x: they go with channels and connections. A ring has two of each channel,
 * sends and receives as many; a connection has a buffer of each protocol: Simple's 4 MiB (NCCL_BUFFSIZE), LL's 8 lines of 16 bytes for 512 threads in 8
 * steps, LL128's 120 words of 8 for 640 in 8. Between cards of one host both sides of a connection share one. 16 channels lie between what is used over
 * PCIe (2 to 4) and over NVLink's switches (24 or more). And what we add up in. */
enum {
    NCCL_CHANNELS = 16, NCCL_CONNECTIONS = 2,
    NCCL_CONNECTION = (4 << 20) + 8 * 16 * 512 * 8 + 120 * 8 * 640 * 8,
    NCCL_SCRATCH = 32 << 20, /* transport/coll_nccl.c */
    HIER_SCRATCH = 32 << 20  /* transport/coll_hier_cards.c */
};

/* Measured on 2 cores with AVX-512 VNNI (tessera bench engine against its own limits; docs/performance.md). Not so what cards keep, which none has been
 * asked for yet (docs/gpu-log.md): graph_bytes, some forty graphs of twenty kernels a layer, 10 KiB each; nccl_bytes. */
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
    .graph_bytes = INT64_C(8) << 20,
    .rounded_bytes = INT64_C(64) << 20,
    .nccl_bytes = NCCL_CHANNELS * NCCL_CONNECTIONS * NCCL_CONNECTION + NCCL_SCRATCH,
    .hier_bytes = HIER_SCRATCH,
    .card_units = 192,
};

const char *const clu_wire_name[CLU_WIRE_TYPES] = {"f32", "f16", "q8"};

/* ---- stages ---- */

/* Leaves, but where experts are fewer and whole a rank has what its experts make of them. */
static double leaves_worth(const struct model_info *m, bool whole, int32_t leaf0, int32_t n)
{
    return whole ? (double)leaf_ffn_count(m->d_ffn) * clu_cost_experts(m, whole, leaf0, n).held / m->n_experts : n;
}

/* What the ends gather: rows of the embedding, and logits. */
static double ends_gather_s(const struct clu_work *w, const struct clu_topo *t, const int32_t device[], int32_t n, const struct grid_share share[],
                            bool first, bool last, int32_t rows, int32_t sampled)
{
    const struct model_info *m = w->info;
    int32_t tiles = leaf_vocab_tiles(m->n_vocab);
    double s = 0;
    if (first) s += clu_cost_gather_rows(w, t, device, n, share, 4.0 * m->d_model, rows, tiles);
    if (last && sampled) s += clu_cost_gather_rows(w, t, device, n, share, 4.0 * m->n_vocab, sampled, tiles);
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
        struct clu_cost_speed v = clu_cost_speed(w, &t->devices[device[r]]);
        head = MAX(head, clu_cost_matrix(w, &v, (double)w->weights->head.mem * part,
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
    struct leaf_shape s = leaf_shape_of(w->info);
    struct grid_share share[LIMIT_RANKS];
    int32_t first = grid_first(g, stage), n = g->width[stage],
            layers = g->layers[stage + 1] - g->layers[stage];
    int32_t attn[LIMIT_RANKS], ffn[LIMIT_RANKS], hpl = leaf_heads(m->head_dim);
    double worst = 0;
    for (int32_t r = 0; r < n; r++) {
        int32_t q0, leaf0, kv0, kv1;
        struct clu_rank_cost c;
        share[r] = clu_cost_share(w, g, first + r, &q0, &leaf0);
        leaf_kv_range(&s, q0, q0 + share[r].heads, &kv0, &kv1);
        attn[r] = clu_cost_parts(DIV_UP(m->n_heads, hpl), q0 / hpl, DIV_UP(share[r].heads, hpl));
        ffn[r] = clu_cost_parts(leaf_ffn_count(m->d_ffn), leaf0, share[r].ffn);
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
        if (!clu_cost_same_host(t, l->device[0], l->device[r]))
            s = MAX(s, clu_topo_wire(t, t->devices[l->device[0]].host, t->devices[l->device[r]].host).latency_s);
    return s;
}

void clu_cost_decode(const struct clu_work *work, const struct clu_topo *t, const struct clu_layout *l,
                     int32_t users, struct clu_speed *out)
{
    int32_t n = l->grid.n_stages, rows = DIV_UP(users, n), batches = MIN(n, users);
    struct clu_work busy = *work, *w = &busy;
    w->active = (double)batches / n;
    w->staged = n > 1;
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
        clu_cost_memory(w, &l->grid, r, t, l->device[r], &m);
        bytes[t->devices[l->device[r]].host] += (double)m.weights * file / MAX(mem, 1);
    }
    for (int32_t h = 0; h < t->n_hosts; h++)
        worst = MAX(worst, bytes[h] / t->hosts[h].disk_bytes_s);
    return worst;
}
