/* limits.h: what this machine can do at best: the read bandwidth and the multiply-add rates that a
 * benchmark's figures are shares of. Measured by loops of our own, never taken from a data sheet. */
#ifndef ENGINE_BENCH_LIMITS_H
#define ENGINE_BENCH_LIMITS_H

#include "base/err.h"

#include <stdint.h>

struct bench_limits {
    int32_t n_threads;
    double read_bytes_s; /* weights cannot come faster from memory */
    double dot_ops_s;    /* int8 products, as the kernels' instruction set forms them; 2 per product */
    double fma_ops_s;    /* f32 multiply-adds; 2 each */
};

/* n_threads at once, the loops of instruction set `isa` (a kernel table's name); about a second and
 * 1 GiB of memory, given back. cpus as eng_team_open. Err NO_MEMORY, BAD_CONFIG. */
MUST_USE enum err bench_limits_measure(struct bench_limits *out, const char *isa,
                                       int32_t n_threads, const int32_t *cpus);

/* The same of a device: the bandwidth is measured by copies within its memory (a byte read and a byte written each), the rates are what its
 * clock and units would give. Err: the device's, BAD_CONFIG. */
MUST_USE enum err bench_limits_device(struct bench_limits *out, const char *device);

#endif
