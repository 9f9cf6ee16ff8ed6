#include "tests/gateway/client.h"
#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void client_open(struct client *c, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    *c = (struct client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    ASSERT(c->fd >= 0);
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a)) {
        close(c->fd);
        c->fd = -1;
        return;
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

void client_close(struct client *c)
{
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    buf_free(&c->in);
}

bool client_send(struct client *c, const char *text, size_t n)
{
    while (n) {
        ssize_t w = send(c->fd, text, n, MSG_NOSIGNAL);
        if (w < 0) return false;
        text += w;
        n -= (size_t)w;
    }
    return true;
}

bool client_puts(struct client *c, const char *text)
{
    return client_send(c, text, strlen(text));
}

bool client_request(struct client *c, const char *method, const char *path, const char *headers,
                    const char *body)
{
    struct buf b = {0};
    buf_printf(&b, "%s %s HTTP/1.1\r\nHost: test\r\n%s", method, path, headers ? headers : "");
    if (body)
        buf_printf(&b, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    buf_puts(&b, "\r\n");
    if (body) buf_puts(&b, body);
    bool ok = client_send(c, (char *)b.data, b.len);
    buf_free(&b);
    return ok;
}

/* 1 got something, 0 time-out, -1 end. */
static int more(struct client *c, int wait_ms)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    char part[16384];
    if (c->fd < 0) return -1;
    if (poll(&p, 1, wait_ms) <= 0) return 0;
    ssize_t n = recv(c->fd, part, sizeof part, 0);
    if (n <= 0) return -1;
    buf_put(&c->in, part, (size_t)n);
    return 1;
}

bool client_until(struct client *c, const char *text, int wait_ms)
{
    int64_t end = clock_us() + wait_ms * 1000;
    while (!strstr(buf_str(&c->in), text)) {
        int64_t left = (end - clock_us()) / 1000;
        if (left <= 0 || more(c, (int)left) <= 0) return false;
    }
    return true;
}

bool client_sees_close(struct client *c, int wait_ms)
{
    int64_t end = clock_us() + wait_ms * 1000;
    for (int64_t left; (left = (end - clock_us()) / 1000) > 0;)
        if (more(c, (int)left) < 0) return true;
    return false;
}

static void use(struct client *c, size_t n)
{
    memmove(c->in.data, c->in.data + n, c->in.len - n + 1);
    c->in.len -= n;
}

static bool need(struct client *c, size_t n)
{
    while (c->in.len < n)
        if (more(c, CLIENT_WAIT_MS) <= 0) return false;
    return true;
}

static void read_chunks(struct client *c, struct answer *a)
{
    for (;;) {
        a->cut = true;
        if (!client_until(c, "\r\n", CLIENT_WAIT_MS)) return;
        size_t n = strtoul(buf_str(&c->in), NULL, 16);
        size_t head = (size_t)(strstr(buf_str(&c->in), "\r\n") - buf_str(&c->in)) + 2;
        if (!need(c, head + n + 2)) return;
        buf_put(&a->body, c->in.data + head, n);
        use(c, head + n + 2);
        a->cut = false;
        if (!n) return;
    }
}

const char *answer_header(const struct answer *a, const char *name)
{
    static _Thread_local char value[1024];
    size_t n = strlen(name);
    for (const char *line = a->head; line && (line = strstr(line, "\r\n")) && line[2] != '\r';) {
        line += 2;
        if (strncasecmp(line, name, n) || line[n] != ':') continue;
        size_t len = strcspn(line + n + 2, "\r");
        snprintf(value, sizeof value, "%.*s", (int)len, line + n + 2);
        return value;
    }
    return NULL;
}

void client_answer(struct client *c, struct answer *a)
{
    *a = (struct answer){0};
    if (!client_until(c, "\r\n\r\n", CLIENT_WAIT_MS)) return;
    size_t n = (size_t)(strstr(buf_str(&c->in), "\r\n\r\n") - buf_str(&c->in)) + 4;
    a->head = xstrndup(buf_str(&c->in), n);
    use(c, n);
    a->status = atoi(a->head + 9);
    const char *length = answer_header(a, "Content-Length"),
               *te = answer_header(a, "Transfer-Encoding");
    if (te) {
        read_chunks(c, a);
    } else if ((length = answer_header(a, "Content-Length"))) {
        size_t len = strtoul(length, NULL, 10);
        a->cut = !need(c, len);
        len = MIN(len, c->in.len);
        buf_put(&a->body, c->in.data, len);
        if (len) use(c, len);
    }
}

void answer_free(struct answer *a)
{
    free(a->head);
    buf_free(&a->body);
    *a = (struct answer){0};
}

void client_fetch(int port, const char *method, const char *path, const char *body,
                  struct answer *out)
{
    struct client c;
    client_open(&c, port);
    *out = (struct answer){0};
    if (c.fd >= 0 && client_request(&c, method, path, NULL, body)) client_answer(&c, out);
    client_close(&c);
}
