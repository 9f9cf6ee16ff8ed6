/* serving.h: the model being served, and the change to another one while the gateway stays open: what `tessera serve` does beside answering.
 * Thr: main. */
#ifndef CLI_SERVING_H
#define CLI_SERVING_H

#include "cli/options.h"
#include "coordinator/admin.h"
#include "coordinator/gateway/gateway.h"

struct crd_keys;
struct crd_replay;
struct crd_ledger;
struct crd_admin_door;

struct serving_conf {
    const struct common_options *c;
    const char *served_name, *chat_template, *program, *state_dir;
    int32_t max_waiting, max_n;
    enum step_pool pooling;
    bool plain_sampling;
    double drain_timeout;
    struct crd_keys *keys;
    struct crd_replay *replay;
    struct crd_ledger *ledger;
    struct crd_admin_door *door; /* NULL: no admin keys */
};

/* One model with its replicas. */
struct served {
    struct placement place;
    struct core_conf core_conf;
    struct crd_core *core;
    char *model, listen[160];
};

/* Nothing is started yet. before: another that is open, or NULL: then the worker plane takes any free port. beside: and stays while this one is
 * loaded. */
MUST_USE enum err served_open(struct served **out, const struct serving_conf *conf, const char *model, const struct served *before, bool beside);
void served_close(struct served *s); /* NULL-safe */

struct serving {
    struct serving_conf conf;
    struct gw *gw;
    struct served *now;
};

/* Serve `model` from now on. The new replicas are loaded beside the old ones when memory allows; requests go over when they are READY, and what
 * the old ones answer may finish within --drain-timeout. Else new requests wait while the old replicas finish and go and the new ones load.
 * Err: the new model cannot be served: the old one is, still or again. CANCELLED: the server ends. */
MUST_USE enum err serving_reload(struct serving *v, const char *model, struct crd_admin *a);

#endif
