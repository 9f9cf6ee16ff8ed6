/* regex.c: see regex.h: tree -> nondeterministic automaton -> deterministic one by subsets.
 *
 * The first automaton is built backwards: a piece is given the state that follows it, so nothing is
 * patched. ^ is passed only before the first character. $ is never passed on the way to another
 * character: only when asking whether the text may end here. */
#include "engine/grammar/regex.h"

#include "base/rng.h"
#include "engine/grammar/map64.h"
#include "engine/grammar/regex_tree.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_STATES = 1 << 18, MOST_MEMBERS = 8 << 20 };
enum nfa_kind { NFA_SET, NFA_SPLIT, NFA_BEGIN, NFA_END, NFA_MATCH };

struct nfa_state {
    enum nfa_kind kind;
    const struct charset *set;
    int32_t a, b;
};
struct nfa {
    struct nfa_state *s;
    int32_t n, cap;
    bool full;
};

static int32_t add(struct nfa *f, enum nfa_kind kind, const struct charset *set, int32_t a,
                   int32_t b)
{
    if (f->n >= MOST_STATES) {
        f->full = true;
        return 0;
    }
    if (f->n == f->cap) {
        f->cap = MAX(64, 2 * f->cap);
        f->s = xrealloc(f->s, (size_t)f->cap * sizeof *f->s);
    }
    f->s[f->n] = (struct nfa_state){kind, set, a, b};
    return f->n++;
}

static int32_t build(struct nfa *f, const struct regex_node *x, int32_t next);

static int32_t build_all(struct nfa *f, const struct regex_node *x, int32_t next)
{
    int32_t n = 0;
    for (const struct regex_node *c = x->first; c; c = c->next) n++;
    const struct regex_node **list = xmalloc(((size_t)n + 1) * sizeof *list);
    n = 0;
    for (const struct regex_node *c = x->first; c; c = c->next) list[n++] = c;
    while (n) next = build(f, list[--n], next);
    free(list);
    return next;
}

static int32_t build_repeat(struct nfa *f, const struct regex_node *x, int32_t next)
{
    int32_t s = next;
    if (x->max < 0) {
        s = add(f, NFA_SPLIT, NULL, -1, next);
        int32_t body = build(f, x->first, s);
        if (!f->full) f->s[s].a = body;
    }
    for (int32_t i = x->min; i < x->max && !f->full; i++)
        s = add(f, NFA_SPLIT, NULL, build(f, x->first, s), next);
    for (int32_t i = 0; i < x->min && !f->full; i++) s = build(f, x->first, s);
    return s;
}

static int32_t build(struct nfa *f, const struct regex_node *x, int32_t next)
{
    int32_t s;
    switch (x->kind) {
    case REGEX_SET:
        return add(f, NFA_SET, &x->set, next, -1);
    case REGEX_BEGIN:
        return add(f, NFA_BEGIN, NULL, next, -1);
    case REGEX_END:
        return add(f, NFA_END, NULL, next, -1);
    case REGEX_ALL:
        return build_all(f, x, next);
    case REGEX_REPEAT:
        return build_repeat(f, x, next);
    case REGEX_ANY:
        break;
    }
    s = build(f, x->first, next);
    for (const struct regex_node *c = x->first->next; c && !f->full; c = c->next)
        s = add(f, NFA_SPLIT, NULL, s, build(f, c, next));
    return s;
}

/* ---- subsets ---- */

struct subset {
    int32_t first, n;
    bool accept;
}; /* of members */

struct subsets {
    const struct nfa *f;
    int32_t *members; /* SET and END states, ascending within a subset */
    int32_t n_members, cap_members;
    struct subset *sets;
    int32_t n, cap;
    struct map64 by_hash;  /* hash -> subset; another of the same hash is looked for at hash + 1 */
    uint32_t *mark, stamp; /* [f->n] */
    int32_t *stack;        /* [2 f->n + 2] */
};

/* Everything reachable without a character, into members from n_members on; not counted yet. */
static int32_t closure(struct subsets *z, const int32_t *from, int32_t n_from, bool at_start,
                       bool at_end, bool *match)
{
    int32_t n = 0, top = 0;
    z->stamp++;
    *match = false;
    for (int32_t i = 0; i < n_from; i++)
        if (z->mark[from[i]] != z->stamp) z->mark[from[i]] = z->stamp, z->stack[top++] = from[i];
    while (top) {
        int32_t i = z->stack[--top];
        const struct nfa_state *s = &z->f->s[i];
        if (s->kind == NFA_MATCH) *match = true;
        if (s->kind == NFA_SET || s->kind == NFA_END) z->members[z->n_members + n++] = i;
        bool pass = s->kind == NFA_SPLIT || (s->kind == NFA_BEGIN && at_start) ||
                    (s->kind == NFA_END && at_end);
        if (!pass) continue;
        if (z->mark[s->a] != z->stamp) z->mark[s->a] = z->stamp, z->stack[top++] = s->a;
        if (s->b >= 0 && z->mark[s->b] != z->stamp)
            z->mark[s->b] = z->stamp, z->stack[top++] = s->b;
    }
    return n;
}

static int by_number(const void *a, const void *b)
{
    return *(const int32_t *)a < *(const int32_t *)b ? -1
                                                     : *(const int32_t *)a > *(const int32_t *)b;
}

static int32_t intern(struct subsets *z, const int32_t *from, int32_t n_from, bool at_start)
{
    bool match, ends;
    if (z->n_members + 2 * z->f->n > z->cap_members) {
        z->cap_members = 2 * z->cap_members + 2 * z->f->n;
        z->members = xrealloc(z->members, (size_t)z->cap_members * sizeof *z->members);
    }
    closure(z, from, n_from, at_start, true, &ends);
    int32_t n = closure(z, from, n_from, at_start, false, &match),
            *mine = z->members + z->n_members;
    qsort(mine, (size_t)n, sizeof *mine, by_number);
    uint64_t h = ends;
    for (int32_t i = 0; i < n; i++) h = rng_mix(h ^ (uint64_t)(uint32_t)mine[i]);
    for (int32_t i; (i = map64_get(&z->by_hash, h)) >= 0; h++) {
        const struct subset *s = &z->sets[i];
        if (s->n == n && s->accept == ends &&
            !memcmp(z->members + s->first, mine, (size_t)n * sizeof *mine))
            return i;
    }
    if (z->n == z->cap) {
        z->cap = MAX(64, 2 * z->cap);
        z->sets = xrealloc(z->sets, (size_t)z->cap * sizeof *z->sets);
    }
    z->sets[z->n] = (struct subset){z->n_members, n, ends};
    z->n_members += n;
    map64_put(&z->by_hash, h, z->n);
    return z->n++;
}

static int by_value(const void *a, const void *b)
{
    return *(const uint32_t *)a < *(const uint32_t *)b
               ? -1
               : *(const uint32_t *)a > *(const uint32_t *)b;
}

/* Where the sets of a subset's states begin and end: between two neighbours all characters behave
 * alike. */
static int32_t cuts_of(const struct subsets *z, const struct subset *s, uint32_t **cuts,
                       int32_t *cap)
{
    int32_t n = 0, unique = 0;
    for (int32_t i = 0; i < s->n; i++) {
        const struct nfa_state *x = &z->f->s[z->members[s->first + i]];
        if (x->kind != NFA_SET) continue;
        if (n + 2 * x->set->n > *cap) {
            *cap = 2 * *cap + 2 * x->set->n;
            *cuts = xrealloc(*cuts, (size_t)*cap * sizeof **cuts);
        }
        for (int32_t k = 0; k < x->set->n; k++)
            (*cuts)[n++] = x->set->r[k].lo, (*cuts)[n++] = x->set->r[k].hi + 1;
    }
    if (n) qsort(*cuts, (size_t)n, sizeof **cuts, by_value);
    for (int32_t i = 0; i < n; i++)
        if (!unique || (*cuts)[unique - 1] != (*cuts)[i]) (*cuts)[unique++] = (*cuts)[i];
    return unique;
}

static void edges(struct subsets *z, int32_t at, struct dfa_draft *d, uint32_t **cuts, int32_t *cap,
                  int32_t *to)
{
    int32_t n = cuts_of(z, &z->sets[at], cuts, cap), last = -1, last_n = -1;
    int32_t *before = to + z->f->n;
    for (int32_t c = 0; c + 1 < n; c++) {
        const struct subset s = z->sets[at];
        int32_t n_to = 0;
        for (int32_t i = 0; i < s.n; i++) {
            const struct nfa_state *x = &z->f->s[z->members[s.first + i]];
            if (x->kind == NFA_SET && eng_charset_has(x->set, (*cuts)[c])) to[n_to++] = x->a;
        }
        if (!n_to) continue;
        if (n_to != last_n || memcmp(before, to, (size_t)n_to * sizeof *to)) {
            last = intern(z, to, n_to, false);
            last_n = n_to;
            memcpy(before, to, (size_t)n_to * sizeof *to);
        }
        eng_dfa_draft_edge(d, (*cuts)[c], (*cuts)[c + 1] - 1, last);
    }
}

static enum err determinise(struct eng_dfas *s, const struct nfa *f, int32_t start,
                            const struct dfa **out)
{
    struct subsets z = {.f = f};
    struct dfa_draft d = {0};
    uint32_t *cuts = NULL;
    int32_t cap_cuts = 0, i, *to = xmalloc(2 * ((size_t)f->n + 1) * sizeof *to);
    z.mark = xcalloc((size_t)f->n, sizeof *z.mark);
    z.stack = xmalloc((2 * (size_t)f->n + 2) * sizeof *z.stack);
    intern(&z, &start, 1, true);
    for (i = 0; i < z.n && z.n_members < MOST_MEMBERS && d.n_edges + d.n_states <= s->budget; i++) {
        eng_dfa_draft_state(&d, z.sets[i].accept);
        edges(&z, i, &d, &cuts, &cap_cuts, to);
    }
    if (i < z.n) s->budget = 0;
    free(cuts);
    free(to);
    free(z.mark);
    free(z.stack);
    free(z.members);
    free(z.sets);
    map64_free(&z.by_hash);
    return eng_dfa_finish(s, &d, out);
}

/* .* around it, unless the whole text must match. */
static int32_t surround(struct nfa *f, const struct regex_node *x, struct charset *any, bool whole)
{
    int32_t match = add(f, NFA_MATCH, NULL, -1, -1), end = match, start;
    if (!whole) {
        end = add(f, NFA_SPLIT, NULL, -1, match);
        f->s[end].a = add(f, NFA_SET, any, end, -1);
    }
    start = build(f, x, end);
    if (whole || f->full) return start;
    int32_t before = add(f, NFA_SPLIT, NULL, -1, start), skip = add(f, NFA_SET, any, before, -1);
    if (!f->full) f->s[before].a = skip;
    return before;
}

enum err eng_regex_compile(struct eng_dfas *s, const char *p, size_t n, bool whole,
                           const struct dfa **out)
{
    enum err rc;
    struct regex_node *x;
    struct nfa f = {0};
    struct charset any = {0};
    TRY(eng_regex_parse(s->a, p, n, &x));
    eng_charset_add(&any, s->a, 0, LAST_CODE_POINT);
    int32_t start = surround(&f, x, &any, whole);
    if (f.full)
        TRY(err_raise(ERR_UNSUPPORTED, "the regular expression needs more than %d automaton states",
                      MOST_STATES));
    TRY(determinise(s, &f, start, out));
out:
    free(f.s);
    return rc;
}
