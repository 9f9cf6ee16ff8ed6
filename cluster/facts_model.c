/* facts_model.c: see facts.h. Enough of a model's bytes to tell two copies apart in milliseconds:
 * a file cut short, another quantisation, an interrupted copy; not a single flipped bit. */
#include "cluster/facts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { PIECE = 64 << 10, PLACES = 16, MAX_FILES = 1024 };

static XXH64_hash_t fold(uint64_t h, const void *p, size_t n)
{
    return XXH3_64bits_withSeed(p, n, h);
}

/* The piece at `at`, folded into *h. */
static bool sample(int fd, int64_t at, int64_t bytes, uint64_t *h)
{
    static _Thread_local unsigned char piece[PIECE];
    int64_t want = MIN(bytes - at, PIECE), got = 0;
    while (got < want) {
        ssize_t n = pread(fd, piece + got, (size_t)(want - got), at + got);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        got += n;
    }
    *h = fold(*h, piece, (size_t)got);
    return true;
}

static bool fail(struct clu_facts *f, const char *path, const char *why)
{
    const char *slash = strrchr(path, '/');
    snprintf(f->model_error, sizeof f->model_error, "%.80s: %.70s", slash ? slash + 1 : path, why);
    return false;
}

static bool one_file(struct clu_facts *f, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool ok = fd >= 0 && !fstat(fd, &st);
    if (!ok) fail(f, path, strerror(errno));
    else if (!S_ISREG(st.st_mode)) ok = fail(f, path, "not a regular file");
    if (ok) {
        int64_t bytes = st.st_size, span = MAX(bytes - PIECE, 0);
        ok = sample(fd, 0, bytes, &f->model_head) && sample(fd, span, bytes, &f->model_tail);
        for (int64_t i = 1; i <= PLACES && ok; i++)
            ok = sample(fd, span / (PLACES + 1) * i, bytes, &f->model_places);
        if (!ok) fail(f, path, "cannot be read to its end");
        f->model_bytes += bytes;
        f->model_files++;
    }
    if (fd >= 0) close(fd);
    return ok;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool directory(struct clu_facts *f, const char *path, DIR *d)
{
    char *names[MAX_FILES];
    int n = 0;
    bool ok = true;
    for (struct dirent *e; n < MAX_FILES && (e = readdir(d));) {
        struct stat st;
        char *full = xasprintf("%s/%s", path, e->d_name);
        if (e->d_name[0] != '.' && !stat(full, &st) && S_ISREG(st.st_mode)) names[n++] = full;
        else free(full);
    }
    qsort(names, (size_t)n, sizeof names[0], by_name);
    for (int i = 0; i < n; i++) {
        const char *base = strrchr(names[i], '/') + 1;
        f->model_head = fold(f->model_head, base, strlen(base));
        ok = ok && one_file(f, names[i]);
        free(names[i]);
    }
    return ok && (n || fail(f, path, "an empty directory"));
}

static bool parts(struct clu_facts *f, const char *path)
{
    const char *at = strstr(path, "-00001-of-");
    int n = at ? atoi(at + 10) : 1;
    if (n <= 1 || n > MAX_FILES) return one_file(f, path);
    for (int i = 1; i <= n; i++) {
        char *part = xasprintf("%.*s-%05d%s", (int)(at - path), path, i, at + 6);
        bool ok = one_file(f, part);
        free(part);
        if (!ok) return false;
    }
    return true;
}

void clu_facts_model(struct clu_facts *f, const char *path)
{
    snprintf(f->model, sizeof f->model, "%s", path);
    f->model_bytes = f->model_files = 0;
    f->model_head = f->model_places = f->model_tail = 0;
    f->model_error[0] = 0;
    DIR *d = opendir(path);
    bool ok = d ? directory(f, path, d) : parts(f, path);
    if (d) closedir(d);
    if (!ok) f->model_bytes = CLU_FACTS_UNKNOWN;
}
