/* ask_http.c: see ask_http.h. */
#include "cli/ask_http.h"

#include <jansson.h>

#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_MAX = 65536 };

enum err ask_http_url(const char *url, char host[256], char port[8])
{
    static const char http[] = "http://";
    const char *at = url + sizeof http - 1, *colon, *end;
    if (!strncmp(url, "https://", 8))
        return err_raise(ERR_BAD_REQUEST, "--url %s: only http:// is spoken here; curl asks over https, as docs/api.md shows", url);
    if (strncmp(url, http, sizeof http - 1)) goto bad;
    bool six = *at == '[';
    end = six ? strchr(at, ']') : at + strcspn(at, ":/");
    if (!end) goto bad;
    at += six;
    if (end == at || end - at > 255) goto bad;
    memcpy(host, at, (size_t)(end - at));
    host[end - at] = 0;
    colon = end + six;
    snprintf(port, 8, "80");
    if (*colon == ':') {
        size_t n = strspn(colon + 1, "0123456789");
        if (!n || n > 5) goto bad;
        snprintf(port, 8, "%.*s", (int)n, colon + 1);
        colon += 1 + n;
    }
    if (*colon && strcmp(colon, "/")) goto bad;
    return OK;
bad:
    return err_raise(ERR_BAD_REQUEST, "--url %s: needed http://HOST:PORT", url);
}

static enum err dial(const char *url, int *out)
{
    enum err rc;
    char host[256], port[8];
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int fd = -1;
    TRY(ask_http_url(url, host, port));
    int e = getaddrinfo(host, port, &hint, &found);
    if (e) return err_raise(ERR_UNAVAILABLE, "--url %s: %s", url, gai_strerror(e));
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || !connect(fd, a->ai_addr, a->ai_addrlen)) continue;
        int why = errno;
        close(fd);
        errno = why;
        fd = -1;
    }
    freeaddrinfo(found);
    if (fd < 0) rc = err_raise(ERR_UNAVAILABLE, "no server answers at %s (%s)", url, strerror(errno));
    else *out = fd;
out:
    return rc;
}

static bool send_all(int fd, const struct buf *b)
{
    for (size_t at = 0; at < b->len;) {
        ssize_t k = send(fd, b->data + at, b->len - at, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        at += (size_t)k;
    }
    return true;
}

/* To the end of the connection. */
static bool read_all(int fd, struct buf *b)
{
    char piece[4096];
    for (ssize_t k; (k = recv(fd, piece, sizeof piece, 0)) != 0;) {
        if (k < 0 && errno == EINTR) continue;
        if (k < 0 || b->len + (size_t)k > ANSWER_MAX) return false;
        buf_put(b, piece, (size_t)k);
    }
    return true;
}

static enum err judge(const char *url, int status, const struct buf *answer)
{
    if (status == 200) return OK;
    json_t *j = json_loadb((const char *)answer->data, answer->len, 0, NULL);
    const char *text = json_string_value(json_object_get(json_object_get(j, "error"), "message"));
    enum err e = err_raise(ERR_BAD_REQUEST, "%s: %d %s", url, status, text ? text : "(without a sentence)");
    json_decref(j);
    return e;
}

/* A document of HTTP/1.0: headers, and a body that ends with the connection. */
static enum err take_apart(const char *url, struct buf *in, struct buf *answer)
{
    int status = 0;
    const char *text = in->len ? buf_str(in) : "", *end = strstr(text, "\r\n\r\n");
    if (!end || sscanf(text, "HTTP/1.%*d %d", &status) != 1) return err_raise(ERR_UNAVAILABLE, "%s does not speak HTTP, or left in the middle of an answer", url);
    buf_put(answer, end + 4, in->len - (size_t)(end + 4 - text));
    return judge(url, status, answer);
}

enum err ask_http(const char *url, const char *path, const char *key, const char *body, struct buf *answer)
{
    enum err rc;
    int fd = -1;
    struct buf out = {0}, in = {0};
    for (const char *p = key; *p; p++)
        if (!isgraph((unsigned char)*p)) return err_raise(ERR_BAD_REQUEST, "the admin key has a character in it that no key has (a blank, a newline)");
    TRY(dial(url, &fd));
    buf_printf(&out, "POST %s HTTP/1.0\r\nHost: tessera\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
               path, key, strlen(body), body);
    if (!send_all(fd, &out) || !read_all(fd, &in)) rc = err_raise(ERR_UNAVAILABLE, "%s: the connection broke (%s)", url, strerror(errno));
    else rc = take_apart(url, &in, answer);
out:
    if (fd >= 0) close(fd);
    buf_free(&out);
    buf_free(&in);
    return rc;
}
