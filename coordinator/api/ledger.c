/* ledger.c: see ledger.h. */
#include "coordinator/api/ledger.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/mailbox.h"
#include "coordinator/api/json_out.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct crd_ledger {
    /* [init] */
    char *path;
    struct mailbox *mail; /* of lines; each Own: who takes it */
    pthread_t thread;
    /* [writer] */
    int fd;
    bool failed; /* said once, until a line is written again */
    /* [any] */
    _Atomic bool closing;
};

static int open_file(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

/* Somebody has moved it away: lines go to a new one of its name. */
static void follow(struct crd_ledger *l)
{
    struct stat now, ours;
    bool same = !stat(l->path, &now) && !fstat(l->fd, &ours) && now.st_ino == ours.st_ino &&
                now.st_dev == ours.st_dev;
    if (same) return;
    int fd = open_file(l->path);
    if (fd < 0) return; /* better in the old one than nowhere */
    close(l->fd);
    l->fd = fd;
}

static void write_line(struct crd_ledger *l, const char *line)
{
    size_t n = strlen(line);
    follow(l);
    bool good = write(l->fd, line, n) == (ssize_t)n;
    if (!good && !l->failed)
        log_error("api", "--usage-log %s: cannot write (%s); lines are lost until it can", l->path,
                  strerror(errno));
    l->failed = !good;
}

static void *writer_main(void *arg)
{
    struct crd_ledger *l = arg;
    for (;;) {
        char *line = mailbox_get(l->mail, atomic_load(&l->closing) ? 0 : -1);
        if (!line && atomic_load(&l->closing)) return NULL;
        if (line) write_line(l, line);
        free(line);
    }
}

enum err crd_ledger_open(struct crd_ledger **out, const char *path)
{
    int fd = open_file(path);
    if (fd < 0) return err_raise(ERR_IO, "--usage-log: cannot write %s: %s", path, strerror(errno));
    struct crd_ledger *l = xcalloc(1, sizeof *l);
    l->path = xstrdup(path);
    l->fd = fd;
    l->mail = mailbox_open();
    int e = pthread_create(&l->thread, NULL, writer_main, l);
    if (!e) {
        *out = l;
        return OK;
    }
    mailbox_close(l->mail);
    close(fd);
    free(l->path);
    free(l);
    return err_raise(ERR_SYSTEM, "cannot start the thread of the usage log: %s", strerror(e));
}

void crd_ledger_close(struct crd_ledger *l)
{
    if (!l) return;
    atomic_store(&l->closing, true);
    mailbox_poke(l->mail);
    pthread_join(l->thread, NULL);
    mailbox_close(l->mail);
    close(l->fd);
    free(l->path);
    free(l);
}

enum { PATH_SHOWN = 256 }; /* a stranger's may be long */

static void put_line(const struct crd_ledger_entry *e, struct buf *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    buf_puts(out, "{\"time\":");
    json_out_time(out, &now, 3);
    buf_puts(out, ",\"id\":");
    json_out_str(out, e->id);
    buf_puts(out, ",\"key\":");
    if (e->key)
        json_out_str(out, e->key);
    else
        buf_puts(out, "null");
    buf_puts(out, ",\"path\":");
    json_out_text(out, e->path, strnlen(e->path, PATH_SHOWN));
    if (e->adapter) {
        buf_puts(out, ",\"adapter\":");
        json_out_str(out, e->adapter);
    }
    buf_printf(out,
               ",\"status\":%d,\"prompt_tokens\":%lld,\"cached_tokens\":%lld,"
               "\"completion_tokens\":%lld,\"reasoning_tokens\":%lld,\"first_token_seconds\":",
               e->status, (long long)e->n_prompt, (long long)e->n_cached,
               (long long)e->n_completion, (long long)e->n_thought);
    if (e->first_us)
        buf_printf(out, "%.3f", (double)e->first_us / 1e6);
    else
        buf_puts(out, "null");
    buf_printf(out, ",\"seconds\":%.3f}\n", (double)e->us / 1e6);
}

void crd_ledger_add(struct crd_ledger *l, const struct crd_ledger_entry *e)
{
    log_debug("api", "%s %.*s: %d, %lld prompt tokens (%lld cached), %lld generated, %.3f s%s%s%s%s", e->id,
              (int)strcspn(e->path, "\r\n\033"), e->path, e->status, (long long)e->n_prompt, (long long)e->n_cached,
              (long long)e->n_completion, (double)e->us / 1e6, e->key ? ", key " : "",
              e->key ? e->key : "", e->adapter ? ", adapter " : "", e->adapter ? e->adapter : "");
    if (!l) return;
    struct buf line = {0};
    put_line(e, &line);
    mailbox_put(l->mail, buf_take(&line));
}
