/* err.c: the table of err.h and the thread's last sentence. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char last[1024];

const char *err_name(enum err e)
{
    switch (e) {
    case OK: return "OK";
#define X(name, code, radius, text)                                                                \
    case ERR_##name: return #name;
        ERR_MAP(X)
#undef X
    }
    return "UNKNOWN";
}

const char *err_short(enum err e)
{
    switch (e) {
    case OK: return "no error";
#define X(name, code, radius, text)                                                                \
    case ERR_##name: return text;
        ERR_MAP(X)
#undef X
    }
    return "unknown error";
}

enum err_radius err_radius(enum err e)
{
    switch (e) {
    case OK: return RADIUS_REQUEST;
#define X(name, code, radius, text)                                                                \
    case ERR_##name: return RADIUS_##radius;
        ERR_MAP(X)
#undef X
    }
    return RADIUS_PROCESS;
}

void err_set_text(const char *fmt, ...)
{
    char text[sizeof last];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap); /* not straight into `last`: it may be an argument */
    va_end(ap);
    memcpy(last, text, sizeof last);
}

const char *err_text(void) { return last; }

enum err err_prefix(enum err e, const char *fmt, ...)
{
    char text[sizeof last];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text - 3) return e;
    snprintf(text + n, sizeof text - (size_t)n, ": %.*s", (int)(sizeof text - (size_t)n - 3), last);
    memcpy(last, text, sizeof last);
    return e;
}
