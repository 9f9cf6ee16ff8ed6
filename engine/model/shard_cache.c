/* shard_cache.c: see shard_cache.h: which files there are, and reading from them. */
#include "engine/model/shard_cache_impl.h"

#include "base/log.h"
#include "engine/kernels/table.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

/* ---- names ---- */

uint64_t eng_shard_tensor(const struct model_tensor *t) { return XXH3_64bits(t->name, strlen(t->name)); }

char *eng_shard_path(const struct eng_shard_cache *c, const struct shard_entry *e)
{
    return xasprintf("%s/%016" PRIx64 "-%016" PRIx64 "-%" PRId64 "-%" PRId64 "-%" PRId64 "-%" PRId64 ".tiles", c->dir, c->model, e->tensor,
                     e->row0, e->row1, e->k0, e->k1);
}

bool eng_shard_entry_of(const char *name, uint64_t model, struct shard_entry *e)
{
    uint64_t m;
    int end = 0;
    return sscanf(name, "%16" SCNx64 "-%16" SCNx64 "-%" SCNd64 "-%" SCNd64 "-%" SCNd64 "-%" SCNd64 ".tiles%n", &m, &e->tensor, &e->row0, &e->row1,
                  &e->k0, &e->k1, &end) == 6 && end > 0 && !name[end] && m == model && e->row0 >= 0 && e->row0 < e->row1 && e->k0 >= 0 &&
           e->k0 < e->k1;
}

/* Of those that begin in the same row the longest comes first. */
static int compare(const void *pa, const void *pb)
{
    const struct shard_entry *a = pa, *b = pb;
    if (a->tensor != b->tensor) return a->tensor < b->tensor ? -1 : 1;
    if (a->k0 != b->k0) return a->k0 < b->k0 ? -1 : 1;
    if (a->k1 != b->k1) return a->k1 < b->k1 ? -1 : 1;
    if (a->row0 != b->row0) return a->row0 < b->row0 ? -1 : 1;
    return (a->row1 < b->row1) - (a->row1 > b->row1);
}

static enum err list_files(struct eng_shard_cache *c)
{
    DIR *d = opendir(c->dir);
    int32_t cap = 0;
    if (!d) return err_raise(ERR_IO, "the cache of packed weights %s cannot be read: %s", c->dir, strerror(errno));
    for (struct dirent *x; (x = readdir(d));) {
        struct shard_entry e;
        if (!eng_shard_entry_of(x->d_name, c->model, &e)) continue;
        if (c->n_entries == cap) {
            cap = MAX(256, 2 * cap);
            c->entries = xrealloc(c->entries, (size_t)cap * sizeof *c->entries);
        }
        c->entries[c->n_entries++] = e;
    }
    closedir(d);
    if (c->n_entries) qsort(c->entries, (size_t)c->n_entries, sizeof *c->entries, compare);
    return OK;
}

/* ---- open, close ---- */

static enum err make_dirs(const char *dir)
{
    char *path = xstrdup(dir);
    for (char *p = path + 1; *p; p++) {
        if (*p != '/') continue;
        *p = 0;
        (void)mkdir(path, 0700);
        *p = '/';
    }
    (void)mkdir(path, 0700);
    free(path);
    return access(dir, R_OK | W_OK | X_OK) ? err_raise(ERR_IO, "the cache of packed weights %s cannot be used: %s", dir, strerror(errno)) : OK;
}

enum err eng_shard_cache_open(struct eng_shard_cache **out, const char *dir, int64_t max_bytes, uint64_t model_id)
{
    enum err rc;
    struct statfs fs;
    struct eng_shard_cache *c = xcalloc(1, sizeof *c);
    c->dir = xstrdup(dir);
    c->max_bytes = max_bytes;
    c->model = model_id;
    c->opened_s = time(NULL);
    TRY(make_dirs(dir));
    TRY(list_files(c));
    if (!max_bytes) c->max_bytes = statfs(dir, &fs) ? INT64_C(1) << 36 : (int64_t)fs.f_bavail * (int64_t)fs.f_bsize / 4;
    *out = c, c = NULL;
out:
    eng_shard_cache_close(c);
    return rc;
}

char *eng_shard_cache_default(void)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *root = xdg && *xdg == '/' ? xstrdup(xdg) : home && *home == '/' ? xasprintf("%s/.cache", home) : NULL;
    if (!root) return NULL;
    char *dir = xasprintf("%s/tessera", root);
    (void)mkdir(root, 0700);
    struct statfs fs;
    /* a home directory on a network file system would be no nearer than the model */
    bool near = !statfs(root, &fs) && (uint32_t)fs.f_type != 0x6969 && (uint32_t)fs.f_type != 0x0BD00BD0 && (uint32_t)fs.f_type != 0xFF534D42 &&
                (uint32_t)fs.f_type != 0xFE534D42 && (uint32_t)fs.f_type != 0x00C36400 && (uint32_t)fs.f_type != 0x47504653;
    free(root);
    if (near) return dir;
    free(dir);
    return NULL;
}

/* ---- reading ---- */

struct eng_shard_file eng_shard_of_want(const struct eng_shard_cache *c, const struct eng_want *w, int64_t row0, int64_t row1)
{
    struct eng_shard_file s = {.type = (uint32_t)w->t->type, .tile_bytes = (uint64_t)w->tile_bytes, .tiles = (uint64_t)DIV_UP(row1 - row0, KRN_TILE),
                               .model = c->model, .tensor = eng_shard_tensor(w->t), .row0 = (uint64_t)row0, .row1 = (uint64_t)row1,
                               .k0 = (uint64_t)w->k0, .k1 = (uint64_t)w->k1};
    s.chunk_tiles = eng_shard_chunk_tiles(s.tile_bytes, s.tiles);
    return s;
}

static bool read_whole(int fd, void *dst, int64_t n, int64_t at)
{
    for (uint8_t *d = dst; n > 0;) {
        ssize_t k = pread(fd, d, (size_t)n, at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        d += k;
        at += k;
        n -= k;
    }
    return true;
}

struct read_job {
    const struct eng_shard_file *s;
    int fd;
    int64_t tile0, tile1;    /* of the file */
    uint8_t *dst;            /* of tile0 */
    _Atomic bool bad;
};

/* A chunk that is wanted whole goes straight to its place, another one through `room`. */
static bool read_chunk(struct read_job *j, int64_t chunk, uint8_t **room)
{
    const struct eng_shard_file *s = j->s;
    int64_t size = (int64_t)s->tile_bytes, a = chunk * s->chunk_tiles, b = MIN(a + s->chunk_tiles, (int64_t)s->tiles);
    int64_t lo = MAX(a, j->tile0), hi = MIN(b, j->tile1);
    bool whole = lo == a && hi == b;
    if (!whole && !*room) *room = malloc((size_t)(s->chunk_tiles * s->tile_bytes));
    uint8_t *to = whole ? j->dst + (a - j->tile0) * size : *room;
    if (!to || !read_whole(j->fd, to, (b - a) * size, eng_shard_data_at(s) + a * size)) return false;
    if (XXH3_64bits(to, (size_t)((b - a) * size)) != s->sums[chunk]) return false;
    if (!whole) memcpy(j->dst + (lo - j->tile0) * size, to + (lo - a) * size, (size_t)((hi - lo) * size));
    return true;
}

static void read_main(void *arg, int32_t thread, int32_t n_threads)
{
    struct read_job *j = arg;
    uint8_t *room = NULL;
    int64_t per = j->s->chunk_tiles, lo, hi;
    eng_team_range(DIV_UP(j->tile1, per) - j->tile0 / per, 1, thread, n_threads, &lo, &hi);
    for (int64_t i = lo; i < hi && !atomic_load(&j->bad); i++)
        if (!read_chunk(j, j->tile0 / per + i, &room)) atomic_store(&j->bad, true);
    free(room);
}

/* Rows [row0,row1) of the want from this file. False: it is damaged, and removed. */
static bool read_entry(struct eng_shard_cache *c, struct eng_team *team, const struct eng_want *w, const struct shard_entry *e, int64_t row0,
                       int64_t row1)
{
    struct stat st;
    struct eng_shard_file s = eng_shard_of_want(c, w, e->row0, e->row1);
    int64_t head = 0;
    char *path = eng_shard_path(c, e);
    uint8_t *bytes = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && !fstat(fd, &st) && eng_shard_fits(&s, st.st_size);
    if (ok) {
        head = eng_shard_data_at(&s);
        bytes = xmalloc((size_t)head);
        ok = read_whole(fd, bytes, head, 0) && eng_shard_check(&s, bytes, head, st.st_size);
    }
    if (ok) {
        struct read_job j = {.s = &s, .fd = fd, .tile0 = (row0 - e->row0) / KRN_TILE, .tile1 = DIV_UP(row1 - e->row0, KRN_TILE),
                             .dst = w->tiles + (row0 - w->row0) / KRN_TILE * w->tile_bytes};
        eng_team_run(team, read_main, &j);
        ok = !j.bad;
    }
    if (ok) (void)futimens(fd, NULL); /* used now: what is oldest goes first */
    else if (fd >= 0) {
        log_warn("load", "%s is damaged: removed, and loaded from the model again", path);
        unlink(path);
    }
    if (fd >= 0) close(fd);
    free(s.sums);
    free(bytes);
    free(path);
    return ok;
}

/* The last row up to which a file's tiles can be the want's: a tile that the file cuts short must be the want's last, too. */
static int64_t usable_end(const struct shard_entry *e, const struct eng_want *w)
{
    int64_t end = e->row1 >= w->row1 ? w->row0 + (w->row1 - w->row0) / KRN_TILE * KRN_TILE : e->row0 + (e->row1 - e->row0) / KRN_TILE * KRN_TILE;
    return e->row1 == w->row1 ? w->row1 : end;
}

static int32_t first_of(const struct eng_shard_cache *c, const struct eng_want *w, uint64_t tensor)
{
    struct shard_entry key = {.tensor = tensor, .k0 = w->k0, .k1 = w->k1, .row0 = INT64_MIN, .row1 = INT64_MAX};
    int32_t lo = 0, hi = c->n_entries;
    while (lo < hi) {
        int32_t m = lo + (hi - lo) / 2;
        if (compare(&c->entries[m], &key) < 0) lo = m + 1;
        else hi = m;
    }
    return lo;
}

void eng_shard_cache_take(struct eng_shard_cache *c, struct eng_team *team, const struct eng_want *w, eng_missing_fn missing, void *user)
{
    uint64_t tensor = eng_shard_tensor(w->t);
    int64_t at = w->row0;
    for (int32_t i = first_of(c, w, tensor); i < c->n_entries && at < w->row1; i++) {
        const struct shard_entry *e = &c->entries[i];
        if (e->tensor != tensor || e->k0 != w->k0 || e->k1 != w->k1 || e->row0 >= w->row1) break;
        if ((e->row0 - w->row0) % KRN_TILE) continue;
        int64_t from = MAX(at, e->row0), end = usable_end(e, w);
        if (end <= from || !read_entry(c, team, w, e, from, end)) continue;
        if (from > at) missing(user, w, at, from);
        at = end;
    }
    if (at < w->row1) missing(user, w, at, w->row1);
}
