/* progress.c: what a person sees while the model loads. */
#include "cli/options.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR = 32 };

static int32_t lines; /* bars on the screen; only the replica's thread comes here */
static int64_t last_us;

static void bar(const struct replica_rank *k, int32_t rank)
{
    char fill[BAR + 1];
    double part = k->ready ? 1 : k->bytes_total ? (double)k->bytes_done / (double)k->bytes_total : 0;
    int n = (int)(part * BAR);
    memset(fill, '#', (size_t)n);
    memset(fill + n, '.', (size_t)(BAR - n));
    fill[BAR] = 0;
    fprintf(stderr, "\r\033[K  rank %-2d %-16.16s [%s] %3.0f %%  %8.1f MB%s\n", rank, k->host, fill, part * 100,
            (double)(k->ready ? k->weight_bytes : k->bytes_done) / 1e6, k->ready ? "  ready" : "");
}

void progress_on_change(void *user, enum replica_state state, const struct replica_rank ranks[], int32_t n, const char *text)
{
    (void)user;
    int64_t now = clock_us();
    if (state == REPLICA_LOST || state == REPLICA_STOPPED) return;
    if (isatty(STDERR_FILENO)) {
        if (state == REPLICA_GATHERING) return;
        if (lines) fprintf(stderr, "\033[%dA", lines);
        for (int32_t i = 0; i < n; i++) bar(&ranks[i], i);
        lines = state == REPLICA_READY ? 0 : n;
    } else if (state == REPLICA_READY || now - last_us >= 5000000) {
        last_us = now;
        int64_t done = 0, total = 0;
        for (int32_t i = 0; i < n; i++) done += ranks[i].bytes_done, total += ranks[i].bytes_total;
        if (state == REPLICA_LOADING) log_info("load", "%.1f of %.1f MB on %d rank(s)", (double)done / 1e6, (double)total / 1e6, n);
        else if (state == REPLICA_GATHERING) log_info("load", "%s", text);
        for (int32_t i = 0; i < n && state == REPLICA_READY; i++)
            log_info("load", "rank %d (%s, %s) holds %.2f MB of weights", i, ranks[i].host, ranks[i].device, (double)ranks[i].weight_bytes / 1e6);
    }
}
