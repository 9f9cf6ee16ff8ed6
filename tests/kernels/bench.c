/* bench.c: see bench.h. */
#include "bench.h"

int kernels_bench(const char *only) { (void)only; return 0; }
