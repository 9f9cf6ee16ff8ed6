/* hosts.c: see hosts.h. */
#include "cluster/hosts.h"

#include <stdio.h>
#include <string.h>

static const int64_t PAUSE_US = 60000000, PAUSE_MOST_US = 600000000;

void clu_hosts_init(struct clu_hosts *h, const struct clu_hostfile *f)
{
    memset(h, 0, sizeof *h);
    h->n = f->n;
    for (int32_t i = 0; i < f->n; i++) {
        snprintf(h->hosts[i].name, sizeof h->hosts[i].name, "%s", f->hosts[i].name);
        h->hosts[i].slots = f->hosts[i].slots;
        h->hosts[i].line = f->hosts[i].line;
    }
}

static bool aside(const struct clu_hosts_one *o, int64_t now_us) { return o->aside_until_us > now_us; }

static int32_t spare(const struct clu_hosts_one *o)
{
    int32_t n = o->slots;
    for (int32_t i = 0; i < CLU_HOSTS_USERS; i++) n -= o->used[i];
    return n;
}

static enum err too_few(const struct clu_hosts *h, int32_t n, int32_t got, int64_t now_us)
{
    char who[400] = "";
    size_t len = 0;
    for (int32_t i = 0; i < h->n; i++) {
        const struct clu_hosts_one *o = &h->hosts[i];
        if (!aside(o, now_us) || len >= sizeof who - 1) continue;
        int k = snprintf(who + len, sizeof who - len, "%s%s (%s; tried again in %lld s)", len ? ", " : ": set aside are ", o->name, o->why,
                         (long long)((o->aside_until_us - now_us) / 1000000));
        len += k > 0 ? (size_t)k : 0;
    }
    return err_raise(ERR_UNAVAILABLE, "%d slots are needed and %d are left%s", n, got, who);
}

/* Are slots [f, f + n) nobody else's? */
static bool is_free(const struct clu_hosts_one *o, int32_t replica, int32_t f, int32_t n)
{
    for (int32_t i = 0; i < CLU_HOSTS_USERS; i++)
        if (i != replica && o->used[i] && f < o->first[i] + o->used[i] && o->first[i] < f + n) return false;
    return true;
}

/* Where the replica's slots begin: where they did, else as early as they can. In pieces too small for them they begin at the first. */
static void place_slots(struct clu_hosts_one *o, int32_t replica)
{
    int32_t n = o->used[replica], f = 0;
    if (o->first[replica] + n <= o->slots && is_free(o, replica, o->first[replica], n)) return;
    while (f + n <= o->slots && !is_free(o, replica, f, n)) f++;
    o->first[replica] = f + n <= o->slots ? f : 0;
}

enum err clu_hosts_take(struct clu_hosts *h, int32_t replica, int32_t n, int32_t least, int64_t now_us, char list[CLU_HOSTS_LIST], int32_t *got)
{
    int32_t left = n, before[LIMIT_RANKS];
    size_t len = 0;
    ASSERT(replica >= 0 && replica < CLU_HOSTS_USERS && n > 0);
    for (int32_t i = 0; i < h->n; i++) {
        before[i] = h->hosts[i].used[replica];
        h->hosts[i].used[replica] = 0;
    }
    for (int pass = 0; pass < 2; pass++) /* what it had, then the spare ones */
        for (int32_t i = 0; i < h->n && left; i++) {
            struct clu_hosts_one *o = &h->hosts[i];
            if (aside(o, now_us)) continue;
            int32_t k = MIN(left, pass ? spare(o) : MIN(spare(o), before[i]));
            o->used[replica] += k;
            left -= k;
        }
    if (n - left < MAX(least, 1)) {
        for (int32_t i = 0; i < h->n; i++) h->hosts[i].used[replica] = 0;
        return too_few(h, n, n - left, now_us);
    }
    list[0] = 0;
    for (int32_t i = 0; i < h->n; i++) place_slots(&h->hosts[i], replica);
    for (int32_t i = 0; i < h->n; i++)
        if (h->hosts[i].used[replica])
            len += (size_t)snprintf(list + len, CLU_HOSTS_LIST - len, "%s%s:%d", len ? "," : "", h->hosts[i].name, h->hosts[i].used[replica]);
    *got = n - left;
    return OK;
}

void clu_hosts_device(const struct clu_hosts *h, int32_t replica, const char *device, char out[CLU_HOSTS_DEVICE])
{
    int len = snprintf(out, CLU_HOSTS_DEVICE, "%.15s", device);
    bool later = false;
    char sep = '+';
    if (strcmp(device, "auto") && strcmp(device, "cuda")) return;
    for (int32_t i = 0; i < h->n; i++) later |= h->hosts[i].used[replica] && h->hosts[i].first[replica];
    for (int32_t i = 0; i < h->n && later; i++) {
        if (!h->hosts[i].used[replica]) continue;
        len += snprintf(out + len, (size_t)(CLU_HOSTS_DEVICE - len), "%c%d", sep, MIN(h->hosts[i].first[replica], 999));
        sep = ',';
    }
}

struct clu_hosts_one *clu_hosts_of(struct clu_hosts *h, int32_t replica, int32_t rank)
{
    for (int32_t i = 0; i < h->n && rank >= 0; i++) {
        if (rank < h->hosts[i].used[replica]) return &h->hosts[i];
        rank -= h->hosts[i].used[replica];
    }
    return NULL;
}

void clu_hosts_absent(const struct clu_hosts *h, int32_t replica, const bool joined[], int32_t n, char out[], size_t size)
{
    size_t len = 0;
    out[0] = 0;
    for (int32_t i = 0, rank = 0; i < h->n; i++) {
        const struct clu_hosts_one *o = &h->hosts[i];
        int32_t end = rank + o->used[replica];
        bool any = rank == end;
        for (; rank < end; rank++) any |= rank < n && joined[rank];
        if (any || len + strlen(o->name) + 3 > size) continue;
        len += (size_t)snprintf(out + len, size - len, "%s%s", len ? ", " : "", o->name);
    }
}

bool clu_hosts_failed(struct clu_hosts *h, struct clu_hosts_one *o, bool gone, const char *why, int64_t now_us)
{
    (void)h;
    snprintf(o->why, sizeof o->why, "%s", why);
    if (++o->n_failed < CLU_HOSTS_TRIES && !gone) return false;
    o->n_failed = 0;
    o->pause_us = MIN(o->pause_us ? 2 * o->pause_us : PAUSE_US, PAUSE_MOST_US);
    o->aside_until_us = now_us + o->pause_us;
    return true;
}

void clu_hosts_good(struct clu_hosts *h, int32_t replica)
{
    for (int32_t i = 0; i < h->n; i++)
        if (h->hosts[i].used[replica]) h->hosts[i].n_failed = 0, h->hosts[i].pause_us = 0, h->hosts[i].aside_until_us = 0;
}
