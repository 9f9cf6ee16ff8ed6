/* bench.h: how fast each kernel of each table is, on one thread. */
#ifndef TESTS_KERNELS_BENCH_H
#define TESTS_KERNELS_BENCH_H

/* Print a line per kernel, shape and table; `only` is "matmul", "attention", "rows" or
 * NULL: all; `type` names one type of matrix, or NULL: all. */
int kernels_bench(const char *only, const char *type);

#endif
