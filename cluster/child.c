/* child.c: see child.h. */
#include "cluster/child.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_KEPT = 1 << 20, COMPLAINT = 400 };

const struct clu_child clu_child_none = {.in = -1, .out = -1, .err = -1, .status = -1};

static void close_at(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* Only async-signal-safe calls here. */
static _Noreturn void become(const char *const argv[], int in, int out, int err, int fail)
{
    setsid();
    if (dup2(in, 0) == 0 && dup2(out, 1) == 1 && dup2(err, 2) == 2)
        execvp(argv[0], (char *const *)argv);
    int e = errno;
    ssize_t ignored = write(fail, &e, sizeof e);
    (void)ignored;
    _exit(127);
}

enum err clu_child_start(struct clu_child *out, const char *const argv[])
{
    int fd[8]; /* in, out, err, fail: a pipe each */
    struct clu_child c = {.status = -1};
    for (int i = 0; i < 8; i++) fd[i] = -1;
    int e = 0, saved = 0;
    for (int i = 0; i < 8 && !e; i += 2) e = pipe2(fd + i, O_CLOEXEC) ? errno : 0;
    pid_t pid = e ? -1 : fork();
    if (pid == 0) become(argv, fd[0], fd[3], fd[5], fd[7]);
    if (pid < 0 && !e) e = errno;
    close_at(&fd[0]), close_at(&fd[3]), close_at(&fd[5]), close_at(&fd[7]);
    if (pid > 0 && read(fd[6], &saved, sizeof saved) == (ssize_t)sizeof saved) {
        waitpid(pid, NULL, 0);
        e = saved;
    }
    close_at(&fd[6]);
    if (e) {
        for (int i = 1; i < 6; i++) close_at(&fd[i]);
        return err_raise(ERR_SYSTEM, "cannot run %s: %s", argv[0], strerror(e));
    }
    c.pid = pid;
    c.in = fd[1], c.out = fd[2], c.err = fd[4];
    for (int i = 1; i < 5; i++)
        if (fd[i] >= 0) fcntl(fd[i], F_SETFL, O_NONBLOCK);
    *out = c;
    return OK;
}

bool clu_child_say(struct clu_child *c, const char *line)
{
    char *text = xasprintf("%s\n", line);
    size_t n = strlen(text);
    /* a line is far shorter than a pipe, so it is written whole or not at all */
    bool ok = c->in >= 0 && write(c->in, text, n) == (ssize_t)n;
    free(text);
    return ok;
}

static void drain(int *fd, struct buf *into)
{
    char piece[4096];
    for (;;) {
        ssize_t n = read(*fd, piece, sizeof piece);
        if (n > 0 && into->len < MAX_KEPT) buf_put(into, piece, (size_t)n);
        else if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return close_at(fd);
        else if (n < 0 && errno == EAGAIN) return;
    }
}

/* Read what comes, waiting for something at most until then; false: the deadline. */
static bool listen_until(struct clu_child *c, int64_t until_us)
{
    struct pollfd p[2] = {{.fd = c->out, .events = POLLIN}, {.fd = c->err, .events = POLLIN}};
    int64_t left = until_us - clock_us();
    int n = poll(p, 2, (int)CLAMP(DIV_UP(left, 1000), 0, 100000));
    if (p[0].fd >= 0 && p[0].revents) drain(&c->out, &c->lines);
    if (p[1].fd >= 0 && p[1].revents) drain(&c->err, &c->said);
    return n > 0 || clock_us() < until_us;
}

const char *clu_child_line(struct clu_child *c, int64_t until_us)
{
    for (;;) {
        char *text = c->lines.len > c->at ? (char *)c->lines.data + c->at : NULL;
        char *end = text ? strchr(text, '\n') : NULL;
        if (end) {
            *end = 0;
            c->at = (size_t)(end + 1 - (char *)c->lines.data);
            if (end > text && end[-1] == '\r') end[-1] = 0; /* mpirun's terminals */
            return text;
        }
        if (c->out < 0 || !listen_until(c, until_us)) return NULL;
    }
}

const char *clu_child_complaint(struct clu_child *c)
{
    if (c->err >= 0) drain(&c->err, &c->said);
    if (!c->said.len) return "";
    char *text = (char *)c->said.data, *to = text;
    for (char *p = text; *p; p++) { /* rules and line ends become single blanks */
        bool blank = (unsigned char)*p <= ' ' || (*p == '-' && p[1] == '-' && p[2] == '-') ||
                     (*p == '-' && p > text && to > text && to[-1] == ' ' && p[1] <= ' ');
        if (!blank) *to++ = *p;
        else if (to > text && to[-1] != ' ') *to++ = ' ';
    }
    while (to > text && to[-1] == ' ') to--;
    *to = 0;
    c->said.len = (size_t)(to - text);
    if (c->said.len > COMPLAINT) text[COMPLAINT] = 0; /* the cause comes first, advice after it */
    return text;
}

void clu_child_dismiss(struct clu_child *c) { close_at(&c->in); }

bool clu_child_end(struct clu_child *c, int64_t grace_us, int *code)
{
    bool alone = true;
    close_at(&c->in);
    for (int64_t until = clock_us() + grace_us; c->pid > 0;) {
        if (waitpid(c->pid, &c->status, WNOHANG) == c->pid) {
            c->pid = 0;
        } else if (clock_us() >= until && alone) {
            kill(-c->pid, SIGKILL);
            alone = false;
        } else {
            listen_until(c, clock_us() + 5000);
            if (c->out < 0 && c->err < 0) clock_sleep_us(5000);
        }
    }
    if (code && c->status != -1)
        *code = WIFSIGNALED(c->status) ? 128 + WTERMSIG(c->status) : WEXITSTATUS(c->status);
    return alone;
}

void clu_child_free(struct clu_child *c)
{
    if (!c) return;
    if (c->pid > 0) clu_child_end(c, 0, NULL);
    close_at(&c->in), close_at(&c->out), close_at(&c->err);
    buf_free(&c->lines);
    buf_free(&c->said);
    *c = clu_child_none;
}
