/* address.c: see address.h. */
#include "base/address.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static enum err port_of(int32_t *port, const char *what, const char *text, const char *digits)
{
    size_t n = strspn(digits, "0123456789");
    int32_t v = 0;
    for (size_t i = 0; i < n && i < 6; i++) v = v * 10 + digits[i] - '0';
    if (!n || digits[n] || n > 5 || v > 65535)
        return err_raise(ERR_BAD_CONFIG, "%s %s: '%s' is no port: 1 to 65535, or 0 for any free one", what, text, digits);
    *port = v;
    return OK;
}

/* first, n: the host; rest: what follows it. */
static enum err parts(struct address *a, const char *what, const char *text, const char *first, size_t n, const char *rest)
{
    enum err rc = OK;
    if (!n || n >= sizeof a->host) return err_raise(ERR_BAD_CONFIG, "%s %s: needed HOST:PORT, or [IPV6]:PORT", what, text);
    memcpy(a->host, first, n);
    a->host[n] = 0;
    a->port = -1;
    if (*rest == ':') TRY(port_of(&a->port, what, text, rest + 1));
    else if (*rest) TRY(err_raise(ERR_BAD_CONFIG, "%s %s: needed [IPV6]:PORT", what, text));
out:
    return rc;
}

enum err address_parse(struct address *a, const char *what, const char *text)
{
    if (*text == '[') {
        size_t n = strcspn(text + 1, "]");
        if (!text[1 + n]) return err_raise(ERR_BAD_CONFIG, "%s %s: the bracket is not closed: needed [IPV6]:PORT", what, text);
        return parts(a, what, text, text + 1, n, text + n + 2);
    }
    const char *colon = strchr(text, ':');
    if (colon && strchr(colon + 1, ':'))
        return err_raise(ERR_BAD_CONFIG, "%s %s: an IPv6 address stands in brackets: [ADDRESS]:PORT", what, text);
    return parts(a, what, text, text, colon ? (size_t)(colon - text) : strlen(text), colon ? colon : "");
}

enum err address_host(char host[ADDRESS_HOST], const char *what, const char *text)
{
    enum err rc;
    struct address a;
    const char *colon = strchr(text, ':');
    if (*text != '[' && colon && strchr(colon + 1, ':')) { /* an IPv6 address as it is */
        if (strlen(text) >= ADDRESS_HOST) return err_raise(ERR_BAD_CONFIG, "%s %s: too long for an address", what, text);
        strcpy(host, text);
        return OK;
    }
    TRY(address_parse(&a, what, text));
    if (a.port >= 0) TRY(err_raise(ERR_BAD_CONFIG, "%s %s: needed an address without a port (that is --port's)", what, text));
    strcpy(host, a.host);
out:
    return rc;
}

char *address_text(char out[ADDRESS_TEXT], const char *host, int32_t port)
{
    bool six = strchr(host, ':');
    snprintf(out, ADDRESS_TEXT, "%s%.*s%s:%d", six ? "[" : "", ADDRESS_HOST - 1, host, six ? "]" : "", port);
    return out;
}
