/* place.h: the planner: from a model's header and a topology, who holds what. Pure: no clock, no
 * file, no thread; the same answer everywhere.
 *
 * It chooses stages (each a set of devices), layers per stage, and in each stage unequal shares of
 * heads, FFN leaves and vocabulary, so that decoding for `users` at once is predicted fastest under
 * every device's memory. Within 0.5 % the fewer ranks win, then the faster prefill. Exhaustive for
 * small clusters; above, a beam of regular shapes improved by merging, splitting and dropping
 * (place_rows.c says which). Not here: the costs themselves (cost.h), the sentences and pictures
 * (place_explain.c). */
#ifndef CLUSTER_PLACE_H
#define CLUSTER_PLACE_H

#include "cluster/cost.h"

enum { CLU_MAX_ALTS = 8, CLU_EFFORT_PROBE = 2, CLU_KV_CONTEXTS = 8 };

/* How experts are dealt to the ranks of a stage: cut inside, whole (proto/grid.h), or as is predicted faster. */
enum clu_experts { CLU_EXPERTS_CUT, CLU_EXPERTS_WHOLE, CLU_EXPERTS_AUTO };

struct clu_want {
    int32_t users;       /* sequences at once that speed is judged by */
    int64_t need_tokens; /* KV positions that must fit; 0: one context */
    int64_t kv_tokens;   /* KV positions that will be held; 0: clu_place_kv's choice */
    enum clu_experts experts;
    bool fixed_order;    /* ranks are numbered already: stages are consecutive devices, none is left
                            out */
    int32_t effort; /* 0: as the size allows; 1: never exhaustive; CLU_EFFORT_PROBE: the same, and a
                       refusal has no sentence */
};

/* A placement that was looked at and not taken. */
struct clu_alt {
    char shape[48]; /* "2+2" : widths of the stages */
    int32_t n_ranks;
    bool fits;
    double decode_tok_s, comm, bubble;
    int64_t short_bytes; /* when it does not fit; 0: in sum it would, but not in these pieces */
    int64_t kv_tokens;
};

struct clu_place {
    struct clu_layout layout;
    int32_t n_ranks, n_unused;
    int32_t unused[LIMIT_RANKS]; /* devices that only would slow it down */
    int64_t n_blocks;            /* KV blocks that every rank has room for */
    int64_t n_held;              /* of them, those that serve will hold */
    int32_t tightest;            /* the rank that bounds them */
    int32_t users;               /* of want: how many full contexts were judged */
    struct clu_speed decode[3];  /* 1, 8, 32 users */
    struct clu_speed judged, prefill;
    double load_s;
    bool crosses;                /* some stage's sums travel between hosts */
    double wire_tok_s[CLU_WIRE_TYPES]; /* what judged.tok_s would be if they travelled so */
    double experts_tok_s[2];     /* and with these shares, if experts were cut inside or whole */
    int32_t n_alts;
    struct clu_alt alts[CLU_MAX_ALTS];
    int64_t n_looked; /* placements evaluated */
};
extern const int32_t clu_place_users[3];

/* KV blocks that serve holds where there is room for so many: as told, or at most CLU_KV_CONTEXTS full contexts. More than the room: it does
 * not fit. */
int64_t clu_place_kv(const struct clu_work *w, int64_t room_blocks, int64_t kv_tokens);

/* The wire type of the fastest of wire_tok_s; within 5 % the more precise one. */
enum clu_wire_type clu_place_wire(const struct clu_place *p);

/* Err NO_FIT: by how much, and what would make it fit. UNSUPPORTED when the model admits no cut
 * over these devices. */
MUST_USE enum err clu_place_find(struct clu_place *out, const struct clu_work *w,
                                 const struct clu_topo *t, const struct clu_want *want);

/* Does `want` have experts whole in this layout? Auto: if that is predicted clearly faster. */
bool clu_place_whole(const struct clu_work *w, const struct clu_topo *t, const struct clu_want *want, const struct clu_layout *l);

/* The figures of a given layout (of a --tp and --pp, or of a test's). Err NO_FIT naming the rank.
 */
MUST_USE enum err clu_place_of(struct clu_place *out, const struct clu_work *w,
                               const struct clu_topo *t, const struct clu_want *want,
                               const struct clu_layout *l);

/* One stage: the best shares of `layers` layers among devices[n], with room for n_blocks KV blocks.
 */
struct clu_stage_try {
    const struct clu_work *w;
    const struct clu_topo *t;
    const int32_t *device;
    int32_t n, layers, rows;
    int64_t n_blocks;
    bool first, last;
    int32_t effort;
    bool whole_experts;
};
struct clu_stage_fit {
    bool fits;
    double layer_s, ends_s;
    struct grid_share share[LIMIT_RANKS];
};
void clu_place_stage(const struct clu_stage_try *s, struct clu_stage_fit *out);
/* Do the shares depend on the number of layers even where memory is plenty? (Small models: their
 * head weighs.) */
bool clu_place_stage_close(const struct clu_stage_try *s);
/* Is there room for these shares? */
bool clu_place_stage_fits(const struct clu_stage_try *s, const struct grid_share share[]);

/* The sentence of ERR_NO_FIT: the amount and the remedies, found by planning again with less
 * context, smaller types, one more card. */
enum err clu_place_refuse(const struct clu_work *w, const struct clu_topo *t,
                          const struct clu_want *want);

/* For people: the placement as a picture and a table, the alternatives and why they lost; for
 * programs: the same as JSON. Appended. */
void clu_place_explain(const struct clu_place *p, const struct clu_work *w,
                       const struct clu_topo *t, struct buf *out);
void clu_place_json(const struct clu_place *p, const struct clu_work *w, const struct clu_topo *t,
                    struct buf *out);

#endif
