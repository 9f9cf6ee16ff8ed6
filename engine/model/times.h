/* times.h: where the time of a step goes, by class of operation, as compute thread 0 sees it. For
 * benchmarks: without a struct eng_times nothing reads a clock. */
#ifndef ENGINE_MODEL_TIMES_H
#define ENGINE_MODEL_TIMES_H

#include <stdint.h>
#include <time.h>

enum eng_op {
    ENG_OP_NORM,       /* residual add, norm, quantisation of its output */
    ENG_OP_MATMUL,     /* of the layers */
    ENG_OP_ROPE,       /* bias, head norms, rope, append to the KV cache */
    ENG_OP_ATTENTION,  /* with the quantisation of its output */
    ENG_OP_GATE,       /* SwiGLU and quantisation */
    ENG_OP_WAIT,       /* barriers: the others were not ready */
    ENG_OP_COLLECTIVE, /* between ranks */
    ENG_OP_HEAD,       /* final norm and vocabulary matmul */
    ENG_OP_OTHER,      /* plan, embedding, sampling */
    ENG_OP_COUNT,
};

struct eng_times {
    int64_t ns[ENG_OP_COUNT];
    int64_t last_ns; /* clock at the last lap */
};

static inline int64_t eng_times_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Since the last lap this was done. t may be NULL. */
static inline void eng_times_lap(struct eng_times *t, enum eng_op op)
{
    if (!t) return;
    int64_t now = eng_times_now();
    t->ns[op] += now - t->last_ns;
    t->last_ns = now;
}

#endif
