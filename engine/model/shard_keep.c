/* shard_keep.c: the writing side of shard_cache.h: one thread of low priority, files made whole beside their place, old
 * ones removed to make room. */
#include "engine/model/shard_cache_impl.h"

#include "base/log.h"
#include "engine/kernels/table.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { WRITE_BYTES = 4 << 20, STALE_S = 3600, START_S = 120 };

/* ---- room ---- */

struct old_file {
    char name[256];
    int64_t bytes, used_s;
    bool in_use;             /* by this start, of this rank or another */
};

static int by_age(const void *a, const void *b)
{
    int64_t x = ((const struct old_file *)a)->used_s, y = ((const struct old_file *)b)->used_s;
    return (x > y) - (x < y);
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n > m && !strcmp(s + n - m, tail);
}

/* All files of the cache; what a dead writer left unfinished is removed. */
static int32_t list_all(const struct eng_shard_cache *c, struct old_file **out, int64_t *sum)
{
    int32_t n = 0, cap = 0;
    char model[24];
    DIR *d = opendir(c->dir);
    snprintf(model, sizeof model, "%016llx-", (unsigned long long)c->model);
    *out = NULL;
    *sum = 0;
    for (struct dirent *x; d && (x = readdir(d));) {
        struct stat st;
        bool temp = ends_with(x->d_name, ".tiles.new");
        if ((!temp && !ends_with(x->d_name, ".tiles")) || strlen(x->d_name) > 255 || fstatat(dirfd(d), x->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
        if (temp && time(NULL) - st.st_mtim.tv_sec > STALE_S) unlinkat(dirfd(d), x->d_name, 0);
        if (n == cap) *out = xrealloc(*out, (size_t)(cap = MAX(256, 2 * cap)) * sizeof **out);
        struct old_file *f = &(*out)[n++];
        *f = (struct old_file){.bytes = st.st_blocks * INT64_C(512), .used_s = st.st_mtim.tv_sec, 
                              .in_use = temp || (!strncmp(x->d_name, model, strlen(model)) && st.st_mtim.tv_sec >= c->opened_s - START_S)};
        memcpy(f->name, x->d_name, strlen(x->d_name) + 1);
        *sum += f->bytes;
    }
    if (d) closedir(d);
    return n;
}

/* Is there room for so many bytes, below the bound and on the disk? What this start does not use goes, the longest unused first. */
static bool make_room(const struct eng_shard_cache *c, int64_t bytes)
{
    struct old_file *all;
    struct statfs fs;
    int64_t sum;
    int lock = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock >= 0) (void)flock(lock, LOCK_EX); /* two ranks must not both remove what one removal would have made room for */
    int32_t n = list_all(c, &all, &sum);
    if (n) qsort(all, (size_t)n, sizeof *all, by_age);
    for (int32_t i = 0; i < n && sum + bytes > c->max_bytes; i++) {
        if (all[i].in_use) continue;
        if (lock >= 0 && !unlinkat(lock, all[i].name, 0)) sum -= all[i].bytes;
    }
    if (lock >= 0) close(lock);
    free(all);
    if (statfs(c->dir, &fs)) return false;
    int64_t whole = (int64_t)fs.f_blocks * (int64_t)fs.f_bsize, left = (int64_t)fs.f_bavail * (int64_t)fs.f_bsize;
    return sum + bytes <= c->max_bytes && left - bytes > whole / 20; /* the last twentieth of a disk is not ours */
}

/* ---- writing ---- */

static bool write_whole(int fd, const void *data, int64_t n)
{
    for (const uint8_t *p = data; n > 0;) {
        ssize_t k = write(fd, p, (size_t)MIN(n, (int64_t)WRITE_BYTES));
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        p += k;
        n -= k;
    }
    return true;
}

static bool write_tiles(struct eng_shard_cache *c, int fd, const struct eng_want *w, struct eng_shard_file *s)
{
    int64_t chunks = eng_shard_chunks(s), size = (int64_t)s->tile_bytes, at = eng_shard_data_at(s);
    uint8_t *head = xmalloc((size_t)at);
    bool ok = true;
    s->sums = xmalloc((size_t)chunks * 8);
    for (int64_t i = 0; i < chunks; i++) {
        int64_t a = i * s->chunk_tiles, b = MIN(a + s->chunk_tiles, (int64_t)s->tiles);
        s->sums[i] = eng_shard_sum(w->tiles + a * size, (b - a) * size);
    }
    eng_shard_head(s, head);
    ok = write_whole(fd, head, at);
    for (int64_t i = 0, all = (int64_t)s->tiles * size; i < all && ok; i += WRITE_BYTES)
        ok = !atomic_load(&c->stop) && write_whole(fd, w->tiles + i, MIN((int64_t)WRITE_BYTES, all - i));
    free(s->sums);
    free(head);
    return ok;
}

/* False: no more is to be written. */
static bool keep_one(struct eng_shard_cache *c, const struct eng_want *w)
{
    struct eng_shard_file s = eng_shard_of_want(c, w, w->row0, w->row1);
    struct shard_entry e = {s.tensor, w->row0, w->row1, w->k0, w->k1};
    int64_t bytes = eng_shard_data_at(&s) + (int64_t)(s.tiles * s.tile_bytes);
    char *path = eng_shard_path(c, &e), *temp = xasprintf("%s.%d.tiles.new", path, (int)getpid());
    bool ok = false;
    if (access(path, F_OK)) {
        int fd = make_room(c, bytes) ? open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
        ok = fd >= 0 && write_tiles(c, fd, w, &s);
        if (fd >= 0) ok = !close(fd) && ok;
        if (ok) ok = !rename(temp, path);
        if (ok) atomic_fetch_add(&c->written, bytes);
        else unlink(temp);
    } else {
        ok = true; /* another rank was faster */
    }
    free(path);
    free(temp);
    return ok;
}

static void *keep_main(void *arg)
{
    struct eng_shard_cache *c = arg;
    eng_team_beside(c->team);
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19);
    for (int32_t i = 0; i < c->n_wants && !atomic_load(&c->stop); i++)
        if (!keep_one(c, &c->wants[i])) {
            if (!atomic_load(&c->stop))
                log_info("load", "the cache of packed weights %s has no more room (bound %.1f GB): what is not in it is loaded again next time", c->dir,
                         (double)c->max_bytes / 1e9);
            break;
        }
    return NULL;
}

void eng_shard_cache_keep(struct eng_shard_cache *c, struct eng_team *team, const struct eng_want wants[], int32_t n)
{
    ASSERT(!c->wants);
    c->team = team;
    c->wants = xmalloc(((size_t)n + 1) * sizeof *c->wants);
    for (int32_t i = 0; i < n; i++)
        if (wants[i].tiles) c->wants[c->n_wants++] = wants[i];
    c->runs = c->n_wants && !pthread_create(&c->thread, NULL, keep_main, c);
}

int64_t eng_shard_cache_settle(struct eng_shard_cache *c)
{
    if (c->runs) pthread_join(c->thread, NULL);
    c->runs = false;
    return atomic_load(&c->written);
}

void eng_shard_cache_close(struct eng_shard_cache *c)
{
    if (!c) return;
    atomic_store(&c->stop, true);
    (void)eng_shard_cache_settle(c);
    free(c->wants);
    free(c->entries);
    free(c->dir);
    free(c);
}
