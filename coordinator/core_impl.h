/* core_impl.h: what core.c and report.c share. Private. */
#ifndef COORDINATOR_CORE_IMPL_H
#define COORDINATOR_CORE_IMPL_H

#include "coordinator/core.h"
#include "coordinator/replica/fleet.h"
#include "coordinator/workers.h"

/* One replica with its own worker plane and, managed, its own processes. */
struct core_unit {
    struct crd_core *core;
    int32_t index;
    char listen[160], join[160];
    struct rpc_server *server;
    struct crd_replica *replica;
    struct crd_workers *workers; /* NULL: they join by themselves */
};

struct crd_core {
    /* [init] */
    struct core_conf conf;
    char key_text[65];
    struct auth_key key;
    struct eng_tokenizer *tokenizer;
    struct eng_template *chat_template;
    char *template_source;
    struct crd_fleet *fleet;
    struct core_unit units[ROUTE_REPLICAS];
    int32_t n_units;
    char *launch_extra;
    struct crd_hosts hosts;
    pthread_mutex_t lock; /* conf.place and conf.on_change, called on the replicas' threads, one at a time */
    struct crd_api api;
    const char *names[2];
    char name[128];
};

/* report.c: what /health, /metrics and the API's admission see. self: a struct crd_core. */
void crd_report_status(void *self, struct service_status *out);
void crd_report_engine(void *self, int32_t i, struct sched_stats *out);
void crd_report_health(void *self, struct buf *out);
void crd_report_metrics(void *self, struct buf *out);

#endif
