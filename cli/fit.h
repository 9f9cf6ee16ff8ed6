/* fit.h: do two starts fit? Numbers of what was asked for: they differ when one of the options that matter does. A coordinator that finds another's
 * state asks them (coordinator/takeover.c). */
#ifndef CLI_FIT_H
#define CLI_FIT_H

#include "cli/placement.h"

/* Of all that decides what workers load, and of all that decides an answer's bits. p: opened. */
uint64_t fit_load(const struct common_options *o, const struct placement *p);
uint64_t fit_answers(const struct common_options *o, const struct placement *p, const char *chat_template, const char *sampling);

#endif
