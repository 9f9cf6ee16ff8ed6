/* guess.c: see guess.h.
 *
 * I1  at[h] is 0 or a place p, GUESS_GRAM <= p <= n_read, in what is searched: behind some GUESS_GRAM tokens whose hash is h, the latest of them.
 * I2  with all read, `from` was found with the newest tokens before they went into the table themselves: it lies before the end. */
#include "coordinator/sched/guess.h"
#include "base/rng.h"
#include "coordinator/sched/seq.h"

#include <stdlib.h>

enum {
    GUESS_GRAM = 3,    /* tokens that must stand there again */
    RIGHT_TO_BEGIN = 2,
    WRONG_TO_END = 2
};

/* What is searched, in one row: what the client expects, then the sequence itself. */
static int32_t length_of(const struct crd_seq *q) { return q->group->n_likely + crd_seq_known(q); }

static int32_t token_at(const struct crd_seq *q, int32_t i)
{
    const int32_t n = q->group->n_likely;
    return i < n ? q->group->likely[i] : crd_seq_token(q, i - n);
}

static int32_t *place_of(const struct crd_guess *g, const struct crd_seq *q, int32_t end)
{
    uint64_t h = 0;
    for (int32_t i = end - GUESS_GRAM; i < end; i++) h = rng_mix(h ^ (uint64_t)(uint32_t)token_at(q, i));
    return &g->at[(int32_t)h & g->mask];
}

static bool same_gram(const struct crd_seq *q, int32_t a, int32_t b)
{
    for (int32_t i = 1; i <= GUESS_GRAM; i++)
        if (token_at(q, a - i) != token_at(q, b - i)) return false;
    return true;
}

/* Tokens up to `end` are read; what stood behind the last ones before. */
static void read_to(struct crd_guess *g, const struct crd_seq *q, int32_t end)
{
    for (g->n_read++; g->n_read <= end; g->n_read++) {
        if (g->n_read < GUESS_GRAM) continue;
        int32_t *p = place_of(g, q, g->n_read);
        g->from = *p && same_gram(q, *p, g->n_read) ? *p : 0;
        *p = g->n_read;
    }
    g->n_read = end;
}

static void make_room(struct crd_guess *g, int32_t n)
{
    int32_t size = g->at ? g->mask + 1 : 256;
    if (g->at && n <= size) return;
    while (size < n) size *= 2;
    free(g->at);
    g->at = xcalloc((size_t)size, sizeof *g->at);
    g->mask = size - 1;
    g->n_read = 0;
}

static void begin(struct crd_guess *g, int32_t most)
{
    g->on = true;
    g->most = MIN(2, most);
    g->n_wrong = 0;
}

void crd_guess_learn(struct crd_seq *q, int32_t most)
{
    struct crd_guess *g = &q->guess;
    const int32_t n = length_of(q), newest = token_at(q, n - 1);
    if (!most) return;
    if (!g->on) g->n_right = g->from && g->n_read == n - 1 && token_at(q, g->from) == newest ? g->n_right + 1 : 0;
    if (!g->on && g->n_right >= RIGHT_TO_BEGIN) begin(g, most);
    make_room(g, n);
    read_to(g, q, n);
    if (q->n_gen == 1 && q->group->n_likely > 1 && q->group->likely[0] == newest) {
        g->from = 1; /* it begins as was expected */
        begin(g, most);
    }
}

int32_t crd_guess_make(const struct crd_seq *q, int32_t n, int32_t out[GUESS_MOST])
{
    const int32_t end = length_of(q), from = q->guess.from;
    if (!from || q->guess.n_read != end) return 0;
    n = MIN(n, MIN(q->guess.most, (int32_t)GUESS_MOST));
    for (int32_t i = 0; i < n; i++) /* behind the known ones the guesses themselves go on: a period shorter than n */
        out[i] = from + i < end ? token_at(q, from + i) : out[from + i - end];
    return n;
}

void crd_guess_judge(struct crd_guess *g, int32_t n_right, int32_t most)
{
    const int32_t n = g->n_sent;
    if (!g->on || n == GUESS_NOT_ASKED) return;
    g->n_wrong = n_right ? 0 : g->n_wrong + 1;
    if (n && n_right == n) g->most = MIN(2 * g->most, most);
    else if (2 * n_right < n) g->most = MAX(1, g->most / 2);
    if (g->n_wrong < WRONG_TO_END) return;
    g->on = false;
    g->n_right = 0;
}

void crd_guess_free(struct crd_guess *g)
{
    free(g->at);
    *g = (struct crd_guess){0};
}
