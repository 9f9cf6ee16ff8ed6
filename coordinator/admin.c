/* admin.c: see admin.h. */
#include "coordinator/admin.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <glob.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LOG "admin"

enum { PATIENCE_US = 5000000 }; /* for the line of one who has connected */

struct crd_admin {
    char path[ADMIN_PATH];
    int listen_fd, fd;   /* fd: the asker; -1: none */
    bool working;        /* its request was handed out */
    int64_t since_us;
    char line[ADMIN_LINE];
    size_t n;
};

/* ---- the line ---- */

enum err crd_admin_parse(struct crd_admin_request *out, const char *line, size_t n)
{
    static const char reload[] = "reload ";
    struct crd_admin_request r = {.verb = ADMIN_NOTHING};
    size_t skip = sizeof reload - 1;
    if (n == 5 && !memcmp(line, "drain", 5)) r.verb = ADMIN_DRAIN;
    if (n > skip && !memcmp(line, reload, skip)) {
        if (n - skip >= sizeof r.model || memchr(line + skip, 0, n - skip))
            return err_raise(ERR_BAD_REQUEST, "reload: %zu bytes are no path", n - skip);
        r.verb = ADMIN_RELOAD;
        memcpy(r.model, line + skip, n - skip);
    }
    if (!r.verb) return err_raise(ERR_BAD_REQUEST, "'%.*s' is neither 'drain' nor 'reload MODEL'", (int)MIN(n, (size_t)40), line);
    *out = r;
    return OK;
}

void crd_admin_path(char out[ADMIN_PATH], int32_t port)
{
    const char *dir = getenv("XDG_RUNTIME_DIR");
    if (dir && strlen(dir) < 70) snprintf(out, ADMIN_PATH, "%s/tessera-%d.sock", dir, port);
    else snprintf(out, ADMIN_PATH, "/tmp/tessera-%u-%d.sock", (unsigned)geteuid(), port);
}

/* ---- sockets ---- */

static enum err address(struct sockaddr_un *a, const char *path)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a->sun_path)
        return err_raise(ERR_BAD_CONFIG, "--admin-socket: %s is longer than the %zu bytes a socket's path may have", path, sizeof a->sun_path - 1);
    memcpy(a->sun_path, path, strlen(path) + 1);
    return OK;
}

static int dial(const struct sockaddr_un *a)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof *a)) {
        int e = errno;
        close(fd);
        errno = e;
        fd = -1;
    }
    return fd;
}

/* The other end is this user's, or root's. */
static bool trusted(int fd)
{
    struct ucred c;
    socklen_t n = sizeof c;
    return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &n) && (c.uid == geteuid() || c.uid == 0);
}

/* Root may give orders to everybody's server; what answers must be its file's owner's. */
static bool is_owners(int fd, const char *path)
{
    struct ucred c;
    struct stat st;
    socklen_t n = sizeof c;
    return geteuid() == 0 && !lstat(path, &st) && !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &n) && c.uid == st.st_uid;
}

/* Nobody answers at a socket that lies there: its server is dead. */
static void clear_stale(const struct sockaddr_un *a)
{
    struct stat st;
    if (lstat(a->sun_path, &st) || !S_ISSOCK(st.st_mode) || st.st_uid != geteuid()) return;
    int fd = dial(a);
    if (fd >= 0) close(fd);
    else if (errno == ECONNREFUSED) unlink(a->sun_path);
}

enum err crd_admin_open(struct crd_admin **out, const char *path)
{
    enum err rc;
    struct sockaddr_un a;
    struct crd_admin *d = xcalloc(1, sizeof *d);
    d->fd = d->listen_fd = -1;
    TRY(address(&a, path));
    clear_stale(&a);
    d->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    mode_t before = umask(0177);
    bool bound = d->listen_fd >= 0 && !bind(d->listen_fd, (const struct sockaddr *)&a, sizeof a);
    int why = errno;
    umask(before);
    if (!bound) {
        rc = err_raise(ERR_SYSTEM, "the admin socket %s cannot be made: %s%s", path, strerror(why),
                       why == EADDRINUSE ? " (another server, or somebody else's file): name another with --admin-socket" : "");
        goto out;
    }
    snprintf(d->path, sizeof d->path, "%s", path);
    if (listen(d->listen_fd, 4)) rc = err_raise(ERR_SYSTEM, "the admin socket %s: %s", path, strerror(errno));
    if (!rc) *out = d, d = NULL;
out:
    crd_admin_close(d);
    return rc;
}

static void hang_up(struct crd_admin *a)
{
    if (a->fd >= 0) close(a->fd);
    a->fd = -1;
    a->n = 0;
    a->working = false;
}

void crd_admin_close(struct crd_admin *a)
{
    if (!a) return;
    hang_up(a);
    if (a->listen_fd >= 0) close(a->listen_fd);
    if (a->path[0]) unlink(a->path);
    free(a);
}

/* ---- which one ---- */

static bool answers(const char *path)
{
    struct sockaddr_un a;
    if (address(&a, path)) return false;
    int fd = dial(&a);
    bool yes = fd >= 0 && (trusted(fd) || is_owners(fd, path));
    if (fd >= 0) close(fd);
    return yes;
}

/* A service has no XDG_RUNTIME_DIR where its user's login shell has one, and root looks for everybody's. */
enum err crd_admin_find(char out[ADMIN_PATH], int32_t port)
{
    enum { MOST = 300 };
    char tmp[ADMIN_PATH], run[ADMIN_PATH], all[MOST] = "";
    int n = 0;
    size_t only = 0;
    glob_t g = {0};
    crd_admin_path(out, port);
    if (answers(out)) return OK;
    char whose[16] = "*";
    if (geteuid()) snprintf(whose, sizeof whose, "%u", (unsigned)geteuid());
    snprintf(tmp, sizeof tmp, "/tmp/tessera-%s-%d.sock", whose, port);
    snprintf(run, sizeof run, "/run/user/%s/tessera-%d.sock", whose, port);
    (void)glob(tmp, 0, NULL, &g);
    (void)glob(run, GLOB_APPEND, NULL, &g);
    for (size_t i = 0; i < g.gl_pathc; i++) {
        if (!strcmp(g.gl_pathv[i], out) || !answers(g.gl_pathv[i])) continue;
        const size_t at = strlen(all);
        snprintf(all + at, sizeof all - at, "%s%s", at ? ", " : "", g.gl_pathv[i]);
        only = i;
        n++;
    }
    if (n == 1) snprintf(out, ADMIN_PATH, "%s", g.gl_pathv[only]);
    globfree(&g);
    return n > 1 ? err_raise(ERR_BAD_CONFIG, "several servers have port %d: name one with --admin-socket: %s", port, all) : OK;
}

/* ---- one asker at a time ---- */

static void take_asker(struct crd_admin *a)
{
    a->fd = accept4(a->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    a->since_us = clock_us();
    if (a->fd < 0 || trusted(a->fd)) return;
    log_warn(LOG, "another user asked at %s: refused", a->path);
    hang_up(a);
}

/* True when the line is whole: a->n bytes of it. */
static bool read_line(struct crd_admin *a)
{
    ssize_t k = read(a->fd, a->line + a->n, sizeof a->line - 1 - a->n);
    if (k > 0) {
        char *nl = memchr(a->line + a->n, '\n', (size_t)k);
        a->n += (size_t)k;
        if (nl) a->n = (size_t)(nl - a->line);
        if (nl) return true;
        if (a->n < sizeof a->line - 1) return false;
    }
    if (k < 0 && (errno == EAGAIN || errno == EINTR) && clock_us() - a->since_us < PATIENCE_US) return false;
    hang_up(a); /* it left, says too much, or says nothing */
    return false;
}

bool crd_admin_wait(struct crd_admin *a, int64_t timeout_us, struct crd_admin_request *out)
{
    if (!a || a->working) {
        clock_sleep_us(timeout_us);
        return false;
    }
    struct pollfd p = {.fd = a->fd >= 0 ? a->fd : a->listen_fd, .events = POLLIN};
    if (poll(&p, 1, (int)(timeout_us / 1000)) < 0) return false;
    if (a->fd < 0) {
        if (p.revents) take_asker(a);
        return false;
    }
    if (!read_line(a)) return false;
    a->working = true;
    if (!crd_admin_parse(out, a->line, a->n)) return true;
    crd_admin_done(a, ERR_BAD_REQUEST);
    return false;
}

void crd_admin_say(struct crd_admin *a, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    if (!a || a->fd < 0) return;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text - 1, fmt, ap);
    va_end(ap);
    n = MIN(n, (int)sizeof text - 2);
    text[n] = '\n';
    if (send(a->fd, text, (size_t)n + 1, MSG_NOSIGNAL) < 0) log_debug(LOG, "the asker has left");
}

void crd_admin_done(struct crd_admin *a, enum err result)
{
    if (!a || a->fd < 0) return;
    if (result) crd_admin_say(a, "error: %s", err_text()[0] ? err_text() : err_short(result));
    else crd_admin_say(a, "ok");
    hang_up(a);
}

/* ---- the asker ---- */

enum err crd_admin_ask(const char *path, const char *line, FILE *to)
{
    enum err rc;
    struct sockaddr_un a;
    char said[1100];
    FILE *f = NULL;
    int fd = -1;
    TRY(address(&a, path));
    fd = dial(&a);
    if (fd < 0)
        return err_raise(ERR_UNAVAILABLE, "no server answers at %s (%s): is it another port (--port) or socket (--admin-socket)?", path, strerror(errno));
    if (!trusted(fd) && !is_owners(fd, path)) {
        rc = err_raise(ERR_UNAVAILABLE, "the server at %s is another user's", path);
        goto out;
    }
    rc = err_raise(ERR_UNAVAILABLE, "the server at %s left without an answer", path);
    if (dprintf(fd, "%s\n", line) < 0 || !(f = fdopen(fd, "r"))) goto out;
    while (rc == ERR_UNAVAILABLE && fgets(said, sizeof said, f)) {
        said[strcspn(said, "\n")] = 0;
        if (!strcmp(said, "ok")) rc = OK;
        else if (!strncmp(said, "error: ", 7)) rc = err_raise(ERR_BAD_REQUEST, "%s", said + 7);
        else fprintf(to, "%s\n", said), fflush(to);
    }
out:
    if (f) fclose(f);
    else if (fd >= 0) close(fd);
    return rc;
}
