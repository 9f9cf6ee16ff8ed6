/* generate_batch.c: see generate_batch.h. A window of generations is kept running; each wakes us through one mailbox. */
#include "cli/generate_batch.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct job {
    struct mailbox *mail;
    struct crd_generation *g;
    struct buf out;
    int32_t status;
    char *custom_id;
    int64_t line;
    _Atomic bool queued;  /* already in the mailbox */
};

static void wake(void *user)
{
    struct job *j = user;
    if (!atomic_exchange(&j->queued, true)) mailbox_put(j->mail, j);
}

/* ---- the two files ---- */

/* Is this line an answer of ours? Returns its document, or NULL. */
static json_t *answer_of(const char *line, size_t n)
{
    json_t *v = json_loadb(line, n, 0, NULL);
    if (json_is_string(json_object_get(v, "custom_id")) && json_is_object(json_object_get(v, "response"))) return v;
    json_decref(v);
    return NULL;
}

/* Fill `done` with the custom_ids that the file answers. A last line without its newline was cut short by a crash and is dropped; anything else that
 * is no answer of ours means that the file is not ours, and it is left as it is. */
static enum err read_done(FILE *f, const char *path, json_t *done)
{
    enum err rc = OK;
    char *line = NULL;
    size_t cap = 0;
    off_t good = 0;
    int64_t number = 0;
    ssize_t n;
    for (; !rc && (n = getline(&line, &cap, f)) > 0 && line[n - 1] == '\n';) {
        number++;
        json_t *v = answer_of(line, (size_t)n);
        if (!v && line[strspn(line, " \t\r\n")])
            rc = err_raise(ERR_BAD_REQUEST, "--output %s: line %lld is no answer of a batch; name another file (this one was not touched)", path,
                           (long long)number);
        if (v && json_integer_value(json_object_get(json_object_get(v, "response"), "status_code")) == 200)
            json_object_set_new(done, json_string_value(json_object_get(v, "custom_id")), json_true());
        json_decref(v);
        good = ftello(f);
    }
    /* what is left is a line without an end: ours only if answers stand before it, or it begins like one */
    if (!rc && ferror(f)) rc = err_raise(ERR_IO, "cannot read %s: %s", path, strerror(errno));
    if (!rc && !number && n > 0 && strncmp(line, "{\"id\":\"batch_req_", 17))
        rc = err_raise(ERR_BAD_REQUEST, "--output %s is no answer file of a batch; name another file (this one was not touched)", path);
    free(line);
    if (rc) return rc;
    fflush(f);
    if (ftruncate(fileno(f), good) || fseeko(f, good, SEEK_SET))
        return err_raise(ERR_IO, "cannot write %s: %s", path, strerror(errno));
    return OK;
}

static enum err open_files(const char *in_path, const char *out_path, FILE **in, FILE **out)
{
    struct stat a, b;
    *in = fopen(in_path, "r");
    if (!*in || fstat(fileno(*in), &a)) return err_raise(ERR_IO, "cannot read %s: %s", in_path, strerror(errno));
    if (S_ISDIR(a.st_mode)) return err_raise(ERR_IO, "cannot read %s: it is a directory", in_path);
    int fd = open(out_path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    *out = fd < 0 ? NULL : fdopen(fd, "r+");
    if (!*out || fstat(fd, &b)) return err_raise(ERR_IO, "cannot write %s: %s", out_path, strerror(errno));
    if (a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return err_raise(ERR_BAD_CONFIG, "--prompts and --output are the same file, %s", in_path);
    if (flock(fd, LOCK_EX | LOCK_NB)) return err_raise(ERR_IO, "%s is being written by another tessera", out_path);
    return OK;
}

/* One whole line, or none: a full disk leaves the file at its last good line. */
static enum err write_result(FILE *f, const struct job *j)
{
    off_t before = ftello(f);
    json_t *id = json_string(j->custom_id);
    char *id_text = json_dumps(id, JSON_ENCODE_ANY);
    const char *body = j->out.len ? (const char *)j->out.data : "null";
    fprintf(f, "{\"id\":\"batch_req_%lld\",\"custom_id\":%s,\"response\":{\"status_code\":%d,\"request_id\":\"line-%lld\",\"body\":", (long long)j->line,
            id_text, j->status, (long long)j->line);
    for (const char *p = body; *p; p++)
        if (*p != '\n') putc(*p, f); /* one line per result; JSON strings hold no raw newline */
    fprintf(f, "},\"error\":null}\n");
    free(id_text);
    json_decref(id);
    if (!fflush(f) && !ferror(f)) return OK;
    int e = errno;
    if (ftruncate(fileno(f), before)) e = errno;
    return err_raise(ERR_IO, "cannot write the answers: %s; run the command again to go on where it stopped", strerror(e));
}

/* ---- jobs ---- */

/* A line as a job, which the mailbox has from now on. */
static enum err start_line(struct crd_api *api, struct mailbox *mail, json_t *v, int64_t line)
{
    const char *url = json_string_value(json_object_get(v, "url")), *id = json_string_value(json_object_get(v, "custom_id"));
    json_t *body = json_object_get(v, "body");
    if (!id || !url || !json_is_object(body))
        return err_raise(ERR_BAD_REQUEST, "line %lld: a batch line needs \"custom_id\", \"url\" and \"body\"", (long long)line);
    enum crd_endpoint ep;
    if (!strcmp(url, "/v1/chat/completions")) ep = ENDPOINT_CHAT;
    else if (!strcmp(url, "/v1/completions")) ep = ENDPOINT_COMPLETIONS;
    else if (!strcmp(url, "/v1/embeddings")) ep = ENDPOINT_EMBEDDINGS;
    else return err_raise(ERR_BAD_REQUEST, "line %lld: url '%s' is none of /v1/chat/completions, /v1/completions and /v1/embeddings", (long long)line, url);
    json_object_del(body, "stream");
    json_object_del(body, "stream_options");
    char *text = json_dumps(body, JSON_COMPACT);
    struct job *j = xcalloc(1, sizeof *j);
    j->mail = mail;
    j->custom_id = xstrdup(id);
    j->line = line;
    j->g = crd_generation_open(api, ep, text, strlen(text), 0, id, wake, j);
    free(text);
    wake(j); /* the first run is ours to start */
    return OK;
}

/* The first of its kind, and its sentence, which what runs meanwhile may not replace. */
struct trouble {
    enum err err;
    char text[800];
};

static void note(struct trouble *t, enum err e)
{
    if (!e || t->err) return;
    t->err = e;
    snprintf(t->text, sizeof t->text, "%s", err_text());
}

/* Run a woken job; true when it has finished: what is left of it is for forget(). After an answer that could not be written none is tried. */
static bool advance(struct job *j, FILE *f, int64_t *n_done, int64_t *n_failed, struct trouble *writing)
{
    atomic_store(&j->queued, false);
    if (!crd_generation_run(j->g, &j->out, &j->status)) return false;
    if (!writing->err) note(writing, write_result(f, j));
    *n_done += !writing->err;
    *n_failed += !writing->err && j->status != 200;
    crd_generation_close(j->g);
    buf_free(&j->out);
    free(j->custom_id);
    return true;
}

/* A last wake may still lie in the mailbox. Closing the generation has ended all wakes, so what is there is there now; and each job is there at
 * most once. */
static void forget(struct mailbox *mail, struct job *gone)
{
    struct job *kept[GENERATE_BATCH_MOST];
    int32_t n = 0;
    for (struct job *j; n < (int32_t)COUNT_OF(kept) && (j = mailbox_get(mail, 0));)
        if (j != gone) kept[n++] = j;
    for (int32_t i = 0; i < n; i++) mailbox_put(mail, kept[i]);
    free(gone);
}

enum err generate_batch_check(const char *in_path, const char *out_path)
{
    FILE *in = NULL, *out = NULL;
    bool fresh = access(out_path, F_OK) != 0;
    enum err e = open_files(in_path, out_path, &in, &out);
    if (in) fclose(in);
    if (out) fclose(out);
    if (fresh && e) unlink(out_path);
    return e;
}

/* The lines that are still to be asked. */
enum { LINE_BYTES = 64 << 20 };

struct lines {
    FILE *f;
    const char *path;
    json_t *done, *seen; /* custom_ids: answered in the file; of the lines so far, with their numbers */
    char *text;
    size_t cap;
    int64_t number;
    bool more;
};

/* *n: bytes of the next line, 0: there is none. One without an end would take all memory. */
static enum err next_line(struct lines *l, size_t *n)
{
    int c;
    for (*n = 0; (c = getc_unlocked(l->f)) != EOF;) {
        if (*n + 1 >= l->cap) l->text = xrealloc(l->text, l->cap = 2 * l->cap + 4096);
        l->text[(*n)++] = (char)c;
        if (c == '\n') break;
        if (*n == LINE_BYTES)
            return err_raise(ERR_BAD_REQUEST, "%s line %lld is longer than %d MB: each request of a batch is a line of JSON", l->path, (long long)l->number + 1,
                             LINE_BYTES >> 20);
    }
    if (ferror(l->f)) return err_raise(ERR_IO, "cannot read %s: %s", l->path, strerror(errno));
    if (*n) l->text[*n] = 0;
    return OK;
}

/* Begin the next line that is not answered yet. *started: one was; else there are no more. */
static enum err start_next(struct lines *l, struct crd_api *api, struct mailbox *mail, bool *started)
{
    enum err rc = OK;
    *started = false;
    while (l->more && !*started && !rc) {
        size_t n;
        rc = next_line(l, &n);
        l->more = !rc && n;
        if (!l->more) break;
        l->number++;
        if (l->text[strspn(l->text, " \t\r\n")] == 0) continue;
        json_error_t why;
        json_t *v = json_loadb(l->text, n, JSON_REJECT_DUPLICATES, &why);
        const char *id = json_string_value(json_object_get(v, "custom_id"));
        const json_t *before = id ? json_object_get(l->seen, id) : NULL;
        if (!v) {
            rc = err_raise(ERR_BAD_REQUEST, "%s line %lld is no JSON: %s", l->path, (long long)l->number, why.text);
        } else if (before) {
            rc = err_raise(ERR_BAD_REQUEST, "%s line %lld: custom_id '%.64s' is that of line %lld too, and answers are told apart by it: "
                           "each line needs its own",
                           l->path, (long long)l->number, id, (long long)json_integer_value(before));
        } else if (!id || !json_object_get(l->done, id)) {
            rc = start_line(api, mail, v, l->number);
            *started = !rc;
        }
        if (id && !rc) json_object_set_new(l->seen, id, json_integer(l->number));
        json_decref(v);
    }
    return rc;
}

enum err generate_batch(struct crd_api *api, const char *in_path, const char *out_path, int32_t concurrency, bool (*stop)(void), int64_t *n_done,
                        int64_t *n_failed)
{
    enum err rc;
    FILE *in = NULL, *out = NULL;
    struct mailbox *mail = mailbox_open();
    struct lines lines = {.path = in_path, .done = json_object(), .seen = json_object(), .more = true};
    struct trouble reading = {0}, writing = {0};
    int32_t running = 0;
    *n_done = *n_failed = 0;
    TRY(open_files(in_path, out_path, &in, &out));
    TRY(read_done(out, out_path, lines.done));
    lines.f = in;
    if (json_object_size(lines.done)) log_info("generate", "%zu line(s) are answered already: going on", json_object_size(lines.done));
    while ((lines.more || running) && !(stop() && !running)) {
        for (bool started = true; started && !reading.err && !writing.err && running < concurrency && !stop();) {
            note(&reading, start_next(&lines, api, mail, &started));
            running += started;
        }
        if (reading.err || writing.err) lines.more = false; /* what runs may finish, and is written if it can be; then the sentence */
        if (!running) continue;
        struct job *j = mailbox_get(mail, 200000);
        if (j && advance(j, out, n_done, n_failed, &writing)) {
            running--;
            forget(mail, j);
        }
    }
    if (writing.err) rc = err_raise(writing.err, "%s", writing.text);
    else if (reading.err)
        rc = err_raise(reading.err, "%s; %lld answer(s) are in %s: put the line right and run the command again for the rest", reading.text,
                       (long long)*n_done + (long long)json_object_size(lines.done), out_path);
out:
    free(lines.text);
    json_decref(lines.done);
    json_decref(lines.seen);
    if (in) fclose(in);
    if (out && fclose(out) && !rc) rc = err_raise(ERR_IO, "cannot write %s: %s", out_path, strerror(errno));
    if (!rc && stop()) rc = err_raise(ERR_CANCELLED, "stopped after %lld line(s); run the command again to answer the rest", (long long)*n_done);
    mailbox_close(mail);
    return rc;
}
