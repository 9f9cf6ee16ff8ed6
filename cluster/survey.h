/* survey.h: asks every host of a hostfile for its facts and every two hosts for what they see of
 * each other: what the rules of doctor.h need.
 *
 * A helper (helper.h) per host, each under an mpirun of its own, so that one that hangs is known by
 * name; pairs that share no host probe at the same time. Every wait has a deadline, and a host
 * that fails is looked at more closely (survey_why.c), not waited for. Needs no model in memory. */
#ifndef CLUSTER_SURVEY_H
#define CLUSTER_SURVEY_H

#include "cluster/doctor.h"

struct clu_survey_conf {
    const char *self;          /* path of this binary */
    const char *program;       /* path of it on the hosts */
    const char *model;         /* or NULL */
    const char *hostfile;      /* or NULL: this host alone */
    const char *mpirun_args;   /* or NULL */
    const char *listen;        /* address of the worker plane, or NULL: as serve chooses */
    int64_t timeout_us;        /* to start a helper; all else follows from it */
    bool collective;
    bool machines;             /* every host measures itself for the planner: clu_survey_topo */
    bool (*stop)(void);        /* a signal came: be quick */
    void (*progress)(void *user, const char *text); /* one phrase; or NULL */
    void *user;
};

/* Err BAD_CONFIG (hostfile), SYSTEM. Own: clu_survey_free. A sick host is no error. */
MUST_USE enum err clu_survey_run(struct clu_survey *out, const struct clu_survey_conf *conf);
void clu_survey_free(struct clu_survey *s); /* NULL-safe */

/* The machines of a survey that was asked for them, as the hostfile names them, with a link for every two hosts that reach each other: the slower of
 * both ways. *n: how many of the hosts with ranks are in it. Err BAD_CONFIG: none, or too many. survey_topo.c. */
MUST_USE enum err clu_survey_topo(const struct clu_survey *s, struct clu_topo *out, int32_t *n);

/* Why mpirun brought nothing from hosts[i]: sets its asked and why, by asking its name, ssh and the
 * binary in turn. complaint: what mpirun said; hung: it did not end. Thr: any, one per host. */
void clu_survey_why(struct clu_survey_host *h, const struct clu_survey_conf *conf,
                    const char *complaint, bool hung);

/* A real all-reduce through mpirun, on the hosts that can be asked: sets s->collective. */
void clu_survey_collective(struct clu_survey *s, const struct clu_survey_conf *conf);
/* Are there two ranks for it? Of a hostfile each host that answers gives one. */
bool clu_survey_can_reduce(const struct clu_survey *s, const struct clu_survey_conf *conf);

#endif
