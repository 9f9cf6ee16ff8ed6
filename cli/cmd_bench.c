/* cmd_bench.c: `tessera bench`: which benchmark? */
#include "cli/bench.h"
#include "cli/commands.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

int cmd_bench(int argc, char **argv)
{
    static const char usage[] =
        "usage: tessera bench engine (MODEL | --shape NAME) [options]\n"
        "       tessera bench step|scaling MODEL [options]\n"
        "       tessera bench serve [options]\n\n"
        "  engine  prompt and generation speed of the engine alone, beside this machine's limits\n"
        "  step    what coordinator and link add to the computation of a step\n"
        "  scaling tokens per second on 1, 2, 3, ... ranks, and the share of time between them, beside the plan\n"
        "  serve   a running server under load, this one's or any that speaks OpenAI's API: tokens per second, times to the first token and between tokens\n\n"
        "tessera bench WHICH --help lists the options.\n";
    const char *which = argc > 1 ? argv[1] : "";
    if (!strcmp(which, "engine")) return bench_engine(argc - 1, argv + 1);
    if (!strcmp(which, "step")) return bench_step(argc - 1, argv + 1);
    if (!strcmp(which, "scaling")) return bench_scaling(argc - 1, argv + 1);
    if (!strcmp(which, "serve")) return bench_serve(argc - 1, argv + 1);
    bool help = !strcmp(which, "--help") || !strcmp(which, "-h");
    if (which[0] && !help) fprintf(stderr, "tessera bench: '%s' is no benchmark: there are engine, step, scaling and serve\n\n", which);
    fputs(usage, help ? stdout : stderr);
    return help ? 0 : 2;
}
