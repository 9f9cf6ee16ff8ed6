/* mask.c: see mask.h. */
#include "engine/grammar/mask.h"

#include "base/rng.h"
#include "engine/grammar/shortest.h"

#include <stdlib.h>
#include <string.h>

static size_t n_words(const struct eng_grammar_vocab *v)
{
    return (size_t)v->n / 64 + 1;
}

/* ---- states that behave alike ---- */

static int by_key(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return x[0] != y[0] ? (x[0] < y[0] ? -1 : 1) : x[1] < y[1] ? -1 : x[1] > y[1];
}

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

static int32_t n_different(const uint64_t *sig, uint64_t *scratch, int32_t n)
{
    int32_t k = n > 0;
    memcpy(scratch, sig, (size_t)n * 2 * sizeof *sig);
    qsort(scratch, (size_t)n, 2 * sizeof *sig, by_key);
    for (int32_t i = 1; i < n; i++) k += by_key(scratch + 2 * i, scratch + 2 * (i - 1)) != 0;
    return k;
}

static void find_alike(struct masker *k)
{
    const struct program *p = k->m->p;
    int32_t n = p->n_states, before = 0;
    uint64_t *a = xcalloc(2 * (size_t)n, sizeof *a), *b = xmalloc(2 * (size_t)n * sizeof *b), *t;
    for (int32_t i = 0; i <= k->v->longest; i++) {
        for (int32_t s = 0; s < n; s++) sign(p, s, a, b + 2 * s);
        t = a, a = b, b = t;
        if (i % 8 != 7) continue;
        int32_t now = n_different(a, b, n);
        if (now == before || now == n) break; /* nothing will be told apart any more */
        before = now;
    }
    struct map64 first = {0};
    for (int32_t s = 0; s < n; s++) {
        int32_t same = map64_get(&first, a[2 * s]);
        k->like[s] = same >= 0 && a[2 * same + 1] == a[2 * s + 1] ? same : s;
        if (same < 0) map64_put(&first, a[2 * s], s);
    }
    map64_free(&first);
    free(a);
    free(b);
}

void eng_masker_open(struct masker *k, struct machine *m, const struct eng_grammar_vocab *v)
{
    size_t n = (size_t)m->p->n_states;
    *k = (struct masker){.m = m,
                         .v = v,
                         .like = xmalloc(n * sizeof *k->like),
                         .path = xmalloc(((size_t)v->longest + 2) * sizeof *k->path),
                         .scratch = xmalloc(n_words(v) * sizeof *k->scratch)};
    for (int32_t i = 0; i < MASKS_KEPT; i++) k->kept[i].set = -1;
    find_alike(k);
}

void eng_masker_close(struct masker *k)
{
    for (int32_t i = 0; i < k->n_parts; i++) {
        free(k->parts[i].tokens);
        free(k->parts[i].bits);
        free(k->parts[i].escapes);
    }
    for (int32_t i = 0; i < MASKS_KEPT; i++) free(k->kept[i].bits);
    free(k->parts);
    free(k->like);
    map64_free(&k->part_of);
    free(k->path);
    free(k->scratch);
    free(k->escapes);
    *k = (struct masker){0};
}

void eng_masker_forget(struct masker *k)
{
    for (int32_t i = 0; i < MASKS_KEPT; i++) k->kept[i].set = -1;
}

/* ---- walks ---- */

static void put_tokens(const struct eng_grammar_vocab *v, int32_t id, uint64_t *bits)
{
    for (; id >= 0; id = v->same[id]) bits[id / 64] |= 1ull << (id % 64);
}

/* Mark the tokens below node `at` that `set` can take. escapes: count and remember nodes where the
 * hole is reached. */
static int32_t walk(struct masker *k, int32_t at, int32_t set, uint64_t *bits, bool escapes)
{
    const struct token_node *t = k->v->nodes;
    int32_t n = 0, end = t[at].end, *path = k->path;
    path[t[at].depth] = set;
    for (int32_t i = at + 1; i < end;) {
        set = eng_machine_step(k->m, path[t[i].depth - 1], t[i].byte);
        if (set < 0) {
            i = t[i].end;
            continue;
        }
        path[t[i].depth] = set;
        if (t[i].token >= 0) put_tokens(k->v, t[i].token, bits);
        if (escapes && (k->m->sets[set].flags & SET_ESCAPES) && t[i].end > i + 1) {
            if (n == k->cap_escapes) {
                k->cap_escapes = MAX(256, 2 * n);
                k->escapes = xrealloc(k->escapes, (size_t)k->cap_escapes * sizeof *k->escapes);
            }
            k->escapes[n++] = i;
        }
        i = k->m->sets[set].n ? i + 1 : t[i].end;
    }
    return n;
}

static void list_tokens(struct mask_part *p, size_t words)
{
    int32_t n = 0;
    for (size_t i = 0; i < words; i++) n += __builtin_popcountll(p->bits[i]);
    if ((size_t)n > words) return;
    p->tokens = xmalloc(((size_t)n + 1) * sizeof *p->tokens);
    for (size_t i = 0; i < words; i++)
        for (uint64_t w = p->bits[i]; w; w &= w - 1)
            p->tokens[p->n_tokens++] = (int32_t)(i * 64) + __builtin_ctzll(w);
    free(p->bits);
    p->bits = NULL;
}

static const struct mask_part *part_of(struct masker *k, int32_t state, int32_t below)
{
    state = k->like[state];
    if (below >= 0) below = k->like[below];
    uint64_t key = (uint64_t)(uint32_t)state << 32 | (uint32_t)(below + 1);
    int32_t i = map64_get(&k->part_of, key);
    if (i >= 0) return &k->parts[i];
    struct mask_part p = {.bits = xcalloc(n_words(k->v), sizeof *p.bits)};
    p.n_escapes = walk(k, 0, eng_machine_alone(k->m, state, below), p.bits, true);
    p.escapes = xmalloc(((size_t)p.n_escapes + 1) * sizeof *p.escapes);
    if (p.n_escapes) memcpy(p.escapes, k->escapes, (size_t)p.n_escapes * sizeof *p.escapes);
    list_tokens(&p, n_words(k->v));
    if (k->n_parts == k->cap_parts) {
        k->cap_parts = MAX(64, 2 * k->cap_parts);
        k->parts = xrealloc(k->parts, (size_t)k->cap_parts * sizeof *k->parts);
    }
    map64_put(&k->part_of, key, k->n_parts);
    k->parts[k->n_parts] = p;
    return &k->parts[k->n_parts++];
}

static void add_part(struct masker *k, struct machine_item x, uint64_t *bits)
{
    const struct machine_frame f = k->m->frames[x.frame];
    const struct mask_part *p = part_of(k, x.state, f.state);
    if (p->bits)
        for (size_t i = 0; i < n_words(k->v); i++) bits[i] |= p->bits[i];
    for (int32_t i = 0; i < p->n_tokens; i++)
        bits[p->tokens[i] / 64] |= 1ull << (p->tokens[i] % 64);
    if (f.frame <= FRAME_END || !p->n_escapes) return;
    int32_t set = eng_machine_return(k->m, f.frame);
    for (int32_t i = 0; i < p->n_escapes; i++) walk(k, p->escapes[i], set, bits, false);
}

static void add_eog(const struct masker *k, int32_t set, uint64_t *bits)
{
    if (!(k->m->sets[set].flags & SET_ACCEPTS)) return;
    for (int32_t i = 0; i < k->v->n_eog; i++)
        bits[k->v->eog[i] / 64] |= 1ull << (k->v->eog[i] % 64);
}

bool eng_masker_knows(const struct masker *k, int32_t set)
{
    for (int32_t i = 0; i < MASKS_KEPT; i++)
        if (k->kept[i].set == set) return true;
    return false;
}

const uint64_t *eng_masker_mask(struct masker *k, int32_t set)
{
    for (int32_t i = 0; i < MASKS_KEPT; i++)
        if (k->kept[i].set == set) return k->kept[i].bits;
    int32_t slot = k->next_kept++ % MASKS_KEPT;
    uint64_t *bits = k->kept[slot].bits;
    if (!bits) bits = k->kept[slot].bits = xmalloc(n_words(k->v) * sizeof *bits);
    memset(bits, 0, n_words(k->v) * sizeof *bits);
    /* items may move while walks add sets */
    for (int32_t i = 0; i < k->m->sets[set].n; i++)
        add_part(k, k->m->items[k->m->sets[set].first + i], bits);
    add_eog(k, set, bits);
    k->kept[slot].set = set;
    return bits;
}

/* So many bytes are never more tokens; beyond that the way has to be gone. */
static bool within(struct masker *k, struct map64 *known, int32_t set, int32_t n_tokens)
{
    if (k->m->sets[set].need <= n_tokens) return true;
    int32_t n = map64_get(known, (uint64_t)set);
    if (n < 0) map64_put(known, (uint64_t)set, n = eng_shortest_tokens(k->m, k->v, set));
    return n <= n_tokens;
}

const uint64_t *eng_masker_mask_within(struct masker *k, int32_t set, int32_t n_tokens)
{
    const struct token_node *t = k->v->nodes;
    struct map64 known = {0};
    memset(k->scratch, 0, n_words(k->v) * sizeof *k->scratch);
    k->path[0] = set;
    for (int32_t i = 1; i < k->v->n_nodes;) {
        int32_t to = eng_machine_step(k->m, k->path[t[i].depth - 1], t[i].byte);
        k->path[t[i].depth] = to;
        if (to >= 0 && t[i].token >= 0 && within(k, &known, to, n_tokens))
            put_tokens(k->v, t[i].token, k->scratch);
        i = to < 0 ? t[i].end : i + 1;
    }
    map64_free(&known);
    add_eog(k, set, k->scratch);
    return k->scratch;
}
