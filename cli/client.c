/* client.c: see client.h. */
#include "cli/client.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_MOST = 4 << 20, CONNECT_S = 5 };

#define O(f) offsetof(struct client_options, f)
const struct conf_opt client_option_table[] = {
    {"port", CONF_INT, O(port), "8000", 1, 65535, "N", "of the server's gateway on this host"},
    {"url", CONF_STR, O(url), NULL, 0, 0, "URL", "a server elsewhere, or one with HTTPS: http://HOST:PORT or https://HOST:PORT"},
    {"key-env", CONF_STR, O(key_env), "TESSERA_API_KEY", 0, 0, "VARIABLE", "the environment variable that holds an API key, if the server has any"},
    {"https-ca", CONF_STR, O(ca), NULL, 0, 0, "FILE", "certificates (PEM) to trust instead of the system's"},
    {0},
};
#undef O

enum err client_open(struct client *c, const struct client_options *o, int64_t stall_s, bool (*stop)(void))
{
    enum err rc;
    const char *key = getenv(o->key_env);
    *c = (struct client){0};
    for (const char *p = key; p && *p; p++)
        if (!isgraph((unsigned char)*p))
            return err_raise(ERR_BAD_CONFIG, "the key in %s has a character in it that no key has (a blank, a newline)", o->key_env);
    if (!o->url) c->url = xasprintf("http://127.0.0.1:%d", (int)o->port);
    else TRY(hub_http_base("url", o->url, &c->url));
    TRY(hub_http_open(&c->http, &(struct hub_http_conf){.token = key, .direct = true, .ca = o->ca, .connect_s = CONNECT_S, .stall_s = stall_s, .stop = stop}));
out:
    if (rc) client_close(c);
    return rc;
}

void client_close(struct client *c)
{
    hub_http_close(c->http);
    free(c->url);
    *c = (struct client){0};
}

/* A failure before there was an answer, with what may help. */
static enum err nobody(enum err rc)
{
    if (rc != ERR_LINK_CLOSED) return rc;
    char *why = xstrdup(err_text());
    rc = err_raise(ERR_UNAVAILABLE, "no server answers: %s (another port: --port; another host, or HTTPS: --url; a certificate of your own: --https-ca)", why);
    free(why);
    return rc;
}

/* Own: json_decref. */
static enum err object(const char *url, long status, const struct buf *body, json_t **out)
{
    json_t *j = json_loadb((const char *)body->data, body->len, 0, NULL);
    if (json_is_object(j)) {
        *out = j;
        return OK;
    }
    json_decref(j);
    return err_raise(ERR_UNAVAILABLE, "%s answers %ld, but not as tessera does: is it another port (--port) or address (--url)?", url, status);
}

char *client_sentence(const struct buf *body)
{
    json_t *j = json_loadb((const char *)body->data, body->len, 0, NULL), *e = json_object_get(j, "error");
    const char *text = json_string_value(json_is_string(e) ? e : json_object_get(e, "message"));
    char *own = xstrdup(text ? text : "(without a sentence)");
    json_decref(j);
    return own;
}

static enum err refused(const char *url, long status, const struct buf *body)
{
    char *text = client_sentence(body);
    enum err rc = err_raise(ERR_BAD_REQUEST, "%s: %ld %s", url, status, text);
    free(text);
    return rc;
}

enum err client_get(const struct client *c, const char *path, json_t **out, long *status)
{
    struct buf body = {0};
    struct hub_answer a;
    char *url = xasprintf("%s%s", c->url, path);
    enum err rc = nobody(hub_http_get(c->http, url, ANSWER_MOST, &body, &a));
    if (!rc) rc = object(url, a.status, &body, out);
    *status = a.status;
    buf_free(&body);
    free(url);
    return rc;
}

enum err client_model(const struct client *c, const struct client_options *o, const char *wanted, char **out)
{
    enum err rc;
    json_t *j = NULL;
    long status = 0;
    if (wanted) {
        *out = xstrdup(wanted);
        return OK;
    }
    TRY(client_get(c, "/v1/models", &j, &status));
    const char *id = json_string_value(json_object_get(json_array_get(json_object_get(j, "data"), 0), "id"));
    const char *why = json_string_value(json_object_get(json_object_get(j, "error"), "message"));
    if (status == 401)
        rc = err_raise(ERR_BAD_REQUEST, "%s wants an API key: put it in an environment variable and name that with --key-env (%s is %s)", c->url, o->key_env,
                       getenv(o->key_env) ? "not one of its keys" : "not set");
    else if (!id) rc = err_raise(ERR_UNAVAILABLE, "%s lists no model: %s", c->url, why ? why : "is it another port (--port) or address (--url)?");
    else *out = xstrdup(id);
out:
    json_decref(j);
    return rc;
}

enum err client_post(const struct client *c, const char *path, const char *json, json_t **out)
{
    struct buf body = {0};
    struct hub_answer a;
    char *url = xasprintf("%s%s", c->url, path);
    enum err rc = nobody(hub_http_post_get(c->http, url, json, ANSWER_MOST, &body, &a));
    if (!rc) rc = a.status == 200 ? object(url, a.status, &body, out) : refused(c->url, a.status, &body);
    buf_free(&body);
    free(url);
    return rc;
}

/* ---- streams ---- */

struct stream {
    enum err (*take)(void *user, const void *data, size_t n);
    void *user;
    long status;
    struct buf refusal;
};

static enum err on_begin(void *user, const struct hub_answer *a)
{
    ((struct stream *)user)->status = a->status;
    return OK;
}

static enum err on_take(void *user, const void *data, size_t n)
{
    struct stream *s = user;
    if (s->status == 200) return s->take(s->user, data, n);
    if (s->refusal.len + n <= ANSWER_MOST) buf_put(&s->refusal, data, n);
    return OK;
}

enum err client_stream(const struct client *c, const char *path, const char *json, enum err (*take)(void *user, const void *data, size_t n), void *user)
{
    struct stream s = {.take = take, .user = user};
    struct hub_sink sink = {&s, on_begin, on_take};
    struct hub_answer a;
    char *url = xasprintf("%s%s", c->url, path);
    enum err rc = nobody(hub_http_post(c->http, url, json, &sink, &a));
    if (!rc && a.status != 200) rc = refused(c->url, a.status, &s.refusal);
    buf_free(&s.refusal);
    free(url);
    return rc;
}
