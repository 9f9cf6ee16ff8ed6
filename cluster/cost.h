/* cost.h: what a placement costs in bytes and seconds, term by term. Pure arithmetic; the planner
 * (place.h) searches with it, and people read it.
 *
 *   layer on a rank  weights: bytes / memory bandwidth or operations / peak, the longer (on a
 *                    processor a little more where they are near each other); attention: the same
 *                    over the KV it reads; a constant
 *   whole experts    each row's experts are chosen as if by chance: the layer waits for the rank
 *                    that got most of them, in expectation
 *   collective       alpha-beta: latency + bytes that the busiest rank (and its host's wire)
 *                    receives + a constant for each further message; a rank sends its maximal
 *                    subtrees, so a crooked cut sends more; two more latencies for messages that
 *                    MPI asks the receiver about first; of more than two hosts, what ranks have
 *                    measured of all at once, where that is more
 *   step             what the lead hands to the others, one latency
 *   stage            its worst rank + two all-reduces per layer, + embedding, head and the
 *                    gathering of logits where it has them
 *   pipeline         micro-batches of ceil(users / stages) rows: a round is max(sum of stages,
 *                    micro-batches x slowest stage); of ranks that share processors only those of
 *                    the stages that have a micro-batch compute
 *
 * The shares of peak that kernels reach are in struct clu_rates: measured, and printed by `tessera
 * plan` so that a wrong one can be named. */
#ifndef CLUSTER_COST_H
#define CLUSTER_COST_H

#include "cluster/topo.h"
#include "proto/kv_groups.h"
#include "proto/leaves.h"
#include "proto/model_weights.h"

struct clu_rates {
    double read_share;      /* of a device's read bandwidth that matrix products reach */
    double ops_share;       /* of its int8 peak */
    double float_share;     /* the same for weights in F32, F16, BF16, on a processor */
    double attention_share; /* of its int8 peak, in f32 */
    double leaf_ops;        /* on a processor, for each value of a leaf that an expert's product is added into: of its int8 peak */
    double layer_s;         /* barriers and small operations of one layer */
    double row_layer_s;     /* the same per row */
    double step_s;          /* coordinator, link, plan: once per step */
    double message_s;       /* sending one more message between hosts, and receiving one */
    double sample_s;        /* per sampled row and vocabulary id; every rank of the stage does it whole */
    int64_t process_bytes;  /* a worker before it has a model: program, MPI, gRPC */
    int64_t graph_bytes;    /* on a card, for each layer: the graphs of steps (engine/model/graphs.h), an allowance */
    int64_t rounded_bytes;  /* on a card, where products may round: cuBLASLt's (engine/kernels/cuda/lt.h) */
    int64_t nccl_bytes;     /* on a card of a host with several, in a stage of several ranks: NCCL's communicator (transport/coll_nccl.c), an allowance */
    int32_t card_units;     /* multiprocessors that a card has at most: splits of attention take room for each */
    int64_t hier_bytes;     /* there too, in a stage over several hosts: what the cards add up in (transport/coll_hier_cards.c); packed wires: thrice */
};
extern const struct clu_rates clu_rates_default;

/* How vectors that are summed travel between hosts (transport/wire_type.h). Not f32: a rank adds up its own parts first. */
enum clu_wire_type { CLU_WIRE_F32, CLU_WIRE_F16, CLU_WIRE_Q8, CLU_WIRE_TYPES };
extern const char *const clu_wire_name[CLU_WIRE_TYPES];

/* The model and how it is to be used. */
struct clu_work {
    const struct model_info *info;
    const struct model_weights *weights;
    const struct clu_rates *rates;
    int32_t context; /* longest sequence */
    int32_t depth;   /* positions already in the cache when speed is stated */
    int32_t max_step_tokens, n_slots;
    enum kv_type kv_type;
    enum clu_wire_type wire; /* of sums between hosts; anything but f32 is not exact */
    bool rounded;  /* products may round: --exact off */
    double active; /* of a crowd of ranks that share processors (topo.h), how many compute at once; 0: all */
    bool staged;   /* those are of several stages, which wait for each other once a round and not in every layer */
};

/* A cut laid on devices: rank r runs on topo->devices[device[r]]. */
struct clu_layout {
    struct grid grid;
    int32_t device[LIMIT_RANKS];
};

/* KV blocks for n_tok positions in sequences of up to w->context, and positions that n blocks hold (proto/kv_groups.h). */
int64_t clu_cost_hold(const struct clu_work *w, int64_t n_tok);
int64_t clu_cost_room(const struct clu_work *w, int64_t n_blocks);

struct clu_memory {
    int64_t weights, kv_block, buffers, process;
    int64_t card; /* what a card keeps for itself, 0 on a processor */
};
/* Of rank `rank` on t->devices[device]. */
void clu_cost_memory(const struct clu_work *w, const struct grid *g, int32_t rank, const struct clu_topo *t, int32_t device, struct clu_memory *out);
/* All but the KV cache. */
static inline int64_t clu_memory_fixed(const struct clu_memory *m) { return m->weights + m->buffers + m->process + m->card; }
/* What t->devices[device] keeps for itself of a stage of n_layers and `width` ranks that share evenly; of that, what is NCCL's. */
int64_t clu_cost_card(const struct clu_work *w, const struct clu_topo *t, int32_t device, int32_t n_layers, int32_t width);
int64_t clu_cost_nccl(const struct clu_work *w, const struct clu_topo *t, int32_t device, int32_t width);
/* KV blocks that every rank has room for; negative when some rank lacks room for its weights.
 * *tightest: the rank that decides. */
int64_t clu_cost_blocks(const struct clu_work *w, const struct clu_topo *t,
                        const struct clu_layout *l, int32_t *tightest);

/* One rank's time for one layer with `rows` rows; prefill: they belong to one sequence. Of whole experts (proto/grid.h) dealt among n ranks the
 * busiest rank counts; n 0: they are cut inside. */
struct clu_rank_cost {
    double per_head_s, per_kv_s, per_leaf_s, fixed_s;
};
void clu_cost_rank(const struct clu_work *w, const struct clu_device *device, int32_t rows, bool prefill, int32_t n_dealt,
                   struct clu_rank_cost *out);

/* An all-reduce of `rows` x d_model floats among devices[n]; parts[i]: subtrees that rank i sends.
 * Of several ranks on a host the first collects their parts and speaks for them (transport/coll_hier.c). */
double clu_cost_reduce(const struct clu_work *w, const struct clu_topo *t, const int32_t device[],
                       int32_t n, const int32_t parts[], int32_t rows);

/* Sending `rows` rows on from a stage: rank j of the next one hears from rank j % width of this one.
 * Of the layout only devices and widths count. */
double clu_cost_hop(const struct clu_work *w, const struct clu_topo *t, const struct clu_layout *l,
                    int32_t stage, int32_t rows);

/* Embedding (first stage) and head (last) of ranks device[n] with these shares. */
double clu_cost_ends(const struct clu_work *w, const struct clu_topo *t, const int32_t device[],
                     int32_t n, const struct grid_share share[], bool first, bool last,
                     int32_t rows, int32_t sampled);

struct clu_stage_cost {
    double compute_s, reduce_s, ends_s, hop_s, total_s;
    double gather_s; /* of ends_s: between ranks */
};
/* Stage `stage` with `rows` rows, of which `sampled` are sampled from; hop_s: sending on to the
 * next stage. */
void clu_cost_stage(const struct clu_work *w, const struct clu_topo *t, const struct clu_layout *l,
                    int32_t stage, int32_t rows, int32_t sampled, bool prefill,
                    struct clu_stage_cost *out);

struct clu_speed {
    double tok_s;   /* all users together */
    double round_s; /* one token for each of them */
    double bubble;  /* share of the stages' time that is idle */
    double comm;    /* share of the slowest stage's time in collectives and hops */
    double comm_s;  /* of decode's round: in them */
};
void clu_cost_decode(const struct clu_work *w, const struct clu_topo *t, const struct clu_layout *l,
                     int32_t users, struct clu_speed *out);
/* A prompt of four chunks of max_step_tokens, or of the context if that is shorter. */
void clu_cost_prefill(const struct clu_work *w, const struct clu_topo *t,
                      const struct clu_layout *l, struct clu_speed *out);
/* Reading the model's file, each host its ranks' parts. */
double clu_cost_load(const struct clu_work *w, const struct clu_topo *t,
                     const struct clu_layout *l);

#endif
