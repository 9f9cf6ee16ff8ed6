/* cmd_bench.c: `tessera bench`: which benchmark? */
#include "cli/bench.h"
#include "cli/commands.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int cmd_bench(int argc, char **argv)
{
    static const char usage[] =
        "usage: tessera bench engine|step MODEL [options]\n\n"
        "  engine  prompt and generation speed of the engine alone, beside this machine's limits\n"
        "  step    what coordinator and link add to the computation of a step\n\n"
        "tessera bench WHICH --help lists the options.\n";
    const char *which = argc > 1 ? argv[1] : "";
    if (!strcmp(which, "engine")) return bench_engine(argc - 1, argv + 1);
    if (!strcmp(which, "step")) return bench_step(argc - 1, argv + 1);
    bool help = !strcmp(which, "--help") || !strcmp(which, "-h");
    fputs(usage, help ? stdout : stderr);
    return help ? 0 : 2;
}
