/* placement.h: which rank holds what, from the options and from what the ranks said of themselves; and whether steps take what was promised. */
#ifndef CLI_PLACEMENT_H
#define CLI_PLACEMENT_H

#include "cli/adapters.h"
#include "cli/options.h"
#include "cluster/forecast.h"
#include "cluster/hostfile.h"
#include "cluster/topo_ranks.h"
#include "coordinator/replica/replica.h"
#include "coordinator/replica/route.h"

enum { PLACEMENT_PATH = 1024 };

/* The placement that these options ask for: replica_conf.place's user. */
struct placement {
    const struct common_options *o;
    const char *model_path;
    struct model_info info;
    uint64_t fingerprint;       /* of the model at our start: every rank, also of a later job, must find the same */
    struct adapters adapters;   /* Own: placement_close */
    int32_t context;            /* out: decided */
    int32_t n_blocks;           /* of the first load: later ones have no more, so that replicas are alike; 0: none yet */
    int32_t sharing;            /* replicas that share one host's memory and cores */
    struct clu_hostfile order;  /* of the hosts, where it is not the hostfile's (hosts_topo.h) */
    /* KV caches of replicas that this model is loaded beside: promised, whether touched yet or not */
    struct { char host[64]; int64_t bytes; } taken[LIMIT_RANKS];
    int32_t n_taken;
    char tls[3][PLACEMENT_PATH]; /* certificate, key, CA: where they lie, from the root; "" where they were named so */
    int32_t depth;              /* of the sequences that speed is foretold for; 0: half the context, at most 512 */
    int64_t telemetry_us;       /* between two heartbeats; 0: a second */
    struct clu_wire slowest;    /* out: the slowest link between two hosts of the last placement; zeros: there is one host */
    struct clu_guess guess;     /* .measured: of this machine's processors, taken for those that --topo does not name */
    struct plan_inputs *inputs; /* where guess.measured: of the last placement, for placement_measured. Own: free() */
    /* [replica's thread] of each replica: what its placement promises, and what was said of it last */
    struct clu_forecast forecast[ROUTE_REPLICAS];
    struct { enum clu_term term; int64_t us; } said[ROUTE_REPLICAS];
};
/* Headers only: info, and that the cut is possible when the number of ranks is known. Without --tp and --pp the cut is the planner's
 * (cluster/place.h), made once the ranks have said what they have. Err: see eng_engine_grid. */
MUST_USE enum err placement_open(struct placement *p, const struct common_options *o, const char *model_path);
void placement_close(struct placement *p);
/* replica_conf.on_pace: says once which term was wrong when steps take more or less than was promised by a quarter (pace.c). */
void placement_pace(void *user, const struct replica_pace *p);
/* The processors were measured again (guess.measured must have been set before): what the last placement promises with these figures, in
 * forecast[0]; the cut stays. */
void placement_measured(struct placement *p, const struct clu_guess *guess);
enum err placement_place(void *user, const struct msg_hello hellos[], int32_t n, struct msg_load_plan *plan);

#endif
