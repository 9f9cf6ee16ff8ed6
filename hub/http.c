/* http.c: see http.h. */
#include "hub/http_curl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { MOST_REDIRECTS = 8, LONGEST_RETRY_S = 3600, LONGEST_HEADER = 8192 };

struct hub_http {
    CURL *curl;
    char *token; /* Own, or NULL; conf.token */
    struct hub_http_conf conf;
    /* one request */
    struct hub_answer *a;
    const struct hub_sink *sink;
    bool begun;
    enum err err; /* of the sink; its sentence is the thread's last */
    char why[CURL_ERROR_SIZE];
};

enum err hub_curl_check_token(const char *t)
{
    for (const char *p = t; p && *p; p++)
        if (*p <= ' ' || *p > '~') return err_raise(ERR_BAD_CONFIG, "the token has characters that no token has");
    return OK;
}

enum err hub_http_open(struct hub_http **out, const struct hub_http_conf *conf)
{
    enum err rc = hub_curl_check_token(conf->token);
    if (rc) return rc;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    CURL *curl = curl_easy_init();
    if (!curl) return err_raise(ERR_NO_MEMORY, "no memory for an HTTP client");
    struct hub_http *h = xcalloc(1, sizeof *h);
    h->curl = curl;
    h->conf = *conf;
    h->token = conf->token ? xstrdup(conf->token) : NULL;
    h->conf.token = h->token;
    *out = h;
    return OK;
}

void hub_http_close(struct hub_http *h)
{
    if (!h) return;
    curl_easy_cleanup(h->curl);
    free(h->token);
    free(h);
}

bool hub_http_is_safe(const char *url)
{
    static const char *const here[] = {"http://127.0.0.1", "http://localhost", "http://[::1]"};
    if (!strncasecmp(url, "https://", 8)) return true;
    for (size_t i = 0; i < COUNT_OF(here); i++) {
        size_t n = strlen(here[i]);
        if (!strncasecmp(url, here[i], n) && (!url[n] || url[n] == ':' || url[n] == '/')) return true;
    }
    return false;
}

/* Its scheme and host are there, and nothing that an address of a server does not have. */
static bool is_base(CURLU *u, const char *url)
{
    static const CURLUPart none[] = {CURLUPART_USER, CURLUPART_QUERY, CURLUPART_FRAGMENT};
    char *scheme = NULL, *part = NULL;
    bool ok = !curl_url_set(u, CURLUPART_URL, url, 0) && !curl_url_get(u, CURLUPART_SCHEME, &scheme, 0)
        && (!strcmp(scheme, "http") || !strcmp(scheme, "https"));
    for (size_t i = 0; ok && i < COUNT_OF(none); i++)
        if (!curl_url_get(u, none[i], &part, 0)) {
            curl_free(part);
            ok = false;
        }
    curl_free(scheme);
    return ok;
}

enum err hub_http_base(const char *option, const char *url, char **out)
{
    CURLU *u = curl_url();
    bool ok = u && is_base(u, url);
    curl_url_cleanup(u);
    if (!ok) return err_raise(ERR_BAD_REQUEST, "--%s %s: needed http://HOST:PORT or https://HOST:PORT", option, url);
    char *base = xstrdup(url);
    size_t n = strlen(base);
    while (n && base[n - 1] == '/') base[--n] = 0;
    if (n > 3 && !strcmp(base + n - 3, "/v1")) base[n - 3] = 0;
    *out = base;
    return OK;
}

char *hub_http_escape(const char *path)
{
    struct buf b = {0};
    for (const char *p = path; *p; p++) {
        unsigned char c = (unsigned char)*p;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-_.~/", c);
        if (plain) buf_putc(&b, *p);
        else buf_printf(&b, "%%%02X", c);
    }
    return buf_take(&b);
}

/* ---- heads ---- */

static bool is_header(const char *line, size_t n, const char *name, const char **value)
{
    size_t k = strlen(name);
    if (n <= k || strncasecmp(line, name, k) || line[k] != ':') return false;
    *value = line + k + 1;
    while (**value == ' ') ++*value;
    return true;
}

/* <URL>; rel="prev", <URL>; rel="next" */
static void take_link(struct hub_answer *a, const char *v)
{
    for (const char *url, *end, *word; (url = strchr(v, '<')) && (end = strchr(url, '>')); v = end + 1) {
        const char *behind = strchr(end, '<');
        word = strstr(end, "rel=\"next\"");
        if (!word || (behind && word > behind)) continue;
        size_t n = (size_t)(end - url - 1);
        a->more = true;
        if (n < sizeof a->next) snprintf(a->next, sizeof a->next, "%.*s", (int)n, url + 1);
        return;
    }
}

/* Seconds, or a date (RFC 9110, 10.2.3). */
static int64_t seconds_of(const char *v)
{
    char *end;
    long n = strtol(v, &end, 10);
    if (end != v && !*end) return CLAMP(n, 0, LONGEST_RETRY_S);
    time_t at = curl_getdate(v, NULL);
    return at < 0 ? -1 : CLAMP((int64_t)at - (int64_t)time(NULL), 0, LONGEST_RETRY_S);
}

static size_t on_header(char *data, size_t size, size_t n, void *user)
{
    struct hub_http *h = user;
    char line[LONGEST_HEADER];
    const char *v;
    n *= size;
    snprintf(line, sizeof line, "%.*s", (int)MIN(n, sizeof line - 1), data);
    line[strcspn(line, "\r\n")] = 0;
    size_t len = strlen(line);
    if (!strncasecmp(line, "HTTP/", 5)) *h->a = (struct hub_answer){.from = -1, .total = -1, .retry_s = -1}; /* of the last of several answers */
    if (is_header(line, len, "content-range", &v) && sscanf(v, "bytes %" SCNd64 "-%*d/%" SCNd64, &h->a->from, &h->a->total) < 1) h->a->from = -2;
    if (is_header(line, len, "retry-after", &v)) h->a->retry_s = seconds_of(v);
    if (is_header(line, len, "link", &v)) take_link(h->a, v);
    return n;
}

static enum err begin(struct hub_http *h)
{
    if (h->begun) return OK;
    h->begun = true;
    curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &h->a->status);
    return h->sink->begin ? h->sink->begin(h->sink->user, h->a) : OK;
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    struct hub_http *h = user;
    h->err = begin(h);
    if (!h->err) h->err = h->sink->take(h->sink->user, data, size * n);
    return h->err ? 0 : size * n;
}

/* ---- requests ---- */

static int on_progress(void *user, curl_off_t all_in, curl_off_t in, curl_off_t all_out, curl_off_t out)
{
    const struct hub_http *h = user;
    (void)all_in, (void)in, (void)all_out, (void)out;
    return h->conf.stop();
}

struct curl_slist *hub_curl_set(CURL *curl, const struct hub_http_conf *conf, const struct hub_curl_request *r)
{
    bool plain = !strncasecmp(r->url, "http://", 7);
    struct curl_slist *headers = NULL;
    char range[32];
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, r->url);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "tessera");
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, plain ? "http,https" : "https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, r->post ? 0L : 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, (long)MOST_REDIRECTS);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)conf->connect_s);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, conf->stall_s ? 1L : 0L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)conf->stall_s);
    if (conf->direct) curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    if (conf->ca) curl_easy_setopt(curl, CURLOPT_CAINFO, conf->ca);
    if (conf->token && *conf->token && (conf->direct || hub_http_is_safe(r->url))) { /* curl gives it to no other host that a redirect names */
        curl_easy_setopt(curl, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
        curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, conf->token);
    }
    snprintf(range, sizeof range, "%" PRId64 "-", r->first);
    if (r->first > 0) curl_easy_setopt(curl, CURLOPT_RANGE, range);
    if (r->post) {
        headers = curl_slist_append(headers, "Content-Type: application/json");
        headers = curl_slist_append(headers, "Expect:"); /* the body follows at once */
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(r->post));
        curl_easy_setopt(curl, CURLOPT_COPYPOSTFIELDS, r->post);
    }
    return headers;
}

static enum err perform(struct hub_http *h, const struct hub_curl_request *r, const struct hub_sink *sink, struct hub_answer *a)
{
    h->a = a;
    h->sink = sink;
    h->begun = false;
    h->err = OK;
    h->why[0] = 0;
    *a = (struct hub_answer){.from = -1, .total = -1, .retry_s = -1};
    struct curl_slist *headers = hub_curl_set(h->curl, &h->conf, r);
    curl_easy_setopt(h->curl, CURLOPT_ERRORBUFFER, h->why);
    curl_easy_setopt(h->curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(h->curl, CURLOPT_HEADERDATA, h);
    curl_easy_setopt(h->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(h->curl, CURLOPT_WRITEDATA, h);
    if (h->conf.stop) {
        curl_easy_setopt(h->curl, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(h->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
        curl_easy_setopt(h->curl, CURLOPT_XFERINFODATA, h);
    }
    CURLcode code = curl_easy_perform(h->curl);
    curl_slist_free_all(headers);
    if (h->err) return h->err;
    if (code == CURLE_ABORTED_BY_CALLBACK) return err_raise(ERR_CANCELLED, "interrupted");
    curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &a->status);
    if (code) return err_raise(ERR_LINK_CLOSED, "%s: %s", r->url, h->why[0] ? h->why : curl_easy_strerror(code));
    return begin(h); /* of an answer without a body */
}

enum err hub_http_body(struct hub_http *h, const char *url, int64_t first, const struct hub_sink *sink, struct hub_answer *a)
{
    return perform(h, &(struct hub_curl_request){.url = url, .first = first}, sink, a);
}

enum err hub_http_post(struct hub_http *h, const char *url, const char *json, const struct hub_sink *sink, struct hub_answer *a)
{
    return perform(h, &(struct hub_curl_request){.url = url, .post = json}, sink, a);
}

struct whole {
    struct buf *out;
    size_t most;
};

static enum err take_whole(void *user, const void *data, size_t n)
{
    struct whole *w = user;
    if (w->out->len + n > w->most) return err_raise(ERR_LINK_PROTOCOL, "an answer of more than %zu bytes", w->most);
    buf_put(w->out, data, n);
    return OK;
}

enum err hub_http_get(struct hub_http *h, const char *url, size_t most, struct buf *out, struct hub_answer *a)
{
    struct whole w = {out, most};
    struct hub_sink sink = {&w, NULL, take_whole};
    buf_clear(out);
    enum err rc = hub_http_body(h, url, 0, &sink, a);
    return rc && !h->conf.direct ? err_prefix(rc, "the hub") : rc;
}

enum err hub_http_post_get(struct hub_http *h, const char *url, const char *json, size_t most, struct buf *out, struct hub_answer *a)
{
    struct whole w = {out, most};
    struct hub_sink sink = {&w, NULL, take_whole};
    buf_clear(out);
    return hub_http_post(h, url, json, &sink, a);
}
