/* err.h: one enum of errors, each with a blast radius, and the sentence that goes with the last one.
 *
 * A function that can fail returns enum err (0 is OK) and has called err_raise with a sentence naming the
 * thing, the value seen, the value needed and the remedy. Whoever *decides* what to do logs it once.
 * Codes are wire-stable: never renumber. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/base.h"

enum err_radius { RADIUS_REQUEST, RADIUS_LINK, RADIUS_REPLICA, RADIUS_PROCESS };

/*    name            code  radius    short text */
#define ERR_MAP(X)                                                                                 \
    X(BAD_REQUEST,       1, REQUEST, "the request is not valid")                                   \
    X(NO_BLOCKS,         2, REQUEST, "no free KV blocks")                                          \
    X(TOO_LONG,          3, REQUEST, "longer than the context")                                    \
    X(QUEUE_FULL,        4, REQUEST, "the queue is full")                                          \
    X(CANCELLED,         5, REQUEST, "cancelled")                                                  \
    X(NOT_FOUND,         6, REQUEST, "not found")                                                  \
    X(UNSUPPORTED,       7, REQUEST, "not supported")                                              \
    X(UNAVAILABLE,       8, REQUEST, "the cluster cannot serve now")                               \
    X(SHARE_FULL,        9, REQUEST, "this key's share of the queue is full")                      \
    X(LINK_CLOSED,      32, LINK,    "the connection closed")                                      \
    X(LINK_AUTH,        33, LINK,    "authentication failed")                                      \
    X(LINK_PROTOCOL,    34, LINK,    "the peer broke the protocol")                                \
    X(PEER_LOST,        64, REPLICA, "a rank stopped answering")                                   \
    X(DEADLINE,         65, REPLICA, "a deadline passed")                                          \
    X(MPI,              66, REPLICA, "an MPI call failed")                                         \
    X(STALE_EPOCH,      67, REPLICA, "an older epoch")                                             \
    X(NO_MEMORY,       128, PROCESS, "out of memory")                                              \
    X(IO,              129, PROCESS, "input or output failed")                                     \
    X(BAD_FILE,        130, PROCESS, "the file is damaged or not what it claims")                  \
    X(BAD_CONFIG,      131, PROCESS, "the configuration is not valid")                             \
    X(NO_FIT,          132, PROCESS, "the model does not fit")                                     \
    X(SYSTEM,          133, PROCESS, "a system call failed")

enum err {
    OK = 0,
#define X(name, code, radius, text) ERR_##name = code,
    ERR_MAP(X)
#undef X
};

const char *err_name(enum err e);          /* "NO_BLOCKS" */
const char *err_short(enum err e);         /* the table's text */
enum err_radius err_radius(enum err e);

/* err_raise(e, fmt, ...): record the sentence for this thread and give e, so that `return err_raise(...)` reads well. A macro, so
 * that the compiler sees which code comes back. */
#define err_raise(e, ...) (err_set_text(__VA_ARGS__), err_nonzero(e))
void err_set_text(const char *fmt, ...) PRINTF(1, 2);
static inline enum err err_nonzero(enum err e)
{
    if (e == OK) __builtin_unreachable(); /* an error is raised with its code */
    return e;
}
/* The last sentence recorded on this thread; "" if none. Valid until the next err_raise here. */
const char *err_text(void);
/* Put "prefix: " before the last sentence (e.g. the file's name); returns e. */
enum err err_prefix(enum err e, const char *fmt, ...) PRINTF(2, 3);

#endif
