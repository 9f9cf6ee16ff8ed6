/* place_explain.c: a placement for people and for programs. See place.h. Text of at most 100
 * columns; ASCII. */
#include "cluster/place.h"

#include "base/plain.h"

#include <stdio.h>
#include <string.h>

enum { SMALL = 100000000 }; /* bytes of weights */

static double gb(int64_t bytes)
{
    return (double)bytes / 1e9;
}
static const char *host_of(const struct clu_topo *t, int32_t device)
{
    return t->hosts[t->devices[device].host].name;
}

static int32_t n_hosts(const struct clu_place *p, const struct clu_topo *t)
{
    bool seen[CLU_MAX_HOSTS] = {false};
    int32_t n = 0;
    for (int32_t r = 0; r < p->n_ranks; r++) {
        int32_t h = t->devices[p->layout.device[r]].host;
        n += !seen[h];
        seen[h] = true;
    }
    return n;
}

/* KV of a full context on all ranks: what it takes, and what it would if windows were kept whole. */
static void context_bytes(const struct clu_place *p, const struct clu_work *w, const struct clu_topo *t, int64_t *bytes, int64_t *whole)
{
    const struct kv_groups k = kv_groups_of_model(w->info, w->context);
    *bytes = *whole = 0;
    for (int32_t r = 0; r < p->n_ranks; r++) {
        struct clu_memory m;
        int32_t s = grid_stage_of(&p->layout.grid, r), l0 = p->layout.grid.layers[s], l1 = p->layout.grid.layers[s + 1];
        clu_cost_memory(w, &p->layout.grid, r, t, p->layout.device[r], &m);
        *bytes += m.kv_block * kv_groups_need(&k, w->context);
        *whole += m.kv_block / kv_groups_planes(&k, w->info->windowed, l0, l1) * (l1 - l0) * DIV_UP(w->context, LIMIT_BLOCK_TOKENS);
    }
}

static void windows(const struct clu_place *p, const struct clu_work *w, const struct clu_topo *t, struct buf *b)
{
    const struct model_info *m = w->info;
    int32_t n = 0;
    int64_t bytes, whole;
    if (!kv_groups_of_model(m, w->context).window) return;
    for (int32_t i = 0; i < m->n_layers; i++) n += m->windowed[i];
    context_bytes(p, w, t, &bytes, &whole);
    buf_printf(b, "\n(%d of the layers keep the last %d tokens: KV of a user %.2f %s instead of %.2f)", n, m->window,
               (double)bytes / (whole < SMALL ? 1e6 : 1e9), whole < SMALL ? "MB" : "GB", (double)whole / (whole < SMALL ? 1e6 : 1e9));
}

static void head(const struct clu_place *p, const struct clu_work *w, const struct clu_topo *t,
                 struct buf *b)
{
    const struct model_info *m = w->info;
    int64_t tokens = clu_cost_room(w, p->n_held), room = clu_cost_room(w, p->n_blocks);
    int32_t hosts = n_hosts(p, t);
    bool small = m->n_params < 1000000000;
    buf_printf(b, "%s (%s): %d layers, d %d, %d query heads, ", m->name, w->info->type, m->n_layers, m->d_model, m->n_heads);
    if (m->latent.rank) buf_printf(b, "a latent of %d, ", m->latent.rank);
    else buf_printf(b, "%d KV heads, ", m->n_kv_heads);
    if (m->n_experts) buf_printf(b, "%d experts of %d, %d of them for a token, ", m->n_experts, m->d_expert, m->n_used);
    else buf_printf(b, "FFN %d, ", m->d_ffn);
    buf_printf(b, "%.2f %s parameters\n", (double)m->n_params / (small ? 1e6 : 1e9), small ? "M" : "G");
    buf_printf(
        b,
        "%d rank%s on %d host%s, %d stage%s; KV cache for %lld tokens: %lld user%s of %d tokens",
        p->n_ranks, p->n_ranks == 1 ? "" : "s", hosts, hosts == 1 ? "" : "s",
        p->layout.grid.n_stages, p->layout.grid.n_stages == 1 ? "" : "s", (long long)tokens,
        (long long)(tokens / w->context), tokens / w->context == 1 ? "" : "s", w->context);
    if (room > tokens) buf_printf(b, "\n(room for %lld: serve takes more with --kv-tokens)", (long long)room);
    windows(p, w, t, b);
    buf_puts(b, "\n\n");
}

/* One line per stage: a bar for its layers, then its ranks with their part of the work. */
static void picture(const struct clu_place *p, const struct clu_topo *t, struct buf *b)
{
    const struct grid *g = &p->layout.grid;
    int32_t all = g->layers[g->n_stages];
    for (int32_t s = 0; s < g->n_stages; s++) {
        int32_t n = g->layers[s + 1] - g->layers[s], first = grid_first(g, s), leaves = 0,
                bar = MAX(1, n * 24 / all), at;
        for (int32_t r = 0; r < g->width[s]; r++) leaves += g->share[first + r].ffn;
        buf_printf(b, "  layers %3d-%-3d %.*s%.*s ", g->layers[s], g->layers[s + 1] - 1, bar,
                   "########################", 24 - bar, "........................");
        size_t line = b->len;
        for (int32_t r = 0; r < g->width[s]; r++) {
            at = p->layout.device[first + r];
            if (b->len - line > 44) {
                buf_printf(b, "\n%41s", "");
                line = b->len;
            }
            buf_printf(b, "[%d %s %d%%]", first + r, host_of(t, at),
                       (200 * g->share[first + r].ffn + leaves) / (2 * leaves));
        }
        buf_putc(b, '\n');
        if (s + 1 < g->n_stages) {
            struct clu_wire x =
                clu_topo_wire(t, t->devices[p->layout.device[first]].host,
                              t->devices[p->layout.device[first + g->width[s]]].host);
            buf_printf(b, "%41s| %.0f us, %.1f GB/s\n", "", x.latency_s * 1e6, x.bytes_s / 1e9);
        }
    }
    buf_putc(b, '\n');
}

static void table(const struct clu_place *p, const struct clu_work *w, const struct clu_topo *t,
                  struct buf *b)
{
    const struct grid *g = &p->layout.grid;
    bool small = w->info->weight_bytes < SMALL; /* in GB it would be a table of zeros */
    const double unit = small ? 1e6 : 1e9;
    buf_printf(b, "  %4s %-14s %-14s %7s %5s %6s %6s %8s %8s %8s %8s\n", "rank", "host", "device",
               "layers", "heads", "FFN", "vocab", "weights", "KV", "buffers", small ? "of MB" : "of GB");
    int64_t card = 0, nccl = 0;
    for (int32_t r = 0; r < p->n_ranks; r++) {
        struct clu_memory m;
        const struct clu_device *d = &t->devices[p->layout.device[r]];
        int32_t s = grid_stage_of(g, r);
        clu_cost_memory(w, g, r, t, p->layout.device[r], &m);
        card = MAX(card, m.card), nccl = MAX(nccl, clu_cost_nccl(w, t, p->layout.device[r], g->width[s]));
        buf_printf(b, "  %4d %-14.14s %-14.14s %3d-%-3d %5d %6d %6d %8.2f %8.2f %8.2f %8.2f%s\n", r,
                   t->hosts[d->host].name, d->name, g->layers[s], g->layers[s + 1] - 1,
                   g->share[r].heads, g->share[r].ffn, g->share[r].vocab, (double)m.weights / unit,
                   (double)(m.kv_block * p->n_held) / unit, (double)(m.buffers + m.process + m.card) / unit,
                   (double)d->mem_bytes / unit,
                   r != p->tightest ? "" : p->n_held < p->n_blocks ? " <- fills up first" : " <- bounds the KV cache");
    }
    buf_printf(b, "  (FFN in leaves, vocabulary in tiles of 16 ids; memory in %s)\n", small ? "MB" : "GB");
    if (card)
        buf_printf(b, "  (buffers of a card: up to %.2f beside, for the graphs of its steps, an allowance%s%s%s)\n", (double)card / unit,
                   w->info->n_experts ? "; rows of experts" : "", w->rounded ? "; cuBLASLt" : "", nccl ? "; NCCL, another" : "");
    buf_putc(b, '\n');
}

static void speed(const struct clu_place *p, const struct clu_work *w, struct buf *b)
{
    buf_printf(b, "  load      %8.1f s\n  prefill   %8.1f tok/s\n", p->load_s, p->prefill.tok_s);
    for (int32_t i = 0; i < 3; i++) {
        const struct clu_speed *d = &p->decode[i];
        bool shorter = clu_cost_room(w, p->n_held) / w->context < clu_place_users[i];
        buf_printf(
            b,
            "  decode    %8.1f tok/s for %d user%s%s (%.1f ms a token, %.0f %% of it between ranks",
            d->tok_s, clu_place_users[i], clu_place_users[i] == 1 ? "" : "s",
            shorter ? " of shorter texts" : "", d->round_s * 1e3, 100 * d->comm);
        if (p->layout.grid.n_stages > 1) buf_printf(b, ", stages idle %.0f %%", 100 * d->bubble);
        buf_puts(b, ")\n");
    }
    buf_printf(b,
               "  at a depth of %d tokens; kernels at %.0f %% of read bandwidth and %.0f %% of "
               "int8 peak\n",
               w->depth, 100 * w->rates->read_share, 100 * w->rates->ops_share);
}

static void wire(const struct clu_place *p, const struct clu_work *w, struct buf *b)
{
    enum clu_wire_type best = clu_place_wire(p);
    if (!p->crosses) return;
    if (w->wire)
        buf_printf(b, "  sums travel between hosts as %s: not exact; as f32 it would be %.1f tok/s for %d user%s\n", clu_wire_name[w->wire],
                   p->wire_tok_s[CLU_WIRE_F32], MAX(p->users, 1), p->users > 1 ? "s" : "");
    else if (best)
        buf_printf(b, "  exactness costs: sums travel as f32; --exact off would send %s: %.1f tok/s instead of %.1f for %d user%s\n", clu_wire_name[best],
                   p->wire_tok_s[best], p->wire_tok_s[CLU_WIRE_F32], MAX(p->users, 1), p->users > 1 ? "s" : "");
    else
        buf_puts(b, "  exactness costs nothing worth naming here: smaller sums would gain less than 5 %\n");
}

static void experts(const struct clu_place *p, const struct clu_work *w, struct buf *b)
{
    bool whole = p->layout.grid.whole_experts, wide = false;
    const double *s = p->experts_tok_s;
    for (int32_t i = 0; i < p->layout.grid.n_stages; i++) wide |= p->layout.grid.width[i] > 1;
    if (!w->info->n_experts || !wide) return;
    if (whole)
        buf_printf(b, "  experts   whole, each of the %d on one rank of its stage: %.1f tok/s for %d user%s; cut inside it would be %.1f\n",
                   w->info->n_experts, s[1],
                   MAX(p->users, 1), p->users > 1 ? "s" : "", s[0]);
    else
        buf_printf(b, "  experts   cut inside, a part of all %d on each rank of a stage: %.1f tok/s for %d user%s; whole on ranks (--experts "
                   "whole) it would be %.1f\n",
                   w->info->n_experts, s[0], MAX(p->users, 1), p->users > 1 ? "s" : "", s[1]);
}

static void reason(const struct clu_alt *a, const struct clu_place *p, char out[160])
{
    if (!a->fits && a->short_bytes > 0)
        snprintf(out, 160, "does not fit: %.2f GB are missing", gb(a->short_bytes));
    else if (!a->fits)
        snprintf(out, 160, "does not fit: enough memory in sum, not in these pieces");
    else if (a->decode_tok_s < p->judged.tok_s * 0.995)
        snprintf(out, 160, "%.1f tok/s: %.0f %% slower (%.0f %% of the time between ranks)",
                 a->decode_tok_s, 100 * (1 - a->decode_tok_s / p->judged.tok_s), 100 * a->comm);
    else
        snprintf(out, 160, "%.1f tok/s: as fast, with %s", a->decode_tok_s,
                 a->n_ranks > p->n_ranks ? "more ranks" : "a slower prefill");
}

static void alternatives(const struct clu_place *p, const struct clu_topo *t, struct buf *b)
{
    if (p->n_unused) {
        buf_puts(b, "\nleft out, they would only slow it down:");
        for (int32_t i = 0; i < p->n_unused; i++)
            buf_printf(b, "%s %s/%s", i ? "," : "", host_of(t, p->unused[i]),
                       t->devices[p->unused[i]].name);
        buf_putc(b, '\n');
    }
    if (p->n_alts)
        buf_printf(b, "\nnot taken (judged by %.1f tok/s for %d users; widths of the stages):\n",
                   p->judged.tok_s, MAX(p->users, 1));
    for (int32_t i = 0; i < p->n_alts; i++) {
        char why[160];
        reason(&p->alts[i], p, why);
        buf_printf(b, "  %-16s %3d rank%s  %s\n", p->alts[i].shape, p->alts[i].n_ranks,
                   p->alts[i].n_ranks == 1 ? " " : "s", why);
    }
}

void clu_place_explain(const struct clu_place *p, const struct clu_work *w,
                       const struct clu_topo *t, struct buf *out)
{
    head(p, w, t, out);
    picture(p, t, out);
    table(p, w, t, out);
    speed(p, w, out);
    wire(p, w, out);
    experts(p, w, out);
    alternatives(p, t, out);
}

/* ---- JSON ---- */

/* What a file calls itself need not be UTF-8, which JSON is. */
static void string(struct buf *b, const char *s)
{
    char line[1024];
    plain(line, sizeof line, s, strlen(s));
    buf_putc(b, '"');
    for (s = line; *s; s++) {
        if (*s == '"' || *s == '\\') buf_putc(b, '\\');
        buf_putc(b, *s);
    }
    buf_putc(b, '"');
}

static void json_rank(const struct clu_place *p, const struct clu_work *w, const struct clu_topo *t,
                      int32_t r, struct buf *b)
{
    const struct grid *g = &p->layout.grid;
    const struct clu_device *d = &t->devices[p->layout.device[r]];
    struct clu_memory m;
    int32_t s = grid_stage_of(g, r);
    clu_cost_memory(w, g, r, t, p->layout.device[r], &m);
    buf_printf(b, "%s{\"rank\":%d,\"host\":", r ? "," : "", r);
    string(b, t->hosts[d->host].name);
    buf_puts(b, ",\"device\":");
    string(b, d->name);
    buf_printf(b,
               ",\"stage\":%d,\"layers\":[%d,%d],\"heads\":%d,\"ffn_leaves\":%d,\"vocab_tiles\":%d,"
               "\"weight_bytes\":%lld,\"kv_bytes\":%lld,"
               "\"buffer_bytes\":%lld,\"process_bytes\":%lld,\"card_bytes\":%lld,\"memory_bytes\":%lld}",
               s, g->layers[s], g->layers[s + 1], g->share[r].heads, g->share[r].ffn,
               g->share[r].vocab, (long long)m.weights, (long long)(m.kv_block * p->n_held),
               (long long)m.buffers, (long long)m.process, (long long)m.card, (long long)d->mem_bytes);
}

void clu_place_json(const struct clu_place *p, const struct clu_work *w, const struct clu_topo *t,
                    struct buf *b)
{
    buf_puts(b, "{\"model\":");
    string(b, w->info->name);
    buf_printf(b,
               ",\"context\":%d,\"kv_tokens\":%lld,\"kv_room_tokens\":%lld,\"n_stages\":%d,\"load_s\":%.3f,\"prefill_tok_"
               "s\":%.2f,\"decode\":[",
               w->context, (long long)clu_cost_room(w, p->n_held), (long long)clu_cost_room(w, p->n_blocks), p->layout.grid.n_stages,
               p->load_s, p->prefill.tok_s);
    for (int32_t i = 0; i < 3; i++)
        buf_printf(b, "%s{\"users\":%d,\"tok_s\":%.2f,\"ms\":%.3f,\"comm\":%.3f,\"bubble\":%.3f}",
                   i ? "," : "", clu_place_users[i], p->decode[i].tok_s, p->decode[i].round_s * 1e3,
                   p->decode[i].comm, p->decode[i].bubble);
    buf_printf(b, "],\"wire\":\"%s\",\"exact\":%s,\"wire_tok_s\":{", clu_wire_name[w->wire], w->wire ? "false" : "true");
    for (int32_t i = 0; i < CLU_WIRE_TYPES; i++) buf_printf(b, "%s\"%s\":%.2f", i ? "," : "", clu_wire_name[i], p->wire_tok_s[i]);
    buf_puts(b, "},");
    if (w->info->n_experts)
        buf_printf(b, "\"experts\":\"%s\",\"experts_tok_s\":{\"cut\":%.2f,\"whole\":%.2f},", p->layout.grid.whole_experts ? "whole" : "cut",
                   p->experts_tok_s[0],
                   p->experts_tok_s[1]);
    buf_puts(b, "\"ranks\":[");
    for (int32_t r = 0; r < p->n_ranks; r++) json_rank(p, w, t, r, b);
    buf_puts(b, "],\"unused\":[");
    for (int32_t i = 0; i < p->n_unused; i++) {
        if (i) buf_putc(b, ',');
        string(b, t->devices[p->unused[i]].name);
    }
    buf_puts(b, "],\"not_taken\":[");
    for (int32_t i = 0; i < p->n_alts; i++) {
        const struct clu_alt *a = &p->alts[i];
        char why[160];
        reason(a, p, why);
        buf_printf(b, "%s{\"stages\":\"%s\",\"ranks\":%d,\"fits\":%s,\"tok_s\":%.2f,\"why\":",
                   i ? "," : "", a->shape, a->n_ranks, a->fits ? "true" : "false", a->decode_tok_s);
        string(b, why);
        buf_putc(b, '}');
    }
    buf_puts(b, "]}\n");
}
