/* doctor.h: is this cluster healthy, and if not, what exactly? Rules over facts.
 *
 * A survey (survey.h gathers one) holds what each host said and what each pair of hosts saw; the
 * rules turn it into findings: what, where, the value seen, the value needed and what cures it.
 * Pure: no file, socket, clock or environment, so that every rule is a test; the same survey gives
 * the same findings in the same order. Not here: gathering, printing (doctor_text.c). */
#ifndef CLUSTER_DOCTOR_H
#define CLUSTER_DOCTOR_H

#include "cluster/facts.h"
#include "cluster/probe.h"
#include "cluster/topo.h"
#include "proto/limits.h"

enum { CLU_SURVEY_HOSTS = LIMIT_RANKS + 1 }; /* the coordinator's may hold no ranks */

/* How far asking a host went. */
enum clu_asked {
    ASKED_OK,
    ASKED_NO_NAME,     /* its name does not resolve here */
    ASKED_SSH_HANGS,
    ASKED_SSH_FAILS,
    ASKED_NO_PROGRAM,  /* tessera does not run there */
    ASKED_NO_MPI,      /* Open MPI is not found there */
    ASKED_MPI_HANGS,
    ASKED_MPI_FAILS,
    ASKED_NONSENSE,    /* tessera answered, but no facts */
};

struct clu_survey_host {
    char listed[128];      /* as the hostfile says it */
    char resolves[46];     /* what the coordinator's host takes that name for; "": nothing */
    int32_t slots;         /* as the hostfile says; 0: it is not there */
    struct clu_topo *topo; /* what it is to the planner, where that was asked for and answered; or NULL. Own: the survey */
    bool ranks;            /* is in the hostfile; false only for the coordinator's own host */
    enum clu_asked asked;
    char why[400];         /* what ssh or mpirun said; facts are empty then */
    struct clu_facts facts;
    int64_t skew_us, skew_error_us; /* its clock minus the coordinator's, give or take */
};

/* One try to connect: from a host to one address of another. */
struct clu_path {
    int32_t from, to, nic; /* nic: index into the facts of `to` */
    struct clu_probe_result seen;
};

enum clu_collective_state {
    COLL_NOT_RUN,
    COLL_OK,
    COLL_WRONG,    /* the sum is not the sum */
    COLL_HANGS,    /* nothing came until the deadline */
    COLL_FAILS,
};
struct clu_collective {
    enum clu_collective_state state;
    int32_t n_ranks;
    double small_us, large_us; /* an all-reduce of 1 and of 16384 floats, median */
    double seconds;            /* waited */
    char why[400];
    /* the last that each rank told of itself: "started", "joined", "done", or "" */
    char stage[CLU_SURVEY_HOSTS][16];
    char where[CLU_SURVEY_HOSTS][64]; /* the host of each rank, as far as it said */
};

struct clu_survey {
    int32_t n;                              /* hosts; 0 is the coordinator's */
    struct clu_survey_host *hosts;          /* Own: the survey */
    int32_t n_paths;
    struct clu_path *paths;                 /* Own: the survey */
    char include[256];     /* networks or interfaces that MPI is told to use; "": all */
    char listen[46];       /* the address of the worker plane; "": loopback, or see listen_why */
    char listen_why[320];  /* why serve would refuse to choose one; "": it does */
    struct clu_collective collective;
};

enum clu_severity { SEV_OK, SEV_NOTE, SEV_WARN, SEV_FAIL };

struct clu_finding {
    enum clu_severity severity;
    const char *check;     /* "model", "limits", ...: one word, for scripts */
    char where[128];       /* host, or "a -> b" */
    char what[256];        /* a sentence */
    char seen[256], needed[160];
    char cure[400];        /* a command or an argument; "" for SEV_OK and some notes */
};

struct clu_findings {
    int32_t n, cap;
    struct clu_finding *v; /* Own: free with clu_findings_free */
};
void clu_findings_free(struct clu_findings *f); /* NULL-safe */

/* Apply every rule. Own: *out, which must be zeroed, is the caller's. */
void clu_doctor_judge(const struct clu_survey *s, struct clu_findings *out);
/* 0: healthy (notes do not count), 1: warnings, 2: failures. */
int clu_doctor_exit(const struct clu_findings *f);
const char *clu_severity_name(enum clu_severity s); /* "ok", "note", "warn", "fail" */

/* ---- what the rules ask of a pair, also for printing ---- */

/* Is this address among those that MPI may use? include: as in the survey. */
bool clu_doctor_uses(const char *include, const struct clu_facts_nic *nic);
/* The path that traffic from a to b should take: the fastest, and of about equal ones the first.
 * NULL when none works. why (NULL-safe): the reason, one phrase. */
const struct clu_path *clu_doctor_path(const struct clu_survey *s, int32_t a, int32_t b,
                                       char why[128]);
/* The interface of `from` that a path leaves by; NULL when unknown. */
const struct clu_facts_nic *clu_doctor_via(const struct clu_survey *s, const struct clu_path *p);
/* The host's name for people: what the hostfile says, and its own name where that differs. */
void clu_doctor_name(const struct clu_survey_host *h, char out[128]);

/* The rules by file, in this order: doctor_hosts.c, doctor_limits.c, doctor_cards.c, doctor_pairs.c. */
void clu_doctor_hosts(const struct clu_survey *s, struct clu_findings *out);
void clu_doctor_limits(const struct clu_survey *s, struct clu_findings *out);
void clu_doctor_cards(const struct clu_survey *s, struct clu_findings *out);
void clu_doctor_pairs(const struct clu_survey *s, struct clu_findings *out);
/* Used by all: a new finding with check, severity and where set; fill the rest. */
struct clu_finding *clu_findings_add(struct clu_findings *f, enum clu_severity severity,
                                     const char *check, const char *where);
/* snprintf that may cut: a finding's fields are for reading, not for parsing. */
void clu_finding_text(char *field, size_t size, const char *fmt, ...) PRINTF(3, 4);
/* Its cure, with {host} and {from} in the pattern replaced. */
void clu_finding_cure(struct clu_finding *x, const char *pattern, const char *host,
                      const char *from);
/* One SEV_OK finding when none of this check was added since `before`. */
void clu_findings_well(struct clu_findings *f, int32_t before, const char *check,
                       const char *what, ...) PRINTF(4, 5);

/* ---- printing (doctor_text.c). Own: *out appended to ---- */

void clu_doctor_text(const struct clu_survey *s, const struct clu_findings *f, struct buf *out);
void clu_doctor_json(const struct clu_survey *s, const struct clu_findings *f, struct buf *out);

#endif
