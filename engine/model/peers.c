/* peers.c: see peers.h. Every rank walks the same list of exchanges, so nobody waits for one that does not come. */
#include "engine/model/peers.h"

#include "base/clock.h"
#include "base/log.h"
#include "engine/file/fingerprint.h"
#include "engine/file/model_carry.h"
#include "engine/kernels/pack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { PINGS = 4, PING_BYTES = 256 };

struct said { uint64_t key, host; }; /* key 0: no file */

static uint64_t host_hash(void)
{
    char name[256] = "";
    if (gethostname(name, sizeof name - 1)) name[0] = 0;
    return XXH3_64bits(name, strlen(name));
}

static bool is_missing(const char *path) { return access(path, F_OK) && (errno == ENOENT || errno == ENOTDIR); }

static enum err open_own(struct eng_model_file **file, const char *path, uint64_t want, struct eng_model_place *place, uint64_t *id)
{
    enum err rc;
    uint64_t is;
    struct eng_model_file *f = NULL;
    TRY(eng_model_file_open(&f, path));
    TRY(eng_fingerprint(f, &is));
    TRY(eng_model_place(f, place));
    if (want && is != want)
        TRY(err_raise(ERR_BAD_FILE, "%s is not the model that the coordinator started with (fingerprint %016llx, needed %016llx): give every host the "
                      "same file, and do not replace it while it is served", path, (unsigned long long)is, (unsigned long long)want));
    uint64_t all[] = {is, place->version, KRN_LAYOUT_VERSION};
    *id = XXH3_64bits(all, sizeof all);
    *file = f, f = NULL;
out:
    eng_model_file_close(f);
    return rc;
}

/* ---- who serves those without a file ---- */

/* The fastest of several round trips, in microseconds. */
static enum err ping(struct trn_coll *w, int32_t asks, int32_t answers, int64_t *best_us)
{
    enum err rc = OK;
    uint8_t text[PING_BYTES] = {0};
    *best_us = INT64_MAX;
    for (int32_t i = 0; i < PINGS; i++) {
        int64_t t0 = clock_us();
        if (w->rank == asks) {
            TRY(trn_coll_send(w, answers, text, sizeof text, ENG_LOAD_WAIT_US));
            TRY(trn_coll_recv(w, answers, text, sizeof text, ENG_LOAD_WAIT_US));
            *best_us = MIN(*best_us, clock_us() - t0);
        } else if (w->rank == answers) {
            TRY(trn_coll_recv(w, asks, text, sizeof text, ENG_LOAD_WAIT_US));
            TRY(trn_coll_send(w, asks, text, sizeof text, ENG_LOAD_WAIT_US));
        }
    }
out:
    return rc;
}

/* The group that serves rank r: of its own host if one is there, else the one whose first rank answers soonest. */
static enum err server_of(const struct eng_peers *p, const struct said said[], int32_t r, int32_t *out)
{
    enum err rc = OK;
    int64_t best = INT64_MAX, us;
    int32_t n_groups = 0;
    for (int32_t q = 0; q < p->n; q++) {
        if (!p->has_file[q]) continue;
        if (said[q].host == said[r].host) {
            *out = p->group[q];
            return OK;
        }
        if (p->group[q] == q && !n_groups++) *out = q;
    }
    if (n_groups == 1) return OK;
    for (int32_t q = 0; q < p->n; q++) {
        if (!p->has_file[q] || p->group[q] != q) continue;
        TRY(ping(p->world, r, q, &us));
        if (us < best) best = us, *out = q;
    }
out:
    return rc;
}

static enum err choose_servers(struct eng_peers *p, const struct said said[])
{
    enum err rc = OK;
    int32_t own = p->group[p->world->rank], all[LIMIT_RANKS];
    int64_t bytes[COLL_MAX_RANKS];
    for (int32_t r = 0; r < p->n; r++) {
        int32_t to = r;
        if (p->has_file[r]) continue;
        TRY(server_of(p, said, r, &to));
        if (r == p->world->rank) own = to; /* only this rank has measured */
    }
    for (int32_t r = 0; r < p->n; r++) bytes[r] = sizeof own;
    TRY(trn_coll_all_gather(p->world, &own, bytes, all, ENG_LOAD_WAIT_US));
    for (int32_t r = 0; r < p->n; r++)
        if (!p->has_file[r]) p->group[r] = CLAMP(all[r], 0, p->n - 1);
out:
    return rc;
}

/* ---- headers over the wire ---- */

struct carried { uint64_t bytes, id; };

static enum err give(const struct eng_peers *p, const struct eng_model_file *f, int32_t to)
{
    enum err rc;
    struct buf b = {0};
    TRY(eng_model_carry_pack(f, &b));
    struct carried c = {b.len, p->model_id};
    TRY(trn_coll_send(p->world, to, &c, sizeof c, ENG_LOAD_WAIT_US));
    TRY(trn_coll_send(p->world, to, b.data, (int64_t)b.len, ENG_LOAD_WAIT_US));
out:
    buf_free(&b);
    return rc;
}

static enum err take(struct eng_peers *p, struct eng_model_file **file, const char *path, int32_t from)
{
    enum err rc;
    struct carried c;
    uint8_t *data = NULL;
    TRY(trn_coll_recv(p->world, from, &c, sizeof c, ENG_LOAD_WAIT_US));
    if (c.bytes > MODEL_CARRY_MOST)
        TRY(err_raise(ERR_LINK_PROTOCOL, "rank %d announces %llu bytes of model headers; the limit is %d", from, (unsigned long long)c.bytes,
                      MODEL_CARRY_MOST));
    data = xmalloc(c.bytes + 1);
    TRY(trn_coll_recv(p->world, from, data, (int64_t)c.bytes, ENG_LOAD_WAIT_US));
    TRY(eng_model_carry_open(file, data, c.bytes, path));
    p->model_id = c.id;
    log_info("load", "%s is not on this host: it comes over the network from rank %d", path, from);
out:
    free(data);
    return rc;
}

static enum err serve_missing(struct eng_peers *p, struct eng_model_file **file, const char *path)
{
    enum err rc = OK;
    for (int32_t r = 0; r < p->n; r++) {
        if (p->has_file[r]) continue;
        if (p->group[r] == p->world->rank) TRY(give(p, *file, r));
        if (r == p->world->rank) TRY(take(p, file, path, p->group[r]));
    }
out:
    return rc;
}

static enum err find_groups(struct eng_peers *p, const char *path, uint64_t key)
{
    enum err rc;
    struct said mine = {key, host_hash()}, said[LIMIT_RANKS];
    int64_t bytes[COLL_MAX_RANKS];
    int32_t n_with = 0;
    for (int32_t r = 0; r < p->n; r++) bytes[r] = sizeof mine;
    TRY(trn_coll_all_gather(p->world, &mine, bytes, said, ENG_LOAD_WAIT_US));
    for (int32_t r = 0; r < p->n; r++) {
        p->has_file[r] = said[r].key != 0;
        p->group[r] = r;
        n_with += p->has_file[r];
        for (int32_t q = r - 1; q >= 0; q--)
            if (said[q].key && said[q].key == said[r].key) p->group[r] = q;
    }
    if (!n_with) TRY(err_raise(ERR_IO, "%s: cannot open the model file: %s", path, strerror(ENOENT)));
    if (n_with < p->n) TRY(choose_servers(p, said));
out:
    return rc;
}

enum err eng_peers_open(struct eng_peers *out, struct eng_model_file **file, const char *path, uint64_t fingerprint, struct trn_coll *world)
{
    enum err rc = OK;
    struct eng_model_file *f = NULL;
    struct eng_model_place place = {.remote = true};
    struct eng_peers p = {.world = world, .n = world ? world->size : 1};
    p.has_file[0] = true;
    if (p.n == 1 || !is_missing(path)) TRY(open_own(&f, path, fingerprint, &place, &p.model_id));
    if (p.n > 1) {
        TRY(find_groups(&p, path, place.key));
        TRY(serve_missing(&p, &f, path));
    }
    p.remote = place.remote;
    *out = p;
    *file = f, f = NULL;
out:
    eng_model_file_close(f);
    return rc;
}
