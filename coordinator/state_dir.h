/* state_dir.h: what a coordinator leaves on disk for the one that comes after it: --state-dir.
 *
 *   lock         held (flock) while a coordinator lives; says its pid
 *   key          the cluster key of this start
 *   replica-N    of each replica: where its worker plane listens, its epoch, mpirun, the ranks of this host
 *   plan-N       what its ranks were told to load, as on the wire
 *   workers-N.log  what mpirun and the workers print
 *   journal      with --journal
 *   now          after a reload: which model is served, and its number: the files of that model are called key.NUMBER and so on
 *
 * While one model takes the place of another both have their files here; `now` says which of the two the next coordinator goes on with.
 * The directory is 0700 and every file 0600: the key lies there. A coordinator that ends in order removes key, replica, plan and now, so whatever
 * is found was left by one that was killed. Thr: any; one lock. */
#ifndef COORDINATOR_STATE_DIR_H
#define COORDINATOR_STATE_DIR_H

#include "proto/control.h"

#include <sys/types.h>

enum { STATE_LISTEN = 160 };

/* One replica as it was left. Zeroed: nothing. */
struct crd_left {
    uint64_t fit;              /* of model and options: another one loads anew */
    char listen[STATE_LISTEN]; /* HOST:PORT of its worker plane */
    uint32_t epoch;            /* last one that ranks were told to load; 0: none */
    pid_t mpirun;              /* 0: none of ours */
    uint64_t mpirun_start;     /* its start time, as in /proc/PID/stat, so that a pid given to another is known */
    int32_t n_ranks;           /* of this host */
    pid_t ranks[LIMIT_RANKS];
};

/* The text of a replica-N file. Err BAD_CONFIG naming the line. */
MUST_USE enum err crd_left_parse(struct crd_left *out, const char *text, size_t n);
void crd_left_write(const struct crd_left *l, struct buf *out);

struct crd_state;
/* Made if it is not there. Err BAD_CONFIG: it is not ours alone (mode, owner), or another coordinator lives in it (its pid); IO. */
MUST_USE enum err crd_state_open(struct crd_state **out, const char *path);
void crd_state_close(struct crd_state *s); /* NULL-safe; leaves the files */
/* The part of the model of this number (0: the first, whose files have no number). Own: caller, crd_state_close; the lock stays with s. */
struct crd_state *crd_state_of(const struct crd_state *s, int32_t number);
/* A file of it that is not one model's, and one that is. Own: caller. */
char *crd_state_path(const struct crd_state *s, const char *name);
char *crd_state_model_path(const struct crd_state *s, const char *name);

/* Which model is served, where it is not the one of the command line. */
struct crd_now {
    int32_t number;   /* > 0 */
    char model[4096]; /* absolute path */
};
MUST_USE enum err crd_now_parse(struct crd_now *out, const char *text, size_t n); /* Err BAD_CONFIG */
bool crd_state_now(struct crd_state *s, struct crd_now *out);                      /* false: nothing sensible says so */
MUST_USE enum err crd_state_set_now(struct crd_state *s, const struct crd_now *now);
/* The numbers of models that have files here, each once; at most n. */
int32_t crd_state_numbers(const struct crd_state *s, int32_t out[], int32_t n);

/* The key that was left; false: none. out[65]. */
bool crd_state_key(struct crd_state *s, char out[65]);
MUST_USE enum err crd_state_set_key(struct crd_state *s, const char *key);
/* Replica i as it was left; false: it was not, or its file says nothing sensible (logged). *plan: what its ranks were told to load, NULL
 * if that is not known; Own: caller, control_msg_free. */
bool crd_state_left(struct crd_state *s, int32_t i, struct crd_left *out, struct control_msg **plan);
/* Written whole or not at all; a failure is logged: it costs the next coordinator a load. */
void crd_state_note(struct crd_state *s, int32_t i, const struct crd_left *l);
void crd_state_note_plan(struct crd_state *s, int32_t i, const struct msg_load_plan *p);
/* In order: nothing is left of the first n replicas. */
void crd_state_clear(struct crd_state *s, int32_t n);
/* Nothing is left of the model of this number, its journal included. */
void crd_state_drop(struct crd_state *s, int32_t number);
/* In order, and the last of all: the journal of the model that was served becomes `journal`, and `now` goes. */
void crd_state_end(struct crd_state *s, int32_t number);

#endif
