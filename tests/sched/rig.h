/* rig.h: a scheduler and a fake replica, one call at a time; invariants are checked after each. */
#ifndef TESTS_SCHED_RIG_H
#define TESTS_SCHED_RIG_H

#include "coordinator/sched/state.h"
#include "tests/sched/fake_replica.h"

enum { MOST = 32, MOST_TOKENS = 1024 };

struct rig {
    struct sched_conf conf;
    struct crd_sched *s;
    struct fake_replica *f;
    struct arena a;
    struct step_plan plan; /* the last one sent */
    int32_t n_tokens, n_finished, n_events;
    struct token_event last; /* EVENT_FINISH */
    char text[256];
    struct token_event ends[MOST];
    struct { int32_t choice, id; } tokens[MOST_TOKENS]; /* the first of them */
};

struct sched_conf rig_plain(void); /* a small replica of one stage, two steps in flight */
struct rig *rig_setup(struct sched_conf conf);
void rig_teardown(struct rig *b);
/* A request of its own tokens; its prompt is static memory, overwritten by the next. */
struct gen_request rig_request(uint64_t id, int32_t n_prompt, int32_t max_tokens);
void rig_submit(struct rig *b, struct gen_request r); /* must be accepted */
bool rig_step(struct rig *b);          /* one step, if the scheduler has one: b->plan */
void rig_answer(struct rig *b);        /* deliver the oldest result */
void rig_run_out(struct rig *b);       /* until idle */
int32_t rig_used(const struct rig *b); /* blocks */

#endif
