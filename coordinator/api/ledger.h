/* ledger.h: what every answer used, and whom keys and limits turned away, one line of JSON each, in a file that is only ever appended to.
 *
 *   {"time":"2026-11-28T12:00:00.123Z","id":"...","key":"anna","path":"/v1/chat/completions","status":200,"prompt_tokens":12,
 *    "cached_tokens":0,"completion_tokens":40,"reasoning_tokens":0,"first_token_seconds":0.021,"seconds":0.531}
 *
 * "adapter":"name" follows the path where a LoRA adapter answered.
 * key: null without keys, and of who has none. first_token_seconds: null if no token came. status 499: the client left first; what it had by then is
 * counted. A thread writes, so that a slow disk keeps nobody
 * waiting; a file that was moved away is opened anew under its name. The same is said at log level debug. Thr: open, close: one; add: any. */
#ifndef COORDINATOR_API_LEDGER_H
#define COORDINATOR_API_LEDGER_H

#include "base/err.h"

#include <stdint.h>

struct crd_ledger_entry {
    const char *id, *key, *path; /* key NULL: nobody's */
    const char *adapter;         /* of the LoRA adapter that answered; NULL: the model alone */
    int32_t status;
    int64_t n_prompt, n_cached, n_completion, n_thought;
    int64_t us, first_us; /* from its arrival to now, and to its first token; 0: none came */
};

struct crd_ledger;
/* Err IO: the file cannot be written, and why. */
MUST_USE enum err crd_ledger_open(struct crd_ledger **out, const char *path);
/* Writes what is still to be written. NULL-safe. */
void crd_ledger_close(struct crd_ledger *l);
/* l NULL: only the log is told. */
void crd_ledger_add(struct crd_ledger *l, const struct crd_ledger_entry *e);

#endif
