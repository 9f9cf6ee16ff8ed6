/* generate_batch.h: offline batches for `tessera generate`: OpenAI batch lines in, result lines out, resumable. */
#ifndef CLI_GENERATE_BATCH_H
#define CLI_GENERATE_BATCH_H

#include "coordinator/core.h"

/* The files can be read and written, the output is ours (or new) and nobody else's, and they are two. Changes nothing. */
MUST_USE enum err generate_batch_check(const char *in_path, const char *out_path);

enum { GENERATE_BATCH_MOST = 4096 }; /* lines in work at once */

/* Answer every line of in_path that out_path does not hold yet (matched by custom_id, status 200), `concurrency` at once, at most
 * GENERATE_BATCH_MOST; results are appended as they finish, each flushed whole. stop: asked now and then; true: no line more is begun. Err IO,
 * BAD_REQUEST (a line is no batch line: its number). *n_done: lines
 * answered, *n_failed: those of them with an error; also after an error. */
MUST_USE enum err generate_batch(struct crd_api *api, const char *in_path, const char *out_path, int32_t concurrency, bool (*stop)(void),
                                 int64_t *n_done, int64_t *n_failed);

#endif
