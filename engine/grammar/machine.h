/* machine.h: runs a program over bytes: a set of stacks, advanced together.
 *
 * A stack is a state and the frames below it (where to go on when a rule ends). Frames are shared
 * and equal frames are one; so are equal sets; where a set goes on a byte is looked up after the
 * first time. Two frames end every stack: FRAME_END, the end of the text, and FRAME_HOLE, "whatever
 * called this state", by which a mask's part that does not depend on callers is computed once per
 * state. Memory is bounded: eng_machine_compact forgets everything but the sets still in use.
 * Private to engine/grammar. Thr: its owner. */
#ifndef ENGINE_GRAMMAR_MACHINE_H
#define ENGINE_GRAMMAR_MACHINE_H

#include "engine/grammar/map64.h"
#include "engine/grammar/program.h"

enum { FRAME_END = 0, FRAME_HOLE = 1 };
enum { SET_DEAD = -1, SET_UNKNOWN = -2 };
enum { SET_ACCEPTS = 1, SET_ESCAPES = 2 }; /* the text may end here; the hole is reached */

struct machine_item {
    int32_t state, frame;
};
struct machine_frame {
    int32_t state, frame, need, returns;
}; /* need: bytes to the text's end; returns: the set after the return, or SET_UNKNOWN */
struct machine_set {
    int64_t first;
    int32_t n, need;
    uint32_t flags;
    uint32_t tried, loops; /* the masker's: kinds of bytes looked at, and those that lead back here */
};

struct machine {
    const struct program *p;
    struct machine_frame *frames;
    struct map64 frame_of;
    int32_t n_frames, cap_frames;
    struct machine_set *sets;
    struct map64 set_of;
    int32_t n_sets, cap_sets;
    struct machine_item *items;
    int64_t n_items, cap_items;
    int32_t *next;                     /* [cap_sets][n_classes] SET_DEAD, or SET_UNKNOWN */
    struct machine_item *todo, *found; /* scratch of closure */
    int32_t cap_todo, n_found, cap_found;
    uint64_t *seen; /* open addressing, valid where stamps[i] == stamp */
    uint32_t *stamps, stamp, cap_seen, n_seen;
    uint32_t found_flags;
};

void eng_machine_open(struct machine *m, const struct program *p);
void eng_machine_close(struct machine *m);
int32_t eng_machine_start(struct machine *m); /* the set before the first byte */
/* Where a set goes on a class of bytes. SET_DEAD: refused */
int32_t eng_machine_find(struct machine *m, int32_t set, int class); /* the first time */
static inline int32_t eng_machine_step_class(struct machine *m, int32_t set, int class)
{
    if (set < 0) return SET_DEAD;
    int32_t to = m->next[(size_t)set * (size_t)m->p->n_classes + (size_t)class];
    return to != SET_UNKNOWN ? to : eng_machine_find(m, set, class);
}
static inline int32_t eng_machine_step(struct machine *m, int32_t set, uint8_t byte)
{
    return eng_machine_step_class(m, set, m->p->class_of[byte]);
}
int32_t eng_machine_alone(struct machine *m, int32_t state,
                          int32_t below); /* a state, and one to return to or -1, above the hole */
int32_t eng_machine_return(struct machine *m,
                           int32_t frame);       /* the set after a rule of this frame ends */
bool eng_machine_large(const struct machine *m); /* time to compact */
/* Forget all but sets[0..n), which get new numbers. */
void eng_machine_compact(struct machine *m, int32_t *sets[], int32_t n);

#endif
