/* replay_impl.h: what replay.c and replay_http.c share. Private.
 *
 *   answer      the generation runs          ends              kept until
 *   attended    by its first reader's run    over -> `over`    keep_us have passed
 *   unattended  by a task of the gateway     cancelled         after keep_us without a reader
 *
 * I1  an answer without a reader that is neither resumable nor over does not exist. I2  `waker` is
 * the first reader's, or the task's: whoever it wakes runs the generation. */
#ifndef COORDINATOR_API_REPLAY_IMPL_H
#define COORDINATOR_API_REPLAY_IMPL_H

#include "coordinator/api/frames.h"
#include "coordinator/api/keys.h"
#include "coordinator/api/replay.h"

#include <pthread.h>
#include <stdatomic.h>

struct crd_reader {
    struct crd_kept *answer;
    struct crd_reader *next;
    struct gw_waker *waker; /* Own */
    int64_t from;           /* event to begin with; 0: begun, at `pos` */
    uint64_t pos;
    struct buf headers;
};

struct crd_kept_list {
    struct crd_kept *head, *tail;
};

struct crd_kept {
    struct crd_replay *store; /* NULL: none */
    struct gw *gw;
    struct crd_kept *prev, *next;
    struct crd_kept_list *list;
    char id[160]; /* the request's */
    uint64_t tenant;
    bool waits; /* of another coordinator's time, until crd_replay_go */
    bool resumable, whole; /* whole: nothing of it has been dropped, nor will be */
    struct crd_generation *g; /* Own; NULL once it is over */
    struct crd_key *key;      /* whose account it goes on; NULL: nobody's, or over */
    int64_t n_prompt, n_completion; /* charged so far */
    bool recalled;                  /* begun under another coordinator, which charged the prompt and these: */
    int64_t n_before;
    struct crd_frames frames;
    size_t counted; /* of it in the store's total */
    bool stays;     /* and among what the store's bound is for */
    int32_t status, retry_after;
    const char *type;
    bool over, delivered; /* delivered: somebody has read its end */
    bool ended;           /* under another coordinator: told again only when somebody asks for it */
    int64_t since_us; /* over, or without a reader */
    struct crd_reader *readers;
    struct gw_waker *task; /* Own; NULL until needed */
    pthread_mutex_t lock;
    struct gw_waker *waker; /* under lock; borrowed */
};

struct crd_replay {
    struct crd_replay_conf conf;
    struct crd_kept_list live, over; /* over: in the order of their ends */
    _Atomic int64_t bytes; /* [any] */
    int64_t staying;       /* of them, what nobody's reading will free: kept within conf.max_bytes */
    struct gw *gw;               /* of crd_replay_go */
    struct gw_waker *go, *tell;  /* Own */
};

/* By the request's id, or the answer's, of this tenant; NULL: none. */
struct crd_kept *crd_kept_find(const struct crd_replay *r, const char *id, size_t n,
                               uint64_t tenant);
/* The exchange reads it from event `from` on (1: the first). */
void crd_kept_read(struct crd_kept *k, struct gw_exchange *x, int64_t from);
/* End it and forget it; its readers see the end of the stream. */
void crd_kept_cancel(struct crd_kept *k);

#endif
