/* bench.h: the benchmarks behind `tessera bench`. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "base/err.h"

/* argv[0] is "engine", "step", "scaling" or "serve"; result as main's. */
int bench_engine(int argc, char **argv);
int bench_step(int argc, char **argv);
int bench_scaling(int argc, char **argv);
int bench_serve(int argc, char **argv);

/* "1,4,8" -> out[max]; returns how many. Err BAD_CONFIG naming the option. */
MUST_USE enum err bench_list(const char *option, const char *text, int64_t min, int64_t top,
                             int32_t out[], int32_t max, int32_t *n);

#endif
