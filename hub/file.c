/* file.c: see file.h. */
#include "hub/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct hub_part {
    char *name, *part; /* Own */
    int fd;
    int64_t size, n;
    crypto_hash_sha256_state sum;
};

enum { HEX = 2 * crypto_hash_sha256_BYTES + 1 };

static char *part_path(const char *dir, const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    return xasprintf("%s/%.*s.%s.part", dir, (int)(base - path), path, base);
}

enum err hub_make_folders(const char *path)
{
    char *copy = xstrdup(path);
    enum err rc = OK;
    for (char *at = copy + 1; (at = strchr(at, '/')) && !rc; at++) {
        *at = 0;
        if (mkdir(copy, 0755) && errno != EEXIST) rc = err_raise(ERR_IO, "cannot make the folder %s: %s", copy, strerror(errno));
        *at = '/';
    }
    free(copy);
    return rc;
}

/* What an earlier call left. */
static enum err sum_up(struct hub_part *p)
{
    uint8_t chunk[65536];
    for (ssize_t k; (k = read(p->fd, chunk, sizeof chunk)) != 0;) {
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return err_raise(ERR_IO, "%s: cannot read what was fetched before: %s", p->part, strerror(errno));
        crypto_hash_sha256_update(&p->sum, chunk, (unsigned long long)k);
        p->n += k;
        if (p->n > p->size) return hub_part_again(p);
    }
    return OK;
}

enum err hub_part_open(struct hub_part **out, const char *dir, const char *path, int64_t size, bool goes_on)
{
    enum err rc;
    struct hub_part *p = xcalloc(1, sizeof *p);
    p->size = size;
    p->name = xasprintf("%s/%s", dir, path);
    p->part = part_path(dir, path);
    p->fd = -1;
    TRY(hub_make_folders(p->name));
    p->fd = open(p->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (p->fd < 0) TRY(err_raise(ERR_IO, "%s: cannot write: %s", p->part, strerror(errno)));
    crypto_hash_sha256_init(&p->sum);
    TRY(goes_on ? sum_up(p) : hub_part_again(p));
    *out = p;
    p = NULL;
out:
    hub_part_close(p);
    return rc;
}

int64_t hub_part_left(const char *dir, const char *path)
{
    struct stat st;
    char *part = part_path(dir, path);
    int64_t n = stat(part, &st) ? 0 : st.st_size;
    free(part);
    return n;
}

int64_t hub_part_bytes(const struct hub_part *p) { return p->n; }

enum err hub_part_put(struct hub_part *p, const void *data, size_t n)
{
    if ((int64_t)n > p->size - p->n)
        return err_raise(ERR_LINK_PROTOCOL, "%s: the server sends more than the %" PRId64 " bytes that the file has", p->name, p->size);
    for (const uint8_t *at = data; n;) {
        ssize_t k = pwrite(p->fd, at, n, p->n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0)
            return err_raise(ERR_IO, "%s: %s after %" PRId64 " of %" PRId64 " bytes; what came is kept", p->part, strerror(errno), p->n, p->size);
        crypto_hash_sha256_update(&p->sum, at, (unsigned long long)k);
        at += k;
        n -= (size_t)k;
        p->n += k;
    }
    return OK;
}

enum err hub_part_again(struct hub_part *p)
{
    p->n = 0;
    crypto_hash_sha256_init(&p->sum);
    return ftruncate(p->fd, 0) || lseek(p->fd, 0, SEEK_SET) ? err_raise(ERR_IO, "%s: cannot begin again: %s", p->part, strerror(errno)) : OK;
}

static void hex_of(crypto_hash_sha256_state *state, char hex[])
{
    unsigned char sum[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_final(state, sum);
    sodium_bin2hex(hex, HEX, sum, sizeof sum);
}

enum err hub_part_finish(struct hub_part *p, const char *sha256, char sum[])
{
    ASSERT(p->n == p->size);
    hex_of(&p->sum, sum);
    if (*sha256 && strcmp(sum, sha256)) {
        enum err rc = hub_part_again(p);
        return rc ? rc : err_raise(ERR_BAD_FILE, "%s: what came has sha256 %s, the hub promised %s", p->name, sum, sha256);
    }
    if (fsync(p->fd) || rename(p->part, p->name)) return err_raise(ERR_IO, "%s: cannot keep it: %s", p->name, strerror(errno));
    return OK;
}

void hub_part_close(struct hub_part *p)
{
    if (!p) return;
    if (p->fd >= 0) close(p->fd);
    free(p->name);
    free(p->part);
    free(p);
}

enum err hub_file_sum(const char *dir, const char *path, void (*summed)(void *user, int64_t bytes), void *user, char sum[])
{
    enum err rc = OK;
    static const size_t CHUNK = 1 << 20;
    uint8_t *chunk = xmalloc(CHUNK);
    crypto_hash_sha256_state state;
    char *name = xasprintf("%s/%s", dir, path);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    ssize_t k = fd < 0 ? -1 : 1;
    crypto_hash_sha256_init(&state);
    while (k > 0) {
        k = read(fd, chunk, CHUNK);
        if (k > 0) crypto_hash_sha256_update(&state, chunk, (unsigned long long)k);
        if (k > 0) summed(user, k);
        if (k < 0 && errno == EINTR) k = 1;
    }
    if (k < 0) rc = err_raise(ERR_IO, "%s: cannot read: %s", name, strerror(errno));
    hex_of(&state, sum);
    if (fd >= 0) close(fd);
    free(chunk);
    free(name);
    return rc;
}
