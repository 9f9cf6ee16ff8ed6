/* name_table.h: names to small integers, in constant time; finds duplicates while it is filled.
 *
 * Open addressing over seeded hashes, so a crafted file cannot choose its collisions. Never
 * removes. Thr: filled by one thread, then read by any. */
#ifndef ENGINE_FILE_NAME_TABLE_H
#define ENGINE_FILE_NAME_TABLE_H

#include "base/arena.h"

struct eng_name_table {
    struct eng_name_entry *slots; /* Own: the arena given to open */
    uint64_t mask, seed;
};

/* An empty table with room for n names (no more may be put). */
void eng_name_table_open(struct eng_name_table *t, struct arena *a, int64_t n);
/* Remember name[len] (borrowed for the table's life) as value >= 0. Returns the value of an equal
 * name that was there before, which stays, or -1. */
int64_t eng_name_table_put(struct eng_name_table *t, const char *name, size_t len, int64_t value);
int64_t eng_name_table_get(const struct eng_name_table *t, const char *name,
                           size_t len); /* -1: not there */

#endif
