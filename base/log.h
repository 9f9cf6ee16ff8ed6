/* log.h: levelled lines on stderr.
 *
 * error: gave up; warn: coped; info: lifecycle, bounded per process; debug: per request.
 * A line: time, level, component, who (set once per process, e.g. "rank 1"), text with values and units.
 * Thr: any. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/base.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level max);
/* "error" | "warn" | "info" | "debug" -> level; -1 if unknown. */
int log_level_parse(const char *s);
void log_set_who(const char *who); /* e.g. "coordinator", "rank 1"; copied */
void log_line(enum log_level level, const char *component, const char *fmt, ...) PRINTF(3, 4);

#define log_error(c, ...) log_line(LOG_ERROR, c, __VA_ARGS__)
#define log_warn(c, ...)  log_line(LOG_WARN, c, __VA_ARGS__)
#define log_info(c, ...)  log_line(LOG_INFO, c, __VA_ARGS__)
#define log_debug(c, ...) log_line(LOG_DEBUG, c, __VA_ARGS__)

#endif
