/* machine.c: see machine.h. */
#include "engine/grammar/machine.h"

#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_ITEMS = 1 << 16, LARGE_BYTES = 48 << 20, NEED_MAX = INT32_MAX / 4 };

static void *room(void *p, int32_t *cap, int32_t n, size_t size)
{
    if (n < *cap) return p;
    *cap = MAX(64, 2 * *cap);
    return xrealloc(p, (size_t)*cap * size);
}

static int32_t frame(struct machine *m, int32_t state, int32_t below)
{
    uint64_t key = (uint64_t)(uint32_t)state << 32 | (uint32_t)below;
    int32_t i = map64_get(&m->frame_of, key);
    if (i >= 0) return i;
    m->frames = room(m->frames, &m->cap_frames, m->n_frames, sizeof *m->frames);
    int32_t need = MIN(m->p->states[state].need + m->frames[below].need, (int32_t)NEED_MAX);
    m->frames[m->n_frames] = (struct machine_frame){state, below, need, SET_UNKNOWN};
    map64_put(&m->frame_of, key, m->n_frames);
    return m->n_frames++;
}

static void open_frames(struct machine *m)
{
    m->frames = room(m->frames, &m->cap_frames, 1, sizeof *m->frames);
    m->frames[FRAME_END] = m->frames[FRAME_HOLE] = (struct machine_frame){-1, -1, 0, SET_DEAD};
    m->n_frames = 2;
}

void eng_machine_open(struct machine *m, const struct program *p)
{
    *m = (struct machine){.p = p};
    open_frames(m);
}

void eng_machine_close(struct machine *m)
{
    free(m->frames);
    map64_free(&m->frame_of);
    free(m->sets);
    map64_free(&m->set_of);
    free(m->items);
    free(m->next);
    free(m->todo);
    free(m->found);
    free(m->seen);
    free(m->stamps);
    *m = (struct machine){0};
}

/* ---- closure ---- */

static void begin_closure(struct machine *m)
{
    m->stamp++;
    m->n_seen = 0;
    m->n_found = 0;
    m->found_flags = 0;
}

static void grow_seen(struct machine *m)
{
    uint64_t *old = m->seen;
    uint32_t *stamps = m->stamps, n = m->cap_seen;
    m->cap_seen = MAX(256u, 2 * n);
    m->seen = xmalloc(m->cap_seen * sizeof *m->seen);
    m->stamps = xcalloc(m->cap_seen, sizeof *m->stamps);
    for (uint32_t i = 0; i < n; i++) {
        if (stamps[i] != m->stamp) continue;
        uint32_t k = (uint32_t)rng_mix(old[i]) & (m->cap_seen - 1);
        while (m->stamps[k] == m->stamp) k = (k + 1) & (m->cap_seen - 1);
        m->seen[k] = old[i];
        m->stamps[k] = m->stamp;
    }
    free(old);
    free(stamps);
}

/* Is this the first time in this closure? */
static bool first_time(struct machine *m, int32_t state, int32_t below)
{
    if (2 * (m->n_seen + 1) > m->cap_seen) grow_seen(m);
    uint64_t key = (uint64_t)(uint32_t)state << 32 | (uint32_t)below;
    uint32_t i = (uint32_t)rng_mix(key) & (m->cap_seen - 1);
    for (; m->stamps[i] == m->stamp; i = (i + 1) & (m->cap_seen - 1))
        if (m->seen[i] == key) return false;
    m->seen[i] = key;
    m->stamps[i] = m->stamp;
    m->n_seen++;
    return true;
}

/* Everything reached from a state without a byte: calls go down, ends of rules go up. */
static void close_over(struct machine *m, int32_t state, int32_t below)
{
    int32_t n = 0;
    m->todo = room(m->todo, &m->cap_todo, n, sizeof *m->todo);
    m->todo[n++] = (struct machine_item){state, below};
    while (n) {
        struct machine_item x = m->todo[--n];
        if (!first_time(m, x.state, x.frame)) continue;
        const struct prog_state *s = &m->p->states[x.state];
        if (s->n_edges && m->n_found < MOST_ITEMS) {
            m->found = room(m->found, &m->cap_found, m->n_found, sizeof *m->found);
            m->found[m->n_found++] = x;
        }
        if (s->accept && x.frame == FRAME_END)
            m->found_flags |= SET_ACCEPTS;
        else if (s->accept && x.frame == FRAME_HOLE)
            m->found_flags |= SET_ESCAPES;
        else if (s->accept) {
            m->todo = room(m->todo, &m->cap_todo, n, sizeof *m->todo);
            m->todo[n++] =
                (struct machine_item){m->frames[x.frame].state, m->frames[x.frame].frame};
        }
        for (int32_t i = 0; i < s->n_calls; i++) {
            const struct prog_call *c = &m->p->calls[s->call + i];
            /* a call in last place needs no frame: right recursion runs in constant space */
            int32_t f = m->p->states[c->to].only_accept ? x.frame : frame(m, c->to, x.frame);
            m->todo = room(m->todo, &m->cap_todo, n, sizeof *m->todo);
            m->todo[n++] = (struct machine_item){m->p->rules[c->rule], f};
        }
    }
}

static int by_item(const void *a, const void *b)
{
    const struct machine_item *x = a, *y = b;
    if (x->state != y->state) return x->state < y->state ? -1 : 1;
    return x->frame < y->frame ? -1 : x->frame > y->frame;
}

static int32_t need_of(const struct machine *m, const struct machine_item *x, int32_t n,
                       uint32_t flags)
{
    int32_t least = flags ? 0 : NEED_MAX;
    for (int32_t i = 0; i < n; i++)
        least = MIN(least, MIN(m->p->states[x[i].state].need + m->frames[x[i].frame].need,
                               (int32_t)NEED_MAX));
    return least;
}

static int32_t intern(struct machine *m)
{
    struct machine_item *x = m->found;
    int32_t n = m->n_found;
    if (!n && !m->found_flags) return SET_DEAD;
    if (n > 1) qsort(x, (size_t)n, sizeof *x, by_item);
    uint64_t h = m->found_flags;
    for (int32_t i = 0; i < n; i++)
        h = rng_mix(h ^ ((uint64_t)(uint32_t)x[i].state << 32 | (uint32_t)x[i].frame));
    for (int32_t i; (i = map64_get(&m->set_of, h)) >= 0; h++) {
        const struct machine_set *s = &m->sets[i];
        if (s->n == n && s->flags == m->found_flags &&
            (!n || !memcmp(m->items + s->first, x, (size_t)n * sizeof *x)))
            return i;
    }
    if (m->n_items + n > m->cap_items) {
        m->cap_items = 2 * m->cap_items + n + 256;
        m->items = xrealloc(m->items, (size_t)m->cap_items * sizeof *m->items);
    }
    int32_t cap = m->cap_sets;
    m->sets = room(m->sets, &m->cap_sets, m->n_sets, sizeof *m->sets);
    size_t row = (size_t)m->p->n_classes;
    if (cap != m->cap_sets)
        m->next = xrealloc(m->next, (size_t)m->cap_sets * row * sizeof *m->next);
    for (size_t i = 0; i < row; i++) m->next[(size_t)m->n_sets * row + i] = SET_UNKNOWN;
    if (n) memcpy(m->items + m->n_items, x, (size_t)n * sizeof *x);
    m->sets[m->n_sets] =
        (struct machine_set){m->n_items, n, need_of(m, x, n, m->found_flags), m->found_flags, 0, 0};
    m->n_items += n;
    map64_put(&m->set_of, h, m->n_sets);
    return m->n_sets++;
}

/* ---- moves ---- */

int32_t eng_machine_start(struct machine *m)
{
    begin_closure(m);
    close_over(m, m->p->rules[0], FRAME_END);
    return intern(m);
}

int32_t eng_machine_alone(struct machine *m, int32_t state, int32_t below)
{
    begin_closure(m);
    m->found = room(m->found, &m->cap_found, 0, sizeof *m->found);
    m->found[m->n_found++] =
        (struct machine_item){state, below < 0 ? FRAME_HOLE : frame(m, below, FRAME_HOLE)};
    return intern(m);
}

int32_t eng_machine_return(struct machine *m, int32_t f)
{
    if (m->frames[f].returns == SET_UNKNOWN) {
        begin_closure(m);
        close_over(m, m->frames[f].state, m->frames[f].frame);
        int32_t set = intern(m);
        m->frames[f].returns = set;
    }
    return m->frames[f].returns;
}

int32_t eng_machine_find(struct machine *m, int32_t set, int class)
{
    const uint8_t byte = m->p->sample[class];
    begin_closure(m);
    for (int32_t i = 0; i < m->sets[set].n; i++) {
        struct machine_item x = m->items[m->sets[set].first + i];
        const struct prog_state *s = &m->p->states[x.state];
        for (int32_t k = 0; k < s->n_edges; k++) {
            const struct prog_edge *e = &m->p->edges[s->edge + k];
            if (e->lo <= byte && byte <= e->hi) close_over(m, e->to, x.frame);
        }
    }
    int32_t to = intern(m);
    m->next[(size_t)set * (size_t)m->p->n_classes + (size_t)class] = to;
    return to;
}

/* ---- memory ---- */

bool eng_machine_large(const struct machine *m)
{
    return (int64_t)m->n_sets * (m->p->n_classes * 4 + 64) + m->n_items * 8 +
               (int64_t)m->n_frames * 48 >
           LARGE_BYTES;
}

/* The frame of `old` in the emptied machine. Frames refer to earlier ones only, so one pass upwards
 * names those that are kept. */
static void keep_frames(struct machine *m, const struct machine *old, const bool *keep,
                        int32_t *name)
{
    name[FRAME_END] = FRAME_END;
    name[FRAME_HOLE] = FRAME_HOLE;
    for (int32_t i = 2; i < old->n_frames; i++)
        if (keep[i]) name[i] = frame(m, old->frames[i].state, name[old->frames[i].frame]);
}

void eng_machine_compact(struct machine *m, int32_t *sets[], int32_t n)
{
    struct machine old = *m;
    bool *keep = xcalloc((size_t)old.n_frames, sizeof *keep);
    int32_t *name = xmalloc((size_t)old.n_frames * sizeof *name);
    eng_machine_open(m, old.p);
    for (int32_t i = 0; i < n; i++)
        for (int32_t k = 0; *sets[i] >= 0 && k < old.sets[*sets[i]].n; k++)
            keep[old.items[old.sets[*sets[i]].first + k].frame] = true;
    for (int32_t i = old.n_frames - 1; i >= 2; i--)
        if (keep[i]) keep[old.frames[i].frame] = true;
    keep_frames(m, &old, keep, name);
    for (int32_t i = 0; i < n; i++) {
        if (*sets[i] < 0) continue;
        const struct machine_set *s = &old.sets[*sets[i]];
        begin_closure(m);
        m->found_flags = s->flags;
        for (int32_t k = 0; k < s->n; k++) {
            struct machine_item x = old.items[s->first + k];
            m->found = room(m->found, &m->cap_found, m->n_found, sizeof *m->found);
            m->found[m->n_found++] = (struct machine_item){x.state, name[x.frame]};
        }
        *sets[i] = intern(m);
    }
    free(keep);
    free(name);
    eng_machine_close(&old);
}
