/* frames.h: the bytes of an answer, its events numbered.
 *
 * A generation writes events; each gets the line "id: N" in front, N counting from 1, so that a
 * client can say up to where it has read. What has been read may be dropped. Pure. */
#ifndef COORDINATOR_API_FRAMES_H
#define COORDINATOR_API_FRAMES_H

#include "base/buf.h"

/* Zeroed = empty. Positions are bytes from the answer's beginning, whatever was dropped. */
struct crd_frames {
    struct buf bytes; /* from `dropped` on */
    uint64_t dropped;
    int64_t n;     /* events so far */
    int64_t first; /* number of the event that at[0] is about, less 1 */
    uint64_t *at;  /* where each event begins; Own */
    size_t n_at, cap_at;
};

void crd_frames_free(struct crd_frames *f);
/* Add whole events (each ends with an empty line); events false: bytes that are no events. */
void crd_frames_add(struct crd_frames *f, const void *bytes, size_t n, bool events);
static inline uint64_t crd_frames_end(const struct crd_frames *f) { return f->dropped + f->bytes.len; }
/* Where event number `no` begins; one more than there are: the end. False: dropped. */
bool crd_frames_find(const struct crd_frames *f, int64_t no, uint64_t *at);
/* No more will be added: give back the room that was kept for it. */
void crd_frames_settle(struct crd_frames *f);
/* Forget everything so far. */
void crd_frames_drop(struct crd_frames *f);
/* Memory it holds. */
size_t crd_frames_size(const struct crd_frames *f);

#endif
