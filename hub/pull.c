/* pull.c: see pull.h.
 *
 * One file after the other. A try that brings bytes is a good one, however it ends; tries that bring none are few, with longer and longer
 * pauses between them. */
#include "hub/pull.h"

#include "hub/file.h"
#include "hub/http.h"
#include "hub/kept.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { LARGEST_PAGE = 64 << 20, MOST_PAGES = 64, LONGEST_PAUSE_MS = 60000 };

struct pull {
    const struct hub_pull_conf *c;
    const struct hub_ref *r;
    struct hub_http *http;
    struct hub_listing files;
    char *dir;
    int lock;
    const char *opened_by;  /* hub_listing_choose's */
    enum hub_here *here; /* Own: [files.n] */
    bool begun;          /* the folder is marked as unfinished */
    struct hub_progress p;
    /* the file */
    struct hub_part *part;
    int64_t first; /* asked for */
    bool brought;  /* this try did */
    int32_t begun_again;
};

static void say(const struct pull *p, const char *text, int32_t failed)
{
    if (p->c->say) p->c->say(p->c->user, text, failed);
}

static void pause_before(const struct pull *p, int32_t failed, int64_t asked_s)
{
    int64_t ms = MIN(p->c->pause_ms << MIN(failed, 16), (int64_t)LONGEST_PAUSE_MS);
    if (asked_s >= 0) ms = MIN(asked_s * 1000, (int64_t)LONGEST_PAUSE_MS);
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

/* What a status means; OK: go on with it. *again: another try may help. */
static enum err judge(const struct pull *p, const char *what, long status, bool *again)
{
    *again = status == 429 || status >= 500;
    if (status == 200 || status == 206) return OK;
    if (status == 401 || status == 403)
        return err_raise(ERR_LINK_AUTH, "%s answers %ld for %s: %s (HF_TOKEN or --token-file); a gated model's terms are accepted at %s/%s/%s",
                         p->c->endpoint, status,
                         what, p->c->token ? "the token was refused" : "it needs a token", p->c->endpoint, p->r->org, p->r->name);
    if (status == 404) return err_raise(ERR_NOT_FOUND, "%s has no %s (revision %s)", p->c->endpoint, what, p->r->revision);
    return err_raise(ERR_LINK_CLOSED, "%s answers %ld for %s", p->c->endpoint, status, what);
}

/* ---- the list ---- */

/* A page, tried again where that may help. */
static enum err get_page(struct pull *p, const char *url, const char *what, struct buf *out, struct hub_answer *a)
{
    enum err rc;
    for (int32_t failed = 0;; failed++) {
        bool again = true;
        rc = hub_http_get(p->http, url, LARGEST_PAGE, out, a);
        if (!rc) rc = judge(p, what, a->status, &again);
        if (!rc || rc == ERR_LINK_PROTOCOL || !again || failed + 1 >= p->c->tries) return rc;
        say(p, err_text(), failed + 1);
        pause_before(p, failed, a->retry_s);
    }
}

/* Where the list goes on, at our endpoint whatever host it names: a mirror may hand on what the hub said. *url is NULL at its end. Own: free(). */
static enum err next_page(const struct pull *p, const struct hub_answer *a, char **url)
{
    const char *at = strstr(a->next, "/api/models/"), *query = strchr(a->next, '?');
    if (!a->more) return OK;
    if (!at || (query && query < at))
        return err_raise(ERR_LINK_PROTOCOL, "the hub's list goes on at '%.200s', which is no page of it", *a->next ? a->next : "an address that is too long");
    *url = xasprintf("%s%s", p->c->endpoint, at);
    return OK;
}

static enum err list_files(struct pull *p)
{
    enum err rc;
    struct buf page = {0};
    struct hub_answer a;
    char *what = xasprintf("model %s/%s", p->r->org, p->r->name), *rev = hub_http_escape(p->r->revision);
    char *url = xasprintf("%s/api/models/%s/%s/tree/%s?recursive=true", p->c->endpoint, p->r->org, p->r->name, rev);
    for (int i = 0; url; i++) {
        if (i == MOST_PAGES) TRY(err_raise(ERR_LINK_PROTOCOL, "the hub's list has more than %d pages", MOST_PAGES));
        TRY(get_page(p, url, what, &page, &a));
        TRY(hub_listing_add(&p->files, buf_str(&page), page.len));
        free(url);
        url = NULL;
        TRY(next_page(p, &a, &url));
    }
    rc = OK;
out:
    free(what);
    free(rev);
    free(url);
    buf_free(&page);
    return rc;
}

/* ---- room ---- */

static enum err take_folder(struct pull *p)
{
    enum err rc;
    char *path = NULL;
    TRY(hub_ref_dir(p->r, &p->dir));
    path = xasprintf("%s/.lock", p->dir);
    for (char *at = path + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        if (mkdir(path, 0755) && errno != EEXIST) TRY(err_raise(ERR_IO, "cannot make the folder %s: %s", path, strerror(errno)));
        *at = '/';
    }
    p->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (p->lock < 0) TRY(err_raise(ERR_IO, "%s: cannot write: %s", path, strerror(errno)));
    if (flock(p->lock, LOCK_EX | LOCK_NB)) TRY(err_raise(ERR_IO, "another pull is at work in %s", p->dir));
out:
    free(path);
    return rc;
}

static bool has_sum(const struct hub_file *f) { return *f->sha256; }

static enum err check_room(struct pull *p)
{
    struct statvfs fs;
    for (size_t i = 0; i < p->files.n; i++) {
        const struct hub_file *f = &p->files.files[i];
        p->p.total += f->size;
        p->p.had += p->here[i] == HERE_SAME ? f->size : has_sum(f) ? MIN(hub_part_left(p->dir, f->path), f->size) : 0;
    }
    int64_t needed = p->p.total - p->p.had;
    if (statvfs(p->dir, &fs)) return OK; /* nobody knows */
    int64_t room = (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
    if (needed <= room) return OK;
    const double unit = needed < 1000000000 ? 1e6 : 1e9;
    const char *name = needed < 1000000000 ? "MB" : "GB";
    return err_raise(ERR_NO_FIT, "%s/%s needs %.1f %s more in %s, where %.1f %s are free: make room, or say another place in TESSERA_MODELS",
                     p->r->org, p->r->name,
                     (double)needed / unit, name, p->dir, (double)room / unit, name);
}

/* ---- one file ---- */

static void progress(struct pull *p, int64_t before)
{
    struct hub_progress now = p->p;
    now.done = before + (p->part ? hub_part_bytes(p->part) : 0);
    if (p->c->progress) p->c->progress(p->c->user, &now);
}

static enum err on_begin(void *user, const struct hub_answer *a)
{
    struct pull *p = user;
    bool again;
    enum err rc = judge(p, p->p.file, a->status, &again);
    if (rc || !p->first) return rc;
    if (a->status == 206 && a->from == p->first) return OK;
    p->begun_again++;
    rc = hub_part_again(p->part);
    if (rc || a->status == 200) return rc; /* it knows no ranges: all of it comes */
    return err_raise(ERR_LINK_PROTOCOL, "%s: byte %" PRId64 " on was asked for, the server sends from %" PRId64 " on: from the beginning again", p->p.file,
                     p->first, a->from);
}

static enum err on_bytes(void *user, const void *data, size_t n)
{
    struct pull *p = user;
    enum err rc = hub_part_put(p->part, data, n);
    p->brought |= !rc && n;
    if (!rc) progress(p, p->p.done);
    return rc;
}

/* Until the part is whole. */
static enum err fetch_bytes(struct pull *p, const struct hub_file *f, const char *url)
{
    const struct hub_sink sink = {p, on_begin, on_bytes};
    for (int32_t failed = 0; hub_part_bytes(p->part) < f->size;) {
        struct hub_answer a;
        bool again = true;
        p->first = hub_part_bytes(p->part);
        p->brought = false;
        enum err rc = hub_http_body(p->http, url, p->first, &sink, &a);
        if (a.status == 416) { /* it has fewer bytes than we: another file */
            p->begun_again++;
            rc = hub_part_again(p->part);
        }
        if (hub_part_bytes(p->part) == f->size) break;     /* however it ended */
        if (!rc) rc = err_raise(ERR_LINK_CLOSED, "%s: the server ended after %" PRId64 " of %" PRId64 " bytes", f->path, hub_part_bytes(p->part), f->size);
        if (rc == ERR_IO || rc == ERR_LINK_AUTH || rc == ERR_NOT_FOUND) return rc;
        if (a.status && a.status != 200 && a.status != 206 && a.status != 416) {
            (void)judge(p, f->path, a.status, &again);
            if (!again) return rc;
        }
        failed = p->brought ? 0 : failed + 1;
        if (failed >= p->c->tries || p->begun_again >= p->c->tries) return rc; /* whoever drops all and sends all again gets nowhere */
        say(p, err_text(), failed);
        pause_before(p, failed, a.retry_s);
    }
    return OK;
}

/* It takes its name. Before the first one does the folder is marked: old and new files would lie side by side. */
static enum err keep(struct pull *p, const struct hub_file *f)
{
    enum err rc;
    char sum[HUB_SUM];
    if (!p->begun) TRY(hub_kept_begin(p->dir, p->opened_by));
    p->begun = true;
    hub_kept_forget(p->dir, f->path);
    TRY(hub_part_finish(p->part, f->sha256, sum));
    TRY(hub_kept_note(p->dir, f, sum));
out:
    return rc;
}

static enum err fetch(struct pull *p, const struct hub_file *f)
{
    enum err rc;
    char *path = hub_http_escape(f->path), *rev = hub_http_escape(p->r->revision);
    char *url = xasprintf("%s/%s/%s/resolve/%s/%s", p->c->endpoint, p->r->org, p->r->name, rev, path);
    p->p.file = f->path;
    p->begun_again = 0;
    TRY(hub_part_open(&p->part, p->dir, f->path, f->size, has_sum(f)));
    for (int wrong = 0;; wrong++) { /* a wrong sum once may be a file that changed, or a part of another; twice is the hub's */
        TRY(fetch_bytes(p, f, url));
        rc = keep(p, f);
        if (rc != ERR_BAD_FILE || wrong) break;
        say(p, err_text(), 0);
    }
out:
    hub_part_close(p->part);
    p->part = NULL;
    free(path);
    free(rev);
    free(url);
    return rc;
}

/* ---- what is here ---- */

static void on_summed(void *user, int64_t bytes)
{
    struct pull *p = user;
    p->p.done += bytes;
    progress(p, p->p.done);
}

/* Does the file have the bytes that the hub has? Then that is kept. */
static enum err sum_file(struct pull *p, const struct hub_file *f, const char *wanted, enum hub_here *here)
{
    enum err rc;
    char sum[HUB_SUM];
    p->p.file = f->path;
    TRY(hub_file_sum(p->dir, f->path, on_summed, p, sum));
    *here = strcmp(sum, wanted) ? HERE_OTHER : HERE_SAME;
    if (*here == HERE_SAME) TRY(hub_kept_note(p->dir, f, sum));
    p->p.at++;
out:
    return rc;
}

static void say_other(const struct pull *p, const struct hub_file *f)
{
    char *text = xasprintf("%s: the file that is here is not the one that the hub has", f->path);
    say(p, text, -1);
    free(text);
}

/* Fills here[]: SAME, OTHER or NOT. A folder where something is missing is marked at once: nobody is to open it. */
static enum err look_here(struct pull *p)
{
    enum err rc = OK;
    size_t n = p->files.n;
    bool missing = false;
    char (*sums)[HUB_SUM] = xcalloc(n, sizeof *sums);
    p->here = xcalloc(n, sizeof *p->here);
    p->p.sums = true;
    for (size_t i = 0; i < n; i++) {
        p->here[i] = hub_kept_look(p->dir, &p->files.files[i], p->c->check, sums[i]);
        missing |= p->here[i] == HERE_NOT;
        if (p->here[i] == HERE_TO_SUM) p->p.n++, p->p.total += p->files.files[i].size;
    }
    if (missing) TRY(hub_kept_begin(p->dir, p->opened_by));
    p->begun = missing;
    for (size_t i = 0; i < n; i++) {
        if (p->here[i] == HERE_TO_SUM) TRY(sum_file(p, &p->files.files[i], sums[i], &p->here[i]));
        if (p->here[i] == HERE_OTHER) say_other(p, &p->files.files[i]);
    }
    p->p = (struct hub_progress){0};
out:
    free(sums);
    return rc;
}

enum err hub_pull(const struct hub_pull_conf *c, const struct hub_ref *r, char **path)
{
    enum err rc;
    const char *first;
    struct pull p = {.c = c, .r = r, .lock = -1};
    if (c->token && !hub_http_is_safe(c->endpoint))
        return err_raise(ERR_BAD_CONFIG, "a token is not sent to %s without https: leave it out (HF_TOKEN=), or use https", c->endpoint);
    TRY(hub_http_open(&p.http, &(struct hub_http_conf){.token = c->token, .connect_s = c->connect_s, .stall_s = c->stall_s}));
    TRY(list_files(&p));
    TRY(hub_listing_choose(&p.files, r, &first));
    p.opened_by = first;
    TRY(take_folder(&p));
    TRY(look_here(&p));
    TRY(check_room(&p));
    p.p.n = (int32_t)p.files.n;
    for (size_t i = 0; i < p.files.n; i++) {
        p.p.at = (int32_t)i;
        p.p.file = p.files.files[i].path;
        if (p.here[i] != HERE_SAME) TRY(fetch(&p, &p.files.files[i]));
        p.p.done += p.files.files[i].size;
        progress(&p, p.p.done);
    }
    TRY(hub_kept_end(p.dir, first));
    *path = *first ? xasprintf("%s/%s", p.dir, first) : xstrdup(p.dir);
out:
    if (p.lock >= 0) close(p.lock);
    hub_http_close(p.http);
    hub_listing_close(&p.files);
    free(p.here);
    free(p.dir);
    return rc;
}
