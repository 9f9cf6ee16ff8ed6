/* progress.c: what a person sees while the model loads: one line, redrawn on a terminal, else written every 5 s. */
#include "cli/progress.h"

#include "base/clock.h"
#include "base/log.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR = 24 };

/* [lock]: calls of one coordinator come one at a time; while a model is loaded beside another there are two */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t last_us, begun_us, first_us;
static bool drawn;

static double part_of(const struct replica_rank *k)
{
    return k->ready ? 1 : k->bytes_total ? (double)k->bytes_done / (double)k->bytes_total : 0;
}

static void loading(const struct replica_rank ranks[], int32_t n, bool terminal)
{
    int64_t now = clock_us(), done = 0, total = 0;
    int32_t slowest = 0;
    char bar[BAR + 1], left[64] = "", slow[160] = "";
    if (!begun_us) begun_us = now;
    for (int32_t i = 0; i < n; i++) {
        done += ranks[i].bytes_done;
        total += ranks[i].bytes_total;
        if (part_of(&ranks[i]) < part_of(&ranks[slowest])) slowest = i;
    }
    if (!total) return; /* nobody has begun */
    double part = (double)done / (double)total, s = (double)(now - begun_us) / 1e6, rate = s > 0.05 ? (double)done / s : 0;
    if (rate > 0 && done < total) snprintf(left, sizeof left, ", %.0f s left", (double)(total - done) / rate);
    if (n > 1 && done < total)
        snprintf(slow, sizeof slow, "; slowest: rank %d (%.48s) %.0f %%", slowest, ranks[slowest].host, part_of(&ranks[slowest]) * 100);
    memset(bar, '#', (size_t)(part * BAR));
    memset(bar + (int)(part * BAR), '.', (size_t)(BAR - (int)(part * BAR)));
    bar[BAR] = 0;
    if (terminal) {
        fprintf(stderr, "\r\033[K  [%s] %3.0f %%  %.1f of %.1f MB at %.0f MB/s%s%s", bar, part * 100, (double)done / 1e6, (double)total / 1e6, rate / 1e6,
                left, slow);
        drawn = true;
    } else {
        log_info("load", "%3.0f %%: %.1f of %.1f MB at %.0f MB/s%s%s", part * 100, (double)done / 1e6, (double)total / 1e6, rate / 1e6, left, slow);
    }
}

/* Of a short command only who asks for more is told. */
static void ready(int32_t replica, const struct replica_rank ranks[], int32_t n, bool brief)
{
    for (int32_t i = 0; i < n; i++) {
        char how[160] = "", text[512];
        const struct replica_rank *k = &ranks[i];
        int at = snprintf(how, sizeof how, "read %.2f MB", (double)k->read_bytes / 1e6);
        if (k->received_bytes) at += snprintf(how + at, sizeof how - (size_t)at, ", got %.2f from other ranks", (double)k->received_bytes / 1e6);
        if (k->cached_bytes) snprintf(how + at, sizeof how - (size_t)at, ", found %.2f in its cache", (double)k->cached_bytes / 1e6);
        snprintf(text, sizeof text, "replica %d, rank %d (%.100s, %.120s) holds %.2f MB of weights (%s)", replica, i, k->host, k->device,
                 (double)k->weight_bytes / 1e6, how);
        if (brief) log_debug("load", "%s", text);
        else log_info("load", "%s", text);
    }
}

static void show(int32_t replica, enum replica_state state, const struct replica_rank ranks[], int32_t n, const char *text, bool brief)
{
    int64_t now = clock_us();
    bool terminal = isatty(STDERR_FILENO);
    if (!first_us) first_us = now;
    if (state != REPLICA_LOADING && drawn) {
        fputc('\n', stderr);
        drawn = false;
    }
    if (state != REPLICA_LOADING) begun_us = 0;
    if (state == REPLICA_READY) ready(replica, ranks, n, brief);
    if (state != REPLICA_LOADING && state != REPLICA_GATHERING) return;
    if (now - last_us < (terminal ? 100000 : 5000000) || (brief && now - first_us < (terminal ? 1000000 : 5000000))) return;
    last_us = now;
    if (state == REPLICA_LOADING) loading(ranks, n, terminal);
    else if (!terminal) log_info("load", "%s", text);
}

void progress_on_change(void *user, int32_t replica, enum replica_state state, const struct replica_rank ranks[], int32_t n, const char *text)
{
    (void)user;
    pthread_mutex_lock(&lock);
    show(replica, state, ranks, n, text, false);
    pthread_mutex_unlock(&lock);
}

void progress_brief(void *user, int32_t replica, enum replica_state state, const struct replica_rank ranks[], int32_t n, const char *text)
{
    (void)user;
    pthread_mutex_lock(&lock);
    show(replica, state, ranks, n, text, true);
    pthread_mutex_unlock(&lock);
}
