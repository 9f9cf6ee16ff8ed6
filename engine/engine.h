/* engine.h: one rank's engine: open a shard, step a batch, close. The only engine header a worker needs.
 *
 * The engine executes step plans: it keeps the state of sequences in numbered slots, runs its stage's layers, exchanges hidden states and
 * tokens with the other stages, samples on the last stage. It knows nothing of MPI, gRPC or HTTP: communicators come in as tables.
 * Lifetime: load. After open nothing grows with traffic. Thr: one thread calls; eng_engine_layer from any. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "base/arena.h"
#include "engine/model/forward.h"
#include "engine/model/lora.h"
#include "engine/model/times.h"
#include "engine/model/weights.h"
#include "proto/model_weights.h"
#include "proto/step_plan.h"
#include "proto/step_result.h"
#include "transport/coll.h"
#include "transport/device.h"

struct eng_engine_conf {
    const char *model_path;
    struct grid grid;
    int32_t rank;
    struct trn_coll *tp;       /* the ranks of this rank's stage, in order; borrowed */
    struct trn_coll *world;    /* all ranks of the replica; point-to-point between stages; borrowed */
    /* How the ranks of `tp` sum up what lies on their devices, without the host between; NULL: by tp and copies. Called on every rank of the
     * stage, with d NULL where the rank is on the host; *out NULL: by tp after all. Own: the engine closes *out. */
    enum err (*tp_device)(void *user, const struct trn_device *d, struct trn_coll **out);
    void *tp_user;
    int32_t n_threads;
    const int32_t *cpus;       /* [n_threads] to bind to, or NULL */
    int32_t context, n_blocks, n_slots, max_step_tokens;
    enum kv_type kv_type;
    bool oracle;
    bool rounded;              /* products of BF16 and F16 weights may round more, where that is faster (engine/kernels/rounded.h) */
    uint64_t made;             /* not 0: weights are made from this seed instead of read (engine/model/made.h) */
    uint64_t fingerprint;      /* the model must be this one (eng_engine_fingerprint); 0: any */
    struct eng_adapters adapters; /* served beside it; arrays are borrowed during open */
    const char *device;        /* "cpu" (or NULL), "cuda:N", "auto" (engine/backend/backend.h) */
    const char *isa;           /* of the host: "auto" or a kernel table's name */
    int64_t timeout_us;        /* of every collective */
    const char *cache_dir;     /* of packed weights: NULL: none; "": the user's own, if the model is not on a disk of this host */
    int64_t cache_bytes;       /* its bound; 0: a quarter of the free space */
    eng_progress_fn progress;  /* while loading; may be NULL */
    void *user;
};

struct eng_engine_info {
    int64_t weight_bytes, kv_bytes;      /* weights: adapters' included */
    int64_t step_bytes;                  /* weights that a step reads: all matrices but the embedding */
    int64_t layer_weights, head_weights; /* multiplied once per token; once per row of logits */
    int32_t n_blocks;
    int64_t n_replayed;                  /* steps whose layers were told to the device as one graph */
    int32_t n_launches;                  /* in such a one of one token: kernels and copies, at most */
    int64_t n_ahead;                     /* steps begun before the one before had ended */
    struct eng_load_stats loaded;        /* how the weights came */
    char device[24];
    const char *isa;
    double load_seconds;
};

struct eng_engine;
/* Err as eng_weights_open, eng_shard_of, eng_kv_pool_open. Own: caller closes. */
MUST_USE enum err eng_engine_open(struct eng_engine **out, const struct eng_engine_conf *conf);
void eng_engine_close(struct eng_engine *e);
/* Wait until the cache of packed weights is written (tests and tools): close gives up what is not. */
void eng_engine_settle(struct eng_engine *e);
/* Every sequence is forgotten, nothing that other ranks sent for steps so far is left unread; weights and KV pool stay. On every rank after
 * the same step. Err: the collective's. */
MUST_USE enum err eng_engine_reset(struct eng_engine *e);
void eng_engine_info(const struct eng_engine *e, struct eng_engine_info *out);
/* What the ranks of the stage told each other so far, host and devices together. */
void eng_engine_comm(const struct eng_engine *e, struct coll_stats *out);
/* The communicator of the stage's devices, or NULL. */
struct trn_coll *eng_engine_tp_device(const struct eng_engine *e);
/* From now on steps add their times to *t (NULL: no more). For benchmarks. */
void eng_engine_measure(struct eng_engine *e, struct eng_times *t);

/* From now on `fn` is shown the input of each product with this rank's matrices (NULL: no more). On the CPU only. For measurements. */
void eng_engine_watch(struct eng_engine *e, eng_watch_fn fn, void *user);
const struct eng_weights *eng_engine_matrices(const struct eng_engine *e);
const struct eng_spec *eng_engine_spec(const struct eng_engine *e);

/* What a plan for this engine may refer to. */
struct step_bounds eng_engine_bounds(const struct eng_engine *e);

/* Execute one plan. *result is filled on the last stage's first rank (eng_engine_answers), from `a`; elsewhere it is empty.
 * Err: anything from a collective (the engine is then unusable), LINK_PROTOCOL (the plan contradicts the state: slot, table, reference). */
MUST_USE enum err eng_engine_step(struct eng_engine *e, const struct step_plan *p, struct arena *a, struct step_result *result);
/* The same in two halves. begin: what can be told to a device is; whatever cannot is done. end, of the oldest step begun: what is left is waited for.
 * Own: all three are borrowed until the end, which fills *result. One step more may be begun before the one in hand has ended, where eng_engine_may_begin
 * allows that plan; the order of ends, and every bit, is the same. Err: of either, as eng_engine_step; what was begun is lost. */
MUST_USE enum err eng_engine_begin(struct eng_engine *e, const struct step_plan *p, struct arena *a, struct step_result *result);
MUST_USE enum err eng_engine_end(struct eng_engine *e);
/* Is the one step in hand left to a device, so that another may be begun? */
bool eng_engine_overlaps(struct eng_engine *e);
bool eng_engine_may_begin(struct eng_engine *e, const struct step_plan *p);
/* *done: the end of the oldest step has nothing to wait for. Err: the device's, or of ranks that it waits for. */
MUST_USE enum err eng_engine_came(struct eng_engine *e, bool *done);
/* Does this rank send the results? */
bool eng_engine_answers(const struct eng_engine *e);

/* The layer being computed, -1 between steps. */
int32_t eng_engine_layer(const struct eng_engine *e);

/* Which model lies at a path: see engine/file/fingerprint.h. */
MUST_USE enum err eng_engine_fingerprint(const char *model_path, uint64_t *out);

/* The model at a path as the scheduler and planner see it: headers only. */
MUST_USE enum err eng_engine_model_info(const char *model_path, struct model_info *out);

/* Memory of one rank before anything is loaded: packed weights, one KV block, step buffers, in bytes. */
struct eng_engine_need { int64_t weight_bytes, block_bytes, buffer_bytes; };
MUST_USE enum err eng_engine_need(const char *model_path, const struct grid *g, int32_t rank, enum kv_type kv_type, int32_t max_step_tokens,
                                  int32_t context, struct eng_engine_need *out);
/* What the parts of the model weigh: headers only. Err as eng_engine_model_info; a tensor that is missing weighs nothing here. */
MUST_USE enum err eng_engine_weights(const char *model_path, struct model_weights *out);
/* The adapters suit the model at the path: what they need of a rank of the grid beside eng_engine_need, weights and buffers; what their parts weigh
 * for the planner, added to *w. Headers only. Err as eng_lora_open. */
MUST_USE enum err eng_engine_adapters_need(const char *model_path, const struct eng_adapters *a, const struct grid *g, int32_t rank, int32_t max_step_tokens,
                                           struct eng_engine_need *out);
MUST_USE enum err eng_engine_adapters_weigh(const char *model_path, const struct eng_adapters *a, struct model_weights *w);
/* An even grid of tp x pp ranks for the model. Err as eng_grid_even, eng_shard_of (each rank is checked). */
MUST_USE enum err eng_engine_grid(const char *model_path, int32_t tp, int32_t pp, struct grid *out);

#endif
