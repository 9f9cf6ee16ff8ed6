/* main.c: `tessera bench engine` alone. */
#include "cli/bench.h"
#include "cli/commands.h"

#include <stdio.h>
#include <string.h>

int cmd_fail(enum err e)
{
    fprintf(stderr, "tessera: %s\n", err_text()[0] ? err_text() : err_short(e));
    return e == ERR_BAD_CONFIG ? 2 : 1;
}

/* There is no hub here: a model is a path. */
enum err cmd_model(const char **arg)
{
    (void)arg;
    return OK;
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "bench") && !strcmp(argv[2], "engine")) return bench_engine(argc - 2, argv + 2);
    fprintf(stderr, "usage: %s bench engine MODEL|--shape NAME [options]\nThis build measures the engine and does nothing else (--help lists "
            "the options).\n", argv[0]);
    return 2;
}
