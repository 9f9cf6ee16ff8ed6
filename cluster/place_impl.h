/* place_impl.h: what place.c (judging), place_layers.c (dealing layers to stages) and place_rows.c
 * (which stages to look at) share. */
#ifndef CLUSTER_PLACE_IMPL_H
#define CLUSTER_PLACE_IMPL_H

#include "cluster/place.h"

enum { PLACE_KEEP = 6, PLACE_CACHE = 1 << 12, PLACE_EXACT = 4 }; /* EXACT: devices up to which every possibility is tried */

/* Devices into stages. */
struct row {
    int32_t n_stages, width[LIMIT_RANKS], device[LIMIT_RANKS];
};

struct found {
    bool fits;
    struct row row;
    struct clu_layout layout;
    int64_t n_blocks;
    double decode_tok_s, prefill_tok_s, comm, bubble;
    int32_t users;
};

struct entry {
    uint64_t key;
    struct clu_stage_fit fit;
};

struct search {
    const struct clu_work *w;
    const struct clu_topo *t;
    const struct clu_want *want;
    bool whole_experts;
    int32_t class_of[LIMIT_RANKS];
    struct entry *cache;
    struct found best, kept[PLACE_KEEP];
    int32_t n_kept;
    struct clu_alt alts[LIMIT_RANKS + 1]; /* the best of each number of stages; [0]: one device */
    struct clu_alt flat;                  /* all in one stage */
    int64_t n_looked;
};

/* Devices that are alike share a class, for the cache of stages. */
void clu_place_classify(struct search *s);
/* The best layout of a row for `users` decoding together, with room for so many full contexts; false: there is none. */
bool clu_place_lay(struct search *s, const struct row *row, int32_t users, int32_t contexts, struct clu_layout *out);
/* Is the row better than the best so far? Remembered either way. */
bool clu_place_look(struct search *s, const struct row *row);
/* Look at every row, or at the promising ones. */
void clu_place_rows(struct search *s);

#endif
