/* launch.h: starts the worker processes of one replica with mpirun and ends them for certain.
 *
 * mpirun runs in a session of its own, so a Ctrl-C at our terminal reaches only us and we decide what happens to it. The cluster key travels in the
 * environment, never in argv. Not here: what workers do, Slurm. */
#ifndef CLUSTER_LAUNCH_H
#define CLUSTER_LAUNCH_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct clu_launch_conf {
    const char *program;         /* path of the tessera binary on every host */
    int32_t n_ranks;
    const char *hostfile;        /* Open MPI's syntax, or NULL: this machine */
    const char *join;            /* HOST:PORT of the coordinator */
    const char *key;             /* the cluster key as text */
    const char *log_level;
    const char *hosts;           /* instead of the whole hostfile: "a:2,b:1", ranks in this order; or NULL */
    bool unbound;                /* others share this host: the workers bind no cores */
    const char *device;          /* of the workers: "auto", "cpu", "cuda", "cuda:N", "auto+K,K"; NULL: auto */
    const char *tls_cert, *tls_key, *tls_ca; /* of the workers, the same paths on every host; or NULL */
    bool yield;                  /* more ranks than processors on a host */
    const char *output;          /* a file for all that mpirun and the workers print, appended to; NULL: where we print */
    const char *extra;           /* more mpirun arguments, separated by blanks, or NULL; at most CLU_LAUNCH_EXTRA (clu_launch_check) and 16 of ours */
};

struct clu_launch {
    pid_t pid;
    uint64_t start; /* not our child but one that another process started: its start time */
};

/* Can so many arguments of the user's be given to mpirun? Err BAD_CONFIG, with the option's name. */
MUST_USE enum err clu_launch_check(const char *extra);

/* The mpirun command line that starts these workers; with `command` (NULL-terminated) those
 * processes instead, one on each of the hosts (comma-separated), of the same binary: for checks
 * that must take the same way as a start. argv[CLU_LAUNCH_ARGS] and texts point into conf and
 * `room`, which the caller frees after argv. */
enum { CLU_LAUNCH_ARGS = 128, CLU_LAUNCH_EXTRA = 64 };
void clu_launch_argv(const char *argv[], char **room, const struct clu_launch_conf *conf, const char *hosts, const char *const command[]);

/* Thr any, several at once. Err SYSTEM (mpirun not found: the package that has it). */
MUST_USE enum err clu_launch_start(struct clu_launch *out, const struct clu_launch_conf *conf);
/* When a process began, as /proc/PID/stat has it; 0: there is none. A pid and this name a process for good. */
uint64_t clu_launch_start_time(pid_t pid);
/* Take over an mpirun that another process had started. False: it is gone. */
bool clu_launch_adopt(struct clu_launch *out, pid_t pid, uint64_t start);
/* True when mpirun has ended; *status as waitpid's, 0 of one that was taken over. */
bool clu_launch_ended(struct clu_launch *l, int *status);
/* Wait at most grace_us for it to end by itself, then KILL. */
void clu_launch_stop(struct clu_launch *l, int64_t grace_us);

/* This process ends at once: every job that it has (of the first CLU_LAUNCH_NOTED at a time) is told to end, and nothing is waited for.
 * Async-signal-safe. */
enum { CLU_LAUNCH_NOTED = 64 };
void clu_launch_abandon(void);

/* End worker processes of this host that outlived their mpirun (a stopped one cannot leave by itself). Only processes whose command line is a
 * tessera worker's are touched, so a number that was given to somebody else meanwhile is safe. */
void clu_launch_reap_local(const pid_t pids[], int32_t n);

/* Remove the shared-memory names of this host that ranks of these epochs left because they were killed while their group was forming. */
void clu_launch_reap_shm(uint32_t first_epoch, uint32_t last_epoch);

/* Total slots of a hostfile ("name slots=N"); 0 with an error raised when it cannot be read. */
int32_t clu_hostfile_slots(const char *path);

#endif
