/* generate_batch.c: see generate_batch.h. A window of generations is kept running; each wakes us through one mailbox. */
#include "cli/generate_batch.h"

#include "base/log.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* custom_ids that out_path already answers; a last line cut short by a crash is dropped from the file. */
static json_t *already_done(const char *path)
{
    json_t *done = json_object();
    FILE *f = fopen(path, "r+");
    char *line = NULL;
    size_t cap = 0;
    long good = 0;
    if (!f) return done;
    for (ssize_t n; (n = getline(&line, &cap, f)) > 0;) {
        json_t *v = line[n - 1] == '\n' ? json_loadb(line, (size_t)n, 0, NULL) : NULL;
        if (!v) break;
        json_t *resp = json_object_get(v, "response");
        const char *id = json_string_value(json_object_get(v, "custom_id"));
        if (id && json_integer_value(json_object_get(resp, "status_code")) == 200) json_object_set_new(done, id, json_true());
        json_decref(v);
        good = ftell(f);
    }
    fflush(f);
    if (ftruncate(fileno(f), good)) log_warn("generate", "cannot cut the unfinished last line off %s", path);
    free(line);
    fclose(f);
    return done;
}

static void write_result(FILE *f, const struct job *j)
{
    json_t *id = json_string(j->custom_id);
    char *id_text = json_dumps(id, JSON_ENCODE_ANY);
    const char *body = j->out.len ? (const char *)j->out.data : "null";
    fprintf(f, "{\"id\":\"batch_req_%lld\",\"custom_id\":%s,\"response\":{\"status_code\":%d,\"request_id\":\"line-%lld\",\"body\":", (long long)j->line,
            id_text, j->status, (long long)j->line);
    for (const char *p = body; *p; p++)
        if (*p != '\n') putc(*p, f); /* one line per result; JSON strings hold no raw newline */
    fprintf(f, "},\"error\":null}\n");
    fflush(f);
    free(id_text);
    json_decref(id);
}

static enum err start_line(struct crd_api *api, struct mailbox *mail, json_t *v, int64_t line, struct job **out)
{
    const char *url = json_string_value(json_object_get(v, "url")), *id = json_string_value(json_object_get(v, "custom_id"));
    json_t *body = json_object_get(v, "body");
    if (!id || !url || !json_is_object(body))
        return err_raise(ERR_BAD_REQUEST, "line %lld: a batch line needs \"custom_id\", \"url\" and \"body\"", (long long)line);
    enum crd_endpoint ep;
    if (!strcmp(url, "/v1/chat/completions")) ep = ENDPOINT_CHAT;
    else if (!strcmp(url, "/v1/completions")) ep = ENDPOINT_COMPLETIONS;
    else return err_raise(ERR_BAD_REQUEST, "line %lld: url '%s' is neither /v1/chat/completions nor /v1/completions", (long long)line, url);
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
    *out = j;
    return OK;
}

/* Run a woken job; true when it has finished (and is gone). */
static bool advance(struct job *j, FILE *f, int64_t *n_done, int64_t *n_failed)
{
    atomic_store(&j->queued, false);
    if (!crd_generation_run(j->g, &j->out, &j->status)) return false;
    write_result(f, j);
    *n_done += 1;
    *n_failed += j->status != 200;
    crd_generation_close(j->g);
    /* a last wake may still lie in the mailbox: closing the generation ends all wakes, so what is there is there now */
    buf_free(&j->out);
    free(j->custom_id);
    return true;
}

static void forget(struct mailbox *mail, struct job *gone)
{
    struct job *kept[4096];
    int32_t n = 0;
    for (struct job *j; n < (int32_t)COUNT_OF(kept) && (j = mailbox_get(mail, 0));)
        if (j != gone) kept[n++] = j;
    for (int32_t i = 0; i < n; i++) mailbox_put(mail, kept[i]);
    free(gone);
}

enum err generate_batch(struct crd_api *api, const char *in_path, const char *out_path, int32_t concurrency, bool (*stop)(void), int64_t *n_done,
                        int64_t *n_failed)
{
    enum err rc = OK;
    FILE *in = fopen(in_path, "r"), *out = NULL;
    json_t *done = NULL;
    struct mailbox *mail = mailbox_open();
    char *text = NULL;
    size_t cap = 0;
    int64_t line = 0;
    int32_t running = 0;
    bool more = true;
    *n_done = *n_failed = 0;
    if (!in) {
        rc = err_raise(ERR_IO, "cannot read %s", in_path);
        goto out;
    }
    done = already_done(out_path);
    out = fopen(out_path, "a");
    if (!out) {
        rc = err_raise(ERR_IO, "cannot write %s", out_path);
        goto out;
    }
    if (json_object_size(done)) log_info("generate", "%zu lines are answered already: going on", json_object_size(done));
    while ((more || running) && !(stop() && !running)) {
        while (more && !rc && running < concurrency && !stop()) {
            ssize_t n = getline(&text, &cap, in);
            if (n <= 0) {
                more = false;
                break;
            }
            line++;
            if (text[strspn(text, " \t\r\n")] == 0) continue;
            json_error_t je;
            json_t *v = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &je);
            const char *id = json_string_value(json_object_get(v, "custom_id"));
            struct job *j;
            if (!v) rc = err_raise(ERR_BAD_REQUEST, "%s line %lld is no JSON: %s", in_path, (long long)line, je.text);
            else if (!id || !json_object_get(done, id)) {
                rc = start_line(api, mail, v, line, &j);
                running += !rc;
            }
            json_decref(v);
        }
        if (rc) more = false; /* what runs may finish; then the sentence */
        if (!running) continue;
        struct job *j = mailbox_get(mail, 200000);
        if (j && advance(j, out, n_done, n_failed)) {
            running--;
            forget(mail, j);
        }
    }
out:
    free(text);
    json_decref(done);
    if (in) fclose(in);
    if (out && fclose(out) && !rc) rc = err_raise(ERR_IO, "cannot write %s: is the disk full?", out_path);
    mailbox_close(mail);
    return rc;
}
