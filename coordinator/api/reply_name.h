/* reply_name.h: the names of called functions as models write them, and the ids we give to calls.
 * Private to reply.c and its tests. */
#ifndef COORDINATOR_API_REPLY_NAME_H
#define COORDINATOR_API_REPLY_NAME_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

enum { REPLY_NAME_MAX = 128, REPLY_NAME_SEP = 0x1f };

/* What stands before a call's '{', each mark in it replaced by one REPLY_NAME_SEP -> the function's
 * name, or "" when there is none (the name is inside the braces). False: this begins no call. */
bool crd_reply_name_of(const char *head, size_t n, char name[REPLY_NAME_MAX]);
/* Letters, digits, '_', '-', '.'; not empty. */
bool crd_reply_name_good(const char *name);
/* Is it one of the tools of a request? */
bool crd_reply_offered(const json_t *tools, const char *name);
/* "chatcmpl-tool-" and 32 digits, or nine letters and digits: a function of the seed and of which call
 * it is, so that an answer that is told again names its calls the same. */
void crd_reply_draw_id(char id[48], bool short_id, uint64_t seed, int32_t call);

#endif
