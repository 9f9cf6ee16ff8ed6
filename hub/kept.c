/* kept.c: see kept.h. A record is one line: "1 SHA256 OID SIZE TIME", OID "-" where the hub said none; TIME in ns. */
#include "hub/kept.h"

#include "hub/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct record {
    char sum[HUB_SUM], oid[HUB_SUM];
    int64_t size, time_ns;
};

static char *record_path(const char *dir, const char *path) { return xasprintf("%s/.tessera/%s.kept", dir, path); }

static char *mark_path(const char *dir, const char *first) { return xasprintf("%s/.tessera/%s.unfinished", dir, *first ? first : "checkpoint"); }

static bool look(const char *dir, const char *path, struct stat *st)
{
    char *name = xasprintf("%s/%s", dir, path);
    bool there = !stat(name, st) && S_ISREG(st->st_mode);
    free(name);
    return there;
}

static int64_t time_of(const struct stat *st) { return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec; }

static bool read_record(const char *dir, const char *path, struct record *r)
{
    char *name = record_path(dir, path), line[256] = "";
    FILE *f = fopen(name, "re");
    free(name);
    if (!f) return false;
    bool whole = fgets(line, sizeof line, f) && strchr(line, '\n');
    fclose(f);
    return whole && sscanf(line, "1 %64s %64s %" SCNd64 " %" SCNd64, r->sum, r->oid, &r->size, &r->time_ns) == 4 && strlen(r->sum) == HUB_SUM - 1;
}

static const char *oid_of(const struct hub_file *f) { return *f->oid ? f->oid : "-"; }

enum hub_here hub_kept_look(const char *dir, const struct hub_file *f, bool anyway, char sum[])
{
    struct stat st;
    struct record r;
    if (!look(dir, f->path, &st)) return HERE_NOT;
    if (st.st_size != f->size) return HERE_OTHER;
    if (!read_record(dir, f->path, &r)) {
        memcpy(sum, f->sha256, HUB_SUM);
        return *f->sha256 ? HERE_TO_SUM : HERE_OTHER;
    }
    if (*f->sha256 ? strcmp(r.sum, f->sha256) : strcmp(r.oid, oid_of(f))) return HERE_OTHER;
    memcpy(sum, r.sum, HUB_SUM);
    return anyway || r.size != st.st_size || r.time_ns != time_of(&st) ? HERE_TO_SUM : HERE_SAME;
}

/* A small file, on the disk and by its name when this returns, or not there. */
static enum err write_file(const char *name, const char *text)
{
    enum err rc;
    char *temp = xasprintf("%s.new", name), *folder = xstrdup(name);
    int fd = -1, at = -1;
    *strrchr(folder, '/') = 0;
    TRY(hub_make_folders(name));
    fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    at = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || at < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fsync(fd) || rename(temp, name) || fsync(at))
        rc = err_raise(ERR_IO, "%s: cannot write: %s", name, strerror(errno));
out:
    if (fd >= 0) close(fd);
    if (at >= 0) close(at);
    free(temp);
    free(folder);
    return rc;
}

enum err hub_kept_note(const char *dir, const struct hub_file *f, const char *sum)
{
    struct stat st;
    if (!look(dir, f->path, &st)) return err_raise(ERR_IO, "%s/%s is gone", dir, f->path);
    char *name = record_path(dir, f->path), *line = xasprintf("1 %s %s %" PRId64 " %" PRId64 "\n", sum, oid_of(f), (int64_t)st.st_size, time_of(&st));
    enum err rc = write_file(name, line);
    free(name);
    free(line);
    return rc;
}

void hub_kept_forget(const char *dir, const char *path)
{
    char *name = record_path(dir, path);
    unlink(name);
    free(name);
}

enum err hub_kept_begin(const char *dir, const char *first)
{
    char *name = mark_path(dir, first);
    enum err rc = write_file(name, "");
    free(name);
    return rc;
}

enum err hub_kept_end(const char *dir, const char *first)
{
    char *name = mark_path(dir, first);
    bool gone = !unlink(name) || errno == ENOENT;
    enum err rc = gone ? OK : err_raise(ERR_IO, "%s: cannot remove: %s", name, strerror(errno));
    free(name);
    return rc;
}

bool hub_kept_is_unfinished(const char *dir, const char *first)
{
    char *name = mark_path(dir, first);
    bool there = !access(name, F_OK);
    free(name);
    return there;
}

bool hub_kept_is_known(const char *dir)
{
    char *name = xasprintf("%s/.tessera", dir);
    bool there = !access(name, F_OK);
    free(name);
    return there;
}
