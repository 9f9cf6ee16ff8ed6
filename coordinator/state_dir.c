/* state_dir.c: see state_dir.h. */
#include "coordinator/state_dir.h"

#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG "state"

enum { MAX_FILE = 256 << 10 };

struct crd_state {
    char *path, suffix[16]; /* suffix: of the files of one model */
    int dir, lock;
    pthread_mutex_t mutex;
};
enum { NAME = 64, REPLICAS = 64 };

/* ---- the text of one replica ---- */

#define HEAD "tessera-replica 1"

void crd_left_write(const struct crd_left *l, struct buf *out)
{
    buf_printf(out, HEAD "\nfit %016" PRIx64 "\nlisten %s\nepoch %" PRIu32 "\nmpirun %d %" PRIu64 "\nranks", l->fit, l->listen, l->epoch, (int)l->mpirun,
               l->mpirun_start);
    for (int32_t i = 0; i < l->n_ranks; i++) buf_printf(out, " %d", (int)l->ranks[i]);
    buf_putc(out, '\n');
}

/* The number at *p, at most `most`; the blank or end after it is skipped. */
static bool number(const char **p, int base, uint64_t most, uint64_t *out)
{
    char *end;
    if (!strchr("0123456789abcdef", **p) || !**p) return false; /* strtoull takes signs and blanks */
    errno = 0;
    unsigned long long v = strtoull(*p, &end, base);
    if (errno || end == *p || (*end && *end != ' ') || v > most) return false;
    *out = v;
    *p = *end ? end + 1 : end;
    return true;
}

static bool ranks(struct crd_left *l, const char *v)
{
    uint64_t pid;
    while (*v) {
        if (l->n_ranks == LIMIT_RANKS || !number(&v, 10, INT32_MAX, &pid)) return false;
        l->ranks[l->n_ranks++] = (pid_t)pid;
    }
    return true;
}

static bool take_line(struct crd_left *l, const char *line)
{
    uint64_t a, b;
    const char *v = strchr(line, ' ');
    size_t n = v ? (size_t)(v - line) : strlen(line);
    v = v ? v + 1 : "";
#define IS(name) (n == strlen(name) && !memcmp(line, name, n))
    if (IS("fit")) return number(&v, 16, UINT64_MAX, &l->fit) && !*v;
    if (IS("listen")) {
        if (!*v || strlen(v) >= sizeof l->listen) return false;
        memset(l->listen, 0, sizeof l->listen); /* it may be there twice */
        strcpy(l->listen, v);
        return true;
    }
    if (IS("epoch")) {
        if (!number(&v, 10, UINT32_MAX, &a) || *v) return false;
        l->epoch = (uint32_t)a;
        return true;
    }
    if (IS("mpirun")) {
        if (!number(&v, 10, INT32_MAX, &a) || !number(&v, 10, UINT64_MAX, &b) || *v) return false;
        l->mpirun = (pid_t)a;
        l->mpirun_start = b;
        return true;
    }
    if (IS("ranks")) return ranks(l, v);
#undef IS
    return false;
}

enum err crd_left_parse(struct crd_left *out, const char *text, size_t n)
{
    char *copy = xstrndup(text, n), *save = NULL, *line = strtok_r(copy, "\n", &save);
    struct crd_left l = {0};
    enum err e = OK;
    if (!line || strcmp(line, HEAD)) e = err_raise(ERR_BAD_CONFIG, "its first line is not \"" HEAD "\"");
    while (!e && (line = strtok_r(NULL, "\n", &save)))
        if (!take_line(&l, line)) e = err_raise(ERR_BAD_CONFIG, "it has a line \"%.60s\"", line);
    free(copy);
    if (!e) *out = l;
    return e;
}

enum err crd_now_parse(struct crd_now *out, const char *text, size_t n)
{
    uint64_t number_;
    struct crd_now w = {0};
    const char *nl = memchr(text, '\n', n), *end = nl ? memchr(nl + 1, '\n', n - (size_t)(nl + 1 - text)) : NULL;
    char first[16] = "";
    const char *p = first;
    if (nl && (size_t)(nl - text) < sizeof first) memcpy(first, text, (size_t)(nl - text));
    bool good = end == text + n - 1 && nl[1] == '/' && (size_t)(end - nl) <= sizeof w.model && !memchr(text, 0, n) &&
                number(&p, 10, INT32_MAX, &number_) && !*p && number_;
    if (!good) return err_raise(ERR_BAD_CONFIG, "it is not a number and a path, a line each");
    w.number = (int32_t)number_;
    memcpy(w.model, nl + 1, (size_t)(end - nl - 1));
    *out = w;
    return OK;
}

/* ---- files ---- */

char *crd_state_path(const struct crd_state *s, const char *name) { return xasprintf("%s/%s", s->path, name); }
char *crd_state_model_path(const struct crd_state *s, const char *name) { return xasprintf("%s/%s%s", s->path, name, s->suffix); }

static bool read_file(const struct crd_state *s, const char *name, struct buf *out)
{
    char chunk[4096];
    ssize_t n = 0;
    int fd = openat(s->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return false;
    while (out->len < MAX_FILE && (n = read(fd, chunk, sizeof chunk)) > 0) buf_put(out, chunk, (size_t)n);
    close(fd);
    return n == 0 && out->len;
}

/* Through a second name, so that a reader finds the old file or the new one. */
static enum err write_file(struct crd_state *s, const char *name, const struct buf *b)
{
    char fresh[NAME + 8];
    snprintf(fresh, sizeof fresh, "%s.new", name);
    pthread_mutex_lock(&s->mutex);
    int fd = openat(s->dir, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool good = fd >= 0 && write(fd, b->data, b->len) == (ssize_t)b->len && !fdatasync(fd);
    int e = errno;
    if (fd >= 0) close(fd);
    if (good && renameat(s->dir, fresh, s->dir, name)) good = false, e = errno;
    if (!good) unlinkat(s->dir, fresh, 0);
    pthread_mutex_unlock(&s->mutex);
    return good ? OK : err_raise(ERR_IO, "cannot write %s/%s: %s", s->path, name, strerror(e));
}

static const char *name_of(const struct crd_state *s, char out[NAME], const char *what, int32_t i)
{
    if (i < 0) snprintf(out, NAME, "%s%s", what, s->suffix);
    else snprintf(out, NAME, "%s-%d%s", what, i, s->suffix);
    return out;
}

bool crd_state_key(struct crd_state *s, char out[65])
{
    struct buf b = {0};
    char name[NAME];
    bool good = read_file(s, name_of(s, name, "key", -1), &b) && b.len == 64 && strspn(buf_str(&b), "0123456789abcdef") == 64;
    if (good) memcpy(out, b.data, 65);
    buf_free(&b);
    return good;
}

enum err crd_state_set_key(struct crd_state *s, const char *key)
{
    struct buf b = {0};
    char name[NAME];
    buf_puts(&b, key);
    enum err e = write_file(s, name_of(s, name, "key", -1), &b);
    buf_free(&b);
    return e;
}

bool crd_state_left(struct crd_state *s, int32_t i, struct crd_left *out, struct control_msg **plan)
{
    char name[NAME];
    struct buf b = {0};
    *plan = NULL;
    bool good = read_file(s, name_of(s, name, "replica", i), &b);
    if (good && crd_left_parse(out, buf_str(&b), b.len)) {
        log_warn(LOG, "%s/%s is not understood (%s): workers of an earlier coordinator are not looked for", s->path, name, err_text());
        good = false;
    }
    buf_clear(&b);
    if (good && read_file(s, name_of(s, name, "plan", i), &b) && (control_decode(b.data, b.len, plan) || (*plan)->type != MSG_LOAD_PLAN)) {
        log_warn(LOG, "%s/%s is no load plan", s->path, name);
        control_msg_free(*plan);
        *plan = NULL;
    }
    buf_free(&b);
    return good;
}

void crd_state_note(struct crd_state *s, int32_t i, const struct crd_left *l)
{
    char name[NAME];
    struct buf b = {0};
    crd_left_write(l, &b);
    if (write_file(s, name_of(s, name, "replica", i), &b)) log_error(LOG, "%s: a coordinator after this one will load anew", err_text());
    buf_free(&b);
}

void crd_state_note_plan(struct crd_state *s, int32_t i, const struct msg_load_plan *p)
{
    char name[NAME];
    struct buf b = {0};
    struct control_msg m = {.type = MSG_LOAD_PLAN, .load_plan = *p};
    control_encode(&m, &b);
    if (write_file(s, name_of(s, name, "plan", i), &b)) log_error(LOG, "%s: a coordinator after this one will load anew", err_text());
    buf_free(&b);
}

/* And what a coordinator that was killed had begun to write of it. */
static void remove_file(struct crd_state *s, const char *name)
{
    char fresh[NAME + 8];
    snprintf(fresh, sizeof fresh, "%s.new", name);
    unlinkat(s->dir, name, 0);
    unlinkat(s->dir, fresh, 0);
}

void crd_state_clear(struct crd_state *s, int32_t n)
{
    char name[NAME];
    for (int32_t i = 0; i < n; i++) {
        remove_file(s, name_of(s, name, "replica", i));
        remove_file(s, name_of(s, name, "plan", i));
    }
    remove_file(s, name_of(s, name, "key", -1));
}

/* ---- which model ---- */

static void set_suffix(struct crd_state *s, int32_t number)
{
    if (number) snprintf(s->suffix, sizeof s->suffix, ".%d", number);
}

struct crd_state *crd_state_of(const struct crd_state *s, int32_t number)
{
    struct crd_state *one = xcalloc(1, sizeof *one);
    one->path = xstrdup(s->path);
    one->dir = fcntl(s->dir, F_DUPFD_CLOEXEC, 0);
    one->lock = -1;
    pthread_mutex_init(&one->mutex, NULL);
    set_suffix(one, number);
    return one;
}

bool crd_state_now(struct crd_state *s, struct crd_now *out)
{
    struct buf b = {0};
    bool good = read_file(s, "now", &b);
    if (good && crd_now_parse(out, buf_str(&b), b.len)) {
        log_warn(LOG, "%s/now is not understood (%s): the model of the command line is served", s->path, err_text());
        good = false;
    }
    buf_free(&b);
    return good;
}

enum err crd_state_set_now(struct crd_state *s, const struct crd_now *now)
{
    struct buf b = {0};
    buf_printf(&b, "%d\n%s\n", now->number, now->model);
    enum err e = write_file(s, "now", &b);
    buf_free(&b);
    return e;
}

/* "key.3", "replica-0.3", "journal.3.new": 3; without a number 0; -1: no file of a model's. */
static int32_t number_of(const char *name)
{
    static const char *const kinds[] = {"key", "replica-", "plan-", "journal"};
    uint64_t n = 0;
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        size_t len = strlen(kinds[i]);
        if (strncmp(name, kinds[i], len)) continue;
        const char *dot = strchr(name + len, '.');
        if (!dot || !strcmp(dot, ".new")) return 0;
        char digits[16];
        const char *p = digits;
        snprintf(digits, sizeof digits, "%.*s", (int)strcspn(dot + 1, "."), dot + 1);
        return number(&p, 10, INT32_MAX, &n) && !*p ? (int32_t)n : -1;
    }
    return -1;
}

int32_t crd_state_numbers(const struct crd_state *s, int32_t out[], int32_t n)
{
    int32_t k = 0;
    DIR *d = opendir(s->path);
    for (struct dirent *e; d && k < n && (e = readdir(d));) {
        int32_t v = number_of(e->d_name), at = 0;
        while (at < k && out[at] != v) at++;
        if (v >= 0 && at == k) out[k++] = v;
    }
    if (d) closedir(d);
    return k;
}

void crd_state_drop(struct crd_state *s, int32_t number)
{
    struct crd_state *one = crd_state_of(s, number);
    char name[NAME];
    crd_state_clear(one, REPLICAS);
    remove_file(one, name_of(one, name, "journal", -1));
    crd_state_close(one);
}

void crd_state_end(struct crd_state *s, int32_t number)
{
    char name[NAME];
    if (!number) return;
    struct crd_state *one = crd_state_of(s, number);
    (void)renameat(s->dir, name_of(one, name, "journal", -1), s->dir, "journal"); /* there may be none */
    remove_file(s, "now");
    crd_state_close(one);
}

/* ---- open, close ---- */

static enum err check_dir(const struct crd_state *s)
{
    struct stat st;
    if (fstat(s->dir, &st)) return err_raise(ERR_IO, "--state-dir %s: %s", s->path, strerror(errno));
    if (st.st_uid != geteuid())
        return err_raise(ERR_BAD_CONFIG, "--state-dir %s belongs to user %u; it must be of user %u, who runs this", s->path, (unsigned)st.st_uid,
                         (unsigned)geteuid());
    if (st.st_mode & 077)
        return err_raise(ERR_BAD_CONFIG, "--state-dir %s has mode %04o and will hold the cluster key; needed 0700: chmod 700 %s", s->path,
                         (unsigned)st.st_mode & 07777, s->path);
    return OK;
}

static enum err take_lock(struct crd_state *s)
{
    char pid[32];
    s->lock = openat(s->dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock < 0) return err_raise(ERR_IO, "--state-dir %s: cannot make its lock: %s", s->path, strerror(errno));
    if (flock(s->lock, LOCK_EX | LOCK_NB)) {
        ssize_t n = pread(s->lock, pid, sizeof pid - 1, 0);
        pid[MAX(n, 0)] = 0;
        pid[strcspn(pid, "\n")] = 0;
        return err_raise(ERR_BAD_CONFIG, "--state-dir %s is in use by another coordinator (pid %s): stop that one, or name another directory", s->path, pid);
    }
    int n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (ftruncate(s->lock, 0) || pwrite(s->lock, pid, (size_t)n, 0) != n)
        return err_raise(ERR_IO, "--state-dir %s: cannot write its lock: %s", s->path, strerror(errno));
    return OK;
}

enum err crd_state_open(struct crd_state **out, const char *path)
{
    enum err rc = OK;
    struct crd_state *s = xcalloc(1, sizeof *s);
    s->path = xstrdup(path);
    s->lock = -1;
    pthread_mutex_init(&s->mutex, NULL);
    if (mkdir(path, 0700) && errno != EEXIST) rc = err_raise(ERR_IO, "cannot make --state-dir %s: %s", path, strerror(errno));
    s->dir = rc ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!rc && s->dir < 0) rc = err_raise(ERR_BAD_CONFIG, "--state-dir %s: %s", path, strerror(errno));
    if (rc) goto out;
    TRY(check_dir(s));
    TRY(take_lock(s));
    *out = s;
    s = NULL;
out:
    crd_state_close(s);
    return rc;
}

void crd_state_close(struct crd_state *s)
{
    if (!s) return;
    if (s->lock >= 0) close(s->lock);
    if (s->dir >= 0) close(s->dir);
    pthread_mutex_destroy(&s->mutex);
    free(s->path);
    free(s);
}
