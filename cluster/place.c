/* place.c: judging placements and giving the answer. See place.h.
 *
 * place_rows.c says which devices make which stages, place_layers.c deals the layers, place_stage.c
 * the shares; for each number of full contexts that could be held at once. The last word on bytes
 * and speed is cost.c's, on the finished layout. */
#include "cluster/place_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const int32_t clu_place_users[3] = {1, 8, 32};

int64_t clu_place_kv(const struct clu_work *w, int64_t room_blocks, int64_t kv_tokens)
{
    if (kv_tokens) return clu_cost_hold(w, kv_tokens);
    return MIN(room_blocks, clu_cost_hold(w, (int64_t)CLU_KV_CONTEXTS * ROUND_UP(w->context, LIMIT_BLOCK_TOKENS)));
}

static int64_t held(const struct clu_want *want, const struct clu_work *w, int64_t room_blocks)
{
    return MIN(clu_place_kv(w, room_blocks, want->kv_tokens), room_blocks);
}

static bool better(const struct found *a, const struct found *b)
{
    if (a->fits != b->fits) return a->fits;
    double x = a->decode_tok_s, y = b->decode_tok_s;
    if (x > y * 1.005 || y > x * 1.005) return x > y;
    int32_t ra = grid_ranks(&a->layout.grid), rb = grid_ranks(&b->layout.grid);
    if (ra != rb) return ra < rb;
    return a->prefill_tok_s > b->prefill_tok_s * 1.005 ||
           (a->prefill_tok_s * 1.005 >= b->prefill_tok_s && x > y);
}

/* "3+2", "16x4" */
static void shape_text(const struct row *r, char out[48])
{
    size_t n = 0;
    for (int32_t i = 0, k; i < r->n_stages && n < 36; i += k) {
        for (k = 1; i + k < r->n_stages && r->width[i + k] == r->width[i]; k++) {
        }
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
    for (int32_t i = 0; i < y->n_layers; i++)
        n +=
            y->layers[i].q.mem + y->layers[i].kv.mem + y->layers[i].ffn.mem + y->layers[i].rest.mem;
    return n;
}

/* What these devices lack in sum; 0 or less: nothing. */
static int64_t lack(const struct search *s, const struct row *r, int32_t n)
{
    const struct model_info *m = s->w->info;
    const struct kv_groups k = kv_groups_of_model(m, s->w->context);
    int64_t tokens = MAX(s->want->need_tokens, s->w->context);
    int64_t need = sum_of_weights(s->w) +
                   leaf_kv_block_bytes(&m->kv, kv_groups_planes(&k, m->windowed, 0, m->n_layers), m->n_kv_heads, s->w->kv_type) *
                       clu_cost_hold(s->w, tokens);
    for (int32_t i = 0; i < n; i++)
        need += s->w->rates->process_bytes + clu_cost_card(s->w, s->t, r->device[i], m->n_layers / MAX(r->n_stages, 1), DIV_UP(n, MAX(r->n_stages, 1))) -
                s->t->devices[r->device[i]].mem_bytes;
    return need;
}

static void note(struct search *s, const struct row *row, const struct found *f, int32_t n)
{
    struct clu_alt a = {.n_ranks = n,
                        .fits = f->fits,
                        .decode_tok_s = f->decode_tok_s,
                        .comm = f->comm,
                        .bubble = f->bubble,
                        .kv_tokens = clu_cost_room(s->w, f->n_blocks)};
    shape_text(row, a.shape);
    if (!f->fits) a.short_bytes = MAX(lack(s, row, n), 0);
    struct clu_alt *slots[3] = {&s->alts[row->n_stages], n == 1 ? &s->alts[0] : NULL,
                                row->n_stages == 1 && n == s->t->n_devices ? &s->flat : NULL};
    for (int32_t i = 0; i < 3; i++)
        if (slots[i] && (!slots[i]->n_ranks ||
                         (a.fits && (!slots[i]->fits || a.decode_tok_s > slots[i]->decode_tok_s)) ||
                         (!a.fits && !slots[i]->fits && a.short_bytes < slots[i]->short_bytes)))
            *slots[i] = a;
}

static void keep(struct search *s, const struct found *f)
{
    int32_t at = MIN(s->n_kept, PLACE_KEEP - 1);
    if (s->n_kept == PLACE_KEEP && !better(f, &s->kept[at])) return;
    if (s->n_kept < PLACE_KEEP) s->n_kept++;
    for (; at > 0 && better(f, &s->kept[at - 1]); at--) s->kept[at] = s->kept[at - 1];
    s->kept[at] = *f;
}

/* The next number of full contexts to make room for; 0: none. Every one where all is tried. */
static int32_t fewer(const struct search *s, int32_t users)
{
    if (users == 1) return 0;
    return s->want->effort || users > 8 ? DIV_UP(users, 2) : users - 1;
}

/* Would the row be laid otherwise if a single context were enough? */
static bool memory_binds(struct search *s, const struct row *row, int32_t users, const struct clu_layout *l)
{
    struct clu_layout free;
    return !clu_place_lay(s, row, users, 1, &free) || memcmp(free.grid.layers, l->grid.layers, sizeof free.grid.layers) ||
           memcmp(free.grid.share, l->grid.share, sizeof free.grid.share);
}

bool clu_place_look(struct search *s, const struct row *row)
{
    struct found f = {.row = *row};
    int32_t n = 0;
    for (int32_t i = 0; i < row->n_stages; i++) n += row->width[i];
    if (row->n_stages > s->w->info->n_layers) return false;
    s->n_looked++;
    bool hopeless = lack(s, row, n) > 0;
    /* Where memory binds, fewer users may leave room for a faster cut. */
    for (int32_t users = s->want->users; !hopeless && users >= 1; users = fewer(s, users)) {
        struct found c = {.row = *row};
        if (!clu_place_lay(s, row, users, users, &c.layout)) continue;
        c.n_blocks = clu_cost_blocks(s->w, s->t, &c.layout, NULL);
        if (c.n_blocks < clu_cost_hold(s->w, MAX(s->want->need_tokens, s->w->context))) continue;
        struct clu_speed v;
        c.fits = true;
        c.users = (int32_t)MIN(s->want->users, MAX(1, clu_cost_room(s->w, held(s->want, s->w, c.n_blocks)) / s->w->context));
        clu_cost_prefill(s->w, s->t, &c.layout, &v);
        c.prefill_tok_s = v.tok_s;
        clu_cost_decode(s->w, s->t, &c.layout, c.users, &v);
        c.decode_tok_s = v.tok_s, c.comm = v.comm, c.bubble = v.bubble;
        if (better(&c, &f)) f = c;
        bool all = c.users == s->want->users && users == s->want->users && !s->want->effort;
        bool roomy = clu_cost_room(s->w, c.n_blocks) > 2LL * users * s->w->context; /* of many devices that is taken for an answer */
        if (all && (s->t->n_devices > PLACE_EXACT ? roomy : !memory_binds(s, row, users, &c.layout)))
            break; /* memory binds nothing: fewer users gain nothing */
    }
    note(s, row, &f, n);
    keep(s, &f);
    if (!f.fits || !better(&f, &s->best)) return false;
    s->best = f;
    return true;
}

/* ---- the answer ---- */

static void figures(struct clu_place *p, const struct clu_work *w, const struct clu_topo *t,
                    const struct clu_want *want)
{
    bool used[LIMIT_RANKS] = {false};
    p->n_ranks = grid_ranks(&p->layout.grid);
    p->n_blocks = clu_cost_blocks(w, t, &p->layout, &p->tightest);
    p->n_held = held(want, w, p->n_blocks);
    p->users = (int32_t)MIN(want->users, clu_cost_room(w, MAX(p->n_held, 0)) / w->context);
    for (int32_t i = 0; i < 3; i++)
        clu_cost_decode(w, t, &p->layout, clu_place_users[i], &p->decode[i]);
    clu_cost_decode(w, t, &p->layout, MAX(p->users, 1), &p->judged);
    struct clu_work x = *w;
    for (x.wire = 0; x.wire < CLU_WIRE_TYPES; x.wire++) {
        struct clu_speed v;
        clu_cost_decode(&x, t, &p->layout, MAX(p->users, 1), &v);
        p->wire_tok_s[x.wire] = v.tok_s;
    }
    struct clu_layout deal = p->layout;
    for (int32_t i = 0; i < 2; i++) {
        struct clu_speed v;
        deal.grid.whole_experts = i;
        clu_cost_decode(w, t, &deal, MAX(p->users, 1), &v);
        p->experts_tok_s[i] = v.tok_s;
    }
    for (int32_t i = 1; i < p->n_ranks; i++)
        p->crosses |= grid_stage_of(&p->layout.grid, i) == grid_stage_of(&p->layout.grid, i - 1) &&
                      t->devices[p->layout.device[i]].host != t->devices[p->layout.device[i - 1]].host;
    clu_cost_prefill(w, t, &p->layout, &p->prefill);
    p->load_s = clu_cost_load(w, t, &p->layout);
    for (int32_t r = 0; r < p->n_ranks; r++) used[p->layout.device[r]] = true;
    p->n_unused = 0;
    for (int32_t i = 0; i < t->n_devices; i++)
        if (!used[i]) p->unused[p->n_unused++] = i;
}

enum clu_wire_type clu_place_wire(const struct clu_place *p)
{
    enum clu_wire_type best = CLU_WIRE_F32;
    for (int32_t i = 1; i < CLU_WIRE_TYPES; i++)
        if (p->wire_tok_s[i] > 1.05 * p->wire_tok_s[best]) best = (enum clu_wire_type)i;
    return p->crosses ? best : CLU_WIRE_F32;
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

/* The order of sums is another one: only where it clearly pays. */
static bool clearly_faster(double whole, double cut) { return whole > 1.03 * cut; }

/* No card has been measured with whole experts (docs/gpu-log.md): auto leaves them cut there. */
static bool may_be_whole(const struct clu_work *w, const struct clu_topo *t)
{
    bool may = w->info->n_experts > 0;
    for (int32_t i = 0; i < t->n_devices; i++) may &= t->devices[i].kind == CLU_CPU;
    return may;
}

bool clu_place_whole(const struct clu_work *w, const struct clu_topo *t, const struct clu_want *want, const struct clu_layout *l)
{
    struct clu_layout x = *l;
    struct clu_speed cut, whole;
    if (want->experts != CLU_EXPERTS_AUTO) return w->info->n_experts && want->experts == CLU_EXPERTS_WHOLE;
    if (!may_be_whole(w, t)) return false;
    x.grid.whole_experts = false;
    clu_cost_decode(w, t, &x, MAX(want->users, 1), &cut);
    x.grid.whole_experts = true;
    clu_cost_decode(w, t, &x, MAX(want->users, 1), &whole);
    return clearly_faster(whole.tok_s, cut.tok_s);
}

static enum err find(struct clu_place *out, const struct clu_work *w, const struct clu_topo *t, const struct clu_want *want, bool whole_experts)
{
    struct search *s = xcalloc(1, sizeof *s);
    enum err rc = OK;
    s->w = w, s->t = t, s->want = want, s->whole_experts = whole_experts;
    s->cache = xcalloc(PLACE_CACHE, sizeof *s->cache);
    clu_place_classify(s);
    clu_place_rows(s);
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

enum err clu_place_find(struct clu_place *out, const struct clu_work *w, const struct clu_topo *t, const struct clu_want *want)
{
    bool both = want->experts == CLU_EXPERTS_AUTO && may_be_whole(w, t);
    if (!both) return find(out, w, t, want, w->info->n_experts && want->experts == CLU_EXPERTS_WHOLE);
    struct clu_place *whole = xcalloc(1, sizeof *whole);
    enum err other = find(whole, w, t, want, true), rc = find(out, w, t, want, false);
    if (!other && (rc || clearly_faster(whole->judged.tok_s, out->judged.tok_s))) *out = *whole, rc = OK;
    free(whole);
    return rc;
}

enum err clu_place_of(struct clu_place *out, const struct clu_work *w, const struct clu_topo *t,
                      const struct clu_want *want, const struct clu_layout *l)
{
    struct clu_place p = {.layout = *l};
    figures(&p, w, t, want);
    int64_t tokens = MAX(want->need_tokens, w->context), need = clu_cost_hold(w, tokens);
    if (p.n_blocks < need) {
        struct clu_memory m;
        const struct clu_device *d = &t->devices[l->device[p.tightest]];
        clu_cost_memory(w, &l->grid, p.tightest, t, l->device[p.tightest], &m);
        return err_raise(ERR_NO_FIT,
                         "rank %d (%s) needs %.2f GB: weights %.2f, step buffers %.2f, KV for %lld "
                         "tokens %.2f, the process %.2f; %.2f GB are free for it: use "
                         "more ranks, a smaller quantisation, or a shorter --context",
                         p.tightest, t->hosts[d->host].name,
                         (double)(clu_memory_fixed(&m) + need * m.kv_block) / 1e9,
                         (double)m.weights / 1e9, (double)(m.buffers + m.card) / 1e9,
                         (long long)tokens, (double)(need * m.kv_block) / 1e9,
                         (double)m.process / 1e9, (double)d->mem_bytes / 1e9);
    }
    *out = p;
    return OK;
}
