/* map64.c: see map64.h. */
#include "engine/grammar/map64.h"

#include "base/base.h"
#include "base/rng.h"

#include <stdlib.h>

static uint32_t find(const struct map64 *m, uint64_t key)
{
    uint32_t i = (uint32_t)rng_mix(key) & (m->cap - 1);
    while (m->slots[i].value >= 0 && m->slots[i].key != key) i = (i + 1) & (m->cap - 1);
    return i;
}

int32_t map64_get(const struct map64 *m, uint64_t key)
{
    return m->cap ? m->slots[find(m, key)].value : -1;
}

static void grow(struct map64 *m)
{
    struct map64 old = *m;
    m->cap = MAX(16u, 2 * old.cap);
    m->slots = xmalloc(m->cap * sizeof *m->slots);
    for (uint32_t i = 0; i < m->cap; i++) m->slots[i] = (struct map64_slot){0, -1};
    for (uint32_t i = 0; i < old.cap; i++)
        if (old.slots[i].value >= 0) m->slots[find(m, old.slots[i].key)] = old.slots[i];
    free(old.slots);
}

void map64_put(struct map64 *m, uint64_t key, int32_t value)
{
    if (2 * (m->n + 1) > m->cap) grow(m);
    uint32_t i = find(m, key);
    m->n += m->slots[i].value < 0;
    m->slots[i] = (struct map64_slot){key, value};
}

void map64_free(struct map64 *m)
{
    free(m->slots);
    *m = (struct map64){0};
}
