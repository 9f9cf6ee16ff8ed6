/* child.h: a process that we talk to by lines, each wait with a deadline.
 *
 * It runs in a session of its own, so that it can be ended with everything it started; its stdin,
 * stdout and stderr are pipes of ours. Thr: one thread per child. */
#ifndef CLUSTER_CHILD_H
#define CLUSTER_CHILD_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <sys/types.h>

struct clu_child {
    pid_t pid;           /* 0: ended and waited for */
    int in, out, err;    /* -1: closed */
    int status;          /* as waitpid's, once it has ended */
    struct buf lines, said;
    size_t at;           /* of the next line in `lines` */
};

/* One that was never started: every call but start may be made with it. */
extern const struct clu_child clu_child_none;

/* argv[0] is searched in PATH. Err SYSTEM (it cannot be run: why). */
MUST_USE enum err clu_child_start(struct clu_child *out, const char *const argv[]);
/* A line for its stdin; the newline is added. False: it does not read any more. */
bool clu_child_say(struct clu_child *c, const char *line);
/* The next line of its stdout without its newline, valid until the next call; NULL: none until
 * then, or it closed its stdout. */
const char *clu_child_line(struct clu_child *c, int64_t until_us);
/* The first part of its stderr as one line; "" when it said nothing. Own: the child. */
const char *clu_child_complaint(struct clu_child *c);
/* Close its stdin, by which it knows to leave. */
void clu_child_dismiss(struct clu_child *c);
/* Close its stdin, wait at most grace_us, then KILL its session. True: it ended by itself and
 * *code (NULL-safe) is its exit code, 128 + the signal's number when one ended it. */
bool clu_child_end(struct clu_child *c, int64_t grace_us, int *code);
void clu_child_free(struct clu_child *c); /* ends it at once if it runs; NULL-safe */

#endif
