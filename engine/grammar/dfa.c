/* dfa.c: see dfa.h. */
#include "engine/grammar/dfa.h"

#include "engine/grammar/map64.h"

#include <stdlib.h>
#include <string.h>

enum { BUDGET = 4 << 20 };

static const struct dfa_edge every[] = {{0, 0xD7FF, 0}, {0xE000, LAST_CODE_POINT, 0}};
static const struct dfa_state yes = {0, 2, true}, no = {0, 0, false};
static const struct dfa all_texts = {1, 2, &yes, every}, no_texts = {1, 0, &no, NULL};

void eng_dfas_open(struct eng_dfas *s, struct arena *a)
{
    *s = (struct eng_dfas){.a = a, .budget = BUDGET, .all = &all_texts, .none = &no_texts};
}

/* ---- drafts ---- */

static void *room(void *p, int32_t *cap, int32_t n, size_t size)
{
    if (n < *cap) return p;
    *cap = MAX(32, 2 * *cap);
    return xrealloc(p, (size_t)*cap * size);
}

void eng_dfa_draft_state(struct dfa_draft *d, bool accept)
{
    d->states = room(d->states, &d->cap_states, d->n_states, sizeof *d->states);
    d->states[d->n_states++] = (struct dfa_state){d->n_edges, 0, accept};
}

void eng_dfa_draft_edge(struct dfa_draft *d, uint32_t lo, uint32_t hi, int32_t to)
{
    struct dfa_state *s = &d->states[d->n_states - 1];
    struct dfa_edge *last = s->n ? &d->edges[d->n_edges - 1] : NULL;
    if (last && last->to == to && last->hi + 1 == lo) {
        last->hi = hi;
        return;
    }
    d->edges = room(d->edges, &d->cap_edges, d->n_edges, sizeof *d->edges);
    d->edges[d->n_edges++] = (struct dfa_edge){lo, hi, to};
    s->n++;
}

/* live[i]: does state i reach an accepting one? Backwards over the edges. */
static void find_live(const struct dfa_draft *d, bool *live)
{
    int32_t *first = xcalloc((size_t)d->n_states + 2, sizeof *first),
            *from = xmalloc(((size_t)d->n_edges + 1) * sizeof *from);
    int32_t *queue = xmalloc(((size_t)d->n_states + 1) * sizeof *queue), n = 0;
    for (int32_t e = 0; e < d->n_edges; e++) first[d->edges[e].to + 2]++;
    for (int32_t i = 0; i < d->n_states; i++) first[i + 1] += first[i];
    for (int32_t i = 0; i < d->n_states; i++)
        for (int32_t e = 0; e < d->states[i].n; e++)
            from[first[d->edges[d->states[i].first + e].to + 1]++] = i;
    for (int32_t i = 0; i < d->n_states; i++)
        if (d->states[i].accept) live[i] = true, queue[n++] = i;
    while (n) {
        int32_t s = queue[--n];
        for (int32_t k = first[s]; k < first[s + 1]; k++)
            if (!live[from[k]]) live[from[k]] = true, queue[n++] = from[k];
    }
    free(first);
    free(from);
    free(queue);
}

static const struct dfa *keep(struct eng_dfas *s, const struct dfa_draft *d, const bool *live)
{
    int32_t *name = xmalloc((size_t)d->n_states * sizeof *name), n = 0, m = 0;
    struct dfa_state *states = arena_alloc(s->a, (size_t)d->n_states * sizeof *states);
    struct dfa_edge *edges = arena_alloc(s->a, ((size_t)d->n_edges + 1) * sizeof *edges);
    for (int32_t i = 0; i < d->n_states; i++) name[i] = live[i] ? n++ : -1;
    for (int32_t i = 0; i < d->n_states; i++) {
        if (!live[i]) continue;
        struct dfa_state *to = &states[name[i]];
        *to = (struct dfa_state){m, 0, d->states[i].accept};
        for (int32_t e = 0; e < d->states[i].n; e++) {
            const struct dfa_edge *x = &d->edges[d->states[i].first + e];
            if (live[x->to]) edges[m++] = (struct dfa_edge){x->lo, x->hi, name[x->to]}, to->n++;
        }
    }
    free(name);
    struct dfa *out = arena_alloc(s->a, sizeof *out);
    *out = (struct dfa){n, m, states, edges};
    return out;
}

static enum err spent(void)
{
    return err_raise(ERR_UNSUPPORTED,
                     "the set of texts needs more than %d automaton states and edges", BUDGET);
}

enum err eng_dfa_finish(struct eng_dfas *s, struct dfa_draft *d, const struct dfa **out)
{
    enum err rc = OK;
    s->budget -= d->n_states + d->n_edges;
    if (s->budget < 0)
        rc = spent();
    else {
        bool *live = xcalloc((size_t)d->n_states + 1, sizeof *live);
        find_live(d, live);
        *out = live[0] ? keep(s, d, live) : s->none;
        free(live);
    }
    free(d->states);
    free(d->edges);
    *d = (struct dfa_draft){0};
    return rc;
}

/* ---- products ---- */

struct pairs {
    struct map64 map;
    int32_t (*of)[2];
    int32_t n, cap;
};

static int32_t pair(struct pairs *p, int32_t a, int32_t b)
{
    uint64_t key = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
    int32_t i = map64_get(&p->map, key);
    if (i >= 0) return i;
    p->of = room(p->of, &p->cap, p->n, sizeof *p->of);
    p->of[p->n][0] = a;
    p->of[p->n][1] = b;
    map64_put(&p->map, key, p->n);
    return p->n++;
}

struct cursor {
    const struct dfa_edge *e, *end;
};

static struct cursor edges_of(const struct dfa *d, int32_t state)
{
    if (state < 0) return (struct cursor){0};
    const struct dfa_edge *e = d->n_edges ? d->edges + d->states[state].first : NULL;
    return (struct cursor){e, e ? e + d->states[state].n : NULL};
}

/* Where `at` leads, and the last code point for which that holds. */
static int32_t lookup(struct cursor *c, uint32_t at, uint32_t *until)
{
    while (c->e != c->end && c->e->hi < at) c->e++;
    if (c->e == c->end) return -1;
    if (c->e->lo > at) {
        *until = MIN(*until, c->e->lo - 1);
        return -1;
    }
    *until = MIN(*until, c->e->hi);
    return c->e->to;
}

static bool useful(enum dfa_op op, int32_t a, int32_t b)
{
    return op == DFA_OR ? a >= 0 || b >= 0 : op == DFA_AND ? a >= 0 && b >= 0 : a >= 0;
}

static void product_state(struct dfa_draft *d, struct pairs *p, enum dfa_op op, const struct dfa *a,
                          const struct dfa *b, int32_t x, int32_t y)
{
    bool ina = x >= 0 && a->states[x].accept, inb = y >= 0 && b->states[y].accept;
    struct cursor ca = edges_of(a, x), cb = edges_of(b, y);
    eng_dfa_draft_state(d, op == DFA_OR ? ina || inb : op == DFA_AND ? ina && inb : ina && !inb);
    for (uint32_t at = 0; at <= LAST_CODE_POINT;) {
        uint32_t until = LAST_CODE_POINT;
        int32_t ta = lookup(&ca, at, &until), tb = lookup(&cb, at, &until);
        if (useful(op, ta, tb)) eng_dfa_draft_edge(d, at, until, pair(p, ta, tb));
        at = until + 1;
    }
}

static const struct dfa *shortcut(const struct eng_dfas *s, enum dfa_op op, const struct dfa *a,
                                  const struct dfa *b)
{
    if (op == DFA_MINUS)
        return a == b || b == s->all ? s->none : a == s->none || b == s->none ? a : NULL;
    const struct dfa *unit = op == DFA_AND ? s->all : s->none,
                     *zero = op == DFA_AND ? s->none : s->all;
    if (a == b || b == unit || a == zero) return a;
    return a == unit || b == zero ? b : NULL;
}

enum err eng_dfa_op(struct eng_dfas *s, enum dfa_op op, const struct dfa *a, const struct dfa *b,
                    const struct dfa **out)
{
    const struct dfa *quick = shortcut(s, op, a, b);
    struct dfa_draft d = {0};
    struct pairs p = {0};
    if (quick) {
        *out = quick;
        return OK;
    }
    pair(&p, 0, 0);
    for (int32_t i = 0; i < p.n && d.n_states + d.n_edges <= s->budget; i++)
        product_state(&d, &p, op, a, b, p.of[i][0], p.of[i][1]);
    bool whole = d.n_states == p.n;
    map64_free(&p.map);
    free(p.of);
    if (!whole) s->budget = 0;
    return eng_dfa_finish(s, &d, out);
}

/* ---- makers ---- */

enum err eng_dfa_length(struct eng_dfas *s, int64_t min, int64_t max, const struct dfa **out)
{
    struct dfa_draft d = {0};
    if ((max >= 0 && min > max) || MAX(min, max) > s->budget / 4) {
        if (max >= 0 && min > max) return *out = s->none, OK;
        return spent();
    }
    int64_t last = max >= 0 ? max : min;
    for (int64_t i = 0; i <= last; i++) {
        eng_dfa_draft_state(&d, i >= min);
        if (i == last && max >= 0) break;
        int32_t to = (int32_t)MIN(i + 1, last);
        for (size_t k = 0; k < COUNT_OF(every); k++)
            eng_dfa_draft_edge(&d, every[k].lo, every[k].hi, to);
    }
    return eng_dfa_finish(s, &d, out);
}

static int by_text(const void *a, const void *b)
{
    const struct dfa_word *x = a, *y = b;
    int c = memcmp(x->p, y->p, MIN(x->n, y->n));
    return c ? c : x->n < y->n ? -1 : x->n > y->n;
}

/* Words [lo,hi) agree in their first `at` bytes: a state of the tree of prefixes. */
struct branch {
    int32_t lo, hi;
    size_t at;
};

/* UTF-8 sorts as code points do, so equal prefixes are neighbours and edges come out ascending. */
enum err eng_dfa_words(struct eng_dfas *s, const struct dfa_word *words, int32_t n,
                       const struct dfa **out)
{
    struct dfa_word *w = xmalloc(((size_t)n + 1) * sizeof *w);
    struct branch *todo = NULL;
    int32_t n_todo = 1, cap = 0;
    struct dfa_draft d = {0};
    memcpy(w, words, (size_t)n * sizeof *w);
    if (n) qsort(w, (size_t)n, sizeof *w, by_text);
    todo = room(todo, &cap, 0, sizeof *todo);
    todo[0] = (struct branch){0, n, 0};
    for (int32_t i = 0; i < n_todo && i <= s->budget; i++) {
        struct branch b = todo[i];
        bool accept = b.lo < b.hi && w[b.lo].n == b.at;
        eng_dfa_draft_state(&d, accept);
        while (b.lo < b.hi && w[b.lo].n == b.at) b.lo++;
        while (b.lo < b.hi) {
            size_t len = 1;
            int32_t cp = eng_utf8_next(w[b.lo].p + b.at, w[b.lo].n - b.at, &len), k = b.lo + 1;
            while (k < b.hi && w[k].n >= b.at + len &&
                   !memcmp(w[k].p + b.at, w[b.lo].p + b.at, len))
                k++;
            if (cp >= 0) {
                todo = room(todo, &cap, n_todo, sizeof *todo);
                todo[n_todo] = (struct branch){b.lo, k, b.at + len};
                eng_dfa_draft_edge(&d, (uint32_t)cp, (uint32_t)cp, n_todo++);
            }
            b.lo = k;
        }
    }
    if (d.n_states < n_todo) s->budget = 0;
    free(w);
    free(todo);
    return eng_dfa_finish(s, &d, out);
}

/* How much of the mark's beginning ends the text, when c follows k letters of it. */
static int32_t matched(const uint32_t *mark, int32_t k, uint32_t c)
{
    for (int32_t n = k + 1; n > 0; n--) {
        bool same = mark[n - 1] == c;
        for (int32_t i = 0; same && i < n - 1; i++) same = mark[i] == mark[k - (n - 1) + i];
        if (same) return n;
    }
    return 0;
}

static int by_letter(const void *a, const void *b)
{
    return *(const uint32_t *)a < *(const uint32_t *)b ? -1
                                                       : *(const uint32_t *)a > *(const uint32_t *)b;
}

/* To the start, but for the surrogates. */
static void to_start(struct dfa_draft *d, uint32_t lo, uint32_t hi)
{
    for (size_t k = 0; k < COUNT_OF(every); k++)
        if (MAX(lo, every[k].lo) <= MIN(hi, every[k].hi))
            eng_dfa_draft_edge(d, MAX(lo, every[k].lo), MIN(hi, every[k].hi), 0);
}

enum err eng_dfa_without(struct eng_dfas *s, struct dfa_word mark, const struct dfa **out)
{
    uint32_t *c = xmalloc((mark.n + 1) * sizeof *c), *letters = xmalloc((mark.n + 1) * sizeof *c);
    struct dfa_draft d = {0};
    int32_t n = 0;
    for (size_t at = 0, len; at < mark.n; at += len) {
        int32_t cp = eng_utf8_next(mark.p + at, mark.n - at, &len);
        letters[n] = c[n] = cp < 0 ? 0xFFFD : (uint32_t)cp;
        n++;
    }
    qsort(letters, (size_t)n, sizeof *letters, by_letter);
    for (int32_t k = 0; k < n; k++) {
        uint32_t at = 0;
        eng_dfa_draft_state(&d, true);
        for (int32_t i = 0; i < n; i++) {
            if (i && letters[i] == letters[i - 1]) continue;
            int32_t to = matched(c, k, letters[i]);
            if (letters[i] > at) to_start(&d, at, letters[i] - 1);
            if (to < n) eng_dfa_draft_edge(&d, letters[i], letters[i], to);
            at = letters[i] + 1;
        }
        if (at <= LAST_CODE_POINT) to_start(&d, at, LAST_CODE_POINT);
    }
    free(c);
    free(letters);
    return eng_dfa_finish(s, &d, out);
}

enum err eng_dfa_explore(struct eng_dfas *s, const char *alphabet, int64_t start,
                         int64_t (*step)(const void *, int64_t, char),
                         bool (*accept)(const void *, int64_t), const void *user,
                         const struct dfa **out)
{
    struct map64 seen = {0};
    int64_t *todo = NULL;
    int32_t n = 1, cap = 0;
    struct dfa_draft d = {0};
    todo = room(todo, &cap, 0, sizeof *todo);
    todo[0] = start;
    map64_put(&seen, (uint64_t)start, 0);
    for (int32_t i = 0; i < n && i <= s->budget; i++) {
        eng_dfa_draft_state(&d, accept(user, todo[i]));
        for (const char *c = alphabet; *c; c++) {
            int64_t to = step(user, todo[i], *c);
            if (to < 0) continue;
            int32_t k = map64_get(&seen, (uint64_t)to);
            if (k < 0) {
                k = n++;
                todo = room(todo, &cap, k, sizeof *todo);
                todo[k] = to;
                map64_put(&seen, (uint64_t)to, k);
            }
            eng_dfa_draft_edge(&d, (uint8_t)*c, (uint8_t)*c, k);
        }
    }
    if (d.n_states < n) s->budget = 0;
    map64_free(&seen);
    free(todo);
    return eng_dfa_finish(s, &d, out);
}

/* ---- texts ---- */

int32_t eng_utf8_next(const char *p, size_t n, size_t *len)
{
    const uint8_t *u = (const uint8_t *)p;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t need = !n            ? 0
                  : u[0] < 0x80 ? 1
                  : u[0] < 0xC2 ? 0
                  : u[0] < 0xE0 ? 2
                  : u[0] < 0xF0 ? 3
                  : u[0] < 0xF5 ? 4
                                : 0;
    *len = 1;
    if (!need || need > n) return -1;
    uint32_t cp = need == 1 ? u[0] : u[0] & (0xFFu >> (need + 1));
    for (size_t i = 1; i < need; i++) {
        if ((u[i] & 0xC0) != 0x80) return -1;
        cp = cp << 6 | (u[i] & 0x3F);
    }
    if (cp < least[need] || cp > LAST_CODE_POINT || (cp >= 0xD800 && cp < 0xE000)) return -1;
    *len = need;
    return (int32_t)cp;
}

size_t eng_utf8_write(char p[4], uint32_t cp)
{
    size_t n = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n - 1; i; i--, cp >>= 6) p[i] = (char)(0x80 | (cp & 0x3F));
    p[0] = (char)(lead[n] | cp);
    return n;
}

bool eng_dfa_holds(const struct dfa *d, const char *p, size_t n)
{
    int32_t s = 0;
    size_t len;
    for (size_t i = 0; i < n; i += len) {
        int32_t cp = eng_utf8_next(p + i, n - i, &len);
        if (cp < 0) return false;
        uint32_t until = LAST_CODE_POINT;
        struct cursor c = edges_of(d, s);
        s = lookup(&c, (uint32_t)cp, &until);
        if (s < 0) return false;
    }
    return d->states[s].accept;
}
