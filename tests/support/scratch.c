/* scratch.c: see scratch.h. */
#include "tests/support/scratch.h"

#include "base/arena.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const char *scratch_shared(const char *rel)
{
    static char path[1024];
    const char *root = getenv("TESSERA_SHARED");
    snprintf(path, sizeof path, "%s/data/%s", root && *root ? root : "../shared", rel);
    return access(path, R_OK) ? NULL : path;
}

int scratch_skip(const char *rel)
{
    printf("skipped: data/%s is not there (TESSERA_SHARED names its place)\n", rel);
    return 77;
}

const char *scratch_bytes(const void *p, size_t n)
{
    static int fd = -1;
    static char path[64];
    if (fd < 0) fd = memfd_create("scratch", MFD_CLOEXEC);
    ASSERT(fd >= 0 && !ftruncate(fd, 0));
    for (size_t done = 0; done < n;) {
        ssize_t put = pwrite(fd, (const char *)p + done, n - done, (off_t)done);
        ASSERT(put > 0);
        done += (size_t)put;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return path;
}

bool scratch_read(const char *path, struct buf *out)
{
    char part[65536];
    buf_clear(out);
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;) buf_put(out, part, n);
    bool ok = !ferror(f);
    fclose(f);
    return ok;
}

void scratch_write(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    ASSERT(f && fwrite(p, 1, n, f) == n);
    ASSERT(!fclose(f));
}

static char dir[512];
static struct arena paths;
static pid_t owner;

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path), 0;
}

static void remove_dir(void)
{
    if (owner != getpid()) return; /* a forked child ends: the files are its parent's */
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    arena_free(&paths);
}

const char *scratch_dir(void)
{
    if (*dir) return dir;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/tessera-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    ASSERT(mkdtemp(dir));
    owner = getpid();
    atexit(remove_dir);
    return dir;
}

const char *scratch_path(const char *name)
{
    char *full = xasprintf("%s/%s", scratch_dir(), name);
    char *p = arena_strndup(&paths, full, strlen(full));
    free(full);
    return p;
}
