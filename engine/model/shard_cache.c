/* shard_cache.c: see shard_cache.h: which files there are. */
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
#include <sys/mman.h>
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

int eng_shard_compare(const void *pa, const void *pb)
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
    if (c->n_entries) qsort(c->entries, (size_t)c->n_entries, sizeof *c->entries, eng_shard_compare);
    return OK;
}

/* ---- open, close ---- */

/* Pages as the files are laid out for; a kernel that can say of a mapped page that its disk fails; and one memory, for who maps a file takes its
 * pages where they lie. */
static bool may_map(void)
{
    char nodes[64] = "0";
    FILE *f = fopen("/sys/devices/system/node/online", "re");
    if (f) (void)fgets(nodes, sizeof nodes, f);
    if (f) fclose(f);
    if (sysconf(_SC_PAGESIZE) != SHARD_ALIGN || strpbrk(nodes, ",-")) return false;
    void *page = mmap(NULL, SHARD_ALIGN, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool ok = page != MAP_FAILED && !madvise(page, SHARD_ALIGN, MADV_POPULATE_READ);
    if (page != MAP_FAILED) munmap(page, SHARD_ALIGN);
    return ok;
}

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
    c->may_map = may_map();
    TRY(make_dirs(dir));
    TRY(list_files(c));
    if (!max_bytes) c->max_bytes = statfs(dir, &fs) ? INT64_C(1) << 36 : (int64_t)fs.f_bavail * (int64_t)fs.f_bsize / 4;
    *out = c, c = NULL;
out:
    eng_shard_cache_close(c);
    return rc;
}

/* Not on a network file system: a home directory there would be no nearer than the model. */
static bool is_near(const char *path)
{
    static const uint32_t far[] = {0x6969 /* NFS */, 0x0BD00BD0 /* Lustre */, 0xFF534D42 /* CIFS */, 0xFE534D42 /* SMB2 */, 0x00C36400 /* Ceph */,
                                   0x47504653 /* GPFS */};
    struct statfs fs;
    if (statfs(path, &fs)) return false;
    for (size_t i = 0; i < COUNT_OF(far); i++)
        if ((uint32_t)fs.f_type == far[i]) return false;
    return true;
}

char *eng_shard_cache_default(void)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *root = xdg && *xdg == '/' ? xstrdup(xdg) : home && *home == '/' ? xasprintf("%s/.cache", home) : NULL;
    if (!root) return NULL;
    (void)mkdir(root, 0700);
    char *dir = is_near(root) ? xasprintf("%s/tessera", root) : NULL;
    free(root);
    return dir;
}

struct eng_shard_file eng_shard_of_want(const struct eng_shard_cache *c, const struct eng_want *w, int64_t row0, int64_t row1)
{
    struct eng_shard_file s = {.type = (uint32_t)w->t->type, .tile_bytes = (uint64_t)w->tile_bytes, .tiles = (uint64_t)DIV_UP(row1 - row0, KRN_TILE),
                               .model = c->model, .tensor = eng_shard_tensor(w->t), .row0 = (uint64_t)row0, .row1 = (uint64_t)row1,
                               .k0 = (uint64_t)w->k0, .k1 = (uint64_t)w->k1};
    s.chunk_tiles = eng_shard_chunk_tiles(s.tile_bytes, s.tiles);
    return s;
}
