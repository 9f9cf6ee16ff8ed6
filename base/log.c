/* log.c: one write(2) per line, so lines of several processes on one terminal do not mix; and a line is one line, whoever its words are from. */
#include "base/log.h"

#include "base/plain.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static _Atomic int max_level = LOG_INFO;
static char who[48];

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void log_set_level(enum log_level max) { atomic_store(&max_level, (int)max); }

int log_level_parse(const char *s)
{
    for (int i = 0; i < (int)COUNT_OF(level_names); i++)
        if (!strcmp(s, level_names[i])) return i;
    return -1;
}

void log_set_who(const char *w) { snprintf(who, sizeof who, "%s", w); }

void log_line(enum log_level level, const char *component, const char *fmt, ...)
{
    if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed)) return;
    char line[2048], text[2048];
    struct timespec ts;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &ts);
    localtime_r(&ts.tv_sec, &tm);
    int n = snprintf(line, sizeof line, "%02d:%02d:%02d.%03ld %-5s %s%s%s: ", tm.tm_hour, tm.tm_min,
                     tm.tm_sec, ts.tv_nsec / 1000000, level_names[level], component,
                     who[0] ? " " : "", who);
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    plain(line + n, sizeof line - (size_t)n - 1, text, MIN((size_t)MAX(m, 0), sizeof text - 1));
    size_t len = strlen(line);
    line[len++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, len);
    (void)ignored;
}
