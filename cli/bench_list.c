/* bench_list.c: "1,4,8": lists of numbers in options of benchmarks. */
#include "cli/bench.h"

#include <stdlib.h>

enum err bench_list(const char *option, const char *text, int64_t min, int64_t top, int32_t out[],
                    int32_t max, int32_t *n)
{
    *n = 0;
    for (const char *p = text; *p;) {
        char *end;
        long long v = strtoll(p, &end, 10);
        if (end == p || (*end && *end != ',') || v < min || v > top || *n == max)
            return err_raise(ERR_BAD_CONFIG,
                             "--%s: '%s' is no list of up to %d numbers from %lld to %lld", option,
                             text, max, (long long)min, (long long)top);
        out[(*n)++] = (int32_t)v;
        p = *end ? end + 1 : end;
    }
    return OK;
}
