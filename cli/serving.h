/* serving.h: the model being served, and the change to another one while the gateway stays open: what `tessera serve` does beside answering.
 * Thr: main. */
#ifndef CLI_SERVING_H
#define CLI_SERVING_H

#include "cli/placement.h"
#include "coordinator/admin.h"
#include "coordinator/core.h"
#include "coordinator/gateway/gateway.h"
#include "hub/ref.h"

struct crd_keys;
struct crd_replay;
struct crd_ledger;
struct crd_admin_door;

struct serving_conf {
    const struct common_options *c;
    const char *served_name, *chat_template, *program;
    int32_t max_waiting, max_n;
    int64_t pulse_us;               /* as replica_conf's */
    enum step_pool pooling;
    bool plain_sampling;
    double drain_timeout;
    struct crd_keys *keys;
    struct crd_replay *replay;
    struct crd_ledger *ledger;
    struct crd_admin_door *door; /* NULL: no admin keys */
    struct crd_state *state;     /* NULL: no --state-dir */
    bool journal;                /* with these, in the state directory; keep_us: of answers that have ended */
    int64_t journal_bytes, journal_sync_us, keep_us;
};

/* One model with its replicas. */
struct served {
    struct placement place;
    struct core_conf core_conf;
    struct crd_core *core;
    char *model, listen[160];
    char label[2][HUB_LABEL];  /* of a model that was pulled */
    const char *also[3];       /* those that clients may use */
    int32_t number; /* of its files in the state directory */
};

struct serving {
    struct serving_conf conf;
    struct gw *gw;
    struct served *now;
    int32_t last_number; /* given to a model */
};

/* The model to begin with, with its journal: nothing is started yet. With --state-dir it is the one that the coordinator before had when it was
 * killed, also when a reload had put that in the place of the command line's (`model`). */
MUST_USE enum err serving_open(struct serving *v, const char *model);
void serving_close(struct serving *v); /* its model, and what is in the state directory of it */

/* Serve `model` from now on. The new replicas are loaded beside the old ones when memory allows; requests go over when they are READY, and what
 * the old ones answer may finish within --drain-timeout. Else new requests wait while the old replicas finish and go and the new ones load.
 * Err: the new model cannot be served: the old one is, still or again. CANCELLED: the server ends. */
MUST_USE enum err serving_reload(struct serving *v, const char *model, struct crd_admin *a);

#endif
