/* mask.c: see mask.h. */
#include "engine/grammar/mask.h"

#include "engine/grammar/shortest.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOOK_AT = 8, /* tokens below a node from which on it is worth a look whether all of them are taken */
    FEW = 6      /* of a single node of the vocabulary: not worth nodes of the tree */
};

static size_t n_words(const struct eng_grammar_vocab *v)
{
    return (size_t)v->n / 64 + 1;
}

void eng_masker_open(struct masker *k, struct machine *m, const struct eng_grammar_vocab *v)
{
    *k = (struct masker){.m = m,
                         .v = v,
                         .scratch = xmalloc(n_words(v) * sizeof *k->scratch)};
    for (int32_t i = 0; i < MASKS_KEPT; i++) k->kept[i].set = -1;
    eng_alike_open(&k->alike, m->p, v);
    eng_class_tree_open(&k->tree, m->p, v);
    k->path = xmalloc(((size_t)v->longest + 2) * sizeof *k->path);
    for (int b = 0; b < 128; b++) k->kind_of[b] = eng_vocab_kind((uint8_t)b);
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
    eng_alike_close(&k->alike);
    eng_class_tree_close(&k->tree);
    for (int i = 0; i < ALIKE_LEVELS; i++) free(k->short_of[i]);
    map64_free(&k->part_of);
    free(k->todo);
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

/* ---- loops: bytes that lead from a set back to it ---- */

/* Do all bytes lo..hi lead to sets from which the rest of a character leads back to `home`? left: bytes of it
 * after this one. One byte of each class is tried. */
static bool returns(struct masker *k, int32_t set, int32_t home, int left, int lo, int hi)
{
    const uint8_t *class_of = k->m->p->class_of;
    for (int b = lo; b <= hi; b++) {
        if (b > lo && class_of[b] == class_of[b - 1]) continue;
        int32_t to = eng_machine_step(k->m, set, (uint8_t)b);
        if (left ? to < 0 || !returns(k, to, home, left - 1, 0x80, 0xBF) : to != home) return false;
    }
    return true;
}

/* The same where a lead narrows what follows. */
static bool lead_returns(struct masker *k, int32_t set, int left, int lead, int lo, int hi)
{
    int32_t to = eng_machine_step(k->m, set, (uint8_t)lead);
    return to >= 0 && returns(k, to, set, left, lo, hi);
}

static bool loops_on(struct masker *k, int32_t set, int kind)
{
    if (kind == KIND_BROKEN) return false;
    if (kind == KIND_WIDE)
        return returns(k, set, set, 1, 0xC2, 0xDF) && lead_returns(k, set, 1, 0xE0, 0xA0, 0xBF) &&
               returns(k, set, set, 2, 0xE1, 0xEC) && lead_returns(k, set, 1, 0xED, 0x80, 0x9F) &&
               returns(k, set, set, 2, 0xEE, 0xEF) && lead_returns(k, set, 2, 0xF0, 0x90, 0xBF) &&
               returns(k, set, set, 3, 0xF1, 0xF3) && lead_returns(k, set, 2, 0xF4, 0x80, 0x8F);
    for (int b = 0; b < 0x80; b++)
        if (k->kind_of[b] == kind && eng_machine_step(k->m, set, (uint8_t)b) != set) return false;
    return true;
}

/* Does whatever stands below the node lead from the set back to it? */
static bool loops(struct masker *k, int32_t set, uint32_t kinds)
{
    while (kinds & ~k->m->sets[set].tried) {
        if ((kinds & k->m->sets[set].tried & ~k->m->sets[set].loops) != 0) return false;
        int kind = __builtin_ctz(kinds & ~k->m->sets[set].tried);
        bool back = loops_on(k, set, kind); /* the sets may move */
        k->m->sets[set].tried |= 1u << kind;
        k->m->sets[set].loops |= (uint32_t)back << kind;
    }
    return !(kinds & ~k->m->sets[set].loops);
}

static void remember_escape(struct masker *k, int32_t n, int32_t node)
{
    if (n == k->cap_escapes) {
        k->cap_escapes = MAX(256, 2 * n);
        k->escapes = xrealloc(k->escapes, (size_t)k->cap_escapes * sizeof *k->escapes);
    }
    k->escapes[n] = node;
}

static void push(struct masker *k, int32_t *n, int32_t node, int32_t set)
{
    if (*n == k->cap_todo) {
        k->cap_todo = MAX(256, 2 * *n);
        k->todo = xrealloc(k->todo, (size_t)k->cap_todo * sizeof *k->todo);
    }
    k->todo[(*n)++] = (struct step){node, set};
}

/* As walk, below a node of the vocabulary itself. */
static int32_t walk_few(struct masker *k, int32_t at, int32_t set, int32_t beyond, uint64_t *bits,
                        bool escapes, int32_t n)
{
    const struct token_node *t = k->v->nodes;
    int32_t end = t[at].end;
    k->path[t[at].depth] = set;
    for (int32_t i = at + 1; i < end;) {
        set = k->v->deepest[i] <= beyond
                  ? SET_DEAD
                  : eng_machine_step(k->m, k->path[t[i].depth - 1], t[i].byte);
        if (set >= 0) {
            bool deep = t[i].depth > beyond;
            k->path[t[i].depth] = set;
            for (int32_t id = deep ? t[i].token : -1; id >= 0; id = k->v->same[id])
                bits[id / 64] |= 1ull << (id % 64);
            if (deep && escapes && (k->m->sets[set].flags & SET_ESCAPES) && t[i].end > i + 1)
                remember_escape(k, n++, ~i);
        }
        i = set >= 0 && k->m->sets[set].n ? i + 1 : t[i].end;
    }
    return n;
}

/* Mark the tokens below node `at` of the tree (or, negative, ~at of the vocabulary) that `set` can take and that are
 * longer than `beyond`. escapes: remember, behind the n there are, nodes deeper than that where the hole is reached;
 * returns how many there are then. */
static int32_t walk(struct masker *k, int32_t at, int32_t set, int32_t beyond, uint64_t *bits,
                    bool escapes, int32_t n)
{
    int32_t n_todo = 0;
    if (at < 0) return walk_few(k, ~at, set, beyond, bits, escapes, n);
    push(k, &n_todo, at, set);
    while (n_todo) {
        const struct step from = k->todo[--n_todo];
        eng_class_tree_look(&k->tree, from.node);
        const int32_t first = k->tree.nodes[from.node].child,
                      last = first + k->tree.nodes[from.node].n_children;
        for (int32_t i = first; i < last; i++) {
            const struct class_node *x = &k->tree.nodes[i];
            if (x->deepest <= beyond) continue;
            int32_t to = eng_machine_step_class(k->m, from.set, x->class);
            if (to < 0) continue;
            bool deep = x->depth > beyond, more = x->all > x->n_tokens,
                 escape = escapes && (k->m->sets[to].flags & SET_ESCAPES);
            if (deep) eng_class_tree_put(&k->tree, i, bits);
            if (!more) continue;
            if (deep && escape) remember_escape(k, n++, i);
            if (x->all > LOOK_AT && !escape && loops(k, to, x->below))
                eng_class_tree_put_below(&k->tree, i, bits);
            else if (x->n_members == 1 && x->all <= FEW)
                n = walk_few(k, k->tree.members[x->members], to, beyond, bits, escapes, n);
            else if (k->m->sets[to].n)
                push(k, &n_todo, i, to);
        }
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

/* A pair of states at a level. */
static uint64_t key_of(const struct masker *k, int level, int32_t state, int32_t below)
{
    const int32_t *like = k->alike.like[level];
    uint64_t pair = (uint64_t)(uint32_t)like[state] << 32 | (uint32_t)(below < 0 ? 0 : like[below] + 1);
    return pair << 5 | (uint64_t)level; /* states are fewer than 2^22 */
}

/* Tokens of at most as many bytes as the level is deep. */
static const uint64_t *short_of(struct masker *k, int level)
{
    if (k->short_of[level]) return k->short_of[level];
    uint64_t *bits = k->short_of[level] = xcalloc(n_words(k->v), sizeof *bits);
    for (int32_t i = 0; i < k->v->n; i++)
        bits[i / 64] |= (uint64_t)(k->v->length[i] <= k->alike.depth[level]) << (i % 64);
    return bits;
}

/* What the part of a pair of states that is alike as far as that level says of tokens within its depth; returns how
 * many escapes of it are remembered. */
static int32_t take_over(struct masker *k, const struct mask_part *from, int level, uint64_t *bits)
{
    const uint64_t *known = short_of(k, level);
    int32_t n = 0;
    if (from->bits)
        for (size_t i = 0; i < n_words(k->v); i++) bits[i] = from->bits[i] & known[i];
    for (int32_t i = 0; i < from->n_tokens; i++)
        if (k->v->length[from->tokens[i]] <= k->alike.depth[level])
            bits[from->tokens[i] / 64] |= 1ull << (from->tokens[i] % 64);
    for (int32_t i = 0; i < from->n_escapes; i++) {
        const int32_t e = from->escapes[i],
                      depth = e < 0 ? k->v->nodes[~e].depth : k->tree.nodes[e].depth;
        if (depth <= k->alike.depth[level]) remember_escape(k, n++, e);
    }
    return n;
}

static const struct mask_part *part_of(struct masker *k, int32_t state, int32_t below)
{
    int level = k->alike.n - 1, deepest = level, donor = -1;
    while (level >= 0 && (donor = map64_get(&k->part_of, key_of(k, level, state, below))) < 0) level--;
    if (donor >= 0 && level == deepest) return &k->parts[donor];
    struct mask_part p = {.bits = xcalloc(n_words(k->v), sizeof *p.bits)};
    int32_t n = donor < 0 ? 0 : take_over(k, &k->parts[donor], level, p.bits);
    p.n_escapes = walk(k, 0, eng_machine_alone(k->m, state, below), donor < 0 ? 0 : k->alike.depth[level],
                       p.bits, below >= 0, n);
    p.escapes = xmalloc(((size_t)p.n_escapes + 1) * sizeof *p.escapes);
    if (p.n_escapes) memcpy(p.escapes, k->escapes, (size_t)p.n_escapes * sizeof *p.escapes);
    list_tokens(&p, n_words(k->v));
    if (k->n_parts == k->cap_parts) {
        k->cap_parts = MAX(64, 2 * k->cap_parts);
        k->parts = xrealloc(k->parts, (size_t)k->cap_parts * sizeof *k->parts);
    }
    /* where nothing is known yet: for those alike as far as that, but no further */
    for (; deepest > level; deepest--) map64_put(&k->part_of, key_of(k, deepest, state, below), k->n_parts);
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
    for (int32_t i = 0; i < p->n_escapes; i++) walk(k, p->escapes[i], set, 0, bits, false, 0);
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
    if (n < 0) map64_put(known, (uint64_t)set, n = eng_shortest_tokens(k->m, k->v, set, n_tokens));
    return n <= n_tokens;
}

const uint64_t *eng_masker_mask_within(struct masker *k, int32_t set, int32_t n_tokens)
{
    struct map64 known = {0};
    int32_t n_todo = 0;
    memset(k->scratch, 0, n_words(k->v) * sizeof *k->scratch);
    push(k, &n_todo, 0, set);
    while (n_todo) {
        const struct step from = k->todo[--n_todo];
        eng_class_tree_look(&k->tree, from.node);
        const int32_t first = k->tree.nodes[from.node].child,
                      last = first + k->tree.nodes[from.node].n_children;
        for (int32_t i = first; i < last; i++) {
            int32_t to = eng_machine_step_class(k->m, from.set, k->tree.nodes[i].class);
            if (to < 0) continue;
            if (k->tree.nodes[i].n_tokens && within(k, &known, to, n_tokens))
                eng_class_tree_put(&k->tree, i, k->scratch);
            push(k, &n_todo, i, to);
        }
    }
    map64_free(&known);
    add_eog(k, set, k->scratch);
    return k->scratch;
}
