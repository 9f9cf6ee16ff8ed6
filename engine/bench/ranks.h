/* ranks.h: the ranks of one stage as threads of this process, for benchmarks of the engine alone: no
 * coordinator, no link, steps made by hand.
 *
 * Every sequence lives in a slot of its own with `context` positions; their KV is real memory with
 * numbers in it from the start, so a step may begin at any depth. */
#ifndef ENGINE_BENCH_RANKS_H
#define ENGINE_BENCH_RANKS_H

#include "engine/engine.h"

struct bench_ranks_conf {
    const char *path, *isa, *device; /* device: as --device of a worker; NULL: cpu */
    uint64_t made;         /* as eng_engine_conf's */
    int32_t tp, n_threads; /* threads per rank */
    int32_t n_seqs, context, max_step_tokens;
    enum kv_type kv_type;
    bool oracle, rounded, whole_experts;
    struct eng_adapters adapters; /* taken by the sequences in turn; arrays are borrowed during open */
};

struct bench_ranks;
/* Loads the model. Err as eng_engine_open. */
MUST_USE enum err bench_ranks_open(struct bench_ranks **out, const struct bench_ranks_conf *conf);
void bench_ranks_close(struct bench_ranks *b);
/* Sums over the ranks; isa and load_seconds of the first. */
void bench_ranks_info(const struct bench_ranks *b, struct eng_engine_info *out);
/* The processors the threads are bound to, [tp * n_threads], or NULL. */
const int32_t *bench_ranks_cpus(const struct bench_ranks *b);

/* One step: sequences [0,n_seqs) each compute n_in tokens from position pos on and sample one token
 * greedily. *seconds: from the plan to the tokens. */
MUST_USE enum err bench_ranks_step(struct bench_ranks *b, int32_t n_seqs, int32_t n_in, int32_t pos,
                                   double *seconds);
/* Of rank 0, since the last call. */
void bench_ranks_times(struct bench_ranks *b, struct eng_times *out);

#endif
