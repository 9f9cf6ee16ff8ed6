/* program.c: see program.h: drafts, and the passes that finish them.
 *
 *   need: the fewest bytes to the end of a rule, for every state (none: the state is dropped)
 *   flatten: states reachable from rule 0, each with the byte edges and calls that empty edges lead
 * to left recursion is refused; bytes that no edge tells apart are put into classes */
#include "engine/grammar/program.h"

#include <stdlib.h>
#include <string.h>

enum { NEVER = INT32_MAX / 4 };

/* ---- drafts ---- */

static void *room(void *p, int32_t *cap, int32_t n, size_t size)
{
    if (n < *cap) return p;
    *cap = MAX(64, 2 * *cap);
    return xrealloc(p, (size_t)*cap * size);
}

int32_t eng_draft_state(struct draft *d)
{
    if (d->n_states >= PROGRAM_MAX_STATES) {
        d->full = true;
        return 0;
    }
    d->states = room(d->states, &d->cap_states, d->n_states, sizeof *d->states);
    d->states[d->n_states] = (struct draft_state){-1, false};
    return d->n_states++;
}

int32_t eng_draft_rule(struct draft *d)
{
    int32_t s = eng_draft_state(d);
    d->rules = room(d->rules, &d->cap_rules, d->n_rules, sizeof *d->rules);
    d->rules[d->n_rules] = s;
    return d->n_rules++;
}

static void edge(struct draft *d, int32_t from, struct draft_edge e)
{
    if (d->full || d->n_edges >= PROGRAM_MAX_EDGES) {
        d->full = true;
        return;
    }
    d->edges = room(d->edges, &d->cap_edges, d->n_edges, sizeof *d->edges);
    e.next = d->states[from].edge;
    d->states[from].edge = d->n_edges;
    d->edges[d->n_edges++] = e;
}

void eng_draft_accept(struct draft *d, int32_t state)
{
    if (!d->full) d->states[state].accept = true;
}

void eng_draft_bytes(struct draft *d, int32_t from, uint8_t lo, uint8_t hi, int32_t to)
{
    edge(d, from, (struct draft_edge){.kind = DRAFT_BYTES, .lo = lo, .hi = hi, .to = to});
}

void eng_draft_empty(struct draft *d, int32_t from, int32_t to)
{
    edge(d, from, (struct draft_edge){.kind = DRAFT_EMPTY, .to = to});
}

void eng_draft_call(struct draft *d, int32_t from, int32_t rule, int32_t to)
{
    edge(d, from, (struct draft_edge){.kind = DRAFT_CALL, .rule = rule, .to = to});
}

void eng_draft_text(struct draft *d, int32_t from, const char *p, size_t n, int32_t to)
{
    if (!n) eng_draft_empty(d, from, to);
    for (size_t i = 0; i < n && !d->full; i++) {
        int32_t next = i + 1 == n ? to : eng_draft_state(d);
        eng_draft_bytes(d, from, (uint8_t)p[i], (uint8_t)p[i], next);
        from = next;
    }
}

void eng_draft_free(struct draft *d)
{
    free(d->states);
    free(d->edges);
    free(d->rules);
    *d = (struct draft){0};
}

/* ---- need ---- */

struct work {
    struct draft *d;
    int32_t *need;                  /* [n_states] */
    int32_t *from_head, *from_next; /* edges by target */
    int32_t *call_head, *call_next; /* call edges by rule */
    int32_t *edge_from;             /* [n_edges] */
    int32_t *start_of;              /* [n_states] the rule that starts there, or -1 */
    struct heap {
        int64_t *v;
        int32_t n, cap;
    } heap;
};

static void heap_push(struct heap *h, int32_t need, int32_t state)
{
    h->v = room(h->v, &h->cap, h->n, sizeof *h->v);
    int32_t i = h->n++;
    int64_t x = (int64_t)need << 32 | state;
    for (; i && h->v[(i - 1) / 2] > x; i = (i - 1) / 2) h->v[i] = h->v[(i - 1) / 2];
    h->v[i] = x;
}

static int64_t heap_pop(struct heap *h)
{
    int64_t top = h->v[0], x = h->v[--h->n];
    int32_t i = 0;
    for (int32_t c; (c = 2 * i + 1) < h->n; i = c) {
        if (c + 1 < h->n && h->v[c + 1] < h->v[c]) c++;
        if (h->v[c] >= x) break;
        h->v[i] = h->v[c];
    }
    h->v[i] = x;
    return top;
}

static void relax(struct work *w, int32_t e)
{
    const struct draft_edge *x = &w->d->edges[e];
    int32_t from = w->edge_from[e], cost = w->need[x->to];
    if (cost >= NEVER) return;
    if (x->kind == DRAFT_BYTES) cost++;
    if (x->kind == DRAFT_CALL) {
        if (w->need[w->d->rules[x->rule]] >= NEVER) return;
        cost = MIN(cost + w->need[w->d->rules[x->rule]], NEVER - 1);
    }
    if (cost >= w->need[from]) return;
    w->need[from] = cost;
    heap_push(&w->heap, cost, from);
}

/* Knuth's generalisation of Dijkstra's algorithm: cheapest first, so every state is settled once.
 */
static void find_need(struct work *w)
{
    struct draft *d = w->d;
    for (int32_t i = 0; i < d->n_states; i++)
        w->need[i] = NEVER, w->from_head[i] = w->start_of[i] = -1;
    for (int32_t r = 0; r < d->n_rules; r++) w->call_head[r] = -1, w->start_of[d->rules[r]] = r;
    for (int32_t i = 0; i < d->n_states; i++)
        for (int32_t e = d->states[i].edge; e >= 0; e = d->edges[e].next) {
            w->edge_from[e] = i;
            w->from_next[e] = w->from_head[d->edges[e].to];
            w->from_head[d->edges[e].to] = e;
            if (d->edges[e].kind != DRAFT_CALL) continue;
            w->call_next[e] = w->call_head[d->edges[e].rule];
            w->call_head[d->edges[e].rule] = e;
        }
    for (int32_t i = 0; i < d->n_states; i++)
        if (d->states[i].accept) w->need[i] = 0, heap_push(&w->heap, 0, i);
    while (w->heap.n) {
        int64_t x = heap_pop(&w->heap);
        int32_t s = (int32_t)(x & 0xFFFFFFFF);
        if (x >> 32 != w->need[s]) continue;
        for (int32_t e = w->from_head[s]; e >= 0; e = w->from_next[e]) relax(w, e);
        if (w->start_of[s] >= 0)
            for (int32_t e = w->call_head[w->start_of[s]]; e >= 0; e = w->call_next[e]) relax(w, e);
    }
}

/* ---- flatten ---- */

struct flat {
    struct program *p;
    int32_t *name, *old; /* draft state -> program state, and back */
    int32_t *rule_name;
    int32_t *stack;
    uint32_t *mark, stamp;
    int32_t cap_states, cap_edges, cap_calls, cap_rules;
    bool full;
};

static int32_t name_state(struct flat *f, int32_t s)
{
    if (f->name[s] < 0) {
        f->p->states = room(f->p->states, &f->cap_states, f->p->n_states, sizeof *f->p->states);
        f->old[f->p->n_states] = s;
        f->name[s] = f->p->n_states++;
    }
    return f->name[s];
}

static int32_t name_rule(struct flat *f, const struct work *w, int32_t r)
{
    if (f->rule_name[r] < 0) {
        f->p->rules = room(f->p->rules, &f->cap_rules, f->p->n_rules, sizeof *f->p->rules);
        f->rule_name[r] = f->p->n_rules;
        f->p->rules[f->p->n_rules++] = name_state(f, w->d->rules[r]);
    }
    return f->rule_name[r];
}

static void add_edge(struct flat *f, const struct work *w, int32_t first_edge, int32_t first_call,
                     const struct draft_edge *x)
{
    struct program *p = f->p;
    if (w->need[x->to] >= NEVER ||
        (x->kind == DRAFT_CALL && w->need[w->d->rules[x->rule]] >= NEVER))
        return;
    int32_t to = name_state(f, x->to);
    if (x->kind == DRAFT_BYTES) {
        for (int32_t i = first_edge; i < p->n_edges && p->n_edges - first_edge < 64; i++)
            if (p->edges[i].to == to && p->edges[i].lo == x->lo && p->edges[i].hi == x->hi) return;
        p->edges = room(p->edges, &f->cap_edges, p->n_edges, sizeof *p->edges);
        p->edges[p->n_edges++] = (struct prog_edge){x->lo, x->hi, to};
    } else {
        int32_t rule = name_rule(f, w, x->rule);
        for (int32_t i = first_call; i < p->n_calls && p->n_calls - first_call < 64; i++)
            if (p->calls[i].to == to && p->calls[i].rule == rule) return;
        p->calls = room(p->calls, &f->cap_calls, p->n_calls, sizeof *p->calls);
        p->calls[p->n_calls++] = (struct prog_call){rule, to};
    }
    f->full |= p->n_edges + p->n_calls > PROGRAM_MAX_EDGES;
}

static void flatten_state(struct flat *f, const struct work *w, int32_t i)
{
    struct program *p = f->p;
    int32_t top = 0, n_edges = p->n_edges, n_calls = p->n_calls;
    bool accept = false;
    f->stamp++;
    f->stack[top++] = f->old[i];
    f->mark[f->old[i]] = f->stamp;
    while (top) {
        int32_t s = f->stack[--top];
        accept |= w->d->states[s].accept;
        for (int32_t e = w->d->states[s].edge; e >= 0 && !f->full; e = w->d->edges[e].next) {
            const struct draft_edge *x = &w->d->edges[e];
            if (x->kind != DRAFT_EMPTY)
                add_edge(f, w, n_edges, n_calls, x);
            else if (f->mark[x->to] != f->stamp)
                f->mark[x->to] = f->stamp, f->stack[top++] = x->to;
        }
    }
    p->states[i] = (struct prog_state){.edge = n_edges,
                                       .n_edges = p->n_edges - n_edges,
                                       .call = n_calls,
                                       .n_calls = p->n_calls - n_calls,
                                       .need = w->need[f->old[i]],
                                       .accept = accept};
    p->states[i].only_accept = accept && p->n_edges == n_edges && p->n_calls == n_calls;
}

static enum err flatten(struct program *p, struct work *w)
{
    size_t n = (size_t)w->d->n_states + 1, r = (size_t)w->d->n_rules + 1;
    struct flat f = {.p = p,
                     .name = xmalloc(n * sizeof *f.name),
                     .old = xmalloc(n * sizeof *f.old),
                     .rule_name = xmalloc(r * sizeof *f.rule_name),
                     .stack = xmalloc(n * sizeof *f.stack),
                     .mark = xcalloc(n, sizeof *f.mark)};
    memset(f.name, -1, n * sizeof *f.name);
    memset(f.rule_name, -1, r * sizeof *f.rule_name);
    name_rule(&f, w, 0);
    for (int32_t i = 0; i < p->n_states && !f.full; i++) flatten_state(&f, w, i);
    free(f.name);
    free(f.old);
    free(f.rule_name);
    free(f.stack);
    free(f.mark);
    return f.full ? err_raise(ERR_UNSUPPORTED, "the grammar needs more than %d edges",
                              PROGRAM_MAX_EDGES)
                  : OK;
}

/* ---- left recursion ---- */

enum { WHITE, GREY, BLACK };
struct frame {
    int32_t state, call;
};

/* Calls made before any byte: from a rule's start, and behind calls that may take nothing. Depth
 * first; a grey rule met again is a cycle. Frames of a rule: its start, then states behind nullable
 * calls, found by a second walk per rule (marks by stamp). */
static bool left_calls(const struct program *p, int32_t rule, int32_t *out, int32_t *n_out,
                       int32_t *states, uint32_t *mark, uint32_t stamp)
{
    int32_t top = 0;
    *n_out = 0;
    states[top++] = p->rules[rule];
    mark[p->rules[rule]] = stamp;
    while (top) {
        const struct prog_state *s = &p->states[states[--top]];
        for (int32_t i = 0; i < s->n_calls; i++) {
            const struct prog_call *c = &p->calls[s->call + i];
            out[(*n_out)++] = c->rule;
            if (c->rule == rule) return true;
            if (p->states[p->rules[c->rule]].need || mark[c->to] == stamp) continue;
            mark[c->to] = stamp;
            states[top++] = c->to;
        }
    }
    return false;
}

static bool is_left_recursive(const struct program *p)
{
    uint8_t *colour = xcalloc((size_t)p->n_rules, 1);
    uint32_t *mark = xcalloc((size_t)p->n_states, sizeof *mark), stamp = 0;
    int32_t *out = xmalloc(((size_t)p->n_calls + 1) * sizeof *out),
            *states = xmalloc(((size_t)p->n_states + 1) * sizeof *states);
    /* path: rules being looked at; todo: their left calls, each list ended by -1 */
    int32_t *todo = NULL, n_todo = 0, cap = 0,
            *path = xmalloc(((size_t)p->n_rules + 1) * sizeof *path), n_path = 0, n;
    bool cycle = false;
    for (int32_t r = 0; r < p->n_rules && !cycle; r++) {
        if (colour[r] != WHITE) continue;
        todo = room(todo, &cap, n_todo, sizeof *todo);
        todo[n_todo++] = r;
        while (n_todo && !cycle) {
            int32_t x = todo[--n_todo];
            if (x < 0) {
                colour[path[--n_path]] = BLACK;
                continue;
            }
            cycle = colour[x] == GREY;
            if (colour[x] != WHITE) continue;
            colour[x] = GREY;
            path[n_path++] = x;
            cycle = left_calls(p, x, out, &n, states, mark, ++stamp);
            todo = room(todo, &cap, n_todo, sizeof *todo);
            todo[n_todo++] = -1;
            for (int32_t i = 0; i < n; i++) {
                todo = room(todo, &cap, n_todo, sizeof *todo);
                todo[n_todo++] = out[i];
            }
        }
    }
    free(colour);
    free(mark);
    free(out);
    free(states);
    free(todo);
    free(path);
    return cycle;
}

/* ---- finish ---- */

static void classify(struct program *p)
{
    bool cut[257] = {[0] = true};
    for (int32_t i = 0; i < p->n_edges; i++) cut[p->edges[i].lo] = cut[p->edges[i].hi + 1] = true;
    for (int b = 0; b < 256; b++) {
        if (cut[b]) p->sample[p->n_classes++] = (uint8_t)b;
        p->class_of[b] = (uint8_t)(p->n_classes - 1);
    }
}

enum err eng_program_finish(struct program **out, struct draft *d)
{
    enum err rc = OK;
    struct program *p = xcalloc(1, sizeof *p);
    size_t n = (size_t)d->n_states + 1, m = (size_t)d->n_edges + 1, r = (size_t)d->n_rules + 1;
    struct work w = {.d = d,
                     .need = xmalloc(n * 4),
                     .from_head = xmalloc(n * 4),
                     .from_next = xmalloc(m * 4),
                     .call_head = xmalloc(r * 4),
                     .call_next = xmalloc(m * 4),
                     .edge_from = xmalloc(m * 4),
                     .start_of = xmalloc(n * 4)};
    if (d->full)
        TRY(err_raise(ERR_UNSUPPORTED, "the grammar needs more than %d states",
                      PROGRAM_MAX_STATES));
    find_need(&w);
    if (w.need[d->rules[0]] >= NEVER)
        TRY(err_raise(ERR_BAD_REQUEST, "no text satisfies the grammar"));
    TRY(flatten(p, &w));
    if (is_left_recursive(p))
        TRY(err_raise(ERR_UNSUPPORTED, "the grammar is left-recursive: a rule begins with itself"));
    classify(p);
    *out = p;
    p = NULL;
out:
    eng_program_close(p);
    free(w.need);
    free(w.from_head);
    free(w.from_next);
    free(w.call_head);
    free(w.call_next);
    free(w.edge_from);
    free(w.start_of);
    free(w.heap.v);
    eng_draft_free(d);
    return rc;
}

void eng_program_close(struct program *p)
{
    if (!p) return;
    free(p->states);
    free(p->edges);
    free(p->calls);
    free(p->rules);
    free(p);
}
