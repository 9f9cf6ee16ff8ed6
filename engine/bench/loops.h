/* loops.h: the loops that find this machine's limits, one table per instruction set: reading memory,
 * int8 products as the kernels form them, f32 multiply-adds. Internal to engine/bench. Thr: any. */
#ifndef ENGINE_BENCH_LOOPS_H
#define ENGINE_BENCH_LOOPS_H

#include <stdint.h>

struct bench_loops {
    const char *name; /* of the kernel table they stand beside */
    /* Read p[bytes], bytes a multiple of 4096, p aligned to 64. */
    uint64_t (*read)(const uint8_t *p, int64_t bytes);
    /* n rounds of independent operations on registers. */
    void (*dot)(int64_t n);
    void (*fma)(int64_t n);
    int32_t dot_ops, fma_ops; /* multiplications and additions in a round */
};

extern const struct bench_loops bench_loops_ref, bench_loops_avx2, bench_loops_avxvnni, bench_loops_avx512, bench_loops_amx, bench_loops_neon,
    bench_loops_dotprod, bench_loops_i8mm;

#endif
