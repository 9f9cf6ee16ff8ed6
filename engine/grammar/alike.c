/* alike.c: see alike.h. */
#include "engine/grammar/alike.h"

#include "base/rng.h"
#include "engine/grammar/map64.h"

#include <stdlib.h>

enum { N_CLASSES = 256, ROUNDS = 16, MOST_STATES = 1 << 17 };

/* ---- the horizon ---- */

struct bytes {
    uint64_t w[4];
}; /* a set of classes of bytes */

static bool has(const struct bytes *b, int c)
{
    return b->w[c / 64] >> (c % 64) & 1;
}

static bool add(struct bytes *to, const struct bytes *from)
{
    uint64_t new = 0;
    for (int i = 0; i < 4; i++) new |= from->w[i] & ~to->w[i], to->w[i] |= from->w[i];
    return new != 0;
}

static struct bytes classes(const struct program *p, const struct prog_edge *e)
{
    struct bytes b = {{0}};
    for (int c = p->class_of[e->lo]; c <= p->class_of[e->hi]; c++) b.w[c / 64] |= 1ull << (c % 64);
    return b;
}

/* first[s]: what may be the next byte in state s, of its rule or of one that it calls. False: not settled in
 * a few rounds. */
static bool find_first(const struct program *p, struct bytes *first)
{
    bool changed = true;
    for (int32_t s = 0; s < p->n_states; s++)
        for (int32_t i = 0; i < p->states[s].n_edges; i++) {
            struct bytes b = classes(p, &p->edges[p->states[s].edge + i]);
            add(&first[s], &b);
        }
    for (int round = 0; changed && round < ROUNDS; round++) {
        changed = false;
        for (int32_t s = p->n_states - 1; s >= 0; s--)
            for (int32_t i = 0; i < p->states[s].n_calls; i++) {
                const struct prog_call *c = &p->calls[p->states[s].call + i];
                changed |= add(&first[s], &first[p->rules[c->rule]]);
                if (!p->states[p->rules[c->rule]].need) changed |= add(&first[s], &first[c->to]);
            }
    }
    return !changed;
}

/* next[c]: what may follow a byte of class c anywhere; next[N_CLASSES]: what may stand anywhere. */
static void find_next(const struct program *p, const struct bytes *first, struct bytes *next)
{
    struct bytes after_calls = {{0}};
    for (int32_t i = 0; i < p->n_calls; i++) add(&after_calls, &first[p->calls[i].to]);
    for (int32_t i = 0; i < p->n_edges; i++) {
        const struct prog_edge *e = &p->edges[i];
        struct bytes b = classes(p, e);
        add(&next[N_CLASSES], &b);
        for (int c = p->class_of[e->lo]; c <= p->class_of[e->hi]; c++) {
            add(&next[c], &first[e->to]);
            if (!p->states[e->to].need) add(&next[c], &after_calls);
        }
    }
}

static int32_t horizon_of(const struct program *p, const struct eng_grammar_vocab *v)
{
    const struct token_node *t = v->nodes;
    if (p->n_states > MOST_STATES) return v->longest;
    struct bytes *first = xcalloc((size_t)p->n_states, sizeof *first),
                 *next = xcalloc(N_CLASSES + 1, sizeof *next);
    int32_t best = 0;
    uint8_t *path = xmalloc((size_t)v->longest + 1);
    if (find_first(p, first)) {
        find_next(p, first, next);
        for (int32_t i = 1; i < v->n_nodes && best < v->longest;) {
            int c = p->class_of[t[i].byte], before = t[i].depth > 1 ? path[t[i].depth - 1] : N_CLASSES;
            path[t[i].depth] = (uint8_t)c;
            bool can = has(&next[before], c);
            if (can) best = MAX(best, t[i].depth);
            i = can && v->deepest[i] > best ? i + 1 : t[i].end;
        }
    } else {
        best = v->longest;
    }
    free(first);
    free(next);
    free(path);
    return best;
}

/* ---- signatures ---- */

/* A state's signature from those of where it leads; two independent halves, as a clash would go
 * unseen. A call that may take nothing would shorten the horizon: such states are like none but
 * themselves. */
static void sign(const struct program *p, int32_t i, const uint64_t *from, uint64_t *to)
{
    const struct prog_state *s = &p->states[i];
    uint64_t sum[2] = {s->accept, s->accept + 2u};
    for (int32_t e = 0; e < s->n_edges; e++) {
        const struct prog_edge *x = &p->edges[s->edge + e];
        for (int h = 0; h < 2; h++)
            sum[h] +=
                rng_mix(from[2 * x->to + h] ^ ((uint64_t)x->lo << 8 | x->hi) ^ (uint64_t)h << 40);
    }
    for (int32_t c = 0; c < s->n_calls; c++) {
        const struct prog_call *x = &p->calls[s->call + c];
        bool nothing = !p->states[p->rules[x->rule]].need;
        for (int h = 0; h < 2; h++) {
            sum[h] +=
                rng_mix(rng_mix(from[2 * x->to + h] ^ (uint64_t)h << 40) + (uint64_t)x->rule + 77);
            if (nothing) sum[h] += rng_mix((uint64_t)i << 8 | 5u | (uint64_t)h << 50);
        }
    }
    to[0] = rng_mix(sum[0]);
    to[1] = rng_mix(sum[1] ^ 0x5bd1e995);
}

/* like[n] by signatures; how many are different. */
static int32_t represent(const uint64_t *sig, int32_t n, int32_t *like)
{
    struct map64 first = {0};
    int32_t different = 0;
    for (int32_t s = 0; s < n; s++) {
        int32_t same = map64_get(&first, sig[2 * s]);
        like[s] = same >= 0 && sig[2 * same + 1] == sig[2 * s + 1] ? same : s;
        different += like[s] == s;
        if (same < 0) map64_put(&first, sig[2 * s], s);
    }
    map64_free(&first);
    return different;
}

/* Depths at which it is looked which states are still alike: closer where tokens are many. */
static const int32_t looked_at[] = {1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64, 96};

void eng_alike_open(struct alike *a, const struct program *p, const struct eng_grammar_vocab *v)
{
    int32_t n = p->n_states, horizon = horizon_of(p, v), known = 0, *like = NULL;
    uint64_t *from = xcalloc(2 * (size_t)n, sizeof *from), *to = xmalloc(2 * (size_t)n * sizeof *to), *t;
    size_t at = 0;
    *a = (struct alike){0};
    for (int32_t d = 0; d <= horizon; d++) {
        for (int32_t s = 0; s < n; s++) sign(p, s, from, to + 2 * s);
        t = from, from = to, to = t;
        while (at < COUNT_OF(looked_at) && looked_at[at] < d) at++;
        if (d < horizon && (at == COUNT_OF(looked_at) || looked_at[at] != d)) continue;
        if (!like) like = xmalloc((size_t)n * sizeof *like);
        int32_t now = represent(from, n, like);
        if (now == known) break; /* nobody has been told apart since, so nobody ever will be */
        known = now;
        a->depth[a->n] = d;
        a->like[a->n++] = like;
        like = NULL;
    }
    a->depth[a->n - 1] = INT32_MAX;
    free(like);
    free(from);
    free(to);
}

void eng_alike_close(struct alike *a)
{
    for (int32_t i = 0; i < a->n; i++) free(a->like[i]);
    *a = (struct alike){0};
}
