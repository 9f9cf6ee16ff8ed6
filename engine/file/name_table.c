/* name_table.c: linear probing at most half full. */
#include "engine/file/name_table.h"

#include <string.h>
#include <unistd.h>
#include <xxhash.h>

struct eng_name_entry {
    const char *name; /* NULL: free */
    size_t len;
    int64_t value;
};

void eng_name_table_open(struct eng_name_table *t, struct arena *a, int64_t n)
{
    uint64_t cap = 4;
    while (cap < 2 * (uint64_t)n) cap *= 2;
    *t = (struct eng_name_table){arena_alloc(a, cap * sizeof(struct eng_name_entry)), cap - 1, 0};
    if (getentropy(&t->seed, sizeof t->seed)) t->seed = (uint64_t)(uintptr_t)t->slots;
}

/* The slot that holds the name, or the free one where it belongs. */
static struct eng_name_entry *locate(const struct eng_name_table *t, const char *name, size_t len)
{
    uint64_t i = XXH3_64bits_withSeed(name, len, t->seed) & t->mask;
    for (;; i = (i + 1) & t->mask) {
        struct eng_name_entry *e = &t->slots[i];
        if (!e->name || (e->len == len && !memcmp(e->name, name, len))) return e;
    }
}

int64_t eng_name_table_put(struct eng_name_table *t, const char *name, size_t len, int64_t value)
{
    struct eng_name_entry *e = locate(t, name, len);
    if (e->name) return e->value;
    *e = (struct eng_name_entry){name, len, value};
    return -1;
}

int64_t eng_name_table_get(const struct eng_name_table *t, const char *name, size_t len)
{
    if (!t->slots) return -1;
    const struct eng_name_entry *e = locate(t, name, len);
    return e->name ? e->value : -1;
}
