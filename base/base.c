/* base.c: the failing ends of base.h. */
#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void base_assert_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "tessera: bug: %s at %s:%d (please report this line)\n", what, file, line);
    abort();
}

static void *checked(void *p, size_t n)
{
    if (!p && n) {
        fprintf(stderr, "tessera: out of memory: %zu bytes refused by the system\n", n);
        abort();
    }
    return p;
}

void *xmalloc(size_t n) { return checked(malloc(n), n); }
void *xcalloc(size_t n, size_t size) { return checked(calloc(n, size), n && size ? n * size : 0); }
void *xrealloc(void *p, size_t n) { return checked(realloc(p, n), n); }
char *xstrdup(const char *s) { return checked(strdup(s), 1); }
char *xstrndup(const char *s, size_t n) { return checked(strndup(s, n), 1); }

char *xasprintf(const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    return checked(n < 0 ? NULL : s, 1);
}
