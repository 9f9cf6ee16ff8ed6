/* local_replica.h: a whole replica as threads of the test: every rank a thread with its own engine,
 * over coll_local.
 *
 * Plans travel packed, as on the wire, so each rank unpacks its own. Thr: one caller. */
#ifndef TESTS_SUPPORT_LOCAL_REPLICA_H
#define TESTS_SUPPORT_LOCAL_REPLICA_H

#include "engine/engine.h"

struct local_replica_conf {
    const char *path;
    const struct grid *grid; /* instead of tp and pp, or NULL */
    int32_t tp, pp, n_threads, context, n_blocks, n_slots, max_step_tokens;
    bool exact_blocks;    /* n_blocks in all; else for each block table of a sequence */
    struct eng_adapters adapters; /* beside the model */
    enum kv_type kv_type; /* zero: f16 */
    bool oracle, rounded;
    bool whole_experts;   /* each on one rank */
    const char *isa;
    uint64_t on_device;      /* bit r: rank r computes on cuda:0 */
    bool nccl;               /* then on cuda:r, and the ranks of a stage sum by NCCL where they can */
    bool direct;             /* the same by exchange in each other's memory */
    uint64_t without_file;   /* bit r: rank r finds no model at its path, nor adapters */
    int64_t timeout_us;      /* of waits for other ranks; 0: 20 s */
    const char *cache_dir;   /* of packed weights, or NULL */
    int64_t cache_bytes;
};

struct local_replica;
/* Zero fields take defaults: tp 1, pp 1, threads 1, context 512, blocks for 4 contexts, slots 16,
 * step tokens 512, isa "auto". */
MUST_USE enum err local_replica_open(struct local_replica **out, const struct local_replica_conf *conf);
void local_replica_close(struct local_replica *r);
/* All steps have ended on every rank, none is begun any more: what local_replica_info says is the last word. */
void local_replica_stop(struct local_replica *r);
/* Send a plan to every rank; do not wait. */
void local_replica_send(struct local_replica *r, const struct step_plan *p);
/* The next result in order; arrays live in *a. */
MUST_USE enum err local_replica_recv(struct local_replica *r, struct arena *a, struct step_result *out);
/* Why that rank failed; "". */
const char *local_replica_why(struct local_replica *r, int32_t rank);
/* Both. */
MUST_USE enum err local_replica_step(struct local_replica *r, const struct step_plan *p, struct arena *a, struct step_result *out);
void local_replica_bounds(struct local_replica *r, struct step_bounds *out);
void local_replica_info(struct local_replica *r, int32_t rank, struct eng_engine_info *out);
int64_t local_replica_weight_bytes(struct local_replica *r, int32_t rank);
/* Wait until every rank's cache of packed weights is written. */
void local_replica_settle(struct local_replica *r);
/* What the stage's devices sum by: "nccl", or why they do not. */
const char *local_replica_sums_by(struct local_replica *r, int32_t rank);
uint64_t local_replica_bytes_sent(struct local_replica *r, int32_t rank);

#endif
