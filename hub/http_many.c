/* http_many.c: see http_many.h. */
#include "hub/http_many.h"

#include "hub/http_curl.h"

#include <stdlib.h>

struct request {
    CURL *curl;
    struct curl_slist *headers;
    struct hub_many_sink sink;
    char why[CURL_ERROR_SIZE];
    char *refused; /* the sentence of take()'s error. Own, or NULL */
    struct request *next;
};

struct hub_many {
    CURLM *multi;
    struct hub_http_conf conf;
    struct request *idle, *working; /* idle: their handles are kept */
};

enum err hub_many_open(struct hub_many **out, const struct hub_http_conf *conf)
{
    enum err rc = hub_curl_check_token(conf->token);
    if (rc) return rc;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    CURLM *multi = curl_multi_init();
    if (!multi) return err_raise(ERR_NO_MEMORY, "no memory for an HTTP client");
    struct hub_many *m = xcalloc(1, sizeof *m);
    m->multi = multi;
    m->conf = *conf;
    *out = m;
    return OK;
}

static void drop(struct request *r)
{
    curl_easy_cleanup(r->curl);
    curl_slist_free_all(r->headers);
    free(r->refused);
    free(r);
}

static void drop_all(struct request *r)
{
    while (r) {
        struct request *next = r->next;
        drop(r);
        r = next;
    }
}

void hub_many_close(struct hub_many *m)
{
    if (!m) return;
    for (struct request *r = m->working; r; r = r->next) curl_multi_remove_handle(m->multi, r->curl);
    drop_all(m->working);
    drop_all(m->idle);
    curl_multi_cleanup(m->multi);
    free(m);
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    struct request *r = user;
    long status = 0;
    curl_easy_getinfo(r->curl, CURLINFO_RESPONSE_CODE, &status);
    if (!r->sink.take(r->sink.user, status, data, size * n)) return size * n;
    r->refused = xstrdup(err_text());
    return 0;
}

static struct request *take_idle(struct hub_many *m)
{
    struct request *r = m->idle;
    if (r) {
        m->idle = r->next;
        return r;
    }
    CURL *curl = curl_easy_init();
    if (!curl) return NULL;
    r = xcalloc(1, sizeof *r);
    r->curl = curl;
    return r;
}

enum err hub_many_post(struct hub_many *m, const char *url, const char *json, const struct hub_many_sink *sink)
{
    struct request *r = take_idle(m);
    if (!r) return err_raise(ERR_NO_MEMORY, "no memory for another HTTP request");
    r->sink = *sink;
    r->why[0] = 0;
    r->headers = hub_curl_set(r->curl, &m->conf, &(struct hub_curl_request){.url = url, .post = json});
    curl_easy_setopt(r->curl, CURLOPT_ERRORBUFFER, r->why);
    curl_easy_setopt(r->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(r->curl, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(r->curl, CURLOPT_PRIVATE, r);
    r->next = m->working;
    m->working = r;
    curl_multi_add_handle(m->multi, r->curl);
    return OK;
}

static void finish(struct hub_many *m, struct request *r, CURLcode code)
{
    long status = 0;
    struct request **at = &m->working;
    struct hub_many_sink sink = r->sink;
    while (*at != r) at = &(*at)->next;
    *at = r->next;
    curl_easy_getinfo(r->curl, CURLINFO_RESPONSE_CODE, &status);
    curl_multi_remove_handle(m->multi, r->curl);
    char *why = r->refused ? r->refused : code ? xstrdup(r->why[0] ? r->why : curl_easy_strerror(code)) : NULL;
    r->refused = NULL;
    curl_slist_free_all(r->headers);
    r->headers = NULL;
    r->next = m->idle;
    m->idle = r;
    sink.done(sink.user, status, why); /* may begin another, in this very request */
    free(why);
}

void hub_many_wait(struct hub_many *m, int64_t us)
{
    int running, left;
    curl_multi_perform(m->multi, &running);
    for (CURLMsg *msg; (msg = curl_multi_info_read(m->multi, &left));) {
        struct request *r = NULL;
        if (msg->msg != CURLMSG_DONE) continue;
        CURLcode code = msg->data.result;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &r);
        finish(m, r, code);
        us = 0; /* somebody waits for this */
    }
    curl_multi_poll(m->multi, NULL, 0, (int)(us / 1000), NULL);
}
