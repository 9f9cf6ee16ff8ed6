/* engine_impl.h: what engine.c and step.c share: one rank's engine. Private to engine/. */
#ifndef ENGINE_ENGINE_IMPL_H
#define ENGINE_ENGINE_IMPL_H

#include "engine/engine.h"
#include "engine/head.h"
#include "engine/mask_ahead.h"
#include "engine/stages.h"

/* A step that was begun and has not ended. */
struct eng_flight {
    const struct step_plan *p;   /* these three are the caller's */
    struct arena *a;
    struct step_result *result;
    int64_t begun_us;
    struct coll_stats comm;      /* in its halves */
    bool left;                   /* its tokens are on the device: eng_head_take is still to come */
};

struct eng_engine {
    struct eng_engine_conf conf;
    struct eng_model_file *file;
    struct eng_shard_cache *cache;
    struct grid grid;
    struct eng_model m;
    struct trn_device device;            /* m.be's, for m.tp_dev */
    struct eng_team *host_team;          /* off the host: who packed the weights, and then shares rows of logits */
    struct eng_slots slots;
    struct eng_constraints *constraints; /* last stage */
    struct eng_mask_ahead *masks;        /* last stage */
    struct eng_stages stages;
    struct eng_head head;                /* last stage */
    struct eng_batch batch;
    struct eng_engine_info info;
    struct eng_flight flights[2];        /* step k is in k % 2, counted by these two, the second of which is behind by two at most */
    uint64_t n_begun, n_ended;
    int64_t ended_us, n_ahead;
};

#endif
