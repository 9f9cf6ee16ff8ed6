/* place_rows.c: which rows of stages are looked at. See place_impl.h.
 *
 * Small clusters (EXACT devices in free order, EXACT_FIXED in fixed order): every way to put
 * devices into an ordered row of stages, leaving some out. Larger ones: devices in order of host
 * and speed, cut into equal widths, by host, by kind; then the best few are improved by merging,
 * splitting, exchanging and dropping until nothing helps. */
#include "cluster/place_impl.h"

#include <string.h>

enum { EXACT = PLACE_EXACT, EXACT_FIXED = 9, MAX_CLIMB = 60, MAX_FROM = 3 };

/* Every ordered row of stages over the devices whose bits are set in `left`, and of every part of
 * them. */
static void every_row(struct search *s, struct row *r, int32_t at, uint32_t left)
{
    if (r->n_stages) clu_place_look(s, r);
    for (uint32_t set = left; set; set = (set - 1) & left) {
        int32_t n = 0;
        for (int32_t i = 0; i < s->t->n_devices; i++)
            if (set >> i & 1) r->device[at + n++] = i;
        r->width[r->n_stages++] = n;
        every_row(s, r, at + n, left & ~set);
        r->n_stages--;
    }
}

/* Every cut of the devices, in order, into stages. */
static void every_cut(struct search *s)
{
    int32_t n = s->t->n_devices;
    for (uint32_t cuts = 0; cuts < 1u << (n - 1); cuts++) {
        struct row r = {.n_stages = 0};
        for (int32_t i = 0; i < n; i++) {
            r.device[i] = i;
            if (i == 0 || (cuts >> (i - 1) & 1)) r.n_stages++;
            r.width[r.n_stages - 1]++;
        }
        clu_place_look(s, &r);
    }
}

/* order[n] in stages of `width`; the rest makes a smaller last one. */
static void even_row(struct search *s, const int32_t order[], int32_t n, int32_t width)
{
    struct row r = {.n_stages = 0};
    memcpy(r.device, order, (size_t)n * sizeof *order);
    for (int32_t at = 0; at < n; at += width) r.width[r.n_stages++] = MIN(width, n - at);
    clu_place_look(s, &r);
}

/* A new stage wherever host (by == 0), or host or class (by == 1) changes. */
static void grouped_row(struct search *s, const int32_t order[], int32_t n, int32_t by)
{
    struct row r = {.n_stages = 0};
    memcpy(r.device, order, (size_t)n * sizeof *order);
    for (int32_t i = 0; i < n; i++) {
        bool same = i && s->t->devices[order[i]].host == s->t->devices[order[i - 1]].host &&
                    (!by || s->class_of[order[i]] == s->class_of[order[i - 1]]);
        if (!same) r.n_stages++;
        r.width[r.n_stages - 1]++;
    }
    clu_place_look(s, &r);
}

/* Faster hosts first; within a host faster devices first. */
static bool goes_before(const struct clu_topo *t, int32_t a, int32_t b)
{
    const struct clu_device *x = &t->devices[a], *y = &t->devices[b];
    double hx = 0, hy = 0;
    for (int32_t i = 0; i < t->n_devices; i++) {
        const struct clu_device *d = &t->devices[i];
        if (d->host == x->host) hx = MAX(hx, d->read_bytes_s);
        if (d->host == y->host) hy = MAX(hy, d->read_bytes_s);
    }
    if (hx != hy) return hx > hy;
    if (x->host != y->host) return x->host < y->host;
    return x->read_bytes_s > y->read_bytes_s;
}

static void sort_by_speed(const struct clu_topo *t, int32_t order[])
{
    for (int32_t i = 1; i < t->n_devices; i++)
        for (int32_t k = i; k > 0 && goes_before(t, order[k], order[k - 1]); k--) {
            int32_t swap = order[k];
            order[k] = order[k - 1];
            order[k - 1] = swap;
        }
}

static void drop_stage(struct row *r, int32_t stage)
{
    int32_t at = 0, n = 0;
    for (int32_t i = 0; i < stage; i++) at += r->width[i];
    for (int32_t i = 0; i < r->n_stages; i++) n += r->width[i];
    memmove(r->device + at, r->device + at + r->width[stage],
            (size_t)(n - at - r->width[stage]) * sizeof *r->device);
    memmove(r->width + stage, r->width + stage + 1,
            (size_t)(r->n_stages - stage - 1) * sizeof *r->width);
    r->n_stages--;
}

/* Where the order is free: stage i left out, its first or last device left out, or its last
 * exchanged with the next stage's first. */
static bool climb_free(struct search *s, const struct row *base, int32_t i)
{
    struct row r = *base;
    int32_t n = 0, first = 0, all = 0;
    bool up = false;
    for (int32_t k = 0; k < base->n_stages; all += base->width[k++])
        first += k < i ? base->width[k] : 0;
    n = base->width[i];
    if (base->n_stages > 1) {
        drop_stage(&r, i);
        up |= clu_place_look(s, &r);
    }
    for (int32_t k = 0; n > 1 && k < 2; k++) {
        int32_t at = k ? first + n - 1 : first;
        r = *base;
        memmove(r.device + at, r.device + at + 1, (size_t)(all - at - 1) * sizeof *r.device);
        r.width[i]--;
        up |= clu_place_look(s, &r);
    }
    if (i + 1 < base->n_stages) {
        r = *base;
        r.device[first + n - 1] = base->device[first + n];
        r.device[first + n] = base->device[first + n - 1];
        up |= clu_place_look(s, &r);
    }
    return up;
}

/* Neighbouring rows: two stages merged, one split, one device moved on; and climb_free's. */
static bool climb_from(struct search *s, const struct row *base)
{
    bool up = false;
    int32_t n = base->n_stages, step = n > 16 ? 4 : 1;
    for (int32_t i = 0; i < n; i += step) {
        struct row r = *base;
        if (i + 1 < n) {
            r.width[i] += r.width[i + 1];
            memmove(r.width + i + 1, r.width + i + 2, (size_t)(n - i - 2) * sizeof *r.width);
            r.n_stages--;
            up |= clu_place_look(s, &r);
            r = *base;
            if (r.width[i] > 1) r.width[i]--, r.width[i + 1]++, up |= clu_place_look(s, &r);
            r = *base;
            if (r.width[i + 1] > 1) r.width[i]++, r.width[i + 1]--, up |= clu_place_look(s, &r);
        }
        for (int32_t k = 1; k < base->width[i] && n < LIMIT_RANKS;
             k += MAX(1, base->width[i] / 4)) {
            r = *base;
            memmove(r.width + i + 1, r.width + i, (size_t)(n - i) * sizeof *r.width);
            r.width[i] = k;
            r.width[i + 1] = base->width[i] - k;
            r.n_stages++;
            up |= clu_place_look(s, &r);
        }
        if (s->want->fixed_order) continue;
        up |= climb_free(s, base, i);
    }
    return up;
}

static void beam(struct search *s)
{
    static const int32_t widths[] = {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 48, 64};
    int32_t n = s->t->n_devices, order[LIMIT_RANKS], ends[8], n_ends = 0;
    for (int32_t i = 0; i < n; i++) order[i] = i;
    if (!s->want->fixed_order) sort_by_speed(s->t, order);
    ends[n_ends++] = n;
    for (int32_t i = n - 1; i > 0 && n_ends < 8 && !s->want->fixed_order; i--)
        if (s->t->devices[order[i]].host != s->t->devices[order[i - 1]].host || n <= 8 || i == 1)
            ends[n_ends++] = i;
    for (int32_t e = 0; e < n_ends; e++) {
        for (size_t k = 0; k < COUNT_OF(widths) && widths[k] <= ends[e]; k++)
            even_row(s, order, ends[e], widths[k]);
        if (ends[e] > 1) even_row(s, order, ends[e], ends[e]);
        grouped_row(s, order, ends[e], 0);
        grouped_row(s, order, ends[e], 1);
    }
    for (int32_t round = 0, up = 1; up && round < MAX_CLIMB / MAX(1, n / 8); round++) {
        struct row from[MAX_FROM];
        int32_t k = MIN(s->n_kept, n > 16 ? 1 : MAX_FROM);
        for (int32_t i = 0; i < k; i++) from[i] = s->kept[i].row;
        up = 0;
        for (int32_t i = 0; i < k; i++) up |= climb_from(s, &from[i]);
    }
}

void clu_place_rows(struct search *s)
{
    int32_t n = s->t->n_devices;
    bool all = !s->want->effort && n <= (s->want->fixed_order ? EXACT_FIXED : EXACT);
    if (!all)
        beam(s);
    else if (s->want->fixed_order)
        every_cut(s);
    else
        every_row(s, &(struct row){.n_stages = 0}, 0, (1u << n) - 1);
}
