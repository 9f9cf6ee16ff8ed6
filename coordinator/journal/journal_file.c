/* journal_file.c: see journal_file.h. */
#include "coordinator/journal/journal_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void crd_journal_file_open(struct crd_journal_file *f, const char *path)
{
    *f = (struct crd_journal_file){.path = xstrdup(path), .fd = -1};
    pthread_mutex_init(&f->lock, NULL);
}

static void set_fd(struct crd_journal_file *f, int fd)
{
    pthread_mutex_lock(&f->lock);
    int old = f->fd;
    f->fd = fd;
    pthread_mutex_unlock(&f->lock);
    if (old >= 0) close(old);
}

void crd_journal_file_close(struct crd_journal_file *f)
{
    set_fd(f, -1);
    pthread_mutex_destroy(&f->lock);
    free(f->path);
}

enum err crd_journal_file_read(const struct crd_journal_file *f, struct buf *out)
{
    ssize_t n;
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) return OK;
    if (fd < 0) return err_raise(ERR_IO, "cannot read the journal %s: %s", f->path, strerror(errno));
    do {
        buf_reserve(out, 1 << 20);
        n = read(fd, out->data + out->len, 1 << 20);
        if (n > 0) out->len += (size_t)n;
    } while (n > 0 || (n < 0 && errno == EINTR));
    int e = errno;
    close(fd);
    return n < 0 ? err_raise(ERR_IO, "cannot read the journal %s: %s", f->path, strerror(e)) : OK;
}

static bool write_all(int fd, const void *p, size_t n)
{
    for (const uint8_t *at = p; n;) {
        ssize_t k = write(fd, at, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        at += k;
        n -= (size_t)k;
    }
    return true;
}

enum err crd_journal_file_append(struct crd_journal_file *f, const void *p, size_t n)
{
    if (f->fd < 0) return err_raise(ERR_IO, "the journal %s cannot be written", f->path);
    if (write_all(f->fd, p, n)) {
        f->size += (int64_t)n;
        return OK;
    }
    int e = errno;
    /* what was cut off must not stand before what comes later; a reader would stop there */
    if (ftruncate(f->fd, f->size) || lseek(f->fd, f->size, SEEK_SET) < 0) set_fd(f, -1);
    return err_raise(ERR_IO, "cannot write the journal %s: %s", f->path, strerror(e));
}

static char *fresh_path(const struct crd_journal_file *f) { return xasprintf("%s.new", f->path); }

void crd_journal_fresh_begin(struct crd_journal_file *f, struct crd_journal_fresh *n)
{
    char *path = fresh_path(f);
    *n = (struct crd_journal_fresh){.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600)};
    n->good = n->fd >= 0;
    free(path);
}

void crd_journal_fresh_put(struct crd_journal_fresh *n, const void *p, size_t len)
{
    n->good = n->good && write_all(n->fd, p, len);
    n->size += (int64_t)len;
}

/* The new name is on the disk too. */
static void sync_folder(const char *path)
{
    char *folder = xstrdup(path), *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = 0;
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) (void)fsync(fd), close(fd);
    free(folder);
}

enum err crd_journal_fresh_end(struct crd_journal_file *f, struct crd_journal_fresh *n)
{
    char *path = fresh_path(f);
    bool good = n->good && !fdatasync(n->fd) && !rename(path, f->path);
    int e = errno;
    if (good) {
        sync_folder(f->path);
        set_fd(f, n->fd);
        f->size = n->size;
    } else {
        if (n->fd >= 0) close(n->fd);
        unlink(path);
    }
    free(path);
    return good ? OK : err_raise(ERR_IO, "cannot write the journal %s: %s", f->path, strerror(e));
}

void crd_journal_file_sync(struct crd_journal_file *f)
{
    pthread_mutex_lock(&f->lock);
    int fd = f->fd < 0 ? -1 : fcntl(f->fd, F_DUPFD_CLOEXEC, 0); /* the writer may change files meanwhile */
    pthread_mutex_unlock(&f->lock);
    if (fd < 0) return;
    (void)fdatasync(fd);
    close(fd);
}
